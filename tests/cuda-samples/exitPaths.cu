// Proves the ways out: the program runs itself once per way and checks each exit code and output. Ways: return with
// everything still allocated and work running, exit() from a second thread, _exit(), quick_exit(), a destructor of a
// static object that uses CUDA, an atexit function that does, a thread in the middle of a call, and main's own thread
// ending before the others.
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "common.h"

__global__ void fill(int *data, int value) { data[threadIdx.x] = value; }

int *data;
cudaStream_t stream;

// Starts CUDA and leaves work running.
void busy() {
    CHECK(cudaStreamCreate(&stream));
    CHECK(cudaMalloc(&data, 64 * sizeof(int)));
    for (int i = 0; i < 50; ++i) fill<<<1, 64, 0, stream>>>(data, i);
    CHECK_LAUNCH();
}

// Says whether a late call works or is refused because CUDA has ended; both are allowed, a hang or a crash is not.
void late_use() {
    int host[64];
    cudaError_t error = cudaMemcpy(host, data, sizeof(host), cudaMemcpyDeviceToHost);
    bool fine = error == cudaSuccess || error == cudaErrorCudartUnloading;
    std::printf("late use %s\n", fine ? "survived" : cudaGetErrorName(error));
    std::fflush(stdout);
}

struct AtEnd {
    bool armed = false;
    ~AtEnd() {
        if (armed) late_use();
    }
} at_end;

int way(const char *name) {
    if (!std::strcmp(name, "return")) {
        busy();
        return 11;
    }
    if (!std::strcmp(name, "thread-exit")) {
        busy();
        std::thread([] { std::exit(12); }).detach();
        for (;;) pause();
    }
    if (!std::strcmp(name, "_exit")) {
        busy();
        _exit(13);
    }
    if (!std::strcmp(name, "quick_exit")) {
        busy();
        std::quick_exit(14);
    }
    if (!std::strcmp(name, "static-destructor")) {
        busy();
        at_end.armed = true;
        return 15;
    }
    if (!std::strcmp(name, "atexit")) {
        busy();
        std::atexit(late_use);
        return 16;
    }
    if (!std::strcmp(name, "running-thread")) {
        busy();
        std::thread([] {
            for (;;) {
                if (cudaStreamSynchronize(stream) != cudaSuccess) pause();
                fill<<<1, 64, 0, stream>>>(data, 1);
            }
        }).detach();
        std::this_thread::sleep_for(std::chrono::milliseconds(30));
        // return would race with the thread in the runtime's own teardown; _exit does not.
        _exit(17);
    }
    if (!std::strcmp(name, "thread-end")) {
        // main's thread ends; another one uses CUDA and ends the program.
        busy();
        std::thread([] {
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
            int host[64];
            CHECK(cudaMemcpyAsync(host, data, sizeof(host), cudaMemcpyDeviceToHost, stream));
            CHECK(cudaStreamSynchronize(stream));
            REQUIRE(host[0] == 49);
            std::exit(18);
        }).detach();
        pthread_exit(nullptr);
    }
    fail("unknown way '%s'", name);
}

int main(int argc, char **argv) {
    if (argc > 1) return way(argv[1]);
    struct { const char *name; int code; } ways[] = {{"return", 11}, {"thread-exit", 12}, {"_exit", 13}, {"quick_exit", 14},
        {"static-destructor", 15}, {"atexit", 16}, {"running-thread", 17}, {"thread-end", 18}};
    for (auto w : ways) {
        std::fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) {
            alarm(60);
            execl("/proc/self/exe", argv[0], w.name, static_cast<char *>(nullptr));
            _exit(127);
        }
        int status = 0;
        REQUIRE(pid > 0 && waitpid(pid, &status, 0) == pid);
        if (!WIFEXITED(status)) fail("%s: ended by signal %d", w.name, WTERMSIG(status));
        std::printf("%s: exit code %d\n", w.name, WEXITSTATUS(status));
        if (WEXITSTATUS(status) != w.code) fail("%s: exit code %d, expected %d", w.name, WEXITSTATUS(status), w.code);
    }
    return pass();
}
