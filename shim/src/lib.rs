//! `libpxshim.so`, soname `libcuda.so.1`: the CUDA driver API as a guest program sees it.
//!
//! app → [`entry`] → [`api`] → [`call`] → [`session`] → transport ⇒ pxos-server. Loading the library does nothing: the
//! first call that needs the server (`cuInit`) connects to it. The library lives in someone else's process, so it prints
//! nothing but what [`log`] says it does, and survives fork and exit at any moment. It installs no signal handler but one, in
//! programs whose kernels make system-scope atomics while there is managed memory ([`exclusive`]).

mod allocations;
mod api;
mod arrays;
mod call;
mod callbacks;
mod entry;
mod exclusive;
mod handles;
mod link;
mod log;
mod managed_variables;
mod memory;
mod objects;
mod primitive;
mod session;
mod thread;
mod watch;

/// Takes a lock. A panic while it was held is no reason to fail ever after: what locks guard here is valid after every statement.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
