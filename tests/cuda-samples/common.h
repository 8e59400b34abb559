// Shared by every sample: error checks, the verdict line, deterministic random numbers, comparison.
//
// A sample prints deterministic lines, then `PASS` (exit code 0) or `FAIL: reason` (exit code 1). What may
// differ from run to run (durations, bandwidths) goes on lines that start with `time:`, which the sample runner masks.
#pragma once

#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

// Prints `FAIL: reason` and ends the program with exit code 1.
[[noreturn, gnu::format(printf, 1, 2)]] inline void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::printf("FAIL: ");
    std::vprintf(format, arguments);
    std::printf("\n");
    va_end(arguments);
    std::fflush(stdout);
    std::exit(1);
}

// Prints `PASS`; `return pass();` ends main.
inline int pass() {
    std::printf("PASS\n");
    std::fflush(stdout);
    return 0;
}

// Fails with the text of a condition that does not hold.
#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) fail("%s:%d: not true: %s", base_name(__FILE__), __LINE__, #condition);  \
    } while (0)

// The last component of a path, so that messages do not depend on where the tree lies.
inline const char *base_name(const char *path) {
    const char *slash = std::strrchr(path, '/');
    return slash ? slash + 1 : path;
}

#ifdef __CUDA_RUNTIME_H__
// Fails unless a runtime call returns cudaSuccess.
#define CHECK(call)                                                                                \
    do {                                                                                           \
        cudaError_t check_error = (call);                                                          \
        if (check_error != cudaSuccess)                                                            \
            fail("%s:%d: %s: %s (%d)", base_name(__FILE__), __LINE__, #call,                       \
                 cudaGetErrorName(check_error), static_cast<int>(check_error));                    \
    } while (0)

// Fails unless a runtime call returns exactly `expected`; for errors that are provoked.
#define EXPECT(expected, call)                                                                     \
    do {                                                                                           \
        cudaError_t expect_error = (call);                                                         \
        if (expect_error != (expected))                                                            \
            fail("%s:%d: %s: %s (%d), expected %s", base_name(__FILE__), __LINE__, #call,          \
                 cudaGetErrorName(expect_error), static_cast<int>(expect_error), #expected);       \
    } while (0)

// Fails if the launch before it was refused; what goes wrong in the kernel itself shows at the next synchronisation.
#define CHECK_LAUNCH() CHECK(cudaGetLastError())
#endif

#ifdef __cuda_cuda_h__
// Fails unless a driver call returns CUDA_SUCCESS.
#define CHECK_DRIVER(call)                                                                         \
    do {                                                                                           \
        CUresult check_result = (call);                                                            \
        if (check_result != CUDA_SUCCESS)                                                          \
            fail("%s:%d: %s: %d", base_name(__FILE__), __LINE__, #call,                            \
                 static_cast<int>(check_result));                                                  \
    } while (0)

// Fails unless a driver call returns exactly `expected`.
#define EXPECT_DRIVER(expected, call)                                                              \
    do {                                                                                           \
        CUresult expect_result = (call);                                                           \
        if (expect_result != (expected))                                                           \
            fail("%s:%d: %s: %d, expected %s", base_name(__FILE__), __LINE__, #call,               \
                 static_cast<int>(expect_result), #expected);                                      \
    } while (0)
#endif

// Deterministic random numbers (splitmix64), the same on every machine.
struct Random {
    uint64_t state;
    explicit Random(uint64_t seed) : state(seed) {}
    uint64_t next() {
        uint64_t z = (state += 0x9e3779b97f4a7c15ull);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        return z ^ (z >> 31);
    }
    uint32_t bits() { return static_cast<uint32_t>(next() >> 32); }
    // Uniform in [0, 1), a multiple of 2^-24: exact as a float.
    float uniform() { return static_cast<float>(next() >> 40) * (1.0f / 16777216.0f); }
};

// A checksum of bytes (FNV-1a), to print instead of large results.
inline uint64_t checksum(const void *data, size_t size) {
    const unsigned char *bytes = static_cast<const unsigned char *>(data);
    uint64_t hash = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < size; ++i) hash = (hash ^ bytes[i]) * 0x100000001b3ull;
    return hash;
}

// Fails unless |got - want| <= absolute + relative * |want| for every element.
template <typename T>
void require_close(const char *what, const T *got, const T *want, size_t count, double relative, double absolute) {
    for (size_t i = 0; i < count; ++i) {
        double difference = std::fabs(static_cast<double>(got[i]) - static_cast<double>(want[i]));
        if (!(difference <= absolute + relative * std::fabs(static_cast<double>(want[i]))))
            fail("%s[%zu] is %.9g, the reference says %.9g", what, i, static_cast<double>(got[i]),
                 static_cast<double>(want[i]));
    }
}

// Fails unless every element is the same.
template <typename T>
void require_equal(const char *what, const T *got, const T *want, size_t count) {
    for (size_t i = 0; i < count; ++i)
        if (!(got[i] == want[i]))
            fail("%s[%zu] is %lld, the reference says %lld", what, i, static_cast<long long>(got[i]),
                 static_cast<long long>(want[i]));
}

// The argument with this index as a positive number, or `otherwise` if there is none.
inline int argument(int argc, char **argv, int index, int otherwise) {
    if (index >= argc) return otherwise;
    char *end = nullptr;
    long value = std::strtol(argv[index], &end, 10);
    if (*end || value <= 0 || value > 1000000000) fail("argument '%s' is not a positive number", argv[index]);
    return static_cast<int>(value);
}

inline int divide_up(int a, int b) { return (a + b - 1) / b; }
