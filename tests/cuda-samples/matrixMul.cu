// Proves static shared memory, __syncthreads in a loop, two-dimensional blocks and kernel templates:
// C = A * B by 16 x 16 tiles, with sizes that are no multiples of the tile.
// Argument: rows of A (default 70).
#include <vector>

#include "common.h"

template <int TILE>
__global__ void matrix_multiply(const float *a, const float *b, float *c, int m, int k, int n) {
    __shared__ float tile_a[TILE][TILE];
    __shared__ float tile_b[TILE][TILE];
    int row = blockIdx.y * TILE + threadIdx.y;
    int column = blockIdx.x * TILE + threadIdx.x;
    float sum = 0;
    for (int step = 0; step < k; step += TILE) {
        tile_a[threadIdx.y][threadIdx.x] = row < m && step + threadIdx.x < k ? a[row * k + step + threadIdx.x] : 0;
        tile_b[threadIdx.y][threadIdx.x] = step + threadIdx.y < k && column < n ? b[(step + threadIdx.y) * n + column] : 0;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < TILE; ++i) sum += tile_a[threadIdx.y][i] * tile_b[i][threadIdx.x];
        __syncthreads();
    }
    if (row < m && column < n) c[row * n + column] = sum;
}

int main(int argc, char **argv) {
    int m = argument(argc, argv, 1, 70), k = 75, n = 90;
    std::vector<float> a(m * k), b(k * n), c(m * n), want(m * n);
    Random random(2);
    for (float &x : a) x = random.uniform() - 0.5f;
    for (float &x : b) x = random.uniform() - 0.5f;
    for (int row = 0; row < m; ++row)
        for (int column = 0; column < n; ++column) {
            double sum = 0;
            for (int i = 0; i < k; ++i) sum += static_cast<double>(a[row * k + i]) * b[i * n + column];
            want[row * n + column] = static_cast<float>(sum);
        }
    float *device_a, *device_b, *device_c;
    CHECK(cudaMalloc(&device_a, a.size() * sizeof(float)));
    CHECK(cudaMalloc(&device_b, b.size() * sizeof(float)));
    CHECK(cudaMalloc(&device_c, c.size() * sizeof(float)));
    CHECK(cudaMemcpy(device_a, a.data(), a.size() * sizeof(float), cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(device_b, b.data(), b.size() * sizeof(float), cudaMemcpyHostToDevice));

    dim3 block(16, 16), grid(divide_up(n, 16), divide_up(m, 16));
    std::printf("A is %d x %d, B is %d x %d, grid %u x %u\n", m, k, k, n, grid.x, grid.y);
    matrix_multiply<16><<<grid, block>>>(device_a, device_b, device_c, m, k, n);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(c.data(), device_c, c.size() * sizeof(float), cudaMemcpyDeviceToHost));
    require_close("C, tile 16", c.data(), want.data(), c.size(), 1e-5, 1e-5);

    // The same result from another instance of the template, with another tile.
    CHECK(cudaMemset(device_c, 0xff, c.size() * sizeof(float)));
    dim3 small_block(8, 8), small_grid(divide_up(n, 8), divide_up(m, 8));
    matrix_multiply<8><<<small_grid, small_block>>>(device_a, device_b, device_c, m, k, n);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(c.data(), device_c, c.size() * sizeof(float), cudaMemcpyDeviceToHost));
    require_close("C, tile 8", c.data(), want.data(), c.size(), 1e-5, 1e-5);

    CHECK(cudaFree(device_a));
    CHECK(cudaFree(device_b));
    CHECK(cudaFree(device_c));
    return pass();
}
