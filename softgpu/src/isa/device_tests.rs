//! Every instruction here against the same instruction on a device: `tests/device/h200.txt` holds operands, edge
//! cases among them, and what an H200 (driver 580, PTX of CUDA 13.0) answered.
//!
//! Each line is the instruction, the name of its operand list, and a result per operand triple, in hexadecimal;
//! an `mma` line has its register counts, then the registers of A, B and C, lane by lane, then those of D.
//! Instructions that are defined to a bound and not to the bit are compared within that bound.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "operands and results are bit patterns in 64-bit numbers"
)]

use super::compare::{self, Cmp};
use super::cvt::{self, CvtMode, Num};
use super::float::{MinMax, Testp};
use super::half::{self, Bf16, F16, Half};
use super::int::{self, Int, Prmt};
use super::matrix::{BitOp, Element, Mma, Shape};
use super::{FloatMode, Round, approx, float};

const DEVICE: &str = include_str!("../../tests/device/h200.txt");

fn round_of(m: &str) -> Option<Round> {
    Some(match m {
        "rn" | "rni" => Round::Rn,
        "rz" | "rzi" => Round::Rz,
        "rm" | "rmi" => Round::Rm,
        "rp" | "rpi" => Round::Rp,
        "rna" => Round::Rna,
        _ => return None,
    })
}

fn num_of(m: &str) -> Option<Num> {
    Some(match m {
        "u8" => Num::U8,
        "u16" => Num::U16,
        "u32" => Num::U32,
        "u64" => Num::U64,
        "s8" => Num::S8,
        "s16" => Num::S16,
        "s32" => Num::S32,
        "s64" => Num::S64,
        "f16" => Num::F16,
        "bf16" => Num::Bf16,
        "f32" => Num::F32,
        "f64" => Num::F64,
        "tf32" => Num::Tf32,
        "e4m3x2" => Num::E4m3,
        "e5m2x2" => Num::E5m2,
        _ => return None,
    })
}

/// An instruction's name, in parts.
struct Name<'a>(Vec<&'a str>);

impl Name<'_> {
    fn has(&self, m: &str) -> bool {
        self.0.contains(&m)
    }
    fn op(&self) -> &str {
        self.0[0]
    }
    fn ty(&self) -> &str {
        self.0.last().unwrap()
    }
    fn mode(&self) -> FloatMode {
        let round = self.0.iter().find_map(|m| round_of(m)).unwrap_or_default();
        FloatMode { round, ftz: self.has("ftz"), sat: self.has("sat") }
    }
    fn min_max(&self) -> MinMax {
        MinMax { ftz: self.has("ftz"), nan: self.has("NaN"), xorsign_abs: self.has("xorsign") }
    }
}

fn integer<T: Int>(n: &Name<'_>, [x, y, z]: [u64; 3]) -> Option<u64> {
    let (a, b, c) = (T::from_bits(x), T::from_bits(y), T::from_bits(z));
    Some(
        match (n.op(), n.0.get(1).copied().unwrap_or_default()) {
            ("div", _) => int::div(a, b),
            ("rem", _) => int::rem(a, b),
            ("mul", "hi") => int::mul_hi(a, b),
            ("mul", "lo") => int::mul_lo(a, b),
            ("min", _) => int::min(a, b),
            ("max", _) => int::max(a, b),
            ("sad", _) => int::sad(a, b, c),
            ("abs", _) => int::abs(a),
            ("neg", _) => int::neg(a),
            ("shr", _) => int::shr(a, y as u32),
            ("shl", _) => int::shl(a, y as u32),
            ("bfe", _) => int::bfe(a, y as u32, z as u32),
            ("bfi", _) => int::bfi(a, b, z as u32, (z as u32) >> 8),
            ("bfind", "shiftamt") => return Some(int::bfind_shiftamt(a).into()),
            ("bfind", _) => return Some(int::bfind(a).into()),
            ("clz", _) => return Some(int::clz(a).into()),
            ("popc", _) => return Some(int::popc(a).into()),
            ("brev", _) => int::brev(a),
            ("mul24", "lo") => int::mul24_lo(a, b),
            ("mul24", "hi") => int::mul24_hi(a, b),
            ("mad24", "hi") if n.0[2] != "sat" => int::mad24_hi(a, b, c),
            ("szext", "clamp") => int::szext_clamp(a, y as u32),
            ("szext", "wrap") => int::szext_wrap(a, y as u32),
            _ => return None,
        }
        .bits(),
    )
}

fn word(name: &str, n: &Name<'_>, [a, b, c]: [u32; 3]) -> Option<u32> {
    let (sa, sb, sc) = (a as i32, b as i32, c as i32);
    let modes = [
        ("f4e", Prmt::F4e),
        ("b4e", Prmt::B4e),
        ("rc8", Prmt::Rc8),
        ("ecl", Prmt::Ecl),
        ("ecr", Prmt::Ecr),
        ("rc16", Prmt::Rc16),
    ];
    let cross = |(d, carry): (u32, bool)| d ^ u32::from(carry) << 31;
    Some(match name {
        "add.sat.s32" => int::add_sat_s32(sa, sb) as u32,
        "sub.sat.s32" => int::sub_sat_s32(sa, sb) as u32,
        "mad24.hi.sat.s32" => int::mad24_hi_sat_s32(sa, sb, sc) as u32,
        "mad.hi.sat.s32" => int::mad_hi_sat_s32(sa, sb, sc) as u32,
        "bmsk.clamp.b32" => int::bmsk_clamp(a, b),
        "bmsk.wrap.b32" => int::bmsk_wrap(a, b),
        "shf.l.clamp.b32" => int::shf_l_clamp(a, b, c),
        "shf.l.wrap.b32" => int::shf_l_wrap(a, b, c),
        "shf.r.clamp.b32" => int::shf_r_clamp(a, b, c),
        "shf.r.wrap.b32" => int::shf_r_wrap(a, b, c),
        "fns.b32" => int::fns(a, b & 31, sc),
        "min.u16x2" => int::min_u16x2(a, b),
        "max.u16x2" => int::max_u16x2(a, b),
        "min.s16x2" => int::min_s16x2(a, b),
        "max.s16x2" => int::max_s16x2(a, b),
        "min.relu.s16x2" => int::min_relu_s16x2(a, b),
        "max.relu.s16x2" => int::max_relu_s16x2(a, b),
        "min.relu.s32" => int::min_relu_s32(sa, sb) as u32,
        "max.relu.s32" => int::max_relu_s32(sa, sb) as u32,
        "addc" => cross(int::addc(b, c, int::addc(a, b, false).1)),
        "subc" => cross(int::subc(b, c, int::subc(a, b, false).1)),
        "madc" => cross(int::madc_hi(a, b, c, int::madc_lo(a, b, c, false).1)),
        "prmt.b32" => int::prmt(a, b, c, Prmt::Default),
        _ => match n.op() {
            "prmt" => int::prmt(a, b, c, modes.into_iter().find(|m| m.0 == n.ty())?.1),
            "lop3" => int::lop3(a, b, c, u8::from_str_radix(n.ty().strip_prefix("0x")?, 16).ok()?),
            "dp4a" => int::dp4a(a, n.0[1] == "s32", b, n.0[2] == "s32", c),
            "dp2a" => int::dp2a(a, n.0[2] == "s32", b, n.0[3] == "s32", c, n.has("hi")),
            _ => return None,
        },
    })
}

fn single(n: &Name<'_>, [a, b, c]: [f32; 3]) -> Option<u64> {
    let (m, ftz) = (n.mode(), n.has("ftz"));
    if n.op() == "setp" {
        return Some(compare::f32(Cmp::parse(n.0[1])?, a, b, ftz).into());
    }
    if n.op() == "testp" {
        return Some(float::testp_f32(testp(n.0[1])?, a).into());
    }
    let d = match n.op() {
        "div" if n.has("approx") => approx::div_approx_f32(a, b, ftz),
        "div" if n.has("full") => approx::div_full_f32(a, b, ftz),
        "rcp" if n.has("approx") => approx::rcp_approx_f32(a, ftz),
        "sqrt" if n.has("approx") => approx::sqrt_approx_f32(a, ftz),
        "add" => float::add_f32(a, b, m),
        "sub" => float::sub_f32(a, b, m),
        "mul" => float::mul_f32(a, b, m),
        "fma" => float::fma_f32(a, b, c, m),
        "div" => float::div_f32(a, b, m),
        "sqrt" => float::sqrt_f32(a, m),
        "rcp" => float::rcp_f32(a, m),
        "min" => float::min_f32(a, b, n.min_max()),
        "max" => float::max_f32(a, b, n.min_max()),
        "abs" => float::abs_f32(a, ftz),
        "neg" => float::neg_f32(a, ftz),
        "copysign" => float::copysign_f32(a, b),
        "rsqrt" => approx::rsqrt_approx_f32(a, ftz),
        "sin" => approx::sin_approx_f32(a, ftz),
        "cos" => approx::cos_approx_f32(a, ftz),
        "ex2" => approx::ex2_approx_f32(a, ftz),
        "lg2" => approx::lg2_approx_f32(a, ftz),
        "tanh" => approx::tanh_approx_f32(a),
        _ => return None,
    };
    Some(d.to_bits().into())
}

fn testp(p: &str) -> Option<Testp> {
    Some(match p {
        "finite" => Testp::Finite,
        "infinite" => Testp::Infinite,
        "number" => Testp::Number,
        "notanumber" => Testp::NotANumber,
        "normal" => Testp::Normal,
        "subnormal" => Testp::Subnormal,
        _ => return None,
    })
}

fn double(n: &Name<'_>, [a, b, c]: [f64; 3]) -> Option<u64> {
    let r = n.mode().round;
    if n.op() == "setp" {
        return Some(compare::f64(Cmp::parse(n.0[1])?, a, b).into());
    }
    if n.op() == "testp" {
        return Some(float::testp_f64(testp(n.0[1])?, a).into());
    }
    let d = match n.op() {
        "rcp" if n.has("approx") => approx::rcp_approx_ftz_f64(a),
        "rsqrt" => approx::rsqrt_approx_f64(a, n.has("ftz")),
        "add" => float::add_f64(a, b, r),
        "mul" => float::mul_f64(a, b, r),
        "fma" => float::fma_f64(a, b, c, r),
        "div" => float::div_f64(a, b, r),
        "sqrt" => float::sqrt_f64(a, r),
        "rcp" => float::rcp_f64(a, r),
        "min" => float::min_f64(a, b),
        "max" => float::max_f64(a, b),
        "abs" => float::abs_f64(a),
        "neg" => float::neg_f64(a),
        "copysign" => float::copysign_f64(a, b),
        _ => return None,
    };
    Some(d.to_bits())
}

fn small<H: Half>(n: &Name<'_>, [a, b, c]: [u16; 3]) -> Option<u64> {
    let m = n.mode();
    let d = match n.op() {
        "add" => half::add::<H>(a, b, m),
        "sub" => half::sub::<H>(a, b, m),
        "mul" => half::mul::<H>(a, b, m),
        "fma" => half::fma::<H>(a, b, c, m, n.has("relu")),
        "min" => half::min::<H>(a, b, n.min_max()),
        "max" => half::max::<H>(a, b, n.min_max()),
        "neg" => half::neg::<H>(a, m.ftz),
        "abs" => half::abs::<H>(a, m.ftz),
        "tanh" => half::tanh_approx::<H>(a),
        "ex2" => half::ex2_approx::<H>(a, m.ftz),
        _ => return None,
    };
    Some(d.into())
}

fn conversion(n: &Name<'_>, [a, b, c]: [u64; 3]) -> Option<u64> {
    let round = n.0.iter().find_map(|m| round_of(m)).unwrap_or_default();
    let mode = CvtMode {
        round,
        integral: n.0[1].len() == 3 && n.0[1].ends_with('i'),
        ftz: n.has("ftz"),
        sat: n.has("sat"),
        relu: n.has("relu"),
        satfinite: n.has("satfinite"),
    };
    if n.has("pack") {
        let ty = n.0[3];
        let packed = cvt::pack(ty[1..].parse().ok()?, ty.starts_with('s'), a as i32, b as i32, c as u32);
        return Some(packed.into());
    }
    let (to, from) = (n.0[n.0.len() - 2], n.ty());
    let (x, y) = (f32::from_bits(a as u32), f32::from_bits(b as u32));
    match (to, from) {
        ("f16x2", "f32") => cvt::convert_x2(Num::F16, mode, x, y).map(u64::from),
        ("bf16x2", "f32") => cvt::convert_x2(Num::Bf16, mode, x, y).map(u64::from),
        ("f16x2", _) => cvt::fp8x2_to_f16x2(num_of(from)?, mode, a as u16).map(u64::from),
        (_, "f16x2") => cvt::f16x2_to_fp8x2(num_of(to)?, mode, a as u32).map(u64::from),
        ("e4m3x2" | "e5m2x2", _) => cvt::convert_x2(num_of(to)?, mode, x, y).map(u64::from),
        _ => Some(cvt::convert(num_of(to)?, num_of(from)?, mode, a)),
    }
}

/// The result of an instruction; `None` if there is no such one here.
fn evaluate(name: &str, operands: [u64; 3]) -> Option<u64> {
    let n = Name(name.split('.').collect());
    if n.op() == "cvt" {
        return conversion(&n, operands);
    }
    let words = operands.map(|v| v as u32);
    if let Some(d) = word(name, &n, words) {
        return Some(d.into());
    }
    match n.ty() {
        "s16" => integer::<i16>(&n, operands),
        "u16" | "b16" => integer::<u16>(&n, operands),
        "s32" => integer::<i32>(&n, operands),
        "u32" | "b32" => integer::<u32>(&n, operands),
        "s64" => integer::<i64>(&n, operands),
        "u64" | "b64" => integer::<u64>(&n, operands),
        "f32" => single(&n, words.map(f32::from_bits)),
        "f64" => double(&n, operands.map(f64::from_bits)),
        "f16" => small::<F16>(&n, operands.map(|v| v as u16)),
        "bf16" => small::<Bf16>(&n, operands.map(|v| v as u16)),
        _ => None,
    }
}

/// Whether the result is the device's: to the bit, or within the bound that PTX states.
fn agree(name: &str, operands: [u64; 3], got: u64, want: u64) -> bool {
    let n = Name(name.split('.').collect());
    let [a, b, c] = operands;
    // What PTX leaves open and the device answers oddly: a step count of -2^31; which of two NaNs survives; NaN
    // in a conversion that clamps.
    let nan = |v: u64| f64::from_bits(v).is_nan();
    if name == "fns.b32" && c as u32 == 1 << 31
        || n.ty() == "f64" && nan(a) && nan(b) && nan(got) && nan(want)
        || name == "cvt.rna.satfinite.tf32.f32" && f32::from_bits(a as u32).is_nan()
    {
        return true;
    }
    if n.op() == "cvt" && !n.has("pack") {
        // A signed result comes sign-extended past the register.
        let bits = match num_of(n.0[n.0.len() - 2]) {
            Some(Num::S8 | Num::S16) => 16,
            Some(Num::S32) => 32,
            _ => 64,
        };
        return got & (u64::MAX >> (64 - bits)) == want;
    }
    if got == want || !n.has("approx") && !n.has("full") {
        return got == want;
    }
    if n.ty() == "f64" {
        let (x, y) = (f64::from_bits(got), f64::from_bits(want));
        return (x / y - 1.0).abs() <= if n.has("ftz") { 2f64.powi(-19) } else { 2f64.powi(-52) };
    }
    let value = |bits: u64| match n.ty() {
        "f16" => f64::from(F16::to_f32(bits as u16)),
        "bf16" => f64::from(Bf16::to_f32(bits as u16)),
        _ => f64::from(f32::from_bits(bits as u32)),
    };
    let (x, y) = (value(got), value(want));
    let relative = |bound: f64| (x - y).abs() <= bound * y.abs().max(f64::from(f32::MIN_POSITIVE));
    match (n.op(), n.ty()) {
        // Where PTX states an error for [-pi, pi] only, anything goes beyond.
        ("sin" | "cos", _) => {
            (x - y).abs() < 2f64.powi(-20) || value(operands[0]).abs() > std::f64::consts::PI
        }
        ("lg2", _) => (x - y).abs() < 2f64.powi(-21) || relative(2f64.powi(-21)),
        ("tanh", "f32") => relative(2f64.powi(-10)),
        ("tanh", "f16") => relative(2f64.powi(-9)),
        (_, "bf16") => relative(2f64.powi(-7)),
        (_, "f16") => relative(2f64.powi(-9)),
        _ => relative(2f64.powi(-21)),
    }
}

fn hex(s: &str) -> Vec<u64> {
    s.split(' ').map(|v| u64::from_str_radix(v, 16).unwrap()).collect()
}

#[test]
fn scalar_instructions_answer_as_the_device() {
    let mut inputs = std::collections::HashMap::new();
    let (mut count, mut wrong) = (0, String::new());
    for line in DEVICE.lines().filter(|l| !l.starts_with("mma")) {
        let (name, rest) = line.split_once(' ').unwrap();
        let (kind, values) = rest.split_once(' ').unwrap();
        if name == "input" {
            inputs.insert(kind, hex(values));
            continue;
        }
        let triples = inputs[kind].as_chunks::<3>().0;
        let mut shown = 0;
        for (t, want) in triples.iter().zip(hex(values)) {
            let got = evaluate(name, *t).unwrap_or_else(|| panic!("{name} is not covered"));
            count += 1;
            if !agree(name, *t, got, want) {
                shown += 1;
                if shown <= 6 {
                    wrong += &format!("{name} {:x} {:x} {:x}: {got:x}, device {want:x}\n", t[0], t[1], t[2]);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "of {count}:\n{wrong}");
}

/// The factors, sums and shape that the name of an `mma` gives.
fn mma_of(name: &str) -> Option<Mma> {
    let parts: Vec<_> = name.split('.').collect();
    let [_, _, _, shape, _, _, d, a, b, c, ..] = parts[..] else { return None };
    let types = [Element::parse(d)?, Element::parse(a)?, Element::parse(b)?, Element::parse(c)?];
    let bit_op = if parts.contains(&"and") { BitOp::And } else { BitOp::Xor };
    Some(Mma::mma_sync(Shape::parse(shape)?, types)?.bit_op(bit_op))
}

#[test]
fn matrix_instructions_answer_as_the_device() {
    let mut count = 0;
    for line in DEVICE.lines().filter(|l| l.starts_with("mma")) {
        let (name, rest) = line.split_once(' ').unwrap();
        let values = hex(rest);
        let mma = mma_of(name).unwrap_or_else(|| panic!("{name} is not covered"));
        let [a, b, c, d] = mma.fragments();
        assert_eq!(values[..3], [a, b, c].map(|f| u64::from(f.registers())), "{name}");
        let register = |r: u32, lane: u32| values[(3 + 32 * r + lane) as usize];
        let (before_b, before_c) = (a.registers(), a.registers() + b.registers());
        let before_d = before_c + c.registers();
        let mut written = 0;
        mma.run(
            register,
            |r, lane| register(before_b + r, lane),
            |r, lane| register(before_c + r, lane),
            |r, lane, value| {
                written += 1;
                assert_eq!(value, register(before_d + r, lane), "{name} register {r} lane {lane}");
            },
        );
        assert_eq!(written, 32 * d.registers());
        count += 1;
    }
    assert_eq!(count, 26);
}
