// Measures what a program feels of its driver: launches, synchronisation, copies, memory, events, start-up.
//
// Prints one line a figure: `name value unit`, the median over repetitions. `pxos-bench` runs it natively and remoted in
// turns and shows the ratios; docs/performance.md explains each row.
//
//   pxbench all [LARGEST_MIB [DIVISOR]]    every figure of one process; DIVISOR makes the loops shorter, for a slow device
//   pxbench start                          the first kernel, and out
//   pxbench storm [LAUNCHES]               empty launches, and one synchronisation behind them
//   pxbench work [ROUNDS]                  a bit of everything: what several processes do at once
//   pxbench graphs [REPETITIONS]           launches of a graph, for a profile
//   pxbench to_host [COPIES [MIB]]         copies of pageable memory to the host, for a profile
//   pxbench idle                           a kernel, then nothing until standard input ends

#include <cuda.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#define CHECK(call)                                                                                  \
    do {                                                                                             \
        cudaError_t error = (call);                                                                  \
        if (error != cudaSuccess) {                                                                  \
            std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorName(error)); \
            std::exit(1);                                                                            \
        }                                                                                            \
    } while (0)

using Clock = std::chrono::steady_clock;

static double now() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

__global__ void empty() {}

__global__ void small(float *data) { data[threadIdx.x] += 1.0f; }

static double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

// Flushed, so that a reader sees the moment of a figure as well.
static void row(const char *name, double value, const char *unit) {
    std::printf("%s %.6g %s\n", name, value, unit);
    std::fflush(stdout);
}

// How much shorter the loops are than on a GPU.
static int divisor = 1;

template <typename Body>
static double per_call(int repetitions, int calls, Body body) {
    std::vector<double> times;
    calls = std::max(1, calls / divisor);
    for (int repetition = 0; repetition < repetitions; repetition++) {
        double start = now();
        for (int call = 0; call < calls; call++) body();
        times.push_back((now() - start) / calls * 1e6);
        CHECK(cudaDeviceSynchronize());
    }
    return median(times);
}

static void launches(float *data) {
    for (int i = 0; i < 1000 / divisor; i++) small<<<1, 32>>>(data);
    CHECK(cudaDeviceSynchronize());
    // Issue: what the caller pays while nothing pushes back.
    row("launch_issue", per_call(15, 500, [&] { small<<<1, 32>>>(data); }), "us");
    for (int threads : {1, 2, 4}) {
        std::vector<double> times;
        const int each = 10000 / divisor;
        for (int repetition = 0; repetition < 5; repetition++) {
            std::vector<std::thread> group;
            double start = now();
            for (int thread = 0; thread < threads; thread++) {
                group.emplace_back([&] {
                    cudaStream_t stream;
                    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
                    for (int i = 0; i < each; i++) small<<<1, 32, 0, stream>>>(data);
                    CHECK(cudaStreamSynchronize(stream));
                    CHECK(cudaStreamDestroy(stream));
                });
            }
            for (auto &thread : group) thread.join();
            times.push_back((now() - start) / (threads * each) * 1e6);
        }
        row(("launch_throughput_" + std::to_string(threads)).c_str(), median(times), "us");
    }
    row("launch_sync", per_call(9, 1000, [&] {
            small<<<1, 32>>>(data);
            CHECK(cudaStreamSynchronize(0));
        }), "us");
    row("launch_device_sync", per_call(9, 1000, [&] {
            small<<<1, 32>>>(data);
            CHECK(cudaDeviceSynchronize());
        }), "us");
}

static void graphs(float *data, int repetitions) {
    cudaStream_t stream;
    cudaEvent_t begin, end;
    CHECK(cudaStreamCreate(&stream));
    cudaGraph_t graph;
    if (cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
        cudaGetLastError();
        return;
    }
    for (int i = 0; i < 20; i++) small<<<1, 32, 0, stream>>>(data);
    CHECK(cudaStreamEndCapture(stream, &graph));
    cudaGraphExec_t exec;
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    for (int i = 0; i < 10; i++) CHECK(cudaGraphLaunch(exec, stream));
    CHECK(cudaStreamSynchronize(stream));
    std::vector<double> times, device;
    const int launches = std::max(1, 500 / divisor);
    for (int repetition = 0; repetition < repetitions; repetition++) {
        double start = now();
        CHECK(cudaEventRecord(begin, stream));
        for (int i = 0; i < launches; i++) CHECK(cudaGraphLaunch(exec, stream));
        CHECK(cudaEventRecord(end, stream));
        CHECK(cudaStreamSynchronize(stream));
        times.push_back((now() - start) / launches * 1e6);
        float milliseconds;
        CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
        device.push_back(milliseconds / launches * 1e3);
    }
    row("graph_launch_throughput", median(times), "us");
    // The same between two events of the stream: what the device saw of it.
    row("graph_launch_device", median(device), "us");
    CHECK(cudaEventDestroy(begin));
    CHECK(cudaEventDestroy(end));
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaStreamDestroy(stream));
}

static void copies(char *device, size_t largest) {
    char *pinned;
    CHECK(cudaMallocHost(&pinned, largest));
    char *pageable = static_cast<char *>(std::malloc(largest));
    std::memset(pinned, 1, largest);
    std::memset(pageable, 1, largest);
    struct { const char *name; size_t bytes; int calls; } sizes[] = {
        {"4B", 4, 500}, {"64KiB", 64 << 10, 200}, {"1MiB", 1 << 20, 60}, {"256MiB", size_t(256) << 20, 1}};
    for (auto &size : sizes) {
        if (size.bytes > largest) continue;
        for (int kind = 0; kind < 2; kind++) {
            char *host = kind ? pinned : pageable;
            const char *kind_name = kind ? "pinned" : "pageable";
            for (int direction = 0; direction < 2; direction++) {
                auto copy = [&] {
                    if (direction == 0) CHECK(cudaMemcpy(device, host, size.bytes, cudaMemcpyHostToDevice));
                    else CHECK(cudaMemcpy(host, device, size.bytes, cudaMemcpyDeviceToHost));
                };
                copy();
                double time = per_call(7, size.calls, copy);
                std::string name = std::string(direction ? "d2h_" : "h2d_") + kind_name + "_" + size.name;
                row(name.c_str(), time, "us");
            }
        }
    }
    cudaStream_t stream;
    CHECK(cudaStreamCreate(&stream));
    for (int direction = 0; direction < 2; direction++) {
        double time = per_call(7, 4, [&] {
            if (direction == 0) CHECK(cudaMemcpyAsync(device, pinned, largest, cudaMemcpyHostToDevice, stream));
            else CHECK(cudaMemcpyAsync(pinned, device, largest, cudaMemcpyDeviceToHost, stream));
            CHECK(cudaStreamSynchronize(stream));
        });
        std::string size = std::to_string(largest >> 20) + "MiB";
        row(((direction ? "d2h_pinned_async_" : "h2d_pinned_async_") + size).c_str(), time, "us");
    }
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFreeHost(pinned));
    std::free(pageable);
}

static void others(char *device) {
    row("memset_1MiB", per_call(9, 200, [&] { CHECK(cudaMemset(device, 0, 1 << 20)); }), "us");
    cudaEvent_t event, second;
    CHECK(cudaEventCreate(&event));
    CHECK(cudaEventCreate(&second));
    row("event_record", per_call(9, 500, [&] { CHECK(cudaEventRecord(event)); }), "us");
    row("event_query", per_call(9, 500, [&] { CHECK(cudaEventQuery(event)); }), "us");
    row("stream_query", per_call(9, 500, [&] { CHECK(cudaStreamQuery(0)); }), "us");
    row("event_elapsed", per_call(9, 200, [&] {
            float time;
            CHECK(cudaEventRecord(event));
            CHECK(cudaEventRecord(second));
            CHECK(cudaEventSynchronize(second));
            CHECK(cudaEventElapsedTime(&time, event, second));
        }), "us");
    row("malloc_free_1MiB", per_call(9, 100, [&] {
            void *memory;
            CHECK(cudaMalloc(&memory, 1 << 20));
            CHECK(cudaFree(memory));
        }), "us");
    void *probe;
    if (cudaMallocAsync(&probe, 1 << 20, 0) == cudaSuccess) {
        CHECK(cudaFreeAsync(probe, 0));
        row("malloc_async_1MiB", per_call(9, 100, [&] {
                void *memory;
                CHECK(cudaMallocAsync(&memory, 1 << 20, 0));
                CHECK(cudaFreeAsync(memory, 0));
            }), "us");
    } else {
        cudaGetLastError();
    }
    row("stream_create_destroy", per_call(9, 50, [&] {
            cudaStream_t stream;
            CHECK(cudaStreamCreate(&stream));
            CHECK(cudaStreamDestroy(stream));
        }), "us");
    static const char ptx[] =
        ".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry nothing()\n{\n    ret;\n}\n";
    row("library_load", per_call(5, 20, [&] {
            cudaLibrary_t library;
            cudaKernel_t kernel;
            CHECK(cudaLibraryLoadData(&library, ptx, nullptr, nullptr, 0, nullptr, nullptr, 0));
            CHECK(cudaLibraryGetKernel(&kernel, library, "nothing"));
            CHECK(cudaLibraryUnload(library));
        }), "us");
    int device_number;
    row("get_device", per_call(9, 10000, [&] { CHECK(cudaGetDevice(&device_number)); }), "us");
}

// What one of several processes does: launches, copies both ways, and waits, in rounds.
static void work(float *data, int rounds) {
    const size_t bytes = 1 << 20;
    char *device, *pinned;
    CHECK(cudaMalloc(&device, bytes));
    CHECK(cudaMallocHost(&pinned, bytes));
    double start = now();
    for (int round = 0; round < rounds; round++) {
        CHECK(cudaMemcpyAsync(device, pinned, bytes, cudaMemcpyHostToDevice, 0));
        for (int i = 0; i < 50; i++) small<<<1, 32>>>(data);
        CHECK(cudaMemcpyAsync(pinned, device, bytes, cudaMemcpyDeviceToHost, 0));
        CHECK(cudaStreamSynchronize(0));
    }
    row("work_round", (now() - start) / rounds * 1e6, "us");
    CHECK(cudaFreeHost(pinned));
    CHECK(cudaFree(device));
}

static void to_host(int copies, size_t bytes) {
    char *device;
    CHECK(cudaMalloc(&device, bytes));
    char *host = static_cast<char *>(std::malloc(bytes));
    std::memset(host, 1, bytes);
    CHECK(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost));
    double start = now();
    for (int i = 0; i < copies; i++) CHECK(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost));
    row("to_host", (now() - start) / copies * 1e6, "us");
    CHECK(cudaFree(device));
    std::free(host);
}

int main(int count, char **arguments) {
    double start = now();
    std::string only = count > 1 ? arguments[1] : "all";
    float *data;
    CHECK(cudaMalloc(&data, 1 << 20));
    small<<<1, 32>>>(data);
    CHECK(cudaDeviceSynchronize());
    row("first_kernel", (now() - start) * 1e6, "us");
    if (only == "start") return 0;
    if (only == "storm") {
        long launches = count > 2 ? std::atol(arguments[2]) : 1000000;
        double begin = now();
        for (long i = 0; i < launches; i++) empty<<<1, 1>>>();
        CHECK(cudaDeviceSynchronize());
        row("storm", (now() - begin) / launches * 1e6, "us");
        return 0;
    }
    if (only == "work") {
        work(data, count > 2 ? std::atoi(arguments[2]) : 200);
        return 0;
    }
    if (only == "graphs") {
        graphs(data, count > 2 ? std::atoi(arguments[2]) : 50);
        return 0;
    }
    if (only == "to_host") {
        to_host(count > 2 ? std::atoi(arguments[2]) : 20, std::strtoull(count > 3 ? arguments[3] : "256", nullptr, 10) << 20);
        return 0;
    }
    if (only == "idle") {
        while (std::getchar() != EOF) {}
        return 0;
    }
    if (only != "all") {
        std::fprintf(stderr, "pxbench: '%s' is none of all, start, storm, work, graphs, to_host, idle\n", only.c_str());
        return 1;
    }
    size_t largest = count > 2 ? std::strtoull(arguments[2], nullptr, 10) << 20 : size_t(256) << 20;
    divisor = count > 3 ? std::max(1, std::min(1000, std::atoi(arguments[3]))) : 1;
    // Just after a guest's start its server makes the next worker ready, which keeps the driver and the device busy for half a
    // second: that is measured as a figure of its own, and then waited for.
    const int early = 10000 / divisor;
    start = now();
    for (int i = 0; i < early; i++) small<<<1, 32>>>(data);
    CHECK(cudaDeviceSynchronize());
    row("launch_throughput_early", (now() - start) / early * 1e6, "us");
    if (divisor == 1) std::this_thread::sleep_for(std::chrono::seconds(2));
    char *device;
    CHECK(cudaMalloc(&device, largest));
    launches(data);
    graphs(data, 7);
    copies(device, largest);
    others(device);
    return 0;
}
