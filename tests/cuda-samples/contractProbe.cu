// Proves the contract between the driver library and one CUDA runtime: linked with every runtime from 11.8 to 13.5,
// static and shared, it touches each part of that contract once: start-up, allocation, copies, launches, streams,
// events, symbols, function attributes, errors, reset and the way out. Only functions that all these runtimes have,
// and no structure whose layout changed. Built with __NV_LEGACY_LAUNCH: the newer launch sequence needs a 12.1 runtime.
#include "common.h"

#define ERROR_INVALID_VALUE 1

__constant__ int factor = 3;
__device__ int total;

__global__ void scale(const int *in, int *out, int count) {
    extern __shared__ int buffer[];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    buffer[threadIdx.x] = i < count ? in[i] * factor : 0;
    __syncthreads();
    if (i < count) out[i] = buffer[threadIdx.x];
    if (threadIdx.x == 0) {
        int sum = 0;
        for (int k = 0; k < blockDim.x; ++k) sum += buffer[k];
        atomicAdd(&total, sum);
    }
}

// One whole use of the device; `round` changes the data.
static void use(int round) {
    const int count = 300, bytes = count * static_cast<int>(sizeof(int));
    int host[count], result[count], *in, *out, *pinned, seven = 7 + round, sum = 0, zero = 0;
    for (int i = 0; i < count; ++i) host[i] = i + round;
    CHECK(cudaMalloc(reinterpret_cast<void **>(&in), bytes));
    CHECK(cudaMalloc(reinterpret_cast<void **>(&out), bytes));
    CHECK(cudaMallocHost(reinterpret_cast<void **>(&pinned), bytes));
    CHECK(cudaMemset(out, 0, bytes));
    CHECK(cudaMemcpy(in, host, bytes, cudaMemcpyHostToDevice));
    scale<<<divide_up(count, 64), 64, 64 * sizeof(int)>>>(in, out, count);
    CHECK_LAUNCH();
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaMemcpy(result, out, bytes, cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; ++i) REQUIRE(result[i] == host[i] * 3);
    CHECK(cudaMemcpyFromSymbol(&sum, total, sizeof(sum)));
    REQUIRE(sum == 3 * (count * (count - 1) / 2 + count * round));
    std::printf("round %d: copy, launch, symbol\n", round);

    cudaStream_t stream;
    cudaEvent_t begin, end;
    float milliseconds = -1;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreateWithFlags(&end, cudaEventDefault));
    CHECK(cudaMemcpyToSymbol(factor, &seven, sizeof(seven)));
    CHECK(cudaMemcpyToSymbol(total, &zero, sizeof(zero)));
    for (int i = 0; i < count; ++i) pinned[i] = host[i];
    CHECK(cudaEventRecord(begin, stream));
    CHECK(cudaMemcpyAsync(in, pinned, bytes, cudaMemcpyHostToDevice, stream));
    scale<<<divide_up(count, 64), 64, 64 * sizeof(int), stream>>>(in, out, count);
    CHECK_LAUNCH();
    CHECK(cudaMemcpyAsync(pinned, out, bytes, cudaMemcpyDeviceToHost, stream));
    CHECK(cudaEventRecord(end, stream));
    CHECK(cudaStreamWaitEvent(stream, end, 0));
    CHECK(cudaEventSynchronize(end));
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaStreamQuery(stream));
    CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
    REQUIRE(milliseconds >= 0);
    for (int i = 0; i < count; ++i) REQUIRE(pinned[i] == host[i] * seven);
    std::printf("round %d: streams, events, pinned memory\n", round);

    int block = 0, device = -1, devices = 0, warp = 0;
    CHECK(cudaGetDeviceCount(&devices));
    CHECK(cudaGetDevice(&device));
    CHECK(cudaDeviceGetAttribute(&warp, cudaDevAttrWarpSize, device));
    CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&block, scale, 64, 256));
    REQUIRE(devices >= 1 && device == 0 && warp == 32 && block >= 1);
    REQUIRE(cudaFree(host) == ERROR_INVALID_VALUE);
    REQUIRE(cudaGetLastError() == ERROR_INVALID_VALUE && cudaGetLastError() == cudaSuccess);
    CHECK(cudaEventDestroy(begin));
    CHECK(cudaEventDestroy(end));
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFreeHost(pinned));
    CHECK(cudaFree(in));
    CHECK(cudaFree(out));
}

int main() {
    int runtime = 0, driver = 0;
    CHECK(cudaRuntimeGetVersion(&runtime));
    CHECK(cudaDriverGetVersion(&driver));
    std::printf("runtime %d\n", runtime);
    REQUIRE(driver / 1000 >= runtime / 1000);
#ifdef PROBE_RUNTIME
    if (runtime != PROBE_RUNTIME) fail("linked with runtime %d, built for %d", runtime, PROBE_RUNTIME);
#endif
    use(1);
    // After a reset everything starts again, with the initial values of the variables.
    CHECK(cudaDeviceReset());
    use(2);
    return pass();
}
