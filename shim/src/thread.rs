//! What belongs to one thread of the application: its number on the wire, its stack of contexts, its default stream.
//!
//! The hot fields are cells without destructors, because the CUDA runtime calls back into this library from destructors
//! of its own thread-local storage, when ours may be gone.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU32, Ordering};

thread_local! {
    static NUMBER: Cell<u32> = const { Cell::new(0) };
    static CURRENT: Cell<u64> = const { Cell::new(0) };
    static PER_THREAD: Cell<bool> = const { Cell::new(false) };
    static CAPTURE_MODE: Cell<u32> = const { Cell::new(0) };
    static STREAM_CAPTURES: Cell<bool> = const { Cell::new(false) };
    /// Contexts under the current one.
    static STACK: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

static NEXT: AtomicU32 = AtomicU32::new(1);

/// This thread's number: 1 for the first thread that called.
pub(crate) fn number() -> u32 {
    let number = NUMBER.get();
    if number != 0 {
        return number;
    }
    // Relaxed: the number only has to be unique.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    NUMBER.set(number);
    number
}

/// Whether stream 0 means the thread's own default stream in the call that is running.
pub(crate) fn per_thread() -> bool {
    PER_THREAD.get()
}

/// Runs `body` as a call through an entry point for which stream 0 is the legacy default stream.
#[inline]
pub(crate) fn legacy<T>(body: impl FnOnce() -> T) -> T {
    body()
}

/// Runs `body` as a call through a `_ptds` or `_ptsz` entry point.
pub(crate) fn with_per_thread<T>(body: impl FnOnce() -> T) -> T {
    let before = PER_THREAD.replace(true);
    let result = body();
    PER_THREAD.set(before);
    result
}

/// The current context's handle, 0 for none.
pub(crate) fn current_context() -> u64 {
    CURRENT.get()
}

/// Replaces the top of the stack; 0 takes the top away (`cuCtxSetCurrent`: "If ctx is NULL, unbinds").
pub(crate) fn set_current(context: u64) {
    CURRENT.set(context);
}

/// Puts `context` on top of the stack.
pub(crate) fn push(context: u64) {
    let below = CURRENT.replace(context);
    let _ = STACK.try_with(|stack| stack.borrow_mut().push(below));
}

/// Takes the top of the stack, `None` where nothing is current.
pub(crate) fn pop() -> Option<u64> {
    let below = STACK.try_with(|stack| stack.borrow_mut().pop()).ok().flatten();
    let top = CURRENT.replace(below.unwrap_or(0));
    (top != 0).then_some(top)
}

/// The thread's stream capture mode, replaced by `mode`.
pub(crate) fn exchange_capture_mode(mode: u32) -> u32 {
    CAPTURE_MODE.replace(mode)
}

/// Who a thread is to the server: its number, its context, its default stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    number: u32,
    context: u64,
    per_thread: bool,
}

/// This thread's identity, for threads that help it.
pub(crate) fn identity() -> Identity {
    Identity { number: number(), context: current_context(), per_thread: per_thread() }
}

/// Makes this thread speak for another, which waits for it.
pub(crate) fn adopt(identity: Identity) {
    NUMBER.set(identity.number);
    CURRENT.set(identity.context);
    PER_THREAD.set(identity.per_thread);
}

/// The thread's stream capture mode.
pub(crate) fn capture_mode() -> u32 {
    CAPTURE_MODE.get()
}

/// Whether the stream that the running call named is being captured; only kept while anything is.
pub(crate) fn stream_captures() -> bool {
    STREAM_CAPTURES.get()
}

/// Notes whether the stream that the running call names is being captured.
pub(crate) fn set_stream_captures(captures: bool) {
    STREAM_CAPTURES.set(captures);
}

/// Lends the thread's buffer for encoding; a nested use gets a buffer of its own.
pub(crate) fn with_buffer<T>(body: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut buffer = BUFFER.try_with(|cell| cell.take()).unwrap_or_default();
    let result = body(&mut buffer);
    let _ = BUFFER.try_with(|cell| cell.replace(buffer));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_behaves_as_cuda_says() {
        assert_eq!(pop(), None);
        push(7);
        push(8);
        assert_eq!(current_context(), 8);
        set_current(9);
        assert_eq!(pop(), Some(9));
        assert_eq!(pop(), Some(7));
        assert_eq!(pop(), None);
        set_current(5);
        assert_eq!(pop(), Some(5));
        assert_eq!(current_context(), 0);
    }

    #[test]
    fn the_default_stream_is_per_call() {
        assert!(!per_thread());
        assert!(with_per_thread(per_thread));
        assert!(!per_thread());
    }
}
