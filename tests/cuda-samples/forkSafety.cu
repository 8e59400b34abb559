// Proves fork: a child made before CUDA starts is a program of its own; a child made after it can do nothing with CUDA
// (cudaErrorInitializationError), may leave by exit() and _exit(), and the parent goes on unharmed.
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

__global__ void fill(int *data, int value) { data[threadIdx.x] = value; }

void use(int value) {
    int *data, host[32];
    CHECK(cudaMalloc(&data, sizeof(host)));
    fill<<<1, 32>>>(data, value);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(host, data, sizeof(host), cudaMemcpyDeviceToHost));
    for (int x : host) REQUIRE(x == value);
    CHECK(cudaFree(data));
}

template <typename F>
void in_child(const char *what, int want, F child) {
    std::fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60);
        child();
    }
    int status = 0;
    REQUIRE(pid > 0 && waitpid(pid, &status, 0) == pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != want)
        fail("%s: exit code %d, signal %d", what, WIFEXITED(status) ? WEXITSTATUS(status) : -1, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    std::printf("%s\n", what);
}

int main() {
    in_child("forked before CUDA starts: the child uses CUDA", 21, [] {
        use(1);
        std::exit(21);
    });
    use(2);
    int *kept;
    cudaStream_t stream;
    CHECK(cudaMalloc(&kept, 128));
    CHECK(cudaStreamCreate(&stream));
    fill<<<1, 32, 0, stream>>>(kept, 5);
    CHECK_LAUNCH();
    in_child("forked after: calls are refused, _exit", 22, [&] {
        void *data;
        cudaError_t error = cudaMalloc(&data, 16);
        bool refused = error == cudaErrorInitializationError;
        _exit(refused && cudaStreamSynchronize(stream) != cudaSuccess ? 22 : 99);
    });
    in_child("forked after: nothing called, _exit", 23, [] { _exit(23); });
    int host[32];
    CHECK(cudaMemcpyAsync(host, kept, sizeof(host), cudaMemcpyDeviceToHost, stream));
    CHECK(cudaStreamSynchronize(stream));
    for (int x : host) REQUIRE(x == 5);
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(kept));
    use(3);
    std::printf("the parent goes on\n");
    return pass();
}
