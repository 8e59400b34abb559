//! CUDA C out: a complete program that nvcc compiles, to read, to measure and to build on.
//!
//! The program makes its inputs by a fixed rule, runs each kernel, checks what came out, and times it. Kernels whose
//! threads work alone are checked against the same code run on the host, for any size; others against a checksum of
//! what this crate's CPU executor computes for the size that the program is made for.

mod harness;
mod kernel;

use std::fmt::Write as _;

use crate::program::Program;

/// Operations whose C meaning differs from the language's, or from one compiler to the next.
const HELPERS: &str = r#"
#pragma nv_diag_suppress 177 // not every program uses every helper
// Integers wrap, shifts of 32 and more give zero or the sign, conversions truncate and saturate, products are rounded
// before they are added unless fmaf says otherwise: the same on host and device.
#define PX __host__ __device__ static inline
PX int px_add(int a, int b) { return (int)((unsigned)a + (unsigned)b); }
PX int px_sub(int a, int b) { return (int)((unsigned)a - (unsigned)b); }
PX int px_mul(int a, int b) { return (int)((unsigned)a * (unsigned)b); }
PX int px_neg(int a) { return (int)(0u - (unsigned)a); }
PX int px_abs(int a) { return a < 0 ? px_neg(a) : a; }
PX int px_div(int a, int b) { return b == 0 ? 0 : b == -1 ? px_neg(a) : a / b; }
PX int px_rem(int a, int b) { return b == 0 || b == -1 ? 0 : a % b; }
PX unsigned px_divu(unsigned a, unsigned b) { return b == 0 ? 0 : a / b; }
PX unsigned px_remu(unsigned a, unsigned b) { return b == 0 ? 0 : a % b; }
PX unsigned px_shl(unsigned a, int n) { return (unsigned)n < 32u ? a << n : 0u; }
PX unsigned px_shr(unsigned a, int n) { return (unsigned)n < 32u ? a >> n : 0u; }
PX int px_sar(int a, int n) { return a >> ((unsigned)n < 32u ? n : 31); }
PX unsigned px_rotr(unsigned a, int n) { n &= 31; return n ? a >> n | a << (32 - n) : a; }
PX int px_mini(int a, int b) { return a < b ? a : b; }
PX int px_maxi(int a, int b) { return a > b ? a : b; }
PX unsigned px_minu(unsigned a, unsigned b) { return a < b ? a : b; }
PX unsigned px_maxu(unsigned a, unsigned b) { return a > b ? a : b; }
#ifdef __CUDA_ARCH__
#define px_fmul(a, b) __fmul_rn(a, b)
#define px_dmul(a, b) __dmul_rn(a, b)
#else
#define px_fmul(a, b) ((a) * (b))
#define px_dmul(a, b) ((a) * (b))
#endif
PX unsigned px_bits(float x) { unsigned u; memcpy(&u, &x, 4); return u; }
PX float px_float(unsigned u) { float x; memcpy(&x, &u, 4); return x; }
PX double px_double(unsigned long long u) { double x; memcpy(&x, &u, 8); return x; }
PX int px_f2i(float x) { return x != x ? 0 : x >= 2147483648.f ? 2147483647 : x <= -2147483648.f ? -2147483647 - 1 : (int)x; }
PX unsigned px_f2u(float x) { return x != x || x <= 0.f ? 0u : x >= 4294967296.f ? 4294967295u : (unsigned)x; }
PX int px_d2i(double x) { return x != x || x <= -2147483648. ? -2147483647 - 1 : x >= 2147483647. ? 2147483647 : (int)x; }
PX unsigned px_d2u(double x) { return x != x ? 2147483648u : x <= 0. ? 0u : x >= 4294967295. ? 4294967295u : (unsigned)x; }
PX float px_h2f(unsigned short h) { __half_raw r; r.x = h; return __half2float(__half(r)); }
PX unsigned short px_f2h(float x) { return __half_raw(__float2half_rn(x)).x; }

// The first thread that would reach outside of an array writes this down; the access does not happen.
struct px_fault { unsigned taken, line; int index; unsigned length, thread; };
PX void px_report(px_fault *fault, unsigned line, int index, unsigned length, unsigned thread) {
#ifdef __CUDA_ARCH__
    if (atomicCAS(&fault->taken, 0u, 1u) != 0u) return;
#else
    if (fault->taken) return;
    fault->taken = 1;
#endif
    fault->line = line; fault->index = index; fault->length = length; fault->thread = thread;
}

#define CHECK(call) do { cudaError_t error = (call); if (error != cudaSuccess) { \
    fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(error)); exit(2); } } while (0)

// The inputs: numbers that look random and are the same every time.
static unsigned px_state;
static unsigned px_next(void) { px_state = px_state * 1664525u + 1013904223u; return px_state >> 8; }

// FNV-1a, to compare a whole array with one number.
static unsigned long long px_hash(const void *data, size_t bytes) {
    unsigned long long hash = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ ((const unsigned char *)data)[i]) * 0x100000001b3ull;
    return hash;
}
"#;

/// The program as CUDA C with a `main`; build it with `nvcc -O3 FILE.cu`. It takes the number of elements as its
/// argument, where the kernels allow other sizes; its exit code is 0 when every result is right.
#[must_use]
pub fn emit_cuda(program: &Program) -> String {
    let mut out = String::from(
        "// Made from primitives by pxOS. Build: nvcc -O3 -o program program.cu    Run: ./program [elements]\n\
         #include <cuda_fp16.h>\n#include <cuda_runtime.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n",
    );
    out.push_str(HELPERS);
    for kernel in program.kernels() {
        let alone = harness::threads_alone(kernel);
        for stage in &kernel.stages {
            out.push_str(&kernel::function(&stage.unit, alone));
        }
        out.push_str(&harness::test(kernel, alone));
    }
    out.push_str("\nint main(int argc, char **argv) {\n");
    out.push_str("    long elements = argc > 1 ? atol(argv[1]) : 0;\n    int wrong = 0;\n");
    for kernel in program.kernels() {
        let _ = writeln!(out, "    wrong += test_{}(elements);", kernel.name());
    }
    out.push_str("    printf(wrong ? \"%d kernels are wrong\\n\" : \"all results are right\\n\", wrong);\n    return wrong != 0;\n}\n");
    out
}
