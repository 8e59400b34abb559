// Proves that a program sees a whole device: counts, versions, names, properties, every attribute of the runtime,
// limits, and that the three ways to ask agree. What it prints must be the same with and without remoting; facts about
// the host and about how it shares memory with the device may differ there and are on lines that start with `host:`.
#include "common.h"

// Whether an attribute speaks of the host, or of memory that host and device share.
bool about_the_host(int attribute) {
    switch (attribute) {
    case cudaDevAttrKernelExecTimeout:
    case cudaDevAttrCanMapHostMemory:
    case cudaDevAttrManagedMemory:
    case cudaDevAttrTccDriver:
    case cudaDevAttrHostNativeAtomicSupported:
    case cudaDevAttrPageableMemoryAccess:
    case cudaDevAttrConcurrentManagedAccess:
    case cudaDevAttrCanUseHostPointerForRegisteredMem:
    case cudaDevAttrHostRegisterSupported:
    case cudaDevAttrHostRegisterReadOnlySupported:
    case cudaDevAttrPageableMemoryAccessUsesHostPageTables:
    case cudaDevAttrDirectManagedMemAccessFromHost:
    case cudaDevAttrGPUDirectRDMASupported:
    case cudaDevAttrGPUDirectRDMAFlushWritesOptions:
    case cudaDevAttrGPUDirectRDMAWritesOrdering:
    case cudaDevAttrMemoryPoolSupportedHandleTypes:
    case cudaDevAttrNumaConfig:
    case cudaDevAttrNumaId:
    case cudaDevAttrHostNumaId:
    case cudaDevAttrHostNumaMemoryPoolsSupported:
    case cudaDevAttrHostNumaMultinodeIpcSupported:
    case cudaDevAttrHostMemoryPoolsSupported: return true;
    default: return false;
    }
}

int main() {
    int count = 0, driver = 0, runtime = 0, current = -1;
    CHECK(cudaGetDeviceCount(&count));
    CHECK(cudaDriverGetVersion(&driver));
    CHECK(cudaRuntimeGetVersion(&runtime));
    CHECK(cudaGetDevice(&current));
    std::printf("%d devices, driver %d, runtime %d, current %d\n", count, driver, runtime, current);
    REQUIRE(count >= 1 && driver >= runtime && current == 0);
    for (int device = 0; device < count; ++device) {
        cudaDeviceProp p;
        CHECK(cudaGetDeviceProperties(&p, device));
        std::printf("device %d: %s\n", device, p.name);
        std::printf("  uuid ");
        for (int i = 0; i < 16; ++i) std::printf("%02x%s", static_cast<unsigned char>(p.uuid.bytes[i]), i == 3 || i == 5 || i == 7 || i == 9 ? "-" : "");
        std::printf("\n  compute capability %d.%d, %d multiprocessors, warp of %d\n", p.major, p.minor, p.multiProcessorCount, p.warpSize);
        std::printf("  global memory %zu, constant memory %zu, L2 %d\n", p.totalGlobalMem, p.totalConstMem, p.l2CacheSize);
        std::printf("  shared memory per block %zu, opt-in %zu, per multiprocessor %zu, reserved %zu\n", p.sharedMemPerBlock,
                    p.sharedMemPerBlockOptin, p.sharedMemPerMultiprocessor, p.reservedSharedMemPerBlock);
        std::printf("  registers per block %d, per multiprocessor %d\n", p.regsPerBlock, p.regsPerMultiprocessor);
        std::printf("  threads per block %d, per multiprocessor %d; blocks per multiprocessor %d\n", p.maxThreadsPerBlock,
                    p.maxThreadsPerMultiProcessor, p.maxBlocksPerMultiProcessor);
        std::printf("  block %d x %d x %d, grid %d x %d x %d, pitch %zu\n", p.maxThreadsDim[0], p.maxThreadsDim[1], p.maxThreadsDim[2],
                    p.maxGridSize[0], p.maxGridSize[1], p.maxGridSize[2], p.memPitch);
        std::printf("  textures: 1D %d, 2D %d x %d, 3D %d x %d x %d, alignment %zu\n", p.maxTexture1D, p.maxTexture2D[0], p.maxTexture2D[1],
                    p.maxTexture3D[0], p.maxTexture3D[1], p.maxTexture3D[2], p.textureAlignment);
        std::printf("  PCI %04x:%02x:%02x, engines %d, ECC %d, integrated %d\n", p.pciDomainID, p.pciBusID, p.pciDeviceID, p.asyncEngineCount,
                    p.ECCEnabled, p.integrated);
        std::printf("  managed %d, mapped %d, UVA %d, cooperative %d, pools %d\n", p.managedMemory, p.canMapHostMemory, p.unifiedAddressing,
                    p.cooperativeLaunch, p.memoryPoolsSupported);
        std::printf("host: concurrent managed %d, pageable %d\n", p.concurrentManagedAccess, p.pageableMemoryAccess);
        for (int attribute = 1; attribute < 148; ++attribute) {
            int value = -1;
            cudaError_t error = cudaDeviceGetAttribute(&value, static_cast<cudaDeviceAttr>(attribute), device);
            const char *begin = about_the_host(attribute) ? "host:" : "  ";
            if (error == cudaSuccess) std::printf("%sattribute %d = %d\n", begin, attribute, value);
            else std::printf("%sattribute %d: %s\n", begin, attribute, cudaGetErrorName(error));
        }
        cudaGetLastError();
        int value = 0;
        CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, device));
        REQUIRE(value == p.multiProcessorCount && value > 0);
        CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrComputeCapabilityMajor, device));
        REQUIRE(value == p.major);
        CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrWarpSize, device));
        REQUIRE(value == p.warpSize && value == 32);
        char bus[32];
        int same = -1;
        CHECK(cudaDeviceGetPCIBusId(bus, sizeof(bus), device));
        CHECK(cudaDeviceGetByPCIBusId(&same, bus));
        std::printf("  bus id %s\n", bus);
        REQUIRE(same == device);
        CHECK(cudaSetDevice(device));
        size_t free = 0, total = 0, stack = 0, heap = 0;
        CHECK(cudaMemGetInfo(&free, &total));
        CHECK(cudaDeviceGetLimit(&stack, cudaLimitStackSize));
        CHECK(cudaDeviceGetLimit(&heap, cudaLimitMallocHeapSize));
        std::printf("  stack %zu, heap %zu\n", stack, heap);
        REQUIRE(free <= total && total <= p.totalGlobalMem && free > 0);
        for (int peer = 0; peer < count; ++peer) {
            int can = -1;
            if (peer == device) continue;
            CHECK(cudaDeviceCanAccessPeer(&can, device, peer));
            std::printf("  peer access to %d: %d\n", peer, can);
        }
    }
    return pass();
}
