//! Register allocation: virtual registers to slots.
//!
//! nvcc's PTX is nearly in SSA form with thousands of registers; giving each its own slot would push a warp's
//! registers out of the cache. A linear scan over live intervals packs them. Liveness is that of one thread, which
//! is enough although lanes diverge: every lane has its own column of a slot, and instructions write only the
//! lanes that execute them.

use super::lower::{Class, Function, Low, Successors, V};

/// Slots of each class, in slots (not elements).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sizes {
    pub(super) r32: u32,
    pub(super) r64: u32,
    pub(super) preds: u32,
}

/// Where each virtual register went.
#[derive(Debug)]
pub(super) struct Allocation {
    slots: [Vec<u32>; 3],
    pub(super) sizes: Sizes,
}

const NONE: u32 = u32::MAX;

impl Allocation {
    /// The slot of a register in elements of its file; 0 for an absent operand.
    pub(super) fn element(&self, v: V) -> u32 {
        if v.is_none() {
            return 0;
        }
        let slot = self.slots[v.class() as usize][v.index() as usize];
        debug_assert_ne!(slot, NONE, "a register without a slot is used");
        match v.class() {
            Class::Pred => slot,
            Class::R32 | Class::R64 => slot * 32,
        }
    }
}

struct Blocks {
    /// First instruction of each block, plus the end.
    starts: Vec<usize>,
    /// Block of each label.
    successors: Vec<Vec<usize>>,
}

fn blocks(function: &Function<'_>) -> Blocks {
    let code = &function.code;
    let mut leader = vec![false; code.len() + 1];
    leader[0] = true;
    for at in &function.labels {
        leader[*at as usize] = true;
    }
    for (at, low) in code.iter().enumerate() {
        if !matches!(low.next, Successors::Fall) {
            leader[at + 1] = true;
        }
    }
    let mut starts: Vec<usize> = (0..code.len()).filter(|at| leader[*at]).collect();
    let block_of = |at: u32, starts: &[usize]| starts.partition_point(|start| *start <= at as usize) - 1;
    let count = starts.len();
    let mut successors = Vec::with_capacity(count);
    for index in 0..count {
        let end = starts.get(index + 1).copied().unwrap_or(code.len());
        let mut list = Vec::new();
        let last = &code[end - 1];
        let falls = match &last.next {
            Successors::Fall => true,
            Successors::Jump(label) => {
                push_target(function, *label, &starts, block_of, &mut list);
                last.guard.is_some()
            }
            Successors::Many(labels) => {
                for label in labels {
                    push_target(function, *label, &starts, block_of, &mut list);
                }
                last.guard.is_some()
            }
            Successors::End => last.guard.is_some(),
        };
        if falls && index + 1 < count {
            list.push(index + 1);
        }
        successors.push(list);
    }
    starts.push(code.len());
    Blocks { starts, successors }
}

fn push_target(
    function: &Function<'_>,
    label: u32,
    starts: &[usize],
    block_of: impl Fn(u32, &[usize]) -> usize,
    list: &mut Vec<usize>,
) {
    let at = function.labels[label as usize];
    // A label at the very end of a function is reached only to fall off it.
    if (at as usize) < function.code.len() {
        list.push(block_of(at, starts));
    }
}

/// Calls `f(register, is_def)` for each operand, uses first; partial definitions count as uses too.
fn operands(function: &Function<'_>, low: &Low, mut f: impl FnMut(V, bool)) {
    for v in [low.a, low.b, low.c] {
        if !v.is_none() {
            f(v, false);
        }
    }
    if let Some((v, _)) = low.guard {
        f(v, false);
    }
    let aux = low.aux.map(|index| &function.aux[index as usize]);
    if let Some(aux) = aux {
        aux.uses.iter().for_each(|v| f(*v, false));
    }
    let partial = low.guard.is_some() || low.keeps;
    let mut def = |v: V| {
        if partial {
            f(v, false);
        }
        f(v, true);
    };
    if !low.d.is_none() {
        def(low.d);
    }
    if let Some(aux) = aux {
        aux.defs.iter().for_each(|v| def(*v));
    }
}

/// Allocates slots for a function.
pub(super) fn allocate(function: &Function<'_>) -> Allocation {
    let counts = function.registers.map(|n| n as usize);
    let base = [0, counts[0], counts[0] + counts[1]];
    let total = counts.iter().sum::<usize>();
    let flat = |v: V| base[v.class() as usize] + v.index() as usize;
    let blocks = blocks(function);
    let words = total.div_ceil(64);
    let count = blocks.successors.len();

    // Per block: registers used before being defined, and registers defined.
    let mut used = vec![0u64; words * count];
    let mut defined = vec![0u64; words * count];
    for index in 0..count {
        let row = index * words;
        for low in &function.code[blocks.starts[index]..blocks.starts[index + 1]] {
            operands(function, low, |v, def| {
                let (word, bit) = (flat(v) / 64, 1u64 << (flat(v) % 64));
                if def {
                    defined[row + word] |= bit;
                } else if defined[row + word] & bit == 0 {
                    used[row + word] |= bit;
                }
            });
        }
    }
    let mut live_in = used;
    let mut live_out = vec![0u64; words * count];
    let mut changed = true;
    while changed {
        changed = false;
        for index in (0..count).rev() {
            for word in 0..words {
                let out =
                    blocks.successors[index].iter().fold(0, |sum, next| sum | live_in[next * words + word]);
                let at = index * words + word;
                live_out[at] = out;
                let live = live_in[at] | (out & !defined[at]);
                if live != live_in[at] {
                    live_in[at] = live;
                    changed = true;
                }
            }
        }
    }

    // One interval per register: from the first to the last place it is live or touched.
    let mut first = vec![u32::MAX; total];
    let mut last = vec![0u32; total];
    let mut touch = |register: usize, at: usize| {
        let at = u32::try_from(at).expect("functions have fewer than 2^31 instructions");
        first[register] = first[register].min(at);
        last[register] = last[register].max(at);
    };
    for index in 0..count {
        let (start, end) = (blocks.starts[index], blocks.starts[index + 1]);
        for word in 0..words {
            let at = index * words + word;
            for (bits, place) in [(live_in[at], start * 2), (live_out[at], end * 2)] {
                let mut rest = bits;
                while rest != 0 {
                    touch(word * 64 + rest.trailing_zeros() as usize, place);
                    rest &= rest - 1;
                }
            }
        }
        for (offset, low) in function.code[start..end].iter().enumerate() {
            // Uses end before definitions begin, so that `add a, a, 1` style renamings share a slot; an
            // instruction with several definitions or with an exchange between lanes must not.
            let shared = low.aux.is_none();
            operands(function, low, |v, def| {
                touch(flat(v), (start + offset) * 2 + usize::from(def || !shared));
            });
        }
    }
    scan(function, counts, base, &first, &last)
}

/// Linear scan, one class after the other.
fn scan(
    function: &Function<'_>,
    counts: [usize; 3],
    base: [usize; 3],
    first: &[u32],
    last: &[u32],
) -> Allocation {
    let mut slots: [Vec<u32>; 3] = counts.map(|n| vec![NONE; n]);
    let mut totals = [0u32; 3];
    for (v, _) in &function.constants {
        let class = v.class() as usize;
        slots[class][v.index() as usize] = totals[class];
        totals[class] += 1;
    }
    for class in 0..3 {
        let mut order: Vec<usize> = (0..counts[class])
            .filter(|index| first[base[class] + index] != u32::MAX && slots[class][*index] == NONE)
            .collect();
        order.sort_by_key(|index| first[base[class] + index]);
        let mut free = Vec::new();
        let mut active = std::collections::BinaryHeap::new();
        for index in order {
            let start = first[base[class] + index];
            while let Some(&std::cmp::Reverse((end, slot))) = active.peek() {
                if end >= start {
                    break;
                }
                active.pop();
                free.push(slot);
            }
            let slot = free.pop().unwrap_or_else(|| {
                totals[class] += 1;
                totals[class] - 1
            });
            slots[class][index] = slot;
            active.push(std::cmp::Reverse((last[base[class] + index], slot)));
        }
    }
    Allocation { slots, sizes: Sizes { r32: totals[0], r64: totals[1], preds: totals[2] } }
}
