// Proves a failing device assert: the synchronising call returns cudaErrorAssert, the message names file, line,
// condition, block and thread on standard error, the error is sticky, and the program goes on to its own end.
#include <cassert>

#include "common.h"

__global__ void check_below(const int *data, int limit) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    assert(data[i] < limit);
}

int main() {
    const int count = 64;
    int host[count], *device;
    for (int i = 0; i < count; ++i) host[i] = i;
    CHECK(cudaMalloc(&device, sizeof(host)));
    CHECK(cudaMemcpy(device, host, sizeof(host), cudaMemcpyHostToDevice));

    check_below<<<2, 32>>>(device, count);
    CHECK_LAUNCH();
    CHECK(cudaDeviceSynchronize());
    std::printf("assert that holds: no error\n");

    // Threads 28 to 31 of block 1 fail.
    check_below<<<2, 32>>>(device, count - 4);
    CHECK_LAUNCH();
    cudaError_t error = cudaDeviceSynchronize();
    std::printf("assert that fails: %s (%d)\n", cudaGetErrorName(error), static_cast<int>(error));
    REQUIRE(error == cudaErrorAssert);
    // Sticky: nothing works in this process any more, and reading the error does not clear it.
    EXPECT(cudaErrorAssert, cudaGetLastError());
    EXPECT(cudaErrorAssert, cudaDeviceSynchronize());
    void *more = nullptr;
    EXPECT(cudaErrorAssert, cudaMalloc(&more, 16));
    EXPECT(cudaErrorAssert, cudaMemcpy(host, device, sizeof(host), cudaMemcpyDeviceToHost));
    std::printf("sticky\n");
    return pass();
}
