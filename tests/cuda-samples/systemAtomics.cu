// Proves atomics of system scope on managed memory, made by host and kernels at the same time: additions, exchanges,
// compare-and-swap, single bits; in two streams and in a graph. Then what must stay possible beside it: a host that works with
// managed memory while other kernels run, faults of the program's own, host and kernel that wait for each other's words.
//
//   systemAtomics          all of it
//   systemAtomics trap     a kernel that ends in the middle, while the host waits for its words
//   systemAtomics endless  one that never ends: for whoever takes the device away meanwhile
#include <csetjmp>
#include <csignal>
#include <cstring>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

// The host's turn must meet the kernel's, so it waits for its beginning and then does as much.
const int blocks = 2, threads = 32, rounds = 40, kernel_total = blocks * threads * rounds, host_total = 20000;

struct Words {
    unsigned begun;
    unsigned sum;
    unsigned swapped;       // compare-and-swap
    unsigned bits;
    unsigned long long wide;
    unsigned token;         // exchanged: each side adds up what it finds
    unsigned long long found;
};

__global__ void update(Words *words) {
    int thread = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd_system(&words->begun, 1u);
    for (int round = 0; round < rounds; ++round) {
        atomicAdd_system(&words->sum, 1u);
        atomicAdd_system(&words->wide, 3ull);
        unsigned old = *const_cast<volatile unsigned *>(&words->swapped), seen;
        while ((seen = atomicCAS_system(&words->swapped, old, old + 1)) != old) old = seen;
        atomicAdd_system(&words->found, static_cast<unsigned long long>(atomicExch_system(&words->token, 1 + thread)));
    }
    atomicOr_system(&words->bits, 1u << (thread % 16));
}

// What one side has put into `token` altogether.
unsigned long long tokens_of_kernel() {
    unsigned long long sum = 0;
    for (int thread = 0; thread < blocks * threads; ++thread) sum += static_cast<unsigned long long>(1 + thread) * rounds;
    return sum;
}

// The host's turn; what it has found in `token`, and what it has put there.
unsigned long long found_by_host = 0, put_by_host = 0;

void update_on_host(Words *words) {
    while (*const_cast<volatile unsigned *>(&words->begun) == 0) {}
    for (int i = 0; i < host_total; ++i) {
        __sync_fetch_and_add(&words->sum, 1u);
        __sync_fetch_and_add(&words->wide, 3ull);
        unsigned old = words->swapped, seen;
        while ((seen = __sync_val_compare_and_swap(&words->swapped, old, old + 1)) != old) old = seen;
        found_by_host += __atomic_exchange_n(&words->token, 1000u, __ATOMIC_SEQ_CST);
        put_by_host += 1000;
    }
    for (int bit = 16; bit < 32; ++bit) __sync_fetch_and_or(&words->bits, 1u << bit);
}

Words *fresh() {
    Words *words;
    CHECK(cudaMallocManaged(&words, sizeof(Words)));
    std::memset(words, 0, sizeof(Words));
    found_by_host = put_by_host = 0;
    return words;
}

// After both sides: `launches` of the kernel, one turn of the host.
void require_exact(const char *what, Words *words, unsigned launches) {
    REQUIRE(words->begun == launches * blocks * threads);
    unsigned total = launches * kernel_total + host_total;
    if (words->sum != total) fail("%s: the sum is %u, not %u", what, words->sum, total);
    if (words->wide != 3ull * total) fail("%s: the wide sum is %llu, not %llu", what, words->wide, 3ull * total);
    if (words->swapped != total) fail("%s: %u were swapped in, not %u", what, words->swapped, total);
    if (words->bits != ~0u) fail("%s: the bits are %08x", what, words->bits);
    unsigned long long put = launches * tokens_of_kernel() + put_by_host;
    unsigned long long found = words->found + found_by_host + words->token;
    if (put != found) fail("%s: tokens of %llu were put there, %llu found", what, put, found);
    CHECK(cudaFree(words));
    std::printf("%s: exact\n", what);
}

// Runs until the host says so in page-locked memory, and adds to managed memory meanwhile, not atomically.
__global__ void until_told(volatile unsigned *told, volatile unsigned *running, int *data, int count) {
    *running = 1;
    while (*told == 0) {}
    for (int i = threadIdx.x; i < count; i += blockDim.x) data[i] += i;
}

__global__ void handshake(unsigned *beats, volatile unsigned *stop) {
    while (*stop == 0) atomicAdd_system(beats, 1u);
}

__global__ void trap(unsigned *word) {
    atomicAdd_system(word, 1u);
    __threadfence_system();
    __trap();
}

void in_streams() {
    Words *words = fresh();
    update<<<blocks, threads>>>(words);
    CHECK_LAUNCH();
    update_on_host(words);
    CHECK(cudaDeviceSynchronize());
    require_exact("host and kernel", words, 1);

    words = fresh();
    cudaStream_t streams[2];
    for (cudaStream_t &stream : streams) CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (cudaStream_t stream : streams) update<<<blocks, threads, 0, stream>>>(words);
    CHECK_LAUNCH();
    update_on_host(words);
    for (cudaStream_t stream : streams) CHECK(cudaStreamSynchronize(stream));
    require_exact("two streams", words, 2);

    // Many launches behind each other, each of whose parameters lies in managed memory itself.
    words = fresh();
    Words **parameter;
    CHECK(cudaMallocManaged(&parameter, sizeof *parameter));
    for (int i = 0; i < 3; ++i) {
        *parameter = words;
        void *arguments[] = {parameter};
        CHECK(cudaLaunchKernel(reinterpret_cast<void *>(update), dim3(blocks), dim3(threads), arguments, 0, streams[i % 2]));
    }
    update_on_host(words);
    CHECK(cudaDeviceSynchronize());
    require_exact("launch after launch", words, 3);
    CHECK(cudaFree(parameter));

    // One thread launches, another has its turn.
    words = fresh();
    std::thread other(update_on_host, words);
    for (int i = 0; i < 3; ++i) update<<<blocks, threads, 0, streams[i % 2]>>>(words);
    other.join();
    CHECK(cudaDeviceSynchronize());
    require_exact("another thread", words, 3);

    // A host function behind the kernel, and a child that is made while the kernel runs.
    words = fresh();
    update<<<blocks, threads, 0, streams[0]>>>(words);
    CHECK_LAUNCH();
    CHECK(cudaLaunchHostFunc(streams[0], [](void *words) { update_on_host(static_cast<Words *>(words)); }, words));
    pid_t child = fork();
    if (child == 0) _exit(7);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
    CHECK(cudaStreamSynchronize(streams[0]));
    require_exact("a host function", words, 1);
    for (cudaStream_t stream : streams) CHECK(cudaStreamDestroy(stream));
}

void in_graphs() {
    cudaStream_t stream;
    CHECK(cudaStreamCreate(&stream));
    Words *words = fresh();
    cudaGraph_t graph;
    cudaGraphExec_t captured, built;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    update<<<blocks, threads, 0, stream>>>(words);
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&captured, graph, 0));
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaGraphLaunch(captured, stream));
    update_on_host(words);
    CHECK(cudaStreamSynchronize(stream));
    require_exact("a captured graph", words, 1);

    words = fresh();
    void *arguments[] = {&words};
    cudaKernelNodeParams params = {};
    params.func = reinterpret_cast<void *>(update);
    params.gridDim = dim3(blocks);
    params.blockDim = dim3(threads);
    params.kernelParams = arguments;
    cudaGraphNode_t node;
    CHECK(cudaGraphCreate(&graph, 0));
    CHECK(cudaGraphAddKernelNode(&node, graph, nullptr, 0, &params));
    CHECK(cudaGraphInstantiate(&built, graph, 0));
    CHECK(cudaGraphLaunch(built, stream));
    update_on_host(words);
    CHECK(cudaStreamSynchronize(stream));
    require_exact("a graph of nodes", words, 1);
    CHECK(cudaGraphExecDestroy(captured));
    CHECK(cudaGraphExecDestroy(built));
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaStreamDestroy(stream));
}

// A kernel without such atomics leaves managed memory to the host, system calls included.
void beside_others() {
    const int count = 1000;
    unsigned *told, *running;
    int *data, *other;
    CHECK(cudaMallocHost(&told, sizeof *told));
    CHECK(cudaMallocHost(&running, sizeof *running));
    CHECK(cudaMallocManaged(&data, count * sizeof(int)));
    CHECK(cudaMallocManaged(&other, count * sizeof(int)));
    for (int i = 0; i < count; ++i) data[i] = other[i] = i;
    *told = *running = 0;
    until_told<<<1, 32>>>(told, running, data, count);
    CHECK_LAUNCH();
    while (*const_cast<volatile unsigned *>(running) == 0) {}
    for (int i = 0; i < count; ++i) other[i] += i;
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    ssize_t half = count / 2 * sizeof(int);
    REQUIRE(write(ends[1], other, half) == half);
    REQUIRE(read(ends[0], other + count / 2, half) == half);
    close(ends[0]);
    close(ends[1]);
    for (int i = 0; i < count / 2; ++i) REQUIRE(other[i] == 2 * i && other[count / 2 + i] == 2 * i);
    *const_cast<volatile unsigned *>(told) = 1;
    CHECK(cudaDeviceSynchronize());
    for (int i = 0; i < count; ++i) REQUIRE(data[i] == 2 * i);
    CHECK(cudaFree(data));
    CHECK(cudaFree(other));
    CHECK(cudaFreeHost(told));
    CHECK(cudaFreeHost(running));
    std::printf("the host beside a kernel without them\n");
}

sigjmp_buf before_fault;
void *faulted_at;
void on_fault(int, siginfo_t *info, void *) {
    faulted_at = info->si_addr;
    siglongjmp(before_fault, 1);
}

// A fault of the program's own goes to its own handler, wherever rights to managed memory are at the time.
void own_fault() {
    faulted_at = nullptr;
    int *volatile bad = reinterpret_cast<int *>(8);
    if (sigsetjmp(before_fault, 1) == 0) {
        *bad = 1;
        fail("a write to address 8 went through");
    }
    REQUIRE(faulted_at == reinterpret_cast<void *>(8));
}

void own_faults() {
    struct sigaction own = {}, before;
    own.sa_sigaction = on_fault;
    own.sa_flags = SA_SIGINFO;
    REQUIRE(sigaction(SIGSEGV, &own, &before) == 0);
    own_fault();
    Words *words = fresh();
    update<<<blocks, threads>>>(words);
    CHECK_LAUNCH();
    own_fault();
    update_on_host(words);
    own_fault();
    CHECK(cudaDeviceSynchronize());
    require_exact("with a handler of the program's", words, 1);
    REQUIRE(sigaction(SIGSEGV, &before, nullptr) == 0);
    words = fresh();
    update<<<blocks, threads>>>(words);
    CHECK_LAUNCH();
    update_on_host(words);
    CHECK(cudaDeviceSynchronize());
    require_exact("without it again", words, 1);
    std::printf("faults of the program's own\n");
}

// Each waits for the other's word.
void wait_for_each_other() {
    unsigned *words;
    CHECK(cudaMallocManaged(&words, 2 * sizeof(unsigned)));
    words[0] = words[1] = 0;
    handshake<<<1, 1>>>(words, words + 1);
    CHECK_LAUNCH();
    while (*const_cast<volatile unsigned *>(words) == 0) {}
    *const_cast<volatile unsigned *>(words + 1) = 1;
    CHECK(cudaDeviceSynchronize());
    REQUIRE(words[0] > 0);
    CHECK(cudaFree(words));
    std::printf("host and kernel waited for each other\n");
}

// The kernel ends in an error while the host waits for its word, or not at all.
int unfinished(bool endless) {
    unsigned *words;
    CHECK(cudaMallocManaged(&words, 2 * sizeof(unsigned)));
    words[0] = words[1] = 0;
    if (endless)
        handshake<<<1, 1>>>(words, words + 1);
    else
        trap<<<1, 1>>>(words);
    CHECK_LAUNCH();
    std::printf("waiting\n");
    std::fflush(stdout);
    REQUIRE(*const_cast<volatile unsigned *>(words + 1) == 0);
    cudaError_t error = cudaDeviceSynchronize();
    REQUIRE(error != cudaSuccess);
    std::printf("the kernel has failed\n");
    return 0;
}

int main(int argc, char **argv) {
    int managed = 0;
    CHECK(cudaDeviceGetAttribute(&managed, cudaDevAttrManagedMemory, 0));
    if (!managed) {
        std::printf("waived: the device has no managed memory\n");
        return 2;
    }
    if (argc > 1) return unfinished(std::strcmp(argv[1], "endless") == 0);
    in_streams();
    in_graphs();
    beside_others();
    own_faults();
    // Last: what keeps host and kernel apart may end with it.
    wait_for_each_other();
    return pass();
}
