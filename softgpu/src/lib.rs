//! libpxsoft.so: a libcuda whose device is this CPU.
//!
//! A program finds it in the driver's place, by soname, and cannot tell except by speed: it implements the driver
//! API of CUDA 13.0 ([`api`], exported by [`entry`]) over a software device ([`device`]) that executes PTX ([`ptx`],
//! [`exec`], [`isa`]). It is the oracle of this project's tests, and lets everything run where there is no GPU.
//!
//! Environment, read by `cuInit`: `PXSOFT_DEVICES` (1), `PXSOFT_MEMORY` in MiB per device (4096),
//! `PXSOFT_MULTIPROCESSORS` (16), `CUDA_VISIBLE_DEVICES` (all), `PXSOFT_THREADS` (as many as there are processors);
//! `PXSOFT_TRACE` writes a line per call to standard error, `PXSOFT_QUIET` leaves out where a kernel faulted.
//! `PXSOFT_BUS_ATOMICS=0` makes system-scope atomics on the host's memory lose what the host does meanwhile, as over a bus
//! without atomics; it is read when a kernel first makes one. `PXSOFT_LAZY_LOADING=1` has the first launch of a kernel wait for
//! all that the context has to do, as the driver may.

pub mod api;
pub mod device;
pub mod entry;
pub mod exec;
pub mod image;
pub mod isa;
pub mod printf;
pub mod ptx;
