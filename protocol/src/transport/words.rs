//! The control words of a ring, which both processes write: who may say what when, and nothing else. The rules are few enough
//! to be tried in every order that two processors can bring them into (`make loom`).

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// One word on a cache line of its own, so that the two sides do not slow each other down.
#[repr(C, align(64))]
#[derive(Default)]
struct Line<T>(T);

/// The control words of one ring. In shared memory any bit pattern is valid: what a peer has written is an allegation.
#[repr(C)]
#[derive(Default)]
pub(super) struct Words {
    /// Bytes ever produced.
    head: Line<AtomicU64>,
    /// Bytes ever consumed.
    tail: Line<AtomicU64>,
    /// 1 while the consumer sleeps or is about to.
    parked: Line<AtomicU32>,
}

impl Words {
    /// Producer: everything up to `head` is written. Whether the consumer sleeps and the doorbell must be rung; of several
    /// calls one is told so.
    #[inline]
    pub(super) fn publish(&self, head: u64) -> bool {
        // Release: whoever sees the index sees the frame.
        self.head.0.store(head, Ordering::Release);
        // The consumer stores `parked`, fences, and looks at `head`; we stored `head`, fence, and look at `parked`: one of us
        // sees the other.
        fence(Ordering::SeqCst);
        self.parked.0.load(Ordering::Relaxed) == 1 && self.parked.0.swap(0, Ordering::AcqRel) == 1
    }

    /// Producer: how far the consumer says that it has read.
    #[inline]
    pub(super) fn consumed(&self) -> u64 {
        // Acquire: the consumer has read what it gives back.
        self.tail.0.load(Ordering::Acquire)
    }

    /// Consumer: how far the producer says that it has written.
    #[inline]
    pub(super) fn produced(&self) -> u64 {
        // Acquire: with the index come the frames before it.
        self.head.0.load(Ordering::Acquire)
    }

    /// Consumer: everything up to `tail` is read.
    #[inline]
    pub(super) fn give_back(&self, tail: u64) {
        // Release: we have read what we give back.
        self.tail.0.store(tail, Ordering::Release);
    }

    /// Consumer: it is about to sleep, having read up to `tail`. `false` where more has come and it must not.
    #[must_use]
    pub(super) fn park(&self, tail: u64) -> bool {
        // An exchange and not a store, so that it comes after the exchange of a producer that has just seen us sleep.
        self.parked.0.swap(1, Ordering::AcqRel);
        // See `publish`.
        fence(Ordering::SeqCst);
        if self.produced() == tail {
            return true;
        }
        self.unpark();
        false
    }

    /// Consumer: it is awake.
    pub(super) fn unpark(&self) {
        self.parked.0.store(0, Ordering::Relaxed);
    }

    /// Writes what a peer would that does not keep to the rules.
    #[cfg(all(test, not(loom)))]
    pub(super) fn lie(&self, head: Option<u64>, tail: Option<u64>) {
        if let Some(head) = head {
            self.head.0.store(head, Ordering::Release);
        }
        if let Some(tail) = tail {
            self.tail.0.store(tail, Ordering::Release);
        }
    }
}

#[cfg(test)]
#[cfg(loom)]
mod tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::{Arc, Notify};

    /// Room for so many frames.
    const ROOM: u64 = 2;

    struct Ring {
        words: Words,
        frames: [UnsafeCell<u64>; ROOM as usize],
        doorbell: Notify,
    }

    impl Ring {
        fn frame(&self, position: u64) -> &UnsafeCell<u64> {
            &self.frames[usize::try_from(position % ROOM).expect("below the room")]
        }
    }

    /// Every order of `frames` frames through a ring that holds fewer: no frame is read before it is written or written before
    /// it was read (loom watches the cells), all come in order, and a consumer that sleeps is always woken (loom finds a sleeper
    /// whom nobody can wake).
    fn pass(frames: u64) {
        // Every order has at most so many preemptions; without a bound there are too many to try.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(move || {
            let cells = std::array::from_fn(|_| UnsafeCell::new(0));
            let ring = Arc::new(Ring { words: Words::default(), frames: cells, doorbell: Notify::new() });
            let producing = Arc::clone(&ring);
            let producer = loom::thread::spawn(move || {
                for number in 0..frames {
                    while number - producing.words.consumed() == ROOM {
                        loom::thread::yield_now();
                    }
                    // SAFETY: the consumer has given this place back; loom fails the test where it has not.
                    producing.frame(number).with_mut(|frame| unsafe { *frame = number + 1 });
                    if producing.words.publish(number + 1) {
                        producing.doorbell.notify();
                    }
                }
            });
            let mut tail = 0;
            while tail < frames {
                if ring.words.produced() > tail {
                    // SAFETY: the producer has published this place; loom fails the test where it has not.
                    assert_eq!(ring.frame(tail).with(|frame| unsafe { *frame }), tail + 1);
                    tail += 1;
                    ring.words.give_back(tail);
                } else if ring.words.park(tail) {
                    ring.doorbell.wait();
                    ring.words.unpark();
                }
            }
            producer.join().expect("the producer ends");
        });
    }

    #[test]
    fn frames_arrive_and_sleepers_are_woken() {
        pass(2);
    }

    #[test]
    fn a_full_ring_is_not_overwritten() {
        pass(3);
    }
}
