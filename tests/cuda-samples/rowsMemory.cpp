// Calls what other programs do not: host memory by the older names, copies between contexts and in batches, memsets, what
// arrays need, advice and prefetching, pools by location, pools between processes, texture and surface references, tensor
// maps. Prints every answer.
#include "tell.h"

#include "kernels_ptx.h"

static void expect_words(CUdeviceptr address, size_t count, unsigned want, const char *what) {
    std::vector<unsigned> words(count);
    CHECK_DRIVER(cuMemcpyDtoH(words.data(), address, count * 4));
    for (unsigned word : words)
        if (word != want) fail("%s: %#x, not %#x", what, word, want);
}

static void host_and_copies(const Setting &it) {
    void *host = nullptr;
    std::vector<char> pageable(8192, 3);
    CUdeviceptr a, b;
    CHECK_DRIVER(cuMemAlloc(&a, 4096));
    CHECK_DRIVER(cuMemAlloc(&b, 4096));
    // The driver refuses it in a context of today (measured on an H200, driver 580: 201).
    (void)call("cuMemAllocHost", &host, 4096u);
    if (host) CHECK_DRIVER(cuMemFreeHost(host));
    ROW("cuMemAllocHost_v2", &host, size_t(4096));
    if (host) CHECK_DRIVER(cuMemFreeHost(host));
    ROW("cuMemHostRegister", static_cast<void *>(pageable.data()), size_t(8192), 0u);
    CHECK_DRIVER(cuMemHostUnregister(pageable.data()));
    ROW("cuMemsetD2D16_v2", a, size_t(64), static_cast<unsigned short>(0x0101), size_t(32), size_t(64));
    expect_words(a, 1024, 0x01010101, "cuMemsetD2D16");
    ROW("cuMemsetD2D32_v2", a, size_t(64), 0x02020202u, size_t(16), size_t(64));
    expect_words(a, 1024, 0x02020202, "cuMemsetD2D32");
    CUstream stream;
    CHECK_DRIVER(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    ROW("cuMemsetD16Async", a, static_cast<unsigned short>(0x0303), size_t(2048), stream);
    ROW("cuMemsetD2D16Async", a, size_t(64), static_cast<unsigned short>(0x0404), size_t(32), size_t(64), stream);
    ROW("cuMemsetD2D32Async", a, size_t(64), 0x05050505u, size_t(16), size_t(64), stream);
    CHECK_DRIVER(cuStreamSynchronize(stream));
    expect_words(a, 1024, 0x05050505, "cuMemsetD2D32Async");
    ROW("cuMemcpyPeer", b, it.context, a, it.context, size_t(4096));
    CHECK_DRIVER(cuCtxSynchronize());
    expect_words(b, 1024, 0x05050505, "cuMemcpyPeer");
    CHECK_DRIVER(cuMemsetD32(a, 6, 1024));
    ROW("cuMemcpyPeerAsync", b, it.context, a, it.context, size_t(4096), stream);
    CHECK_DRIVER(cuCtxSynchronize());
    CUDA_MEMCPY3D_PEER box = {};
    box.srcMemoryType = box.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    box.srcDevice = a, box.dstDevice = b;
    box.srcContext = box.dstContext = it.context;
    box.srcPitch = box.dstPitch = 64, box.srcHeight = box.dstHeight = 8;
    box.WidthInBytes = 64, box.Height = 8, box.Depth = 8;
    ROW("cuMemcpy3DPeerAsync", static_cast<const CUDA_MEMCPY3D_PEER *>(&box), stream);
    CHECK_DRIVER(cuCtxSynchronize());
    expect_words(b, 1024, 6, "cuMemcpy3DPeerAsync");
    CHECK_DRIVER(cuMemsetD32(a, 7, 1024));
    CHECK_DRIVER(cuCtxSynchronize());
    CUdeviceptr to[] = {b, b + 2048}, from[] = {a, a + 2048};
    size_t sizes[] = {2048, 2048}, starts[] = {0}, failed = 77;
    CUmemcpyAttributes how = {};
    how.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
    ROW("cuMemcpyBatchAsync", &to[0], &from[0], &sizes[0], size_t(2), &how, &starts[0], size_t(1), &failed, stream);
    CUDA_MEMCPY3D_BATCH_OP op = {};
    op.src.type = op.dst.type = CU_MEMCPY_OPERAND_TYPE_POINTER;
    op.src.op.ptr.ptr = a, op.dst.op.ptr.ptr = b;
    op.extent = {4096, 1, 1};
    op.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
    ROW("cuMemcpy3DBatchAsync", size_t(1), &op, &failed, 0ull, stream);
    CHECK_DRIVER(cuStreamSynchronize(stream));
    CHECK_DRIVER(cuStreamDestroy(stream));
    CHECK_DRIVER(cuMemFree(a));
    CHECK_DRIVER(cuMemFree(b));
}

static void managed(const Setting &it) {
    int has = 0;
    CHECK_DRIVER(cuDeviceGetAttribute(&has, CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY, it.device));
    CUdeviceptr address = 0;
    TELL("cuMemAllocManaged", has ? cuMemAllocManaged(&address, 1 << 16, CU_MEM_ATTACH_GLOBAL) : CUDA_ERROR_NOT_SUPPORTED);
    if (!address) return;
    CUmemLocation there = {}, host = {};
    there.type = CU_MEM_LOCATION_TYPE_DEVICE, there.id = it.device;
    host.type = CU_MEM_LOCATION_TYPE_HOST;
    int value = 77, second = 77;
    ROW("cuMemAdvise", address, size_t(1 << 16), CU_MEM_ADVISE_SET_READ_MOSTLY, it.device);
    ROW("cuMemAdvise_v2", address, size_t(4096), CU_MEM_ADVISE_SET_PREFERRED_LOCATION, host);
    ROW("cuMemRangeGetAttribute", static_cast<void *>(&value), sizeof value, CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, address, size_t(1 << 16));
    std::printf("read mostly: %d\n", value);
    void *data[] = {&value, &second};
    size_t rooms[] = {sizeof value, sizeof second};
    CUmem_range_attribute wanted[] = {CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION};
    ROW("cuMemRangeGetAttributes", &data[0], &rooms[0], &wanted[0], size_t(2), address, size_t(4096));
    std::printf("preferred: %d, prefetched: %d\n", value, second);
    ROW("cuMemPrefetchAsync", address, size_t(1 << 16), it.device, static_cast<CUstream>(nullptr));
    ROW("cuMemPrefetchAsync_v2", address, size_t(1 << 16), host, 0u, static_cast<CUstream>(nullptr));
    CUstream stream;
    CHECK_DRIVER(cuStreamCreate(&stream, 0));
    CUdeviceptr parts[] = {address, address + 4096};
    size_t sizes[] = {4096, 4096}, starts[] = {0};
    ROW("cuMemPrefetchBatchAsync", &parts[0], &sizes[0], size_t(2), &there, &starts[0], size_t(1), 0ull, stream);
    ROW("cuMemDiscardBatchAsync", &parts[0], &sizes[0], size_t(2), 0ull, stream);
    ROW("cuMemDiscardAndPrefetchBatchAsync", &parts[0], &sizes[0], size_t(2), &there, &starts[0], size_t(1), 0ull, stream);
    CHECK_DRIVER(cuStreamSynchronize(stream));
    CHECK_DRIVER(cuStreamDestroy(stream));
    CHECK_DRIVER(cuMemFree(address));
}

static void pools(const Setting &it) {
    CUmemLocation there = {};
    there.type = CU_MEM_LOCATION_TYPE_DEVICE, there.id = it.device;
    CUmemoryPool pool = nullptr, current = nullptr, imported = nullptr;
    ROW("cuMemGetDefaultMemPool", &pool, &there, CU_MEM_ALLOCATION_TYPE_PINNED);
    ROW("cuMemGetMemPool", &current, &there, CU_MEM_ALLOCATION_TYPE_PINNED);
    std::printf("the same: %d\n", pool == current);
    ROW("cuMemSetMemPool", &there, CU_MEM_ALLOCATION_TYPE_PINNED, pool);
    CUmemAccessDesc access = {};
    access.location = there;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    ROW("cuMemPoolSetAccess", pool, static_cast<const CUmemAccessDesc *>(&access), size_t(1));
    CUmemPoolPtrExportData data = {};
    CUdeviceptr address = 0, given;
    CHECK_DRIVER(cuMemAllocAsync(&given, 4096, nullptr));
    ROW("cuMemPoolExportPointer", &data, given);
    // What is wrong with it each driver says otherwise.
    (void)call("cuMemPoolImportFromShareableHandle", &imported, reinterpret_cast<void *>(-1), CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0ull);
    ROW("cuMemPoolImportPointer", &address, imported, &data);
    CHECK_DRIVER(cuMemFreeAsync(given, nullptr));
    CHECK_DRIVER(cuCtxSynchronize());
    cuuint64_t attribute = 0;
    ROW("cuDeviceSetGraphMemAttribute", it.device, 1, static_cast<void *>(&attribute));
    CUipcMemHandle memory = {};
    CUipcEventHandle named = {};
    CUevent event = nullptr, opened = nullptr;
    CHECK_DRIVER(cuEventCreate(&event, 0));
    (void)call("cuIpcGetEventHandle", &named, event);
    (void)call("cuIpcOpenEventHandle", &opened, named);
    ROW("cuIpcOpenMemHandle", &address, memory, 1u);
    CHECK_DRIVER(cuEventDestroy(event));
}

static void physical(const Setting &it) {
    CUmemAllocationProp properties = {}, told = {};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    properties.location.id = it.device;
    size_t unit = 0;
    CUdeviceptr address;
    CUmemGenericAllocationHandle handle, again = 0;
    CHECK_DRIVER(cuMemGetAllocationGranularity(&unit, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
    CHECK_DRIVER(cuMemAddressReserve(&address, unit, 0, 0, 0));
    CHECK_DRIVER(cuMemCreate(&handle, unit, &properties, 0));
    CHECK_DRIVER(cuMemMap(address, unit, 0, handle, 0));
    ROW("cuMemGetAllocationPropertiesFromHandle", &told, handle);
    std::printf("on device: %d\n", told.location.type == CU_MEM_LOCATION_TYPE_DEVICE);
    ROW("cuMemRetainAllocationHandle", &again, reinterpret_cast<void *>(address));
    std::printf("the same: %d\n", again == handle);
    CHECK_DRIVER(cuMemRelease(again));
    CHECK_DRIVER(cuMemUnmap(address, unit));
    CHECK_DRIVER(cuMemRelease(handle));
    CHECK_DRIVER(cuMemAddressFree(address, unit));
}

static void arrays_and_references(const Setting &it) {
    CUarray array, plane = nullptr;
    CUmipmappedArray pyramid;
    CUDA_ARRAY_DESCRIPTOR shape = {16, 16, CU_AD_FORMAT_FLOAT, 1};
    CUDA_ARRAY3D_DESCRIPTOR solid = {16, 16, 0, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_SURFACE_LDST};
    CHECK_DRIVER(cuArray3DCreate(&array, &solid));
    CHECK_DRIVER(cuMipmappedArrayCreate(&pyramid, &solid, 2));
    CUDA_ARRAY_SPARSE_PROPERTIES sparse = {};
    CUDA_ARRAY_MEMORY_REQUIREMENTS needed = {};
    ROW("cuArrayGetSparseProperties", &sparse, array);
    ROW("cuMipmappedArrayGetSparseProperties", &sparse, pyramid);
    ROW("cuArrayGetMemoryRequirements", &needed, array, it.device);
    ROW("cuMipmappedArrayGetMemoryRequirements", &needed, pyramid, it.device);
    ROW("cuArrayGetPlane", &plane, array, 0u);

    CUdeviceptr linear, told = 0;
    size_t offset = 0;
    CHECK_DRIVER(cuMemAlloc(&linear, 1 << 16));
    CUtexref reference = nullptr;
    float border[4] = {1, 2, 3, 4}, low = 0, high = 0, number = 0;
    int channels = 0, most = 0;
    unsigned flags = 0;
    CUarray bound = nullptr;
    CUmipmappedArray bound_pyramid = nullptr;
    CUaddress_mode mode;
    CUfilter_mode filter;
    CUarray_format format;
    quiet = call("cuTexRefCreate", &reference) != CUDA_SUCCESS;
    std::printf("texture references: %d\n", !quiet);
    MAYBE("cuTexRefSetFormat", reference, CU_AD_FORMAT_FLOAT, 1);
    MAYBE("cuTexRefSetAddressMode", reference, 0, CU_TR_ADDRESS_MODE_CLAMP);
    MAYBE("cuTexRefSetFilterMode", reference, CU_TR_FILTER_MODE_POINT);
    MAYBE("cuTexRefSetFlags", reference, 0u);
    MAYBE("cuTexRefSetMipmapFilterMode", reference, CU_TR_FILTER_MODE_POINT);
    MAYBE("cuTexRefSetMipmapLevelBias", reference, 0.5f);
    MAYBE("cuTexRefSetMipmapLevelClamp", reference, 0.0f, 1.0f);
    MAYBE("cuTexRefSetMaxAnisotropy", reference, 2u);
    MAYBE("cuTexRefSetBorderColor", reference, &border[0]);
    MAYBE("cuTexRefSetAddress_v2", &offset, reference, linear, size_t(4096));
    MAYBE("cuTexRefGetAddress_v2", &told, reference);
    if (!quiet) std::printf("bound there: %d\n", told == linear);
    MAYBE("cuTexRefSetAddress2D_v2", reference, static_cast<const CUDA_ARRAY_DESCRIPTOR *>(&shape), linear, size_t(512));
    MAYBE("cuTexRefSetAddress2D_v3", reference, static_cast<const CUDA_ARRAY_DESCRIPTOR *>(&shape), linear, size_t(512));
    MAYBE("cuTexRefSetMipmappedArray", reference, pyramid, static_cast<unsigned>(CU_TRSA_OVERRIDE_FORMAT));
    MAYBE("cuTexRefGetMipmappedArray", &bound_pyramid, reference);
    MAYBE("cuTexRefSetArray", reference, array, static_cast<unsigned>(CU_TRSA_OVERRIDE_FORMAT));
    MAYBE("cuTexRefGetArray", &bound, reference);
    MAYBE("cuTexRefGetAddressMode", &mode, reference, 0);
    MAYBE("cuTexRefGetFilterMode", &filter, reference);
    MAYBE("cuTexRefGetFormat", &format, &channels, reference);
    MAYBE("cuTexRefGetMipmapFilterMode", &filter, reference);
    MAYBE("cuTexRefGetMipmapLevelBias", &number, reference);
    MAYBE("cuTexRefGetMipmapLevelClamp", &low, &high, reference);
    MAYBE("cuTexRefGetMaxAnisotropy", &most, reference);
    MAYBE("cuTexRefGetBorderColor", &border[0], reference);
    MAYBE("cuTexRefGetFlags", &flags, reference);
    MAYBE("cuTexRefDestroy", reference);
    (void)call("cuSurfRefSetArray", static_cast<CUsurfref>(nullptr), array, 0u);
    (void)call("cuSurfRefGetArray", &bound, static_cast<CUsurfref>(nullptr));
    quiet = false;

    alignas(64) CUtensorMap map = {};
    cuuint64_t sizes[] = {8, 16, 16, 1}, strides[] = {32, 512, 8192};
    cuuint32_t steps[] = {1, 1, 1, 1};
    int lower[] = {0, 0}, upper[] = {0, 0};
    void *address = reinterpret_cast<void *>(linear);
    ROW("cuTensorMapEncodeIm2col", &map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, cuuint32_t(4), address, static_cast<const cuuint64_t *>(sizes),
        static_cast<const cuuint64_t *>(strides), static_cast<const int *>(lower), static_cast<const int *>(upper), cuuint32_t(8), cuuint32_t(16),
        static_cast<const cuuint32_t *>(steps), CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    ROW("cuTensorMapReplaceAddress", &map, reinterpret_cast<void *>(linear + 1024));
    ROW("cuTensorMapEncodeIm2colWide", &map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, cuuint32_t(4), address, static_cast<const cuuint64_t *>(sizes),
        static_cast<const cuuint64_t *>(strides), 0, 0, cuuint32_t(8), cuuint32_t(16), static_cast<const cuuint32_t *>(steps), CU_TENSOR_MAP_INTERLEAVE_NONE,
        CU_TENSOR_MAP_IM2COL_WIDE_MODE_W, CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    CHECK_DRIVER(cuMemFree(linear));
    CHECK_DRIVER(cuMipmappedArrayDestroy(pyramid));
    CHECK_DRIVER(cuArrayDestroy(array));
}

int main() {
    Setting it(kernels_ptx);
    host_and_copies(it);
    managed(it);
    pools(it);
    physical(it);
    arrays_and_references(it);
    CHECK_DRIVER(cuCtxDestroy(it.context));
    return pass();
}
