// Proves shared memory sized at launch: within 48 KiB at once, beyond it only after cudaFuncSetAttribute, up to the
// device's opt-in limit and not past it, together with static shared memory in the same kernel.
#include <vector>

#include "common.h"

__global__ void rotate(const int *in, int *out, int count, int by) {
    __shared__ int shift;
    extern __shared__ int buffer[];
    if (threadIdx.x == 0) shift = by % count;
    for (int i = threadIdx.x; i < count; i += blockDim.x) buffer[i] = in[i];
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += blockDim.x) out[i] = buffer[(i + shift) % count];
}

void check(int bytes) {
    int count = bytes / static_cast<int>(sizeof(int));
    std::vector<int> host(count), got(count);
    for (int i = 0; i < count; ++i) host[i] = i * i;
    int *in, *out;
    CHECK(cudaMalloc(&in, bytes));
    CHECK(cudaMalloc(&out, bytes));
    CHECK(cudaMemcpy(in, host.data(), bytes, cudaMemcpyHostToDevice));
    rotate<<<1, 256, bytes>>>(in, out, count, 1001);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(got.data(), out, bytes, cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; ++i) REQUIRE(got[i] == host[(i + 1001) % count]);
    std::printf("%d bytes\n", bytes);
    CHECK(cudaFree(in));
    CHECK(cudaFree(out));
}

int main() {
    int opt_in = 0, plain = 0;
    CHECK(cudaDeviceGetAttribute(&plain, cudaDevAttrMaxSharedMemoryPerBlock, 0));
    CHECK(cudaDeviceGetAttribute(&opt_in, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    std::printf("48 KiB plain: %s, more by opting in: %s\n", plain == 48 << 10 ? "yes" : "no", opt_in > plain ? "yes" : "no");
    check(1024);
    check(40 << 10);
    rotate<<<1, 256, 64 << 10>>>(nullptr, nullptr, 1, 0);
    cudaError_t error = cudaGetLastError();
    std::printf("64 KiB without opting in: %s\n", cudaGetErrorName(error));
    REQUIRE(error == cudaErrorInvalidValue);
    cudaFuncAttributes attributes;
    CHECK(cudaFuncGetAttributes(&attributes, rotate));
    // The static variable counts against the limit too.
    int most = opt_in - static_cast<int>(attributes.sharedSizeBytes);
    CHECK(cudaFuncSetAttribute(rotate, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 << 10));
    check(64 << 10);
    CHECK(cudaFuncSetAttribute(rotate, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
    CHECK(cudaFuncGetAttributes(&attributes, rotate));
    REQUIRE(attributes.maxDynamicSharedSizeBytes == most);
    check(most / 16 * 16);
    error = cudaFuncSetAttribute(rotate, cudaFuncAttributeMaxDynamicSharedMemorySize, opt_in + 1);
    std::printf("past the opt-in limit: %s\n", cudaGetErrorName(error));
    REQUIRE(error == cudaErrorInvalidValue);
    cudaGetLastError();
    CHECK(cudaFuncSetAttribute(rotate, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared));
    check(40 << 10);
    return pass();
}
