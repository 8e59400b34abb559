// Proves warp shuffles (down and xor), shared memory between warps and a second launch that reads the first one's
// result: integer sums are exact, float maxima too, float sums are compared with a double.
#include <vector>

#include "common.h"

// Sums `value` over the block; the result is valid in thread 0. The block is a multiple of the warp.
template <typename T>
__device__ T block_sum(T value) {
    __shared__ T warps[32];
    for (int step = warpSize / 2; step > 0; step /= 2) value += __shfl_down_sync(0xffffffffu, value, step);
    int lane = threadIdx.x % warpSize, warp = threadIdx.x / warpSize;
    if (lane == 0) warps[warp] = value;
    __syncthreads();
    value = threadIdx.x < blockDim.x / warpSize ? warps[lane] : T(0);
    if (warp == 0)
        for (int step = warpSize / 2; step > 0; step /= 2) value += __shfl_down_sync(0xffffffffu, value, step);
    return value;
}

template <typename T>
__global__ void sum(const T *in, T *out, int count) {
    T mine = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) mine += in[i];
    mine = block_sum(mine);
    if (threadIdx.x == 0) out[blockIdx.x] = mine;
}

// The maximum of each warp's 32 elements, by the butterfly: every lane ends with it.
__global__ void warp_maximum(const float *in, float *out) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float value = in[i];
    for (int mask = 16; mask > 0; mask /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, mask));
    out[i] = value;
}

template <typename T>
T reduce(const std::vector<T> &host) {
    T *in, *out, result;
    int blocks = 24;
    CHECK(cudaMalloc(&in, host.size() * sizeof(T)));
    CHECK(cudaMalloc(&out, blocks * sizeof(T)));
    CHECK(cudaMemcpy(in, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
    sum<T><<<blocks, 128>>>(in, out, static_cast<int>(host.size()));
    CHECK_LAUNCH();
    sum<T><<<1, 32>>>(out, out, blocks);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(&result, out, sizeof(T), cudaMemcpyDeviceToHost));
    CHECK(cudaFree(in));
    CHECK(cudaFree(out));
    return result;
}

int main(int argc, char **argv) {
    int count = argument(argc, argv, 1, 40001);
    Random random(3);
    std::vector<int> ints(count);
    std::vector<float> floats(count);
    std::vector<unsigned long long> longs(count);
    long long int_sum = 0;
    unsigned long long long_sum = 0;
    double float_sum = 0;
    for (int i = 0; i < count; ++i) {
        ints[i] = static_cast<int>(random.bits() % 2001) - 1000;
        longs[i] = random.next();
        floats[i] = random.uniform();
        int_sum += ints[i];
        long_sum += longs[i];
        float_sum += floats[i];
    }
    int got_int = reduce(ints);
    std::printf("int sum %d\n", got_int);
    REQUIRE(got_int == int_sum);
    unsigned long long got_long = reduce(longs);
    std::printf("64-bit sum %llu\n", got_long);
    REQUIRE(got_long == long_sum);
    float got_float = reduce(floats), want_float = static_cast<float>(float_sum);
    require_close("float sum", &got_float, &want_float, 1, 1e-5, 0);

    const int lanes = 256;
    float *in, *out;
    CHECK(cudaMalloc(&in, lanes * sizeof(float)));
    CHECK(cudaMalloc(&out, lanes * sizeof(float)));
    CHECK(cudaMemcpy(in, floats.data(), lanes * sizeof(float), cudaMemcpyHostToDevice));
    warp_maximum<<<2, lanes / 2>>>(in, out);
    CHECK_LAUNCH();
    std::vector<float> got(lanes), want(lanes);
    CHECK(cudaMemcpy(got.data(), out, lanes * sizeof(float), cudaMemcpyDeviceToHost));
    for (int i = 0; i < lanes; ++i) {
        want[i] = floats[i / 32 * 32];
        for (int j = i / 32 * 32; j < i / 32 * 32 + 32; ++j) want[i] = std::fmax(want[i], floats[j]);
    }
    require_equal("warp maximum", got.data(), want.data(), lanes);
    CHECK(cudaFree(in));
    CHECK(cudaFree(out));
    return pass();
}
