//! What a running kernel asks of the driver above it.

/// Services for device code; called from several threads at once.
pub trait Host: Sync {
    /// Takes one formatted `printf` output. Outputs of one thread come in program order.
    fn print(&self, text: &[u8]);

    /// Device-side `malloc`: an address in device memory, or 0.
    fn malloc(&self, bytes: u64) -> u64;

    /// Device-side `free` of an address that [`Host::malloc`] returned.
    fn free(&self, addr: u64);

    /// Sets the value that a conditional node of a graph looks at; false for a handle that is none.
    fn set_conditional(&self, handle: u64, value: u32) -> bool {
        let _ = (handle, value);
        false
    }

    /// Whether the launch should stop; polled every few thousand instructions.
    fn cancelled(&self) -> bool {
        false
    }

    /// Multiprocessors that the device claims to have, for `%nsmid` and `%smid`.
    fn multiprocessors(&self) -> u32 {
        16
    }

    /// Most bytes of stack that one thread may use for calls and local variables (`CU_LIMIT_STACK_SIZE`
    /// rounded generously: a CPU frame is not a GPU frame).
    fn stack_limit(&self) -> u32 {
        256 << 10
    }
}
