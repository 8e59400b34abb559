//! Why hellos are refused: words for the log and the status, and what the guest's CUDA calls answer.

use pxos_protocol::types::CUresult;

/// A reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The bytes are no hello.
    Malformed,
    /// It did not come in time.
    Timeout,
    /// The peer closed before it.
    Closed,
    /// It is of another version.
    Version,
    /// The configuration does not let this guest in.
    Denied,
    /// Too many connections wait.
    Connecting,
    /// Too many sessions stand.
    Full,
    /// No worker is to be had.
    NoWorker,
    /// The daemon ends.
    Draining,
}

impl Reason {
    /// All, in order.
    pub(super) const ALL: [Self; 9] = [
        Self::Malformed,
        Self::Timeout,
        Self::Closed,
        Self::Version,
        Self::Denied,
        Self::Connecting,
        Self::Full,
        Self::NoWorker,
        Self::Draining,
    ];

    /// One word.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Version => "version",
            Self::Denied => "denied",
            Self::Connecting => "connecting",
            Self::Full => "full",
            Self::NoWorker => "no-worker",
            Self::Draining => "draining",
        }
    }

    /// What the guest's calls answer: the `CUresult` whose meaning in the driver API manual comes nearest.
    pub(super) fn result(self) -> CUresult {
        match self {
            Self::Malformed | Self::Timeout | Self::Closed => CUresult::ERROR_UNKNOWN,
            Self::Version => CUresult::ERROR_SYSTEM_DRIVER_MISMATCH,
            Self::Denied => CUresult::ERROR_NOT_PERMITTED,
            Self::Connecting | Self::Full => CUresult::ERROR_DEVICE_UNAVAILABLE,
            Self::NoWorker | Self::Draining => CUresult::ERROR_SYSTEM_NOT_READY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_in_their_order() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.name());
            assert!(!reason.result().is_success());
        }
    }
}
