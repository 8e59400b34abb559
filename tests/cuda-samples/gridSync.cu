// Proves a cooperative launch: all blocks resident, grid-wide synchronisation in a loop, the attribute that promises
// it, and the refusal of a grid that cannot be resident.
#include <cooperative_groups.h>
#include <vector>

#include "common.h"

namespace cg = cooperative_groups;

// Smooths a ring `steps` times; each step needs all of the step before, from every block.
__global__ void smooth(int *a, int *b, int count, int steps) {
    cg::grid_group grid = cg::this_grid();
    for (int step = 0; step < steps; ++step) {
        for (int i = grid.thread_rank(); i < count; i += grid.size())
            b[i] = a[(i + count - 1) % count] + 2 * a[i] + a[(i + 1) % count];
        grid.sync();
        int *swap = a;
        a = b;
        b = swap;
    }
}

int main() {
    int cooperative = 0, multiprocessors = 0, per_multiprocessor = 0;
    CHECK(cudaDeviceGetAttribute(&cooperative, cudaDevAttrCooperativeLaunch, 0));
    if (!cooperative) {
        std::printf("waived: the device has no cooperative launch\n");
        return 2;
    }
    CHECK(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
    CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_multiprocessor, smooth, 64, 0));
    int most = multiprocessors * per_multiprocessor;
    int count = 777, steps = 9, blocks = most < 8 ? most : 8;
    REQUIRE(blocks >= 1);
    std::vector<int> want(count), next(count), got(count);
    for (int i = 0; i < count; ++i) want[i] = i % 13;
    int *a, *b;
    CHECK(cudaMalloc(&a, count * sizeof(int)));
    CHECK(cudaMalloc(&b, count * sizeof(int)));
    CHECK(cudaMemcpy(a, want.data(), count * sizeof(int), cudaMemcpyHostToDevice));
    void *arguments[] = {&a, &b, &count, &steps};
    CHECK(cudaLaunchCooperativeKernel(smooth, dim3(blocks), dim3(64), arguments, 0, nullptr));
    CHECK(cudaMemcpy(got.data(), steps % 2 ? b : a, count * sizeof(int), cudaMemcpyDeviceToHost));
    for (int step = 0; step < steps; ++step) {
        for (int i = 0; i < count; ++i) next[i] = want[(i + count - 1) % count] + 2 * want[i] + want[(i + 1) % count];
        want.swap(next);
    }
    require_equal("ring", got.data(), want.data(), count);
    std::printf("%d steps over %d elements, first %d\n", steps, count, got[0]);

    cudaError_t error = cudaLaunchCooperativeKernel(smooth, dim3(most + 1), dim3(64), arguments, 0, nullptr);
    std::printf("one block too many: %s\n", cudaGetErrorName(error));
    REQUIRE(error == cudaErrorCooperativeLaunchTooLarge);
    EXPECT(cudaErrorCooperativeLaunchTooLarge, cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaFree(a));
    CHECK(cudaFree(b));
    return pass();
}
