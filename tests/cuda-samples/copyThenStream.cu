// Proves that what cudaMemcpy has copied is there for work in a stream that does not wait for the default stream, though the
// program waits for nothing in between: small copies (of more the driver itself gives no such promise), beside work that keeps
// the default stream busy.
#include <vector>

#include "common.h"

__global__ void busy(unsigned *sink, int turns) {
    unsigned value = threadIdx.x;
    for (int i = 0; i < turns; ++i) value = value * 1664525u + 1013904223u;
    if (value == 42) *sink = value;
}

__global__ void collect(const int *from, int last, int *out) {
    out[0] = from[0];
    out[1] = from[last];
}

void run(cudaStream_t stream, int count, int rounds, int turns) {
    std::vector<int> source(count), got(2 * rounds);
    int *device, *out;
    unsigned *sink;
    CHECK(cudaMalloc(&device, count * sizeof(int)));
    CHECK(cudaMalloc(&out, 2 * rounds * sizeof(int)));
    CHECK(cudaMalloc(&sink, sizeof(unsigned)));
    for (int round = 0; round < rounds; ++round) {
        source[0] = round;
        source[count - 1] = round;
        if (turns) busy<<<1, 32>>>(sink, turns);
        CHECK(cudaMemcpy(device, source.data(), count * sizeof(int), cudaMemcpyHostToDevice));
        collect<<<1, 1, 0, stream>>>(device, count - 1, out + 2 * round);
        // The next copy overwrites what this launch reads, which is for the program to prevent.
        CHECK(cudaStreamSynchronize(stream));
    }
    CHECK(cudaMemcpy(got.data(), out, got.size() * sizeof(int), cudaMemcpyDeviceToHost));
    for (int i = 0; i < 2 * rounds; ++i)
        if (got[i] != i / 2) fail("%d elements: round %d has read %d", count, i / 2, got[i]);
    std::printf("%d elements%s: %d rounds\n", count, turns ? " beside a busy stream" : "", rounds);
    for (void *one : {static_cast<void *>(device), static_cast<void *>(out), static_cast<void *>(sink)}) CHECK(cudaFree(one));
}

int main() {
    cudaStream_t stream;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (int count : {1, 1000}) {
        run(stream, count, 100, 0);
        run(stream, count, 20, 2000);
    }
    CHECK(cudaStreamDestroy(stream));
    return pass();
}
