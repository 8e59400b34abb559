// Proves halo handling with shared memory and a filter in constant memory: a separable convolution (rows, then
// columns) against a two-dimensional one on the CPU; small integers in floats, so the result is exact.
#include <vector>

#include "common.h"

constexpr int RADIUS = 4, TAPS = 2 * RADIUS + 1, BLOCK = 32;

__constant__ float filter[TAPS];

template <bool ROWS>
__global__ void convolve(const float *in, float *out, int width, int height) {
    __shared__ float line[4][BLOCK + 2 * RADIUS];
    // Along the filter: x of the thread; across: y.
    int along = blockIdx.x * BLOCK + threadIdx.x, across = blockIdx.y * blockDim.y + threadIdx.y;
    int length = ROWS ? width : height, lines = ROWS ? height : width;
    auto at = [=](int a) { return a >= 0 && a < length && across < lines ? in[ROWS ? across * width + a : a * width + across] : 0.0f; };
    line[threadIdx.y][threadIdx.x + RADIUS] = at(along);
    if (threadIdx.x < RADIUS) {
        line[threadIdx.y][threadIdx.x] = at(along - RADIUS);
        line[threadIdx.y][threadIdx.x + BLOCK + RADIUS] = at(along + BLOCK);
    }
    __syncthreads();
    if (along >= length || across >= lines) return;
    float sum = 0;
#pragma unroll
    for (int k = 0; k < TAPS; ++k) sum += line[threadIdx.y][threadIdx.x + k] * filter[k];
    out[ROWS ? across * width + along : along * width + across] = sum;
}

int main() {
    const int width = 90, height = 61;
    float taps[TAPS];
    std::vector<float> image(width * height), want(width * height), got(width * height);
    Random random(12);
    for (int k = 0; k < TAPS; ++k) taps[k] = static_cast<float>(k * (TAPS - k) % 5 + 1);
    for (float &x : image) x = static_cast<float>(random.bits() % 16);
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) {
            float sum = 0;
            for (int j = -RADIUS; j <= RADIUS; ++j)
                for (int i = -RADIUS; i <= RADIUS; ++i)
                    if (y + j >= 0 && y + j < height && x + i >= 0 && x + i < width)
                        sum += image[(y + j) * width + x + i] * taps[RADIUS + i] * taps[RADIUS + j];
            want[y * width + x] = sum;
        }
    size_t size = width * height * sizeof(float);
    float *a, *b;
    CHECK(cudaMalloc(&a, size));
    CHECK(cudaMalloc(&b, size));
    CHECK(cudaMemcpyToSymbol(filter, taps, sizeof(taps)));
    CHECK(cudaMemcpy(a, image.data(), size, cudaMemcpyHostToDevice));
    convolve<true><<<dim3(divide_up(width, BLOCK), divide_up(height, 4)), dim3(BLOCK, 4)>>>(a, b, width, height);
    CHECK_LAUNCH();
    convolve<false><<<dim3(divide_up(height, BLOCK), divide_up(width, 4)), dim3(BLOCK, 4)>>>(b, a, width, height);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(got.data(), a, size, cudaMemcpyDeviceToHost));
    require_equal("pixel", got.data(), want.data(), got.size());
    std::printf("%d x %d, %d taps, checksum %016llx\n", width, height, TAPS, static_cast<unsigned long long>(checksum(got.data(), size)));
    CHECK(cudaFree(a));
    CHECK(cudaFree(b));
    return pass();
}
