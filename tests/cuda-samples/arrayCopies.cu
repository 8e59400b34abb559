// Proves copies between every pair of places that know rows or planes: arrays, pitched and linear device memory,
// pageable and pinned host memory, with offsets on both sides, larger than any transfer buffer, asynchronous in streams,
// between devices' memories, and in batches.
#include <vector>

#include "common.h"

using Bytes = std::vector<unsigned char>;

static Bytes noise(size_t size, uint64_t seed) {
    Random random(seed);
    Bytes bytes(size);
    for (auto &byte : bytes) byte = static_cast<unsigned char>(random.bits());
    return bytes;
}

__global__ void invert(unsigned char *data, size_t pitch, int width, int height) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y;
    if (x < width && y < height) data[y * pitch + x] ^= 0xff;
}

// A box of `extent` from one volume of bytes to another, on the host.
static void reference(Bytes &to, cudaPos at_to, cudaExtent whole_to, const Bytes &from, cudaPos at_from, cudaExtent whole_from, cudaExtent extent) {
    for (size_t z = 0; z < extent.depth; ++z)
        for (size_t y = 0; y < extent.height; ++y)
            for (size_t x = 0; x < extent.width; ++x)
                to[((at_to.z + z) * whole_to.height + at_to.y + y) * whole_to.width + at_to.x + x] =
                    from[((at_from.z + z) * whole_from.height + at_from.y + y) * whole_from.width + at_from.x + x];
}

enum Place { kHost, kPinned, kLinear, kArray };
static const char *const names[] = {"host", "pinned", "linear", "array"};

// A volume of bytes in one of the places.
struct Volume {
    Place place;
    cudaExtent size;
    Bytes host;
    cudaPitchedPtr pointer = {};
    cudaArray_t array = nullptr;

    Volume(Place place, cudaExtent size, const Bytes &contents) : place(place), size(size) {
        if (place == kHost) {
            host = contents;
            pointer = make_cudaPitchedPtr(host.data(), size.width, size.width, size.height);
        } else if (place == kPinned) {
            void *memory;
            CHECK(cudaMallocHost(&memory, contents.size()));
            std::memcpy(memory, contents.data(), contents.size());
            pointer = make_cudaPitchedPtr(memory, size.width, size.width, size.height);
        } else {
            if (place == kLinear) {
                CHECK(cudaMalloc3D(&pointer, size));
            } else {
                cudaChannelFormatDesc format = cudaCreateChannelDesc<unsigned char>();
                CHECK(cudaMalloc3DArray(&array, &format, size));
            }
            move(const_cast<unsigned char *>(contents.data()), true);
        }
    }

    void move(unsigned char *bytes, bool in) {
        cudaMemcpy3DParms copy = {};
        cudaPitchedPtr packed = make_cudaPitchedPtr(bytes, size.width, size.width, size.height);
        copy.extent = size;
        if (in) {
            copy.srcPtr = packed;
            copy.dstPtr = pointer;
            copy.dstArray = array;
            copy.kind = cudaMemcpyHostToDevice;
        } else {
            copy.dstPtr = packed;
            copy.srcPtr = pointer;
            copy.srcArray = array;
            copy.kind = cudaMemcpyDeviceToHost;
        }
        CHECK(cudaMemcpy3D(&copy));
    }

    Bytes contents() {
        Bytes bytes(size.width * size.height * size.depth);
        if (place == kHost || place == kPinned)
            std::memcpy(bytes.data(), pointer.ptr, bytes.size());
        else
            move(bytes.data(), false);
        return bytes;
    }

    ~Volume() {
        if (place == kPinned) CHECK(cudaFreeHost(pointer.ptr));
        if (place == kLinear) CHECK(cudaFree(pointer.ptr));
        if (place == kArray) CHECK(cudaFreeArray(array));
    }
};

static void every_pair() {
    cudaExtent size_to = make_cudaExtent(61, 17, 9), size_from = make_cudaExtent(80, 11, 12), extent = make_cudaExtent(33, 7, 5);
    cudaPos at_to = make_cudaPos(20, 9, 3), at_from = make_cudaPos(41, 2, 6);
    cudaStream_t stream;
    CHECK(cudaStreamCreate(&stream));
    for (Place to_place : {kHost, kPinned, kLinear, kArray})
        for (Place from_place : {kHost, kPinned, kLinear, kArray})
            for (bool asynchronous : {false, true}) {
                Bytes before = noise(61 * 17 * 9, 1), source = noise(80 * 11 * 12, 2), want = before;
                reference(want, at_to, size_to, source, at_from, size_from, extent);
                Volume to(to_place, size_to, before), from(from_place, size_from, source);
                cudaMemcpy3DParms copy = {};
                copy.srcPtr = from.pointer;
                copy.srcArray = from.array;
                copy.srcPos = at_from;
                copy.dstPtr = to.pointer;
                copy.dstArray = to.array;
                copy.dstPos = at_to;
                copy.extent = extent;
                copy.kind = cudaMemcpyDefault;
                CHECK(asynchronous ? cudaMemcpy3DAsync(&copy, stream) : cudaMemcpy3D(&copy));
                if (asynchronous) CHECK(cudaStreamSynchronize(stream));
                if (to.contents() != want) fail("%s to %s%s went wrong", names[from_place], names[to_place], asynchronous ? ", asynchronously" : "");
            }
    CHECK(cudaStreamDestroy(stream));
    std::printf("boxes between every two places\n");
}

static void large() {
    // Rows of a size that is no multiple of anything, 9 MB, and one row of 3 MB.
    cudaExtent size = make_cudaExtent(30011, 300, 1), extent = make_cudaExtent(29999, 299, 1);
    Bytes image = noise(size.width * size.height, 3), back(image.size(), 0), want(image.size(), 0);
    Volume plane(kLinear, size, Bytes(image.size(), 0));
    CHECK(cudaMemcpy2D(plane.pointer.ptr, plane.pointer.pitch, image.data() + 7, size.width, extent.width, extent.height, cudaMemcpyHostToDevice));
    invert<<<dim3(divide_up(30011, 128), 300), 128>>>(static_cast<unsigned char *>(plane.pointer.ptr), plane.pointer.pitch, 29999, 299);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy2D(back.data() + 5, size.width, plane.pointer.ptr, plane.pointer.pitch, extent.width, extent.height, cudaMemcpyDeviceToHost));
    for (size_t y = 0; y < extent.height; ++y)
        for (size_t x = 0; x < extent.width; ++x) want[y * size.width + x + 5] = image[y * size.width + x + 7] ^ 0xff;
    REQUIRE(back == want);

    const size_t long_row = 3000001;
    unsigned char *line;
    CHECK(cudaMalloc(&line, 2 * (long_row + 7)));
    Bytes rows = noise(2 * long_row, 4), again(2 * long_row);
    CHECK(cudaMemcpy2D(line, long_row + 7, rows.data(), long_row, long_row, 2, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy2D(again.data(), long_row, line, long_row + 7, long_row, 2, cudaMemcpyDeviceToHost));
    REQUIRE(rows == again);
    CHECK(cudaFree(line));

    // An array of 4 MB, pinned on one side.
    cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
    cudaArray_t array;
    float *pinned;
    const size_t w = 1000, h = 1001;
    CHECK(cudaMallocArray(&array, &format, w, h));
    CHECK(cudaMallocHost(&pinned, w * h * 4));
    std::vector<float> texels(w * h);
    for (size_t i = 0; i < w * h; ++i) pinned[i] = static_cast<float>(i);
    cudaStream_t stream;
    CHECK(cudaStreamCreate(&stream));
    CHECK(cudaMemcpy2DToArrayAsync(array, 0, 0, pinned, w * 4, w * 4, h, cudaMemcpyHostToDevice, stream));
    CHECK(cudaMemcpy2DFromArrayAsync(texels.data(), w * 4, array, 0, 0, w * 4, h, cudaMemcpyDeviceToHost, stream));
    CHECK(cudaStreamSynchronize(stream));
    for (size_t i = 0; i < w * h; ++i) REQUIRE(texels[i] == static_cast<float>(i));
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFreeHost(pinned));
    CHECK(cudaFreeArray(array));
    std::printf("large ones\n");
}

static void order() {
    // Host memory that work in the stream still writes: a copy must read it when its turn comes.
    const int width = 64, height = 32;
    unsigned char *device, *pinned;
    size_t pitch;
    CHECK(cudaMallocPitch(&device, &pitch, width, height));
    CHECK(cudaMallocHost(&pinned, width * height));
    cudaStream_t stream;
    CHECK(cudaStreamCreate(&stream));
    Bytes start = noise(width * height, 5), back(width * height);
    CHECK(cudaMemcpy2DAsync(device, pitch, start.data(), width, width, height, cudaMemcpyHostToDevice, stream));
    for (int round = 0; round < 20; ++round) {
        invert<<<dim3(1, height), width, 0, stream>>>(device, pitch, width, height);
        CHECK_LAUNCH();
        CHECK(cudaMemcpy2DAsync(pinned, width, device, pitch, width, height, cudaMemcpyDeviceToHost, stream));
        invert<<<dim3(1, height), width, 0, stream>>>(device, pitch, width, height);
        CHECK_LAUNCH();
        CHECK(cudaMemcpy2DAsync(device, pitch, pinned, width, width, height, cudaMemcpyHostToDevice, stream));
    }
    CHECK(cudaMemcpy2DAsync(back.data(), width, device, pitch, width, height, cudaMemcpyDeviceToHost, stream));
    CHECK(cudaStreamSynchronize(stream));
    // Each round ends with what the round's first inversion gave: an even number of them.
    REQUIRE(back == start);
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFreeHost(pinned));
    CHECK(cudaFree(device));
    std::printf("in the order of the stream\n");
}

static void arrays() {
    cudaChannelFormatDesc format = cudaCreateChannelDesc<float2>();
    cudaArray_t a, b;
    std::vector<float2> texels(40 * 30), got(40 * 30);
    for (size_t i = 0; i < texels.size(); ++i) texels[i] = make_float2(static_cast<float>(i), -static_cast<float>(i));
    CHECK(cudaMallocArray(&a, &format, 40, 30));
    CHECK(cudaMallocArray(&b, &format, 25, 20));
    CHECK(cudaMemcpy2DToArray(a, 0, 0, texels.data(), 320, 320, 30, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy2DArrayToArray(b, 16, 3, a, 40, 7, 15 * 8, 11, cudaMemcpyDeviceToDevice));
    CHECK(cudaMemcpy2DFromArray(got.data(), 320, b, 16, 3, 15 * 8, 11, cudaMemcpyDeviceToHost));
    for (int y = 0; y < 11; ++y)
        for (int x = 0; x < 15; ++x) REQUIRE(got[y * 40 + x].x == texels[(y + 7) * 40 + x + 5].x && got[y * 40 + x].y == texels[(y + 7) * 40 + x + 5].y);
    cudaError_t error = cudaMemcpy2DToArray(b, 16, 3, texels.data(), 320, 24 * 8, 11, cudaMemcpyHostToDevice);
    std::printf("beyond an array's end: %s\n", cudaGetErrorName(error));
    REQUIRE(error == cudaErrorInvalidValue);
    cudaGetLastError();
    CHECK(cudaFreeArray(a));
    CHECK(cudaFreeArray(b));

    cudaExtent size = make_cudaExtent(31, 13, 7);
    Volume to(kLinear, size, noise(31 * 13 * 7, 6)), from(kLinear, size, noise(31 * 13 * 7, 7));
    cudaMemcpy3DPeerParms peers = {};
    peers.srcPtr = from.pointer;
    peers.dstPtr = to.pointer;
    peers.extent = size;
    CHECK(cudaMemcpy3DPeer(&peers));
    CHECK(cudaDeviceSynchronize());
    REQUIRE(to.contents() == from.contents());
    std::printf("arrays and peers\n");
}

static void batches() {
    cudaStream_t stream;
    CHECK(cudaStreamCreate(&stream));
    const int count = 5;
    std::vector<Bytes> sources, targets;
    unsigned char *device[count];
    std::vector<void *> to, back;
    std::vector<const void *> from, from_device;
    std::vector<size_t> sizes;
    for (int i = 0; i < count; ++i) {
        sizes.push_back(100 + 40000 * i);
        sources.push_back(noise(sizes[i], 10 + i));
        targets.emplace_back(sizes[i]);
        CHECK(cudaMalloc(&device[i], sizes[i]));
    }
    for (int i = 0; i < count; ++i) {
        to.push_back(device[i]);
        from.push_back(sources[i].data());
        back.push_back(targets[i].data());
        from_device.push_back(device[i]);
    }
    cudaMemcpyAttributes attributes = {};
    attributes.srcAccessOrder = cudaMemcpySrcAccessOrderStream;
    size_t start = 0;
    CHECK(cudaMemcpyBatchAsync(to.data(), from.data(), sizes.data(), count, &attributes, &start, 1, stream));
    CHECK(cudaMemcpyBatchAsync(back.data(), from_device.data(), sizes.data(), count, &attributes, &start, 1, stream));
    CHECK(cudaStreamSynchronize(stream));
    for (int i = 0; i < count; ++i) REQUIRE(sources[i] == targets[i]);
    start = 1;
    cudaError_t error = cudaMemcpyBatchAsync(to.data(), from.data(), sizes.data(), count, &attributes, &start, 1, stream);
    std::printf("attributes that do not begin at the first copy: %s\n", cudaGetErrorName(error));
    REQUIRE(error == cudaErrorInvalidValue);
    cudaGetLastError();
    for (int i = 0; i < count; ++i) CHECK(cudaFree(device[i]));

    // Boxes: host to array, array to host, counted in elements.
    cudaChannelFormatDesc format = cudaCreateChannelDesc<int>();
    cudaArray_t array;
    CHECK(cudaMalloc3DArray(&array, &format, make_cudaExtent(20, 10, 5)));
    std::vector<int> box(12 * 6 * 3), got(12 * 6 * 3, -1);
    for (size_t i = 0; i < box.size(); ++i) box[i] = static_cast<int>(i * i);
    auto copy = [&](bool in) {
        cudaMemcpy3DBatchOp op = {};
        cudaMemcpy3DOperand host = {}, device = {};
        host.type = cudaMemcpyOperandTypePointer;
        host.op.ptr.ptr = in ? box.data() : got.data();
        device.type = cudaMemcpyOperandTypeArray;
        device.op.array.array = array;
        device.op.array.offset = {5, 3, 1};
        op.src = in ? host : device;
        op.dst = in ? device : host;
        op.extent = make_cudaExtent(12, 6, 3);
        op.srcAccessOrder = cudaMemcpySrcAccessOrderStream;
        CHECK(cudaMemcpy3DBatchAsync(1, &op, 0, stream));
    };
    copy(true);
    copy(false);
    CHECK(cudaStreamSynchronize(stream));
    REQUIRE(got == box);
    CHECK(cudaFreeArray(array));
    CHECK(cudaStreamDestroy(stream));
    std::printf("batches\n");
}

int main() {
    every_pair();
    large();
    order();
    arrays();
    batches();
    return pass();
}
