// Proves the mathematical functions of the device library, float and double, ordinary and special arguments: each is
// within the error bound that the CUDA programming guide gives (in units of the last place) of the CPU's result.
#include <cfloat>
#include <vector>

#include "common.h"

// Name, expression on the device and on the CPU (in double for float, in long double for double), bounds in ulp for
// float and double, and the range of arguments.
#define FUNCTIONS(ROW)                             \
    ROW(sqrt, 0.5, 0.5, 0, 1e6)                    \
    ROW(cbrt, 1, 1, -1e6, 1e6)                     \
    ROW(exp, 2, 1, -80, 80)                        \
    ROW(exp2, 2, 1, -120, 120)                     \
    ROW(expm1, 2, 1, -10, 10)                      \
    ROW(log, 1, 1, 1e-6, 1e6)                      \
    ROW(log2, 1, 1, 1e-6, 1e6)                     \
    ROW(log10, 2, 1, 1e-6, 1e6)                    \
    ROW(log1p, 1, 1, -0.9, 100)                    \
    ROW(sin, 2, 2, -100, 100)                      \
    ROW(cos, 2, 2, -100, 100)                      \
    ROW(tan, 4, 2, -1.5, 1.5)                      \
    ROW(asin, 2, 2, -1, 1)                         \
    ROW(acos, 2, 2, -1, 1)                         \
    ROW(atan, 2, 2, -1000, 1000)                   \
    ROW(sinh, 3, 2, -20, 20)                       \
    ROW(cosh, 2, 1, -20, 20)                       \
    ROW(tanh, 2, 2, -5, 5)                         \
    ROW(erf, 2, 2, -3, 3)                          \
    ROW(erfc, 4, 5, -3, 3)                         \
    ROW(tgamma, 5, 10, 0.5, 20)                    \
    ROW(floor, 0, 0, -1e5, 1e5)                    \
    ROW(ceil, 0, 0, -1e5, 1e5)                     \
    ROW(trunc, 0, 0, -1e5, 1e5)                    \
    ROW(rint, 0, 0, -1e5, 1e5)                     \
    ROW(round, 0, 0, -1e5, 1e5)                    \
    ROW(fabs, 0, 0, -1e5, 1e5)

#define FUNCTIONS_OF_TWO(ROW)                      \
    ROW(pow, 4, 2, 0.1, 10, -20, 20)               \
    ROW(atan2, 3, 2, -100, 100, -100, 100)         \
    ROW(hypot, 3, 2, -1000, 1000, -1000, 1000)     \
    ROW(fmod, 0, 0, -1000, 1000, 0.1, 10)          \
    ROW(fmin, 0, 0, -10, 10, -10, 10)              \
    ROW(fmax, 0, 0, -10, 10, -10, 10)              \
    ROW(fdim, 0.5, 0.5, -10, 10, -10, 10)          \
    ROW(copysign, 0, 0, -10, 10, -10, 10)          \
    ROW(remainder, 0, 0, -1000, 1000, 0.1, 10)

enum Which {
#define ROW(name, ...) which_##name,
    FUNCTIONS(ROW) FUNCTIONS_OF_TWO(ROW)
#undef ROW
};

template <typename T>
__global__ void apply(Which which, const T *x, const T *y, T *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    switch (which) {
#define ROW(name, ...) case which_##name: out[i] = name(x[i]); break;
        FUNCTIONS(ROW)
#undef ROW
#define ROW(name, ...) case which_##name: out[i] = name(x[i], y[i]); break;
        FUNCTIONS_OF_TWO(ROW)
#undef ROW
    }
}

// The distance in units of the last place of T at the exact value.
template <typename T, typename Wide>
double distance(T got, Wide want) {
    if (std::isnan(want)) return std::isnan(got) ? 0 : 1e30;
    if (std::isinf(static_cast<T>(want)) || want == 0) return got == static_cast<T>(want) ? 0 : 1e30;
    int exponent;
    std::frexp(want, &exponent);
    int digits = sizeof(T) == 4 ? FLT_MANT_DIG : DBL_MANT_DIG, least = sizeof(T) == 4 ? -149 : -1074;
    int unit = exponent - digits < least ? least : exponent - digits;
    return static_cast<double>(std::fabs(std::ldexp(static_cast<Wide>(got) - want, -unit)));
}

template <typename T, typename Wide, typename F>
void check(const char *name, Which which, double bound, double low, double high, double low_y, double high_y, F reference) {
    const int count = 512;
    std::vector<T> x(count), y(count), got(count);
    Random random(which + 100);
    for (int i = 0; i < count; ++i) {
        x[i] = static_cast<T>(low + (high - low) * random.uniform());
        y[i] = static_cast<T>(low_y + (high_y - low_y) * random.uniform());
    }
    x[0] = static_cast<T>(low);
    x[1] = static_cast<T>(high);
    if (low <= 0 && high >= 0) x[2] = 0;
    x[3] = static_cast<T>(NAN);
    x[4] = static_cast<T>(INFINITY);
    T *device_x, *device_y, *out;
    CHECK(cudaMalloc(&device_x, count * sizeof(T)));
    CHECK(cudaMalloc(&device_y, count * sizeof(T)));
    CHECK(cudaMalloc(&out, count * sizeof(T)));
    CHECK(cudaMemcpy(device_x, x.data(), count * sizeof(T), cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(device_y, y.data(), count * sizeof(T), cudaMemcpyHostToDevice));
    apply<T><<<divide_up(count, 128), 128>>>(which, device_x, device_y, out, count);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(got.data(), out, count * sizeof(T), cudaMemcpyDeviceToHost));
    double worst = 0;
    for (int i = 0; i < count; ++i) {
        Wide want = reference(static_cast<Wide>(x[i]), static_cast<Wide>(y[i]));
        double error = distance<T, Wide>(got[i], want);
        if (error > worst) worst = error;
        // The reference itself is not exact to the last bit.
        if (!(error <= bound + 0.51))
            fail("%s(%.17g, %.17g) as %s is %.17g, expected %.17g: %.2f ulp, allowed %g", name, double(x[i]), double(y[i]),
                 sizeof(T) == 4 ? "float" : "double", double(got[i]), double(want), error, bound);
    }
    CHECK(cudaFree(device_x));
    CHECK(cudaFree(device_y));
    CHECK(cudaFree(out));
}

int main() {
#define ROW(name, float_bound, double_bound, low, high)                                                                          \
    check<float, double>(#name, which_##name, float_bound, low, high, 0, 1, [](double x, double) { return std::name(x); });       \
    check<double, long double>(#name, which_##name, double_bound, low, high, 0, 1, [](long double x, long double) { return std::name(x); }); \
    std::printf("%s\n", #name);
    FUNCTIONS(ROW)
#undef ROW
#define ROW(name, float_bound, double_bound, low, high, low_y, high_y)                                                           \
    check<float, double>(#name, which_##name, float_bound, low, high, low_y, high_y, [](double x, double y) { return std::name(x, y); }); \
    check<double, long double>(#name, which_##name, double_bound, low, high, low_y, high_y,                                      \
                               [](long double x, long double y) { return std::name(x, y); });                                    \
    std::printf("%s\n", #name);
    FUNCTIONS_OF_TWO(ROW)
#undef ROW
    return pass();
}
