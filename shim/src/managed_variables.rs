//! `__managed__` variables of modules, which host and device name by one address.
//!
//! The driver places them in memory of the worker's that no other process can map. So the guest has a copy at the same
//! address, and the two are brought together where a program with `CONCURRENT_MANAGED_ACCESS = 0` may tell them apart (CUDA
//! C++ programming guide, "Coherency and concurrency"): what the host has changed goes to the device before any work does,
//! and what the device may have changed comes back whenever a call has waited for work. Bytes that the host has changed
//! since stay the host's.

use crate::api;
use crate::lock;
use crate::session::Session;
use crate::thread;
use pxos_protocol::api::op;
use pxos_protocol::types::{CUresult, CUstream};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

const PAGE: u64 = 4096;
/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;

/// The variables of one process.
#[derive(Debug, Default)]
pub(crate) struct ManagedVariables {
    /// Whether there are any: what every call asks.
    any: AtomicBool,
    /// Whether the device may have changed them since they last came back.
    changed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    variables: BTreeMap<u64, Variable>,
    /// How many variables are in each page that is mapped for them.
    pages: BTreeMap<u64, usize>,
    /// A stream of our own for each context, which waits for no other work.
    streams: BTreeMap<u64, CUstream>,
}

#[derive(Debug)]
struct Variable {
    context: u64,
    /// What the device had when host and device last met.
    seen: Vec<u8>,
}

impl ManagedVariables {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Whether there are any.
    pub(crate) fn exist(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Makes the guest's copy of a variable, and fetches its value. A variable that is known stays as it is.
    ///
    /// # Errors
    /// `CUDA_ERROR_NOT_SUPPORTED` where the program has something else at its address, and the errors of a copy.
    pub(crate) fn add(
        &self,
        session: &'static Session,
        address: u64,
        bytes: u64,
        context: u64,
    ) -> Result<(), CUresult> {
        let mut state = self.state();
        if state.variables.contains_key(&address) {
            return Ok(());
        }
        let length = usize::try_from(bytes).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
        let mut value = vec![0; length];
        fetch(session, &mut state, context, address, &mut value)?;
        state.map(address, bytes)?;
        // SAFETY: pages that were just mapped for this variable, which the application does not know yet.
        unsafe { std::ptr::copy_nonoverlapping(value.as_ptr(), pointer(address), length) };
        state.variables.insert(address, Variable { context, seen: value });
        self.any.store(true, Ordering::Release);
        Ok(())
    }

    /// Forgets a variable whose module goes.
    pub(crate) fn remove(&self, address: u64) {
        if !self.exist() {
            return;
        }
        let mut state = self.state();
        if let Some(gone) = state.variables.remove(&address) {
            state.unmap(address, gone.seen.len() as u64);
        }
        self.any.store(!state.variables.is_empty(), Ordering::Release);
    }

    /// Forgets the variables of a context that ends.
    pub(crate) fn context_ended(&self, context: u64) {
        if !self.exist() {
            return;
        }
        let mut state = self.state();
        state.streams.remove(&context);
        let of_context =
            |(address, variable): (&u64, &Variable)| (variable.context == context).then_some(*address);
        let gone: Vec<u64> = state.variables.iter().filter_map(of_context).collect();
        drop(state);
        gone.into_iter().for_each(|address| self.remove(address));
    }

    /// Sends what the host has changed, before work that may read it.
    ///
    /// # Errors
    /// Those of a copy to the device.
    pub(crate) fn send(&self, session: &'static Session) -> Result<(), CUresult> {
        // What is captured runs later, and is sent for then.
        if !self.exist() || session.captures.are_active() {
            return Ok(());
        }
        let mut state = self.state();
        for (address, variable) in &mut state.variables {
            let now = contents(*address, variable.seen.len());
            let differs = |(now, seen): (&u8, &u8)| now != seen;
            let Some(first) = now.iter().zip(&variable.seen).position(differs) else { continue };
            let last = now.iter().zip(&variable.seen).rposition(differs).expect("one differs");
            // SAFETY: bytes of `now`, which outlive the call.
            unsafe {
                api::send_bytes(session, address + first as u64, now[first..].as_ptr(), last + 1 - first)?;
            }
            variable.seen = now;
        }
        self.changed.store(true, Ordering::Release);
        Ok(())
    }

    /// Fetches what the device may have changed, after a call that has waited for work. An error is the next call's.
    pub(crate) fn receive(&self, session: &'static Session, opcode: u16) {
        if session.captures.are_active() || !self.changed.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state();
        if opcode == op::cuCtxSynchronize {
            // All work of the current context is over (the second form may have waited for another one); whatever comes next
            // says so by `send`.
            self.changed.store(false, Ordering::Release);
        }
        let all: Vec<(u64, u64, usize)> = state
            .variables
            .iter()
            .map(|(address, variable)| (*address, variable.context, variable.seen.len()))
            .collect();
        for (address, context, length) in all {
            let mut value = vec![0; length];
            if fetch(session, &mut state, context, address, &mut value).is_err() {
                continue;
            }
            let Some(variable) = state.variables.get_mut(&address) else { continue };
            for (index, (new, seen)) in value.iter().zip(&mut variable.seen).enumerate() {
                if new == seen {
                    continue;
                }
                let at = pointer(address + index as u64);
                // SAFETY: a byte of a variable whose pages are mapped; the application may write it, which it then does
                // against the rules of managed memory.
                unsafe {
                    if at.read_volatile() == *seen {
                        at.write_volatile(*new);
                    }
                }
                *seen = *new;
            }
        }
    }
}

/// Whether a call, once it has succeeded, has waited for work of the device.
pub(crate) fn waits(opcode: u16) -> bool {
    matches!(
        opcode,
        op::cuCtxSynchronize
            | op::cuCtxSynchronize_v2
            | op::cuStreamSynchronize
            | op::cuStreamQuery
            | op::cuEventSynchronize
            | op::cuEventQuery
            | op::cuMemcpy
            | op::cuMemcpyPeer
            | op::cuMemcpyHtoD_v2
            | op::cuMemcpyDtoH_v2
            | op::cuMemcpyDtoD_v2
            | op::cuMemcpy2D_v2
            | op::cuMemcpy2DUnaligned_v2
            | op::cuMemcpy3D_v2
            | op::cuMemsetD8_v2
            | op::cuMemsetD16_v2
            | op::cuMemsetD32_v2
            | op::cuMemFree_v2
    )
}

impl State {
    /// Maps the pages of a variable that are not mapped yet.
    fn map(&mut self, address: u64, bytes: u64) -> Result<(), CUresult> {
        for page in pages(address, bytes) {
            if !self.pages.contains_key(&page) {
                let protection = libc::PROT_READ | libc::PROT_WRITE;
                let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
                // SAFETY: a new mapping where nothing is, or none at all.
                let at = unsafe { libc::mmap(pointer(page).cast(), page_bytes(), protection, kind, -1, 0) };
                if at != pointer(page).cast() {
                    if at != libc::MAP_FAILED {
                        // A kernel that does not know the flag takes the address for a wish.
                        // SAFETY: the mapping that was just made.
                        unsafe { libc::munmap(at, page_bytes()) };
                    }
                    self.unmap(address, page.saturating_sub(address).min(bytes));
                    crate::log::line(
                        crate::log::Level::Error,
                        format_args!(
                            "the address of a managed variable, {address:#x}, is taken in this process"
                        ),
                    );
                    return Err(CUresult::ERROR_NOT_SUPPORTED);
                }
            }
            *self.pages.entry(page).or_insert(0) += 1;
        }
        Ok(())
    }

    /// Gives pages back that no variable is in any more.
    fn unmap(&mut self, address: u64, bytes: u64) {
        for page in pages(address, bytes) {
            let Some(count) = self.pages.get_mut(&page) else { continue };
            *count -= 1;
            if *count == 0 {
                self.pages.remove(&page);
                // SAFETY: a page that `map` has made.
                unsafe { libc::munmap(pointer(page).cast(), page_bytes()) };
            }
        }
    }
}

fn pages(address: u64, bytes: u64) -> impl Iterator<Item = u64> {
    let first = address / PAGE * PAGE;
    let end = if bytes == 0 { first } else { address + bytes };
    (first..end).step_by(usize::try_from(PAGE).expect("a page is small"))
}

fn page_bytes() -> usize {
    usize::try_from(PAGE).expect("a page is small")
}

fn pointer(address: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(usize::try_from(address).expect("addresses have 64 bits"))
}

/// The bytes of the guest's copy.
fn contents(address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    // SAFETY: a variable whose pages are mapped; a thread that writes it now does so against the rules of managed memory.
    unsafe { std::ptr::copy_nonoverlapping(pointer(address).cast_const(), bytes.as_mut_ptr(), length) };
    bytes
}

/// Reads the device's copy, beside all other work.
fn fetch(
    session: &'static Session,
    state: &mut State,
    context: u64,
    address: u64,
    value: &mut [u8],
) -> Result<(), CUresult> {
    if thread::current_context() != context {
        // A stream is made in its own context; work of another one did not concern this variable.
        return Err(CUresult::ERROR_INVALID_CONTEXT);
    }
    let stream = match state.streams.get(&context) {
        Some(stream) => *stream,
        None => {
            let mut stream = CUstream::NULL;
            // SAFETY: a pointer to a local.
            unsafe { api::cuStreamCreate(&raw mut stream, NON_BLOCKING)? };
            state.streams.insert(context, stream);
            stream
        }
    };
    // SAFETY: the whole of `value` may be written.
    unsafe { api::receive_bytes(session, value.as_mut_ptr(), address, value.len(), stream.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_shared_by_variables_and_go_with_the_last() {
        let mut state = State::default();
        let home = 0x2fff_0000_0000;
        state.map(home + 4000, 200).unwrap();
        state.map(home + 100, 8).unwrap();
        assert_eq!(state.pages.values().copied().collect::<Vec<_>>(), [2, 1]);
        // SAFETY: mapped above.
        unsafe { pointer(home + 4199).write(7) };
        assert_eq!(contents(home + 4198, 2), [0, 7]);
        state.unmap(home + 4000, 200);
        assert_eq!(state.pages.len(), 1);
        state.unmap(home + 100, 8);
        assert!(state.pages.is_empty());
    }

    #[test]
    fn an_address_that_is_taken_is_refused_and_nothing_stays() {
        let taken = 0x2fff_1000_0000;
        let mut other = State::default();
        other.map(taken + PAGE, 1).unwrap();
        let mut state = State::default();
        assert_eq!(state.map(taken + 100, 5000), Err(CUresult::ERROR_NOT_SUPPORTED));
        assert!(state.pages.is_empty());
        state.map(taken + 100, 8).unwrap();
    }
}
