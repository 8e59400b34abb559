// Proves padded shared-memory tiles, one block serving several rows and element types of 1, 2, 4, 8 and 16 bytes
// (vector loads and stores): a transposed matrix, and its transpose again.
#include <vector>

#include "common.h"

constexpr int TILE = 32, ROWS = 8;

template <typename T>
__global__ void transpose(const T *in, T *out, int width, int height) {
    __shared__ T tile[TILE][TILE + 1];
    int x = blockIdx.x * TILE + threadIdx.x, y = blockIdx.y * TILE + threadIdx.y;
    for (int j = 0; j < TILE; j += ROWS)
        if (x < width && y + j < height) tile[threadIdx.y + j][threadIdx.x] = in[(y + j) * width + x];
    __syncthreads();
    x = blockIdx.y * TILE + threadIdx.x;
    y = blockIdx.x * TILE + threadIdx.y;
    for (int j = 0; j < TILE; j += ROWS)
        if (x < height && y + j < width) out[(y + j) * height + x] = tile[threadIdx.x][threadIdx.y + j];
}

template <typename T>
void check(const char *name, int width, int height) {
    size_t size = sizeof(T) * width * height;
    std::vector<unsigned char> host(size), once(size), twice(size);
    Random random(sizeof(T));
    for (unsigned char &x : host) x = static_cast<unsigned char>(random.bits());
    T *a, *b;
    CHECK(cudaMalloc(&a, size));
    CHECK(cudaMalloc(&b, size));
    CHECK(cudaMemcpy(a, host.data(), size, cudaMemcpyHostToDevice));
    dim3 block(TILE, ROWS);
    transpose<<<dim3(divide_up(width, TILE), divide_up(height, TILE)), block>>>(a, b, width, height);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(once.data(), b, size, cudaMemcpyDeviceToHost));
    CHECK(cudaMemset(a, 0, size));
    transpose<<<dim3(divide_up(height, TILE), divide_up(width, TILE)), block>>>(b, a, height, width);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(twice.data(), a, size, cudaMemcpyDeviceToHost));
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x)
            if (std::memcmp(&once[(x * height + y) * sizeof(T)], &host[(y * width + x) * sizeof(T)], sizeof(T)))
                fail("%s: element (%d, %d) is wrong", name, x, y);
    REQUIRE(twice == host);
    std::printf("%s: %d x %d\n", name, width, height);
    CHECK(cudaFree(a));
    CHECK(cudaFree(b));
}

int main() {
    check<unsigned char>("1 byte", 100, 70);
    check<unsigned short>("2 bytes", 65, 64);
    check<float>("4 bytes", 96, 80);
    check<double>("8 bytes", 33, 97);
    check<float4>("16 bytes", 40, 50);
    return pass();
}
