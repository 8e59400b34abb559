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

/// What commands of one kind take, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    /// On average, lately.
    pub(crate) mean: u64,
    /// The longest, lately.
    longest: u64,
}

impl Cost {
    /// Always the same.
    pub(crate) const fn of(took: u64) -> Self {
        Self { mean: took, longest: took }
    }

    /// What the next one may take: the mean where all take about that, else the longest. One function in one shape may work
    /// for as long as a parameter says.
    pub(crate) const fn at_most(self) -> u64 {
        if self.longest > self.mean + self.mean / 2 { self.longest } else { self.mean }
    }

    /// Moves the mean by a quarter of the way; the longest is forgotten by and by.
    fn learn(&mut self, took: u64) {
        self.mean = self.mean - self.mean / 4 + took / 4;
        let faded = self.longest - self.longest.saturating_sub(self.mean) / 16;
        self.longest = faded.max(took);
    }
}

/// All estimates of a worker.
#[derive(Debug, Default)]
pub(crate) struct Estimates {
    known: HashMap<u64, Cost, BuildHasherDefault<Same>>,
}

impl Estimates {
    /// What a command will take; the second is whether its very shape is known.
    pub(crate) fn of(&self, key: Key) -> (Option<Cost>, bool) {
        match self.known.get(&key.exact) {
            Some(cost) => (Some(*cost), true),
            None => (self.known.get(&key.rough).copied(), false),
        }
    }

    /// What one took, in nanoseconds.
    pub(crate) fn learn(&mut self, key: Key, took: u64) {
        if self.known.len() >= MOST {
            self.known.clear();
        }
        for key in [key.exact, key.rough] {
            self.known.entry(key).or_insert_with(|| Cost::of(took)).learn(took);
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
        assert_eq!(estimates.of(small), (Some(Cost::of(1000)), true));
        assert_eq!(estimates.of(large), (Some(Cost::of(1000)), false));
        assert_eq!(estimates.of(Key::launch(8, 1, 1, 0)), (None, false));
        for _ in 0..40 {
            estimates.learn(large, 100_000);
        }
        assert!(estimates.of(large).0.unwrap().mean > 99_000);
        for function in 0..10_000 {
            estimates.learn(Key::launch(function, 0, 0, 0), 1);
        }
        assert!(estimates.known.len() <= MOST + 2);
    }

    #[test]
    fn the_longest_counts_where_lengths_differ_and_is_forgotten_where_they_do_not() {
        let (mut estimates, key) = (Estimates::default(), Key::launch(7, 1, 1, 0));
        let cost = |estimates: &Estimates| estimates.of(key).0.unwrap();
        for _ in 0..10 {
            for took in [20_000, 200, 2_000] {
                estimates.learn(key, took);
            }
        }
        assert!(cost(&estimates).mean < 12_000);
        assert!(cost(&estimates).at_most() > 17_000, "{:?}", cost(&estimates));
        for _ in 0..100 {
            estimates.learn(key, 1_000);
        }
        assert!(cost(&estimates).at_most() < 1_200, "{:?}", cost(&estimates));
        // What only trembles is taken for its mean.
        for took in [1_100, 900].repeat(20) {
            estimates.learn(key, took);
        }
        assert!(cost(&estimates).at_most() < 1_050, "{:?}", cost(&estimates));
    }
}
