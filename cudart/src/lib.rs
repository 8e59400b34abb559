//! What the CUDA runtime and the CUDA math libraries demand of a libcuda beyond the public driver API.
//!
//! `libpxshim.so` and `libpxsoft.so` each *are* a libcuda, and share this crate for the parts that no public header
//! describes: the tables behind `cuGetExportTable` ([`tables`]), the integrity answer that the runtime checks at its
//! first call ([`integrity`]), the per-context storage that it reads in every call ([`storage`]), which exported
//! symbol `cuGetProcAddress` hands out ([`procaddress`]), how long the image behind a bare pointer is, and what can be
//! read of it without a driver ([`image`]).
//!
//! Place in the flow: an entry point of the libcuda calls in here; in here the libcuda is known only as a
//! [`Driver`], given once to [`install`]. Nothing in here talks to a server, starts a thread or reads the environment.
//!
//! Behaviours marked *measured* were observed on driver 580.159.04 (CUDA 13.0) by calling its tables as the runtime
//! does; `tests/driver.rs` repeats those calls on any libcuda that `PXOS_TEST_DRIVER` names.

mod driver;
pub mod image;
pub mod integrity;
pub mod procaddress;
pub mod result;
pub mod storage;
pub mod tables;

pub use driver::{DeviceIdentity, Driver, after_fork_child, install, shut_down};
