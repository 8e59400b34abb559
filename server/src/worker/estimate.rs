//! What commands cost, as learnt: a moving average per function and shape of launch, or per graph.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Shapes that are remembered; a program that makes more starts afresh.
const MOST: usize = 4096;

/// What a command is known by: mixed well, so that it is its own hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// Function and shape, or graph, or kind and size of a copy.
    exact: u64,
    /// The function alone, for shapes that are new.
    rough: u64,
}

/// Mixes two words (the finaliser of MurmurHash3 behind an addition).
const fn mix(one: u64, other: u64) -> u64 {
    let mut word = one.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(other);
    word = (word ^ (word >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    word = (word ^ (word >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ (word >> 33)
}

impl Key {
    /// A launch: the function, and the two words of its shape.
    pub(crate) const fn launch(function: u64, first: u64, second: u64, third: u64) -> Self {
        let rough = mix(1, function);
        Self { exact: mix(mix(mix(rough, first), second), third), rough }
    }

    /// A graph.
    pub(crate) const fn graph(exec: u64) -> Self {
        let key = mix(2, exec);
        Self { exact: key, rough: key }
    }

    /// Memory that is filled or copied on the device; sizes within a factor of two are as one.
    pub(crate) const fn memory(bytes: u64) -> Self {
        let key = mix(3, bytes.leading_zeros() as u64);
        Self { exact: key, rough: key }
    }
}

/// The key is the hash.
#[derive(Default)]
pub(crate) struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
}

/// All estimates of a worker, in nanoseconds.
#[derive(Default)]
pub(crate) struct Estimates {
    known: HashMap<u64, u64, BuildHasherDefault<Same>>,
}

impl Estimates {
    /// What a command will take; the second is whether its very shape is known.
    pub(crate) fn of(&self, key: Key) -> (Option<u64>, bool) {
        match self.known.get(&key.exact) {
            Some(cost) => (Some(*cost), true),
            None => (self.known.get(&key.rough).copied(), false),
        }
    }

    /// What one took.
    pub(crate) fn learn(&mut self, key: Key, took: u64) {
        if self.known.len() >= MOST {
            self.known.clear();
        }
        for key in [key.exact, key.rough] {
            let known = self.known.entry(key).or_insert(took);
            *known = *known - *known / 4 + took / 4;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_learnt_and_new_ones_are_guessed_by_their_function() {
        let mut estimates = Estimates::default();
        let (small, large) = (Key::launch(7, 1, 1, 0), Key::launch(7, 2, 1, 0));
        assert_eq!(estimates.of(small), (None, false));
        estimates.learn(small, 1000);
        assert_eq!(estimates.of(small), (Some(1000), true));
        assert_eq!(estimates.of(large), (Some(1000), false));
        assert_eq!(estimates.of(Key::launch(8, 1, 1, 0)), (None, false));
        for _ in 0..40 {
            estimates.learn(large, 100_000);
        }
        assert!(estimates.of(large).0.unwrap() > 99_000);
        for function in 0..10_000 {
            estimates.learn(Key::launch(function, 0, 0, 0), 1);
        }
        assert!(estimates.known.len() <= MOST + 2);
    }
}
