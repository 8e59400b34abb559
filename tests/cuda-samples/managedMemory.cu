// Proves managed memory: one pointer for host and device, first touched by either, changed by both in turn, linked
// structures with pointers inside, copies by address and attributes. The host touches it only after
// synchronising, which every device allows.
#include <vector>

#include "common.h"

struct Node {
    int value;
    Node *next;
};

__global__ void increment(int *data, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) data[i] += i;
}

__global__ void walk(Node *node, int *sum) {
    *sum = 0;
    for (; node; node = node->next) {
        *sum += node->value;
        node->value = -node->value;
    }
}

int main() {
    int managed = 0;
    CHECK(cudaDeviceGetAttribute(&managed, cudaDevAttrManagedMemory, 0));
    if (!managed) {
        std::printf("waived: the device has no managed memory\n");
        return 2;
    }
    const int count = 40000;
    int *data;
    CHECK(cudaMallocManaged(&data, count * sizeof(int)));
    for (int i = 0; i < count; ++i) data[i] = 2 * i;
    for (int round = 1; round <= 3; ++round) {
        increment<<<divide_up(count, 256), 256>>>(data, count);
        CHECK_LAUNCH();
        CHECK(cudaDeviceSynchronize());
        for (int i = 0; i < count; ++i) REQUIRE(data[i] == (2 + round) * i + (i % 7 ? 0 : 1000 * (round - 1)));
        // The host changes every seventh element between the launches.
        for (int i = 0; i < count; i += 7) data[i] += 1000;
    }
    std::printf("host and device in turn\n");
    cudaPointerAttributes attributes;
    CHECK(cudaPointerGetAttributes(&attributes, data + 3));
    REQUIRE(attributes.type == cudaMemoryTypeManaged && attributes.hostPointer == data + 3 && attributes.devicePointer == data + 3);
    // Copies by address, either way.
    std::vector<int> host(count);
    CHECK(cudaMemcpy(host.data(), data, count * sizeof(int), cudaMemcpyDefault));
    REQUIRE(host[1] == 5 && host[7] == data[7]);
    CHECK(cudaMemset(data, 0, count * sizeof(int)));
    CHECK(cudaDeviceSynchronize());
    REQUIRE(data[count - 1] == 0);
    // Copies that name their direction: managed memory may be the device's end, and the host's.
    for (int i = 0; i < count; ++i) host[i] = 3 * i;
    CHECK(cudaMemcpy(data, host.data(), count * sizeof(int), cudaMemcpyHostToDevice));
    increment<<<divide_up(count, 256), 256>>>(data, count);
    CHECK_LAUNCH();
    std::vector<int> back(count);
    CHECK(cudaMemcpy(back.data(), data, count * sizeof(int), cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; ++i) REQUIRE(back[i] == 4 * i);
    cudaStream_t stream;
    CHECK(cudaStreamCreate(&stream));
    int *locked;
    CHECK(cudaMallocHost(&locked, count * sizeof(int)));
    increment<<<divide_up(count, 256), 256, 0, stream>>>(data, count);
    CHECK(cudaMemcpyAsync(locked, data, count * sizeof(int), cudaMemcpyDeviceToHost, stream));
    CHECK(cudaMemcpyAsync(data, host.data(), 2 * sizeof(int), cudaMemcpyHostToDevice, stream));
    CHECK(cudaStreamSynchronize(stream));
    for (int i = 0; i < count; ++i) REQUIRE(locked[i] == 5 * i);
    REQUIRE(data[1] == 3 && data[2] == 10);
    CHECK(cudaFreeHost(locked));
    CHECK(cudaStreamDestroy(stream));
    std::printf("copies with a direction\n");
    CHECK(cudaFree(data));

    const int nodes = 50;
    Node *head = nullptr;
    int *sum;
    CHECK(cudaMallocManaged(&sum, sizeof(int)));
    for (int i = 1; i <= nodes; ++i) {
        Node *node;
        CHECK(cudaMallocManaged(&node, sizeof(Node)));
        node->value = i;
        node->next = head;
        head = node;
    }
    walk<<<1, 1>>>(head, sum);
    CHECK_LAUNCH();
    CHECK(cudaDeviceSynchronize());
    REQUIRE(*sum == nodes * (nodes + 1) / 2);
    for (int i = nodes; head; --i) {
        REQUIRE(head->value == -i);
        Node *next = head->next;
        CHECK(cudaFree(head));
        head = next;
    }
    CHECK(cudaFree(sum));
    std::printf("a linked list\n");

    return pass();
}
