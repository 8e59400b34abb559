// A guest for measuring how a device is shared: kernels of a chosen length, and how much of them completed when.
//
//   pxshare calibrate                        iterations of the kernel's loop in a microsecond, on this device
//   pxshare busy ITERATIONS US[,US...] SECONDS [DEPTH]   kernels of these lengths in turn, always DEPTH in flight (default 8)
//   pxshare graph ITERATIONS US SECONDS      the same, launched as graphs of four kernels
//   pxshare trace ITERATIONS US SECONDS      as busy, and when the device ran each kernel
//   pxshare latency ITERATIONS US PERIOD_US SECONDS   one kernel each period; how long each took
//
// ITERATIONS is the number from `calibrate`; 0 is for a device with a model of time in which a block takes 100 us
// (PXSOFT_BLOCK_US=100): a kernel then has as many blocks as its length asks for and does nothing.
//
// A kernel is work, not a wait: what it takes when it has the device for itself is what it is counted for. Lines:
//   ready NS                                 the context stands; waits for a line on standard input, then begins
//   window START_NS US                       kernel time completed in the 100 ms from START_NS (CLOCK_MONOTONIC)
//   edge FIRST_NS LAST_NS US                 kernel time in between, over the whole run
//   ran START_NS END_NS                      by the device's global timer, for each kernel of `trace`
//   took US ...                              latencies, in the order of the kernels

#include <cuda_runtime.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

#define CHECK(call)                                                                                  \
    do {                                                                                             \
        cudaError_t error = (call);                                                                  \
        if (error != cudaSuccess) {                                                                  \
            std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorName(error)); \
            std::exit(1);                                                                            \
        }                                                                                            \
    } while (0)

static const long long WINDOW = 100'000'000;

static long long now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1'000'000'000LL + time.tv_nsec;
}

// A chain of dependent operations, so that the time is the number of iterations and not what else the device does.
__global__ void work(long long iterations, float *out) {
    float value = threadIdx.x;
    for (long long i = 0; i < iterations; i++) value = value * 0.999f + 0.001f;
    if (value == -1.0f) *out = value;
}

// The same, with when its first block began and some block ended last.
__global__ void traced(long long iterations, float *out, unsigned long long *times) {
    unsigned long long at;
    if (threadIdx.x == 0) {
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(at));
        atomicMin(&times[0], at);
    }
    float value = threadIdx.x;
    for (long long i = 0; i < iterations; i++) value = value * 0.999f + 0.001f;
    if (value == -1.0f) *out = value;
    if (threadIdx.x == 0) {
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(at));
        atomicMax(&times[1], at);
    }
}

static int multiprocessors = 1;
static double per_microsecond = 0;
static float *out;

// Enough blocks to fill the device, so that nobody runs beside it.
static void launch(double microseconds, cudaStream_t stream) {
    if (per_microsecond > 0) {
        long long iterations = static_cast<long long>(per_microsecond * microseconds);
        work<<<multiprocessors * 2, 1024, 0, stream>>>(iterations, out);
    } else {
        int blocks = std::max(1, static_cast<int>(microseconds / 100 + 0.5));
        work<<<blocks, 1, 0, stream>>>(0, out);
    }
    CHECK(cudaGetLastError());
}

static void calibrate() {
    per_microsecond = 100;
    cudaEvent_t begin, end;
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    std::vector<float> times;
    for (int i = 0; i < 60; i++) {
        CHECK(cudaEventRecord(begin));
        launch(20'000, 0);
        CHECK(cudaEventRecord(end));
        CHECK(cudaEventSynchronize(end));
        float milliseconds;
        CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
        // Clocks rise in the first runs.
        if (i >= 30) times.push_back(milliseconds);
    }
    std::sort(times.begin(), times.end());
    std::printf("%.6f\n", per_microsecond * 20'000 / (times[times.size() / 2] * 1000));
}

static void ready() {
    CHECK(cudaDeviceSynchronize());
    std::printf("ready %lld\n", now());
    std::fflush(stdout);
    char line[16];
    if (!std::fgets(line, sizeof line, stdin)) std::exit(0);
}

struct Windows {
    long long first = 0, last = 0, start = 0;
    double sum = 0, window = 0;
    void add(long long at, double microseconds) {
        if (first == 0) {
            // The first kernel only sets the clock.
            first = last = at;
            start = at - at % WINDOW;
            return;
        }
        while (at >= start + WINDOW) {
            std::printf("window %lld %.1f\n", start, window);
            window = 0;
            start += WINDOW;
        }
        window += microseconds;
        sum += microseconds;
        last = at;
    }
    void finish() const { std::printf("edge %lld %lld %.1f\n", first, last, sum); }
};

static void busy(const std::vector<double> &lengths, double seconds, size_t depth, bool graphs) {
    cudaStream_t stream;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    std::vector<cudaEvent_t> events(depth);
    for (auto &event : events) CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    cudaGraphExec_t exec = nullptr;
    const int in_graph = 4;
    if (graphs) {
        cudaGraph_t graph;
        CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        for (int i = 0; i < in_graph; i++) launch(lengths[0], stream);
        CHECK(cudaStreamEndCapture(stream, &graph));
        CHECK(cudaGraphInstantiate(&exec, graph, 0));
    }
    launch(lengths[0], stream);
    ready();
    Windows windows;
    std::deque<std::pair<size_t, double>> flying;
    long long end = now() + static_cast<long long>(seconds * 1e9);
    for (size_t i = 0; now() < end; i++) {
        if (flying.size() == depth) {
            CHECK(cudaEventSynchronize(events[flying.front().first]));
            windows.add(now(), flying.front().second);
            flying.pop_front();
        }
        double length = lengths[i % lengths.size()];
        if (graphs) {
            CHECK(cudaGraphLaunch(exec, stream));
            length *= in_graph;
        } else {
            launch(length, stream);
        }
        CHECK(cudaEventRecord(events[i % depth], stream));
        flying.emplace_back(i % depth, length);
    }
    windows.finish();
}

static void trace(double length, double seconds) {
    const size_t most = 100'000, depth = 8;
    cudaStream_t stream;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    std::vector<unsigned long long> times(2 * most);
    for (size_t i = 0; i < most; i++) times[2 * i] = ~0ULL;
    unsigned long long *device;
    CHECK(cudaMalloc(&device, times.size() * sizeof times[0]));
    CHECK(cudaMemcpy(device, times.data(), times.size() * sizeof times[0], cudaMemcpyHostToDevice));
    std::vector<cudaEvent_t> events(depth);
    for (auto &event : events) CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    long long iterations = static_cast<long long>(per_microsecond * length);
    launch(length, stream);
    ready();
    size_t count = 0;
    long long end = now() + static_cast<long long>(seconds * 1e9);
    for (; now() < end && count < most; count++) {
        if (count >= depth) CHECK(cudaEventSynchronize(events[count % depth]));
        traced<<<multiprocessors * 2, 1024, 0, stream>>>(iterations, out, device + 2 * count);
        CHECK(cudaGetLastError());
        CHECK(cudaEventRecord(events[count % depth], stream));
    }
    CHECK(cudaMemcpy(times.data(), device, times.size() * sizeof times[0], cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < count; i++) std::printf("ran %llu %llu\n", times[2 * i], times[2 * i + 1]);
}

static void latency(double length, double period, double seconds) {
    cudaStream_t stream;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (int i = 0; i < 20; i++) launch(length, stream);
    CHECK(cudaStreamSynchronize(stream));
    ready();
    std::vector<double> took;
    long long begun = now(), next = begun;
    while (now() < begun + static_cast<long long>(seconds * 1e9)) {
        next += static_cast<long long>(period * 1000);
        // Sleeps most of the time, and looks at the clock for the rest: a sleeper's lateness is not the device's.
        long long left = next - now() - 200'000;
        if (left > 0) {
            timespec time = {left / 1'000'000'000, left % 1'000'000'000};
            nanosleep(&time, nullptr);
        }
        while (now() < next) {}
        long long start = now();
        launch(length, stream);
        CHECK(cudaStreamSynchronize(stream));
        took.push_back((now() - start) / 1e3);
        next = std::max(next, now());
    }
    std::printf("took");
    for (double microseconds : took) std::printf(" %.1f", microseconds);
    std::printf("\n");
}

static std::vector<double> numbers(const char *text) {
    std::vector<double> list;
    for (char *rest = const_cast<char *>(text);;) {
        list.push_back(std::strtod(rest, &rest));
        if (*rest++ != ',') return list;
    }
}

int main(int count, char **arguments) {
    std::string mode = count > 1 ? arguments[1] : "";
    CHECK(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
    CHECK(cudaMalloc(&out, sizeof *out));
    if (count > 2) per_microsecond = std::atof(arguments[2]);
    if (mode == "calibrate" && count == 2) {
        calibrate();
    } else if (mode == "busy" && count >= 5) {
        size_t depth = count > 5 ? std::max(1, std::atoi(arguments[5])) : 8;
        busy(numbers(arguments[3]), std::atof(arguments[4]), depth, false);
    } else if (mode == "graph" && count == 5) {
        busy(numbers(arguments[3]), std::atof(arguments[4]), 4, true);
    } else if (mode == "trace" && count == 5) {
        trace(std::atof(arguments[3]), std::atof(arguments[4]));
    } else if (mode == "latency" && count == 6) {
        latency(std::atof(arguments[3]), std::atof(arguments[4]), std::atof(arguments[5]));
    } else {
        std::fprintf(stderr, "usage: see the head of pxshare.cu\n");
        return 2;
    }
    return 0;
}
