//! A kernel on softgpu: the plan's module loaded, its steps launched, the fault record read.

use pxos_primitives::{Arg, FAULT_RECORD_BYTES, Fault, Kernel, Plan, Request};
use pxsoft::device::memory::Memory;
use pxsoft::exec::{self, Host, Launch, Program};

use super::Value;

struct Quiet;

impl Host for Quiet {
    fn print(&self, _text: &[u8]) {}
    fn malloc(&self, _bytes: u64) -> u64 {
        0
    }
    fn free(&self, _addr: u64) {}
}

/// Runs a kernel; the values are changed in place. The plan tells how.
pub(crate) fn run(kernel: &Kernel, values: &mut [Value], elements: Option<u64>) -> Result<Plan, Fault> {
    let memory = Memory::new(256 << 20).unwrap();
    let mut args = Vec::new();
    for value in values.iter() {
        args.push(match value {
            Value::Array(element, bytes) => {
                let address = memory.alloc(bytes.len().max(1) as u64).unwrap();
                memory.write(address, bytes).unwrap();
                Arg::Array { address, length: (bytes.len() / element.bytes()) as u64 }
            }
            Value::Scalar(bits) => Arg::Scalar(*bits),
        });
    }
    let record = memory.alloc(FAULT_RECORD_BYTES as u64).unwrap();
    memory.write(record, &[0; FAULT_RECORD_BYTES]).unwrap();
    let plan = kernel.plan(&args, &Request { elements, fault_record: record, ..Request::default() }).unwrap();
    let ptx = &plan.module.ptx;
    let program = Program::compile(ptx).unwrap_or_else(|error| panic!("{error}\n{ptx}"));
    let symbols: Vec<u64> = program.globals().iter().map(|g| memory.alloc(g.size.max(1)).unwrap()).collect();
    for (global, address) in program.globals().iter().zip(&symbols) {
        memory.write(*address, &program.initial(global, &symbols)).unwrap();
    }
    for step in &plan.steps {
        let index = program.kernel_index(&step.entry).unwrap_or_else(|| panic!("no entry {}", step.entry));
        let params = &program.kernels()[index].params;
        let slots: Vec<_> = params.iter().map(|p| (p.offset as usize, p.size as usize)).collect();
        assert_eq!(slots, step.slots, "the parameter buffer is laid out as PTX says");
        let launch = Launch {
            program: &program,
            kernel: index,
            symbols: &symbols,
            grid: step.grid,
            block: step.block,
            dynamic_shared: 0,
            cooperative: false,
            depth: 0,
            params: &step.params,
        };
        exec::run(&launch, &memory, &Quiet).unwrap_or_else(|fault| panic!("{fault}\n{ptx}"));
    }
    let mut bytes = [0; FAULT_RECORD_BYTES];
    memory.read(record, &mut bytes).unwrap();
    for (value, arg) in values.iter_mut().zip(&args) {
        if let (Value::Array(_, bytes), Arg::Array { address, .. }) = (value, arg) {
            memory.read(*address, bytes).unwrap();
        }
    }
    match kernel.fault(&bytes) {
        Some(fault) => Err(fault),
        None => Ok(plan),
    }
}
