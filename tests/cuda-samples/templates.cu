// Proves kernels with mangled names of every kind: templates over types, values, functors, lambdas and namespaces,
// overloads of one name, function pointers on the device, virtual calls, and a kernel chosen at run time on the host.
#include <vector>

#include "common.h"

namespace outer {
namespace {
template <typename T, int N>
struct Power {
    __device__ T operator()(T x) const {
        T result = 1;
        for (int i = 0; i < N; ++i) result *= x;
        return result;
    }
};
}  // namespace

template <typename T, typename F>
__global__ void apply(T *data, int count, F function) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) data[i] = function(data[i]);
}
}  // namespace outer

__global__ void fill(int *data, int value) { data[threadIdx.x] = value; }
__global__ void fill(double *data, double value) { data[threadIdx.x] = value; }

template <int... VALUES>
__global__ void add_all(int *data) {
    int values[] = {VALUES...};
    for (int value : values) data[threadIdx.x] += value;
}

using Operation = int (*)(int, int);
__device__ int plus_operation(int a, int b) { return a + b; }
__device__ int times_operation(int a, int b) { return a * b; }
__device__ Operation operations[2] = {plus_operation, times_operation};

__global__ void by_pointer(int *data, int which, int operand) {
    data[threadIdx.x] = operations[which](data[threadIdx.x], operand);
}

struct Shape {
    __device__ virtual int area() const = 0;
    __device__ virtual ~Shape() {}
};
struct Square : Shape {
    int side;
    __device__ explicit Square(int s) : side(s) {}
    __device__ int area() const override { return side * side; }
};
struct Oblong : Shape {
    int a, b;
    __device__ Oblong(int x, int y) : a(x), b(y) {}
    __device__ int area() const override { return a * b; }
};

__global__ void by_virtual_call(int *data) {
    Square square(threadIdx.x);
    Oblong oblong(threadIdx.x, 3);
    const Shape *shapes[2] = {&square, &oblong};
    data[threadIdx.x] = shapes[threadIdx.x % 2]->area();
}

template <typename T>
void check(const char *name) {
    const int count = 100;
    std::vector<T> host(count), want(count);
    for (int i = 0; i < count; ++i) {
        host[i] = static_cast<T>(i % 7);
        want[i] = host[i] * host[i] * host[i] + T(1);
    }
    T *data;
    CHECK(cudaMalloc(&data, count * sizeof(T)));
    CHECK(cudaMemcpy(data, host.data(), count * sizeof(T), cudaMemcpyHostToDevice));
    outer::apply<<<2, 64>>>(data, count, outer::Power<T, 3>());
    CHECK_LAUNCH();
    T one = 1;
    outer::apply<<<2, 64>>>(data, count, [one] __device__(T x) { return x + one; });
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(host.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost));
    require_equal(name, host.data(), want.data(), count);
    std::printf("%s\n", name);
    CHECK(cudaFree(data));
}

int main() {
    check<int>("int");
    check<unsigned long long>("unsigned long long");
    check<float>("float");
    check<double>("double");
    check<short>("short");

    int *data, host[32];
    double *doubles, host_doubles[32];
    CHECK(cudaMalloc(&data, sizeof(host)));
    CHECK(cudaMalloc(&doubles, sizeof(host_doubles)));
    fill<<<1, 32>>>(data, 5);
    fill<<<1, 32>>>(doubles, 2.5);
    add_all<1, 20, 300><<<1, 32>>>(data);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(host, data, sizeof(host), cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(host_doubles, doubles, sizeof(host_doubles), cudaMemcpyDeviceToHost));
    for (int i = 0; i < 32; ++i) REQUIRE(host[i] == 326 && host_doubles[i] == 2.5);
    std::printf("overloads and packs\n");

    by_pointer<<<1, 32>>>(data, 0, 4);
    by_pointer<<<1, 32>>>(data, 1, 2);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(host, data, sizeof(host), cudaMemcpyDeviceToHost));
    for (int x : host) REQUIRE(x == 660);
    std::printf("function pointers\n");

    by_virtual_call<<<1, 32>>>(data);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(host, data, sizeof(host), cudaMemcpyDeviceToHost));
    for (int i = 0; i < 32; ++i) REQUIRE(host[i] == (i % 2 ? i * 3 : i * i));
    std::printf("virtual calls\n");

    void (*kernels[])(int *) = {add_all<1>, add_all<10>, add_all<100, 1000>};
    CHECK(cudaMemset(data, 0, sizeof(host)));
    for (auto kernel : kernels) {
        void *arguments[] = {&data};
        CHECK(cudaLaunchKernel(reinterpret_cast<const void *>(kernel), dim3(1), dim3(32), arguments, 0, nullptr));
    }
    CHECK(cudaMemcpy(host, data, sizeof(host), cudaMemcpyDeviceToHost));
    for (int x : host) REQUIRE(x == 1111);
    std::printf("chosen at run time\n");
    CHECK(cudaFree(data));
    CHECK(cudaFree(doubles));
    return pass();
}
