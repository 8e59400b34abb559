//! The cost model: how long a launch takes on the CPU and on the GPU, transfers included, and which to take.
//!
//! A prediction is made of what the text does (bytes and operations of a thread, counted with the arguments at hand), of
//! what the machine was measured to do ([`Machine`]), and of how wrong the prediction was for this kernel before
//! ([`Machine::learn`]). Nothing here measures; the caller does, and keeps the machine in a file.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::facts::{Facts, Known};
use crate::ir::{ArrayRef, Expr, ExprKind, Guards, Stmt, Unit};
use crate::plan::{Arg, PlanError, Request};
use crate::program::Kernel;
use crate::types::{ParamType, Scalar};

/// What a launch does.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Work {
    /// Threads.
    pub elements: u64,
    /// Bytes that its threads load and store.
    pub bytes: f64,
    /// Operations of its threads.
    pub operations: f64,
    /// Bytes of the arrays that must be on the device.
    pub bytes_in: u64,
    /// Bytes that come back.
    pub bytes_out: u64,
}

/// How fast a place is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Seconds that a launch takes whatever it does.
    pub start: f64,
    /// Bytes of memory in a second.
    pub bytes: f64,
    /// Operations in a second.
    pub operations: f64,
}

/// What a machine was measured to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Processors that the CPU executor uses.
    pub cores: usize,
    /// All of them together.
    pub host: Rate,
    /// The GPU, as this process reaches it.
    pub device: Rate,
    /// Bytes in a second to the device and back.
    pub link: [f64; 2],
    /// By kernel: measured over predicted time on the GPU and on the CPU.
    #[serde(default)]
    pub learnt: BTreeMap<String, [f64; 2]>,
}

/// Where a launch runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// On the CPU.
    Cpu,
    /// On the GPU.
    Gpu,
}

/// Predicted times, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Prediction {
    /// On the GPU, without transfers.
    pub gpu: f64,
    /// To the device and back.
    pub transfer: f64,
    /// On the CPU.
    pub cpu: f64,
}

/// A choice and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decision {
    /// The choice.
    pub place: Place,
    /// What it was made of.
    pub prediction: Prediction,
    /// Why, in one line.
    pub reason: String,
}

/// Kernels that are remembered.
const MOST_LEARNT: usize = 1000;

/// How much the last measurement counts against all before it.
const NEWEST: f64 = 0.5;

impl Machine {
    /// Predicts both places for a kernel.
    #[must_use]
    pub fn predict(&self, kernel: &Kernel, work: &Work) -> Prediction {
        let [gpu, cpu] = self.learnt.get(&key(kernel)).copied().unwrap_or([1.0, 1.0]);
        let time = |rate: &Rate| (work.bytes / rate.bytes).max(work.operations / rate.operations);
        #[expect(clippy::cast_precision_loss, reason = "seconds are no more exact")]
        let transfer = work.bytes_in as f64 / self.link[0] + work.bytes_out as f64 / self.link[1];
        Prediction {
            gpu: self.device.start + time(&self.device) * gpu,
            transfer,
            cpu: self.host.start + time(&self.host) * cpu,
        }
    }

    /// Chooses the place that is predicted to be done first.
    #[must_use]
    pub fn decide(&self, kernel: &Kernel, work: &Work) -> Decision {
        let prediction = self.predict(kernel, work);
        let Prediction { gpu, transfer, cpu } = prediction;
        let place = if gpu + transfer < cpu { Place::Gpu } else { Place::Cpu };
        let cores = if self.cores == 1 { "1 core".to_owned() } else { format!("{} cores", self.cores) };
        let bytes = match (work.bytes_in, work.bytes_out) {
            (0, out) => format!("{} out", size(out)),
            (bytes, 0) => format!("{} in", size(bytes)),
            (bytes, out) => format!("{} in, {} out", size(bytes), size(out)),
        };
        let (there, way, here) = (milliseconds(gpu), milliseconds(transfer), milliseconds(cpu));
        let reason = match place {
            Place::Gpu => format!("GPU: {bytes}, {there} + {way} transfer against {here} on {cores}"),
            Place::Cpu => format!("CPU: {here} on {cores} against {there} + {way} transfer ({bytes})"),
        };
        Decision { place, prediction, reason }
    }

    /// Takes in what a launch really took, without transfers, in seconds.
    pub fn learn(&mut self, kernel: &Kernel, work: &Work, place: Place, seconds: f64) {
        let plain = Self { learnt: BTreeMap::new(), ..self.clone() }.predict(kernel, work);
        let (rate, predicted) = match place {
            Place::Gpu => (&self.device, plain.gpu),
            Place::Cpu => (&self.host, plain.cpu),
        };
        // What a launch costs whatever it does hides how fast a short one is.
        let work_time = (predicted - rate.start).max(1e-9);
        let ratio = ((seconds - rate.start).max(work_time * 1e-3) / work_time).clamp(1e-3, 1e6);
        let key = key(kernel);
        if self.learnt.len() >= MOST_LEARNT && !self.learnt.contains_key(&key) {
            self.learnt.pop_first();
        }
        let slot = &mut self.learnt.entry(key).or_insert([1.0, 1.0])[usize::from(place == Place::Cpu)];
        *slot = (slot.ln() * (1.0 - NEWEST) + ratio.ln() * NEWEST).exp();
    }
}

/// Names a kernel in the file: by its code, not only by its name.
fn key(kernel: &Kernel) -> String {
    format!("{}-{:016x}", kernel.name(), kernel.ptx().key)
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let value = bytes as f64;
    let units = ["B", "KiB", "MiB", "GiB"];
    let step = (0..3).rev().find(|step| value >= 1024_f64.powi(step + 1)).map_or(0, |step| step + 1);
    let scaled = value / 1024_f64.powi(step);
    let unit = units[usize::try_from(step).unwrap_or(0)];
    if scaled >= 10.0 || step == 0 { format!("{scaled:.0} {unit}") } else { format!("{scaled:.1} {unit}") }
}

/// Seconds as milliseconds for people: two digits at least.
fn milliseconds(seconds: f64) -> String {
    let value = seconds * 1e3;
    match value {
        0.0..0.095 => format!("{value:.3} ms"),
        0.0..9.95 => format!("{value:.1} ms"),
        _ => format!("{value:.0} ms"),
    }
}

impl Kernel {
    /// What a launch with these arguments does.
    ///
    /// # Errors
    /// [`PlanError`] when the arguments do not fit the kernel.
    pub fn work(&self, args: &[Arg], elements: Option<u64>) -> Result<Work, PlanError> {
        let operands = self.operands(args)?;
        let launches = self.launches(&operands, &Request { elements, ..Request::default() })?;
        let mut work =
            Work { elements: launches.first().map_or(0, |launch| launch.elements), ..Work::default() };
        for launch in &launches {
            let unit = &self.stages[launch.stage].unit;
            let known = launch.known(unit);
            let (bytes, operations) = Count::new(unit, &known).body(&unit.body, &Arc::new(ROOT));
            #[expect(clippy::cast_precision_loss, reason = "seconds are no more exact")]
            let threads = launch.elements as f64;
            work.bytes += bytes * threads;
            work.operations += operations * threads;
        }
        for ((param, access), operand) in self.params().iter().zip(self.access()).zip(&operands) {
            if let ParamType::Array(element) = param.ty {
                let bytes = operand.length * element.bytes() as u64;
                work.bytes_in += bytes;
                work.bytes_out += if access.written { bytes } else { 0 };
            }
        }
        Ok(work)
    }
}

const ROOT: Guards = Guards { outer: None, condition: None };

/// Counts what one thread does.
struct Count<'a> {
    unit: &'a Unit,
    facts: Facts<'a>,
}

impl<'a> Count<'a> {
    fn new(unit: &'a Unit, known: &'a Known) -> Self {
        Self { unit, facts: Facts::with(unit, known) }
    }

    /// Bytes and operations.
    fn body(&self, body: &[Stmt], guards: &Arc<Guards>) -> (f64, f64) {
        let (mut bytes, mut operations) = (0.0, 0.0);
        for stmt in body {
            operations += stmt.expressions().into_iter().map(operations_of).sum::<f64>();
            match stmt {
                Stmt::Load { array, .. } | Stmt::Store { array, .. } => {
                    bytes += self.size(*array);
                    operations += 1.0;
                }
                Stmt::Atomic(atomic) => {
                    bytes += 2.0 * self.size(atomic.array);
                    operations += 4.0;
                }
                Stmt::LoadRange { array, .. } => bytes += self.size(*array),
                Stmt::If { condition, then, otherwise, .. } => {
                    let arm = |holds: bool, body: &[Stmt]| {
                        let condition = Some((condition.clone(), holds));
                        let guards = Arc::new(Guards { outer: Some(Arc::clone(guards)), condition });
                        self.body(body, &guards)
                    };
                    let (then, otherwise) = (arm(true, then), arm(false, otherwise));
                    bytes += then.0.max(otherwise.0);
                    operations += then.1.max(otherwise.1);
                }
                Stmt::For { from, to, step, body, .. } => {
                    let turns = self.turns(from, to, step, guards);
                    let inner = self.body(body, guards);
                    bytes += inner.0 * turns;
                    operations += (inner.1 + 2.0) * turns;
                }
                _ => {}
            }
        }
        (bytes, operations)
    }

    /// Turns of a loop: the middle of what is possible; a bound that nothing is known of counts as 16.
    fn turns(&self, from: &Expr, to: &Expr, step: &Expr, guards: &Arc<Guards>) -> f64 {
        let (from, to) = (self.facts.interval(from, guards), self.facts.interval(to, guards));
        let step = self.facts.interval(step, guards);
        if from.is_empty() || to.is_empty() {
            return 0.0;
        }
        if to.high - to.low > 1 << 30 || from.high - from.low > 1 << 30 {
            return 16.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let middle = ((to.high - from.low).max(0) + (to.low - from.high).max(0)) as f64 / 2.0;
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let step = step.low.max(1) as f64;
        (middle / step).ceil()
    }

    #[expect(clippy::cast_precision_loss, reason = "at most eight")]
    fn size(&self, array: ArrayRef) -> f64 {
        match array {
            ArrayRef::Param(_) => self.unit.element(array).bytes() as f64,
            // Shared memory and tables are near.
            _ => 0.0,
        }
    }
}

fn operations_of(expr: &Expr) -> f64 {
    let mut sum = 0.0;
    expr.visit(&mut |part| {
        let dear = if part.ty == Scalar::Double { 2.0 } else { 1.0 };
        sum += match &part.kind {
            ExprKind::Const(_)
            | ExprKind::Var(_)
            | ExprKind::Special(_)
            | ExprKind::Scalar(_)
            | ExprKind::Len(_)
            | ExprKind::Bits(_) => 0.0,
            ExprKind::Binary(crate::ir::BinaryOp::Div | crate::ir::BinaryOp::Rem, ..) => 8.0 * dear,
            ExprKind::Unary(crate::ir::UnaryOp::Sqrt, _) => 8.0 * dear,
            _ => dear,
        };
    });
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, Program, compile};

    fn machine() -> Machine {
        Machine {
            cores: 2,
            host: Rate { start: 1e-5, bytes: 5e9, operations: 2e9 },
            device: Rate { start: 5e-5, bytes: 3e12, operations: 3e13 },
            link: [1e10, 1e10],
            learnt: BTreeMap::new(),
        }
    }

    fn program(text: &str) -> Program {
        compile(text, &Options::default()).unwrap_or_else(|found| panic!("{found:?}"))
    }

    fn product() -> Program {
        program(
            "GPU_KERNEL k\nGPU_PARAM a float[]\nGPU_PARAM b float[]\nGPU_PARAM c float[]\nGPU_THREAD_CODE:\n    PARALLEL_MATMUL a b → c\nGPU_END\n",
        )
    }

    fn array(length: u64) -> Arg {
        Arg::Array { address: 0x1_0000, length }
    }

    #[test]
    fn large_products_go_to_the_gpu_and_small_sums_stay() {
        let program = product();
        let kernel = &program.kernels()[0];
        let work = kernel.work(&[array(1 << 20), array(1 << 20), array(1 << 20)], None).unwrap();
        assert!(work.operations > 1e9, "{work:?}");
        let decision = machine().decide(kernel, &work);
        assert_eq!(decision.place, Place::Gpu);
        assert!(decision.reason.starts_with("GPU: 12 MiB in, 4.0 MiB out, "), "{}", decision.reason);
        assert!(decision.reason.contains(" transfer against ") && decision.reason.ends_with("ms on 2 cores"));
        let sum = compile(include_str!("../examples/vector_add.px"), &Options::default()).unwrap();
        let kernel = &sum.kernels()[0];
        let small = kernel.work(&[array(16), array(16), array(16), Arg::from(16)], None).unwrap();
        let decision = machine().decide(kernel, &small);
        assert_eq!(decision.place, Place::Cpu);
        assert!(decision.reason.starts_with("CPU: 0.01"), "{}", decision.reason);
    }

    #[test]
    fn work_counts_loops_with_the_arguments_at_hand() {
        let program = program(
            "GPU_KERNEL k\nGPU_PARAM a float[]\nGPU_PARAM n int\nGPU_THREAD_CODE:\n    THREAD_ID → t\n    CALCULATE s = 0.0\n    FOR i IN 0..n:\n        LOAD a[i] → x\n        ADD s x → s\n    STORE s → a[t]\nGPU_END\n",
        );
        let work = |n: i32| program.kernels()[0].work(&[array(1000), Arg::from(n)], None).unwrap();
        assert_eq!(work(100).bytes, 1000.0 * 404.0);
        assert!(work(1000).operations > 9.0 * work(100).operations);
        assert_eq!((work(5).bytes_in, work(5).bytes_out), (4000, 4000));
    }

    #[test]
    fn what_was_measured_changes_the_choice() {
        let program = product();
        let kernel = &program.kernels()[0];
        let mut machine = machine();
        let work = kernel.work(&[array(1 << 16), array(1 << 16), array(1 << 16)], None).unwrap();
        assert_eq!(machine.decide(kernel, &work).place, Place::Gpu);
        // This GPU turns out to be slow at it.
        for _ in 0..8 {
            machine.learn(kernel, &work, Place::Gpu, 1.0);
        }
        let decision = machine.decide(kernel, &work);
        assert_eq!(decision.place, Place::Cpu, "{}", decision.reason);
        assert!((0.2..1.1).contains(&decision.prediction.gpu), "{decision:?}");
        let text = serde_json::to_string(&machine).unwrap();
        let back: Machine = serde_json::from_str(&text).unwrap();
        assert_eq!(back.decide(kernel, &work).reason, decision.reason);
    }

    #[test]
    fn sizes_and_times_are_for_people() {
        assert_eq!(
            [0, 1023, 2048, 16 << 20, 3 << 30].map(size),
            ["0 B", "1023 B", "2.0 KiB", "16 MiB", "3.0 GiB"]
        );
        assert_eq!(
            [0.00001, 0.0004, 0.0021, 0.031].map(milliseconds),
            ["0.010 ms", "0.4 ms", "2.1 ms", "31 ms"]
        );
    }
}
