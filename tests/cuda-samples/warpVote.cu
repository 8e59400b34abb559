// Proves warp intrinsics: any, all and ballot with full and partial masks, shuffles by index, up, down and xor with
// widths, match, integer reductions, active masks and synchronisation of diverged lanes; every lane is checked.
#include <vector>

#include "common.h"

enum { ANY, ALL, BALLOT, PARTIAL, SHFL, SHFL_UP, SHFL_DOWN, SHFL_XOR, WIDTH, DOUBLE, MATCH_ANY, MATCH_ALL, REDUCE_ADD, REDUCE_MIN, REDUCE_XOR, DIVERGED, LANE, COUNT };

__global__ void votes(const int *in, unsigned *out) {
    const unsigned full = 0xffffffffu;
    int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32, value = in[i];
    unsigned *mine = out + i * COUNT;
    mine[ANY] = __any_sync(full, value == 3);
    mine[ALL] = __all_sync(full, value < 9);
    mine[BALLOT] = __ballot_sync(full, value & 1);
    mine[PARTIAL] = 0;
    if (lane < 20) mine[PARTIAL] = __ballot_sync(0xfffffu, value > 4);
    mine[SHFL] = __shfl_sync(full, value, (lane * 5 + 1) & 31);
    mine[SHFL_UP] = __shfl_up_sync(full, value, 3);
    mine[SHFL_DOWN] = __shfl_down_sync(full, value, 7);
    mine[SHFL_XOR] = __shfl_xor_sync(full, value, 21);
    mine[WIDTH] = __shfl_down_sync(full, value, 2, 8);
    mine[DOUBLE] = static_cast<unsigned>(__shfl_sync(full, value * 1.5 + 1e9, 31 - lane) - 1e9);
    mine[MATCH_ANY] = __match_any_sync(full, value);
    int agree = 0;
    unsigned matched = __match_all_sync(full, value / 100, &agree);
    mine[MATCH_ALL] = agree ? matched : 7;
    mine[REDUCE_ADD] = __reduce_add_sync(full, static_cast<unsigned>(value));
    mine[REDUCE_MIN] = __reduce_min_sync(full, value - 5);
    mine[REDUCE_XOR] = __reduce_xor_sync(full, static_cast<unsigned>(value) << lane);
    // Both sides exchange within themselves, then join again.
    unsigned side = __ballot_sync(full, value % 3 == 0);
    unsigned together;
    if (value % 3 == 0) together = __shfl_sync(side, value, __ffs(side) - 1) + 1000;
    else together = __shfl_sync(~side, value, __ffs(~side) - 1) + 2000;
    __syncwarp();
    mine[DIVERGED] = together;
    unsigned lane_id;
    asm("mov.u32 %0, %%laneid;" : "=r"(lane_id));
    mine[LANE] = lane_id;
}

int main() {
    const int warps = 6, count = warps * 32;
    std::vector<int> host(count);
    std::vector<unsigned> got(count * COUNT);
    Random random(14);
    for (int &x : host) x = static_cast<int>(random.bits() % 10);
    for (int i = 0; i < 32; ++i) host[i] = 3;
    int *in;
    unsigned *out;
    CHECK(cudaMalloc(&in, count * sizeof(int)));
    CHECK(cudaMalloc(&out, got.size() * sizeof(unsigned)));
    CHECK(cudaMemcpy(in, host.data(), count * sizeof(int), cudaMemcpyHostToDevice));
    votes<<<2, count / 2>>>(in, out);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(got.data(), out, got.size() * sizeof(unsigned), cudaMemcpyDeviceToHost));
    for (int warp = 0; warp < warps; ++warp) {
        const int *v = &host[warp * 32];
        for (int lane = 0; lane < 32; ++lane) {
            unsigned want[COUNT] = {};
            want[ALL] = 1;
            int least = v[0];
            for (int j = 0; j < 32; ++j) {
                want[ANY] |= v[j] == 3;
                want[ALL] &= v[j] < 9;
                want[BALLOT] |= (v[j] & 1u) << j;
                if (j < 20 && lane < 20) want[PARTIAL] |= unsigned(v[j] > 4) << j;
                want[MATCH_ANY] |= unsigned(v[j] == v[lane]) << j;
                want[REDUCE_ADD] += v[j];
                want[REDUCE_XOR] ^= static_cast<unsigned>(v[j]) << j;
                least = v[j] < least ? v[j] : least;
            }
            want[SHFL] = v[(lane * 5 + 1) & 31];
            want[SHFL_UP] = v[lane >= 3 ? lane - 3 : lane];
            want[SHFL_DOWN] = v[lane + 7 < 32 ? lane + 7 : lane];
            want[SHFL_XOR] = v[lane ^ 21];
            want[WIDTH] = v[lane % 8 + 2 < 8 ? lane + 2 : lane];
            want[DOUBLE] = static_cast<unsigned>(v[31 - lane] * 1.5);
            want[MATCH_ALL] = 0xffffffffu;
            want[REDUCE_MIN] = static_cast<unsigned>(least - 5);
            int first = 0;
            while ((v[first] % 3 == 0) != (v[lane] % 3 == 0)) ++first;
            want[DIVERGED] = v[first] + (v[lane] % 3 == 0 ? 1000 : 2000);
            want[LANE] = lane;
            for (int k = 0; k < COUNT; ++k)
                if (got[(warp * 32 + lane) * COUNT + k] != want[k])
                    fail("warp %d, lane %d, test %d: %08x, expected %08x", warp, lane, k, got[(warp * 32 + lane) * COUNT + k], want[k]);
        }
    }
    std::printf("%d warps, %d tests\n", warps, static_cast<int>(COUNT));
    CHECK(cudaFree(in));
    CHECK(cudaFree(out));
    return pass();
}
