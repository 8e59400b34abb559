// Proves what a program can ask about pointers: the kind, device and addresses of device, pinned, registered and
// unregistered memory, pointers into the middle, cudaMemcpyDefault deciding from them, and host flags.
#include <vector>

#include "common.h"

__device__ int symbol[4];

const char *kind(cudaMemoryType type) {
    switch (type) {
    case cudaMemoryTypeUnregistered: return "unregistered";
    case cudaMemoryTypeHost: return "host";
    case cudaMemoryTypeDevice: return "device";
    case cudaMemoryTypeManaged: return "managed";
    default: return "unknown";
    }
}

void expect(const char *what, const void *pointer, cudaMemoryType type) {
    cudaPointerAttributes attributes;
    CHECK(cudaPointerGetAttributes(&attributes, pointer));
    std::printf("%s: %s, device %d, device pointer %s, host pointer %s\n", what, kind(attributes.type), attributes.device,
                attributes.devicePointer == pointer ? "the same" : attributes.devicePointer ? "another" : "none",
                attributes.hostPointer == pointer ? "the same" : attributes.hostPointer ? "another" : "none");
    if (attributes.type != type) fail("%s is %s, expected %s", what, kind(attributes.type), kind(type));
}

int main() {
    const int count = 1024;
    int *device, *pinned, local[4], *pageable = static_cast<int *>(std::malloc(count * sizeof(int)));
    void *address;
    CHECK(cudaMalloc(&device, count * sizeof(int)));
    CHECK(cudaHostAlloc(&pinned, count * sizeof(int), cudaHostAllocPortable));
    CHECK(cudaGetSymbolAddress(&address, symbol));
    expect("cudaMalloc", device, cudaMemoryTypeDevice);
    expect("cudaMalloc, in the middle", device + 100, cudaMemoryTypeDevice);
    expect("symbol", address, cudaMemoryTypeDevice);
    expect("cudaHostAlloc", pinned, cudaMemoryTypeHost);
    expect("cudaHostAlloc, in the middle", pinned + 33, cudaMemoryTypeHost);
    expect("malloc", pageable, cudaMemoryTypeUnregistered);
    expect("stack", local, cudaMemoryTypeUnregistered);
    cudaPointerAttributes attributes;
    std::printf("null: %s\n", cudaGetErrorName(cudaPointerGetAttributes(&attributes, nullptr)));
    cudaGetLastError();

    unsigned flags = 0;
    CHECK(cudaHostGetFlags(&flags, pinned));
    REQUIRE(flags & cudaHostAllocPortable);
    EXPECT(cudaErrorInvalidValue, cudaHostGetFlags(&flags, pageable));
    cudaGetLastError();

    // The direction follows from the pointers.
    for (int i = 0; i < count; ++i) pinned[i] = i * 3;
    CHECK(cudaMemcpy(device, pinned, count * sizeof(int), cudaMemcpyDefault));
    CHECK(cudaMemcpy(pageable, device, count * sizeof(int), cudaMemcpyDefault));
    for (int i = 0; i < count; ++i) REQUIRE(pageable[i] == i * 3);
    std::memset(pinned, 0, count * sizeof(int));
    CHECK(cudaMemcpy(pinned, pageable, count * sizeof(int), cudaMemcpyDefault));
    for (int i = 0; i < count; ++i) REQUIRE(pinned[i] == i * 3);

    CHECK(cudaFree(device));
    CHECK(cudaFreeHost(pinned));
    expect("freed pinned memory", pinned, cudaMemoryTypeUnregistered);
    std::free(pageable);
    return pass();
}
