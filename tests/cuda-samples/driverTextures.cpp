// Proves arrays and textures by the driver API alone: 1D and 3D arrays and their descriptors, copies by offset between
// arrays, device and host, texture objects in a hand-written kernel, memory requirements of arrays that are mapped
// later, and the errors of dead handles and of copies that do not fit.
#include <vector>

#include <cuda.h>

#include "common.h"

// One thread per texel of a line.
static const char kernel[] = R"(
.version 8.0
.target sm_90
.address_size 64
.visible .entry read(.param .u64 texture, .param .u64 out, .param .u32 count)
{
    .reg .pred %p;
    .reg .b32 %r<6>;
    .reg .f32 %f<6>;
    .reg .b64 %rd<6>;
    ld.param.u64 %rd1, [texture];
    ld.param.u64 %rd2, [out];
    ld.param.u32 %r1, [count];
    mov.u32 %r2, %tid.x;
    setp.ge.u32 %p, %r2, %r1;
    @%p bra end;
    cvt.rn.f32.u32 %f1, %r2;
    add.f32 %f1, %f1, 0f3F000000;
    tex.1d.v4.f32.f32 {%f2, %f3, %f4, %f5}, [%rd1, {%f1}];
    cvta.to.global.u64 %rd2, %rd2;
    mul.wide.u32 %rd3, %r2, 8;
    add.s64 %rd4, %rd2, %rd3;
    st.global.v2.f32 [%rd4], {%f2, %f3};
end:
    ret;
}
.visible .entry ask(.param .u64 texture, .param .u64 out)
{
    .reg .b32 %r<4>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [texture];
    ld.param.u64 %rd2, [out];
    cvta.to.global.u64 %rd2, %rd2;
    txq.width.b32 %r1, [%rd1];
    st.global.u32 [%rd2], %r1;
    ret;
}
)";

int main() {
    CHECK_DRIVER(cuInit(0));
    CUdevice device;
    CUcontext context;
    CHECK_DRIVER(cuDeviceGet(&device, 0));
    CHECK_DRIVER(cuDevicePrimaryCtxRetain(&context, device));
    CHECK_DRIVER(cuCtxSetCurrent(context));
    CUmodule module;
    CUfunction read, ask;
    CHECK_DRIVER(cuModuleLoadData(&module, kernel));
    CHECK_DRIVER(cuModuleGetFunction(&read, module, "read"));
    CHECK_DRIVER(cuModuleGetFunction(&ask, module, "ask"));

    const int width = 200;
    CUDA_ARRAY_DESCRIPTOR line = {};
    line.Width = width;
    line.Format = CU_AD_FORMAT_FLOAT;
    line.NumChannels = 2;
    CUarray a, b;
    CHECK_DRIVER(cuArrayCreate(&a, &line));
    CHECK_DRIVER(cuArrayCreate(&b, &line));
    CUDA_ARRAY_DESCRIPTOR told;
    CUDA_ARRAY3D_DESCRIPTOR told3d;
    CHECK_DRIVER(cuArrayGetDescriptor(&told, a));
    CHECK_DRIVER(cuArray3DGetDescriptor(&told3d, a));
    std::printf("a line: %zu x %zu, format %d, %u channels; %zu x %zu x %zu, flags %u\n", told.Width, told.Height, told.Format,
                told.NumChannels, told3d.Width, told3d.Height, told3d.Depth, told3d.Flags);

    // 400 floats through every kind of copy: host to a, a to b 10 texels on, b to device, device to a, a to host.
    std::vector<float> texels(2 * width), got(2 * width);
    for (int i = 0; i < 2 * width; ++i) texels[i] = 0.5f * i - 30;
    const size_t row = 2 * width * sizeof(float);
    CUdeviceptr memory;
    CHECK_DRIVER(cuMemAlloc(&memory, row));
    CHECK_DRIVER(cuMemcpyHtoA(a, 0, texels.data(), row));
    CHECK_DRIVER(cuMemcpyHtoA(b, 0, texels.data(), row));
    CHECK_DRIVER(cuMemcpyAtoA(b, 80, a, 0, row - 80));
    CHECK_DRIVER(cuMemcpyAtoD(memory, b, 0, row));
    CHECK_DRIVER(cuMemcpyDtoA(a, 160, memory, row - 160));
    CUstream stream;
    CHECK_DRIVER(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    CHECK_DRIVER(cuCtxSynchronize());
    CHECK_DRIVER(cuMemcpyAtoHAsync(got.data(), a, 0, row, stream));
    CHECK_DRIVER(cuStreamSynchronize(stream));
    for (int i = 0; i < 2 * width; ++i) {
        int after_a = i < 40 ? i : i - 40;                                   // the last copy moves b by 20 texels
        int from = i < 40 ? i : after_a < 20 ? after_a : after_a - 20;        // b holds a moved by 10 texels
        if (got[i] != texels[from]) fail("float %d is %g, expected %g", i, got[i], texels[from]);
    }
    CHECK_DRIVER(cuMemcpyHtoAAsync(a, 0, texels.data(), row, stream));
    CHECK_DRIVER(cuMemcpyAtoH(got.data(), a, 8, row - 8));
    CHECK_DRIVER(cuStreamSynchronize(stream));
    CHECK_DRIVER(cuMemcpyAtoH(got.data(), a, 8, row - 8));
    require_equal("after the offset", got.data(), texels.data() + 2, 2 * width - 2);
    std::printf("copies by offset\n");

    CUDA_RESOURCE_DESC resource = {};
    resource.resType = CU_RESOURCE_TYPE_ARRAY;
    resource.res.array.hArray = a;
    CUDA_TEXTURE_DESC description = {};
    description.addressMode[0] = description.addressMode[1] = description.addressMode[2] = CU_TR_ADDRESS_MODE_CLAMP;
    CUtexObject texture;
    CHECK_DRIVER(cuTexObjectCreate(&texture, &resource, &description, nullptr));
    int count = width;
    void *parameters[] = {&texture, &memory, &count};
    CHECK_DRIVER(cuLaunchKernel(read, 1, 1, 1, 256, 1, 1, 0, stream, parameters, nullptr));
    CHECK_DRIVER(cuStreamSynchronize(stream));
    CHECK_DRIVER(cuMemcpyDtoH(got.data(), memory, row));
    require_equal("read", got.data(), texels.data(), 2 * width);
    CHECK_DRIVER(cuLaunchKernel(ask, 1, 1, 1, 1, 1, 1, 0, stream, parameters, nullptr));
    CHECK_DRIVER(cuStreamSynchronize(stream));
    unsigned asked = 0;
    CHECK_DRIVER(cuMemcpyDtoH(&asked, memory, 4));
    REQUIRE(asked == static_cast<unsigned>(width));
    CUDA_RESOURCE_DESC what;
    CUDA_TEXTURE_DESC how;
    CUDA_RESOURCE_VIEW_DESC view;
    CHECK_DRIVER(cuTexObjectGetResourceDesc(&what, texture));
    CHECK_DRIVER(cuTexObjectGetTextureDesc(&how, texture));
    REQUIRE(what.resType == CU_RESOURCE_TYPE_ARRAY && what.res.array.hArray == a && how.addressMode[1] == CU_TR_ADDRESS_MODE_CLAMP);
    // Where there is no view, nothing is written.
    view.width = 12345;
    CHECK_DRIVER(cuTexObjectGetResourceViewDesc(&view, texture));
    REQUIRE(view.width == 12345);
    CHECK_DRIVER(cuTexObjectDestroy(texture));
    std::printf("a texture\n");

    CUDA_ARRAY3D_DESCRIPTOR box = {};
    box.Width = 30;
    box.Height = 20;
    box.Depth = 10;
    box.Format = CU_AD_FORMAT_UNSIGNED_INT16;
    box.NumChannels = 4;
    CUarray volume;
    CHECK_DRIVER(cuArray3DCreate(&volume, &box));
    CHECK_DRIVER(cuArray3DGetDescriptor(&told3d, volume));
    REQUIRE(told3d.Width == 30 && told3d.Height == 20 && told3d.Depth == 10 && told3d.NumChannels == 4 && told3d.Format == CU_AD_FORMAT_UNSIGNED_INT16);
    std::vector<uint16_t> bytes(30 * 20 * 10 * 4), back(30 * 20 * 10 * 4);
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint16_t>(i * 11);
    CUDA_MEMCPY3D copy = {};
    copy.srcMemoryType = CU_MEMORYTYPE_HOST;
    copy.srcHost = bytes.data();
    copy.srcPitch = 240;
    copy.srcHeight = 20;
    copy.dstMemoryType = CU_MEMORYTYPE_ARRAY;
    copy.dstArray = volume;
    copy.WidthInBytes = 240;
    copy.Height = 20;
    copy.Depth = 10;
    // A copy from pageable memory may return before it has reached the array, and the stream does not wait for it.
    CHECK_DRIVER(cuMemcpy3D(&copy));
    CHECK_DRIVER(cuCtxSynchronize());
    CUDA_MEMCPY3D out = {};
    out.srcMemoryType = CU_MEMORYTYPE_ARRAY;
    out.srcArray = volume;
    out.dstMemoryType = CU_MEMORYTYPE_UNIFIED;
    out.dstDevice = reinterpret_cast<CUdeviceptr>(back.data());
    out.dstPitch = 240;
    out.dstHeight = 20;
    out.WidthInBytes = 240;
    out.Height = 20;
    out.Depth = 10;
    CHECK_DRIVER(cuMemcpy3DAsync(&out, stream));
    CHECK_DRIVER(cuStreamSynchronize(stream));
    REQUIRE(bytes == back);
    std::printf("a box\n");

    out.srcZ = 1;
    EXPECT_DRIVER(CUDA_ERROR_INVALID_VALUE, cuMemcpy3D(&out));
    out.srcZ = 0;
    out.dstPitch = 239;
    EXPECT_DRIVER(CUDA_ERROR_INVALID_VALUE, cuMemcpy3D(&out));
    out.dstPitch = 240;
    out.srcMemoryType = static_cast<CUmemorytype>(9);
    EXPECT_DRIVER(CUDA_ERROR_INVALID_VALUE, cuMemcpy3D(&out));
    CUDA_MEMCPY2D flat = {};
    flat.srcMemoryType = CU_MEMORYTYPE_HOST;
    flat.srcHost = bytes.data();
    flat.srcPitch = 64;
    flat.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    flat.dstDevice = memory;
    flat.dstPitch = 64;
    flat.WidthInBytes = 64;
    flat.Height = 1000;
    EXPECT_DRIVER(CUDA_ERROR_INVALID_VALUE, cuMemcpy2D(&flat));
    EXPECT_DRIVER(CUDA_ERROR_INVALID_VALUE, cuArrayCreate(nullptr, &line));
    line.NumChannels = 3;
    CUarray none;
    EXPECT_DRIVER(CUDA_ERROR_INVALID_VALUE, cuArrayCreate(&none, &line));
    std::printf("errors\n");

    CHECK_DRIVER(cuArrayDestroy(volume));
    CHECK_DRIVER(cuArrayDestroy(a));
    CHECK_DRIVER(cuArrayDestroy(b));
    CHECK_DRIVER(cuMemFree(memory));
    CHECK_DRIVER(cuStreamDestroy(stream));
    CHECK_DRIVER(cuModuleUnload(module));
    CHECK_DRIVER(cuDevicePrimaryCtxRelease(device));
    return pass();
}
