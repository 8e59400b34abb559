// Primitives against hand-written CUDA, in one process, on the same arrays: bandwidth of a sum, a stencil and a blur,
// the cost of bounds checks, a matrix product, and what a submission costs beyond a raw launch.
//
//   primitives [MiB of each array] [rounds] [order of the product]      text on stderr, JSON on stdout
//
// The exit code is 0 when every result is right and every target is met, 1 when a target is missed, 2 when it is wrong.
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <algorithm>
#include <chrono>
#include <string>
#include <vector>
#include "../shim/include/pxos.h"

#define CHECK(call)                                                                                      \
    do {                                                                                                 \
        cudaError_t error = (call);                                                                      \
        if (error != cudaSuccess) {                                                                      \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(error));    \
            exit(2);                                                                                     \
        }                                                                                                \
    } while (0)

// ---- Written by hand ----------------------------------------------------------------------------------------------

__global__ void sum(const float *a, const float *b, float *out, int n)
{
    int tid = blockIdx.x * blockDim.x + threadIdx.x;
    if (tid < n)
        out[tid] = a[tid] + b[tid];
}

__global__ void stencil(const float *grid, float *next, int width, int height)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y;
    if (x >= width)
        return;
    int at = y * width + x;
    float centre = grid[at];
    if (x > 0 && x < width - 1 && y > 0 && y < height - 1)
        centre = (grid[at - 1] + grid[at + 1] + grid[at - width] + grid[at + width]) * 0.25f;
    next[at] = centre;
}

__global__ void blur(const uchar4 *image, uchar4 *blurred, int width, int height)
{
    const int weights[5] = {1, 4, 6, 4, 1};
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y;
    if (x >= width)
        return;
    int r = 128, g = 128, b = 128, a = 128;
#pragma unroll
    for (int j = 0; j < 5; j++) {
        int v = min(max(y + j - 2, 0), height - 1);
#pragma unroll
        for (int i = 0; i < 5; i++) {
            int u = min(max(x + i - 2, 0), width - 1);
            uchar4 p = __ldg(&image[v * width + u]);
            int w = weights[i] * weights[j];
            r += w * p.x, g += w * p.y, b += w * p.z, a += w * p.w;
        }
    }
    blurred[y * width + x] = make_uchar4(r >> 8, g >> 8, b >> 8, a >> 8);
}

// A tile of 128 x 128 for 256 threads, eight by eight sums each; sizes are multiples of 128.
__global__ void __launch_bounds__(256) product(const float *a, const float *b, float *c, int n)
{
    __shared__ float left[8][128], right[8][128];
    int row = threadIdx.x / 16 * 8, column = threadIdx.x % 16 * 8;
    const float *from = a + (size_t)blockIdx.y * 128 * n, *to = b + blockIdx.x * 128;
    float sums[8][8] = {};
    for (int k = 0; k < n; k += 8) {
        float4 p = *(const float4 *)&from[(size_t)(threadIdx.x / 2) * n + k + threadIdx.x % 2 * 4];
        left[threadIdx.x % 2 * 4 + 0][threadIdx.x / 2] = p.x;
        left[threadIdx.x % 2 * 4 + 1][threadIdx.x / 2] = p.y;
        left[threadIdx.x % 2 * 4 + 2][threadIdx.x / 2] = p.z;
        left[threadIdx.x % 2 * 4 + 3][threadIdx.x / 2] = p.w;
        *(float4 *)&right[threadIdx.x / 32][threadIdx.x % 32 * 4] =
            *(const float4 *)&to[(size_t)(k + threadIdx.x / 32) * n + threadIdx.x % 32 * 4];
        __syncthreads();
#pragma unroll
        for (int d = 0; d < 8; d++) {
            float l[8], r[8];
#pragma unroll
            for (int i = 0; i < 8; i++)
                l[i] = left[d][row + i], r[i] = right[d][column + i];
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int j = 0; j < 8; j++)
                    sums[i][j] += l[i] * r[j];
        }
        __syncthreads();
    }
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 8; j++)
            c[(size_t)(blockIdx.y * 128 + row + i) * n + blockIdx.x * 128 + column + j] = sums[i][j];
}

__global__ void fill(unsigned *words, size_t count, unsigned seed, bool floats)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < count; i += (size_t)gridDim.x * blockDim.x) {
        unsigned u = (unsigned)i * 2654435761u ^ seed;
        u ^= u >> 15, u *= 2246822519u, u ^= u >> 13;
        words[i] = floats ? __float_as_uint((float)(u & 0xffff) / 65536.f - 0.5f) : u;
    }
}

__global__ void differ(const unsigned *a, const unsigned *b, size_t count, unsigned long long *wrong)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < count; i += (size_t)gridDim.x * blockDim.x)
        if (a[i] != b[i])
            atomicAdd(wrong, 1ull);
}

__global__ void differ_by(const float *a, const float *b, size_t count, float most, unsigned long long *wrong)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < count; i += (size_t)gridDim.x * blockDim.x)
        if (!(fabsf(a[i] - b[i]) <= most))
            atomicAdd(wrong, 1ull);
}

// ---- The same as primitives ----------------------------------------------------------------------------------------

static const char *const SUM = "GPU_KERNEL sum\nGPU_PARAM a float[]\nGPU_PARAM b float[]\nGPU_PARAM out float[]\n"
                               "GPU_PARAM n int\nGPU_THREAD_CODE:\n    THREAD_ID -> tid\n    IF tid < n:\n        LOAD a[tid] -> x\n"
                               "        LOAD b[tid] -> y\n        ADD x y -> s\n        STORE s -> out[tid]\nGPU_END\n";

// With lengths of a power of two the arguments prove every index, without one they do not: the same text with and
// without checks.
static const char *const CHECKED =
    "GPU_KERNEL checked\nGPU_PARAM a float[]\nGPU_PARAM b float[]\nGPU_PARAM out float[]\nGPU_PARAM zero int\n"
    "GPU_THREAD_CODE:\n    THREAD_ID -> tid\n    CALCULATE i = tid ^ zero\n    LOAD a[i] -> x\n    LOAD b[i] -> y\n"
    "    ADD x y -> s\n    STORE s -> out[i]\nGPU_END\n";

static const char *const STENCIL =
    "GPU_KERNEL stencil\nGPU_PARAM grid float[]\nGPU_PARAM next float[]\nGPU_PARAM width int\nGPU_PARAM height int\n"
    "GPU_THREAD_CODE:\n    THREAD_ID -> tid\n    CALCULATE x = tid % width\n    CALCULATE y = tid / width\n"
    "    CALCULATE at = y * width + x\n    LOAD grid[at] -> centre\n    IF x > 0 AND x < width - 1 AND y > 0 AND y < height - 1:\n"
    "        LOAD grid[at - 1] -> west\n        LOAD grid[at + 1] -> east\n        LOAD grid[(y - 1) * width + x] -> north\n"
    "        LOAD grid[(y + 1) * width + x] -> south\n        CALCULATE mean = (west + east + north + south) * 0.25\n"
    "        STORE mean -> next[tid]\n    ELSE:\n        STORE centre -> next[tid]\nGPU_END\n";

static const char *const BLUR =
    "GPU_KERNEL blur\nGPU_PARAM image pixel[]\nGPU_PARAM blurred pixel[]\nGPU_PARAM width int\nGPU_PARAM height int\n"
    "GPU_THREAD_CODE:\n    THREAD_ID -> tid\n    MOD tid width -> x\n    DIV tid width -> y\n"
    "    APPLY_KERNEL 5x5 image x y -> p\n    STORE p -> blurred[tid]\nGPU_END\n";

static const char *const PRODUCT = "GPU_KERNEL product\nGPU_PARAM a float[]\nGPU_PARAM b float[]\nGPU_PARAM c float[]\n"
                                   "GPU_THREAD_CODE:\n    PARALLEL_MATMUL a b -> c\nGPU_END\n";

// ---- Measuring -----------------------------------------------------------------------------------------------------

static int (*submit)(const char *, size_t, const char *, const px_argument *, size_t, const px_options *, px_report *);
static int rounds = 15, failed;
static std::string json;

static double median(std::vector<double> times)
{
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

static px_report run(const char *text, const std::vector<px_argument> &arguments)
{
    px_report report;
    int result = submit(text, strlen(text), NULL, arguments.data(), arguments.size(), NULL, &report);
    if (result != 0) {
        fprintf(stderr, "primitive failed: %d %s\n", result, report.message);
        exit(2);
    }
    return report;
}

// Milliseconds of both, in turns; the first round of each is not counted.
template <typename Hand>
static void both(Hand hand, const char *text, const std::vector<px_argument> &arguments, double *by_hand, double *primitive,
                 unsigned *checks)
{
    cudaEvent_t start, end;
    CHECK(cudaEventCreate(&start));
    CHECK(cudaEventCreate(&end));
    std::vector<double> ours, theirs;
    for (int round = 0; round <= rounds; round++) {
        CHECK(cudaEventRecord(start));
        hand();
        CHECK(cudaEventRecord(end));
        CHECK(cudaEventSynchronize(end));
        CHECK(cudaGetLastError());
        float time;
        CHECK(cudaEventElapsedTime(&time, start, end));
        px_report report = run(text, arguments);
        *checks = report.checks_left;
        if (round > 0)
            theirs.push_back(time), ours.push_back(report.kernel_ms);
    }
    *by_hand = median(theirs), *primitive = median(ours);
}

static void tell(const char *name, const char *what, double value, double target, bool at_least, const std::string &more)
{
    bool met = at_least ? value >= target : value <= target;
    failed |= !met;
    fprintf(stderr, "%-22s %-28s %10.3f  (%s %.3f: %s)  %s\n", name, what, value, at_least ? "at least" : "at most", target,
            met ? "met" : "MISSED", more.c_str());
    char line[512];
    snprintf(line, sizeof line, "%s{\"name\":\"%s\",\"what\":\"%s\",\"value\":%.5f,\"target\":%.5f,\"met\":%s,\"detail\":\"%s\"}",
             json.empty() ? "" : ",", name, what, value, target, met ? "true" : "false", more.c_str());
    json += line;
}

static void compare(const char *name, const void *a, const void *b, size_t words, float most)
{
    unsigned long long *wrong, count;
    CHECK(cudaMalloc(&wrong, sizeof *wrong));
    CHECK(cudaMemset(wrong, 0, sizeof *wrong));
    if (most < 0)
        differ<<<1024, 256>>>((const unsigned *)a, (const unsigned *)b, words, wrong);
    else
        differ_by<<<1024, 256>>>((const float *)a, (const float *)b, words, most, wrong);
    CHECK(cudaMemcpy(&count, wrong, sizeof count, cudaMemcpyDeviceToHost));
    CHECK(cudaFree(wrong));
    if (count) {
        fprintf(stderr, "%s: %llu elements differ\n", name, count);
        exit(2);
    }
}

static std::string detail(double bytes, double hand, double primitive, unsigned checks)
{
    char text[160];
    snprintf(text, sizeof text, "by hand %.3f ms %.0f GB/s, primitive %.3f ms %.0f GB/s, %u checks left", hand,
             bytes / hand / 1e6, primitive, bytes / primitive / 1e6, checks);
    return text;
}

static double microseconds(void)
{
    using namespace std::chrono;
    return duration<double, std::micro>(steady_clock::now().time_since_epoch()).count();
}

static px_argument at(void *address, uint64_t length)
{
    return px_device(NULL, (uint64_t)address, length);
}

int main(int argc, char **argv)
{
    size_t mib = argc > 1 ? strtoul(argv[1], NULL, 10) : 1024;
    rounds = argc > 2 ? atoi(argv[2]) : 15;
    int order = argc > 3 ? atoi(argv[3]) : 4096;
    submit = (decltype(submit))dlsym(RTLD_DEFAULT, "px_submit_primitive");
    if (!submit) {
        fprintf(stderr, "px_submit_primitive is not there: preload libpxshim.so\n");
        return 2;
    }
    // A power of two of words, in rows of a power of two.
    size_t count = 1;
    while (count * 2 <= mib * (1 << 18))
        count *= 2;
    int width = 1;
    while ((size_t)width * width < count)
        width *= 2;
    int n = (int)count, height = (int)(count / width);
    float *a, *b, *c, *d;
    for (float **array : {&a, &b, &c, &d})
        CHECK(cudaMalloc(array, count * 4));
    fill<<<1024, 256>>>((unsigned *)a, count, 1, true);
    fill<<<1024, 256>>>((unsigned *)b, count, 2, true);
    CHECK(cudaDeviceSynchronize());
    double hand, primitive;
    unsigned checks;

    both([&] { sum<<<(n + 255) / 256, 256>>>(a, b, c, n); }, SUM, {at(a, n), at(b, n), at(d, n), px_int(NULL, n)}, &hand,
         &primitive, &checks);
    compare("sum", c, d, count, -1);
    tell("vector_add", "bandwidth against CUDA", hand / primitive, 0.95, true, detail(12.0 * n, hand, primitive, checks));

    dim3 rows((width + 255) / 256, height);
    both([&] { stencil<<<rows, 256>>>(a, c, width, height); }, STENCIL,
         {at(a, n), at(d, n), px_int(NULL, width), px_int(NULL, height)}, &hand, &primitive, &checks);
    compare("stencil", c, d, count, -1);
    tell("stencil", "bandwidth against CUDA", hand / primitive, 0.95, true, detail(8.0 * n, hand, primitive, checks));

    fill<<<1024, 256>>>((unsigned *)b, count, 3, false);
    both([&] { blur<<<rows, 256>>>((uchar4 *)b, (uchar4 *)c, width, height); }, BLUR,
         {at(b, n), at(d, n), px_int(NULL, width), px_int(NULL, height)}, &hand, &primitive, &checks);
    compare("blur", c, d, count, -1);
    tell("blur 5x5", "bandwidth against CUDA", hand / primitive, 0.95, true, detail(8.0 * n, hand, primitive, checks));

    // The same kernel, with an index that is proven and with one that is not: one element less.
    std::vector<double> proven, carried;
    unsigned left[2] = {0, 0};
    for (int round = 0; round <= rounds; round++)
        for (int less = 0; less < 2; less++) {
            uint64_t length = count - less;
            px_report report = run(CHECKED, {at(a, length), at(b, length), at(d, length), px_int(NULL, 0)});
            left[less] = report.checks_left;
            if (round > 0)
                (less ? carried : proven).push_back(report.kernel_ms);
        }
    char text[160];
    snprintf(text, sizeof text, "%.3f ms with %u checks, %.3f ms with %u", median(proven), left[0], median(carried), left[1]);
    if (left[0] != 0 || left[1] != 3) {
        fprintf(stderr, "bounds checks: %s: that is not what was to be compared\n", text);
        return 2;
    }
    tell("bounds checks", "time, share", median(carried) / median(proven) - 1, 0.05, false, text);

    size_t square = (size_t)order * order;
    if (square > count || order % 128) {
        fprintf(stderr, "the order of the product must be a multiple of 128, and its square at most %zu\n", count);
        return 2;
    }
    fill<<<1024, 256>>>((unsigned *)b, count, 2, true);
    both([&] { product<<<dim3(order / 128, order / 128), 256>>>(a, b, c, order); }, PRODUCT,
         {at(a, square), at(b, square), at(d, square)}, &hand, &primitive, &checks);
    compare("product", c, d, square, 1e-5f * (float)order);
    double flops = 2.0 * order * order * order;
    snprintf(text, sizeof text, "by hand %.1f TFLOP/s, primitive %.1f TFLOP/s", flops / hand / 1e9, flops / primitive / 1e9);
    tell("matmul", "speed against CUDA", hand / primitive, 0.5, true, text);

    // A small kernel, waited for: as a raw launch, and as a submission of a text that is compiled.
    int small = 1024, repeat = rounds * 100;
    std::vector<px_argument> few = {at(a, small), at(b, small), at(d, small), px_int(NULL, small)};
    std::vector<double> raw, submitted;
    for (int i = 0; i < repeat; i++) {
        double start = microseconds();
        sum<<<small / 256, 256>>>(a, b, c, small);
        CHECK(cudaStreamSynchronize(0));
        double middle = microseconds();
        run(SUM, few);
        double end = microseconds();
        if (i > repeat / 10)
            raw.push_back(middle - start), submitted.push_back(end - middle);
    }
    snprintf(text, sizeof text, "launch and wait %.1f us, submission %.1f us", median(raw), median(submitted));
    tell("submission", "beyond a launch, us", median(submitted) - median(raw), 100, false, text);

    cudaDeviceProp properties;
    CHECK(cudaGetDeviceProperties(&properties, 0));
    printf("{\"device\":\"%s\",\"mib_per_array\":%zu,\"rounds\":%d,\"order\":%d,\"results\":[%s]}\n", properties.name,
           count >> 18, rounds, order, json.c_str());
    return failed;
}
