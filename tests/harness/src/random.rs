//! Deterministic random numbers (splitmix64): a scenario with random input names its seed, and the seed is all of it.

/// A source of random numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.bits() % limit.max(1) as u64).expect("below a usize")
    }

    /// `length` random bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            std::iter::repeat_with(|| self.bits().to_le_bytes()).take(length.div_ceil(8)).flatten().collect();
        bytes.truncate(length);
        bytes
    }

    /// A number of the kind that finds mistakes: small, huge, a power of two and its neighbours, an address, or anything.
    pub fn nasty(&mut self) -> u64 {
        match self.below(8) {
            0 => self.bits() % 16,
            1 => u64::MAX - self.bits() % 16,
            2 => (1_u64 << self.below(64)).wrapping_sub(1),
            3 => 1_u64 << self.below(64),
            4 => 0x7fff_0000_0000 + self.bits() % (1 << 30),
            5 => u64::from(u32::MAX) + self.bits() % 3,
            6 => self.bits() >> self.below(64),
            _ => self.bits(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_all_of_it() {
        let (mut one, mut other) = (Random::new(7), Random::new(7));
        assert_eq!(one.bytes(19), other.bytes(19));
        assert_eq!(one.bytes(19).len(), 19);
        assert_ne!(Random::new(8).bits(), Random::new(7).bits());
        assert!((0..100).all(|_| one.below(3) < 3));
    }
}
