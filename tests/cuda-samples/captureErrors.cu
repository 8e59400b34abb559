// Proves what a capture forbids: each mistake is reported by the call that makes it, ends the capture where the manual says
// so, and leaves the streams usable afterwards.
#include <thread>

#include "common.h"

__global__ void nothing() {}

cudaStream_t stream, blocking;
cudaEvent_t event;

void end_invalid(cudaStream_t which) {
    cudaGraph_t graph = reinterpret_cast<cudaGraph_t>(1);
    EXPECT(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(which, &graph));
    REQUIRE(graph == nullptr);
    (void)cudaGetLastError();
}

void end_valid(cudaStream_t which) {
    cudaGraph_t graph = nullptr;
    CHECK(cudaStreamEndCapture(which, &graph));
    REQUIRE(graph != nullptr);
    CHECK(cudaGraphDestroy(graph));
}

int main() {
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CHECK(cudaStreamCreate(&blocking));
    CHECK(cudaEventCreate(&event));
    nothing<<<1, 1>>>();
    CHECK(cudaDeviceSynchronize());

    // Waiting for a stream that captures.
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    nothing<<<1, 1, 0, stream>>>();
    EXPECT(cudaErrorStreamCaptureUnsupported, cudaStreamSynchronize(stream));
    (void)cudaGetLastError();
    cudaStreamCaptureStatus status;
    CHECK(cudaStreamIsCapturing(stream, &status));
    REQUIRE(status == cudaStreamCaptureStatusInvalidated);
    end_invalid(stream);
    std::printf("synchronising is refused\n");

    // Asking for an event that a capture holds.
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    CHECK(cudaEventRecord(event, stream));
    EXPECT(cudaErrorCapturedEvent, cudaEventQuery(event));
    (void)cudaGetLastError();
    end_invalid(stream);
    std::printf("a captured event cannot be asked\n");

    // Allocating: not in a thread that captures, unless it says that it knows what it does.
    void *memory = nullptr;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    EXPECT(cudaErrorStreamCaptureUnsupported, cudaMalloc(&memory, 1 << 20));
    (void)cudaGetLastError();
    end_invalid(stream);
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    nothing<<<1, 1, 0, stream>>>();
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    CHECK(cudaThreadExchangeStreamCaptureMode(&mode));
    REQUIRE(mode == cudaStreamCaptureModeGlobal);
    CHECK(cudaMalloc(&memory, 1 << 20));
    CHECK(cudaThreadExchangeStreamCaptureMode(&mode));
    REQUIRE(mode == cudaStreamCaptureModeRelaxed);
    end_valid(stream);
    CHECK(cudaFree(memory));
    std::printf("allocating is refused or allowed\n");

    // Another thread may go on with its own work beside a capture of this thread's.
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    nothing<<<1, 1, 0, stream>>>();
    std::thread([] {
        cudaStreamCaptureMode own = cudaStreamCaptureModeThreadLocal;
        CHECK(cudaThreadExchangeStreamCaptureMode(&own));
        void *beside = nullptr;
        CHECK(cudaMalloc(&beside, 1 << 16));
        cudaStream_t mine;
        CHECK(cudaStreamCreateWithFlags(&mine, cudaStreamNonBlocking));
        CHECK(cudaMemsetAsync(beside, 1, 1 << 16, mine));
        CHECK(cudaStreamSynchronize(mine));
        CHECK(cudaStreamDestroy(mine));
        CHECK(cudaFree(beside));
    }).join();
    // A capture ends in the thread that began it; ended by another it is lost.
    std::thread([] {
        cudaGraph_t graph = nullptr;
        EXPECT(cudaErrorStreamCaptureWrongThread, cudaStreamEndCapture(stream, &graph));
        (void)cudaGetLastError();
        REQUIRE(graph == nullptr);
    }).join();
    CHECK(cudaStreamIsCapturing(stream, &status));
    REQUIRE(status == cudaStreamCaptureStatusNone);
    {
        cudaGraph_t graph = reinterpret_cast<cudaGraph_t>(1);
        EXPECT(cudaErrorIllegalState, cudaStreamEndCapture(stream, &graph));
        (void)cudaGetLastError();
        REQUIRE(graph == nullptr);
    }
    // Nobody has to take the graph.
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    nothing<<<1, 1, 0, stream>>>();
    CHECK(cudaStreamEndCapture(stream, nullptr));
    std::printf("threads are told apart\n");

    // The legacy stream waits for a blocking stream, which it cannot while that captures.
    CHECK(cudaStreamBeginCapture(blocking, cudaStreamCaptureModeRelaxed));
    nothing<<<1, 1, 0, blocking>>>();
    EXPECT(cudaErrorStreamCaptureImplicit, cudaStreamIsCapturing(cudaStreamLegacy, &status));
    (void)cudaGetLastError();
    EXPECT(cudaErrorStreamCaptureImplicit, (nothing<<<1, 1>>>(), cudaGetLastError()));
    end_invalid(blocking);
    std::printf("the legacy stream is refused\n");

    // A branch that does not come back.
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    CHECK(cudaEventRecord(event, stream));
    CHECK(cudaStreamWaitEvent(blocking, event, 0));
    nothing<<<1, 1, 0, blocking>>>();
    {
        cudaGraph_t graph = reinterpret_cast<cudaGraph_t>(1);
        EXPECT(cudaErrorStreamCaptureUnjoined, cudaStreamEndCapture(stream, &graph));
        REQUIRE(graph == nullptr);
        (void)cudaGetLastError();
    }
    std::printf("a branch that is not joined is refused\n");

    // The legacy stream cannot be captured, and nothing of this was left behind.
    EXPECT(cudaErrorStreamCaptureUnsupported, cudaStreamBeginCapture(cudaStreamLegacy, cudaStreamCaptureModeRelaxed));
    (void)cudaGetLastError();
    nothing<<<1, 1, 0, stream>>>();
    nothing<<<1, 1, 0, blocking>>>();
    nothing<<<1, 1>>>();
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaStreamIsCapturing(stream, &status));
    REQUIRE(status == cudaStreamCaptureStatusNone);
    return pass();
}
