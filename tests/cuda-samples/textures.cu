// Proves arrays and texture and surface objects: 1D, 2D and 3D arrays, point and linear filtering, all address modes,
// normalised coordinates and values, linear and pitched memory as textures, and writing through a surface.
#include <vector>

#include "common.h"

__global__ void sample_1d(cudaTextureObject_t texture, const float *x, float *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[i] = tex1D<float>(texture, x[i]);
}

__global__ void sample_2d(cudaTextureObject_t texture, float *out, int width, int height, float dx, float dy) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y;
    if (x < width && y < height) out[y * width + x] = tex2D<float>(texture, x + dx, y + dy);
}

__global__ void sample_bytes(cudaTextureObject_t texture, float4 *out, int width) {
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    if (x < width) out[x] = tex2D<float4>(texture, (x + 0.5f) / width, 0.5f);
}

__global__ void sample_3d(cudaTextureObject_t texture, float *out, int side) {
    int x = threadIdx.x, y = threadIdx.y, z = blockIdx.x;
    out[(z * side + y) * side + x] = tex3D<float>(texture, x + 0.5f, y + 0.5f, z + 0.5f);
}

__global__ void fetch(cudaTextureObject_t texture, int *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[i] = tex1Dfetch<int>(texture, count - 1 - i);
}

__global__ void paint(cudaSurfaceObject_t surface, int width, int height) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y;
    if (x < width && y < height) surf2Dwrite(x * 100.0f + y, surface, x * sizeof(float), y);
}

cudaTextureObject_t texture_of(cudaArray_t array, cudaTextureAddressMode address, cudaTextureFilterMode filter, bool normalised,
                               cudaTextureReadMode read = cudaReadModeElementType) {
    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeArray;
    resource.res.array.array = array;
    cudaTextureDesc description = {};
    description.addressMode[0] = description.addressMode[1] = description.addressMode[2] = address;
    description.filterMode = filter;
    description.readMode = read;
    description.normalizedCoords = normalised;
    cudaTextureObject_t texture = 0;
    CHECK(cudaCreateTextureObject(&texture, &resource, &description, nullptr));
    return texture;
}

int main() {
    const int width = 64, height = 20;
    float *out;
    CHECK(cudaMalloc(&out, 4096 * sizeof(float)));
    std::vector<float> got(4096);

    // One dimension: every address mode, point filtering. Texel i holds 10 i.
    cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
    cudaArray_t line;
    std::vector<float> texels(8), at = {-0.3f, -0.05f, 0.0f, 0.07f, 0.13f, 0.5f, 0.9f, 0.99f, 1.01f, 1.3f, 2.2f, -1.6f};
    for (int i = 0; i < 8; ++i) texels[i] = 10.0f * i;
    CHECK(cudaMallocArray(&line, &format, 8));
    CHECK(cudaMemcpy2DToArray(line, 0, 0, texels.data(), 32, 32, 1, cudaMemcpyHostToDevice));
    float *device_at;
    int points = static_cast<int>(at.size());
    CHECK(cudaMalloc(&device_at, points * sizeof(float)));
    CHECK(cudaMemcpy(device_at, at.data(), points * sizeof(float), cudaMemcpyHostToDevice));
    struct { cudaTextureAddressMode mode; const char *name; } modes[] = {
        {cudaAddressModeClamp, "clamp"}, {cudaAddressModeBorder, "border"}, {cudaAddressModeWrap, "wrap"}, {cudaAddressModeMirror, "mirror"}};
    for (auto mode : modes) {
        cudaTextureObject_t texture = texture_of(line, mode.mode, cudaFilterModePoint, true);
        sample_1d<<<1, 32>>>(texture, device_at, out, points);
        CHECK_LAUNCH();
        CHECK(cudaMemcpy(got.data(), out, points * sizeof(float), cudaMemcpyDeviceToHost));
        for (int i = 0; i < points; ++i) {
            float x = at[i], turns = std::floor(x), part = x - turns;
            int index = static_cast<int>(std::floor(x * 8));
            if (mode.mode == cudaAddressModeWrap) index = static_cast<int>(part * 8);
            if (mode.mode == cudaAddressModeMirror) index = static_cast<int>((static_cast<int>(turns) & 1 ? 1 - part : part) * 8);
            bool outside = index < 0 || index > 7;
            float want = outside && mode.mode == cudaAddressModeBorder ? 0.0f : texels[index < 0 ? 0 : index > 7 ? 7 : index];
            if (got[i] != want) fail("%s at %g is %g, expected %g", mode.name, x, got[i], want);
        }
        CHECK(cudaDestroyTextureObject(texture));
        std::printf("1D, %s\n", mode.name);
    }

    // Two dimensions: exact texels, then linear filtering between four of them (8 fractional bits).
    cudaArray_t plane;
    std::vector<float> image(width * height);
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) image[y * width + x] = 3.0f * x - 7.0f * y;
    CHECK(cudaMallocArray(&plane, &format, width, height, cudaArraySurfaceLoadStore));
    CHECK(cudaMemcpy2DToArray(plane, 0, 0, image.data(), width * 4, width * 4, height, cudaMemcpyHostToDevice));
    dim3 grid(divide_up(width, 32), height);
    cudaTextureObject_t texture = texture_of(plane, cudaAddressModeClamp, cudaFilterModeLinear, false);
    sample_2d<<<grid, 32>>>(texture, out, width, height, 0.5f, 0.5f);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(got.data(), out, image.size() * 4, cudaMemcpyDeviceToHost));
    require_equal("2D texel", got.data(), image.data(), image.size());
    sample_2d<<<grid, 32>>>(texture, out, width, height, 0.75f, 1.0f);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(got.data(), out, image.size() * 4, cudaMemcpyDeviceToHost));
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) {
            auto texel = [&](int i, int j) { return static_cast<double>(image[(j < height ? j : height - 1) * width + (i < width ? i : width - 1)]); };
            double top = texel(x, y) * 0.75 + texel(x + 1, y) * 0.25, bottom = texel(x, y + 1) * 0.75 + texel(x + 1, y + 1) * 0.25;
            if (std::fabs(got[y * width + x] - (top + bottom) / 2) > 0.05) fail("linear at (%d, %d) is %g, expected %g", x, y, got[y * width + x], (top + bottom) / 2);
        }
    CHECK(cudaDestroyTextureObject(texture));
    std::printf("2D, point and linear\n");

    // Written through a surface, read back by a copy.
    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeArray;
    resource.res.array.array = plane;
    cudaSurfaceObject_t surface;
    CHECK(cudaCreateSurfaceObject(&surface, &resource));
    paint<<<grid, 32>>>(surface, width, height);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy2DFromArray(got.data(), width * 4, plane, 0, 0, width * 4, height, cudaMemcpyDeviceToHost));
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) REQUIRE(got[y * width + x] == x * 100.0f + y);
    CHECK(cudaDestroySurfaceObject(surface));
    std::printf("surface\n");

    // Bytes as normalised floats.
    cudaArray_t colours;
    cudaChannelFormatDesc bytes = cudaCreateChannelDesc<uchar4>();
    std::vector<uchar4> pixels(16);
    for (int i = 0; i < 16; ++i) pixels[i] = make_uchar4(i * 17, 255 - i * 17, i, 255);
    CHECK(cudaMallocArray(&colours, &bytes, 16, 1));
    CHECK(cudaMemcpy2DToArray(colours, 0, 0, pixels.data(), 64, 64, 1, cudaMemcpyHostToDevice));
    texture = texture_of(colours, cudaAddressModeClamp, cudaFilterModePoint, true, cudaReadModeNormalizedFloat);
    sample_bytes<<<1, 16>>>(texture, reinterpret_cast<float4 *>(out), 16);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(got.data(), out, 16 * 16, cudaMemcpyDeviceToHost));
    for (int i = 0; i < 16; ++i) {
        const float want[4] = {i * 17 / 255.0f, (255 - i * 17) / 255.0f, i / 255.0f, 1.0f};
        require_close("colour", &got[4 * i], want, 4, 1e-6, 1e-7);
    }
    CHECK(cudaDestroyTextureObject(texture));
    std::printf("normalised bytes\n");

    // Three dimensions.
    const int side = 8;
    cudaArray_t cube;
    std::vector<float> volume(side * side * side);
    for (size_t i = 0; i < volume.size(); ++i) volume[i] = static_cast<float>(i * i % 1013);
    CHECK(cudaMalloc3DArray(&cube, &format, make_cudaExtent(side, side, side)));
    cudaMemcpy3DParms copy = {};
    copy.srcPtr = make_cudaPitchedPtr(volume.data(), side * 4, side, side);
    copy.dstArray = cube;
    copy.extent = make_cudaExtent(side, side, side);
    copy.kind = cudaMemcpyHostToDevice;
    CHECK(cudaMemcpy3D(&copy));
    texture = texture_of(cube, cudaAddressModeClamp, cudaFilterModePoint, false);
    sample_3d<<<side, dim3(side, side)>>>(texture, out, side);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(got.data(), out, volume.size() * 4, cudaMemcpyDeviceToHost));
    require_equal("3D texel", got.data(), volume.data(), volume.size());
    CHECK(cudaDestroyTextureObject(texture));
    std::printf("3D\n");

    // Linear memory.
    const int length = 1000;
    std::vector<int> numbers(length), reversed(length);
    for (int i = 0; i < length; ++i) numbers[i] = i * i;
    int *linear, *fetched;
    CHECK(cudaMalloc(&linear, length * 4));
    CHECK(cudaMalloc(&fetched, length * 4));
    CHECK(cudaMemcpy(linear, numbers.data(), length * 4, cudaMemcpyHostToDevice));
    resource = {};
    resource.resType = cudaResourceTypeLinear;
    resource.res.linear.devPtr = linear;
    resource.res.linear.desc = cudaCreateChannelDesc<int>();
    resource.res.linear.sizeInBytes = length * 4;
    cudaTextureDesc description = {};
    description.readMode = cudaReadModeElementType;
    CHECK(cudaCreateTextureObject(&texture, &resource, &description, nullptr));
    fetch<<<divide_up(length, 128), 128>>>(texture, fetched, length);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(reversed.data(), fetched, length * 4, cudaMemcpyDeviceToHost));
    for (int i = 0; i < length; ++i) REQUIRE(reversed[i] == numbers[length - 1 - i]);
    CHECK(cudaDestroyTextureObject(texture));
    std::printf("linear memory\n");

    CHECK(cudaFreeArray(line));
    CHECK(cudaFreeArray(plane));
    CHECK(cudaFreeArray(colours));
    CHECK(cudaFreeArray(cube));
    CHECK(cudaFree(linear));
    CHECK(cudaFree(fetched));
    CHECK(cudaFree(device_at));
    CHECK(cudaFree(out));
    return pass();
}
