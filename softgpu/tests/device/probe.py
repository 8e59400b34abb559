#!/usr/bin/env python3
"""Writes probe.cu, which prints what a device answers to each instruction that softgpu/src/isa implements.

    python3 probe.py > probe.cu && nvcc -arch=sm_90 probe.cu -o probe && ./probe > h200.txt

One kernel per instruction runs it, as inline PTX, on 96 operand triples of its kind: every edge value once as the
first operand, the rest drawn by a fixed generator. The form of the output is described in src/isa/device_tests.rs.
"""

import re

MASK = (1 << 64) - 1
TRIPLES = 96

# ---- Instructions: (name, kind of operands, width of the result or "p", widths of the operands, PTX) -----------
OPS = []


def op(name, kind, result, widths, text=None):
    operands = ", ".join("abc"[: len(widths)])
    OPS.append((name, kind, result, widths, text or f"{name} d, {operands};"))


def integer_ops():
    for t in ["s16", "u16", "s32", "u32", "s64", "u64"]:
        w = int(t[1:])
        for o in ["div", "rem", "mul.hi", "mul.lo", "min", "max"]:
            op(f"{o}.{t}", f"b{w}", w, [w, w])
        op(f"sad.{t}", f"b{w}", w, [w, w, w])
        if t[0] == "s":
            op(f"abs.{t}", f"b{w}", w, [w])
            op(f"neg.{t}", f"b{w}", w, [w])
        op(f"shr.{t}", f"b{w}", w, [w, 32])
    for w in (16, 32, 64):
        op(f"shl.b{w}", f"b{w}", w, [w, 32])
    for t in ["s32", "u32", "s64", "u64"]:
        w = int(t[1:])
        op(f"bfe.{t}", f"b{w}", w, [w, 32, 32])
        op(f"bfind.{t}", f"b{w}", 32, [w])
        op(f"bfind.shiftamt.{t}", f"b{w}", 32, [w])
    for w in (32, 64):
        op(f"clz.b{w}", f"b{w}", 32, [w])
        op(f"popc.b{w}", f"b{w}", 32, [w])
        op(f"brev.b{w}", f"b{w}", w, [w])
        # The position is the third operand, the length what is above its lowest 8 bits.
        text = f".reg .b32 e; shr.u32 e, c, 8; bfi.b{w} d, a, b, c, e;"
        op(f"bfi.b{w}", f"b{w}", w, [w, w, 32], text)
    word = lambda name, n, text=None: op(name, "b32", 32, [32] * n, text)
    for t in ["s32", "u32"]:
        word(f"mul24.lo.{t}", 2)
        word(f"mul24.hi.{t}", 2)
        word(f"mad24.hi.{t}", 3)
        for m in ["clamp", "wrap"]:
            word(f"szext.{m}.{t}", 2)
    word("mad24.hi.sat.s32", 3)
    word("mad.hi.sat.s32", 3)
    word("add.sat.s32", 2)
    word("sub.sat.s32", 2)
    for m in ["clamp", "wrap"]:
        word(f"bmsk.{m}.b32", 2)
        for d in "lr":
            word(f"shf.{d}.{m}.b32", 3)
    word("fns.b32", 3, ".reg .b32 e; and.b32 e, b, 31; fns.b32 d, a, e, c;")
    word("prmt.b32", 3)
    for m in ["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"]:
        word(f"prmt.b32.{m}", 3)
    for lut in (0x80, 0xE8, 0x1B):
        word(f"lop3.b32.{lut:#x}", 3, f"lop3.b32 d, a, b, c, {lut:#x};")
    for x in ["u32", "s32"]:
        for y in ["u32", "s32"]:
            word(f"dp4a.{x}.{y}", 3)
            for h in ["lo", "hi"]:
                word(f"dp2a.{h}.{x}.{y}", 3)
    # The second word of a two-word operation, its topmost bit flipped by the carry out.
    carry = "{0}.u32 e, 0, 0; shl.b32 e, e, 31; xor.b32 d, d, e;"
    word("addc", 3, ".reg .b32 e; add.cc.u32 e, a, b; addc.cc.u32 d, b, c; " + carry.format("addc"))
    word("subc", 3, ".reg .b32 e; sub.cc.u32 e, a, b; subc.cc.u32 d, b, c; " + carry.format("subc"))
    word("madc", 3, ".reg .b32 e; mad.lo.cc.u32 e, a, b, c; madc.hi.cc.u32 d, a, b, c; " + carry.format("addc"))
    for o in ["min", "max"]:
        for t in ["u16x2", "s16x2"]:
            word(f"{o}.{t}", 2)
        word(f"{o}.relu.s16x2", 2)
        word(f"{o}.relu.s32", 2)


def float_ops():
    single = lambda name, n: op(name, "f32", 32, [32] * n)
    double = lambda name, n: op(name, "f64", 64, [64] * n)
    for r in ["rn", "rz", "rm", "rp"]:
        for f in ["", ".ftz"]:
            for o, n in [("add", 2), ("sub", 2), ("mul", 2), ("fma", 3), ("div", 2), ("sqrt", 1), ("rcp", 1)]:
                single(f"{o}.{r}{f}.f32", n)
        for o, n in [("add", 2), ("mul", 2), ("fma", 3), ("div", 2), ("sqrt", 1), ("rcp", 1)]:
            double(f"{o}.{r}.f64", n)
    for o, n in [("add", 2), ("mul", 2), ("fma", 3)]:
        single(f"{o}.rn.sat.f32", n)
        single(f"{o}.rz.ftz.sat.f32", n)
    for o in ["min", "max"]:
        for m in ["", ".ftz", ".NaN", ".xorsign.abs", ".NaN.xorsign.abs"]:
            single(f"{o}{m}.f32", 2)
        double(f"{o}.f64", 2)
    for o in ["abs", "neg"]:
        single(f"{o}.f32", 1)
        single(f"{o}.ftz.f32", 1)
        double(f"{o}.f64", 1)
    for t, w in [("f32", 32), ("f64", 64)]:
        op(f"copysign.{t}", t, w, [w, w])
        for p in ["finite", "infinite", "number", "notanumber", "normal", "subnormal"]:
            op(f"testp.{p}.{t}", t, "p", [w], f"testp.{p}.{t} p, a;")
        for c in "eq ne lt le gt ge equ neu ltu leu gtu geu num nan".split():
            op(f"setp.{c}.{t}", t, "p", [w, w], f"setp.{c}.{t} p, a, b;")
    op("setp.lt.ftz.f32", "f32", "p", [32, 32], "setp.lt.ftz.f32 p, a, b;")
    for f in ["", ".ftz"]:
        for o, n in [("div.approx", 2), ("div.full", 2), ("rcp.approx", 1), ("sqrt.approx", 1), ("rsqrt.approx", 1),
                     ("sin.approx", 1), ("cos.approx", 1), ("ex2.approx", 1), ("lg2.approx", 1)]:
            single(f"{o}{f}.f32", n)
        double(f"rsqrt.approx{f}.f64", 1)
    single("tanh.approx.f32", 1)
    double("rcp.approx.ftz.f64", 1)
    for t in ["f16", "bf16"]:
        half = lambda name, n: op(name, t, 16, [16] * n)
        for o in ["add", "sub", "mul"]:
            half(f"{o}{'.rn' if t == 'bf16' else ''}.{t}", 2)
        half(f"fma.rn.{t}", 3)
        half(f"fma.rn.relu.{t}", 3)
        for o in ["min", "max"]:
            for m in ["", ".NaN", ".xorsign.abs", ".NaN.xorsign.abs"]:
                half(f"{o}{m}.{t}", 2)
        for o in ["neg", "abs", "tanh.approx"]:
            half(f"{o}.{t}", 1)
    op("ex2.approx.f16", "f16", 16, [16])
    op("ex2.approx.ftz.bf16", "bf16", 16, [16])
    for m in [".ftz", ".sat", ".ftz.sat"]:
        op(f"add{m}.f16", "f16", 16, [16, 16])
        op(f"mul{m}.f16", "f16", 16, [16, 16])
        op(f"fma.rn{m}.f16", "f16", 16, [16] * 3)


def conversions():
    integers = ["u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64"]
    floats = {"f16": 16, "bf16": 16, "f32": 32, "f64": 64, "tf32": 32}
    bits = lambda t: floats.get(t) or int(t[1:])
    width = lambda t: max(16, bits(t))

    def cvt(m, d, s):
        if "bf16" in (d, s) and 8 in (bits(d), bits(s)):
            return  # PTX has none between these
        op(f"cvt{m}.{d}.{s}", s if s in floats else f"b{width(s)}", width(d), [width(s)])

    for d in integers:
        for s in ["f16", "f32", "f64", "bf16"]:
            for r in ["rni", "rzi", "rmi", "rpi"]:
                cvt("." + r, d, s)
        cvt(".rpi.ftz", d, "f32")
    for s in integers:
        for d in ["f16", "f32", "f64", "bf16"]:
            for r in ["rn", "rz", "rm", "rp"]:
                cvt("." + r, d, s)
        for d in integers:
            cvt("", d, s)
            # `.sat` where it can matter, which ptxas insists on.
            if d != s and not (bits(d) > bits(s) and (d[0] == s[0] or s[0] == "u")):
                if not (bits(d) > bits(s) and d[0] == "s"):
                    cvt(".sat", d, s)
        cvt(".rn.sat", "f32", s)
    for r in ["rn", "rz", "rm", "rp"]:
        cvt(f".{r}", "f32", "f64")
        cvt(f".{r}", "f16", "f64")
        cvt(f".{r}.ftz.sat", "f32", "f64")
        cvt(f".{r}", "bf16", "f64")
    for r in ["rn", "rz"]:
        for t in ["f16", "bf16"]:
            cvt(f".{r}", t, "f32")
            cvt(f".{r}.relu", t, "f32")
    for m in [".rm", ".rp", ".rn.sat", ".rn.ftz"]:
        cvt(m, "f16", "f32")
    for m, d, s in [("", "f32", "f16"), ("", "f64", "f16"), ("", "f64", "f32"), (".ftz", "f64", "f32"),
                    (".sat", "f64", "f32"), ("", "f32", "bf16"), (".sat", "f32", "f16")]:
        cvt(m, d, s)
    for m in [".rna", ".rn", ".rz", ".rn.relu", ".rna.satfinite"]:
        cvt(m, "tf32", "f32")
    for t in ["f16", "f32", "f64"]:
        for r in ["rni", "rzi", "rmi", "rpi"]:
            cvt("." + r, t, t)
    for m in [".rni.ftz", ".ftz", ".sat", ".ftz.sat"]:
        cvt(m, "f32", "f32")
    cvt(".sat", "f64", "f64")
    for t in ["f16x2", "bf16x2"]:
        op(f"cvt.rn.{t}.f32", "f32", 32, [32, 32])
        op(f"cvt.rz.relu.{t}.f32", "f32", 32, [32, 32])
    for t in ["e4m3x2", "e5m2x2"]:
        op(f"cvt.rn.satfinite.{t}.f32", "f32", 16, [32, 32])
        op(f"cvt.rn.satfinite.relu.{t}.f32", "f32", 16, [32, 32])
        op(f"cvt.rn.f16x2.{t}", "b16", 32, [16])
        op(f"cvt.rn.satfinite.{t}.f16x2", "b32", 16, [32])
    for t in ["u16", "s16"]:
        op(f"cvt.pack.sat.{t}.s32", "b32", 32, [32, 32])
    for t in ["u8", "s8", "u4", "s4", "u2", "s2"]:
        op(f"cvt.pack.sat.{t}.s32.b32", "b32", 32, [32, 32, 32])


# ---- Operands ----------------------------------------------------------------------------------------------

def integer_pool(w):
    return [0, 1, 2, 3, 5, 7, 8, 15, 16, 31, 32, 33, 40, 63, 64, 65, 0x100, 0x508, 0x1F03, 0x2000, 0x7FFF, 0x8000,
            0x12345678, 0xFFFF0000, 0xDEADBEEF, (1 << w) - 1, (1 << w) - 2, 1 << (w - 1), (1 << (w - 1)) - 1,
            (1 << (w - 1)) + 1, -7, -2, -128, 127, 128, 255, -129]


def pool(text):
    return [int(v, 16) for v in text.split()]


POOLS = {
    "b16": (16, integer_pool(16)),
    "b32": (32, integer_pool(32)),
    "b64": (64, integer_pool(64)),
    "f32": (32, pool("""
        0 80000000 1 80000001 7fffff 800000 800001 3f800000 bf800000 3f000000 3f7fffff 3f800001 40000000 40490fdb
        c0200000 3e99999a 4b000001 4effffff 4f000000 cf000000 4f800000 5f000000 df000000 5f800000 7e800000 7f000000
        7f7fffff ff7fffff 7f800000 ff800000 7fc00000 ffc12345 7f812345 42fe0000 c2fe0000 c3150000 43000000 477fe000
        477ff000 33000000 33000001 387fc000 3f801000 3f803000 43e00000 43e80000 47600000 bf000000 3fc00000 40200000
        20000000 1f800000""")),
    "f64": (64, pool("""
        0 8000000000000000 1 8000000000000001 fffffffffffff 10000000000000 10000000000001 3ff0000000000000
        bff0000000000000 3fe0000000000000 3fefffffffffffff 3ff0000000000001 400921fb54442d18 41dfffffffc00000
        41e0000000000000 c1e0000000000000 41efffffffe00000 43e0000000000000 c3e0000000000000 43f0000000000000
        7fefffffffffffff ffefffffffffffff 7ff0000000000000 fff0000000000000 7ff8000000000000 fff8000012345678
        7ff0000012345678 47efffffe0000000 47effffff0000000 36a0000000000000 3690000000000001 380fffffffffffff
        40effc0000000000 3e60000000000000 3ff8000000000000 4004000000000000 c004000000000000 3fe8000000000000
        1e50000000000000 20a0000000000000""")),
    "f16": (16, pool("""
        0 8000 1 8001 3ff 400 401 3c00 bc00 3800 3bff 3c01 4000 4248 7bff fbff 7c00 fc00 7e00 fe12 7c01 3c02 bc02
        5bf8 77ff 7800 6400 c100 1400 c00 4d00 cd00""")),
    "bf16": (16, pool("""
        0 8000 1 8001 7f 80 81 3f80 bf80 3f00 3f7f 3f81 4000 4049 7f7f ff7f 7f80 ff80 7fc0 ffc1 7f81 3f82 bf82 4f00
        cf00 5f00 2000 1f80 42fe c2fe 100 4b00""")),
}
state = 12345


def rnd():
    global state
    state = (state * 6364136223846793005 + 1442695040888963407) & MASK
    return state >> 33


def rnd64():
    return (rnd() << 62 ^ rnd() << 31 ^ rnd()) & MASK


def triples(width, values):
    low = (1 << width) - 1
    draw = lambda: (values[rnd() % len(values)] if rnd() % 4 else rnd64()) & low
    drawn = [[draw() for _ in range(3)] for _ in range(TRIPLES)]
    for triple, value in zip(drawn, values):
        triple[0] = value & low
    return drawn


# ---- Matrix instructions: shape, then the types of D, A, B and C ------------------------------------------------
MMA = """
m16n8k8 f32 f16 f16 f32    m16n8k16 f32 f16 f16 f32   m16n8k16 f16 f16 f16 f16   m16n8k8 f16 f16 f16 f16
m16n8k8 f32 bf16 bf16 f32  m16n8k16 f32 bf16 bf16 f32 m16n8k4 f32 tf32 tf32 f32  m16n8k8 f32 tf32 tf32 f32
m8n8k16 s32 s8 u8 s32      m16n8k16 s32 s8 s8 s32     m16n8k32 s32 u8 s8 s32
m8n8k32 s32 s4 u4 s32      m16n8k32 s32 s4 s4 s32     m16n8k64 s32 u4 s4 s32
m8n8k4 f64 f64 f64 f64     m16n8k4 f64 f64 f64 f64    m16n8k8 f64 f64 f64 f64    m16n8k16 f64 f64 f64 f64
m16n8k32 f32 e4m3 e5m2 f32 m16n8k16 f32 e4m3 e4m3 f32
m8n8k128 s32 b1 b1 s32     m16n8k128 s32 b1 b1 s32    m16n8k256 s32 b1 b1 s32
""".split()
BITS = {"b1": 1, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "e4m3": 8, "e5m2": 8, "f16": 16, "bf16": 16, "tf32": 32,
        "f32": 32, "s32": 32, "f64": 64}


def mma_kernels():
    """The kernels' text, and per kernel (name, types of A, B, C, their register counts)."""
    text, table = [], []
    for i in range(0, len(MMA), 5):
        shape, d, a, b, c = MMA[i : i + 5]
        m, n, k = map(int, re.match(r"m(\d+)n(\d+)k(\d+)", shape).groups())
        count = lambda rows, cols, t: max(1, rows * cols * BITS[t] // 32 // (64 if t == "f64" else 32))
        na, nb, nc = count(m, k, a), count(k, n, b), count(m, n, c)
        for form in [".xor.popc", ".and.popc"] if a == "b1" else [""]:
            name = f"mma.sync.aligned.{shape}.row.col.{d}.{a}.{b}.{c}{form}"
            load = lambda r: f"in[{r}*32+l]"
            if a == "f64":
                factor, sums = "d", ("d", "double", "__longlong_as_double({})", "(u64)__double_as_longlong({})")
                value = lambda r: f"__longlong_as_double({load(r)})"
            else:
                factor = "r"
                value = lambda r: f"(unsigned)({load(r)})"
                if d == "f32":
                    sums = ("f", "float", "__uint_as_float((unsigned)({}))", "(u64)__float_as_uint({})")
                else:
                    sums = ("r", "unsigned", "(unsigned)({})", "(u64){}")
            letter, ctype, get, put = sums
            group = lambda first, size: "{" + ",".join(f"%{first + x}" for x in range(size)) + "}"
            operands = f"{group(0, nc)},{group(nc, na)},{group(nc + na, nb)},{group(0, nc)}"
            body = "".join(f"{ctype} c{x}={get.format(load(na + nb + x))};" for x in range(nc))
            body += f'asm volatile("{name} {operands};":' + ",".join(f'"+{letter}"(c{x})' for x in range(nc))
            body += ":" + ",".join(f'"{factor}"({value(x)})' for x in range(na + nb)) + ");"
            body += "".join(f"out[{x}*32+l]={put.format(f'c{x}')};" for x in range(nc))
            text.append(f"__global__ void m{len(table)}(const u64*in,u64*out){{int l=threadIdx.x;{body}}}")
            table.append((name, a, b, c, na, nb, nc))
    return text, table


# ---- The program ---------------------------------------------------------------------------------------------
HEAD = """#include <cstdio>
#include <cstdlib>
#include <cstring>
typedef unsigned long long u64;
#define CK(x) do{cudaError_t e=(x);if(e){fprintf(stderr,"%s: %s\\n",#x,cudaGetErrorString(e));exit(1);}}while(0)
"""
BODY = """
static u64*din,*dout;
static void run(void(*k)(const u64*,u64*,int),const char*name,const char*kind,const u64*in){
  static u64 r[TRIPLES];
  CK(cudaMemcpy(din,in,TRIPLES*24,cudaMemcpyHostToDevice)); k<<<1,128>>>(din,dout,TRIPLES);
  CK(cudaDeviceSynchronize()); CK(cudaMemcpy(r,dout,sizeof r,cudaMemcpyDeviceToHost));
  printf("%s %s",name,kind); for(u64 v:r)printf(" %llx",v); puts("");
}
static unsigned s=1;
static unsigned rn(){s=s*1664525u+1013904223u;return s>>16;}
// A small integer in the given format, exactly (.e5m2 has no 5 and no 7).
static u64 enc(const char*t,int v){
  static const unsigned short h[]={0,0x3c00,0x4000,0x4200,0x4400,0x4500,0x4600,0x4700};
  static const unsigned short bf[]={0,0x3f80,0x4000,0x4040,0x4080,0x40a0,0x40c0,0x40e0};
  static const unsigned char e4[]={0,0x38,0x40,0x44,0x48,0x4a,0x4c,0x4e}, e5[]={0,0x3c,0x40,0x42,0x44,0x44,0x46,0x44};
  int m=v<0?-v:v;
  if(!strcmp(t,"f64")){double x=v;u64 b;memcpy(&b,&x,8);return b;}
  if(!strcmp(t,"f32")||!strcmp(t,"tf32")){float x=v;unsigned b;memcpy(&b,&x,4);return b;}
  if(!strcmp(t,"f16"))return h[m]|(v<0?0x8000:0);
  if(!strcmp(t,"bf16"))return bf[m]|(v<0?0x8000:0);
  if(!strcmp(t,"e4m3"))return e4[m]|(v<0?0x80:0);
  if(!strcmp(t,"e5m2"))return e5[m]|(v<0?0x80:0);
  return (unsigned)v;
}
static u64 reg(const char*t,int b){
  if(b>=32)return enc(t,(int)(rn()%15)-7);
  u64 v=0; for(int i=0;i<32/b;i++)v|=(enc(t,(int)(rn()%15)-7)&((1ull<<b)-1))<<(i*b); return v;
}
static void mm(void(*k)(const u64*,u64*),const char*name,const char*a,const char*b,const char*c,int ab,int bb,int cb,int na,int nb,int nc){
  static u64 in[32*32],r[32*32]; int p=0;
  for(int i=0;i<na*32;i++)in[p++]=reg(a,ab);
  for(int i=0;i<nb*32;i++)in[p++]=reg(b,bb);
  for(int i=0;i<nc*32;i++)in[p++]=reg(c,cb);
  CK(cudaMemcpy(din,in,p*8,cudaMemcpyHostToDevice)); k<<<1,32>>>(din,dout);
  CK(cudaDeviceSynchronize()); CK(cudaMemcpy(r,dout,nc*256,cudaMemcpyDeviceToHost));
  printf("%s %d %d %d",name,na,nb,nc); for(int i=0;i<p;i++)printf(" %llx",in[i]);
  for(int i=0;i<nc*32;i++)printf(" %llx",r[i]); puts("");
}
int main(){ CK(cudaMalloc(&din,1<<16)); CK(cudaMalloc(&dout,1<<16));
"""


def kernel(i, result, widths, text):
    registers, loads = "", ""
    for j, w in enumerate(widths):
        r = "abc"[j]
        registers += f".reg .b{w} {r}; "
        loads += f"mov.b64 {r}, %{j + 1}; " if w == 64 else f"cvt.u{w}.u64 {r}, %{j + 1}; "
    if result == "p":
        registers += ".reg .pred p; .reg .b64 d; "
        store = "selp.b64 d, 1, 0, p; mov.b64 %0, d;"
    else:
        registers += f".reg .b{result} d; "
        store = "mov.b64 %0, d;" if result == 64 else f"cvt.u64.u{result} %0, d;"
    return (f"__global__ void k{i}(const u64*in,u64*out,int n){{int i=threadIdx.x;if(i<n){{u64 d;"
            f'asm volatile("{{ {registers}{loads}{text} {store} }}":"=l"(d)'
            ':"l"(in[3*i]),"l"(in[3*i+1]),"l"(in[3*i+2]));out[i]=d;}}')


def main():
    integer_ops()
    float_ops()
    conversions()
    print(HEAD)
    for kind, (width, values) in POOLS.items():
        drawn = ",".join(f"{v}ull" for triple in triples(width, values) for v in triple)
        print(f"static const u64 in_{kind}[]={{{drawn}}};")
    for i, (_, _, result, widths, text) in enumerate(OPS):
        print(kernel(i, result, widths, text))
    text, table = mma_kernels()
    print("\n".join(text))
    print(BODY.replace("TRIPLES", str(TRIPLES)))
    for kind in POOLS:
        print(f'printf("input {kind}"); for(u64 v:in_{kind})printf(" %llx",v); puts("");')
    for i, (name, kind, *_) in enumerate(OPS):
        print(f'run(k{i},"{name}","{kind}",in_{kind});')
    for i, (name, a, b, c, na, nb, nc) in enumerate(table):
        print(f'mm(m{i},"{name}","{a}","{b}","{c}",{BITS[a]},{BITS[b]},{BITS[c]},{na},{nb},{nc});')
    print("return 0;}")


if __name__ == "__main__":
    main()
