// Proves data-dependent loops (lanes leave at very different times) and a file that the program writes: escape
// counts in double precision without fused operations, equal to the CPU's to the last iteration.
// Writes mandelbrot.pgm to the current folder. Argument: width (default 96).
#include <vector>

#include "common.h"

constexpr int LIMIT = 200;

__host__ __device__ inline int escape(double x, double y) {
    double a = 0, b = 0;
    int count = 0;
    while (count < LIMIT) {
#ifdef __CUDA_ARCH__
        double aa = __dmul_rn(a, a), bb = __dmul_rn(b, b), ab = __dmul_rn(a, b);
        if (__dadd_rn(aa, bb) > 4) break;
        a = __dadd_rn(__dsub_rn(aa, bb), x);
        b = __dadd_rn(__dadd_rn(ab, ab), y);
#else
        double aa = a * a, bb = b * b, ab = a * b;
        if (aa + bb > 4) break;
        a = (aa - bb) + x;
        b = (ab + ab) + y;
#endif
        ++count;
    }
    return count;
}

__global__ void mandelbrot(unsigned char *image, int width, int height, double left, double top, double step) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < width && y < height) image[y * width + x] = static_cast<unsigned char>(escape(__dadd_rn(left, __dmul_rn(x, step)), __dsub_rn(top, __dmul_rn(y, step))));
}

int main(int argc, char **argv) {
    int width = argument(argc, argv, 1, 96), height = width * 2 / 3 + 1;
    double left = -2.1, top = 1.0625, step = 3.0 / width;
    std::vector<unsigned char> got(width * height), want(width * height);
    unsigned char *image;
    CHECK(cudaMalloc(&image, got.size()));
    mandelbrot<<<dim3(divide_up(width, 16), divide_up(height, 8)), dim3(16, 8)>>>(image, width, height, left, top, step);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(got.data(), image, got.size(), cudaMemcpyDeviceToHost));
    CHECK(cudaFree(image));
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) want[y * width + x] = static_cast<unsigned char>(escape(left + x * step, top - y * step));
    require_equal("escape count", got.data(), want.data(), got.size());
    const char shades[] = " .:-=+*#%@";
    for (int y = 0; y < height; y += height / 20 + 1) {
        for (int x = 0; x < width; x += width / 60 + 1) std::putchar(shades[got[y * width + x] * 9 / LIMIT]);
        std::putchar('\n');
    }
    FILE *file = std::fopen("mandelbrot.pgm", "wb");
    if (!file) fail("mandelbrot.pgm cannot be written");
    std::fprintf(file, "P5\n%d %d\n255\n", width, height);
    std::fwrite(got.data(), 1, got.size(), file);
    std::fclose(file);
    std::printf("checksum %016llx\n", static_cast<unsigned long long>(checksum(got.data(), got.size())));
    return pass();
}
