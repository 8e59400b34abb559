// Proves sharing between two processes: memory and an event by interprocess handles, physical memory and a pool by file
// descriptors over a unix socket. The parent fills, the child (the same program, started anew) checks and answers.
#include <vector>

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cuda.h>

#include "common.h"

const int count = 20000;

__global__ void fill(int *data, int first) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) data[i] = first + i;
}

__global__ void increment(int *data) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) data[i] += 1;
}

// A function of the driver API, found through the runtime: this program is not linked with libcuda.
template <typename Function>
static Function driver(const char *name) {
    void *address = nullptr;
    cudaDriverEntryPointQueryResult status;
    CHECK(cudaGetDriverEntryPointByVersion(name, &address, 12000, cudaEnableDefault, &status));
    REQUIRE(address != nullptr);
    return reinterpret_cast<Function>(address);
}

#define DRIVER(name) driver<decltype(&name)>(#name)

// What the child is told, beside two descriptors.
struct Message {
    cudaIpcMemHandle_t memory;
    cudaIpcEventHandle_t event;
    cudaMemPoolPtrExportData pointer;
    size_t mapped;
    int legacy, physical, pooled;
};

static void send_all(int socket, const Message &message, int descriptors[2]) {
    alignas(cmsghdr) char space[CMSG_SPACE(2 * sizeof(int))] = {};
    iovec part = {const_cast<Message *>(&message), sizeof message};
    msghdr header = {};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    if (message.physical) {
        header.msg_control = space;
        header.msg_controllen = sizeof space;
        cmsghdr *control = CMSG_FIRSTHDR(&header);
        control->cmsg_level = SOL_SOCKET;
        control->cmsg_type = SCM_RIGHTS;
        control->cmsg_len = CMSG_LEN(2 * sizeof(int));
        std::memcpy(CMSG_DATA(control), descriptors, 2 * sizeof(int));
    }
    REQUIRE(sendmsg(socket, &header, 0) == static_cast<ssize_t>(sizeof message));
}

static void receive_all(int socket, Message &message, int descriptors[2]) {
    alignas(cmsghdr) char space[CMSG_SPACE(2 * sizeof(int))] = {};
    iovec part = {&message, sizeof message};
    msghdr header = {};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = space;
    header.msg_controllen = sizeof space;
    REQUIRE(recvmsg(socket, &header, MSG_WAITALL) == static_cast<ssize_t>(sizeof message));
    if (cmsghdr *control = CMSG_FIRSTHDR(&header)) std::memcpy(descriptors, CMSG_DATA(control), 2 * sizeof(int));
}

static void tell(int socket) { REQUIRE(write(socket, "x", 1) == 1); }

static void hear(int socket) {
    char byte;
    if (read(socket, &byte, 1) != 1) fail("the other process is gone");
}

static CUmemAllocationProp shareable() {
    CUmemAllocationProp properties = {};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    return properties;
}

static int *map(CUmemGenericAllocationHandle handle, size_t size) {
    CUdeviceptr address;
    CUmemAccessDesc access = {};
    access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    REQUIRE(DRIVER(cuMemAddressReserve)(&address, size, 0, 0, 0) == CUDA_SUCCESS);
    REQUIRE(DRIVER(cuMemMap)(address, size, 0, handle, 0) == CUDA_SUCCESS);
    REQUIRE(DRIVER(cuMemSetAccess)(address, size, &access, 1) == CUDA_SUCCESS);
    return reinterpret_cast<int *>(address);
}

static void expect(const int *data, int first, const char *what) {
    std::vector<int> host(count);
    CHECK(cudaMemcpy(host.data(), data, count * sizeof(int), cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; ++i)
        if (host[i] != first + i) fail("%s: element %d is %d, not %d", what, i, host[i], first + i);
}

static void child(int socket) {
    Message message;
    int descriptors[2] = {-1, -1};
    receive_all(socket, message, descriptors);
    CHECK(cudaSetDevice(0));
    CHECK(cudaFree(nullptr));
    if (message.legacy) {
        cudaEvent_t event;
        void *opened = nullptr, *again = nullptr;
        CHECK(cudaIpcOpenEventHandle(&event, message.event));
        CHECK(cudaIpcOpenMemHandle(&opened, message.memory, cudaIpcMemLazyEnablePeerAccess));
        CHECK(cudaIpcOpenMemHandle(&again, message.memory, cudaIpcMemLazyEnablePeerAccess));
        REQUIRE(opened == again);
        int *data = static_cast<int *>(opened);
        // The parent's kernel is in its stream before the event; this process waits for it on the device.
        CHECK(cudaStreamWaitEvent(nullptr, event, 0));
        increment<<<divide_up(count, 128), 128>>>(data);
        CHECK_LAUNCH();
        CHECK(cudaDeviceSynchronize());
        expect(data, 101, "memory");
        CHECK(cudaIpcCloseMemHandle(again));
        CHECK(cudaIpcCloseMemHandle(opened));
        // A handle that was made up opens nothing.
        cudaIpcMemHandle_t forged = message.memory;
        for (int i = 8; i < 40; ++i) forged.reserved[i] ^= 0x5a;
        REQUIRE(cudaIpcOpenMemHandle(&opened, forged, cudaIpcMemLazyEnablePeerAccess) != cudaSuccess);
        cudaGetLastError();
    }
    if (message.physical) {
        CUmemGenericAllocationHandle handle;
        void *number = reinterpret_cast<void *>(static_cast<uintptr_t>(descriptors[0]));
        REQUIRE(DRIVER(cuMemImportFromShareableHandle)(&handle, number, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) == CUDA_SUCCESS);
        int *mapped = map(handle, message.mapped);
        expect(mapped, 1000, "physical memory");
        fill<<<divide_up(count, 128), 128>>>(mapped, 2000);
        CHECK_LAUNCH();
        CHECK(cudaDeviceSynchronize());
    }
    if (message.pooled) {
        cudaMemPool_t pool;
        void *number = reinterpret_cast<void *>(static_cast<uintptr_t>(descriptors[1]));
        void *imported = nullptr;
        CHECK(cudaMemPoolImportFromShareableHandle(&pool, number, cudaMemHandleTypePosixFileDescriptor, 0));
        CHECK(cudaMemPoolImportPointer(&imported, pool, &message.pointer));
        expect(static_cast<int *>(imported), 3000, "pool memory");
        CHECK(cudaFreeAsync(imported, nullptr));
        CHECK(cudaDeviceSynchronize());
    }
    tell(socket);
    hear(socket);
}

int main(int argc, char **argv) {
    if (argc > 2 && std::strcmp(argv[1], "--child") == 0) {
        child(std::atoi(argv[2]));
        return 0;
    }
    // The child starts before this process uses CUDA, which does not survive a fork.
    int sockets[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0);
    std::fflush(stdout);
    pid_t process = fork();
    if (process == 0) {
        char number[16];
        std::snprintf(number, sizeof number, "%d", sockets[1]);
        close(sockets[0]);
        execl("/proc/self/exe", argv[0], "--child", number, nullptr);
        _exit(127);
    }
    close(sockets[1]);
    Message message = {};
    int descriptors[2] = {-1, -1};
    int *data;
    cudaEvent_t event;
    CHECK(cudaMalloc(&data, count * sizeof(int)));
    cudaError_t made = cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventInterprocess);
    cudaError_t shared = cudaIpcGetMemHandle(&message.memory, data);
    message.legacy = made != cudaErrorNotSupported && shared != cudaErrorNotSupported;
    if (message.legacy) {
        CHECK(made);
        CHECK(shared);
        CHECK(cudaIpcGetEventHandle(&message.event, event));
    }
    cudaGetLastError();
    fill<<<divide_up(count, 128), 128>>>(data, 100);
    CHECK_LAUNCH();
    if (message.legacy) CHECK(cudaEventRecord(event));

    int can = 0, types = 0;
    REQUIRE(DRIVER(cuDeviceGetAttribute)(&can, CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, 0) == CUDA_SUCCESS);
    CHECK(cudaDeviceGetAttribute(&types, cudaDevAttrMemoryPoolSupportedHandleTypes, 0));
    message.physical = can != 0;
    message.pooled = can != 0 && (types & cudaMemHandleTypePosixFileDescriptor) != 0;
    int *mapped = nullptr, *pooled = nullptr;
    if (message.physical) {
        CUmemAllocationProp properties = shareable();
        CUmemGenericAllocationHandle handle;
        size_t granularity = 0;
        REQUIRE(DRIVER(cuMemGetAllocationGranularity)(&granularity, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM) == CUDA_SUCCESS);
        message.mapped = (count * sizeof(int) + granularity - 1) / granularity * granularity;
        REQUIRE(DRIVER(cuMemCreate)(&handle, message.mapped, &properties, 0) == CUDA_SUCCESS);
        mapped = map(handle, message.mapped);
        fill<<<divide_up(count, 128), 128>>>(mapped, 1000);
        CHECK_LAUNCH();
        CHECK(cudaDeviceSynchronize());
        REQUIRE(DRIVER(cuMemExportToShareableHandle)(&descriptors[0], handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0) == CUDA_SUCCESS);
        REQUIRE(descriptors[0] >= 0);
        descriptors[1] = descriptors[0];
    }
    cudaMemPool_t pool = nullptr;
    if (message.pooled) {
        cudaMemPoolProps properties = {};
        properties.allocType = cudaMemAllocationTypePinned;
        properties.handleTypes = cudaMemHandleTypePosixFileDescriptor;
        properties.location.type = cudaMemLocationTypeDevice;
        CHECK(cudaMemPoolCreate(&pool, &properties));
        CHECK(cudaMallocFromPoolAsync(&pooled, count * sizeof(int), pool, nullptr));
        fill<<<divide_up(count, 128), 128>>>(pooled, 3000);
        CHECK_LAUNCH();
        CHECK(cudaDeviceSynchronize());
        CHECK(cudaMemPoolExportToShareableHandle(&descriptors[1], pool, cudaMemHandleTypePosixFileDescriptor, 0));
        CHECK(cudaMemPoolExportPointer(&message.pointer, pooled));
    }
    send_all(sockets[0], message, descriptors);
    hear(sockets[0]);
    if (message.legacy) expect(data, 101, "the child's work");
    std::printf("memory and an event: %s\n", message.legacy ? "shared" : "not supported");
    if (message.physical) expect(mapped, 2000, "the child's work on physical memory");
    std::printf("physical memory: %s\n", message.physical ? "shared" : "not supported");
    std::printf("a pool: %s\n", message.pooled ? "shared" : "not supported");
    tell(sockets[0]);
    int status = 0;
    REQUIRE(waitpid(process, &status, 0) == process);
    REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    if (pooled) CHECK(cudaFreeAsync(pooled, nullptr));
    CHECK(cudaFree(data));
    if (message.legacy) CHECK(cudaEventDestroy(event));
    return pass();
}
