//! Real guests: QEMU machines that run unmodified CUDA programs with the shim, against one server on this host.
//!
//! [`Parts`] finds what `tests/vm/parts.sh` prepared; [`payload::build`] packs programs and shim for the guest; a [`Vm`] is a
//! machine that runs, does what it is told over its console ([`Vm::run`]), and is gone with the value. [`scenario`] has what
//! both the tests and `pxos-vm` (the same on a machine without a toolchain) do with them.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `PXOS_VM_PARTS` | the folder that `tests/vm/parts.sh` filled; without it `.toolchain/vm` of the repository |
//! | `PXOS_VM_PAYLOAD` | a payload that was built before, used instead of building one |
//! | `PXOS_QEMU` | the QEMU to run; without it `qemu-system-x86_64` |
//! | `PXOS_VM_PAUSE` | seconds that a machine stands still in the test of that; without it 4 |
//! | `PXOS_VM_ACCEL` | `tcg` or `kvm`; without it KVM where the processor's own is there, else TCG |
#![expect(
    clippy::missing_panics_doc,
    reason = "in a test's fixture every failure is a panic with its reason"
)]

mod console;
mod parts;
pub mod payload;
pub mod scenario;
mod vm;

pub use console::Ran;
pub use parts::Parts;
pub use vm::{Plan, Vm};
