// Kernels with parameters of every kind that changes how a cubin describes them. Built as README.md says.
struct Large { char bytes[5000]; };
struct __align__(128) Aligned { char bytes[128]; };

extern "C" __global__ void none() {}
extern "C" __global__ void saxpy(float a, const float *x, float *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a * x[i] + y[i];
}
extern "C" __global__ void small(char a, short b, char c, double d) {
    if (d > a + b + c) asm volatile("exit;");
}
extern "C" __global__ void aligned(int *out, Aligned a) { *out = a.bytes[threadIdx.x]; }
extern "C" __global__ void large(int *out, Large a, short b) { *out = a.bytes[threadIdx.x] + b; }
