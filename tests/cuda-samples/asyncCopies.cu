// Proves asynchronous copies from and to pinned memory on several streams (copy in, kernel, copy out overlapping in
// chunks), from pageable memory, device to device, and that the host may overwrite pageable memory at once.
#include <vector>

#include "common.h"

__global__ void invert(unsigned *data, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) data[i] = ~data[i];
}

int main() {
    const int chunks = 8, chunk = 8192, streams = 3, count = chunks * chunk;
    size_t chunk_size = chunk * sizeof(unsigned), size = count * sizeof(unsigned);
    unsigned *in, *out, *device, *other;
    CHECK(cudaMallocHost(&in, size));
    CHECK(cudaHostAlloc(&out, size, cudaHostAllocDefault));
    CHECK(cudaMalloc(&device, size));
    CHECK(cudaMalloc(&other, size));
    Random random(6);
    for (int i = 0; i < count; ++i) in[i] = random.bits();
    std::memset(out, 0, size);
    cudaStream_t stream[streams];
    for (cudaStream_t &s : stream) CHECK(cudaStreamCreate(&s));

    for (int c = 0; c < chunks; ++c) {
        cudaStream_t s = stream[c % streams];
        unsigned *part = device + c * chunk;
        CHECK(cudaMemcpyAsync(part, in + c * chunk, chunk_size, cudaMemcpyHostToDevice, s));
        invert<<<chunk / 256, 256, 0, s>>>(part, chunk);
        CHECK_LAUNCH();
        CHECK(cudaMemcpyAsync(out + c * chunk, part, chunk_size, cudaMemcpyDeviceToHost, s));
    }
    for (cudaStream_t s : stream) CHECK(cudaStreamSynchronize(s));
    for (int i = 0; i < count; ++i)
        if (out[i] != ~in[i]) fail("out[%d] is %08x, expected %08x", i, out[i], ~in[i]);
    std::printf("pinned: %d chunks on %d streams, checksum %016llx\n", chunks, streams,
                static_cast<unsigned long long>(checksum(out, size)));

    // Device to device within one stream, with the kind named and with cudaMemcpyDefault.
    CHECK(cudaMemcpyAsync(other, device, size / 2, cudaMemcpyDeviceToDevice, stream[0]));
    CHECK(cudaMemcpyAsync(other + count / 2, device + count / 2, size / 2, cudaMemcpyDefault, stream[0]));
    std::memset(out, 0, size);
    CHECK(cudaMemcpyAsync(out, other, size, cudaMemcpyDefault, stream[0]));
    CHECK(cudaStreamSynchronize(stream[0]));
    for (int i = 0; i < count; ++i)
        if (out[i] != ~in[i]) fail("device to device: out[%d] is %08x, expected %08x", i, out[i], ~in[i]);

    // From pageable memory the call has read its source when it returns: the source is overwritten at once.
    std::vector<unsigned> pageable(count);
    for (int round = 0; round < 4; ++round) {
        int from = round * (count / 4);
        for (int i = 0; i < count / 4; ++i) pageable[i] = round * 1000003u + i;
        CHECK(cudaMemcpyAsync(device + from, pageable.data(), size / 4, cudaMemcpyHostToDevice, stream[1]));
        std::memset(pageable.data(), 0xee, size / 4);
    }
    CHECK(cudaStreamSynchronize(stream[1]));
    CHECK(cudaMemcpy(pageable.data(), device, size, cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; ++i) {
        unsigned want = i / (count / 4) * 1000003u + i % (count / 4);
        if (pageable[i] != want) fail("pageable: element %d is %u, expected %u", i, pageable[i], want);
    }
    // To pageable memory the call returns when the data is there.
    std::vector<unsigned> back(count, 0);
    CHECK(cudaMemcpyAsync(back.data(), device, size, cudaMemcpyDeviceToHost, stream[2]));
    CHECK(cudaStreamSynchronize(stream[2]));
    REQUIRE(back == pageable);
    std::printf("pageable: checksum %016llx\n", static_cast<unsigned long long>(checksum(back.data(), size)));

    // Copies of no bytes are allowed, one byte at an odd address too.
    CHECK(cudaMemcpyAsync(device, in, 0, cudaMemcpyHostToDevice, stream[0]));
    unsigned char byte = 0x5a, read = 0;
    unsigned char *odd = reinterpret_cast<unsigned char *>(device) + 3;
    CHECK(cudaMemcpy(odd, &byte, 1, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(&read, odd, 1, cudaMemcpyDeviceToHost));
    REQUIRE(read == byte);

    for (cudaStream_t s : stream) CHECK(cudaStreamDestroy(s));
    CHECK(cudaFreeHost(in));
    CHECK(cudaFreeHost(out));
    CHECK(cudaFree(device));
    CHECK(cudaFree(other));
    return pass();
}
