//! The host's half of hand-written rows, a file per group, mirroring `shim/src/api`. Each decodes its payload, turns handles
//! of the guest into the driver's, and calls.

pub(super) mod array;
pub(super) mod context;
pub(super) mod copy2d;
pub(super) mod event;
pub(super) mod graph;
pub(super) mod green;
pub(super) mod ipc;
pub(super) mod launch;
pub(super) mod library;
pub(super) mod link;
pub(super) mod memop;
pub(super) mod memory;
pub(super) mod module;
pub(super) mod peer;
pub(super) mod pool;
pub(super) mod primitive;
pub(super) mod shared;
pub(super) mod stream;
pub(super) mod texture;
pub(super) mod texture_reference;
pub(super) mod vmm;
