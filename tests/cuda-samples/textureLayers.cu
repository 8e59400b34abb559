// Proves the other kinds of texture: layered 1D and 2D arrays, cubemaps and layered cubemaps, mipmapped arrays with
// explicit levels, derivatives and filtering between levels, gathering, resource views, pitched memory, and signed,
// half and two-channel formats.
#include <vector>

#include <cuda_fp16.h>

#include "common.h"

__global__ void layered_1d(cudaTextureObject_t texture, float *out, int width) {
    int x = threadIdx.x, layer = blockIdx.x;
    out[layer * width + x] = tex1DLayered<float>(texture, x + 0.5f, layer);
}

__global__ void layered_2d(cudaTextureObject_t texture, float *out, int width, int height) {
    int x = threadIdx.x, y = threadIdx.y, layer = blockIdx.x;
    out[(layer * height + y) * width + x] = tex2DLayered<float>(texture, x + 0.5f, y + 0.5f, layer);
}

__global__ void cube(cudaTextureObject_t texture, const float3 *directions, float *out, int count, int layer) {
    int i = threadIdx.x;
    if (i >= count) return;
    float3 d = directions[i];
    out[i] = layer < 0 ? texCubemap<float>(texture, d.x, d.y, d.z) : texCubemapLayered<float>(texture, d.x, d.y, d.z, layer);
}

__global__ void levels(cudaTextureObject_t texture, float *out, float level) {
    int x = threadIdx.x, y = threadIdx.y;
    out[y * blockDim.x + x] = tex2DLod<float>(texture, (x + 0.5f) / blockDim.x, (y + 0.5f) / blockDim.y, level);
}

__global__ void gradients(cudaTextureObject_t texture, float *out, float step) {
    int x = threadIdx.x;
    out[x] = tex2DGrad<float>(texture, (x + 0.5f) / blockDim.x, 0.5f, make_float2(step, 0), make_float2(0, step));
}

__global__ void gather(cudaTextureObject_t texture, float4 *out) {
    int x = threadIdx.x, y = threadIdx.y;
    out[(y * blockDim.x + x) * 2] = tex2Dgather<float4>(texture, x + 1.0f, y + 1.0f, 0);
    out[(y * blockDim.x + x) * 2 + 1] = tex2Dgather<float4>(texture, x + 1.0f, y + 1.0f, 1);
}

template <typename T>
__global__ void plain(cudaTextureObject_t texture, T *out, int width) {
    int x = threadIdx.x, y = blockIdx.x;
    out[y * width + x] = tex2D<T>(texture, x + 0.5f, y + 0.5f);
}

cudaTextureDesc describe(cudaTextureFilterMode filter, bool normalised, cudaTextureReadMode read = cudaReadModeElementType) {
    cudaTextureDesc description = {};
    description.addressMode[0] = description.addressMode[1] = description.addressMode[2] = cudaAddressModeClamp;
    description.filterMode = filter;
    description.readMode = read;
    description.normalizedCoords = normalised;
    return description;
}

cudaTextureObject_t object(cudaArray_t array, const cudaTextureDesc &description) {
    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeArray;
    resource.res.array.array = array;
    cudaTextureObject_t texture;
    CHECK(cudaCreateTextureObject(&texture, &resource, &description, nullptr));
    return texture;
}

cudaArray_t array_of(const std::vector<float> &texels, cudaExtent extent, unsigned flags) {
    cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
    cudaArray_t array;
    CHECK(cudaMalloc3DArray(&array, &format, extent, flags));
    cudaMemcpy3DParms copy = {};
    size_t rows = extent.height ? extent.height : 1;
    copy.srcPtr = make_cudaPitchedPtr(const_cast<float *>(texels.data()), extent.width * 4, extent.width, rows);
    copy.dstArray = array;
    copy.extent = make_cudaExtent(extent.width, rows, extent.depth ? extent.depth : 1);
    copy.kind = cudaMemcpyHostToDevice;
    CHECK(cudaMemcpy3D(&copy));
    return array;
}

int main() {
    float *out;
    CHECK(cudaMalloc(&out, 1 << 16));
    std::vector<float> got(1 << 14);
    auto fetch = [&](size_t count) { CHECK(cudaMemcpy(got.data(), out, count * 4, cudaMemcpyDeviceToHost)); };

    {
        const int width = 37, layers = 5;
        std::vector<float> texels(width * layers);
        for (size_t i = 0; i < texels.size(); ++i) texels[i] = static_cast<float>(i * 7 % 101);
        cudaArray_t array = array_of(texels, make_cudaExtent(width, 0, layers), cudaArrayLayered);
        cudaTextureObject_t texture = object(array, describe(cudaFilterModePoint, false));
        layered_1d<<<layers, width>>>(texture, out, width);
        CHECK_LAUNCH();
        fetch(texels.size());
        require_equal("layered 1D", got.data(), texels.data(), texels.size());
        cudaChannelFormatDesc format;
        cudaExtent extent;
        unsigned flags;
        CHECK(cudaArrayGetInfo(&format, &extent, &flags, array));
        std::printf("layered 1D: %zu x %zu x %zu, flags %u, %d bits\n", extent.width, extent.height, extent.depth, flags, format.x);
        CHECK(cudaDestroyTextureObject(texture));
        CHECK(cudaFreeArray(array));
    }
    {
        const int width = 12, height = 9, layers = 6;
        std::vector<float> texels(width * height * layers);
        for (size_t i = 0; i < texels.size(); ++i) texels[i] = static_cast<float>(i);
        cudaArray_t array = array_of(texels, make_cudaExtent(width, height, layers), cudaArrayLayered);
        cudaTextureObject_t texture = object(array, describe(cudaFilterModeLinear, false));
        layered_2d<<<layers, dim3(width, height)>>>(texture, out, width, height);
        CHECK_LAUNCH();
        fetch(texels.size());
        require_equal("layered 2D", got.data(), texels.data(), texels.size());
        CHECK(cudaDestroyTextureObject(texture));

        // A view of layers 2 to 4: layer 0 of the view is layer 2 of the array.
        cudaResourceDesc resource = {};
        resource.resType = cudaResourceTypeArray;
        resource.res.array.array = array;
        cudaResourceViewDesc view = {};
        view.format = cudaResViewFormatFloat1;
        view.width = width;
        view.height = height;
        view.depth = layers;
        view.firstLayer = 2;
        view.lastLayer = 4;
        cudaTextureDesc description = describe(cudaFilterModePoint, false);
        CHECK(cudaCreateTextureObject(&texture, &resource, &description, &view));
        layered_2d<<<3, dim3(width, height)>>>(texture, out, width, height);
        CHECK_LAUNCH();
        fetch(3 * width * height);
        require_equal("view", got.data(), texels.data() + 2 * width * height, 3 * width * height);
        cudaResourceViewDesc told;
        cudaTextureDesc how;
        cudaResourceDesc what;
        CHECK(cudaGetTextureObjectResourceViewDesc(&told, texture));
        CHECK(cudaGetTextureObjectTextureDesc(&how, texture));
        CHECK(cudaGetTextureObjectResourceDesc(&what, texture));
        REQUIRE(told.firstLayer == 2 && told.lastLayer == 4 && told.width == static_cast<size_t>(width));
        REQUIRE(how.filterMode == cudaFilterModePoint && what.resType == cudaResourceTypeArray && what.res.array.array == array);
        CHECK(cudaDestroyTextureObject(texture));
        CHECK(cudaFreeArray(array));
        std::printf("layered 2D, a view of its layers\n");
    }
    {
        // Face f of layer l holds 10 l + f + 1 everywhere, so that edges do not matter.
        const int side = 8, layers = 2;
        std::vector<float> texels(side * side * 6 * layers);
        for (size_t i = 0; i < texels.size(); ++i) texels[i] = static_cast<float>(i / (side * side) / 6 * 10 + i / (side * side) % 6 + 1);
        const float3 directions[] = {{1, 0.2f, -0.3f}, {-1, 0.1f, 0.4f}, {0.3f, 1, 0.2f}, {0.5f, -1, 0.1f}, {0.2f, 0.3f, 1}, {-0.1f, 0.6f, -1}};
        float3 *device;
        CHECK(cudaMalloc(&device, sizeof directions));
        CHECK(cudaMemcpy(device, directions, sizeof directions, cudaMemcpyHostToDevice));
        std::vector<float> first(texels.begin(), texels.begin() + side * side * 6);
        cudaArray_t single = array_of(first, make_cudaExtent(side, side, 6), cudaArrayCubemap);
        cudaArray_t both = array_of(texels, make_cudaExtent(side, side, 6 * layers), cudaArrayCubemap | cudaArrayLayered);
        cudaTextureObject_t texture = object(single, describe(cudaFilterModeLinear, true));
        cube<<<1, 32>>>(texture, device, out, 6, -1);
        CHECK_LAUNCH();
        fetch(6);
        for (int face = 0; face < 6; ++face) REQUIRE(got[face] == face + 1);
        CHECK(cudaDestroyTextureObject(texture));
        texture = object(both, describe(cudaFilterModeLinear, true));
        for (int layer = 0; layer < layers; ++layer) {
            cube<<<1, 32>>>(texture, device, out, 6, layer);
            CHECK_LAUNCH();
            fetch(6);
            for (int face = 0; face < 6; ++face) REQUIRE(got[face] == 10 * layer + face + 1);
        }
        CHECK(cudaDestroyTextureObject(texture));

        // Within a face: texel (s, t) of face +z lies in the direction (2 s - 1, 1 - 2 t, 1).
        for (int i = 0; i < side * side; ++i) first[4 * side * side + i] = static_cast<float>(100 + i);
        CHECK(cudaMemcpy3D([&] {
            static cudaMemcpy3DParms copy;
            copy = {};
            copy.srcPtr = make_cudaPitchedPtr(first.data(), side * 4, side, side);
            copy.dstArray = single;
            copy.extent = make_cudaExtent(side, side, 6);
            copy.kind = cudaMemcpyHostToDevice;
            return &copy;
        }()));
        std::vector<float3> inside;
        for (int y = 0; y < 4; ++y)
            for (int x = 0; x < side; ++x) inside.push_back(make_float3(2 * (x + 0.5f) / side - 1, 1 - 2 * (y + 0.5f) / side, 1));
        float3 *more;
        CHECK(cudaMalloc(&more, inside.size() * sizeof(float3)));
        CHECK(cudaMemcpy(more, inside.data(), inside.size() * sizeof(float3), cudaMemcpyHostToDevice));
        texture = object(single, describe(cudaFilterModePoint, true));
        cube<<<1, 32>>>(texture, more, out, static_cast<int>(inside.size()), -1);
        CHECK_LAUNCH();
        fetch(inside.size());
        for (size_t i = 0; i < inside.size(); ++i) REQUIRE(got[i] == 100.0f + i);
        CHECK(cudaDestroyTextureObject(texture));
        CHECK(cudaFreeArray(single));
        CHECK(cudaFreeArray(both));
        CHECK(cudaFree(device));
        CHECK(cudaFree(more));
        std::printf("cubemaps\n");
    }
    {
        // Level l of 16 x 16 holds 100 l everywhere.
        cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
        cudaMipmappedArray_t pyramid;
        CHECK(cudaMallocMipmappedArray(&pyramid, &format, make_cudaExtent(16, 16, 0), 5));
        for (unsigned level = 0; level < 5; ++level) {
            cudaArray_t array, again;
            CHECK(cudaGetMipmappedArrayLevel(&array, pyramid, level));
            CHECK(cudaGetMipmappedArrayLevel(&again, pyramid, level));
            REQUIRE(array == again);
            cudaExtent extent;
            CHECK(cudaArrayGetInfo(nullptr, &extent, nullptr, array));
            REQUIRE(extent.width == 16u >> level && extent.height == 16u >> level);
            std::vector<float> texels((16 >> level) * (16 >> level), 100.0f * level);
            size_t row = (16 >> level) * 4;
            CHECK(cudaMemcpy2DToArray(array, 0, 0, texels.data(), row, row, 16 >> level, cudaMemcpyHostToDevice));
        }
        cudaArray_t none;
        cudaError_t error = cudaGetMipmappedArrayLevel(&none, pyramid, 5);
        std::printf("a level that is not there: %s\n", cudaGetErrorName(error));
        REQUIRE(error == cudaErrorInvalidValue);
        cudaGetLastError();
        cudaResourceDesc resource = {};
        resource.resType = cudaResourceTypeMipmappedArray;
        resource.res.mipmap.mipmap = pyramid;
        cudaTextureDesc description = describe(cudaFilterModeLinear, true);
        description.mipmapFilterMode = cudaFilterModeLinear;
        description.maxMipmapLevelClamp = 3;
        cudaTextureObject_t texture;
        CHECK(cudaCreateTextureObject(&texture, &resource, &description, nullptr));
        for (float level : {0.0f, 1.0f, 2.0f, 2.5f, 3.0f, 4.0f}) {
            levels<<<1, dim3(8, 8)>>>(texture, out, level);
            CHECK_LAUNCH();
            fetch(64);
            for (int i = 0; i < 64; ++i)
                if (got[i] != 100 * std::fmin(level, 3.0f)) fail("level %g is %g at %d", level, got[i], i);
        }
        // A step of 4 texels: level 2.
        for (float step : {1.0f / 16, 2.0f / 16, 4.0f / 16}) {
            gradients<<<1, 8>>>(texture, out, step);
            CHECK_LAUNCH();
            fetch(8);
            for (int i = 0; i < 8; ++i)
                if (std::fabs(got[i] - 100 * std::log2(step * 16)) > 2) fail("a step of %g texels gives %g", step * 16, got[i]);
        }
        CHECK(cudaDestroyTextureObject(texture));
        CHECK(cudaFreeMipmappedArray(pyramid));
        std::printf("mipmaps\n");
    }
    {
        const int side = 6;
        cudaChannelFormatDesc format = cudaCreateChannelDesc<float2>();
        std::vector<float2> texels(side * side);
        for (int i = 0; i < side * side; ++i) texels[i] = make_float2(static_cast<float>(i), -2.0f * i);
        cudaArray_t array;
        CHECK(cudaMallocArray(&array, &format, side, side, cudaArrayTextureGather));
        CHECK(cudaMemcpy2DToArray(array, 0, 0, texels.data(), side * 8, side * 8, side, cudaMemcpyHostToDevice));
        cudaTextureObject_t texture = object(array, describe(cudaFilterModePoint, false));
        gather<<<1, dim3(side - 1, side - 1)>>>(texture, reinterpret_cast<float4 *>(out));
        CHECK_LAUNCH();
        fetch((side - 1) * (side - 1) * 8);
        for (int y = 0; y < side - 1; ++y)
            for (int x = 0; x < side - 1; ++x) {
                float at = static_cast<float>(y * side + x);
                const float want[4] = {at + side, at + side + 1, at + 1, at};
                for (int i = 0; i < 4; ++i) {
                    const float *pair = &got[(y * (side - 1) + x) * 8];
                    if (pair[i] != want[i] || pair[4 + i] != -2 * want[i]) fail("gathered %g at (%d, %d), expected %g", pair[i], x, y, want[i]);
                }
            }
        CHECK(cudaDestroyTextureObject(texture));
        CHECK(cudaFreeArray(array));
        std::printf("gather\n");
    }
    {
        // Pitched memory, signed bytes as floats, halves, and pairs of 16-bit integers.
        const int width = 24, height = 5;
        signed char *pitched;
        size_t pitch;
        CHECK(cudaMallocPitch(&pitched, &pitch, width, height));
        std::vector<signed char> bytes(width * height);
        for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<signed char>(i * 37 % 255 - 127);
        CHECK(cudaMemcpy2D(pitched, pitch, bytes.data(), width, width, height, cudaMemcpyHostToDevice));
        cudaResourceDesc resource = {};
        resource.resType = cudaResourceTypePitch2D;
        resource.res.pitch2D.devPtr = pitched;
        resource.res.pitch2D.desc = cudaCreateChannelDesc<signed char>();
        resource.res.pitch2D.width = width;
        resource.res.pitch2D.height = height;
        resource.res.pitch2D.pitchInBytes = pitch;
        cudaTextureDesc description = describe(cudaFilterModePoint, false, cudaReadModeNormalizedFloat);
        cudaTextureObject_t texture;
        CHECK(cudaCreateTextureObject(&texture, &resource, &description, nullptr));
        plain<<<height, width>>>(texture, out, width);
        CHECK_LAUNCH();
        fetch(bytes.size());
        std::vector<float> want(bytes.size());
        for (size_t i = 0; i < bytes.size(); ++i) want[i] = bytes[i] / 127.0f;
        require_close("signed byte", got.data(), want.data(), want.size(), 1e-6, 1e-7);
        CHECK(cudaDestroyTextureObject(texture));
        CHECK(cudaFree(pitched));

        cudaChannelFormatDesc half_format = cudaCreateChannelDescHalf();
        std::vector<__half> halves(width * height);
        for (size_t i = 0; i < halves.size(); ++i) halves[i] = __float2half(0.25f * i - 10);
        cudaArray_t array;
        CHECK(cudaMallocArray(&array, &half_format, width, height));
        CHECK(cudaMemcpy2DToArray(array, 0, 0, halves.data(), width * 2, width * 2, height, cudaMemcpyHostToDevice));
        texture = object(array, describe(cudaFilterModePoint, false));
        plain<<<height, width>>>(texture, out, width);
        CHECK_LAUNCH();
        fetch(halves.size());
        for (size_t i = 0; i < halves.size(); ++i) REQUIRE(got[i] == 0.25f * i - 10);
        CHECK(cudaDestroyTextureObject(texture));
        CHECK(cudaFreeArray(array));

        cudaChannelFormatDesc pair_format = cudaCreateChannelDesc<short2>();
        std::vector<short2> pairs(width * height), back(width * height);
        for (size_t i = 0; i < pairs.size(); ++i) pairs[i] = make_short2(static_cast<short>(i * 300 - 16000), static_cast<short>(-1 - static_cast<int>(i)));
        CHECK(cudaMallocArray(&array, &pair_format, width, height));
        CHECK(cudaMemcpy2DToArray(array, 0, 0, pairs.data(), width * 4, width * 4, height, cudaMemcpyHostToDevice));
        texture = object(array, describe(cudaFilterModePoint, false));
        plain<<<height, width>>>(texture, reinterpret_cast<short2 *>(out), width);
        CHECK_LAUNCH();
        CHECK(cudaMemcpy(back.data(), out, back.size() * 4, cudaMemcpyDeviceToHost));
        for (size_t i = 0; i < pairs.size(); ++i) REQUIRE(back[i].x == pairs[i].x && back[i].y == pairs[i].y);
        CHECK(cudaDestroyTextureObject(texture));
        CHECK(cudaFreeArray(array));
        std::printf("formats\n");
    }
    CHECK(cudaFree(out));
    return pass();
}
