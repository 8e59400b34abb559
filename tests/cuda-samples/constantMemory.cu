// Proves __constant__ and __device__ variables: initial values, cudaMemcpyToSymbol and FromSymbol with offsets and
// on a stream, cudaGetSymbolAddress and Size, and a device variable that two kernels share.
#include <vector>

#include "common.h"

__constant__ float coefficients[8] = {1, 2, 3, 4, 5, 6, 7, 8};
__constant__ struct { int low, high; double scale; } limits = {-5, 5, 0.25};
__device__ int counter = 40;
__device__ float table[64];
static __device__ unsigned long long hidden = 0x1122334455667788ull;

__global__ void polynomial(const float *x, float *y, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    float value = 0;
    for (int k = 7; k >= 0; --k) value = value * x[i] + coefficients[k];
    y[i] = value;
}

__global__ void use_variables(double *out) {
    table[threadIdx.x] = static_cast<float>(threadIdx.x) * 0.5f;
    if (threadIdx.x == 0) {
        out[0] = limits.low;
        out[1] = limits.high;
        out[2] = limits.scale;
        counter += 2;
        hidden ^= 0xffull;
    }
}

void check_polynomial(const float *c) {
    const int count = 1000;
    std::vector<float> x(count), y(count), want(count);
    for (int i = 0; i < count; ++i) {
        x[i] = static_cast<float>(i) / count;
        double value = 0;
        for (int k = 7; k >= 0; --k) value = value * x[i] + c[k];
        want[i] = static_cast<float>(value);
    }
    float *device_x, *device_y;
    CHECK(cudaMalloc(&device_x, count * sizeof(float)));
    CHECK(cudaMalloc(&device_y, count * sizeof(float)));
    CHECK(cudaMemcpy(device_x, x.data(), count * sizeof(float), cudaMemcpyHostToDevice));
    polynomial<<<divide_up(count, 128), 128>>>(device_x, device_y, count);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(y.data(), device_y, count * sizeof(float), cudaMemcpyDeviceToHost));
    require_close("polynomial", y.data(), want.data(), count, 1e-5, 1e-6);
    CHECK(cudaFree(device_x));
    CHECK(cudaFree(device_y));
}

int main() {
    float c[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    check_polynomial(c);
    std::printf("initial coefficients\n");

    for (int k = 0; k < 8; ++k) c[k] = 0.5f * (8 - k);
    CHECK(cudaMemcpyToSymbol(coefficients, c, sizeof(c)));
    check_polynomial(c);
    std::printf("replaced coefficients\n");

    c[3] = -2;
    c[4] = 0.125f;
    CHECK(cudaMemcpyToSymbol(coefficients, c + 3, 2 * sizeof(float), 3 * sizeof(float)));
    check_polynomial(c);
    float part[3] = {};
    CHECK(cudaMemcpyFromSymbol(part, coefficients, sizeof(part), 2 * sizeof(float)));
    REQUIRE(part[0] == c[2] && part[1] == -2 && part[2] == 0.125f);
    std::printf("replaced two in the middle\n");

    cudaStream_t stream;
    CHECK(cudaStreamCreate(&stream));
    c[0] = 100;
    CHECK(cudaMemcpyToSymbolAsync(coefficients, c, sizeof(float), 0, cudaMemcpyHostToDevice, stream));
    CHECK(cudaStreamSynchronize(stream));
    check_polynomial(c);

    double *out, values[3];
    CHECK(cudaMalloc(&out, sizeof(values)));
    use_variables<<<1, 64, 0, stream>>>(out);
    CHECK_LAUNCH();
    use_variables<<<1, 64, 0, stream>>>(out);
    CHECK_LAUNCH();
    int count = 0;
    unsigned long long secret = 0;
    CHECK(cudaMemcpyFromSymbolAsync(&count, counter, sizeof(count), 0, cudaMemcpyDeviceToHost, stream));
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaMemcpyFromSymbol(&secret, hidden, sizeof(secret)));
    CHECK(cudaMemcpy(values, out, sizeof(values), cudaMemcpyDeviceToHost));
    std::printf("limits %g %g %g, counter %d, hidden %llx\n", values[0], values[1], values[2], count, secret);
    REQUIRE(values[0] == -5 && values[1] == 5 && values[2] == 0.25 && count == 44);
    REQUIRE(secret == 0x1122334455667788ull);

    void *address = nullptr;
    size_t size = 0;
    CHECK(cudaGetSymbolSize(&size, table));
    CHECK(cudaGetSymbolAddress(&address, table));
    REQUIRE(size == 64 * sizeof(float));
    float entries[64];
    CHECK(cudaMemcpy(entries, address, sizeof(entries), cudaMemcpyDeviceToHost));
    for (int i = 0; i < 64; ++i) REQUIRE(entries[i] == i * 0.5f);
    EXPECT(cudaErrorInvalidValue, cudaMemcpyToSymbol(coefficients, c, sizeof(c), 4));
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(out));
    // The last error was the provoked one; reading it clears it.
    EXPECT(cudaErrorInvalidValue, cudaGetLastError());
    EXPECT(cudaSuccess, cudaGetLastError());
    return pass();
}
