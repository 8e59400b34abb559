// Proves integer and conversion intrinsics: counting and reversing bits, funnel shifts, byte permutation, high
// products, sums of differences, dot products, saturation, division of all signs, rounding modes of conversions and
// of single operations, and bit casts; every result against the CPU.
#include <cfenv>
#include <vector>

#include "common.h"

enum { POPC, CLZ, FFS, BREV, PERM, FUNNEL_L, FUNNEL_R, UMULHI, MULHI, HADD, RHADD, SAD, USAD, DIV, REM, UDIV, UREM, SHL, SHR, SAR, BFE, DP4A, POPCLL, CLZLL, COUNT };
enum { RN, RZ, RU, RD, FROM_FLOAT, COUNT_F };

__global__ void integers(const unsigned *a, const unsigned *b, unsigned *out, unsigned long long *wide, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    unsigned x = a[i], y = b[i], *r = out + i * COUNT;
    int sx = static_cast<int>(x), sy = static_cast<int>(y);
    unsigned long long xy = static_cast<unsigned long long>(x) << 32 | y;
    r[POPC] = __popc(x);
    r[CLZ] = __clz(sx);
    r[FFS] = __ffs(sx);
    r[BREV] = __brev(x);
    r[PERM] = __byte_perm(x, y, 0x3715);
    r[FUNNEL_L] = __funnelshift_l(x, y, y & 63);
    r[FUNNEL_R] = __funnelshift_r(x, y, y & 63);
    r[UMULHI] = __umulhi(x, y);
    r[MULHI] = __mulhi(sx, sy);
    r[HADD] = __hadd(sx, sy);
    r[RHADD] = __rhadd(sx, sy);
    r[SAD] = __sad(sx, sy, 5);
    r[USAD] = __usad(x, y, 5);
    r[DIV] = y ? sx / (sy == -1 ? 7 : sy) : 0;
    r[REM] = y ? sx % (sy == -1 ? 7 : sy) : 0;
    r[UDIV] = y ? x / y : 0;
    r[UREM] = y ? x % y : 0;
    r[SHL] = x << (y & 31);
    r[SHR] = x >> (y & 31);
    r[SAR] = sx >> (y & 31);
    r[BFE] = (x >> 5) & 0x1ff;
    r[DP4A] = __dp4a(sx, sy, 100);
    r[POPCLL] = __popcll(xy);
    r[CLZLL] = __clzll(static_cast<long long>(xy));
    wide[6 * i] = __umul64hi(xy, ~xy);
    wide[6 * i + 1] = __mul64hi(static_cast<long long>(xy), static_cast<long long>(xy >> 1));
    wide[6 * i + 2] = __brevll(xy);
    wide[6 * i + 3] = static_cast<long long>(xy) / (static_cast<long long>(x | 1u) * (sy < 0 ? -1 : 1));
    wide[6 * i + 4] = xy % (static_cast<unsigned long long>(y) * 3 + 1);
    wide[6 * i + 5] = xy << (y & 63) ^ xy >> (x & 63);
}

__global__ void roundings(const float *in, int *out, float *sums, double *products, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    float x = in[i];
    out[COUNT_F * i + RN] = __float2int_rn(x);
    out[COUNT_F * i + RZ] = __float2int_rz(x);
    out[COUNT_F * i + RU] = __float2int_ru(x);
    out[COUNT_F * i + RD] = __float2int_rd(x);
    out[COUNT_F * i + FROM_FLOAT] = __float_as_int(__int2float_rn(__float_as_int(x)));
    float y = in[(i + 1) % count];
    sums[4 * i] = __fadd_ru(x, y);
    sums[4 * i + 1] = __fmul_rd(x, y);
    sums[4 * i + 2] = __fdiv_rz(x, y);
    sums[4 * i + 3] = __fmaf_rn(x, y, x);
    products[3 * i] = __dmul_ru(x, y * 1.1);
    products[3 * i + 1] = __ddiv_rd(x, y);
    products[3 * i + 2] = __fma_rn(x, y, 0.1);
}

// Saturating conversion as the device does it: NaN becomes 0.
int to_int(int mode, double x) {
    double rounded = mode == RN ? std::nearbyint(x) : mode == RZ ? std::trunc(x) : mode == RU ? std::ceil(x) : std::floor(x);
    return std::isnan(x) ? 0 : rounded >= 2147483647.0 ? 2147483647 : rounded <= -2147483648.0 ? -2147483647 - 1 : static_cast<int>(rounded);
}

// One operation under another rounding mode; volatile keeps the compiler from folding or moving it.
template <typename T, typename F>
T rounded(int mode, F operation) {
    std::fesetround(mode);
    volatile T result = operation();
    std::fesetround(FE_TONEAREST);
    return result;
}

template <typename T>
bool same(T a, T b) {
    return (std::isnan(a) && std::isnan(b)) || std::memcmp(&a, &b, sizeof(T)) == 0;
}

int main() {
    const int count = 1024;
    std::vector<unsigned> a(count), b(count), got(count * COUNT);
    std::vector<unsigned long long> wide(count * 6);
    Random random(15);
    const unsigned corners[] = {0, 1, 2, 31, 32, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffffe, 0x00ff00ff};
    for (int i = 0; i < count; ++i) {
        a[i] = i < 100 ? corners[i / 10] : random.bits() >> (random.bits() & 31);
        b[i] = i < 100 ? corners[i % 10] : random.bits() >> (random.bits() & 31);
    }
    unsigned *device_a, *device_b, *out;
    unsigned long long *out_wide;
    CHECK(cudaMalloc(&device_a, count * 4));
    CHECK(cudaMalloc(&device_b, count * 4));
    CHECK(cudaMalloc(&out, got.size() * 4));
    CHECK(cudaMalloc(&out_wide, wide.size() * 8));
    CHECK(cudaMemcpy(device_a, a.data(), count * 4, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(device_b, b.data(), count * 4, cudaMemcpyHostToDevice));
    integers<<<divide_up(count, 128), 128>>>(device_a, device_b, out, out_wide, count);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(got.data(), out, got.size() * 4, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(wide.data(), out_wide, wide.size() * 8, cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; ++i) {
        unsigned x = a[i], y = b[i], want[COUNT];
        int sx = static_cast<int>(x), sy = static_cast<int>(y), divisor = sy == -1 ? 7 : sy;
        unsigned long long xy = static_cast<unsigned long long>(x) << 32 | y, yx = static_cast<unsigned long long>(y) << 32 | x;
        unsigned reversed = 0;
        for (int k = 0; k < 32; ++k) reversed |= (x >> k & 1) << (31 - k);
        want[POPC] = __builtin_popcount(x);
        want[CLZ] = x ? __builtin_clz(x) : 32;
        want[FFS] = __builtin_ffs(sx);
        want[BREV] = reversed;
        want[PERM] = 0;
        const unsigned selectors[] = {5, 1, 7, 3};
        for (int k = 0; k < 4; ++k) want[PERM] |= static_cast<unsigned>(yx >> (8 * selectors[k]) & 255) << (8 * k);
        unsigned shift = y & 31;
        want[FUNNEL_L] = static_cast<unsigned>(yx << shift >> 32);
        want[FUNNEL_R] = static_cast<unsigned>(yx >> shift);
        want[UMULHI] = static_cast<unsigned>(static_cast<unsigned long long>(x) * y >> 32);
        want[MULHI] = static_cast<unsigned>(static_cast<long long>(sx) * sy >> 32);
        want[HADD] = static_cast<unsigned>((static_cast<long long>(sx) + sy) >> 1);
        want[RHADD] = static_cast<unsigned>((static_cast<long long>(sx) + sy + 1) >> 1);
        want[SAD] = static_cast<unsigned>(std::llabs(static_cast<long long>(sx) - sy)) + 5;
        want[USAD] = (x > y ? x - y : y - x) + 5;
        want[DIV] = y ? static_cast<unsigned>(static_cast<long long>(sx) / divisor) : 0;
        want[REM] = y ? static_cast<unsigned>(static_cast<long long>(sx) % divisor) : 0;
        want[UDIV] = y ? x / y : 0;
        want[UREM] = y ? x % y : 0;
        want[SHL] = x << shift;
        want[SHR] = x >> shift;
        want[SAR] = static_cast<unsigned>(sx >> shift);
        want[BFE] = x >> 5 & 0x1ff;
        want[DP4A] = 100;
        for (int k = 0; k < 4; ++k) want[DP4A] += static_cast<unsigned>(static_cast<signed char>(x >> 8 * k) * static_cast<signed char>(y >> 8 * k));
        want[POPCLL] = __builtin_popcountll(xy);
        want[CLZLL] = xy ? __builtin_clzll(xy) : 64;
        for (int k = 0; k < COUNT; ++k)
            if (got[i * COUNT + k] != want[k]) fail("integer test %d of %08x and %08x is %08x, expected %08x", k, x, y, got[i * COUNT + k], want[k]);
        unsigned long long reversed_wide = 0, want_wide[6];
        for (int k = 0; k < 64; ++k) reversed_wide |= (xy >> k & 1) << (63 - k);
        long long by = static_cast<long long>(x | 1u) * (sy < 0 ? -1 : 1);
        want_wide[0] = static_cast<unsigned long long>(static_cast<unsigned __int128>(xy) * ~xy >> 64);
        want_wide[1] = static_cast<unsigned long long>(static_cast<__int128>(static_cast<long long>(xy)) * static_cast<long long>(xy >> 1) >> 64);
        want_wide[2] = reversed_wide;
        want_wide[3] = static_cast<unsigned long long>(static_cast<long long>(static_cast<__int128>(static_cast<long long>(xy)) / by));
        want_wide[4] = xy % (static_cast<unsigned long long>(y) * 3 + 1);
        want_wide[5] = xy << (y & 63) ^ xy >> (x & 63);
        for (int k = 0; k < 6; ++k)
            if (wide[6 * i + k] != want_wide[k]) fail("64-bit test %d of %08x and %08x is %016llx, expected %016llx", k, x, y, wide[6 * i + k], want_wide[k]);
    }
    std::printf("%d integer tests on %d pairs\n", static_cast<int>(COUNT) + 6, count);

    std::vector<float> in = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 0.0f, -0.0f, 1e10f, -1e10f, 2147483520.0f, 1e-40f, 3.4e38f, -3.4e38f, NAN, INFINITY};
    while (in.size() < 512) in.push_back((random.uniform() - 0.5f) * std::ldexp(1.0f, static_cast<int>(random.bits() % 40)));
    int floats = static_cast<int>(in.size());
    std::vector<int> ints(floats * COUNT_F);
    std::vector<float> sums(floats * 4);
    std::vector<double> products(floats * 3);
    float *device_in, *device_sums;
    int *device_ints;
    double *device_products;
    CHECK(cudaMalloc(&device_in, floats * 4));
    CHECK(cudaMalloc(&device_sums, sums.size() * 4));
    CHECK(cudaMalloc(&device_ints, ints.size() * 4));
    CHECK(cudaMalloc(&device_products, products.size() * 8));
    CHECK(cudaMemcpy(device_in, in.data(), floats * 4, cudaMemcpyHostToDevice));
    roundings<<<divide_up(floats, 64), 64>>>(device_in, device_ints, device_sums, device_products, floats);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(ints.data(), device_ints, ints.size() * 4, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(sums.data(), device_sums, sums.size() * 4, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(products.data(), device_products, products.size() * 8, cudaMemcpyDeviceToHost));
    for (int i = 0; i < floats; ++i) {
        volatile float x = in[i], y = in[(i + 1) % floats];
        for (int mode = 0; mode < 4; ++mode) {
            int want = to_int(mode, x);
            if (ints[COUNT_F * i + mode] != want) fail("%.9g to int in mode %d is %d, expected %d", x, mode, ints[COUNT_F * i + mode], want);
        }
        float bits;
        int as_int;
        float plain = x;
        std::memcpy(&as_int, &plain, 4);
        bits = static_cast<float>(as_int);
        std::memcpy(&as_int, &bits, 4);
        if (ints[COUNT_F * i + FROM_FLOAT] != as_int) fail("int to float of the bits of %.9g is %08x, expected %08x", x, ints[COUNT_F * i + FROM_FLOAT], as_int);
        float want[4] = {rounded<float>(FE_UPWARD, [&] { return x + y; }), rounded<float>(FE_DOWNWARD, [&] { return x * y; }),
                         rounded<float>(FE_TOWARDZERO, [&] { return x / y; }), std::fmaf(x, y, x)};
        for (int k = 0; k < 4; ++k)
            if (!same(sums[4 * i + k], want[k])) fail("float test %d of %.9g and %.9g is %.9g, expected %.9g", k, x, y, sums[4 * i + k], want[k]);
        volatile double wide_x = x, wide_y = y * 1.1, plain_y = y;
        double want_wide[3] = {rounded<double>(FE_UPWARD, [&] { return wide_x * wide_y; }), rounded<double>(FE_DOWNWARD, [&] { return wide_x / plain_y; }),
                               std::fma(wide_x, plain_y, 0.1)};
        for (int k = 0; k < 3; ++k)
            if (!same(products[3 * i + k], want_wide[k])) fail("double test %d of %.9g and %.9g is %.17g, expected %.17g", k, x, y, products[3 * i + k], want_wide[k]);
    }
    std::printf("conversions and rounding modes on %d values\n", floats);
    for (void *p : {static_cast<void *>(device_a), static_cast<void *>(device_b), static_cast<void *>(out), static_cast<void *>(out_wide),
                    static_cast<void *>(device_in), static_cast<void *>(device_sums), static_cast<void *>(device_ints), static_cast<void *>(device_products)})
        CHECK(cudaFree(p));
    return pass();
}
