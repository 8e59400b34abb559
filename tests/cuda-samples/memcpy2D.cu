// Proves pitched copies: two-dimensional in all directions with different pitches and offsets, asynchronous from
// pinned memory, and three-dimensional boxes; the bytes between the rows stay as they are.
#include <vector>

#include "common.h"

__global__ void scale(float *data, size_t pitch, int width, int height) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y;
    if (x < width && y < height) {
        float *row = reinterpret_cast<float *>(reinterpret_cast<char *>(data) + y * pitch);
        row[x] = row[x] * 2 + y;
    }
}

int main() {
    const int width = 75, height = 40;
    size_t row = width * sizeof(float), pitch = 0, host_pitch = 512;
    std::vector<float> host(host_pitch / 4 * height, -1.0f), back(width * height, 0.0f);
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) host[y * host_pitch / 4 + x] = static_cast<float>(y * 1000 + x);
    float *a, *b;
    CHECK(cudaMallocPitch(&a, &pitch, row, height));
    CHECK(cudaMalloc(&b, row * height));
    CHECK(cudaMemcpy2D(a, pitch, host.data(), host_pitch, row, height, cudaMemcpyHostToDevice));
    scale<<<dim3(divide_up(width, 64), height), 64>>>(a, pitch, width, height);
    CHECK_LAUNCH();
    // To an array without gaps on the device, then one copy to the host.
    CHECK(cudaMemcpy2D(b, row, a, pitch, row, height, cudaMemcpyDeviceToDevice));
    CHECK(cudaMemcpy(back.data(), b, row * height, cudaMemcpyDeviceToHost));
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) REQUIRE(back[y * width + x] == 2.0f * (y * 1000 + x) + y);
    std::printf("to the device, on the device, back\n");

    // A window, straight to the host; only the window changes there.
    CHECK(cudaMemcpy2D(&host[2 * host_pitch / 4 + 7], host_pitch, reinterpret_cast<char *>(a) + 10 * pitch + 20 * sizeof(float), pitch,
                       30 * sizeof(float), 5, cudaMemcpyDeviceToHost));
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < static_cast<int>(host_pitch / 4); ++x) {
            float want = x < width ? static_cast<float>(y * 1000 + x) : -1.0f;
            if (y >= 2 && y < 7 && x >= 7 && x < 37) want = 2.0f * ((y + 8) * 1000 + x + 13) + (y + 8);
            if (host[y * host_pitch / 4 + x] != want) fail("(%d, %d) is %g, expected %g", x, y, host[y * host_pitch / 4 + x], want);
        }
    std::printf("a window\n");

    cudaStream_t stream;
    float *pinned;
    CHECK(cudaStreamCreate(&stream));
    CHECK(cudaMallocHost(&pinned, host_pitch * height));
    for (size_t i = 0; i < host_pitch / 4 * height; ++i) pinned[i] = static_cast<float>(i);
    CHECK(cudaMemcpy2DAsync(a, pitch, pinned, host_pitch, row, height, cudaMemcpyHostToDevice, stream));
    scale<<<dim3(divide_up(width, 64), height), 64, 0, stream>>>(a, pitch, width, height);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy2DAsync(pinned, host_pitch, a, pitch, row, height, cudaMemcpyDeviceToHost, stream));
    CHECK(cudaStreamSynchronize(stream));
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < static_cast<int>(host_pitch / 4); ++x) {
            size_t i = y * host_pitch / 4 + x;
            REQUIRE(pinned[i] == (x < width ? 2.0f * static_cast<float>(i) + y : static_cast<float>(i)));
        }
    std::printf("asynchronous\n");
    cudaError_t error = cudaMemcpy2D(a, row - 4, b, row, row, height, cudaMemcpyDeviceToDevice);
    std::printf("a pitch below the width: %s\n", cudaGetErrorName(error));
    REQUIRE(error == cudaErrorInvalidPitchValue || error == cudaErrorInvalidValue);
    cudaGetLastError();

    // A box of 12 x 5 x 4 floats into the middle of a volume.
    cudaPitchedPtr volume;
    cudaExtent extent = make_cudaExtent(20 * sizeof(float), 10, 8);
    std::vector<float> box(12 * 5 * 4), all(20 * 10 * 8, -5.0f);
    for (size_t i = 0; i < box.size(); ++i) box[i] = static_cast<float>(i) + 0.5f;
    CHECK(cudaMalloc3D(&volume, extent));
    cudaMemcpy3DParms copy = {};
    copy.srcPtr = make_cudaPitchedPtr(all.data(), 20 * sizeof(float), 20 * sizeof(float), 10);
    copy.dstPtr = volume;
    copy.extent = extent;
    copy.kind = cudaMemcpyHostToDevice;
    CHECK(cudaMemcpy3D(&copy));
    copy.srcPtr = make_cudaPitchedPtr(box.data(), 12 * sizeof(float), 12 * sizeof(float), 5);
    copy.dstPos = make_cudaPos(4 * sizeof(float), 3, 2);
    copy.extent = make_cudaExtent(12 * sizeof(float), 5, 4);
    CHECK(cudaMemcpy3D(&copy));
    copy = {};
    copy.srcPtr = volume;
    copy.dstPtr = make_cudaPitchedPtr(all.data(), 20 * sizeof(float), 20 * sizeof(float), 10);
    copy.extent = extent;
    copy.kind = cudaMemcpyDeviceToHost;
    CHECK(cudaMemcpy3D(&copy));
    for (int z = 0; z < 8; ++z)
        for (int y = 0; y < 10; ++y)
            for (int x = 0; x < 20; ++x) {
                bool inside = x >= 4 && x < 16 && y >= 3 && y < 8 && z >= 2 && z < 6;
                float want = inside ? ((z - 2) * 5 + y - 3) * 12 + (x - 4) + 0.5f : -5.0f;
                if (all[(z * 10 + y) * 20 + x] != want) fail("(%d, %d, %d) is %g, expected %g", x, y, z, all[(z * 10 + y) * 20 + x], want);
            }
    std::printf("a box\n");
    CHECK(cudaFree(volume.ptr));
    CHECK(cudaFree(a));
    CHECK(cudaFree(b));
    CHECK(cudaFreeHost(pinned));
    CHECK(cudaStreamDestroy(stream));
    return pass();
}
