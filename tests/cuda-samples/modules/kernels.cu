// The device code of driverModule and driverLibrary: compiled to PTX, to a cubin and to a fat binary, embedded in the
// programs and loaded by the driver API. extern "C", so that the names are known.

extern "C" __constant__ int offset = 7;
extern "C" __device__ int calls = 0;

extern "C" __global__ void add(const int *a, const int *b, int *c, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) c[i] = a[i] + b[i] + offset;
    if (i == 0) atomicAdd(&calls, 1);
}

// Parameters of mixed size and alignment.
struct Pair {
    char tag;
    double value;
};

extern "C" __global__ void mixed(char a, double b, short c, Pair pair, float d, long long *out) {
    out[0] = a;
    out[1] = static_cast<long long>(b * 4);
    out[2] = c;
    out[3] = pair.tag;
    out[4] = static_cast<long long>(pair.value * 8);
    out[5] = static_cast<long long>(d * 16);
}

// Shared memory given at launch: reverses a block.
extern "C" __global__ void reverse(int *data) {
    extern __shared__ int buffer[];
    buffer[threadIdx.x] = data[threadIdx.x];
    __syncthreads();
    data[threadIdx.x] = buffer[blockDim.x - 1 - threadIdx.x];
}
