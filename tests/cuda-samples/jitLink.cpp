// Proves the JIT linker: PTX and a cubin of two translation units linked into one program, the program loaded and run,
// the program's bytes valid until the state is destroyed, options with logs, a file as input, and the errors of a symbol
// that nobody defines and of broken PTX.
#include <string>
#include <vector>

#include <unistd.h>

#include <cuda.h>

#include "common.h"
#include "linked_cubin.h"

// Calls a function of another translation unit.
static const char caller[] = R"(
.version 8.0
.target sm_90
.address_size 64
.extern .func (.param .b32 result) helper (.param .b32 value);
.visible .entry apply(.param .u64 data, .param .u32 count)
{
    .reg .pred %p;
    .reg .b32 %r<8>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [data];
    ld.param.u32 %r1, [count];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p, %r5, %r1;
    @%p bra done;
    cvta.to.global.u64 %rd1, %rd1;
    mul.wide.u32 %rd2, %r5, 4;
    add.u64 %rd3, %rd1, %rd2;
    ld.global.u32 %r6, [%rd3];
    {
        .param .b32 argument;
        .param .b32 answer;
        st.param.b32 [argument], %r6;
        call.uni (answer), helper, (argument);
        ld.param.b32 %r7, [answer];
    }
    st.global.u32 [%rd3], %r7;
done:
    ret;
}
)";

// The same helper as in modules/linked.cu, but ten times as much.
static const char helper[] = R"(
.version 8.0
.target sm_90
.address_size 64
.visible .func (.param .b32 result) helper (.param .b32 value)
{
    .reg .b32 %r<3>;
    ld.param.b32 %r1, [value];
    mul.lo.s32 %r2, %r1, 10;
    st.param.b32 [result], %r2;
    ret;
}
)";

static void run(const char *name, const void *program, int (*expected)(int)) {
    CUmodule module;
    CUfunction apply;
    CHECK_DRIVER(cuModuleLoadData(&module, program));
    CHECK_DRIVER(cuModuleGetFunction(&apply, module, "apply"));
    const int count = 1000;
    std::vector<int> data(count);
    for (int i = 0; i < count; ++i) data[i] = i;
    CUdeviceptr device;
    CHECK_DRIVER(cuMemAlloc(&device, count * sizeof(int)));
    CHECK_DRIVER(cuMemcpyHtoD(device, data.data(), count * sizeof(int)));
    int length = count;
    void *parameters[] = {&device, &length};
    CHECK_DRIVER(cuLaunchKernel(apply, divide_up(count, 128), 1, 1, 128, 1, 1, 0, nullptr, parameters, nullptr));
    CHECK_DRIVER(cuMemcpyDtoH(data.data(), device, count * sizeof(int)));
    for (int i = 0; i < count; ++i) REQUIRE(data[i] == expected(i));
    CHECK_DRIVER(cuMemFree(device));
    CHECK_DRIVER(cuModuleUnload(module));
    std::printf("%s\n", name);
}

int main() {
    CUdevice device;
    CUcontext context;
    CHECK_DRIVER(cuInit(0));
    CHECK_DRIVER(cuDeviceGet(&device, 0));
    CHECK_DRIVER(cuDevicePrimaryCtxRetain(&context, device));
    CHECK_DRIVER(cuCtxSetCurrent(context));

    // Two pieces of PTX.
    CUlinkState state;
    void *program;
    size_t size = 0;
    CHECK_DRIVER(cuLinkCreate(0, nullptr, nullptr, &state));
    CHECK_DRIVER(cuLinkAddData(state, CU_JIT_INPUT_PTX, const_cast<char *>(caller), sizeof caller, "caller.ptx", 0, nullptr, nullptr));
    CHECK_DRIVER(cuLinkAddData(state, CU_JIT_INPUT_PTX, const_cast<char *>(helper), sizeof helper, "helper.ptx", 0, nullptr, nullptr));
    CHECK_DRIVER(cuLinkComplete(state, &program, &size));
    REQUIRE(size > 0);
    run("PTX and PTX", program, [](int i) { return 10 * i; });
    CHECK_DRIVER(cuLinkDestroy(state));

    // PTX and machine code, by way of a file.
    char path[] = "/tmp/linkedXXXXXX";
    int file = mkstemp(path);
    REQUIRE(file >= 0 && write(file, linked_cubin, linked_cubinLength) == static_cast<ssize_t>(linked_cubinLength));
    close(file);
    CHECK_DRIVER(cuLinkCreate(0, nullptr, nullptr, &state));
    CHECK_DRIVER(cuLinkAddData(state, CU_JIT_INPUT_PTX, const_cast<char *>(caller), sizeof caller, nullptr, 0, nullptr, nullptr));
    CUresult added = cuLinkAddFile(state, CU_JIT_INPUT_CUBIN, path, 0, nullptr, nullptr);
    unlink(path);
    if (added == CUDA_SUCCESS) {
        CHECK_DRIVER(cuLinkComplete(state, &program, &size));
        run("PTX and machine code", program, [](int i) { return i * i + 1; });
    } else {
        // A software device has no use for machine code, and says so.
        REQUIRE(added == CUDA_ERROR_NO_BINARY_FOR_GPU);
        std::printf("PTX and machine code\n");
    }
    CHECK_DRIVER(cuLinkDestroy(state));
    EXPECT_DRIVER(CUDA_ERROR_FILE_NOT_FOUND, [&] {
        CHECK_DRIVER(cuLinkCreate(0, nullptr, nullptr, &state));
        CUresult result = cuLinkAddFile(state, CU_JIT_INPUT_PTX, "/nonexistent/file", 0, nullptr, nullptr);
        CHECK_DRIVER(cuLinkDestroy(state));
        return result;
    }());

    // A symbol that nobody defines: the error log names it.
    std::vector<char> errors(4096), info(4096);
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES, CU_JIT_INFO_LOG_BUFFER,
                              CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES, CU_JIT_LOG_VERBOSE};
    void *values[] = {errors.data(), reinterpret_cast<void *>(errors.size()), info.data(),
                      reinterpret_cast<void *>(info.size()), reinterpret_cast<void *>(1)};
    CHECK_DRIVER(cuLinkCreate(5, options, values, &state));
    CHECK_DRIVER(cuLinkAddData(state, CU_JIT_INPUT_PTX, const_cast<char *>(caller), sizeof caller, "alone", 0, nullptr, nullptr));
    CUresult result = cuLinkComplete(state, &program, &size);
    REQUIRE(result != CUDA_SUCCESS);
    REQUIRE(std::strstr(errors.data(), "helper") != nullptr);
    CHECK_DRIVER(cuLinkDestroy(state));
    std::printf("an undefined symbol is named\n");

    static const char broken[] = ".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry k( { ret }\n";
    CHECK_DRIVER(cuLinkCreate(0, nullptr, nullptr, &state));
    EXPECT_DRIVER(CUDA_ERROR_INVALID_PTX,
                  cuLinkAddData(state, CU_JIT_INPUT_PTX, const_cast<char *>(broken), sizeof broken, "broken", 0, nullptr, nullptr));
    CHECK_DRIVER(cuLinkDestroy(state));
    std::printf("broken PTX\n");
    CHECK_DRIVER(cuDevicePrimaryCtxRelease(device));
    return pass();
}
