//! Execution of PTX on the CPU: a warp-vectorised interpreter.
//!
//! Flow: [`Program::compile`] parses a module and lowers every function to a flat list of instructions with
//! resolved operands (`lower`, `registers`); [`launch::run`] spreads the grid's blocks over threads (`pool`), each block is
//! a set of warps with shared memory and barriers (`block`), each warp a set of groups of lanes with one program
//! counter each (`warp`), and each instruction one function over up to 32 lanes (`op`, `memory_ops`, …).
//! What an instruction computes for one lane is in [`crate::isa`].

mod atomic_ops;
mod aux;
mod block;
mod builtins;
mod children;
mod fault;
mod host;
pub mod launch;
mod link;
mod lower;
mod memory_ops;
mod op;
mod place;
mod pool;
pub mod program;
mod registers;
mod special;
mod warp;

pub use fault::{Fault, FaultKind};
pub use host::Host;
pub use launch::{Launch, LaunchReport, run};
pub use pool::set_helpers;
pub use program::{Global, GlobalSpace, Kernel, KernelParam, LoadError, Program, Relocation};

/// Lanes of a warp.
pub const WARP: usize = 32;
/// Generic addresses from here on belong to the windows below; device and host memory lies under it.
pub const WINDOWS: u64 = 1 << 48;
/// Generic addresses of shared memory: this plus the offset within the block's shared memory.
pub const SHARED_WINDOW: u64 = WINDOWS;
/// Generic addresses of local memory: this plus the offset within the thread's local memory.
pub const LOCAL_WINDOW: u64 = WINDOWS + (1 << 40);
/// Generic addresses of kernel parameters: this plus the offset within the parameter buffer.
pub const PARAM_WINDOW: u64 = WINDOWS + (2 << 40);
/// Addresses of device functions: this plus 16 times the function's index.
pub const CODE_WINDOW: u64 = WINDOWS + (3 << 40);
/// Bytes of each window.
pub const WINDOW_BYTES: u64 = 1 << 32;

#[cfg(test)]
mod tests;
