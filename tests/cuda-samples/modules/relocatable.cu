// The other translation unit of relocatable.cu.
__constant__ int factor = 3;
__device__ int calls;
__managed__ int table[1000] = {7};

__device__ int scaled(int value) {
    atomicAdd(&calls, 1);
    return value * factor;
}
