// Proves surface objects: reads and writes of every size, in 1D, 2D, 3D, layered arrays and cubemaps, the boundary
// modes, writing one level of a mipmapped array, and a texture that reads what a surface wrote.
#include <vector>

#include "common.h"

template <typename T>
__global__ void fill_1d(cudaSurfaceObject_t surface, int width, T scale) {
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    if (x < width) surf1Dwrite(static_cast<T>(x * scale), surface, x * static_cast<int>(sizeof(T)));
}

template <typename T>
__global__ void twice_1d(cudaSurfaceObject_t surface, int width) {
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    if (x >= width) return;
    T value;
    surf1Dread(&value, surface, x * static_cast<int>(sizeof(T)));
    surf1Dwrite(static_cast<T>(value * 2), surface, x * static_cast<int>(sizeof(T)));
}

__global__ void swap_4(cudaSurfaceObject_t surface, int width) {
    int x = threadIdx.x, y = blockIdx.x;
    uchar4 value = surf2Dread<uchar4>(surface, x * 4, y);
    __syncthreads();
    surf2Dwrite(make_uchar4(value.w, value.z, value.y, value.x), surface, (width - 1 - x) * 4, y);
}

__global__ void wide(cudaSurfaceObject_t surface, int width) {
    int x = threadIdx.x, y = blockIdx.x;
    float4 value = surf2Dread<float4>(surface, x * 16, y);
    surf2Dwrite(make_float4(value.y, value.x, value.w + x, value.z + y), surface, x * 16, y);
}

__global__ void boundaries(cudaSurfaceObject_t surface, int *out, int width, int height) {
    int x = static_cast<int>(threadIdx.x) - 2, y = static_cast<int>(threadIdx.y) - 2;
    int at = threadIdx.y * blockDim.x + threadIdx.x, all = blockDim.x * blockDim.y;
    out[at] = surf2Dread<int>(surface, x * 4, y, cudaBoundaryModeClamp);
    out[all + at] = surf2Dread<int>(surface, x * 4, y, cudaBoundaryModeZero);
    __syncthreads();
    surf2Dwrite(out[at] + 1000, surface, x * 4, y, cudaBoundaryModeZero);
}

__global__ void volume(cudaSurfaceObject_t surface, int side) {
    int x = threadIdx.x, y = threadIdx.y, z = blockIdx.x;
    short value = surf3Dread<short>(surface, x * 2, y, z);
    surf3Dwrite(static_cast<short>(value + z * 100 + y * 10 + x), surface, x * 2, y, z);
}

__global__ void layers(cudaSurfaceObject_t surface, int width) {
    int x = threadIdx.x, y = threadIdx.y, layer = blockIdx.x;
    int value = surf2DLayeredread<int>(surface, x * 4, y, layer);
    surf2DLayeredwrite(value * (layer + 1), surface, x * 4, y, layer);
}

__global__ void faces(cudaSurfaceObject_t surface) {
    int x = threadIdx.x, y = threadIdx.y, face = blockIdx.x;
    surfCubemapwrite(static_cast<float>(face * 100 + y * 10 + x), surface, x * 4, y, face);
}

__global__ void sum(cudaTextureObject_t texture, int width, int height, float *out) {
    float total = 0;
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) total += tex2D<float>(texture, x + 0.5f, y + 0.5f);
    *out = total;
}

__global__ void ramp(cudaSurfaceObject_t surface, float from) {
    surf2Dwrite(from + threadIdx.y * blockDim.x + threadIdx.x, surface, threadIdx.x * 4, threadIdx.y);
}

cudaSurfaceObject_t surface_of(cudaArray_t array) {
    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeArray;
    resource.res.array.array = array;
    cudaSurfaceObject_t surface;
    CHECK(cudaCreateSurfaceObject(&surface, &resource));
    cudaResourceDesc told;
    CHECK(cudaGetSurfaceObjectResourceDesc(&told, surface));
    REQUIRE(told.resType == cudaResourceTypeArray && told.res.array.array == array);
    return surface;
}

template <typename T>
void one_dimension(const char *name, T scale) {
    const int width = 100;
    cudaChannelFormatDesc format = cudaCreateChannelDesc<T>();
    cudaArray_t line;
    std::vector<T> got(width);
    CHECK(cudaMallocArray(&line, &format, width, 0, cudaArraySurfaceLoadStore));
    cudaSurfaceObject_t surface = surface_of(line);
    fill_1d<T><<<1, 128>>>(surface, width, scale);
    twice_1d<T><<<1, 128>>>(surface, width);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy2DFromArray(got.data(), width * sizeof(T), line, 0, 0, width * sizeof(T), 1, cudaMemcpyDeviceToHost));
    for (int x = 0; x < width; ++x) REQUIRE(got[x] == static_cast<T>(static_cast<T>(x * scale) * 2));
    CHECK(cudaDestroySurfaceObject(surface));
    CHECK(cudaFreeArray(line));
    std::printf("1D, %s\n", name);
}

int main() {
    one_dimension<unsigned char>("8 bits", 1);
    one_dimension<short>("16 bits", -3);
    one_dimension<int>("32 bits", 1000003);
    one_dimension<float>("floats", 0.125f);

    const int width = 20, height = 7;
    {
        cudaChannelFormatDesc format = cudaCreateChannelDesc<uchar4>();
        cudaArray_t array;
        std::vector<uchar4> texels(width * height), got(width * height);
        for (size_t i = 0; i < texels.size(); ++i) texels[i] = make_uchar4(i, i * 3, i * 5, i * 7);
        CHECK(cudaMallocArray(&array, &format, width, height, cudaArraySurfaceLoadStore));
        CHECK(cudaMemcpy2DToArray(array, 0, 0, texels.data(), width * 4, width * 4, height, cudaMemcpyHostToDevice));
        cudaSurfaceObject_t surface = surface_of(array);
        swap_4<<<height, width>>>(surface, width);
        CHECK_LAUNCH();
        CHECK(cudaMemcpy2DFromArray(got.data(), width * 4, array, 0, 0, width * 4, height, cudaMemcpyDeviceToHost));
        for (int y = 0; y < height; ++y)
            for (int x = 0; x < width; ++x) {
                uchar4 a = texels[y * width + x], b = got[y * width + width - 1 - x];
                REQUIRE(a.x == b.w && a.y == b.z && a.z == b.y && a.w == b.x);
            }
        CHECK(cudaDestroySurfaceObject(surface));
        CHECK(cudaFreeArray(array));
    }
    {
        cudaChannelFormatDesc format = cudaCreateChannelDesc<float4>();
        cudaArray_t array;
        std::vector<float4> texels(width * height), got(width * height);
        for (size_t i = 0; i < texels.size(); ++i) texels[i] = make_float4(i, i + 0.25f, i + 0.5f, i + 0.75f);
        CHECK(cudaMallocArray(&array, &format, width, height, cudaArraySurfaceLoadStore));
        CHECK(cudaMemcpy2DToArray(array, 0, 0, texels.data(), width * 16, width * 16, height, cudaMemcpyHostToDevice));
        cudaSurfaceObject_t surface = surface_of(array);
        wide<<<height, width>>>(surface, width);
        CHECK_LAUNCH();
        CHECK(cudaMemcpy2DFromArray(got.data(), width * 16, array, 0, 0, width * 16, height, cudaMemcpyDeviceToHost));
        for (int i = 0; i < width * height; ++i) {
            REQUIRE(got[i].x == i + 0.25f && got[i].y == i);
            REQUIRE(got[i].z == i + 0.75f + i % width && got[i].w == i + 0.5f + i / width);
        }
        CHECK(cudaDestroySurfaceObject(surface));
        CHECK(cudaFreeArray(array));
        std::printf("2D, four channels\n");
    }
    {
        const int w = 6, h = 4, all = (w + 4) * (h + 4);
        cudaChannelFormatDesc format = cudaCreateChannelDesc<int>();
        cudaArray_t array;
        std::vector<int> texels(w * h), got(2 * all), after(w * h);
        for (int i = 0; i < w * h; ++i) texels[i] = i + 1;
        CHECK(cudaMallocArray(&array, &format, w, h, cudaArraySurfaceLoadStore));
        CHECK(cudaMemcpy2DToArray(array, 0, 0, texels.data(), w * 4, w * 4, h, cudaMemcpyHostToDevice));
        int *out;
        CHECK(cudaMalloc(&out, 2 * all * 4));
        cudaSurfaceObject_t surface = surface_of(array);
        boundaries<<<1, dim3(w + 4, h + 4)>>>(surface, out, w, h);
        CHECK_LAUNCH();
        CHECK(cudaMemcpy(got.data(), out, 2 * all * 4, cudaMemcpyDeviceToHost));
        CHECK(cudaMemcpy2DFromArray(after.data(), w * 4, array, 0, 0, w * 4, h, cudaMemcpyDeviceToHost));
        for (int y = -2; y < h + 2; ++y)
            for (int x = -2; x < w + 2; ++x) {
                int at = (y + 2) * (w + 4) + x + 2;
                int near = (y < 0 ? 0 : y >= h ? h - 1 : y) * w + (x < 0 ? 0 : x >= w ? w - 1 : x);
                bool inside = x >= 0 && x < w && y >= 0 && y < h;
                if (got[at] != texels[near]) fail("clamped (%d, %d) is %d, expected %d", x, y, got[at], texels[near]);
                if (got[all + at] != (inside ? texels[near] : 0)) fail("zeroed (%d, %d) is %d", x, y, got[all + at]);
                if (inside) REQUIRE(after[near] == texels[near] + 1000);
            }
        CHECK(cudaDestroySurfaceObject(surface));
        CHECK(cudaFreeArray(array));
        CHECK(cudaFree(out));
        std::printf("boundaries\n");
    }
    {
        const int side = 8;
        cudaChannelFormatDesc format = cudaCreateChannelDesc<short>();
        cudaArray_t cube;
        CHECK(cudaMalloc3DArray(&cube, &format, make_cudaExtent(side, side, side), cudaArraySurfaceLoadStore));
        std::vector<short> texels(side * side * side, 7), got(side * side * side);
        cudaMemcpy3DParms copy = {};
        copy.srcPtr = make_cudaPitchedPtr(texels.data(), side * 2, side, side);
        copy.dstArray = cube;
        copy.extent = make_cudaExtent(side, side, side);
        copy.kind = cudaMemcpyHostToDevice;
        CHECK(cudaMemcpy3D(&copy));
        cudaSurfaceObject_t surface = surface_of(cube);
        volume<<<side, dim3(side, side)>>>(surface, side);
        CHECK_LAUNCH();
        copy = {};
        copy.srcArray = cube;
        copy.dstPtr = make_cudaPitchedPtr(got.data(), side * 2, side, side);
        copy.extent = make_cudaExtent(side, side, side);
        copy.kind = cudaMemcpyDeviceToHost;
        CHECK(cudaMemcpy3D(&copy));
        for (int i = 0; i < side * side * side; ++i) REQUIRE(got[i] == 7 + i / 64 * 100 + i / 8 % 8 * 10 + i % 8);
        CHECK(cudaDestroySurfaceObject(surface));
        CHECK(cudaFreeArray(cube));
        std::printf("3D\n");
    }
    {
        const int w = 5, h = 6, n = 4;
        cudaChannelFormatDesc format = cudaCreateChannelDesc<int>();
        cudaArray_t array;
        CHECK(cudaMalloc3DArray(&array, &format, make_cudaExtent(w, h, n), cudaArrayLayered | cudaArraySurfaceLoadStore));
        std::vector<int> texels(w * h * n), got(w * h * n);
        for (size_t i = 0; i < texels.size(); ++i) texels[i] = static_cast<int>(i) + 1;
        cudaMemcpy3DParms copy = {};
        copy.srcPtr = make_cudaPitchedPtr(texels.data(), w * 4, w, h);
        copy.dstArray = array;
        copy.extent = make_cudaExtent(w, h, n);
        copy.kind = cudaMemcpyHostToDevice;
        CHECK(cudaMemcpy3D(&copy));
        cudaSurfaceObject_t surface = surface_of(array);
        layers<<<n, dim3(w, h)>>>(surface, w);
        CHECK_LAUNCH();
        copy = {};
        copy.srcArray = array;
        copy.dstPtr = make_cudaPitchedPtr(got.data(), w * 4, w, h);
        copy.extent = make_cudaExtent(w, h, n);
        copy.kind = cudaMemcpyDeviceToHost;
        CHECK(cudaMemcpy3D(&copy));
        for (int i = 0; i < w * h * n; ++i) REQUIRE(got[i] == texels[i] * (i / (w * h) + 1));
        CHECK(cudaDestroySurfaceObject(surface));
        CHECK(cudaFreeArray(array));

        const int side = 4;
        cudaChannelFormatDesc real = cudaCreateChannelDesc<float>();
        CHECK(cudaMalloc3DArray(&array, &real, make_cudaExtent(side, side, 6), cudaArrayCubemap | cudaArraySurfaceLoadStore));
        surface = surface_of(array);
        faces<<<6, dim3(side, side)>>>(surface);
        CHECK_LAUNCH();
        std::vector<float> cube(side * side * 6);
        copy = {};
        copy.srcArray = array;
        copy.dstPtr = make_cudaPitchedPtr(cube.data(), side * 4, side, side);
        copy.extent = make_cudaExtent(side, side, 6);
        copy.kind = cudaMemcpyDeviceToHost;
        CHECK(cudaMemcpy3D(&copy));
        for (int i = 0; i < side * side * 6; ++i) REQUIRE(cube[i] == i / 16 * 100 + i / 4 % 4 * 10 + i % 4);
        CHECK(cudaDestroySurfaceObject(surface));
        CHECK(cudaFreeArray(array));
        std::printf("layers and faces\n");
    }
    {
        cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
        cudaMipmappedArray_t pyramid;
        float *out, total;
        CHECK(cudaMalloc(&out, 4));
        CHECK(cudaMallocMipmappedArray(&pyramid, &format, make_cudaExtent(16, 8, 0), 3, cudaArraySurfaceLoadStore));
        for (unsigned level = 0; level < 3; ++level) {
            int w = 16 >> level, h = 8 >> level;
            cudaArray_t array;
            CHECK(cudaGetMipmappedArrayLevel(&array, pyramid, level));
            cudaSurfaceObject_t surface = surface_of(array);
            ramp<<<1, dim3(w, h)>>>(surface, 10.0f * level);
            CHECK_LAUNCH();
            cudaResourceDesc resource = {};
            resource.resType = cudaResourceTypeArray;
            resource.res.array.array = array;
            cudaTextureDesc description = {};
            cudaTextureObject_t texture;
            CHECK(cudaCreateTextureObject(&texture, &resource, &description, nullptr));
            sum<<<1, 1>>>(texture, w, h, out);
            CHECK_LAUNCH();
            CHECK(cudaMemcpy(&total, out, 4, cudaMemcpyDeviceToHost));
            std::printf("level %u: %g\n", level, total);
            REQUIRE(total == w * h * (10.0f * level) + w * h * (w * h - 1) / 2);
            CHECK(cudaDestroyTextureObject(texture));
            CHECK(cudaDestroySurfaceObject(surface));
        }
        CHECK(cudaFreeMipmappedArray(pyramid));
        CHECK(cudaFree(out));
    }
    cudaChannelFormatDesc format = cudaCreateChannelDesc<int>();
    cudaArray_t plain;
    CHECK(cudaMallocArray(&plain, &format, 8, 8));
    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeArray;
    resource.res.array.array = plain;
    // The driver does not mind that the array was not made for surfaces.
    cudaSurfaceObject_t surface;
    CHECK(cudaCreateSurfaceObject(&surface, &resource));
    CHECK(cudaDestroySurfaceObject(surface));
    // No object is destroyed without complaint, as a null pointer is freed.
    CHECK(cudaDestroySurfaceObject(0));
    CHECK(cudaFreeArray(plain));
    return pass();
}
