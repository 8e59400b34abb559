// Proves that a program which holds kernels but never calls CUDA needs no device: with the driver library preloaded
// it must not connect anywhere, must print the same and must end at once, with its own exit code.
#include "common.h"

__global__ void never_launched(int *data) { *data = 1; }

int main(int argc, char **) {
    if (argc > 1000) never_launched<<<1, 1>>>(nullptr);
    std::printf("no CUDA call was made\n");
    return pass();
}
