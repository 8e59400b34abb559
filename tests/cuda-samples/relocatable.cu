// Proves device code that was linked when the program was built (-rdc=true): a kernel that uses a function and variables of
// another translation unit, modules/relocatable.cu, `__device__`, `__constant__` and `__managed__` ones.
#include "common.h"

const int count = 1000;

extern __constant__ int factor;
extern __device__ int calls;
extern __managed__ int table[count];
__managed__ int sum = 1;

__device__ int scaled(int value);

__global__ void fill(int shift) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    table[i] += scaled(i) + shift;
    atomicAdd(&sum, i);
}

int main() {
    int managed = 0;
    CHECK(cudaDeviceGetAttribute(&managed, cudaDevAttrManagedMemory, 0));
    if (!managed) {
        std::printf("waived: the device has no managed memory\n");
        return 2;
    }
    // The values that the units give them.
    REQUIRE(sum == 1 && table[0] == 7 && table[1] == 0);
    for (int i = 0; i < count; ++i) table[i] = 5;
    fill<<<divide_up(count, 128), 128>>>(2);
    CHECK_LAUNCH();
    CHECK(cudaDeviceSynchronize());
    for (int i = 0; i < count; ++i) REQUIRE(table[i] == 5 + 3 * i + 2);
    REQUIRE(sum == 1 + count * (count - 1) / 2);
    std::printf("variables that host and device share\n");

    const int other = 10;
    CHECK(cudaMemcpyToSymbol(factor, &other, sizeof other));
    sum = 0;
    fill<<<divide_up(count, 128), 128>>>(0);
    CHECK_LAUNCH();
    CHECK(cudaDeviceSynchronize());
    for (int i = 0; i < count; ++i) REQUIRE(table[i] == 5 + 13 * i + 2);
    int called = 0;
    CHECK(cudaMemcpyFromSymbol(&called, calls, sizeof called));
    REQUIRE(called == 2 * count && sum == count * (count - 1) / 2);
    std::printf("functions and variables of another unit: %d calls\n", called);

    void *address = nullptr;
    cudaPointerAttributes attributes;
    CHECK(cudaGetSymbolAddress(&address, table));
    REQUIRE(address == table);
    CHECK(cudaPointerGetAttributes(&attributes, table + 3));
    REQUIRE(attributes.type == cudaMemoryTypeManaged);
    return pass();
}
