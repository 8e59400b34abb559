// Proves kernel parameters near and over the old limit: a structure of 4,000 bytes and one of 16,000 bytes by value
// (limit 32,764 on recent devices), modified by the host right after the launch, and many small parameters.
#include "common.h"

template <int WORDS>
struct Block {
    int words[WORDS];
};

template <int WORDS>
__global__ void sum(Block<WORDS> block, long long *out, int slot) {
    __shared__ long long total;
    if (threadIdx.x == 0) total = 0;
    __syncthreads();
    long long mine = 0;
    for (int i = threadIdx.x; i < WORDS; i += blockDim.x) mine += static_cast<long long>(block.words[i]) * (i + 1);
    atomicAdd(reinterpret_cast<unsigned long long *>(&total), static_cast<unsigned long long>(mine));
    __syncthreads();
    if (threadIdx.x == 0) out[slot] = total;
}

__global__ void many(char a, short b, int c, long long d, float e, double f, char g, char3 h, short2 i, double2 j, bool k,
                     unsigned char l, int4 m, char n, double *out) {
    double values[] = {double(a), double(b), double(c), double(d), e, f, double(g), double(h.x), double(h.y), double(h.z), double(i.x),
                       double(i.y), j.x, j.y, double(k), double(l), double(m.x), double(m.y), double(m.z), double(m.w), double(n)};
    for (int v = 0; v < 21; ++v) out[v] = values[v];
}

template <int WORDS>
void check() {
    static Block<WORDS> block;
    const int slots = 8;
    long long want[slots], got[slots], *out;
    CHECK(cudaMalloc(&out, sizeof(got)));
    for (int slot = 0; slot < slots; ++slot) {
        want[slot] = 0;
        for (int i = 0; i < WORDS; ++i) {
            block.words[i] = i * 7 + slot * 1000 - 3;
            want[slot] += static_cast<long long>(block.words[i]) * (i + 1);
        }
        sum<WORDS><<<1, 64>>>(block, out, slot);
        CHECK_LAUNCH();
        // Parameters are copied by the launch: this must not reach the kernel.
        std::memset(&block, 0x55, sizeof(block));
    }
    CHECK(cudaMemcpy(got, out, sizeof(got), cudaMemcpyDeviceToHost));
    require_equal("sum", got, want, slots);
    std::printf("%zu bytes by value\n", sizeof(block));
    CHECK(cudaFree(out));
}

int main() {
    check<25>();
    check<1000>();
    check<4000>();
    double want[21] = {-1, -300, 70000, -5000000000.0, 0.5, 0.25, 7, 1, 2, 3, -4, 5, 1e100, -1e-100, 1, 250, 10, 20, 30, 40, 9}, got[21], *out;
    CHECK(cudaMalloc(&out, sizeof(got)));
    many<<<1, 1>>>(-1, -300, 70000, -5000000000ll, 0.5f, 0.25, 7, make_char3(1, 2, 3), make_short2(-4, 5), make_double2(1e100, -1e-100),
                   true, 250, make_int4(10, 20, 30, 40), 9, out);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(got, out, sizeof(got), cudaMemcpyDeviceToHost));
    for (int v = 0; v < 21; ++v) if (got[v] != want[v]) fail("parameter value %d is %g, expected %g", v, got[v], want[v]);
    std::printf("15 parameters of mixed types\n");
    CHECK(cudaFree(out));
    return pass();
}
