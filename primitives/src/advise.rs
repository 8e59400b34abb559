//! The static adviser: what of a program will run slower than it could, with its line.
//!
//! It speaks only of what the text alone decides: distances between the elements of neighbouring threads, threads of a
//! warp that take different ways, elements that a loop loads again, blocks that leave a multiprocessor idle.

use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::facts::{Facts, Stride};
use crate::ir::{ArrayRef, BinaryOp, Def, Expr, ExprKind, Stmt, Unit, VarId, visit_statements};
use crate::program::Kernel;

/// Threads of a warp, on every GPU so far.
const WARP: i64 = 32;
/// Bytes that one access to memory brings at least (CUDA C++ Best Practices Guide, "Coalesced Access to Global Memory").
const SECTOR: i64 = 32;
/// Threads, blocks and bytes of shared memory of one multiprocessor, and what each block takes of the latter (CUDA C++
/// Programming Guide, "Compute Capabilities", 9.0; others differ little).
const MOST_THREADS: u32 = 2048;
const MOST_BLOCKS: u32 = 32;
const SHARED: u32 = 228 << 10;
const SHARED_RESERVED: u32 = 1 << 10;

/// Adds what is worth saying about the kernels. The library's own code is not the author's.
pub(crate) fn advise(kernels: &[Kernel], diagnostics: &mut Diagnostics) {
    for kernel in kernels.iter().filter(|kernel| kernel.schedule.is_map()) {
        let unit = &kernel.stages[0].unit;
        let mut adviser =
            Adviser { unit, facts: Facts::new(unit), diagnostics: &mut *diagnostics, loops: Vec::new() };
        adviser.block(kernel);
        adviser.body(&unit.body);
    }
}

struct Adviser<'a> {
    unit: &'a Unit,
    facts: Facts<'a>,
    diagnostics: &'a mut Diagnostics,
    /// Variables of the loops around, and their bodies.
    loops: Vec<(VarId, &'a [Stmt])>,
}

impl<'a> Adviser<'a> {
    fn warn(&mut self, code: &'static str, line: u32, message: String, hint: &str) {
        let span = Span { line, column: 1, length: 1 };
        self.diagnostics.push(Diagnostic::warning(code, span, message).hint(hint));
    }

    fn body(&mut self, body: &'a [Stmt]) {
        for stmt in body {
            match stmt {
                Stmt::Load { array, index, line, site, .. } if *site != crate::ir::TRUSTED_SITE => {
                    self.access("load", *array, index, *line);
                    self.repeated(*array, index, *line);
                }
                Stmt::Store { array, index, line, .. } => self.access("store", *array, index, *line),
                Stmt::If { condition, then, otherwise, line } => {
                    self.divergence(condition, otherwise, *line);
                    self.body(then);
                    self.body(otherwise);
                }
                Stmt::For { var, body, .. } => {
                    self.loops.push((*var, body));
                    self.body(body);
                    self.loops.pop();
                }
                _ => {}
            }
        }
    }

    /// Neighbouring threads should use neighbouring elements.
    fn access(&mut self, what: &str, array: ArrayRef, index: &Expr, line: u32) {
        let size = i64::try_from(self.unit.element(array).bytes()).expect("at most 8");
        let name = self.unit.array_name(array).to_owned();
        match (array, self.facts.stride(index)) {
            (ArrayRef::Param(_), Stride::Step(step)) if step.abs() > 1 => {
                let useful = size * 100 / (step.abs() * size).min(SECTOR).max(size);
                let message = format!(
                    "this {what} is not coalesced: neighbouring threads use elements of `{name}` {} apart, so {useful} % of \
                     what memory brings is used",
                    step.abs()
                );
                self.warn("uncoalesced", line, message, "let neighbouring threads use neighbouring elements, or LOAD_COALESCED into shared memory first");
            }
            (ArrayRef::Param(_), Stride::Scaled) => {
                let message = format!(
                    "this {what} may not be coalesced: the distance between the elements of `{name}` that neighbouring threads \
                     use depends on the arguments"
                );
                self.warn("uncoalesced", line, message, "let the fastest index follow the thread's number");
            }
            (ArrayRef::Shared(_), Stride::Step(step)) => {
                // 32 banks of 4 bytes.
                let words = step.abs() * size / 4;
                let ways = gcd(words, WARP);
                if words > 0 && ways > 1 {
                    let message = format!(
                        "this {what} has bank conflicts: {ways} threads of a warp use the same bank of `{name}`"
                    );
                    self.warn(
                        "bank-conflict",
                        line,
                        message,
                        "make the distance odd, for instance by padding rows with one element",
                    );
                }
            }
            _ => {}
        }
    }

    /// An element that a loop loads in each turn though it stays the same.
    fn repeated(&mut self, array: ArrayRef, index: &Expr, line: u32) {
        let Some((var, body)) = self.loops.last().copied() else { return };
        let mut written = false;
        let mut changing = vec![var];
        visit_statements(body, &mut |stmt| match stmt {
            Stmt::Store { array: stored, .. } => written |= *stored == array,
            Stmt::Atomic(atomic) => written |= atomic.array == array,
            Stmt::Barrier { .. } => written = true,
            Stmt::Assign { var, .. } | Stmt::Load { var, .. } | Stmt::For { var, .. } => changing.push(*var),
            _ => {}
        });
        if written || self.depends(index, &changing, 32) {
            return;
        }
        let name = self.unit.array_name(array).to_owned();
        let message = format!("the loop loads the same element of `{name}` in each turn");
        self.warn("repeated-load", line, message, "load it once, before the loop");
    }

    fn depends(&self, expr: &Expr, on: &[VarId], depth: u32) -> bool {
        let mut found = false;
        expr.visit(&mut |part| {
            if let ExprKind::Var(var) = part.kind {
                found |= on.contains(&var)
                    || match &self.unit.vars[var as usize].def {
                        Def::Once(value) => depth == 0 || self.depends(value, on, depth - 1),
                        Def::Loaded(_) | Def::Loop(_) => false,
                        Def::Many | Def::None => true,
                    };
            }
        });
        found
    }

    /// A condition that changes from thread to thread of a warp costs both sides.
    fn divergence(&mut self, condition: &Expr, otherwise: &[Stmt], line: u32) {
        if otherwise.is_empty() || !self.alternates(condition, 16) {
            return;
        }
        let message = "threads of one warp take both sides of this IF, one after the other".to_owned();
        self.warn(
            "divergence",
            line,
            message,
            "decide by what 32 neighbouring threads have in common, such as tid / 32",
        );
    }

    /// Whether a value repeats among the threads of one warp, as `tid % 2` does.
    fn alternates(&self, expr: &Expr, depth: u32) -> bool {
        let mut found = false;
        expr.visit(&mut |part| match &part.kind {
            ExprKind::Binary(BinaryOp::Rem | BinaryOp::And, value, by) => {
                let period = by.constant_int().is_some_and(|by| by > 0 && by < WARP);
                found |= period && matches!(self.facts.stride(value), Stride::Step(_));
            }
            ExprKind::Var(var) if depth > 0 => {
                if let Def::Once(value) = &self.unit.vars[*var as usize].def {
                    found |= self.alternates(value, depth - 1);
                }
            }
            _ => {}
        });
        found
    }

    /// Blocks that leave threads of a multiprocessor idle.
    fn block(&mut self, kernel: &Kernel) {
        let block = self.unit.block;
        if !i64::from(block).rem_euclid(WARP).eq(&0) {
            let message = format!("blocks of {block} threads leave a part of their last warp idle");
            self.warn("block-size", kernel.line, message, "make GPU_BLOCK a multiple of 32");
        }
        let shared: usize =
            self.unit.shared.iter().map(|shared| shared.length as usize * shared.element.bytes()).sum();
        let shared = u32::try_from(shared).unwrap_or(u32::MAX);
        let by_shared = SHARED / (shared + SHARED_RESERVED);
        let blocks = MOST_BLOCKS.min(MOST_THREADS / block).min(by_shared);
        let percent = blocks * block * 100 / MOST_THREADS;
        if percent < 50 {
            let why = if by_shared < MOST_BLOCKS.min(MOST_THREADS / block) {
                format!("{shared} bytes of shared memory let {by_shared} blocks run on a multiprocessor")
            } else {
                format!("a multiprocessor runs at most {MOST_BLOCKS} blocks")
            };
            let message = format!("{why}: {percent} % of its threads are used (a block has {block})");
            self.warn("occupancy", kernel.line, message, "use larger blocks or less shared memory");
        }
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use crate::{Options, compile};

    fn found(params: &str, head: &str, body: &str) -> Vec<(String, u32)> {
        let text =
            format!("GPU_KERNEL k\n{params}{head}GPU_THREAD_CODE:\n    THREAD_ID → tid\n{body}GPU_END\n");
        let program = compile(&text, &Options::default()).unwrap_or_else(|found| panic!("{found:?}\n{text}"));
        program.warnings().iter().map(|d| (d.code.to_owned(), d.span.line)).collect()
    }

    const ARRAYS: &str = "GPU_PARAM a float[]\nGPU_PARAM o float[]\nGPU_PARAM n int\n";

    #[test]
    fn distances_are_seen_through_variables() {
        let body = "    CALCULATE at = tid * 4\n    LOAD a[at + 1] → x\n    STORE x → o[tid]\n";
        assert_eq!(found(ARRAYS, "", body), [("uncoalesced".to_owned(), 8)]);
        let body = "    LOAD a[tid * n] → x\n    STORE x → o[tid]\n";
        assert_eq!(found(ARRAYS, "", body), [("uncoalesced".to_owned(), 7)]);
        let body = "    LOAD a[tid + n] → x\n    LOAD a[n] → y\n    STORE x + y → o[tid]\n";
        assert_eq!(found(ARRAYS, "", body), []);
    }

    #[test]
    fn warps_that_divide_are_seen_and_guards_are_not() {
        let body = "    CALCULATE odd = tid % 2\n    IF odd == 1:\n        STORE 1.0 → o[tid]\n    ELSE:\n        STORE 2.0 → o[tid]\n";
        assert_eq!(found(ARRAYS, "", body), [("divergence".to_owned(), 8)]);
        let body = "    IF tid < n:\n        STORE 1.0 → o[tid]\n    ELSE:\n        STORE 2.0 → o[tid]\n";
        assert_eq!(found(ARRAYS, "", body), []);
    }

    #[test]
    fn a_load_that_a_loop_repeats_is_seen() {
        let body = |index: &str| {
            format!(
                "    CALCULATE s = 0.0\n    FOR i IN 0..n:\n        LOAD a[{index}] → x\n        ADD s x → s\n    STORE s → o[tid]\n"
            )
        };
        assert_eq!(found(ARRAYS, "", &body("tid")), [("repeated-load".to_owned(), 9)]);
        assert_eq!(found(ARRAYS, "", &body("i")), []);
    }

    #[test]
    fn blocks_that_leave_threads_idle_are_seen() {
        let body = "    STORE 1.0 → o[tid]\n";
        assert_eq!(found(ARRAYS, "GPU_BLOCK 100\n", body), [("block-size".to_owned(), 1)]);
        assert_eq!(found(ARRAYS, "GPU_BLOCK 32\n", body), []);
        let codes: Vec<String> =
            found(ARRAYS, "GPU_BLOCK 16\n", body).into_iter().map(|(code, _)| code).collect();
        assert!(codes.contains(&"block-size".to_owned()), "{codes:?}");
        let shared = "GPU_SHARED_MEM big float 12000\nGPU_BLOCK 64\n";
        let body = "    LOCAL_ID → l\n    STORE 1.0 → big[l]\n    SYNC_THREADS\n    IF tid < n:\n        LOAD big[l] → x\n        STORE x → o[tid]\n";
        assert_eq!(found(ARRAYS, shared, body), [("occupancy".to_owned(), 1)]);
    }
}
