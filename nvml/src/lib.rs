//! `libpxnvml.so`, soname `libnvidia-ml.so.1`: the NVML (NVIDIA Management Library) that a guest sees.
//!
//! app → [`entry`] → [`api`] → [`facts`] or [`live`] ⇒ the daemon of pxos-server. It needs no session and no worker: what does
//! not change comes with the greeting ([`facts`]), the rest is asked each time ([`live`]), over a connection that is made for
//! the question. So a program may fork, initialise twice and end at any moment, and one that only looks (`nvidia-smi`) costs
//! the host nothing but an answer. The library lives in someone else's process: it prints nothing unless asked
//! (`PXOS_LOG=call`), starts no thread and installs no handler.

mod api;
mod entry;
mod facts;
mod live;
pub mod table;
mod types;
