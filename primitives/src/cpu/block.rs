//! A block in execution: its threads in lockstep, under masks.

use super::lanes::{self, Lanes};
use super::memory::{Memory, loaded, stored};
use super::{Halt, Watch};
use crate::arith;
use crate::fault::{RawFault, code};
use crate::ir::{
    ArrayRef, Atomic, AtomicOp, BinaryOp, Expr, ExprKind, SiteKind, Special, Stmt, TRUSTED_SITE, Unit, VarId,
};
use crate::plan::{Launch, Operand};
use crate::types::{Element, ParamType, Scalar};

/// Loop turns between two looks at the clock.
const WATCH_EVERY: u32 = 64;

/// The threads that take part.
#[derive(Debug, Clone)]
struct Mask {
    lanes: Vec<bool>,
    all: bool,
}

impl Mask {
    fn new(lanes: Vec<bool>) -> Self {
        let all = lanes.iter().all(|lane| *lane);
        Self { lanes, all }
    }

    fn none(&self) -> bool {
        !self.all && !self.lanes.contains(&true)
    }

    /// Of these threads, those whose condition is `holds`.
    fn and(&self, condition: &[u32], holds: bool) -> Self {
        Self::new(self.lanes.iter().zip(condition).map(|(lane, c)| *lane && (*c != 0) == holds).collect())
    }

    fn active(&self) -> impl Iterator<Item = usize> + '_ {
        self.lanes.iter().enumerate().filter(|(_, lane)| **lane).map(|(index, _)| index)
    }
}

/// Executes blocks of one launch, one after another.
pub(super) struct Block<'a> {
    unit: &'a Unit,
    stage: u32,
    arrays: &'a [Option<&'a Memory<'a>>],
    operands: &'a [Operand],
    elements: u64,
    first: u64,
    blocks: u32,
    watch: Watch<'a>,
    turns: u32,
    number: u32,
    vars: Vec<Lanes>,
    shared: Vec<Vec<u64>>,
    width: usize,
}

impl<'a> Block<'a> {
    pub(super) fn new(
        unit: &'a Unit,
        stage: usize,
        arrays: &'a [Option<&'a Memory<'a>>],
        operands: &'a [Operand],
        launch: &Launch,
        watch: Watch<'a>,
    ) -> Self {
        let width = unit.block as usize;
        Self {
            unit,
            stage: u32::try_from(stage).expect("few stages"),
            arrays,
            operands,
            elements: launch.elements,
            first: launch.first,
            blocks: launch.blocks(unit),
            watch,
            turns: 0,
            number: 0,
            vars: unit.vars.iter().map(|var| Lanes::constant(var.ty, 0, width)).collect(),
            shared: unit.shared.iter().map(|shared| vec![0; shared.length as usize]).collect(),
            width,
        }
    }

    /// Runs one block to its end.
    pub(super) fn run(&mut self, number: u64) -> Result<(), Halt> {
        if self.watch.stopped() {
            return Err(Halt::Stopped);
        }
        self.number = u32::try_from(number).expect("threads fit into 31 bits");
        let start = number * self.width as u64;
        let mask =
            Mask::new((start..start + self.width as u64).map(|thread| thread < self.elements).collect());
        let unit = self.unit;
        self.statements(&unit.body, &mask)
    }

    fn statements(&mut self, body: &'a [Stmt], mask: &Mask) -> Result<(), Halt> {
        for stmt in body {
            self.statement(stmt, mask)?;
        }
        Ok(())
    }

    fn statement(&mut self, stmt: &'a Stmt, mask: &Mask) -> Result<(), Halt> {
        match stmt {
            Stmt::Assign { var, value } => {
                let value = self.eval(value);
                self.assign(*var, value, mask);
            }
            Stmt::Load { var, array, index, site, line } => {
                let index = self.eval(index);
                let element = self.unit.element(*array);
                let length = self.length(*array);
                let mut result = std::mem::replace(&mut self.vars[*var as usize], Lanes::Words(Vec::new()));
                let fault = self.load(&mut result, *array, element, index.words(), length, mask);
                self.vars[*var as usize] = result;
                if let Some(lane) = fault {
                    return Err(self.outside(
                        SiteKind::Load(*array),
                        *line,
                        *site,
                        index.words()[lane],
                        length,
                        lane,
                    ));
                }
            }
            Stmt::Store { array, index, value, site, line } => {
                let value = self.eval(value);
                let index = self.eval(index);
                let element = self.unit.element(*array);
                let length = self.length(*array);
                for lane in mask.active() {
                    let at = index.words()[lane];
                    if at as usize >= length {
                        return Err(self.outside(SiteKind::Store(*array), *line, *site, at, length, lane));
                    }
                    self.set(*array, at as usize, stored(element, value.get(lane)));
                }
            }
            Stmt::Atomic(atomic) => self.atomic(atomic, mask)?,
            Stmt::Divisor { value, line, .. } => {
                let value = self.eval(value);
                if let Some(lane) = mask.active().find(|lane| value.words()[*lane] == 0) {
                    return Err(self.fault(code(SiteKind::Divisor), *line, 0, 0, lane));
                }
            }
            Stmt::Require { condition, line, .. } => {
                let condition = self.eval(condition);
                if let Some(lane) = mask.active().find(|lane| condition.words()[*lane] == 0) {
                    return Err(self.fault(code(SiteKind::Require), *line, 0, 0, lane));
                }
            }
            Stmt::If { condition, then, otherwise, .. } => {
                let condition = self.eval(condition);
                let taken = mask.and(condition.words(), true);
                if !taken.none() {
                    self.statements(then, &taken)?;
                }
                if !otherwise.is_empty() && !taken.all {
                    let other = mask.and(condition.words(), false);
                    if !other.none() {
                        self.statements(otherwise, &other)?;
                    }
                }
            }
            Stmt::For { var, from, to, step, body, .. } => self.counted(*var, from, to, step, body, mask)?,
            // Lockstep: everyone is here.
            Stmt::Barrier { .. } => {}
            Stmt::LoadRange { .. } => unreachable!("expanded by the checker"),
        }
        Ok(())
    }

    fn counted(
        &mut self,
        var: VarId,
        from: &'a Expr,
        to: &'a Expr,
        step: &'a Expr,
        body: &'a [Stmt],
        mask: &Mask,
    ) -> Result<(), Halt> {
        let mut counter = self.eval(from);
        let (to, step) = (self.eval(to), self.eval(step));
        let below = lanes::compare(crate::ir::CompareOp::Lt, Scalar::Int, counter.clone(), &to);
        let mut running = mask.and(below.words(), true);
        while !running.none() {
            self.turns += 1;
            if self.turns >= WATCH_EVERY {
                self.turns = 0;
                if self.watch.stopped() {
                    return Err(Halt::Stopped);
                }
            }
            self.assign(var, counter.clone(), &running);
            self.statements(body, &running)?;
            // What is left is compared, so that the sum cannot wrap past the end.
            let more: Vec<u32> = (0..self.width)
                .map(|lane| {
                    let left = to.words()[lane].wrapping_sub(counter.words()[lane]);
                    u32::from(left > step.words()[lane])
                })
                .collect();
            running = running.and(&more, true);
            lanes::binary(BinaryOp::Add, Scalar::Int, &mut counter, &step);
        }
        Ok(())
    }

    fn assign(&mut self, var: VarId, value: Lanes, mask: &Mask) {
        let slot = &mut self.vars[var as usize];
        if mask.all {
            *slot = value;
        } else {
            slot.blend(&value, &mask.lanes);
        }
    }

    // ---- memory -----------------------------------------------------------------------------------

    fn length(&self, array: ArrayRef) -> usize {
        match array {
            ArrayRef::Param(index) => self.arrays[index as usize].map_or(0, Memory::length),
            ArrayRef::Shared(index) => self.shared[index as usize].len(),
            ArrayRef::Table(index) => self.unit.tables[index as usize].bits.len(),
        }
    }

    /// Loads for the active threads; the first one that is out of bounds.
    fn load(
        &self,
        result: &mut Lanes,
        array: ArrayRef,
        element: Element,
        index: &[u32],
        length: usize,
        mask: &Mask,
    ) -> Option<usize> {
        let memory = match array {
            ArrayRef::Param(number) => self.arrays[number as usize],
            _ => None,
        };
        for (lane, at) in index.iter().enumerate().take(self.width) {
            if !mask.lanes[lane] {
                continue;
            }
            let at = *at as usize;
            if at >= length {
                return Some(lane);
            }
            let bits = match memory {
                Some(memory) => memory.get(at),
                None => self.get(array, at),
            };
            result.set(lane, loaded(element, bits));
        }
        None
    }

    fn get(&self, array: ArrayRef, at: usize) -> u64 {
        match array {
            ArrayRef::Param(index) => self.arrays[index as usize].map_or(0, |memory| memory.get(at)),
            ArrayRef::Shared(index) => self.shared[index as usize][at],
            ArrayRef::Table(index) => self.unit.tables[index as usize].bits[at],
        }
    }

    fn set(&mut self, array: ArrayRef, at: usize, bits: u64) {
        match array {
            ArrayRef::Param(index) => {
                if let Some(memory) = self.arrays[index as usize] {
                    memory.set(at, bits);
                }
            }
            ArrayRef::Shared(index) => self.shared[index as usize][at] = bits,
            ArrayRef::Table(_) => unreachable!("the checker refuses stores to tables"),
        }
    }

    fn atomic(&mut self, atomic: &'a Atomic, mask: &Mask) -> Result<(), Halt> {
        let value = self.eval(&atomic.value);
        let compare = atomic.compare.as_ref().map(|compare| self.eval(compare));
        let index = self.eval(&atomic.index);
        let ty = self.unit.element(atomic.array).value();
        let length = self.length(atomic.array);
        for lane in mask.active() {
            let at = index.words()[lane] as usize;
            if at >= length {
                let kind = SiteKind::Atomic(atomic.array);
                return Err(self.outside(kind, atomic.line, atomic.site, index.words()[lane], length, lane));
            }
            let by = value.get(lane);
            let expected = compare.as_ref().map_or(0, |compare| compare.get(lane));
            let change = |old: u64| match atomic.op {
                AtomicOp::Add => arith::binary(BinaryOp::Add, ty, old, by),
                AtomicOp::Min => arith::binary(BinaryOp::Min, ty, old, by),
                AtomicOp::Max => arith::binary(BinaryOp::Max, ty, old, by),
                AtomicOp::And => old & by,
                AtomicOp::Or => old | by,
                AtomicOp::Xor => old ^ by,
                AtomicOp::Exchange => by,
                AtomicOp::CompareExchange => {
                    if old == expected {
                        by
                    } else {
                        old
                    }
                }
            };
            let old = match atomic.array {
                ArrayRef::Param(number) => match self.arrays[number as usize] {
                    Some(memory) => memory.update(at, change),
                    None => 0,
                },
                _ => {
                    let old = self.get(atomic.array, at);
                    self.set(atomic.array, at, change(old));
                    old
                }
            };
            if let Some(var) = atomic.old {
                self.vars[var as usize].set(lane, old);
            }
        }
        Ok(())
    }

    fn outside(&self, kind: SiteKind, line: u32, site: u32, index: u32, length: usize, lane: usize) -> Halt {
        debug_assert!(
            site != TRUSTED_SITE,
            "the library reached outside: {kind:?} index {index} of {length}, line {line}"
        );
        let length = u32::try_from(length).expect("lengths are below 2^31");
        self.fault(code(kind), line, index, length, lane)
    }

    fn fault(&self, code: u32, line: u32, index: u32, length: u32, lane: usize) -> Halt {
        let thread = self.thread(lane);
        Halt::Fault(RawFault { unit: self.stage, line, code, index: index.cast_signed(), length, thread })
    }

    fn thread(&self, lane: usize) -> u32 {
        let number = u64::from(self.number) * self.width as u64 + lane as u64 + self.first;
        arith::low(number)
    }

    // ---- values -----------------------------------------------------------------------------------

    fn eval(&self, expr: &Expr) -> Lanes {
        match &expr.kind {
            ExprKind::Const(bits) => Lanes::constant(expr.ty, *bits, self.width),
            ExprKind::Var(var) => self.vars[*var as usize].clone(),
            ExprKind::Special(special) => self.special(*special),
            ExprKind::Scalar(index) => {
                let bits = self.operands[*index as usize].bits;
                let bits = match self.unit.params[*index as usize].ty {
                    ParamType::Scalar(Element::Byte) => bits & 0xff,
                    ParamType::Scalar(element) => loaded(element, bits),
                    ParamType::Array(_) => unreachable!("a scalar expression names a scalar parameter"),
                };
                Lanes::constant(expr.ty, bits, self.width)
            }
            ExprKind::Len(index) => {
                let length = self.operands[*index as usize].length;
                Lanes::constant(Scalar::Int, length, self.width)
            }
            ExprKind::Unary(op, a) => {
                let mut a = self.eval(a);
                lanes::unary(*op, expr.ty, &mut a);
                a
            }
            ExprKind::Binary(op, a, b) => {
                let mut x = self.eval(a);
                self.with(b, |y| lanes::binary(*op, expr.ty, &mut x, y));
                x
            }
            ExprKind::Compare(op, a, b) => {
                let x = self.eval(a);
                self.with(b, |y| lanes::compare(*op, a.ty, x, y))
            }
            ExprKind::Fma(three) => {
                let mut x = self.eval(&three[0]);
                self.with(&three[1], |y| self.with(&three[2], |z| lanes::fma(expr.ty, &mut x, y, z)));
                x
            }
            ExprKind::Select(three) => {
                let mut otherwise = self.eval(&three[2]);
                self.with(&three[0], |condition| {
                    let mask: Vec<bool> = condition.words().iter().map(|c| *c != 0).collect();
                    self.with(&three[1], |then| otherwise.blend(then, &mask));
                });
                otherwise
            }
            ExprKind::Cast(inner) => {
                let value = self.eval(inner);
                lanes::cast(inner.ty, expr.ty, value)
            }
            ExprKind::Bits(inner) => self.eval(inner),
        }
    }

    /// Uses a value without copying it when it is a variable's.
    fn with<T>(&self, expr: &Expr, f: impl FnOnce(&Lanes) -> T) -> T {
        match expr.kind {
            ExprKind::Var(var) => f(&self.vars[var as usize]),
            _ => f(&self.eval(expr)),
        }
    }

    fn special(&self, special: Special) -> Lanes {
        let constant = |value: u32| Lanes::constant(Scalar::Int, u64::from(value), self.width);
        match special {
            Special::Thread => Lanes::Words((0..self.width).map(|lane| self.thread(lane)).collect()),
            Special::Local => Lanes::Words((0..self.unit.block).collect()),
            Special::Block => constant(self.number),
            Special::Blocks => constant(self.blocks),
            Special::Threads => constant(arith::low(self.elements)),
        }
    }
}
