// Proves memory setting: one-dimensional at odd addresses and lengths, two-dimensional with pitch, three-dimensional,
// asynchronous in stream order with kernels, and that nothing outside the region changes.
#include <vector>

#include "common.h"

__global__ void add_one(unsigned char *data, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) ++data[i];
}

int main() {
    const int count = 5000;
    unsigned char *data;
    std::vector<unsigned char> got(count), want(count, 0xaa);
    CHECK(cudaMalloc(&data, count));
    CHECK(cudaMemset(data, 0xaa, count));
    struct { int at, length, value; } pieces[] = {{0, 1, 1}, {1, 3, 2}, {7, 13, 3}, {64, 64, 4}, {1023, 2049, 5}, {4999, 1, 6}, {100, 0, 7}, {3500, 999, 0x1ff}};
    for (auto piece : pieces) {
        CHECK(cudaMemset(data + piece.at, piece.value, piece.length));
        std::memset(&want[piece.at], piece.value, piece.length);
    }
    CHECK(cudaMemcpy(got.data(), data, count, cudaMemcpyDeviceToHost));
    require_equal("byte", got.data(), want.data(), count);
    std::printf("one-dimensional: checksum %016llx\n", static_cast<unsigned long long>(checksum(got.data(), count)));

    cudaStream_t stream;
    CHECK(cudaStreamCreate(&stream));
    for (int round = 0; round < 10; ++round) {
        CHECK(cudaMemsetAsync(data, round * 20, count, stream));
        for (int k = 0; k < 3; ++k) add_one<<<divide_up(count, 256), 256, 0, stream>>>(data, count);
        CHECK_LAUNCH();
        CHECK(cudaMemsetAsync(data + count / 2, round, 100, stream));
    }
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaMemcpy(got.data(), data, count, cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; ++i) REQUIRE(got[i] == (i >= count / 2 && i < count / 2 + 100 ? 9 : 183));
    std::printf("asynchronous, in stream order\n");
    CHECK(cudaFree(data));

    // 37 rows of 100 bytes; the bytes between the rows stay as they are.
    const int rows = 37, width = 100;
    size_t pitch = 0;
    CHECK(cudaMallocPitch(&data, &pitch, width, rows));
    REQUIRE(pitch >= width && pitch % 32 == 0);
    CHECK(cudaMemset(data, 0x11, pitch * rows));
    CHECK(cudaMemset2D(data, pitch, 0x22, width, rows));
    CHECK(cudaMemset2DAsync(data + 3 * pitch + 5, pitch, 0x33, 10, 4, stream));
    CHECK(cudaStreamSynchronize(stream));
    got.resize(pitch * rows);
    CHECK(cudaMemcpy(got.data(), data, got.size(), cudaMemcpyDeviceToHost));
    for (int y = 0; y < rows; ++y)
        for (int x = 0; x < static_cast<int>(pitch); ++x) {
            int expected = x >= width ? 0x11 : y >= 3 && y < 7 && x >= 5 && x < 15 ? 0x33 : 0x22;
            if (got[y * pitch + x] != expected) fail("row %d, byte %d is %#x, expected %#x", y, x, got[y * pitch + x], expected);
        }
    std::printf("two-dimensional\n");
    CHECK(cudaFree(data));

    cudaPitchedPtr volume;
    cudaExtent extent = make_cudaExtent(48, 6, 5);
    CHECK(cudaMalloc3D(&volume, extent));
    CHECK(cudaMemset3D(volume, 0x44, extent));
    cudaPitchedPtr corner = volume;
    corner.ptr = static_cast<char *>(volume.ptr) + 2 * volume.pitch + 8;
    CHECK(cudaMemset3D(corner, 0x55, make_cudaExtent(16, 3, 2)));
    got.resize(volume.pitch * 6 * 5);
    CHECK(cudaMemcpy(got.data(), volume.ptr, got.size(), cudaMemcpyDeviceToHost));
    for (int z = 0; z < 5; ++z)
        for (int y = 0; y < 6; ++y)
            for (int x = 0; x < 48; ++x) {
                int expected = z < 2 && y >= 2 && y < 5 && x >= 8 && x < 24 ? 0x55 : 0x44;
                if (got[(z * 6 + y) * volume.pitch + x] != expected) fail("(%d, %d, %d) is %#x, expected %#x", x, y, z, got[(z * 6 + y) * volume.pitch + x], expected);
            }
    std::printf("three-dimensional\n");
    CHECK(cudaFree(volume.ptr));
    CHECK(cudaStreamDestroy(stream));
    return pass();
}
