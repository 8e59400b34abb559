// Proves device printf: conversions with flags, width and precision, strings from both sides, 0 to 32 arguments, the
// return value, order within a thread and across launches, and that every kind of synchronising call brings the text
// out. The same format lines are run by the host's vsnprintf; what arrives on standard output must equal that text.
#include <string>
#include <unistd.h>

#include "common.h"

// Every line once, for the device and for the host. INF is an argument because neither side may fold it differently.
#define LINES(PRINT, INF, TEXT)                                                                                       \
    PRINT("[%d] [%5d] [%-5d] [%05d] [%+d] [% d]\n", -42, -42, -42, -42, 42, 42);                                      \
    PRINT("[%i] [%u] [%o] [%x] [%X] [%#x] [%#o]\n", 7, 4000000000u, 8u, 48879u, 48879u, 48879u, 8u);                  \
    PRINT("[%lld] [%llu] [%llx] [%ld] [%lu]\n", -9000000000000000000ll, 18000000000000000000ull, 0x123456789abcdefull, \
          -5l, 5ul);                                                                                                  \
    PRINT("[%hd] [%hu]\n", static_cast<short>(-2), static_cast<unsigned short>(65535));                               \
    PRINT("[%f] [%.3f] [%10.2f] [%-10.2f] [%+.1f] [%010.3f]\n", 3.14159265, 2.71828, 1.5, 1.5, 2.25, -1.5);            \
    PRINT("[%e] [%.2E] [%g] [%G] [%g] [%#g] [%a]\n", 12345.678, 0.000123, 0.0001, 1e20, 100000.0, 1.0, 1.0);           \
    PRINT("[%f] [%f] [%e] [%5.1f]\n", INF, -INF, 0.0, -0.0);                                                          \
    PRINT("[%c%c%c] [%3c] [%-3c]\n", 'a', 'b', 'c', 'x', 'y');                                                        \
    PRINT("[%s] [%10s] [%-10s] [%.2s]\n", "device", "right", "left", "cut");                                          \
    PRINT("[%s] 100%% [%%]\n", TEXT);                                                                                 \
    PRINT("[%p]\n", reinterpret_cast<void *>(0x123456));                                                              \
    PRINT("no arguments\n");                                                                                          \
    PRINT("%d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d\n", 1, 2,  \
          3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, \
          32)

__global__ void formats(const char *text, double infinity) { LINES(printf, infinity, text); }

__device__ const char letters[] = "from device memory";

__global__ void returned_values(int *out) {
    out[0] = printf("%s\n", letters);
    out[1] = printf("plain\n");
    out[2] = printf("%d %d %d\n", 1, 2, 3);
}

__global__ void count_to(int launch, int count) {
    for (int i = 0; i < count; ++i) printf("launch %d step %d\n", launch, i);
}

__global__ void one_by_one() {
    // One warp, lanes one after the other: the order is fixed.
    for (int lane = 0; lane < 4; ++lane) {
        if (threadIdx.x == lane) printf("block %d thread %d\n", static_cast<int>(blockIdx.x), static_cast<int>(threadIdx.x));
        __syncwarp();
    }
}

// Standard output, sent to a file while the device prints.
struct Capture {
    int saved;
    FILE *file;
    Capture() {
        std::fflush(stdout);
        file = std::tmpfile();
        if (!file) fail("no temporary file");
        saved = dup(1);
        dup2(fileno(file), 1);
    }
    // What has arrived so far; standard output is as before afterwards.
    std::string end() {
        std::fflush(stdout);
        dup2(saved, 1);
        close(saved);
        std::string text;
        char buffer[4096];
        std::rewind(file);
        for (size_t n; (n = std::fread(buffer, 1, sizeof(buffer), file)) > 0;) text.append(buffer, n);
        std::fclose(file);
        return text;
    }
};

std::string expected;

[[gnu::format(printf, 1, 2)]] void expect(const char *format, ...) {
    char buffer[1024];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(buffer, sizeof(buffer), format, arguments);
    va_end(arguments);
    expected += buffer;
}

// Compares what arrived with the expected text and shows it.
void compare(const char *after, const std::string &got) {
    std::printf("-- %s\n%s", after, got.c_str());
    if (got != expected) {
        size_t at = 0, line = 1;
        while (at < got.size() && at < expected.size() && got[at] == expected[at]) line += got[at++] == '\n';
        std::printf("-- expected\n%s", expected.c_str());
        fail("%s: the text differs in line %zu", after, line);
    }
    expected.clear();
}

int main() {
    size_t size = 0;
    CHECK(cudaDeviceGetLimit(&size, cudaLimitPrintfFifoSize));
    REQUIRE(size > 0);
    char *text;
    int *out, returned[3] = {};
    cudaStream_t stream;
    cudaEvent_t event;
    CHECK(cudaMalloc(&text, 32));
    CHECK(cudaMalloc(&out, sizeof(returned)));
    CHECK(cudaStreamCreate(&stream));
    CHECK(cudaEventCreate(&event));
    CHECK(cudaMemcpy(text, "from the host", 14, cudaMemcpyHostToDevice));
    {
        Capture capture;
        formats<<<1, 1>>>(text, HUGE_VAL);
        CHECK_LAUNCH();
        CHECK(cudaDeviceSynchronize());
        LINES(expect, HUGE_VAL, "from the host");
        compare("cudaDeviceSynchronize", capture.end());
    }
    {
        Capture capture;
        returned_values<<<1, 1>>>(out);
        CHECK_LAUNCH();
        CHECK(cudaMemcpy(returned, out, sizeof(returned), cudaMemcpyDeviceToHost));
        expect("from device memory\nplain\n1 2 3\n");
        compare("cudaMemcpy", capture.end());
        std::printf("-- returned %d %d %d\n", returned[0], returned[1], returned[2]);
        REQUIRE(returned[0] == 1 && returned[1] == 0 && returned[2] == 3);
    }
    {
        Capture capture;
        for (int launch = 0; launch < 3; ++launch) {
            count_to<<<1, 1, 0, stream>>>(launch, 3);
            for (int i = 0; i < 3; ++i) expect("launch %d step %d\n", launch, i);
        }
        CHECK_LAUNCH();
        CHECK(cudaStreamSynchronize(stream));
        compare("cudaStreamSynchronize", capture.end());
    }
    {
        Capture capture;
        one_by_one<<<1, 32, 0, stream>>>();
        CHECK_LAUNCH();
        CHECK(cudaEventRecord(event, stream));
        CHECK(cudaEventSynchronize(event));
        for (int i = 0; i < 4; ++i) expect("block 0 thread %d\n", i);
        compare("cudaEventSynchronize", capture.end());
    }
    {
        Capture capture;
        for (int i = 0; i < 200; ++i) {
            count_to<<<1, 1, 0, stream>>>(i, 2);
            for (int step = 0; step < 2; ++step) expect("launch %d step %d\n", i, step);
        }
        CHECK_LAUNCH();
        CHECK(cudaDeviceSynchronize());
        std::string got = capture.end();
        if (got != expected) fail("200 launches: %zu bytes arrived in another form than the %zu expected", got.size(), expected.size());
        std::printf("-- 200 launches: %zu bytes in order\n", got.size());
    }
    CHECK(cudaEventDestroy(event));
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(text));
    CHECK(cudaFree(out));
    return pass();
}
