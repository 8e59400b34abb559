//! pxos-server: the daemon that admits guests, and the worker process that serves one of them on the host's libcuda.
//!
//! The binary is a thin shell around this library; tests and fuzz targets reach the parts through it.

pub mod args;
pub mod background;
pub mod classify;
pub mod config;
pub mod daemon;
mod driver;
pub mod handoff;
pub mod log;
pub mod page;
pub mod pledge;
pub mod quota;
pub mod scheduler;
pub mod stats;
pub mod vm;
pub mod worker;
