// Proves that errors come from the call that made them, with CUDA's own numbers, and that the program can go on:
// impossible launch dimensions, too much shared memory, wrong and dead handles, wrong pointers, unknown symbols,
// memory exhaustion. The one error that cannot be survived, an illegal address in a kernel, is provoked in a child
// (the program runs itself), where it must be sticky.
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "common.h"

__global__ void fill(int *data, int value) { data[blockIdx.x * blockDim.x + threadIdx.x] = value; }
__global__ void __launch_bounds__(64) narrow(int *data) { data[threadIdx.x] = 1; }
__device__ int variable;
static int not_a_symbol;

// Launches, and shows what the launch said; the error must be gone afterwards.
void refused_launch(const char *what, dim3 grid, dim3 block, size_t shared, const void *kernel = nullptr) {
    int *data = nullptr, value = 1;
    void *arguments[] = {&data, &value};
    cudaError_t error = cudaLaunchKernel(kernel ? kernel : reinterpret_cast<const void *>(static_cast<void (*)(int *, int)>(fill)),
                                         grid, block, arguments, shared, nullptr);
    std::printf("%s: %s\n", what, cudaGetErrorName(error));
    if (error != cudaErrorInvalidValue && error != cudaErrorInvalidConfiguration)
        fail("%s: %s", what, cudaGetErrorName(error));
    EXPECT(error, cudaPeekAtLastError());
    EXPECT(error, cudaGetLastError());
    EXPECT(cudaSuccess, cudaGetLastError());
}

// A program that still works: allocate, launch, copy back.
void still_works() {
    int *data, host[64] = {};
    CHECK(cudaMalloc(&data, sizeof(host)));
    fill<<<2, 32>>>(data, 17);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(host, data, sizeof(host), cudaMemcpyDeviceToHost));
    for (int x : host) REQUIRE(x == 17);
    CHECK(cudaFree(data));
    std::printf("still works\n");
}

int child() {
    int *data, host[32];
    CHECK(cudaMalloc(&data, sizeof(host)));
    fill<<<1, 32>>>(reinterpret_cast<int *>(0x10), 1);
    CHECK_LAUNCH();
    EXPECT(cudaErrorIllegalAddress, cudaDeviceSynchronize());
    EXPECT(cudaErrorIllegalAddress, cudaGetLastError());
    EXPECT(cudaErrorIllegalAddress, cudaMemcpy(host, data, sizeof(host), cudaMemcpyDeviceToHost));
    fill<<<1, 32>>>(data, 1);
    EXPECT(cudaErrorIllegalAddress, cudaGetLastError());
    void *more;
    EXPECT(cudaErrorIllegalAddress, cudaMalloc(&more, 64));
    EXPECT(cudaErrorIllegalAddress, cudaDeviceSynchronize());
    std::printf("child: illegal address, sticky\n");
    std::fflush(stdout);
    return 42;
}

int main(int argc, char **argv) {
    if (argc > 1 && !std::strcmp(argv[1], "child")) return child();

    still_works();
    refused_launch("1025 threads", dim3(1), dim3(1025), 0);
    refused_launch("no threads", dim3(1), dim3(0), 0);
    refused_launch("no blocks", dim3(0), dim3(32), 0);
    refused_launch("65536 blocks in y", dim3(1, 65536), dim3(32), 0);
    refused_launch("65 threads in z", dim3(1), dim3(1, 1, 65), 0);
    refused_launch("64 x 32 threads", dim3(1), dim3(64, 32), 0);
    refused_launch("256 MiB of shared memory", dim3(1), dim3(32), 256u << 20);
    refused_launch("49 KiB of shared memory without opting in", dim3(1), dim3(32), 49 << 10);
    refused_launch("over the launch bounds", dim3(1), dim3(65), 0, reinterpret_cast<const void *>(narrow));
    still_works();

    // Not a kernel.
    cudaFuncAttributes attributes;
    EXPECT(cudaErrorInvalidResourceHandle, cudaFuncGetAttributes(&attributes, reinterpret_cast<const void *>(&not_a_symbol)));
    EXPECT(cudaErrorInvalidResourceHandle,
           cudaLaunchKernel(reinterpret_cast<const void *>(&not_a_symbol), dim3(1), dim3(1), nullptr, 0, nullptr));
    // Not a symbol.
    int value = 3;
    EXPECT(cudaErrorInvalidSymbol, cudaMemcpyToSymbol(not_a_symbol, &value, sizeof(value)));
    CHECK(cudaMemcpyToSymbol(variable, &value, sizeof(value)));
    cudaGetLastError();
    std::printf("kernels and symbols\n");

    // Devices.
    EXPECT(cudaErrorInvalidDevice, cudaSetDevice(9999));
    EXPECT(cudaErrorInvalidDevice, cudaSetDevice(-1));
    int count = 0;
    CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrWarpSize, 0));
    EXPECT(cudaErrorInvalidValue, cudaDeviceGetAttribute(&count, static_cast<cudaDeviceAttr>(99999), 0));
    EXPECT(cudaErrorInvalidDevice, cudaDeviceGetAttribute(&count, cudaDevAttrWarpSize, 9999));
    cudaGetLastError();
    std::printf("devices\n");

    // Pointers.
    int *data, host[64];
    CHECK(cudaMalloc(&data, sizeof(host)));
    EXPECT(cudaErrorInvalidValue, cudaFree(host));
    EXPECT(cudaErrorInvalidValue, cudaFree(data + 1));
    EXPECT(cudaErrorInvalidValue, cudaMemcpy(host, reinterpret_cast<void *>(0x10), 4, cudaMemcpyDeviceToHost));
    EXPECT(cudaErrorInvalidValue, cudaMemcpy(nullptr, host, 4, cudaMemcpyHostToDevice));
    EXPECT(cudaErrorInvalidValue, cudaMemset(reinterpret_cast<void *>(0x10), 0, 4));
    EXPECT(cudaErrorInvalidMemcpyDirection, cudaMemcpy(data, host, 4, static_cast<cudaMemcpyKind>(17)));
    EXPECT(cudaErrorInvalidValue, cudaMalloc(nullptr, 4));
    CHECK(cudaFree(nullptr));
    CHECK(cudaFree(data));
    EXPECT(cudaErrorInvalidValue, cudaFree(data));
    EXPECT(cudaErrorInvalidValue, cudaFreeHost(host));
    cudaGetLastError();
    void *empty = &empty;
    CHECK(cudaMalloc(&empty, 0));
    REQUIRE(empty == nullptr);
    std::printf("pointers\n");

    // Events and streams.
    cudaEvent_t recorded, unrecorded, untimed;
    float milliseconds = 0;
    CHECK(cudaEventCreate(&recorded));
    CHECK(cudaEventCreate(&unrecorded));
    CHECK(cudaEventCreateWithFlags(&untimed, cudaEventDisableTiming));
    CHECK(cudaEventRecord(recorded));
    CHECK(cudaEventRecord(untimed));
    CHECK(cudaDeviceSynchronize());
    EXPECT(cudaErrorInvalidResourceHandle, cudaEventElapsedTime(&milliseconds, recorded, unrecorded));
    EXPECT(cudaErrorInvalidResourceHandle, cudaEventElapsedTime(&milliseconds, recorded, untimed));
    EXPECT(cudaErrorInvalidResourceHandle, cudaEventRecord(nullptr));
    EXPECT(cudaErrorInvalidResourceHandle, cudaEventDestroy(nullptr));
    EXPECT(cudaErrorInvalidResourceHandle, cudaStreamDestroy(nullptr));
    EXPECT(cudaErrorInvalidValue, cudaStreamCreateWithFlags(reinterpret_cast<cudaStream_t *>(&data), 0x80));
    CHECK(cudaEventQuery(unrecorded));
    CHECK(cudaEventDestroy(recorded));
    CHECK(cudaEventDestroy(unrecorded));
    CHECK(cudaEventDestroy(untimed));
    cudaGetLastError();
    std::printf("events and streams\n");

    // Memory exhaustion: more than any device has, then allocation until nothing is left; all of it comes back.
    void *huge = nullptr;
    EXPECT(cudaErrorMemoryAllocation, cudaMalloc(&huge, size_t(1) << 46));
    EXPECT(cudaErrorMemoryAllocation, cudaGetLastError());
    size_t before = 0, after = 0, total = 0;
    CHECK(cudaMemGetInfo(&before, &total));
    REQUIRE(before <= total);
    std::vector<void *> blocks;
    size_t block = before / 8;
    cudaError_t error;
    while ((error = cudaMalloc(&huge, block)) == cudaSuccess) {
        blocks.push_back(huge);
        if (blocks.size() > 16) fail("16 allocations of an eighth of the free memory succeeded");
    }
    REQUIRE(error == cudaErrorMemoryAllocation && blocks.size() >= 4);
    cudaGetLastError();
    for (void *p : blocks) CHECK(cudaFree(p));
    CHECK(cudaMemGetInfo(&after, &total));
    // Other processes may have taken or returned some meanwhile.
    REQUIRE(after + block > before);
    std::printf("memory exhausted and returned\n");
    still_works();

    const char *name = cudaGetErrorName(static_cast<cudaError_t>(123456));
    std::printf("unknown error: %s, %s\n", name, cudaGetErrorString(static_cast<cudaError_t>(123456)));

    std::fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", argv[0], "child", static_cast<char *>(nullptr));
        _exit(127);
    }
    int status = 0;
    REQUIRE(pid > 0 && waitpid(pid, &status, 0) == pid);
    std::printf("child ended with %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
    REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 42);
    still_works();
    return pass();
}
