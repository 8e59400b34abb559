// A guest for measuring how a device is shared: kernels of a chosen length, and how much of them completed when.
//
//   pxshare calibrate                        iterations of the kernel's loop in a microsecond, on this device
//   pxshare busy ITERATIONS US[,US...] SECONDS [DEPTH]   kernels of these lengths in turn, always DEPTH in flight (default 8)
//   pxshare graph ITERATIONS US SECONDS [NODES]   the same, launched as graphs of this many kernels (default 4)
//   pxshare gemm N SECONDS                   products of N x N matrices by cuBLAS, which is opened as it is found
//   pxshare trace ITERATIONS US[,US...] SECONDS   as busy, and when the device ran each kernel
//   pxshare latency ITERATIONS US PAUSE_US[-PAUSE_US] SECONDS   one kernel, then a pause, of a length between the two; how long
//                                            each took
//   pxshare steady ITERATIONS US SECONDS     one kernel after the other, each waited for; how long each took
//   pxshare bad WHAT SECONDS                 a bad neighbour: processes that, one after the other, launch a kernel that never
//                                            ends (endless), one that traps (trap) or writes where nothing is (illegal), take
//                                            all memory there is again and again (allocations), launch 100,000 kernels at once
//                                            (flood), or stop with copies under way (stalled); or very many of them (forks)
//
// ITERATIONS is the number from `calibrate`; 0 is for a device with a model of time in which a block takes 100 us
// (PXSOFT_BLOCK_US=100): a kernel then has as many blocks as its length asks for and does nothing.
//
// A kernel is work, not a wait: what it takes when it has the device for itself is what it is counted for. Lines:
//   ready NS                                 the context stands; waits for a line on standard input, then begins
//   window START_NS US                       kernel time in the 100 ms from START_NS (CLOCK_MONOTONIC)
//   edge FIRST_NS LAST_NS US                 kernel time in between, over the whole run
//   ran START_NS END_NS                      by the device's global timer, for each kernel of `trace`
//   took US ...                              latencies, in the order of the kernels

#include <cuda_runtime.h>
#include <dlfcn.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <random>
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

static void ready_and_go() {
    std::printf("ready %lld\n", now());
    std::fflush(stdout);
    char line[16];
    if (!std::fgets(line, sizeof line, stdin)) std::exit(0);
}

static void ready() {
    CHECK(cudaDeviceSynchronize());
    ready_and_go();
}

// A kernel counts where it ran: for its length before it was complete. A window that held only its end would else show up to a
// whole kernel more than the guest had.
struct Windows {
    long long first = 0, last = 0;
    double sum = 0;
    std::map<long long, double> windows;
    void add(long long at, double microseconds) {
        if (first == 0) {
            // The first kernel only sets the clock.
            first = last = at;
            return;
        }
        long long from = std::max(first, at - static_cast<long long>(microseconds * 1000));
        for (long long start = from - from % WINDOW; start < at; start += WINDOW)
            windows[start] += (std::min(at, start + WINDOW) - std::max(from, start)) / 1e3;
        sum += microseconds;
        last = at;
    }
    void finish() const {
        for (auto [start, microseconds] : windows) std::printf("window %lld %.1f\n", start, microseconds);
        std::printf("edge %lld %lld %.1f\n", first, last, sum);
    }
};

static cudaStream_t new_stream() {
    cudaStream_t stream;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
}

// Always `depth` units of work in flight; `submit` puts one into the stream and says how long it takes.
template <typename Submit>
static void keep_busy(double seconds, size_t depth, cudaStream_t stream, Submit submit) {
    std::vector<cudaEvent_t> events(depth);
    for (auto &event : events) CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
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
        double length = submit(i);
        CHECK(cudaEventRecord(events[i % depth], stream));
        flying.emplace_back(i % depth, length);
    }
    windows.finish();
}

static void busy(const std::vector<double> &lengths, double seconds, size_t depth) {
    cudaStream_t stream = new_stream();
    launch(lengths[0], stream);
    keep_busy(seconds, depth, stream, [&](size_t i) {
        double length = lengths[i % lengths.size()];
        launch(length, stream);
        return length;
    });
}

static void graphs(double length, double seconds, int nodes) {
    cudaStream_t stream = new_stream();
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < nodes; i++) launch(length, stream);
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    launch(length, stream);
    keep_busy(seconds, 4, stream, [&](size_t) {
        CHECK(cudaGraphLaunch(exec, stream));
        return length * nodes;
    });
}

static void *cublas(const char *name) {
    static void *library = nullptr;
    for (const char *path : {"libcublas.so.13", "libcublas.so.12", "/usr/local/cuda/lib64/libcublas.so"})
        if (!library) library = dlopen(path, RTLD_NOW);
    void *function = library ? dlsym(library, name) : nullptr;
    if (!function) {
        std::fprintf(stderr, "no cuBLAS here: %s\n", dlerror());
        std::exit(3);
    }
    return function;
}

// A product is counted for the shortest of the first ones, which is what it takes when it has the device for itself.
static void gemm(int n, double seconds) {
    auto create = reinterpret_cast<int (*)(void **)>(cublas("cublasCreate_v2"));
    auto set_stream = reinterpret_cast<int (*)(void *, cudaStream_t)>(cublas("cublasSetStream_v2"));
    auto sgemm = reinterpret_cast<int (*)(void *, int, int, int, int, int, const float *, const float *, int, const float *,
                                          int, const float *, float *, int)>(cublas("cublasSgemm_v2"));
    cudaStream_t stream = new_stream();
    void *handle;
    float *matrices[3], one = 1, zero = 0;
    for (auto &matrix : matrices) {
        CHECK(cudaMalloc(&matrix, sizeof(float) * n * n));
        CHECK(cudaMemset(matrix, 0, sizeof(float) * n * n));
    }
    auto multiply = [&] {
        int status = sgemm(handle, 0, 0, n, n, n, &one, matrices[0], n, matrices[1], n, &zero, matrices[2], n);
        if (status != 0) {
            std::fprintf(stderr, "cublasSgemm: status %d\n", status);
            std::exit(1);
        }
    };
    if (create(&handle) != 0 || set_stream(handle, stream) != 0) {
        std::fprintf(stderr, "cuBLAS does not start\n");
        std::exit(1);
    }
    cudaEvent_t begin, end;
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    double least = 1e9;
    for (int i = 0; i < 20; i++) {
        CHECK(cudaEventRecord(begin, stream));
        multiply();
        CHECK(cudaEventRecord(end, stream));
        CHECK(cudaEventSynchronize(end));
        float milliseconds;
        CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
        if (i >= 5) least = std::min(least, milliseconds * 1e3);
    }
    keep_busy(seconds, 8, stream, [&](size_t) {
        multiply();
        return least;
    });
}

static void trace(const std::vector<double> &lengths, double seconds) {
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
    launch(lengths[0], stream);
    ready();
    size_t count = 0;
    long long end = now() + static_cast<long long>(seconds * 1e9);
    for (; now() < end && count < most; count++) {
        if (count >= depth) CHECK(cudaEventSynchronize(events[count % depth]));
        long long iterations = static_cast<long long>(per_microsecond * lengths[count % lengths.size()]);
        traced<<<multiprocessors * 2, 1024, 0, stream>>>(iterations, out, device + 2 * count);
        CHECK(cudaGetLastError());
        CHECK(cudaEventRecord(events[count % depth], stream));
    }
    CHECK(cudaMemcpy(times.data(), device, times.size() * sizeof times[0], cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < count; i++) std::printf("ran %llu %llu\n", times[2 * i], times[2 * i + 1]);
}

static void latency(double length, const char *pauses, double seconds) {
    cudaStream_t stream;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (int i = 0; i < 20; i++) launch(length, stream);
    CHECK(cudaStreamSynchronize(stream));
    char *rest;
    double least = std::strtod(pauses, &rest), most = *rest == '-' ? std::atof(rest + 1) : least;
    std::minstd_rand random;
    std::uniform_real_distribution<double> pause(least, most);
    ready();
    std::vector<double> took;
    long long begun = now(), next = begun;
    while (now() < begun + static_cast<long long>(seconds * 1e9)) {
        next += static_cast<long long>((least < most ? pause(random) : least) * 1000);
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

static void steady(double length, double seconds) {
    cudaStream_t stream = new_stream();
    for (int i = 0; i < 20; i++) launch(length, stream);
    CHECK(cudaStreamSynchronize(stream));
    ready();
    Windows windows;
    std::vector<double> took;
    for (long long begun = now(), start = begun; start < begun + static_cast<long long>(seconds * 1e9); start = now()) {
        launch(length, stream);
        CHECK(cudaStreamSynchronize(stream));
        long long end = now();
        windows.add(end, length);
        took.push_back((end - start) / 1e3);
    }
    windows.finish();
    std::printf("took");
    for (double microseconds : took) std::printf(" %.1f", microseconds);
    std::printf("\n");
}

__global__ void endless(volatile int *flag) {
    while (*flag == 0) {}
}

__global__ void trap() { asm volatile("trap;"); }

__global__ void illegal(int *nowhere) { *nowhere = 1; }

// One deed; most of them end the context.
static void deed(const std::string &what) {
    int *flag;
    CHECK(cudaMalloc(&flag, sizeof *flag));
    CHECK(cudaMemset(flag, 0, sizeof *flag));
    if (what == "endless") {
        endless<<<multiprocessors, 32>>>(flag);
        cudaDeviceSynchronize();
    } else if (what == "trap") {
        trap<<<1, 1>>>();
        cudaDeviceSynchronize();
    } else if (what == "illegal") {
        illegal<<<1, 1>>>(reinterpret_cast<int *>(16));
        cudaDeviceSynchronize();
    } else if (what == "allocations") {
        for (int round = 0; round < 20; round++) {
            std::vector<void *> pieces;
            void *piece;
            for (size_t size = size_t(1) << 30; size >= size_t(1) << 20; size /= 2)
                while (pieces.size() < 1000 && cudaMalloc(&piece, size) == cudaSuccess) pieces.push_back(piece);
            for (void *one : pieces) CHECK(cudaFree(one));
        }
    } else if (what == "flood") {
        for (int i = 0; i < 100'000; i++) work<<<1, 32>>>(0, out);
        CHECK(cudaDeviceSynchronize());
    } else if (what == "stalled") {
        const size_t size = 64 << 20;
        void *device, *host;
        CHECK(cudaMalloc(&device, size));
        CHECK(cudaMallocHost(&host, size));
        for (int i = 0; i < 64; i++) CHECK(cudaMemcpyAsync(host, device, size, cudaMemcpyDeviceToHost, nullptr));
        raise(SIGSTOP);
    } else {
        usleep(500'000);
    }
}

static pid_t start(const std::string &what) {
    pid_t child = fork();
    if (child == 0) {
        // What a fault says is meant to happen.
        if (!std::freopen("/dev/null", "w", stderr)) _exit(1);
        execl("/proc/self/exe", "pxshare", "deed", what.c_str(), static_cast<char *>(nullptr));
        _exit(1);
    }
    return child;
}

// Does not use the device itself.
static void bad(const std::string &what, double seconds) {
    ready_and_go();
    const size_t at_once = what == "forks" ? 16 : 1;
    std::vector<std::pair<pid_t, long long>> children;
    long long end = now() + static_cast<long long>(seconds * 1e9);
    int count = 0;
    while (now() < end) {
        while (children.size() < at_once) {
            children.emplace_back(start(what), now());
            count++;
        }
        usleep(5'000);
        for (size_t i = 0; i < children.size();) {
            auto [child, since] = children[i];
            int status;
            bool over = waitpid(child, &status, WNOHANG | WUNTRACED) == child && !WIFSTOPPED(status);
            // One that stopped is left alone for a second, so that others see what its copies do to them.
            if (!over && what == "stalled" && now() > since + 1'500'000'000LL) kill(child, SIGKILL);
            if (over) children.erase(children.begin() + static_cast<long>(i));
            else i++;
        }
    }
    for (auto [child, since] : children) kill(child, SIGKILL);
    while (waitpid(-1, nullptr, 0) > 0) {}
    std::printf("deeds %d\n", count);
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
    if (mode == "bad" && count == 4) {
        bad(arguments[2], std::atof(arguments[3]));
        return 0;
    }
    CHECK(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
    CHECK(cudaMalloc(&out, sizeof *out));
    if (count > 2) per_microsecond = std::atof(arguments[2]);
    if (mode == "calibrate" && count == 2) {
        calibrate();
    } else if (mode == "busy" && count >= 5) {
        size_t depth = count > 5 ? std::max(1, std::atoi(arguments[5])) : 8;
        busy(numbers(arguments[3]), std::atof(arguments[4]), depth);
    } else if (mode == "graph" && count >= 5) {
        graphs(std::atof(arguments[3]), std::atof(arguments[4]), count > 5 ? std::max(1, std::atoi(arguments[5])) : 4);
    } else if (mode == "gemm" && count == 4) {
        gemm(std::atoi(arguments[2]), std::atof(arguments[3]));
    } else if (mode == "trace" && count == 5) {
        trace(numbers(arguments[3]), std::atof(arguments[4]));
    } else if (mode == "steady" && count == 5) {
        steady(std::atof(arguments[3]), std::atof(arguments[4]));
    } else if (mode == "deed" && count == 3) {
        deed(arguments[2]);
    } else if (mode == "latency" && count == 6) {
        latency(std::atof(arguments[3]), arguments[4], std::atof(arguments[5]));
    } else {
        std::fprintf(stderr, "usage: see the head of pxshare.cu\n");
        return 2;
    }
    return 0;
}
