//! What ends a launch early.

/// The kind of a fault, one per `CUresult` that the driver API distinguishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// An access outside live memory (`CUDA_ERROR_ILLEGAL_ADDRESS`).
    IllegalAddress,
    /// An access that is not naturally aligned (`CUDA_ERROR_MISALIGNED_ADDRESS`).
    MisalignedAddress,
    /// Operands that the instruction does not take (`CUDA_ERROR_ILLEGAL_INSTRUCTION`).
    IllegalInstruction,
    /// `trap` or `brkpt` (`CUDA_ERROR_LAUNCH_FAILED`).
    Trap,
    /// `__assertfail` (`CUDA_ERROR_ASSERT`).
    Assert,
    /// Calls deeper than the stack limit (`CUDA_ERROR_LAUNCH_FAILED`).
    StackOverflow,
    /// A call or jump to an address that is no function (`CUDA_ERROR_INVALID_PC`).
    InvalidPc,
    /// An atomic on a space that has none (`CUDA_ERROR_INVALID_ADDRESS_SPACE`).
    InvalidAddressSpace,
    /// Every thread of a block waits for another one: a GPU would hang.
    Deadlock,
    /// The host asked to stop.
    Cancelled,
    /// The launch itself does not fit the kernel (`CUDA_ERROR_INVALID_VALUE`); nothing has run.
    InvalidLaunch,
}

/// A fault with its place, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What happened.
    pub kind: FaultKind,
    /// Kernel, block, thread, address and PTX line.
    pub message: String,
}
