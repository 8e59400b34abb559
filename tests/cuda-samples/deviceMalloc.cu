// Proves allocation inside kernels: malloc, free, new and delete by every thread, memory that one kernel allocates and
// another frees, alignment, the heap limit (set and read), and exhaustion that returns a null pointer.
#include <vector>

#include "common.h"

struct Node {
    int value;
    Node *next;
};

__global__ void build(Node **heads, int length) {
    Node *head = nullptr;
    for (int i = 0; i < length; ++i) {
        Node *node = static_cast<Node *>(malloc(sizeof(Node)));
        if (!node) break;
        node->value = threadIdx.x * 100 + i;
        node->next = head;
        head = node;
    }
    heads[blockIdx.x * blockDim.x + threadIdx.x] = head;
}

__global__ void consume(Node **heads, int *sums) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, sum = 0;
    for (Node *node = heads[i]; node;) {
        sum += node->value;
        Node *next = node->next;
        free(node);
        node = next;
    }
    sums[i] = sum;
}

__global__ void by_new(int *wrong) {
    int size = threadIdx.x % 7 + 1;
    double *values = new double[size];
    if (!values || reinterpret_cast<size_t>(values) % 16) atomicAdd(wrong, 1);
    for (int i = 0; i < size; ++i) values[i] = threadIdx.x + i;
    __syncthreads();
    for (int i = 0; i < size; ++i)
        if (values[i] != threadIdx.x + i) atomicAdd(wrong, 1);
    delete[] values;
}

// Takes blocks until none is left, counts and returns them.
__global__ void exhaust(int size, int *count) {
    void *blocks[64];
    int taken = 0;
    while (taken < 64 && (blocks[taken] = malloc(size))) ++taken;
    for (int i = 0; i < taken; ++i) free(blocks[i]);
    *count = taken;
}

int main() {
    // Before the first kernel that uses the heap.
    size_t heap = 0;
    CHECK(cudaDeviceSetLimit(cudaLimitMallocHeapSize, 16 << 20));
    CHECK(cudaDeviceGetLimit(&heap, cudaLimitMallocHeapSize));
    REQUIRE(heap >= 16 << 20);
    const int blocks = 4, threads = 48, length = 10;
    Node **heads;
    int *sums, got[blocks * threads], *number, value = -1;
    CHECK(cudaMalloc(&heads, sizeof(Node *) * blocks * threads));
    CHECK(cudaMalloc(&sums, sizeof(got)));
    CHECK(cudaMalloc(&number, sizeof(int)));
    for (int round = 0; round < 3; ++round) {
        build<<<blocks, threads>>>(heads, length);
        CHECK_LAUNCH();
        consume<<<blocks, threads>>>(heads, sums);
        CHECK_LAUNCH();
        CHECK(cudaMemcpy(got, sums, sizeof(got), cudaMemcpyDeviceToHost));
        for (int i = 0; i < blocks * threads; ++i) REQUIRE(got[i] == (i % threads) * 100 * length + 45);
    }
    std::printf("lists of %d threads, built by one kernel, freed by another\n", blocks * threads);
    CHECK(cudaMemset(number, 0, sizeof(int)));
    by_new<<<2, 64>>>(number);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(&value, number, sizeof(int), cudaMemcpyDeviceToHost));
    REQUIRE(value == 0);
    std::printf("new and delete\n");
    // Far more than the heap holds: some succeed, then null; twice, to see that all came back.
    for (int round = 0; round < 2; ++round) {
        exhaust<<<1, 1>>>(1 << 20, number);
        CHECK_LAUNCH();
        CHECK(cudaMemcpy(&value, number, sizeof(int), cudaMemcpyDeviceToHost));
        REQUIRE(value >= 4 && value < 64);
    }
    std::printf("exhaustion returns null and is survived\n");
    CHECK(cudaFree(heads));
    CHECK(cudaFree(sums));
    CHECK(cudaFree(number));
    return pass();
}
