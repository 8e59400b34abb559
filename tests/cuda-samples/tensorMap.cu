// Proves tensor maps: a tile of a tensor copied to shared memory by the tensor memory accelerator, at its edges filled with
// zeros, the same map with another address, and the errors of impossible tensors. Waived (exit code 2) where the device
// has no such engine.
#include <vector>

#include <cuda.h>
#include <cudaTypedefs.h>

#include "common.h"

constexpr int kTile = 16;

__global__ void tile(const __grid_constant__ CUtensorMap map, float *out, int x, int y) {
    __shared__ alignas(128) float box[kTile * kTile];
    __shared__ alignas(8) uint64_t barrier;
    unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(box));
    unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(&barrier));
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(at) : "memory");
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
                     "l"(&map), "r"(x), "r"(y), "r"(at)
                     : "memory");
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "n"(sizeof box) : "memory");
    }
    unsigned done = 0;
    while (!done)
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], 0; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done)
                     : "r"(at)
                     : "memory");
    out[threadIdx.x] = box[threadIdx.x];
}

template <typename Function>
Function entry_point(const char *name) {
    void *function = nullptr;
    cudaDriverEntryPointQueryResult found;
    CHECK(cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &found));
    if (found != cudaDriverEntryPointSuccess) fail("%s is not there", name);
    return reinterpret_cast<Function>(function);
}

int main() {
    auto encode = entry_point<PFN_cuTensorMapEncodeTiled_v12000>("cuTensorMapEncodeTiled");
    auto encode_columns = entry_point<PFN_cuTensorMapEncodeIm2col_v12000>("cuTensorMapEncodeIm2col");
    auto replace = entry_point<PFN_cuTensorMapReplaceAddress_v12000>("cuTensorMapReplaceAddress");
    CHECK(cudaFree(nullptr));

    const int width = 64, height = 40;
    std::vector<float> numbers(width * height), got(kTile * kTile);
    for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i) + 0.5f;
    float *tensor, *negative, *out;
    CHECK(cudaMalloc(&tensor, numbers.size() * 4));
    CHECK(cudaMalloc(&negative, numbers.size() * 4));
    CHECK(cudaMalloc(&out, got.size() * 4));
    CHECK(cudaMemcpy(tensor, numbers.data(), numbers.size() * 4, cudaMemcpyHostToDevice));

    CUtensorMap map;
    cuuint64_t dimensions[] = {width, height}, strides[] = {width * 4};
    cuuint32_t box[] = {kTile, kTile}, steps[] = {1, 1};
    auto make = [&](CUtensorMap *to, cuuint32_t rank, void *address) {
        return encode(to, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, rank, address, dimensions, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                      CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    };
    CUresult result = make(&map, 2, tensor);
    if (result == CUDA_ERROR_NOT_SUPPORTED) {
        std::printf("no tensor maps here\n");
        return 2;
    }
    CHECK_DRIVER(result);
    auto check = [&](int x, int y, float sign) {
        tile<<<1, kTile * kTile>>>(map, out, x, y);
        CHECK_LAUNCH();
        CHECK(cudaMemcpy(got.data(), out, got.size() * 4, cudaMemcpyDeviceToHost));
        for (int row = 0; row < kTile; ++row)
            for (int column = 0; column < kTile; ++column) {
                int at_x = x + column, at_y = y + row;
                bool inside = at_x >= 0 && at_x < width && at_y >= 0 && at_y < height;
                float want = inside ? sign * numbers[at_y * width + at_x] : 0;
                if (got[row * kTile + column] != want) fail("(%d, %d) is %g, expected %g", at_x, at_y, got[row * kTile + column], want);
            }
    };
    check(0, 0, 1);
    // The innermost coordinate has to lie at a multiple of 16 bytes: elsewhere the device meets an illegal instruction.
    check(36, 11, 1);
    check(56, 30, 1);
    check(-4, -9, 1);
    std::printf("tiles, inside and at the edges\n");

    for (auto &number : numbers) number = -number;
    CHECK(cudaMemcpy(negative, numbers.data(), numbers.size() * 4, cudaMemcpyHostToDevice));
    CHECK_DRIVER(replace(&map, negative));
    check(20, 20, 1);
    CUtensorMap other;
    CHECK_DRIVER(make(&other, 2, negative));
    REQUIRE(std::memcmp(&map, &other, sizeof map) == 0);
    std::printf("another address\n");

    cuuint64_t pixels[] = {32, 16, 16, 4}, pixel_strides[] = {128, 2048, 32768};
    int lower[] = {-1, -1}, upper[] = {-1, -1};
    cuuint32_t pixel_steps[] = {1, 1, 1, 1};
    CHECK_DRIVER(encode_columns(&other, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 4, tensor, pixels, pixel_strides, lower, upper, 32, 64, pixel_steps,
                                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
    std::printf("columns\n");

    EXPECT_DRIVER(CUDA_ERROR_INVALID_VALUE, make(&other, 6, tensor));
    EXPECT_DRIVER(CUDA_ERROR_INVALID_VALUE, make(&other, 2, reinterpret_cast<char *>(tensor) + 4));
    EXPECT_DRIVER(CUDA_ERROR_INVALID_VALUE, make(nullptr, 2, tensor));
    strides[0] = 12;
    EXPECT_DRIVER(CUDA_ERROR_INVALID_VALUE, make(&other, 2, tensor));
    std::printf("errors\n");
    CHECK(cudaFree(tensor));
    CHECK(cudaFree(negative));
    CHECK(cudaFree(out));
    return pass();
}
