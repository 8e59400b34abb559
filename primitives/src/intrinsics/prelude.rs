//! Functions that every program can call, in the language itself.
//!
//! The transcendental functions are polynomials of fused multiply-adds (argument reduction after Cody and Waite,
//! coefficients of the Cephes library), so that every executor gives the same bits; their error is below 2 units in
//! the last place for `exp`, `log`, and for `sin`, `cos` of arguments below 8192 in magnitude.

use std::fmt::Write as _;

/// Functions of numbers and pixels.
const NUMBERS: &str = "\
GPU_FUNCTION exp(x float) → float:
  CALCULATE c = min(max(x, -110.0), 100.0)
  CALCULATE k = round(c * 1.44269504)
  CALCULATE r = fma(k, -0.693359375, c)
  CALCULATE r = fma(k, 0.000212194440, r)
  CALCULATE p = fma(r, 0.000198756915, 0.00139819995)
  CALCULATE p = fma(p, r, 0.00833345191)
  CALCULATE p = fma(p, r, 0.0416657959)
  CALCULATE p = fma(p, r, 0.166666655)
  CALCULATE p = fma(p, r, 0.5)
  CALCULATE y = fma(p, r * r, r) + 1.0
  CALCULATE e = int(k)
  CALCULATE h = e >> 1
  CALCULATE y = y * as_float((h + 127) << 23) * as_float((e - h + 127) << 23)
  RETURN select(x != x, x, y)
GPU_END
GPU_FUNCTION log(x float) → float:
  CALCULATE small = x < 1.17549435e-38
  CALCULATE v = select(small, x * 33554432.0, x)
  CALCULATE u = int(bits(v))
  CALCULATE e = (u >> 23) - 126
  CALCULATE e = select(small, e - 25, e)
  CALCULATE m = as_float((u & 0x7fffff) | 0x3f000000)
  CALCULATE low = m < 0.707106781
  CALCULATE e = select(low, e - 1, e)
  CALCULATE f = select(low, m + m, m) - 1.0
  CALCULATE z = f * f
  CALCULATE p = fma(f, 0.0703768358, -0.115146101)
  CALCULATE p = fma(p, f, 0.116769987)
  CALCULATE p = fma(p, f, -0.124201408)
  CALCULATE p = fma(p, f, 0.142493223)
  CALCULATE p = fma(p, f, -0.166680577)
  CALCULATE p = fma(p, f, 0.200007148)
  CALCULATE p = fma(p, f, -0.249999940)
  CALCULATE p = fma(p, f, 0.333333313)
  CALCULATE y = p * f * z
  CALCULATE t = float(e)
  CALCULATE y = fma(t, -0.000212194440, y)
  CALCULATE y = fma(z, -0.5, y)
  CALCULATE r = fma(t, 0.693359375, f + y)
  CALCULATE r = select(x == 0.0, as_float(0xff800000u), r)
  CALCULATE r = select(x < 0.0 OR x != x, as_float(0x7fffffffu), r)
  RETURN select(x == as_float(0x7f800000u), x, r)
GPU_END
GPU_FUNCTION turn(x float, quarter int) → float:
  CALCULATE k = round(x * 0.636619772)
  CALCULATE r = fma(k, -1.5703125, x)
  CALCULATE r = fma(k, -0.000483751297, r)
  CALCULATE r = fma(k, -0.0000000754978996, r)
  CALCULATE q = (int(k) + quarter) & 3
  CALCULATE z = r * r
  CALCULATE s = fma(z, -0.000195152959, 0.00833216087)
  CALCULATE s = fma(s, z, -0.166666546)
  CALCULATE s = fma(s * z, r, r)
  CALCULATE c = fma(z, 0.0000244331571, -0.00138873162)
  CALCULATE c = fma(c, z, 0.0416666456)
  CALCULATE c = fma(c, z * z, fma(z, -0.5, 1.0))
  CALCULATE y = select((q & 1) == 0, s, c)
  RETURN select((q & 2) == 0, y, -y)
GPU_END
GPU_FUNCTION sin(x float) → float:
  RETURN turn(x, 0)
GPU_END
GPU_FUNCTION cos(x float) → float:
  RETURN turn(x, 1)
GPU_END
GPU_FUNCTION pow(x float, y float) → float:
  CALCULATE r = exp(y * log(x))
  CALCULATE r = select(x == 0.0, select(y > 0.0, 0.0, as_float(0x7f800000u)), r)
  RETURN select(y == 0.0, 1.0, r)
GPU_END
GPU_FUNCTION tanh(x float) → float:
  CALCULATE a = abs(x)
  CALCULATE e = exp(a + a)
  CALCULATE far = 1.0 - 2.0 / (e + 1.0)
  CALCULATE z = x * x
  CALCULATE p = fma(z, -0.00570498872, 0.0206390887)
  CALCULATE p = fma(p, z, -0.0537397155)
  CALCULATE p = fma(p, z, 0.133314422)
  CALCULATE p = fma(p, z, -0.333332820)
  CALCULATE near = fma(p * z, x, x)
  RETURN select(a < 0.625, near, select(x < 0.0, -far, far))
GPU_END
GPU_FUNCTION sigmoid(x float) → float:
  RETURN 1.0 / (1.0 + exp(-x))
GPU_END
GPU_FUNCTION relu(x float) → float:
  RETURN max(x, 0.0)
GPU_END
GPU_FUNCTION lerp(a float, b float, t float) → float:
  RETURN fma(t, b - a, a)
GPU_END
GPU_FUNCTION luma(p pixel) → int:
  RETURN (p.r * 54 + p.g * 183 + p.b * 19) >> 8
GPU_END
GPU_FUNCTION correct(c float, l float, brightness float, contrast float, saturation float) → float:
  CALCULATE s = fma(c - l, saturation, l)
  RETURN fma(s - 127.5, contrast, fma(brightness, 255.0, 127.5))
GPU_END
GPU_FUNCTION color_correct(p pixel, brightness float, contrast float, saturation float) → pixel:
  CALCULATE r = float(p.r)
  CALCULATE g = float(p.g)
  CALCULATE b = float(p.b)
  CALCULATE l = fma(0.2126, r, fma(0.7152, g, 0.0722 * b))
  CALCULATE x = correct(r, l, brightness, contrast, saturation)
  CALCULATE y = correct(g, l, brightness, contrast, saturation)
  CALCULATE z = correct(b, l, brightness, contrast, saturation)
  RETURN pixel(x, y, z, p.a)
GPU_END
";

/// Lines that make sure that an image of `w` by `h` pixels lies within the array.
const SIZE: &str = "  REQUIRE w > 0 AND h > 0\n  CALCULATE rows = len(img) / w\n  REQUIRE h <= rows\n";

/// The whole text.
pub(super) fn text() -> String {
    let mut out = NUMBERS.to_owned();
    window(&mut out, "gaussian3", &[1, 2, 1]);
    window(&mut out, "gaussian5", &[1, 4, 6, 4, 1]);
    sobel(&mut out);
    out
}

/// A binomial window: weights in both directions, borders repeated, rounded to nearest. Two components are summed in
/// one word: the greatest sum is 255 * 256 and fits into 16 bits.
fn window(out: &mut String, name: &str, weights: &[i32]) {
    let reach = i32::try_from(weights.len() / 2).expect("a small window");
    let sum: i32 = weights.iter().sum();
    let shift = (sum * sum).trailing_zeros();
    let half = (sum * sum / 2) * 0x0001_0001;
    let _ = write!(out, "GPU_FUNCTION {name}(img pixel[], x int, y int, w int, h int) → pixel:\n{SIZE}");
    out.push_str("  CALCULATE even = 0u\n  CALCULATE odd = 0u\n");
    let _ = writeln!(
        out,
        "  IF x >= {reach} AND x < w - {reach} AND y >= {reach} AND y < h - {reach}:\n    CALCULATE at = y * w + x"
    );
    let row = |out: &mut String, dy: i32, places: &[String]| {
        let side = |d: i32| usize::try_from(d + reach).expect("within the window");
        for dx in -reach..=reach {
            let (i, place) = (side(dx), &places[side(dx)]);
            let _ = writeln!(out, "    CALCULATE p{i} = bits(img[{place}])");
            let _ = writeln!(
                out,
                "    CALCULATE e{i} = p{i} & 0xff00ffu\n    CALCULATE o{i} = (p{i} >> 8) & 0xff00ffu"
            );
        }
        for part in ["e", "o"] {
            // Weights are symmetrical: add first, multiply once.
            let mut terms = Vec::new();
            for d in 0..=reach {
                let (left, right, weight) = (side(-d), side(d), weights[side(d)]);
                let inner =
                    if d == 0 { format!("{part}{left}") } else { format!("({part}{left} + {part}{right})") };
                terms.push(if weight == 1 { inner } else { format!("{inner} * {weight}u") });
            }
            terms.reverse();
            let (total, weight) = (if part == "e" { "even" } else { "odd" }, weights[side(dy)]);
            let row = terms.join(" + ");
            if weight == 1 {
                let _ = writeln!(out, "    CALCULATE {total} = {total} + ({row})");
            } else {
                let _ = writeln!(out, "    CALCULATE {total} = ({row}) * {weight}u + {total}");
            }
        }
    };
    for dy in -reach..=reach {
        let base = if dy == 0 { "at".to_owned() } else { format!("row{}", dy + reach) };
        if dy != 0 {
            let sign = if dy < 0 { "-" } else { "+" };
            let _ = writeln!(out, "    CALCULATE {base} = at {sign} w * {}", dy.abs());
        }
        let places: Vec<String> = (-reach..=reach)
            .map(|dx| {
                if dx == 0 {
                    base.clone()
                } else {
                    format!("{base} {} {}", if dx < 0 { "-" } else { "+" }, dx.abs())
                }
            })
            .collect();
        row(out, dy, &places);
    }
    out.push_str("  ELSE:\n");
    for dx in -reach..=reach {
        let _ = writeln!(out, "    CALCULATE cx{} = clamp(x + {dx}, 0, w - 1)", dx + reach);
    }
    for dy in -reach..=reach {
        let _ = writeln!(out, "    CALCULATE line{} = clamp(y + {dy}, 0, h - 1) * w", dy + reach);
        let places: Vec<String> =
            (-reach..=reach).map(|dx| format!("line{} + cx{}", dy + reach, dx + reach)).collect();
        row(out, dy, &places);
    }
    let mask = "0xff00ffu";
    let _ = write!(
        out,
        "  CALCULATE even = ((even + {half}u) >> {shift}) & {mask}\n  CALCULATE odd = ((odd + {half}u) >> {shift}) & {mask}\n  \
         RETURN as_pixel(even | (odd << 8))\nGPU_END\n"
    );
}

/// The gradient of the luma: |horizontal| + |vertical|, at most 255, as grey; borders repeated.
fn sobel(out: &mut String) {
    let _ = write!(out, "GPU_FUNCTION sobel(img pixel[], x int, y int, w int, h int) → pixel:\n{SIZE}");
    for d in 0..3 {
        let _ = writeln!(out, "  CALCULATE cx{d} = clamp(x + {}, 0, w - 1)", d - 1);
        let _ = writeln!(out, "  CALCULATE line{d} = clamp(y + {}, 0, h - 1) * w", d - 1);
    }
    for y in 0..3 {
        for x in 0..3 {
            if (x, y) != (1, 1) {
                let _ = writeln!(out, "  CALCULATE l{y}{x} = luma(img[line{y} + cx{x}])");
            }
        }
    }
    out.push_str(
        "  CALCULATE gx = l02 + 2 * l12 + l22 - l00 - 2 * l10 - l20\n  \
         CALCULATE gy = l20 + 2 * l21 + l22 - l00 - 2 * l01 - l02\n  CALCULATE v = min(abs(gx) + abs(gy), 255)\n  \
         RETURN pixel(v, v, v, 255)\nGPU_END\n",
    );
}
