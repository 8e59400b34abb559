// nvcc -ptx -arch=compute_90 matrix.cu
// Matrix instructions: wmma through the C++ interface, ldmatrix/mma/stmatrix as a hand-written product uses them.
#include <mma.h>
using namespace nvcuda;

// C (16x16 f32) = A (16x16 f16, row major) * B (16x16 f16, column major) + 1, and the same in f16, column major.
extern "C" __global__ void wmma_half(const half* a, const half* b, float* c, half* d) {
  wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> fa;
  wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::col_major> fb;
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> fc;
  wmma::fragment<wmma::accumulator, 16, 16, 16, half> fd;
  wmma::fill_fragment(fc, 1.0f);
  wmma::fill_fragment(fd, __float2half(1.0f));
  wmma::load_matrix_sync(fa, a, 16);
  wmma::load_matrix_sync(fb, b, 16);
  wmma::mma_sync(fc, fa, fb, fc);
  wmma::mma_sync(fd, fa, fb, fd);
  wmma::store_matrix_sync(c, fc, 16, wmma::mem_row_major);
  wmma::store_matrix_sync(d, fd, 16, wmma::mem_col_major);
}

extern "C" __global__ void wmma_int8(const signed char* a, const signed char* b, int* c) {
  wmma::fragment<wmma::matrix_a, 16, 16, 16, signed char, wmma::row_major> fa;
  wmma::fragment<wmma::matrix_b, 16, 16, 16, signed char, wmma::row_major> fb;
  wmma::fragment<wmma::accumulator, 16, 16, 16, int> fc;
  __shared__ int tile[16 * 20];
  wmma::fill_fragment(fc, 3);
  wmma::load_matrix_sync(fa, a, 16);
  wmma::load_matrix_sync(fb, b, 16);
  wmma::mma_sync(fc, fa, fb, fc);
  wmma::store_matrix_sync(tile, fc, 20, wmma::mem_row_major);
  __syncwarp();
  for (int i = threadIdx.x; i < 256; i += 32) c[i] = tile[i / 16 * 20 + i % 16];
}

extern "C" __global__ void wmma_double(const double* a, const double* b, double* c) {
  wmma::fragment<wmma::matrix_a, 8, 8, 4, double, wmma::row_major> fa;
  wmma::fragment<wmma::matrix_b, 8, 8, 4, double, wmma::col_major> fb;
  wmma::fragment<wmma::accumulator, 8, 8, 4, double> fc;
  wmma::fill_fragment(fc, 0.0);
  wmma::load_matrix_sync(fa, a, 4);
  wmma::load_matrix_sync(fb, b, 4);
  wmma::mma_sync(fc, fa, fb, fc);
  wmma::store_matrix_sync(c, fc, 8, wmma::mem_row_major);
}

// C (16x8 f32) = A (16x16 f16, row major) * B (16x8 f16, row major), through ldmatrix and mma.m16n8k16.
extern "C" __global__ void mma_half(const half* a, const half* b, float* c) {
  __shared__ __align__(16) half sa[16 * 16], sb[16 * 8];
  for (int i = threadIdx.x; i < 256; i += 32) sa[i] = a[i];
  for (int i = threadIdx.x; i < 128; i += 32) sb[i] = b[i];
  __syncwarp();
  unsigned lane = threadIdx.x, ra[4], rb[2];
  unsigned pa = __cvta_generic_to_shared(&sa[(lane % 16) * 16 + (lane / 16) * 8]);
  unsigned pb = __cvta_generic_to_shared(&sb[(lane % 16) * 8]);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(ra[0]), "=r"(ra[1]), "=r"(ra[2]), "=r"(ra[3]) : "r"(pa));
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];" : "=r"(rb[0]), "=r"(rb[1]) : "r"(pb));
  float d[4] = {0, 0, 0, 0};
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(ra[0]), "r"(ra[1]), "r"(ra[2]), "r"(ra[3]), "r"(rb[0]), "r"(rb[1]));
  int row = lane / 4, col = lane % 4 * 2;
  c[row * 8 + col] = d[0]; c[row * 8 + col + 1] = d[1];
  c[(row + 8) * 8 + col] = d[2]; c[(row + 8) * 8 + col + 1] = d[3];
}

// Each 8x8 matrix transposed three ways must agree: ldmatrix.trans, movmatrix, stmatrix.trans.
extern "C" __global__ void transposes(const unsigned short* in, unsigned short* out) {
  __shared__ __align__(16) unsigned short s[64], t[64];
  for (int i = threadIdx.x; i < 64; i += 32) s[i] = in[i];
  __syncwarp();
  unsigned p = __cvta_generic_to_shared(&s[threadIdx.x % 8 * 8]), q = __cvta_generic_to_shared(&t[threadIdx.x % 8 * 8]), r, v, w;
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(r) : "r"(p));
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(v) : "r"(p));
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(w) : "r"(v));
  asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" :: "r"(q), "r"(v) : "memory");
  __syncwarp();
  ((unsigned*)out)[threadIdx.x] = r;
  ((unsigned*)out)[32 + threadIdx.x] = w;
  ((unsigned*)out)[64 + threadIdx.x] = ((unsigned*)t)[threadIdx.x];
}
