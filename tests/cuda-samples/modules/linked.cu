// The half of jitLink that is machine code: compiled to a relocatable cubin and linked by the driver.

extern "C" __device__ int helper(int value) { return value * value + 1; }
