//! One instruction at a time: that every spelling reaches the right function with its operands in the right order.
//! What the functions compute in detail is tested in `isa`.

use super::{Arg, bytes, grid, launch, module, refused, u64s};

/// Runs a snippet on one warp. Registers: `a b c d` 32 bits, `ha hb hc hd` 16, `A B C D` 64, predicates `p q r`; `a`, `ha`
/// and `A` hold the first input, and so on. The result is what the snippet leaves in `D`.
fn snippet(code: &str, inputs: [u64; 3]) -> u64 {
    let text = module(&format!(
        ".visible .entry k(.param .u64 in, .param .u64 out) {{
            .reg .b64 A, B, C, D, pin, pout; .reg .b32 a, b, c, d, e, lane; .reg .b16 ha, hb, hc, hd; .reg .pred p, q, r;
            ld.param.u64 pin, [in]; ld.param.u64 pout, [out];
            ld.global.v2.u64 {{A, B}}, [pin]; ld.global.u64 C, [pin+16];
            cvt.u32.u64 a, A; cvt.u32.u64 b, B; cvt.u32.u64 c, C;
            cvt.u16.u64 ha, A; cvt.u16.u64 hb, B; cvt.u16.u64 hc, C;
            mov.u64 D, 0; mov.u32 d, 0; mov.u16 hd, 0; setp.ne.u64 r, A, A;
            {code}
            mov.u32 lane, %tid.x; mad.wide.u32 pout, lane, 8, pout; st.global.u64 [pout], D; ret; }}"
    ));
    let run = |threads: u32| {
        let (mut input, mut out) = (bytes(&inputs), vec![0; 8 * threads as usize]);
        launch(&text, "k", &grid(1, threads), &mut [Arg::Buffer(&mut input), Arg::Buffer(&mut out)])
            .unwrap_or_else(|fault| panic!("{code}: {fault}"));
        let out = u64s(&out);
        assert!(out.iter().all(|value| *value == out[0]), "{code}: lanes differ: {out:x?}");
        out[0]
    };
    // Full and partial warps take different paths.
    let full = run(32);
    assert_eq!(full, run(3), "{code}: a partial warp computes something else");
    full
}

fn check(cases: &[(&str, [u64; 3], u64)]) {
    for (code, inputs, expected) in cases {
        let found = snippet(code, *inputs);
        assert_eq!(found, *expected, "{code} of {inputs:x?}: {found:#x}, expected {expected:#x}");
    }
}

/// `op d, a, b, c;` with a 32-bit result.
fn check32(cases: &[(&str, [u64; 3], u32)]) {
    for (code, inputs, expected) in cases {
        let code = format!("{code}; cvt.u64.u32 D, d;");
        let found = snippet(&code, *inputs);
        assert_eq!(found, u64::from(*expected), "{code} of {inputs:x?}: {found:#x}, expected {expected:#x}");
    }
}

/// The same with a 16-bit result.
fn check16(cases: &[(&str, [u64; 3], u16)]) {
    for (code, inputs, expected) in cases {
        let code = format!("{code}; cvt.u64.u16 D, hd;");
        let found = snippet(&code, *inputs);
        assert_eq!(found, u64::from(*expected), "{code} of {inputs:x?}: {found:#x}, expected {expected:#x}");
    }
}

/// The same with a predicate result.
fn check_pred(cases: &[(&str, [u64; 3], bool)]) {
    for (code, inputs, expected) in cases {
        let code = format!("{code}; selp.u64 D, 1, 0, p;");
        assert_eq!(snippet(&code, *inputs) != 0, *expected, "{code} of {inputs:x?}");
    }
}

fn f(value: f32) -> u64 {
    u64::from(value.to_bits())
}

fn g(value: f64) -> u64 {
    value.to_bits()
}

const NEG: u64 = u64::MAX;

#[test]
fn integer_arithmetic() {
    check32(&[
        ("add.s32 d, a, b", [5, NEG, 0], 4),
        ("add.sat.s32 d, a, b", [0x7fff_ffff, 5, 0], 0x7fff_ffff),
        ("sub.u32 d, a, b", [5, 7, 0], 0xffff_fffe),
        ("sub.sat.s32 d, a, b", [0x8000_0000, 5, 0], 0x8000_0000),
        ("mul.lo.u32 d, a, b", [0x10001, 0x10001, 0], 0x20001),
        ("mul.hi.u32 d, a, b", [0x8000_0000, 6, 0], 3),
        ("mul.hi.s32 d, a, b", [0x8000_0000, 6, 0], 0xffff_fffd),
        ("mul.wide.u16 d, ha, hb", [0xffff, 0xffff, 0], 0xfffe_0001),
        ("mul.wide.s16 d, ha, hb", [0xffff, 2, 0], 0xffff_fffe),
        ("mad.lo.s32 d, a, b, c", [3, 4, 5], 17),
        ("mad.hi.u32 d, a, b, c", [0x8000_0000, 6, 5], 8),
        ("mad.hi.sat.s32 d, a, b, c", [0x7fff_ffff, 0x7fff_ffff, 0x7fff_ffff], 0x7fff_ffff),
        ("mul24.lo.u32 d, a, b", [0xff00_0003, 5, 0], 15),
        ("mul24.hi.u32 d, a, b", [0x80_0000, 0x80_0000, 0], 0x4000_0000),
        ("mad24.lo.s32 d, a, b, c", [0xff_ffff, 5, 6], 1),
        ("div.s32 d, a, b", [0xffff_fff9, 2, 0], 0xffff_fffd),
        ("div.u32 d, a, b", [0xffff_fff9, 2, 0], 0x7fff_fffc),
        ("rem.s32 d, a, b", [0xffff_fff9, 4, 0], 0xffff_fffd),
        ("rem.u32 d, a, b", [17, 5, 0], 2),
        ("abs.s32 d, a", [0xffff_fff0, 0, 0], 16),
        ("neg.s32 d, a", [1, 0, 0], 0xffff_ffff),
        ("min.s32 d, a, b", [0xffff_ffff, 1, 0], 0xffff_ffff),
        ("min.u32 d, a, b", [0xffff_ffff, 1, 0], 1),
        ("max.s32 d, a, b", [0xffff_ffff, 1, 0], 1),
        ("max.u32 d, a, b", [0xffff_ffff, 1, 0], 0xffff_ffff),
        ("min.relu.s32 d, a, b", [0xffff_ffff, 1, 0], 0),
        ("max.s16x2 d, a, b", [0x0001_ffff, 0x0000_0002, 0], 0x0001_0002),
        ("add.u16x2 d, a, b", [0x0001_ffff, 0x0001_0002, 0], 0x0002_0001),
        ("sad.s32 d, a, b, c", [3, 10, 5], 12),
        ("dp4a.u32.u32 d, a, b, c", [0x0102_03ff, 0x0101_0102, 7], 6 + 510 + 7),
        ("dp4a.s32.u32 d, a, b, c", [0x0102_03ff, 0x0101_0102, 7], 11),
        ("dp2a.lo.u32.u32 d, a, b, c", [0x0002_0003, 0x0000_0504, 1], 12 + 10 + 1),
        ("dp2a.hi.u32.u32 d, a, b, c", [0x0002_0003, 0x0504_0000, 1], 12 + 10 + 1),
        ("vabsdiff4.u32.u32.u32.add d, a, b, c", [0x0105_0a00, 0x0201_0aff, 1000], 1 + 4 + 255 + 1000),
        ("vadd4.u32.u32.u32 d, a, b, c", [0x0105_0aff, 0x0201_0a01, 0], 0x0306_1400),
    ]);
    check(&[
        ("mul.wide.u32 D, a, b;", [0xffff_ffff, 0xffff_ffff, 0], 0xffff_fffe_0000_0001),
        ("mul.wide.s32 D, a, b;", [0xffff_ffff, 3, 0], NEG - 2),
        ("mad.wide.s32 D, a, b, C;", [0xffff_ffff, 3, 10], 7),
        ("mad.lo.u64 D, A, B, C;", [1 << 40, 1 << 20, 9], (1 << 60) + 9),
        ("mul.hi.u64 D, A, B;", [1 << 63, 6, 0], 3),
        ("mul.hi.s64 D, A, B;", [NEG, 6, 0], NEG),
        ("div.s64 D, A, B;", [NEG - 6, 2, 0], NEG - 2),
        ("rem.u64 D, A, B;", [1 << 40, 1000, 0], (1u64 << 40) % 1000),
        ("sub.s64 D, 5, A;", [7, 0, 0], NEG - 1),
    ]);
    check16(&[
        ("add.s16 hd, ha, hb", [0xffff, 2, 0], 1),
        ("mul.lo.u16 hd, ha, hb", [0x101, 0x101, 0], 0x201),
        ("min.s16 hd, ha, hb", [0xffff, 2, 0], 0xffff),
        ("max.u16 hd, ha, hb", [0xffff, 2, 0], 0xffff),
        ("neg.s16 hd, ha", [1, 0, 0], 0xffff),
        ("mad.lo.s16 hd, ha, hb, hc", [3, 4, 0xffff], 11),
        ("shr.s16 hd, ha, 4", [0x8000, 0, 0], 0xf800),
        ("shl.b16 hd, ha, 4", [0xffff, 0, 0], 0xfff0),
        ("not.b16 hd, ha", [0x00ff, 0, 0], 0xff00),
    ]);
}

#[test]
fn carry_chains() {
    check(&[
        ("add.cc.u32 d, a, b; addc.u32 e, 0, 0; mov.b64 D, {d, e};", [0xffff_ffff, 0x10, 0], 0x1_0000_000f),
        ("add.cc.u64 D, A, B; addc.u64 D, 0, 5;", [NEG, 1, 0], 6),
        ("sub.cc.u32 d, a, b; subc.u32 e, 7, 0; mov.b64 D, {d, e};", [1, 2, 0], 0x6_ffff_ffff),
        (
            "add.cc.u32 d, a, b; addc.cc.u32 d, a, b; addc.u32 e, 0, 0; mov.b64 D, {d, e};",
            [0xffff_ffff, 1, 0],
            0x1_0000_0001,
        ),
        (
            "mad.lo.cc.u32 d, a, b, c; madc.hi.u32 e, a, b, 0; mov.b64 D, {d, e};",
            [0xffff_ffff, 0xffff_ffff, 0xffff_ffff],
            0xffff_ffff_0000_0000,
        ),
    ]);
}

#[test]
fn bits_shifts_and_logic() {
    check32(&[
        ("and.b32 d, a, b", [0xff00, 0x0ff0, 0], 0x0f00),
        ("or.b32 d, a, b", [0xff00, 0x0ff0, 0], 0xfff0),
        ("xor.b32 d, a, b", [0xff00, 0x0ff0, 0], 0xf0f0),
        ("not.b32 d, a", [0xff00, 0, 0], 0xffff_00ff),
        ("cnot.b32 d, a", [0, 0, 0], 1),
        ("cnot.b32 d, a", [7, 0, 0], 0),
        ("shl.b32 d, a, b", [1, 33, 0], 0),
        ("shr.u32 d, a, b", [0x8000_0000, 4, 0], 0x0800_0000),
        ("shr.s32 d, a, b", [0x8000_0000, 40, 0], 0xffff_ffff),
        ("shf.l.wrap.b32 d, a, b, c", [0x8000_0001, 0x1, 33], 3),
        ("shf.r.clamp.b32 d, a, b, c", [1, 0xabcd, 40], 0xabcd),
        ("lop3.b32 d, a, b, c, 0x96", [0xf0, 0xcc, 0xaa], 0xf0 ^ 0xcc ^ 0xaa),
        ("lop3.b32 d, a, b, c, 0xe8", [0xf0, 0xcc, 0xaa], 0xe8),
        ("prmt.b32 d, a, b, 0x5410", [0x1122_3344, 0x5566_7788, 0], 0x7788_3344),
        ("prmt.b32.f4e d, a, b, c", [0x1122_3344, 0x5566_7788, 1], 0x8811_2233),
        ("bfe.u32 d, a, 8, 8", [0x1234_5678, 0, 0], 0x56),
        ("bfe.s32 d, a, b, c", [0x1234_8678, 8, 8], 0xffff_ff86),
        ("bfi.b32 d, a, b, 8, 4", [0xf, 0x1111_1111, 0], 0x1111_1f11),
        ("bfind.u32 d, a", [0x0010_0000, 0, 0], 20),
        ("bfind.shiftamt.u32 d, a", [0x0010_0000, 0, 0], 11),
        ("bfind.s32 d, a", [0xffff_fff0, 0, 0], 3),
        ("clz.b32 d, a", [0x0010_0000, 0, 0], 11),
        ("clz.b64 d, A", [1, 0, 0], 63),
        ("popc.b32 d, a", [0xf0f0, 0, 0], 8),
        ("popc.b64 d, A", [NEG, 0, 0], 64),
        ("brev.b32 d, a", [1, 0, 0], 0x8000_0000),
        ("bmsk.clamp.b32 d, a, b", [4, 8, 0], 0xff0),
        ("bmsk.wrap.b32 d, a, b", [36, 8, 0], 0xff0),
        ("szext.clamp.s32 d, a, b", [0x80, 8, 0], 0xffff_ff80),
        ("fns.b32 d, a, b, c", [0b1101_0000, 0, 2], 6),
    ]);
    check(&[
        ("bfe.u64 D, A, 36, 8;", [0x1234_5678_9abc_def0, 0, 0], 0x67),
        ("bfi.b64 D, A, B, b, c;", [0xff, 0, 0], 0),
        ("shl.b64 D, A, 36;", [0xff, 0, 0], 0xff << 36),
        ("shr.s64 D, A, 4;", [1 << 63, 0, 0], 0xf8 << 56),
        ("brev.b64 D, A;", [2, 0, 0], 1 << 62),
        ("and.b64 D, A, 0xff00ff00ff00ff00;", [NEG, 0, 0], 0xff00_ff00_ff00_ff00),
    ]);
    check_pred(&[
        ("setp.eq.u32 p, a, b; setp.eq.u32 q, a, c; and.pred p, p, q", [1, 1, 1], true),
        ("setp.eq.u32 p, a, b; setp.eq.u32 q, a, c; xor.pred p, p, q", [1, 1, 1], false),
        ("setp.eq.u32 p, a, b; not.pred p, p", [1, 1, 1], false),
        ("lop3.or.b32 d|p, a, b, c, 0x80, r", [1, 1, 1], true),
        ("lop3.and.b32 d|p, a, b, c, 0x80, !r", [1, 1, 2], false),
        ("mov.pred p, 1", [0; 3], true),
        ("mov.pred p, 0", [0; 3], false),
    ]);
}

#[test]
fn comparisons_and_selections() {
    let nan = f(f32::NAN);
    check_pred(&[
        ("setp.lt.s32 p, a, b", [NEG, 1, 0], true),
        ("setp.lt.u32 p, a, b", [NEG, 1, 0], false),
        ("setp.lo.u32 p, a, b", [1, 2, 0], true),
        ("setp.hs.s32 p, a, b", [NEG, 2, 0], true),
        ("setp.ge.s64 p, A, B", [NEG, 0, 0], false),
        ("setp.gt.s16 p, ha, hb", [0xffff, 0, 0], false),
        ("setp.ne.b64 p, A, 5", [5, 0, 0], false),
        ("setp.lt.f32 p, a, b", [f(-1.0), f(0.0), 0], true),
        ("setp.ltu.f32 p, a, b", [nan, f(0.0), 0], true),
        ("setp.lt.f32 p, a, b", [nan, f(0.0), 0], false),
        ("setp.nan.f32 p, a, b", [nan, f(0.0), 0], true),
        ("setp.num.f64 p, A, B", [g(1.0), g(f64::NAN), 0], false),
        ("setp.eq.ftz.f32 p, a, b", [1, 2, 0], true),
        ("setp.eq.f32 p, a, b", [1, 2, 0], false),
        ("setp.gt.f16 p, ha, hb", [0x3c00, 0x3800, 0], true),
        ("setp.le.bf16 p, ha, hb", [0x3f80, 0x3f00, 0], false),
        ("setp.lt.and.s32 p, a, b, r", [1, 2, 0], false),
        ("setp.lt.or.s32 p, a, b, !r", [3, 2, 0], true),
        ("setp.lt.xor.s32 p|q, a, b, r", [1, 2, 0], true),
        ("setp.lt.s32 q|p, a, b", [1, 2, 0], false),
        ("setp.gt.f16x2 q|p, a, b", [0x3c00_0000, 0x3800_3800, 0], true),
        ("testp.finite.f32 p, a", [nan, 0, 0], false),
        ("testp.subnormal.f32 p, a", [1, 0, 0], true),
        ("testp.infinite.f64 p, A", [g(f64::INFINITY), 0, 0], true),
    ]);
    check32(&[
        ("selp.b32 d, a, b, r", [1, 2, 0], 2),
        ("selp.b32 d, a, b, !r", [1, 2, 0], 1),
        ("slct.u32.s32 d, a, b, c", [1, 2, NEG], 2),
        ("slct.u32.f32 d, a, b, c", [1, 2, f(-0.0)], 1),
        ("set.lt.u32.s32 d, a, b", [NEG, 2, 0], u32::MAX),
        ("set.lt.f32.f32 d, a, b", [f(1.0), f(2.0), 0], 1f32.to_bits()),
        ("set.eq.and.u32.u32 d, a, b, r", [1, 1, 0], 0),
        ("set.gt.f16x2.f16x2 d, a, b", [0x3c00_0000, 0x3800_3800, 0], 0x3c00_0000),
    ]);
    check16(&[("set.gt.f16.f16 hd, ha, hb", [0x3c00, 0x3800, 0], 0x3c00)]);
    check(&[("selp.f64 D, A, B, !r;", [g(1.5), g(2.0), 0], g(1.5))]);
}

#[test]
fn floating_point() {
    let third = 1.0f32 / 3.0;
    check32(&[
        ("add.f32 d, a, b", [f(1.5), f(2.25), 0], 3.75f32.to_bits()),
        ("add.rz.f32 d, a, b", [f(1.0), f(1e-9), 0], 1f32.to_bits()),
        ("add.rp.f32 d, a, b", [f(1.0), f(1e-9), 0], 1f32.to_bits() + 1),
        ("add.ftz.f32 d, a, b", [1, 1, 0], 0),
        ("add.sat.f32 d, a, b", [f(1.5), f(2.0), 0], 1f32.to_bits()),
        ("sub.f32 d, a, b", [f(1.5), f(2.0), 0], (-0.5f32).to_bits()),
        ("mul.f32 d, a, b", [f(1.5), f(-2.0), 0], (-3f32).to_bits()),
        (
            "mul.rm.f32 d, a, b",
            [f(third), f(third), 0],
            (third * third).to_bits()
                - u32::from(f64::from(third * third) > f64::from(third) * f64::from(third)),
        ),
        ("fma.rn.f32 d, a, b, c", [f(third), f(3.0), f(-1.0)], third.mul_add(3.0, -1.0).to_bits()),
        ("mad.f32 d, a, b, c", [f(2.0), f(3.0), f(-1.0)], 5f32.to_bits()),
        ("fma.rz.ftz.sat.f32 d, a, b, c", [f(2.0), f(3.0), f(-1.0)], 1f32.to_bits()),
        ("div.rn.f32 d, a, b", [f(1.0), f(3.0), 0], third.to_bits()),
        ("div.full.f32 d, a, b", [f(8.0), f(2.0), 0], 4f32.to_bits()),
        ("div.approx.f32 d, a, b", [f(8.0), f(2.0), 0], 4f32.to_bits()),
        ("rcp.rn.f32 d, a", [f(4.0), 0, 0], 0.25f32.to_bits()),
        ("rcp.approx.ftz.f32 d, a", [f(4.0), 0, 0], 0.25f32.to_bits()),
        ("sqrt.rn.f32 d, a", [f(2.0), 0, 0], 2f32.sqrt().to_bits()),
        ("sqrt.approx.f32 d, a", [f(4.0), 0, 0], 2f32.to_bits()),
        ("rsqrt.approx.f32 d, a", [f(4.0), 0, 0], 0.5f32.to_bits()),
        ("sin.approx.f32 d, a", [f(0.0), 0, 0], 0),
        ("cos.approx.f32 d, a", [f(0.0), 0, 0], 1f32.to_bits()),
        ("ex2.approx.f32 d, a", [f(3.0), 0, 0], 8f32.to_bits()),
        ("lg2.approx.f32 d, a", [f(8.0), 0, 0], 3f32.to_bits()),
        ("tanh.approx.f32 d, a", [f(0.0), 0, 0], 0),
        ("neg.f32 d, a", [f(1.0), 0, 0], (-1f32).to_bits()),
        ("abs.f32 d, a", [f(-1.0), 0, 0], 1f32.to_bits()),
        ("min.f32 d, a, b", [f(-1.0), f(f32::NAN), 0], (-1f32).to_bits()),
        ("max.NaN.f32 d, a, b", [f(-1.0), f(f32::NAN), 0], 0x7fff_ffff),
        ("max.xorsign.abs.f32 d, a, b", [f(-3.0), f(2.0), 0], (-3f32).to_bits()),
        ("max.f32 d, a, b, c", [f(-3.0), f(2.0), f(9.0)], 9f32.to_bits()),
        ("copysign.f32 d, a, b", [f(-3.0), f(2.0), 0], (-2f32).to_bits()),
        ("add.f32.f16 d, ha, b", [0x3c00, f(2.0), 0], 3f32.to_bits()),
    ]);
    check(&[
        ("add.f64 D, A, B;", [g(1.5), g(2.0), 0], g(3.5)),
        ("sub.rz.f64 D, A, B;", [g(1.0), g(1e-30), 0], g(1.0) - 1),
        ("mul.f64 D, A, B;", [g(1.5), g(2.0), 0], g(3.0)),
        ("fma.rn.f64 D, A, B, C;", [g(1.5), g(2.0), g(0.5)], g(3.5)),
        ("div.rn.f64 D, A, B;", [g(1.0), g(3.0), 0], g(1.0 / 3.0)),
        ("rcp.rn.f64 D, A;", [g(3.0), 0, 0], g(1.0 / 3.0)),
        ("sqrt.rn.f64 D, A;", [g(2.0), 0, 0], g(2f64.sqrt())),
        ("min.f64 D, A, B;", [g(1.5), g(-2.0), 0], g(-2.0)),
        ("neg.f64 D, A;", [g(1.5), 0, 0], g(-1.5)),
        ("abs.f64 D, A;", [g(-1.5), 0, 0], g(1.5)),
        ("copysign.f64 D, A, B;", [g(-1.5), g(3.0), 0], g(-3.0)),
    ]);
    check16(&[
        ("add.f16 hd, ha, hb", [0x3c00, 0x3c00, 0], 0x4000),
        ("mul.rn.bf16 hd, ha, hb", [0x4000, 0x4040, 0], 0x40c0),
        ("fma.rn.f16 hd, ha, hb, hc", [0x4000, 0x4200, 0x3c00], 0x4700),
        ("fma.rn.relu.f16 hd, ha, hb, hc", [0xc000, 0x4200, 0x3c00], 0),
        ("neg.f16 hd, ha", [0x3c00, 0, 0], 0xbc00),
        ("max.bf16 hd, ha, hb", [0x3f80, 0x4000, 0], 0x4000),
        ("ex2.approx.f16 hd, ha", [0x4000, 0, 0], 0x4400),
    ]);
    check32(&[
        ("add.f16x2 d, a, b", [0x3c00_4000, 0x3c00_3c00, 0], 0x4000_4200),
        ("fma.rn.bf16x2 d, a, b, c", [0x3f80_4000, 0x4000_4000, 0x3f80_0000], 0x4040_4080),
        ("abs.f16x2 d, a", [0xbc00_c000, 0, 0], 0x3c00_4000),
        ("min.f16x2 d, a, b", [0x3c00_4000, 0x4000_3c00, 0], 0x3c00_3c00),
    ]);
}

#[test]
fn conversions() {
    check32(&[
        ("cvt.rzi.s32.f32 d, a", [f(-1.7), 0, 0], 0xffff_ffff),
        ("cvt.rni.s32.f32 d, a", [f(2.5), 0, 0], 2),
        ("cvt.rpi.u32.f32 d, a", [f(2.1), 0, 0], 3),
        ("cvt.rmi.f32.f32 d, a", [f(-2.1), 0, 0], (-3f32).to_bits()),
        ("cvt.rn.f32.s32 d, a", [NEG, 0, 0], (-1f32).to_bits()),
        ("cvt.rn.f32.u64 d, A", [1 << 40, 0, 0], 1_099_511_627_776f32.to_bits()),
        ("cvt.rz.f32.f64 d, A", [g(0.1), 0, 0], 0.1f32.to_bits() - 1),
        ("cvt.sat.f32.f32 d, a", [f(7.0), 0, 0], 1f32.to_bits()),
        ("cvt.f32.f16 d, ha", [0x3e00, 0, 0], 1.5f32.to_bits()),
        ("cvt.f32.bf16 d, ha", [0x3fc0, 0, 0], 1.5f32.to_bits()),
        ("cvt.sat.s8.s32 d, a", [1000, 0, 0], 127),
        ("cvt.s32.s8 d, a", [0x80, 0, 0], 0xffff_ff80),
        ("cvt.u32.u8 d, a", [0x1ff, 0, 0], 0xff),
        ("cvt.s16.s8 d, a", [0x80, 0, 0], 0xffff_ff80),
        ("cvt.rn.f16x2.f32 d, a, b", [f(1.0), f(2.0), 0], 0x3c00_4000),
        ("cvt.rn.bf16x2.f32 d, a, b", [f(1.0), f(2.0), 0], 0x3f80_4000),
        ("cvt.rna.tf32.f32 d, a", [f(1.0), 0, 0], 1f32.to_bits()),
        ("cvt.pack.sat.u8.s32.b32 d, a, b, c", [300, 5, 0x1111_2222], 0x2222_ff05),
        ("cvt.rn.f16x2.e4m3x2 d, ha", [0x3838, 0, 0], 0x3c00_3c00),
    ]);
    check(&[
        ("cvt.s64.s32 D, a;", [0xffff_ffff, 0, 0], NEG),
        ("cvt.u64.u32 D, a;", [0xffff_ffff, 0, 0], 0xffff_ffff),
        ("cvt.rzi.s64.f64 D, A;", [g(-5.9), 0, 0], NEG - 4),
        ("cvt.rzi.u64.f32 D, a;", [f(5.9), 0, 0], 5),
        ("cvt.f64.f32 D, a;", [f(1.5), 0, 0], g(1.5)),
        ("cvt.rn.f64.s64 D, A;", [NEG, 0, 0], g(-1.0)),
        ("cvt.s64.s8 D, a;", [0x80, 0, 0], NEG - 127),
        ("cvt.u64.u16 D, ha;", [0xffff_1234, 0, 0], 0x1234),
    ]);
    check16(&[
        ("cvt.rn.f16.f32 hd, a", [f(1.5), 0, 0], 0x3e00),
        ("cvt.rn.bf16.f32 hd, a", [f(1.5), 0, 0], 0x3fc0),
        ("cvt.rn.f16.s32 hd, a", [3, 0, 0], 0x4200),
        ("cvt.u16.u32 hd, a", [0x1_2345, 0, 0], 0x2345),
        ("cvt.s16.s8 hd, a", [0x80, 0, 0], 0xff80),
        ("cvt.rn.satfinite.e4m3x2.f32 hd, a, b", [f(1.0), f(0.0), 0], 0x3800),
    ]);
}

#[test]
fn moves_and_packing() {
    check(&[
        ("mov.b64 D, {a, b};", [1, 2, 0], 0x2_0000_0001),
        ("mov.b64 {d, e}, A; mov.b64 D, {e, d};", [0x1_0000_0002, 0, 0], 0x2_0000_0001),
        ("mov.b64 D, {ha, hb, hc, ha};", [1, 2, 3], 0x1_0003_0002_0001),
        ("mov.b32 d, {ha, hb}; cvt.u64.u32 D, d;", [1, 2, 0], 0x2_0001),
        ("mov.b32 {ha, hd}, a; cvt.u64.u16 D, hd;", [0x1234_5678, 0, 0], 0x1234),
        ("mov.b64 {_, d}, A; cvt.u64.u32 D, d;", [0x1_0000_0002, 0, 0], 1),
        ("mov.f64 D, 0d3FF0000000000000;", [0; 3], g(1.0)),
        ("mov.f32 d, 0f3F800000; cvt.u64.u32 D, d;", [0; 3], f(1.0)),
        ("mov.u32 d, WARP_SZ; cvt.u64.u32 D, d;", [0; 3], 32),
        ("mov.u32 d, %ntid.y; cvt.u64.u32 D, d;", [0; 3], 1),
        (".reg .b128 w; mov.b128 w, {A, B}; mov.b128 {C, D}, w;", [1, 2, 0], 2),
        (
            ".reg .v2 .b32 v; mov.u32 v.x, 3; mov.u32 v.y, 4; add.u32 d, v.x, v.y; cvt.u64.u32 D, d;",
            [0; 3],
            7,
        ),
        ("{ .reg .b32 a; mov.u32 a, 9; cvt.u64.u32 D, a; } add.u64 D, D, A;", [1, 0, 0], 10),
    ]);
}

#[test]
fn memory_of_every_space() {
    check(&[
        (
            ".local .align 8 .b8 l[32]; st.local.u64 [l+8], A; ld.local.u8 d, [l+9]; cvt.u64.u32 D, d;",
            [0x1234, 0, 0],
            0x12,
        ),
        (
            ".local .align 8 .b8 l[32]; .reg .b64 p0; mov.u64 p0, l; cvta.local.u64 p0, p0; st.u32 [p0+4], a; ld.local.u64 D, [l]; and.b64 D, D, 0xffffffff00000000;",
            [7, 0, 0],
            7 << 32,
        ),
        (
            ".shared .align 8 .b8 s[32]; st.shared.v2.u32 [s+8], {a, b}; bar.sync 0; ld.shared.u64 D, [s+8];",
            [1, 2, 0],
            0x2_0000_0001,
        ),
        (
            ".shared .align 8 .b8 s[32]; .reg .b64 p0; mov.u64 p0, s; cvta.shared.u64 p0, p0; st.u32 [p0], a; ld.shared.s16 D, [s];",
            [0xfff0, 0, 0],
            NEG - 15,
        ),
        ("st.global.u32 [pin+8], a; ld.volatile.global.u32 d, [pin+8]; cvt.u64.u32 D, d;", [5, 0, 0], 5),
        ("ld.global.nc.L1::no_allocate.L2::128B.v2.u64 {D, C}, [pin];", [5, 6, 7], 5),
        ("ld.global.s8 d, [pin]; cvt.s64.s32 D, d;", [0x80, 0, 0], NEG - 127),
        ("ld.global.u16 hd, [pin]; cvt.u64.u16 D, hd;", [0x1_8000, 0, 0], 0x8000),
        ("ld.relaxed.gpu.global.u64 D, [pin+8];", [0, 6, 0], 6),
        ("ld.acquire.sys.u64 D, [pin+16];", [0, 0, 9], 9),
        ("isspacep.global p, pin; selp.u64 D, 1, 0, p;", [0; 3], 1),
        ("isspacep.shared p, pin; selp.u64 D, 1, 0, p;", [0; 3], 0),
        (".reg .b64 p0; mov.b64 p0, in; ld.param.u64 D, [p0]; sub.u64 D, D, pin;", [0; 3], 0),
        (
            ".reg .b64 p0; mov.b64 p0, in; cvta.param.u64 p0, p0; ld.u64 D, [p0]; sub.u64 D, D, pin;",
            [0; 3],
            0,
        ),
        (".reg .b128 w; ld.global.b128 w, [pin]; mov.b128 {C, D}, w;", [1, 2, 0], 2),
        (
            ".shared .align 16 .b8 s[32]; .reg .b64 p0; cvta.to.global.u64 p0, pin; cp.async.ca.shared.global [s], [p0], 8; cp.async.ca.shared.global [s+8], [p0+8], 8, 4; cp.async.commit_group; cp.async.wait_group 0; ld.shared.u64 D, [s+8];",
            [0, NEG, 0],
            0xffff_ffff,
        ),
        (
            ".shared .align 8 .b8 m[8]; .reg .b64 t; mov.u32 d, %tid.x; setp.eq.u32 p, d, 0; mov.u32 e, %ntid.x; @p mbarrier.init.shared.b64 [m], e; bar.sync 0; mbarrier.arrive.shared::cta.b64 t, [m]; W: mbarrier.try_wait.shared.b64 q, [m], t; @!q bra W; mbarrier.test_wait.parity.shared.b64 q, [m], 0; selp.u64 D, 1, 0, q;",
            [0; 3],
            1,
        ),
        (
            ".reg .b128 w, x, y; mov.b128 w, {A, B}; st.global.b128 [pin], w; mov.b128 x, {C, A}; mov.u32 d, %tid.x; setp.eq.u32 p, d, 0; @p atom.cas.b128 y, [pin], w, x; bar.warp.sync -1; ld.global.b128 w, [pin]; mov.b128 {D, C}, w;",
            [1, 2, 3],
            3,
        ),
        (
            ".shared .align 4 .b8 s[4]; st.shared.u32 [s], a; bar.warp.sync -1; mov.u32 d, %tid.x; setp.eq.u32 p, d, 0; @p atom.shared.max.u32 d, [s], b; bar.warp.sync -1; ld.shared.u32 e, [s]; cvt.u64.u32 D, e;",
            [5, 9, 0],
            9,
        ),
        (
            ".shared .align 4 .b8 s[4]; st.shared.u32 [s], a; bar.warp.sync -1; red.shared.add.f32 [s], b; bar.warp.sync -1; ld.shared.u32 e, [s]; mov.u32 d, %ntid.x; cvt.rn.f32.u32 d, d; sub.f32 d, d, e; neg.f32 d, d; cvt.u64.u32 D, d;",
            [f(0.5), f(1.0), 0],
            f(0.5),
        ),
        ("alloca.u64 D, 16; st.local.u64 [D], A; ld.local.u64 D, [D];", [77, 0, 0], 77),
    ]);
}

#[test]
fn special_registers() {
    check(&[
        (
            "mov.u32 d, %laneid; mov.u32 e, %tid.x; and.b32 e, e, 31; sub.u32 d, d, e; cvt.u64.u32 D, d;",
            [0; 3],
            0,
        ),
        (
            "mov.u32 d, %lanemask_eq; mov.u32 e, %lanemask_lt; popc.b32 e, e; shr.u32 d, d, e; cvt.u64.u32 D, d;",
            [0; 3],
            1,
        ),
        (
            "mov.u32 d, %lanemask_ge; mov.u32 e, %lanemask_lt; add.u32 d, d, e; cvt.u64.u32 D, d;",
            [0; 3],
            0xffff_ffff,
        ),
        (
            "mov.u64 A, %globaltimer; mov.u64 B, %clock64; setp.gt.u64 p, A, 1000; selp.u64 D, 1, 0, p;",
            [0; 3],
            1,
        ),
        ("mov.u32 d, %nctaid.x; mov.u32 e, %cluster_nctarank; add.u32 d, d, e; cvt.u64.u32 D, d;", [0; 3], 2),
        ("mov.u32 d, %total_smem_size; cvt.u64.u32 D, d;", [0; 3], 0),
    ]);
}

#[test]
fn what_is_not_known_is_refused_by_name_and_line() {
    let entry = |code: &str| {
        format!(".visible .entry k() {{ .reg .b32 a, b, d; .reg .b64 A; .reg .pred p;\n{code}\nret; }}")
    };
    for (code, needle) in [
        ("tex.2dms.v4.f32.f32 {a,b,d,a}, [A, {a,b}];", "tex.2dms.v4.f32.f32 is not supported"),
        ("add.magic.s32 d, a, b;", "modifier .magic"),
        ("wgmma.fence.sync.aligned;", "wgmma.fence.sync.aligned is not supported"),
        ("cp.async.bulk.tensor.1d.shared::cluster.global.tile [a], [A, {b}];", "cp.async.bulk.tensor"),
        ("add.s32 d, a, A;", "width"),
        ("add.s32 d, a;", "operands"),
        ("add.s32 d, a, x;", "unknown name x"),
        ("bra NOWHERE;", "NOWHERE is not a label"),
        ("call foo, ();", "call of foo, which is not defined"),
        ("call cudaLaunchDeviceV2, ();", "cudaLaunchDeviceV2: this function of the device runtime"),
        ("setp.lt.s32 d, a, b;", "width"),
        ("mma.sp.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {a}, {a}, {a}, {a}, a, 0;", "mma.sp"),
        ("@d mov.u32 a, b;", "guard d is not a predicate"),
        ("L: L: ret;", "defined twice"),
        ("st.param.u32 [d], a;", "cannot be written"),
    ] {
        let error = refused(&entry(code));
        assert_eq!(error.line, 5, "{code}: {error}");
        assert!(error.message.contains(needle), "{code}: {error}");
    }
}
