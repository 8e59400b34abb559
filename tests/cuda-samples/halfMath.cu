// Proves half and bfloat16: conversions of every one of the 65,536 bit patterns, packed and scalar arithmetic with
// fused multiply-add, comparisons, and the rounding of float to half, all bit for bit against the CPU.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <vector>

#include "common.h"

// The value of a half, exactly.
double half_value(unsigned short bits) {
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double value = exponent == 31 ? (fraction ? NAN : INFINITY) : exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24);
    return bits & 0x8000 ? -value : value;
}

// The half nearest to a value, ties to even.
unsigned short nearest_half(double value) {
    unsigned short sign = std::signbit(value) ? 0x8000 : 0;
    double size = std::fabs(value);
    if (std::isnan(value)) return 0x7fff;
    if (size >= 65520) return sign | 0x7c00;
    int exponent;
    std::frexp(size, &exponent);
    // Spacing of halves around the value: 2^(exponent-11), at least 2^-24.
    double unit = std::ldexp(1.0, exponent - 11 < -24 ? -24 : exponent - 11);
    double steps = std::nearbyint(size / unit) * unit;
    for (int guess = 0, low = 0, high = 0x7c00; low < high;) {
        guess = (low + high) / 2;
        if (half_value(static_cast<unsigned short>(guess)) < steps) low = guess + 1;
        else high = guess;
        if (low >= high) return sign | static_cast<unsigned short>(low);
    }
    return sign;
}

__global__ void to_float(float *halves, float *bfloats) {
    unsigned bits = blockIdx.x * blockDim.x + threadIdx.x;
    halves[bits] = __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
    bfloats[bits] = __bfloat162float(__ushort_as_bfloat16(static_cast<unsigned short>(bits)));
}

__global__ void from_float(const float *in, unsigned short *halves, unsigned short *bfloats, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    halves[i] = __half_as_ushort(__float2half_rn(in[i]));
    bfloats[i] = __bfloat16_as_ushort(__float2bfloat16_rn(in[i]));
}

__global__ void arithmetic(const __half *a, const __half *b, __half *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    __half x = a[i], y = b[i];
    out[8 * i] = __hadd(x, y);
    out[8 * i + 1] = __hsub(x, y);
    out[8 * i + 2] = __hmul(x, y);
    out[8 * i + 3] = __hfma(x, y, x);
    __half2 packed = __hmul2(__halves2half2(x, y), __halves2half2(y, y));
    out[8 * i + 4] = __low2half(packed);
    out[8 * i + 5] = __high2half(packed);
    out[8 * i + 6] = __hlt(x, y) ? __float2half(1) : __float2half(0);
    out[8 * i + 7] = __hneg(x);
}

// Sums products in float, packed halves as input: the scalar product of the samples of old.
__global__ void product(const __half2 *a, const __half2 *b, float *out, int pairs) {
    __shared__ float sums[128];
    float sum = 0;
    for (int i = threadIdx.x; i < pairs; i += blockDim.x) {
        float2 x = __half22float2(a[i]), y = __half22float2(b[i]);
        sum += x.x * y.x + x.y * y.y;
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int step = 64; step > 0; step /= 2) {
        if (threadIdx.x < step) sums[threadIdx.x] += sums[threadIdx.x + step];
        __syncthreads();
    }
    if (threadIdx.x == 0) *out = sums[0];
}

bool same(float a, float b) { return std::isnan(a) ? std::isnan(b) : std::memcmp(&a, &b, 4) == 0; }

int main() {
    const int patterns = 65536;
    std::vector<float> halves(patterns), bfloats(patterns);
    float *device_a, *device_b;
    CHECK(cudaMalloc(&device_a, patterns * sizeof(float)));
    CHECK(cudaMalloc(&device_b, patterns * sizeof(float)));
    to_float<<<patterns / 256, 256>>>(device_a, device_b);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(halves.data(), device_a, patterns * sizeof(float), cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(bfloats.data(), device_b, patterns * sizeof(float), cudaMemcpyDeviceToHost));
    for (int bits = 0; bits < patterns; ++bits) {
        uint32_t wide = static_cast<uint32_t>(bits) << 16;
        float bfloat;
        std::memcpy(&bfloat, &wide, 4);
        if (!same(halves[bits], static_cast<float>(half_value(static_cast<unsigned short>(bits))))) fail("half %04x became %g", bits, halves[bits]);
        if (!same(bfloats[bits], bfloat)) fail("bfloat16 %04x became %g", bits, bfloats[bits]);
    }
    std::printf("all bit patterns to float\n");

    // Values around every rounding decision, and random bits.
    std::vector<float> in;
    Random random(13);
    for (float x : {0.0f, -0.0f, 1.0f, 65504.0f, 65519.0f, 65520.0f, 1e9f, -1e9f, 5.9604645e-8f, 2.9802322e-8f, 2.9802326e-8f, 6.1e-5f, INFINITY, 2049.0f, 2051.0f, 0.33325195f})
        in.push_back(x);
    while (in.size() < 4096) {
        uint32_t bits = (random.bits() & 0x80ffffffu) | ((100 + random.bits() % 50) << 23);
        float x;
        std::memcpy(&x, &bits, 4);
        in.push_back(x);
    }
    int count = static_cast<int>(in.size());
    std::vector<unsigned short> got(count), got_bfloat(count);
    unsigned short *out, *out_bfloat;
    CHECK(cudaMalloc(&out, 8 * count * 2));
    CHECK(cudaMalloc(&out_bfloat, count * 2));
    CHECK(cudaMemcpy(device_a, in.data(), count * 4, cudaMemcpyHostToDevice));
    from_float<<<divide_up(count, 128), 128>>>(device_a, out, out_bfloat, count);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(got.data(), out, count * 2, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(got_bfloat.data(), out_bfloat, count * 2, cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; ++i) {
        uint32_t bits;
        std::memcpy(&bits, &in[i], 4);
        unsigned short want = static_cast<unsigned short>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
        if (got[i] != nearest_half(in[i])) fail("%.9g became half %04x, expected %04x", in[i], got[i], nearest_half(in[i]));
        if (got_bfloat[i] != want) fail("%.9g became bfloat16 %04x, expected %04x", in[i], got_bfloat[i], want);
    }
    std::printf("rounding to half and bfloat16\n");

    std::vector<unsigned short> a(count), b(count), results(8 * count);
    for (int i = 0; i < count; ++i) {
        // Finite halves of moderate size, both signs, some of them denormal.
        a[i] = static_cast<unsigned short>((random.bits() & 0x83ff) | (random.bits() % 20 << 10));
        b[i] = static_cast<unsigned short>((random.bits() & 0x83ff) | (random.bits() % 20 << 10));
    }
    unsigned short *half_a = reinterpret_cast<unsigned short *>(device_a), *half_b = reinterpret_cast<unsigned short *>(device_b);
    CHECK(cudaMemcpy(half_a, a.data(), count * 2, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(half_b, b.data(), count * 2, cudaMemcpyHostToDevice));
    arithmetic<<<divide_up(count, 128), 128>>>(reinterpret_cast<__half *>(half_a), reinterpret_cast<__half *>(half_b), reinterpret_cast<__half *>(out), count);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(results.data(), out, results.size() * 2, cudaMemcpyDeviceToHost));
    const char *names[] = {"add", "sub", "mul", "fma", "mul2 low", "mul2 high", "less", "neg"};
    for (int i = 0; i < count; ++i) {
        // Sums and products of halves are exact in double, so there is one rounding only.
        double x = half_value(a[i]), y = half_value(b[i]);
        unsigned short want[8] = {nearest_half(x + y), nearest_half(x - y), nearest_half(x * y), nearest_half(x * y + x), nearest_half(x * y), nearest_half(y * y),
                                  nearest_half(x < y), static_cast<unsigned short>(a[i] ^ 0x8000)};
        for (int k = 0; k < 8; ++k)
            if (results[8 * i + k] != want[k]) fail("%s of %04x and %04x is %04x, expected %04x", names[k], a[i], b[i], results[8 * i + k], want[k]);
    }
    std::printf("arithmetic\n");

    double sum = 0, size = 0;
    for (int i = 0; i < count; ++i) {
        sum += half_value(a[i]) * half_value(b[i]);
        size += std::fabs(half_value(a[i]) * half_value(b[i]));
    }
    float total;
    product<<<1, 128>>>(reinterpret_cast<__half2 *>(half_a), reinterpret_cast<__half2 *>(half_b), reinterpret_cast<float *>(out), count / 2);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(&total, out, 4, cudaMemcpyDeviceToHost));
    REQUIRE(std::fabs(total - sum) <= 1e-5 * size);
    std::printf("scalar product\n");
    CHECK(cudaFree(device_a));
    CHECK(cudaFree(device_b));
    CHECK(cudaFree(out));
    CHECK(cudaFree(out_bfloat));
    return pass();
}
