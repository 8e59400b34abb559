//! What scenarios are made of: a real `pxos-server` on private sockets, real guest programs beside it, and a guest that
//! speaks the wire format by hand.
//!
//! A scenario reads as prose: [`Fixture::new`]`().start()` gives a [`Server`]; [`Server::guest`] and [`Server::direct`] give
//! a [`Program`] to run remoted or on the device itself; [`Server::connect`] gives a [`Guest`] for hostile frames;
//! [`Server::settled`] is what the server holds when nobody uses it, so that a leak is a difference. Whatever happens, nothing
//! that a scenario started outlives it, and whatever hangs is shown and killed.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `PXOS_TEST_DRIVER` | `soft` (the default), `auto`, or the path of a libcuda |
//! | `PXOS_BIN_DIR` | where the binaries and libraries under test lie; without it, beside the test itself |
//! | `PXOS_SAMPLES_DIR` | where the sample programs lie; without it `out/samples` of the repository |
//! | `PXOS_SKIPS` | a file to which every scenario that could not run adds a line |
#![expect(
    clippy::missing_panics_doc,
    reason = "in a test's fixture every failure is a panic with its reason"
)]
#![expect(clippy::print_stderr, reason = "a test says what it saw")]

mod artifacts;
mod fixture;
mod outcome;
pub mod process;
mod program;
pub mod random;
mod wire;

pub use artifacts::{Driver, contract_probes, driver_under_test, is_on_a_gpu, probe, sample, samples, tool};
pub use fixture::{Fixture, PATIENCE, Server, Settled, Way};
pub use outcome::skipped;
pub use program::{Finished, Program, Running};
pub use wire::{Guest, Incoming, hello};
