//! PARALLEL_MATMUL: tiles of 128 by 128, each thread 8 by 8 of them, in registers.
//!
//! A block of 256 threads keeps 8 columns of `a` and 8 rows of `b` in shared memory and fetches the next ones while it
//! multiplies. Each product is summed in the order of the depth, with one rounding per step, on every executor.

use std::fmt::Write as _;

use super::{Extra, Number, launch, tile_type};
use crate::plan::{Launch, Operand};
use crate::program::Kernel;
use crate::types::Element;

/// Rows and columns of a block's tile.
const TILE: u64 = 128;
/// Threads of a block.
const THREADS: u64 = 256;
/// Depth of a tile.
const DEPTH: usize = 8;
/// Elements between the rows of `a`'s tile: four more than needed, so that the columns that are written together lie
/// in different banks; a multiple of four, so that they can be read four at once.
const STRIDE: usize = 132;

/// The kernel in the language.
pub(super) fn text(name: &str, [a, b, c]: [Element; 3]) -> String {
    let ty = tile_type(a);
    let zero = if matches!(ty, "int" | "uint") { format!("{ty}(0)") } else { format!("{ty}(0.0)") };
    let mut out = String::new();
    let _ = write!(
        out,
        "GPU_KERNEL {name}\nGPU_PARAM a {}[]\nGPU_PARAM b {}[]\nGPU_PARAM c {}[]\nGPU_PARAM m int\nGPU_PARAM n int\n\
         GPU_PARAM k int\nGPU_BLOCK {THREADS}\nGPU_SHARED_MEM ta {ty} {}\nGPU_SHARED_MEM tb {ty} {}\nGPU_THREAD_CODE:\n\
         \x20 LOCAL_ID → lid\n  BLOCK_ID → bid\n  CALCULATE tiles = (n + 127) / 128\n\
         \x20 CALCULATE row0 = bid / tiles * 128\n  CALCULATE col0 = bid % tiles * 128\n\
         \x20 CALCULATE tx = (lid & 15) * 4\n  CALCULATE ty = (lid >> 4) * 4\n\
         \x20 CALCULATE arow = lid >> 3\n  CALCULATE ak = lid & 7\n  CALCULATE bk = lid >> 7\n  CALCULATE bcol = lid & 127\n",
        a.name(),
        b.name(),
        c.name(),
        STRIDE * DEPTH,
        128 * DEPTH,
    );
    for i in 0..4 {
        let _ = writeln!(out, "  CALCULATE ra{i} = {zero}\n  CALCULATE rb{i} = {zero}");
        let _ = writeln!(out, "  CALCULATE ga{i} = (row0 + arow + {}) * k + ak", i * 32);
        let _ = writeln!(out, "  CALCULATE oka{i} = row0 + arow + {} < m", i * 32);
        let _ = writeln!(out, "  CALCULATE gb{i} = (bk + {}) * n + col0 + bcol", i * 2);
    }
    out.push_str("  CALCULATE okb = col0 + bcol < n\n");
    for i in 0..8 {
        for j in 0..8 {
            let _ = writeln!(out, "  CALCULATE s{i}{j} = {zero}");
        }
    }
    let fetch = |out: &mut String, indent: &str, at: &str| {
        for i in 0..4 {
            let _ = writeln!(out, "{indent}CALCULATE ra{i} = {zero}");
            let _ = writeln!(out, "{indent}IF oka{i} AND {at} + ak < k: LOAD a[ga{i} + {at}] → ra{i}");
            let _ = writeln!(out, "{indent}CALCULATE rb{i} = {zero}");
            let _ = writeln!(
                out,
                "{indent}IF okb AND {at} + bk + {} < k: LOAD b[gb{i} + {at} * n] → rb{i}",
                i * 2
            );
        }
    };
    fetch(&mut out, "  ", "0");
    out.push_str("  FOR t IN 0..k STEP 8:\n");
    for i in 0..4 {
        let _ = writeln!(out, "    STORE ra{i} → ta[ak * {STRIDE} + arow + {}]", i * 32);
        let _ = writeln!(out, "    STORE rb{i} → tb[(bk + {}) * 128 + bcol]", i * 2);
    }
    out.push_str("    SYNC_THREADS\n    CALCULATE next = t + 8\n    IF next < k:\n");
    fetch(&mut out, "      ", "next");
    for d in 0..DEPTH {
        for half in 0..2 {
            for i in 0..4 {
                let _ =
                    writeln!(out, "    LOAD ta[ty + {}] → a{}_{d}", d * STRIDE + half * 64 + i, half * 4 + i);
            }
        }
        for half in 0..2 {
            for j in 0..4 {
                let _ =
                    writeln!(out, "    LOAD tb[tx + {}] → b{}_{d}", d * 128 + half * 64 + j, half * 4 + j);
            }
        }
        for i in 0..8 {
            for j in 0..8 {
                let _ = writeln!(out, "    CALCULATE s{i}{j} = fma(a{i}_{d}, b{j}_{d}, s{i}{j})");
            }
        }
    }
    out.push_str("    SYNC_THREADS\n");
    for i in 0..8 {
        let _ = writeln!(out, "  CALCULATE line{i} = row0 + ty + {}", (i / 4) * 64 + i % 4);
        let _ = writeln!(out, "  IF line{i} < m:");
        let _ = writeln!(out, "    CALCULATE base{i} = line{i} * n + col0 + tx");
        for j in 0..8 {
            let offset = (j / 4) * 64 + j % 4;
            let _ = writeln!(out, "    IF col0 + tx + {offset} < n: STORE s{i}{j} → c[base{i} + {offset}]");
        }
    }
    out.push_str("GPU_END\n");
    out
}

/// One launch with a block for each tile.
pub(super) fn launches(
    kernel: &Kernel,
    operands: &[Operand],
    [a, b, c]: [usize; 3],
    dims: Option<[Number; 3]>,
) -> Result<Vec<Launch>, String> {
    let [la, lb, lc] = [a, b, c].map(|index| operands[index].length);
    let [m, n, k] = match dims {
        Some(dims) => {
            let [m, n, k] = dims.map(|number| u64::try_from(number.value(operands)).unwrap_or(0));
            let sizes = [(a, la, m, k), (b, lb, k, n), (c, lc, m, n)];
            for (index, length, rows, columns) in sizes {
                if rows * columns > length {
                    let name = &kernel.params[index].name;
                    return Err(format!("`{name}` has {length} elements; {rows} by {columns} are needed"));
                }
            }
            [m, n, k]
        }
        None => shape(la, lb, lc).ok_or_else(|| {
            format!(
                "no matrix shapes have {la}, {lb} and {lc} elements; name them with DIMS rows columns depth"
            )
        })?,
    };
    let blocks = m.div_ceil(TILE) * n.div_ceil(TILE);
    let extra =
        |value: u64| i32::try_from(value).map_err(|_| format!("{value} rows or columns are too many"));
    let extras = vec![(Extra::Rows, extra(m)?), (Extra::Columns, extra(n)?), (Extra::Depth, extra(k)?)];
    Ok(vec![launch(0, blocks * THREADS, extras)])
}

/// Rows, columns and depth from the lengths of a (m k), b (k n) and c (m n): there is at most one solution.
fn shape(a: u64, b: u64, c: u64) -> Option<[u64; 3]> {
    let side = |x: u64, y: u64, z: u64| {
        // x y / z is the square of the side that x and y share.
        let (product, z) = (u128::from(x) * u128::from(y), u128::from(z));
        if z == 0 || product % z != 0 {
            return None;
        }
        let square = product / z;
        let root = square.isqrt();
        (root * root == square).then(|| u64::try_from(root).ok()).flatten()
    };
    let (m, n, k) = (side(a, c, b)?, side(b, c, a)?, side(a, b, c)?);
    (m * k == a && k * n == b && m * n == c).then_some([m, n, k])
}

#[cfg(test)]
mod tests {
    use super::shape;

    #[test]
    fn shapes_follow_from_lengths() {
        assert_eq!(shape(6, 12, 8), Some([2, 4, 3]));
        assert_eq!(shape(16, 16, 16), Some([4, 4, 4]));
        assert_eq!(shape(6, 12, 9), None);
        assert_eq!(shape(0, 12, 9), None);
    }
}
