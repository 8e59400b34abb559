// For programs that print what every call answers, one line each: `name: code`. Not every device can do everything, so no
// answer is a failure in itself; equal lines directly and remoted are the proof.
//
// Functions are found by the name that libcuda exports: cuda.h hides the older forms behind macros.
#pragma once

#include <csetjmp>
#include <csignal>
#include <string>
#include <vector>

#include <dlfcn.h>

#include <cuda.h>

#include "common.h"

inline sigjmp_buf before_call;
inline void crashed(int) { siglongjmp(before_call, 1); }

// One call. The line is out before the next call is made; a driver that does not survive it says so.
#define TELL(name, call)                                                             \
    do {                                                                             \
        if (sigsetjmp(before_call, 1) == 0)                                          \
            std::printf("%s: %d\n", name, static_cast<int>(call));                   \
        else                                                                         \
            std::printf("%s: crash\n", name);                                        \
        std::fflush(stdout);                                                         \
    } while (0)

inline void survive_crashes() {
    std::signal(SIGSEGV, crashed);
    std::signal(SIGABRT, crashed);
}

// Calls the exported function of a name. The arguments have exactly the types of its C signature.
template <typename... Arguments>
CUresult call(const char *name, Arguments... arguments) {
    auto function = reinterpret_cast<CUresult (*)(Arguments...)>(dlsym(RTLD_DEFAULT, name));
    if (!function) fail("libcuda exports no %s", name);
    return function(arguments...);
}

// Calls it and tells.
#define ROW(name, ...) TELL(name, call(name, ##__VA_ARGS__))

// Rows of something that this device does not have: they are called and must come back, whatever they say.
inline bool quiet = false;

// Calls a row and tells, unless its subject is not there.
#define MAYBE(name, ...)                                                             \
    do {                                                                             \
        if (!quiet)                                                                  \
            ROW(name, ##__VA_ARGS__);                                                \
        else if (sigsetjmp(before_call, 1) == 0)                                     \
            static_cast<void>(call(name, ##__VA_ARGS__));                            \
    } while (0)

// A device, a context of its own and the module of modules/kernels.cu.
struct Setting {
    CUdevice device;
    CUcontext context;
    CUmodule module;
    CUfunction add, mixed;

    explicit Setting(const void *image) {
        survive_crashes();
        CHECK_DRIVER(cuInit(0));
        CHECK_DRIVER(cuDeviceGet(&device, 0));
        CHECK_DRIVER(cuCtxCreate(&context, nullptr, 0, device));
        CHECK_DRIVER(cuModuleLoadData(&module, image));
        CHECK_DRIVER(cuModuleGetFunction(&add, module, "add"));
        CHECK_DRIVER(cuModuleGetFunction(&mixed, module, "mixed"));
    }
};
