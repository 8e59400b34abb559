// Proves stream memory operations: values written by a stream and waited for by another, all conditions, 64 bits, a batch,
// order with copies, and the refusal of addresses that are none or not aligned.
#include <vector>

#include <cuda.h>

#include "common.h"

int main() {
    CUdevice device;
    CUcontext context;
    int wide = 0, nor = 0;
    CHECK_DRIVER(cuInit(0));
    CHECK_DRIVER(cuDeviceGet(&device, 0));
    CHECK_DRIVER(cuDeviceGetAttribute(&wide, CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS, device));
    CHECK_DRIVER(cuDeviceGetAttribute(&nor, CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR, device));
    CHECK_DRIVER(cuDevicePrimaryCtxRetain(&context, device));
    CHECK_DRIVER(cuCtxSetCurrent(context));
    CUstream first, second;
    CHECK_DRIVER(cuStreamCreate(&first, CU_STREAM_NON_BLOCKING));
    CHECK_DRIVER(cuStreamCreate(&second, CU_STREAM_NON_BLOCKING));
    const int count = 4096;
    CUdeviceptr flag, data, copy;
    CHECK_DRIVER(cuMemAlloc(&flag, 64));
    CHECK_DRIVER(cuMemAlloc(&data, count * sizeof(int)));
    CHECK_DRIVER(cuMemAlloc(&copy, count * sizeof(int)));
    std::vector<int> host(count);

    // A stream waits for a value that another writes after its work: without the wait the copy would find zeros.
    CHECK_DRIVER(cuMemsetD32(flag, 0, 16));
    CHECK_DRIVER(cuMemsetD32(data, 0, count));
    CHECK_DRIVER(cuCtxSynchronize());
    for (unsigned round = 1; round <= 50; ++round) {
        CHECK_DRIVER(cuStreamWaitValue32(second, flag, round, CU_STREAM_WAIT_VALUE_GEQ));
        CHECK_DRIVER(cuMemcpyDtoDAsync(copy, data, count * sizeof(int), second));
        CHECK_DRIVER(cuStreamWriteValue32(second, flag + 4, round, CU_STREAM_WRITE_VALUE_DEFAULT));
        CHECK_DRIVER(cuMemsetD32Async(data, round, count, first));
        CHECK_DRIVER(cuStreamWriteValue32(first, flag, round, CU_STREAM_WRITE_VALUE_DEFAULT));
        // The first stream's next round must not overwrite what the second still copies.
        CHECK_DRIVER(cuStreamWaitValue32(first, flag + 4, round, CU_STREAM_WAIT_VALUE_EQ));
        CHECK_DRIVER(cuMemcpyDtoHAsync(host.data(), copy, count * sizeof(int), second));
        CHECK_DRIVER(cuStreamSynchronize(second));
        for (int value : host) REQUIRE(value == static_cast<int>(round));
    }
    CHECK_DRIVER(cuStreamSynchronize(first));
    std::printf("50 rounds of waiting\n");

    // Nothing satisfies the condition until this thread writes the value.
    CHECK_DRIVER(cuMemsetD32(flag, 0, 16));
    CHECK_DRIVER(cuCtxSynchronize());
    CHECK_DRIVER(cuStreamWaitValue32(second, flag, 0x10, CU_STREAM_WAIT_VALUE_AND));
    EXPECT_DRIVER(CUDA_ERROR_NOT_READY, cuStreamQuery(second));
    unsigned value = 0x30;
    CHECK_DRIVER(cuMemcpyHtoDAsync(flag, &value, sizeof value, first));
    CHECK_DRIVER(cuStreamSynchronize(second));
    if (nor) {
        CHECK_DRIVER(cuStreamWaitValue32(second, flag, 0xffffffcf, CU_STREAM_WAIT_VALUE_NOR));
        EXPECT_DRIVER(CUDA_ERROR_NOT_READY, cuStreamQuery(second));
        value = 0x10;
        CHECK_DRIVER(cuMemcpyHtoDAsync(flag, &value, sizeof value, first));
        CHECK_DRIVER(cuStreamSynchronize(second));
    }
    std::printf("conditions\n");

    if (wide) {
        unsigned long long large = 0x123456789abcdef0ull;
        CHECK_DRIVER(cuStreamWriteValue64(first, flag + 8, large, CU_STREAM_WRITE_VALUE_DEFAULT));
        CHECK_DRIVER(cuStreamWaitValue64(second, flag + 8, large, CU_STREAM_WAIT_VALUE_EQ));
        unsigned long long read = 0;
        CHECK_DRIVER(cuMemcpyDtoHAsync(&read, flag + 8, sizeof read, second));
        CHECK_DRIVER(cuStreamSynchronize(second));
        REQUIRE(read == large);
    }
    std::printf("64 bits\n");

    CUstreamBatchMemOpParams batch[4] = {};
    batch[0].operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    batch[0].writeValue.address = flag + 16;
    batch[0].writeValue.value = 77;
    batch[1].operation = CU_STREAM_MEM_OP_BARRIER;
    batch[1].memoryBarrier.flags = CU_STREAM_MEMORY_BARRIER_TYPE_GPU;
    batch[2].operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
    batch[2].waitValue.address = flag + 16;
    batch[2].waitValue.value = 77;
    batch[2].waitValue.flags = CU_STREAM_WAIT_VALUE_EQ;
    batch[3].operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    batch[3].writeValue.address = flag + 20;
    batch[3].writeValue.value = 78;
    CHECK_DRIVER(cuStreamBatchMemOp(first, 4, batch, 0));
    unsigned pair[2] = {};
    CHECK_DRIVER(cuMemcpyDtoHAsync(pair, flag + 16, sizeof pair, first));
    CHECK_DRIVER(cuStreamSynchronize(first));
    REQUIRE(pair[0] == 77 && pair[1] == 78);
    std::printf("a batch\n");

    EXPECT_DRIVER(CUDA_ERROR_INVALID_VALUE, cuStreamWriteValue32(first, flag + 2, 1, 0));
    EXPECT_DRIVER(CUDA_ERROR_INVALID_VALUE, cuStreamWriteValue32(first, 0x1000, 1, 0));
    EXPECT_DRIVER(CUDA_ERROR_INVALID_VALUE, cuStreamBatchMemOp(first, 257, batch, 0));
    CHECK_DRIVER(cuStreamDestroy(first));
    CHECK_DRIVER(cuStreamDestroy(second));
    CHECK_DRIVER(cuMemFree(flag));
    CHECK_DRIVER(cuMemFree(data));
    CHECK_DRIVER(cuMemFree(copy));
    CHECK_DRIVER(cuDevicePrimaryCtxRelease(device));
    return pass();
}
