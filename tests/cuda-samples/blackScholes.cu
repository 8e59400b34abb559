// Proves the mathematics of prices: expf, logf, sqrtf and their fast variants, single and double precision, compared
// with the closed formula on the CPU (erfc) and by put-call parity.
// Argument: options (default 4000).
#include <vector>

#include "common.h"

constexpr double RISKLESS = 0.02, VOLATILITY = 0.30;

// The cumulative normal distribution by a polynomial (Abramowitz and Stegun 26.2.17; error below 7.5e-8).
template <typename T>
__device__ T cumulative(T d) {
    const T a1 = T(0.31938153), a2 = T(-0.356563782), a3 = T(1.781477937), a4 = T(-1.821255978), a5 = T(1.330274429);
    T k = T(1) / (T(1) + T(0.2316419) * fabs(d));
    T tail = T(0.39894228040143267794) * exp(T(-0.5) * d * d) * (k * (a1 + k * (a2 + k * (a3 + k * (a4 + k * a5)))));
    return d > 0 ? T(1) - tail : tail;
}

template <typename T>
__global__ void price(const T *stock, const T *strike, const T *years, T *call, T *put, int count) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
        T root = sqrt(years[i]);
        T d1 = (log(stock[i] / strike[i]) + (T(RISKLESS) + T(0.5) * T(VOLATILITY) * T(VOLATILITY)) * years[i]) / (T(VOLATILITY) * root);
        T d2 = d1 - T(VOLATILITY) * root;
        T discount = exp(T(-RISKLESS) * years[i]);
        call[i] = stock[i] * cumulative(d1) - strike[i] * discount * cumulative(d2);
        put[i] = strike[i] * discount * (T(1) - cumulative(d2)) - stock[i] * (T(1) - cumulative(d1));
    }
}

// The same with the fast intrinsics; less exact.
__global__ void price_fast(const float *stock, const float *strike, const float *years, float *call, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    float root = __fsqrt_rn(years[i]);
    float d1 = __fdividef(__logf(__fdividef(stock[i], strike[i])) + (float(RISKLESS) + 0.5f * float(VOLATILITY) * float(VOLATILITY)) * years[i],
                          float(VOLATILITY) * root);
    float d2 = d1 - float(VOLATILITY) * root;
    call[i] = stock[i] * cumulative(d1) - strike[i] * __expf(-float(RISKLESS) * years[i]) * cumulative(d2);
}

template <typename T>
void check(const char *name, int count, double tolerance) {
    std::vector<T> stock(count), strike(count), years(count), call(count), put(count), want_call(count), want_put(count);
    Random random(11);
    for (int i = 0; i < count; ++i) {
        stock[i] = T(5 + 25 * random.uniform());
        strike[i] = T(1 + 99 * random.uniform());
        years[i] = T(0.25 + 9.75 * random.uniform());
        double root = std::sqrt(static_cast<double>(years[i]));
        double d1 = (std::log(static_cast<double>(stock[i]) / strike[i]) + (RISKLESS + 0.5 * VOLATILITY * VOLATILITY) * years[i]) / (VOLATILITY * root);
        double n1 = 0.5 * std::erfc(-d1 / std::sqrt(2.0)), n2 = 0.5 * std::erfc(-(d1 - VOLATILITY * root) / std::sqrt(2.0));
        double discount = std::exp(-RISKLESS * years[i]);
        want_call[i] = T(stock[i] * n1 - strike[i] * discount * n2);
        want_put[i] = T(strike[i] * discount * (1 - n2) - stock[i] * (1 - n1));
    }
    size_t size = count * sizeof(T);
    T *device[5];
    for (T *&d : device) CHECK(cudaMalloc(&d, size));
    CHECK(cudaMemcpy(device[0], stock.data(), size, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(device[1], strike.data(), size, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(device[2], years.data(), size, cudaMemcpyHostToDevice));
    price<T><<<8, 128>>>(device[0], device[1], device[2], device[3], device[4], count);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(call.data(), device[3], size, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(put.data(), device[4], size, cudaMemcpyDeviceToHost));
    require_close("call", call.data(), want_call.data(), count, tolerance, 10 * tolerance);
    require_close("put", put.data(), want_put.data(), count, tolerance, 10 * tolerance);
    for (int i = 0; i < count; ++i) {
        double parity = call[i] - put[i] - stock[i] + strike[i] * std::exp(-RISKLESS * years[i]);
        if (!(std::fabs(parity) < 100 * tolerance)) fail("%s: put-call parity of option %d is off by %g", name, i, parity);
    }
    if constexpr (sizeof(T) == 4) {
        price_fast<<<divide_up(count, 128), 128>>>(device[0], device[1], device[2], device[3], count);
        CHECK_LAUNCH();
        CHECK(cudaMemcpy(call.data(), device[3], size, cudaMemcpyDeviceToHost));
        require_close("call, fast", call.data(), want_call.data(), count, 1e-3, 1e-3);
        std::printf("float, fast intrinsics: %d options\n", count);
    }
    std::printf("%s: %d options\n", name, count);
    for (T *d : device) CHECK(cudaFree(d));
}

int main(int argc, char **argv) {
    int count = argument(argc, argv, 1, 4000);
    check<float>("float", count, 1e-5);
    check<double>("double", count, 1e-6);
    return pass();
}
