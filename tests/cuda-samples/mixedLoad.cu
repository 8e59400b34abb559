// Proves that nothing is left behind: rounds of everything that can be made and given back, each round checked. Memory of
// the device, stream-ordered memory, managed and page-locked memory where there is any, streams and events, a captured
// graph, one with memory nodes, arrays with textures and surfaces, a mipmapped array, reserved addresses with physical
// memory, a module, a host function.
//
//   mixedLoad [ROUNDS | SECONDSs] [watched]
//
// With `watched` it says "warm" after a tenth of the rounds, or of the time (`60s`), and waits for a line, then says "done"
// and waits again: so that somebody can compare what the processes hold.
#include <time.h>

#include <cmath>
#include <vector>

#include <cuda.h>

#include "common.h"

const int count = 4096;
const size_t size = count * sizeof(int);

__global__ void add(int *data, int value) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) data[i] += value;
}

__global__ void sample(cudaTextureObject_t texture, cudaSurfaceObject_t surface, float *out, int side) {
    int x = threadIdx.x, y = threadIdx.y;
    float value = tex2D<float>(texture, x + 0.5f, y + 0.5f);
    surf2Dwrite(value + 1, surface, x * 4, y);
    out[y * side + x] = value;
}

static void CUDART_CB count_call(void *argument) { ++*static_cast<int *>(argument); }

static void expect(const int *device, int want, const char *what) {
    std::vector<int> host(count);
    CHECK(cudaMemcpy(host.data(), device, size, cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; ++i)
        if (host[i] != want) fail("%s: element %d is %d, not %d", what, i, host[i], want);
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

static void graphs(cudaStream_t stream) {
    int *data;
    CHECK(cudaMalloc(&data, size));
    CHECK(cudaMemset(data, 0, size));
    CHECK(cudaDeviceSynchronize());
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    for (int i = 0; i < 4; ++i) add<<<16, 256, 0, stream>>>(data, 1);
    int *inside;
    CHECK(cudaMallocAsync(&inside, size, stream));
    CHECK(cudaMemsetAsync(inside, 0, size, stream));
    CHECK(cudaFreeAsync(inside, stream));
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&executable, graph, 0));
    for (int i = 0; i < 3; ++i) CHECK(cudaGraphLaunch(executable, stream));
    CHECK(cudaStreamSynchronize(stream));
    expect(data, 12, "graph");
    CHECK(cudaGraphExecDestroy(executable));
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaFree(data));
}

static void textures() {
    const int side = 16;
    std::vector<float> texels(side * side), back(side * side);
    for (int i = 0; i < side * side; ++i) texels[i] = static_cast<float>(i);
    cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
    cudaArray_t array, written;
    cudaMipmappedArray_t pyramid;
    CHECK(cudaMallocArray(&array, &format, side, side));
    CHECK(cudaMallocArray(&written, &format, side, side, cudaArraySurfaceLoadStore));
    CHECK(cudaMallocMipmappedArray(&pyramid, &format, make_cudaExtent(side, side, 0), 3));
    CHECK(cudaMemcpy2DToArray(array, 0, 0, texels.data(), side * 4, side * 4, side, cudaMemcpyHostToDevice));
    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeArray;
    resource.res.array.array = array;
    cudaTextureDesc how = {};
    cudaTextureObject_t texture;
    cudaSurfaceObject_t surface;
    CHECK(cudaCreateTextureObject(&texture, &resource, &how, nullptr));
    resource.res.array.array = written;
    CHECK(cudaCreateSurfaceObject(&surface, &resource));
    float *out;
    CHECK(cudaMalloc(&out, side * side * 4));
    sample<<<1, dim3(side, side)>>>(texture, surface, out, side);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(back.data(), out, side * side * 4, cudaMemcpyDeviceToHost));
    for (int i = 0; i < side * side; ++i) REQUIRE(back[i] == texels[i]);
    CHECK(cudaMemcpy2DFromArray(back.data(), side * 4, written, 0, 0, side * 4, side, cudaMemcpyDeviceToHost));
    for (int i = 0; i < side * side; ++i) REQUIRE(back[i] == texels[i] + 1);
    CHECK(cudaFree(out));
    CHECK(cudaDestroySurfaceObject(surface));
    CHECK(cudaDestroyTextureObject(texture));
    CHECK(cudaFreeMipmappedArray(pyramid));
    CHECK(cudaFreeArray(written));
    CHECK(cudaFreeArray(array));
}

static void host_memory(bool managed, bool mapped) {
    if (managed) {
        int *shared;
        CHECK(cudaMallocManaged(&shared, size));
        for (int i = 0; i < count; ++i) shared[i] = i;
        add<<<16, 256>>>(shared, 7);
        CHECK(cudaDeviceSynchronize());
        for (int i = 0; i < count; ++i) REQUIRE(shared[i] == i + 7);
        CHECK(cudaFree(shared));
    }
    int *pinned;
    CHECK(cudaHostAlloc(&pinned, size, mapped ? cudaHostAllocMapped : cudaHostAllocDefault));
    std::vector<int> registered(count, 3);
    CHECK(cudaHostRegister(registered.data(), size, cudaHostRegisterDefault));
    int *data;
    CHECK(cudaMalloc(&data, size));
    CHECK(cudaMemcpyAsync(data, registered.data(), size, cudaMemcpyHostToDevice, nullptr));
    CHECK(cudaMemcpyAsync(pinned, data, size, cudaMemcpyDeviceToHost, nullptr));
    CHECK(cudaStreamSynchronize(nullptr));
    for (int i = 0; i < count; ++i) REQUIRE(pinned[i] == 3);
    CHECK(cudaFree(data));
    CHECK(cudaHostUnregister(registered.data()));
    CHECK(cudaFreeHost(pinned));
}

static void reserved_addresses() {
    CUmemAllocationProp properties = {};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    CUmemAccessDesc access = {};
    access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    size_t unit = 0;
    CUdeviceptr address;
    CUmemGenericAllocationHandle handle;
    REQUIRE(DRIVER(cuMemGetAllocationGranularity)(&unit, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM) == CUDA_SUCCESS);
    REQUIRE(DRIVER(cuMemAddressReserve)(&address, unit, 0, 0, 0) == CUDA_SUCCESS);
    REQUIRE(DRIVER(cuMemCreate)(&handle, unit, &properties, 0) == CUDA_SUCCESS);
    REQUIRE(DRIVER(cuMemMap)(address, unit, 0, handle, 0) == CUDA_SUCCESS);
    REQUIRE(DRIVER(cuMemSetAccess)(address, unit, &access, 1) == CUDA_SUCCESS);
    int *data = reinterpret_cast<int *>(address);
    CHECK(cudaMemset(data, 0, size));
    add<<<16, 256>>>(data, 5);
    CHECK_LAUNCH();
    expect(data, 5, "reserved addresses");
    REQUIRE(DRIVER(cuMemUnmap)(address, unit) == CUDA_SUCCESS);
    REQUIRE(DRIVER(cuMemRelease)(handle) == CUDA_SUCCESS);
    REQUIRE(DRIVER(cuMemAddressFree)(address, unit) == CUDA_SUCCESS);
}

static void module() {
    static const char text[] =
        ".version 8.0\n.target sm_90\n.address_size 64\n.visible .global .align 4 .b32 word;\n"
        ".visible .entry nothing() { ret; }\n";
    CUmodule module;
    CUfunction function;
    REQUIRE(DRIVER(cuModuleLoadData)(&module, text) == CUDA_SUCCESS);
    REQUIRE(DRIVER(cuModuleGetFunction)(&function, module, "nothing") == CUDA_SUCCESS);
    REQUIRE(DRIVER(cuLaunchKernel)(function, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr) == CUDA_SUCCESS);
    CHECK(cudaDeviceSynchronize());
    REQUIRE(DRIVER(cuModuleUnload)(module) == CUDA_SUCCESS);
}

static void one_round(bool managed, bool mapped) {
    cudaStream_t stream;
    cudaEvent_t event;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CHECK(cudaEventCreate(&event));
    int *ordered, *calls = new int(0);
    CHECK(cudaMallocAsync(&ordered, size, stream));
    CHECK(cudaMemsetAsync(ordered, 0, size, stream));
    add<<<16, 256, 0, stream>>>(ordered, 2);
    CHECK(cudaLaunchHostFunc(stream, count_call, calls));
    CHECK(cudaEventRecord(event, stream));
    CHECK(cudaEventSynchronize(event));
    REQUIRE(*calls == 1);
    delete calls;
    expect(ordered, 2, "stream-ordered memory");
    CHECK(cudaFreeAsync(ordered, stream));
    graphs(stream);
    textures();
    host_memory(managed, mapped);
    reserved_addresses();
    module();
    CHECK(cudaEventDestroy(event));
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaStreamDestroy(stream));
}

static void halt(const char *word) {
    std::printf("%s\n", word);
    std::fflush(stdout);
    char line[16];
    if (!std::fgets(line, sizeof line, stdin)) fail("nobody watches");
}

static double now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    // How much there is to do: rounds, or seconds.
    double much = argc > 1 ? std::atof(argv[1]) : 5;
    bool timed = argc > 1 && std::strchr(argv[1], 's') != nullptr;
    bool watched = argc > 2 && std::strcmp(argv[2], "watched") == 0;
    int managed = 0, mapped = 0;
    CHECK(cudaDeviceGetAttribute(&managed, cudaDevAttrManagedMemory, 0));
    CHECK(cudaDeviceGetAttribute(&mapped, cudaDevAttrCanMapHostMemory, 0));
    size_t before = 0, after = 0, total;
    int round = 0;
    bool warm = false;
    double begun = now(), done = 0;
    for (; done < much; ++round) {
        if (!warm && done >= std::floor(much / 10)) {
            warm = true;
            CHECK(cudaDeviceSynchronize());
            CHECK(cudaDeviceGraphMemTrim(0));
            CHECK(cudaMemGetInfo(&before, &total));
            if (watched) halt("warm");
        }
        one_round(managed, mapped);
        done = timed ? now() - begun : round + 1;
    }
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaDeviceGraphMemTrim(0));
    CHECK(cudaMemGetInfo(&after, &total));
    if (watched) {
        if (timed) std::printf("%d rounds\n", round);
        halt("done");
    }
    // Others may use a real device meanwhile, a worker for the next guest among them.
    REQUIRE(after + (size_t(1) << 30) > before);
    // How many fit into a time is nobody's promise.
    if (timed) std::printf("nothing is left\n");
    else std::printf("%d rounds left nothing\n", round);
    return pass();
}
