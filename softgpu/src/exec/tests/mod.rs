//! Tests of the engine over small PTX texts.

mod basic;
mod control;
mod instructions;
mod matrices;
mod scheduling;
mod textures;

use std::sync::Mutex;

use super::{Fault, Host, Launch, LaunchReport, LoadError, Program, run};
use crate::device::memory::Memory;

/// A host that keeps what is printed and serves the heap from device memory.
pub(super) struct TestHost<'m> {
    pub(super) printed: Mutex<Vec<u8>>,
    memory: &'m Memory,
}

impl Host for TestHost<'_> {
    fn print(&self, text: &[u8]) {
        self.printed.lock().unwrap().extend_from_slice(text);
    }
    fn malloc(&self, bytes: u64) -> u64 {
        self.memory.alloc(bytes).unwrap_or(0)
    }
    fn free(&self, addr: u64) {
        assert!(self.memory.free(addr));
    }
}

/// A kernel argument.
pub(super) enum Arg<'b> {
    U32(u32),
    U64(u64),
    /// A buffer copied in before and out after.
    Buffer(&'b mut Vec<u8>),
}

/// What a test asks for besides arguments.
pub(super) struct Shape {
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    pub(super) dynamic_shared: u32,
    pub(super) cooperative: bool,
}

pub(super) fn grid(blocks: u32, threads: u32) -> Shape {
    Shape { grid: [blocks, 1, 1], block: [threads, 1, 1], dynamic_shared: 0, cooperative: false }
}

/// Prefixes a body with the directives that every text needs.
pub(super) fn module(body: &str) -> String {
    format!(".version 9.0\n.target sm_90\n.address_size 64\n{body}")
}

/// Runs the named kernel of a text; returns what it printed.
pub(super) fn launch(
    ptx: &str,
    kernel: &str,
    shape: &Shape,
    args: &mut [Arg<'_>],
) -> Result<(LaunchReport, String), Fault> {
    let program = Program::compile(ptx).unwrap_or_else(|error| panic!("{error}"));
    launch_program(&program, kernel, shape, args)
}

pub(super) fn launch_program(
    program: &Program,
    kernel: &str,
    shape: &Shape,
    args: &mut [Arg<'_>],
) -> Result<(LaunchReport, String), Fault> {
    let memory = Memory::new(256 << 20).unwrap();
    let symbols: Vec<u64> = program.globals().iter().map(|g| memory.alloc(g.size.max(1)).unwrap()).collect();
    for (global, address) in program.globals().iter().zip(&symbols) {
        memory.write(*address, &program.initial(global, &symbols)).unwrap();
    }
    let index = program.kernel_index(kernel).unwrap_or_else(|| panic!("no kernel {kernel}"));
    let mut params = vec![0u8; program.kernels()[index].param_bytes as usize];
    let mut addresses = Vec::new();
    for (param, arg) in program.kernels()[index].params.iter().zip(args.iter()) {
        let bytes = match arg {
            Arg::U32(value) => value.to_le_bytes().to_vec(),
            Arg::U64(value) => value.to_le_bytes().to_vec(),
            Arg::Buffer(data) => {
                let address = memory.alloc(data.len() as u64).unwrap();
                memory.write(address, data).unwrap();
                addresses.push(address);
                address.to_le_bytes().to_vec()
            }
        };
        assert_eq!(bytes.len(), param.size as usize, "size of an argument");
        params[param.offset as usize..][..bytes.len()].copy_from_slice(&bytes);
    }
    let host = TestHost { printed: Mutex::default(), memory: &memory };
    let launch = Launch {
        program,
        kernel: index,
        symbols: &symbols,
        grid: shape.grid,
        block: shape.block,
        dynamic_shared: shape.dynamic_shared,
        cooperative: shape.cooperative,
        depth: 0,
        params: &params,
    };
    let report = run(&launch, &memory, &host)?;
    let mut addresses = addresses.into_iter();
    for arg in args {
        if let Arg::Buffer(data) = arg {
            memory.read(addresses.next().unwrap(), data).unwrap();
        }
    }
    let printed = String::from_utf8_lossy(&host.printed.lock().unwrap()).into_owned();
    Ok((report, printed))
}

/// The error that a text is refused with.
pub(super) fn refused(body: &str) -> LoadError {
    match Program::compile(&module(body)) {
        Ok(_) => panic!("was not refused:\n{body}"),
        Err(error) => error,
    }
}

pub(super) fn bytes<T: Copy>(values: &[T]) -> Vec<u8> {
    // SAFETY: plain numbers are read as bytes.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) }.to_vec()
}

pub(super) fn u32s(data: &[u8]) -> Vec<u32> {
    data.chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect()
}

pub(super) fn u64s(data: &[u8]) -> Vec<u64> {
    data.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect()
}

pub(super) fn f32s(data: &[u8]) -> Vec<f32> {
    u32s(data).into_iter().map(f32::from_bits).collect()
}
