//! Streams whose kernels have managed memory to themselves, and how the host sees that they are done with it.
//!
//! Each such stream has a slot, and the slot a word of page-locked memory that the device writes behind the kernel, in the
//! stream's order. Numbers of kernels only grow, so that the newest of a stream stands for all before it.

use super::pointer;
use std::sync::atomic::{AtomicU32, Ordering};

/// Streams with such kernels at a time. A page holds the words of all, each in a cache line of its own.
pub(super) const SLOTS: usize = 64;

/// Bytes from one slot's word to the next.
const STRIDE: u64 = 64;

/// A stream: its context, its name on the wire, and for a thread's default stream the thread.
pub(super) type Stream = (u64, u64, u32);

/// A stream with such a kernel.
#[derive(Clone, Copy, Debug)]
struct Slot {
    stream: Stream,
    /// Where its word is.
    word: u64,
    /// What the word holds once the newest kernel is complete.
    newest: u32,
}

impl Slot {
    fn is_complete(&self) -> bool {
        self.has_reached(self.newest)
    }

    /// Whether a kernel of this stream is complete. Numbers wrap around; a stream is never 2^31 kernels behind.
    fn has_reached(&self, number: u32) -> bool {
        word(self.word).load(Ordering::Acquire).wrapping_sub(number).cast_signed() >= 0
    }
}

/// A word of the markers.
fn word(address: u64) -> &'static AtomicU32 {
    // SAFETY: an aligned word of the arena (or of a test's static memory), which stays mapped as long as the process lives;
    // host and device access it atomically.
    unsafe { AtomicU32::from_ptr(pointer(address).cast()) }
}

/// A slot that was taken for a kernel.
#[derive(Debug)]
pub(super) struct Taken {
    index: usize,
    before: Option<Slot>,
    /// The word that the device has to write.
    pub(super) word: u64,
}

/// All slots.
#[derive(Debug)]
pub(super) struct Slots([Option<Slot>; SLOTS]);

impl Slots {
    /// No stream.
    pub(super) const fn new() -> Self {
        Self([None; SLOTS])
    }

    /// Takes a slot for kernel `number` of a stream, with its word in the page at `page`; `None` where all are others'.
    pub(super) fn take(&mut self, stream: Stream, page: u64, number: u32) -> Option<Taken> {
        let of_stream = |slot: &Option<Slot>| slot.is_some_and(|slot| slot.stream == stream);
        let is_free = |slot: &Option<Slot>| slot.is_none_or(|slot| slot.is_complete());
        let index = self.0.iter().position(of_stream).or_else(|| self.0.iter().position(is_free))?;
        let before = self.0[index].filter(|slot| !slot.is_complete());
        let address = page + STRIDE * index as u64;
        if before.is_none() {
            // The device is done with the word, if it ever had it.
            word(address).store(number.wrapping_sub(1), Ordering::Relaxed);
        }
        self.0[index] = Some(Slot { stream, word: address, newest: number });
        Some(Taken { index, before, word: address })
    }

    /// The kernel that a slot was taken for will not run. No other was put into its stream since.
    pub(super) fn undo(&mut self, taken: &Taken) {
        self.0[taken.index] = taken.before;
    }

    /// Whether every kernel is complete.
    pub(super) fn are_complete(&self) -> bool {
        self.0.iter().flatten().all(Slot::is_complete)
    }

    /// The kernels that are not complete.
    pub(super) fn pending(&self) -> Pending {
        Pending(self.0.map(|slot| slot.filter(|slot| !slot.is_complete()).map(|slot| slot.newest)))
    }

    /// Whether one of these kernels is still not complete.
    pub(super) fn hold(&self, pending: &Pending) -> bool {
        self.0.iter().zip(&pending.0).any(|(slot, number)| match (slot, number) {
            (Some(slot), Some(number)) => !slot.has_reached(*number),
            _ => false,
        })
    }

    /// Forgets the streams of a context.
    pub(super) fn forget(&mut self, context: u64) {
        for slot in &mut self.0 {
            slot.take_if(|slot| slot.stream.0 == context);
        }
    }

    /// Forgets all streams: their kernels will not complete any more.
    pub(super) fn clear(&mut self) {
        self.0 = [None; SLOTS];
    }
}

/// Kernels that were not complete at some moment.
#[derive(Debug)]
pub(super) struct Pending([Option<u32>; SLOTS]);

#[cfg(test)]
mod tests {
    use super::*;

    /// A page for the words, never given back.
    fn page() -> u64 {
        let page: &'static [AtomicU32; 1024] = Box::leak(Box::new([const { AtomicU32::new(0) }; 1024]));
        page.as_ptr().expose_provenance() as u64
    }

    fn stream(number: u64) -> Stream {
        (1, number, 0)
    }

    #[test]
    fn the_newest_kernel_of_a_stream_stands_for_all() {
        let (mut slots, page) = (Slots::new(), page());
        assert!(slots.are_complete());
        let first = slots.take(stream(7), page, 1).unwrap();
        let second = slots.take(stream(7), page, 2).unwrap();
        assert_eq!((first.word, second.word), (page, page));
        let before = slots.pending();
        word(page).store(1, Ordering::Relaxed);
        assert!(!slots.are_complete() && slots.hold(&before));
        word(page).store(2, Ordering::Relaxed);
        assert!(slots.are_complete() && !slots.hold(&before));
        slots.take(stream(7), page, 3).unwrap();
        assert!(!slots.are_complete());
        assert!(!slots.hold(&before), "another kernel than that which was waited for");
    }

    #[test]
    fn streams_have_slots_of_their_own_as_long_as_there_are_any() {
        let (mut slots, page) = (Slots::new(), page());
        let words: Vec<u64> =
            (0..64).map(|number| slots.take(stream(number), page, 9).unwrap().word).collect();
        assert_eq!((words[1], words[63]), (page + 64, page + 63 * 64));
        assert!(slots.take(stream(64), page, 10).is_none());
        assert!(slots.take(stream(5), page, 10).is_some(), "it has one");
        word(words[3]).store(9, Ordering::Relaxed);
        assert_eq!(slots.take(stream(64), page, 11).unwrap().word, words[3]);
        assert!(!slots.are_complete());
        slots.forget(2);
        assert!(!slots.are_complete());
        slots.forget(1);
        assert!(slots.are_complete());
    }

    #[test]
    fn a_kernel_that_was_not_sent_is_not_waited_for() {
        let (mut slots, page) = (Slots::new(), page());
        let taken = slots.take(stream(1), page, 5).unwrap();
        slots.undo(&taken);
        assert!(slots.are_complete());
        slots.take(stream(1), page, 6).unwrap();
        let taken = slots.take(stream(1), page, 7).unwrap();
        slots.undo(&taken);
        assert!(!slots.are_complete(), "the one before it was sent");
        word(page).store(6, Ordering::Relaxed);
        assert!(slots.are_complete());
        slots.take(stream(1), page, 8).unwrap();
        slots.clear();
        assert!(slots.are_complete());
    }

    #[test]
    fn numbers_wrap_around() {
        let (mut slots, page) = (Slots::new(), page());
        slots.take(stream(1), page, u32::MAX).unwrap();
        slots.take(stream(1), page, 1).unwrap();
        word(page).store(u32::MAX, Ordering::Relaxed);
        assert!(!slots.are_complete());
        word(page).store(1, Ordering::Relaxed);
        assert!(slots.are_complete());
        // A word that was never written does not look like one that is ahead.
        slots.take(stream(2), page, 0x8000_0001).unwrap();
        assert!(!slots.are_complete());
    }
}
