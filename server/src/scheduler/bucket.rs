//! A token bucket over device time: hard caps, and the budget of the latency tier.

use super::{Allowance, MILLISECOND, Nanos};

/// Device time that may be used. It fills evenly, holds one quota at most, and may be overdrawn: what was used too much is
/// waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    allowance: Allowance,
    /// What may be used, in nanoseconds times the period, so that nothing is lost in rounding.
    level: i128,
    filled: Nanos,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(allowance: Allowance, now: Nanos) -> Self {
        let allowance = Allowance { period: allowance.period.max(1), ..allowance };
        let level = i128::from(allowance.quota) * i128::from(allowance.period);
        Self { allowance, level, filled: now }
    }

    /// What it is filled by.
    pub(super) fn allowance(&self) -> Allowance {
        self.allowance
    }

    /// Fills it up to `now`.
    pub(super) fn fill(&mut self, now: Nanos) {
        let elapsed = now.saturating_sub(self.filled);
        self.filled = self.filled.max(now);
        let full = i128::from(self.allowance.quota) * i128::from(self.allowance.period);
        self.level = (self.level + i128::from(elapsed) * i128::from(self.allowance.quota)).min(full);
    }

    /// Takes what was used.
    pub(super) fn take(&mut self, used: Nanos) {
        self.level -= i128::from(used) * i128::from(self.allowance.period);
    }

    /// What may be used now, in nanoseconds, if `pending` will be taken for sure; 0 where it is overdrawn.
    pub(super) fn left(&self, pending: Nanos) -> Nanos {
        let left = self.level / i128::from(self.allowance.period) - i128::from(pending);
        Nanos::try_from(left.max(0)).unwrap_or(Nanos::MAX)
    }

    /// What must be there before it is worth while to begin again: of a shorter lease, too much would be handing over.
    fn least(&self) -> Nanos {
        (self.allowance.quota / 2).clamp(1, 4 * MILLISECOND)
    }

    /// Whether a lease may begin, if `pending` will be taken.
    pub(super) fn may_begin(&self, pending: Nanos) -> bool {
        self.left(pending) >= self.least()
    }

    /// When a lease may begin.
    pub(super) fn begins_at(&self, pending: Nanos) -> Nanos {
        let wanted = i128::from(self.least()) + i128::from(pending);
        let missing = wanted * i128::from(self.allowance.period) - self.level;
        let quota = i128::from(self.allowance.quota.max(1));
        self.filled + Nanos::try_from((missing.max(0) + quota - 1) / quota).unwrap_or(Nanos::MAX / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fills_evenly_and_debts_are_waited_for() {
        let mut bucket = Bucket::new(Allowance { quota: 10 * MILLISECOND, period: 100 * MILLISECOND }, 0);
        assert_eq!(bucket.left(0), 10 * MILLISECOND);
        assert_eq!(bucket.left(7 * MILLISECOND), 3 * MILLISECOND);
        assert!(!bucket.may_begin(7 * MILLISECOND), "what is in flight is as good as used");
        assert_eq!(bucket.begins_at(7 * MILLISECOND), 10 * MILLISECOND, "1 ms is missing, at a tenth");
        bucket.take(30 * MILLISECOND);
        assert_eq!(bucket.left(0), 0);
        assert!(!bucket.may_begin(0));
        let at = bucket.begins_at(0);
        assert_eq!(at, 240 * MILLISECOND, "20 ms of debt and 4 ms to begin with, at a tenth");
        bucket.fill(at - 1);
        assert!(!bucket.may_begin(0));
        bucket.fill(at);
        assert!(bucket.may_begin(0));
        bucket.fill(10_000 * MILLISECOND);
        assert_eq!(bucket.left(0), 10 * MILLISECOND, "idling saves one quota");
        bucket.fill(0);
        assert_eq!(bucket.left(0), 10 * MILLISECOND, "time does not go back");
    }
}
