//! What a compilation allows: the operator's policy and the limits that keep hostile texts cheap.

/// Policy and limits of one compilation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Leave bounds checks out where a kernel asks for it with `UNCHECKED`; otherwise that word is refused.
    pub allow_unchecked: bool,
    /// Leave bounds checks out of every kernel (for measurements of what they cost).
    pub unchecked: bool,
    /// Bytes of program text.
    pub max_text: usize,
    /// Blocks within blocks (IF, FOR) and parentheses within parentheses.
    pub max_nesting: usize,
    /// FOR within FOR.
    pub max_loop_nesting: usize,
    /// Kernels and functions of one program.
    pub max_kernels: usize,
    /// Parameters of one kernel: arrays take two machine parameters each, and PTX allows 4,352 bytes of them.
    pub max_params: usize,
    /// Bytes of shared memory of one block: what every GPU gives without opting in.
    pub max_shared: usize,
    /// Operations of one kernel after functions are expanded.
    pub max_operations: usize,
    /// Diagnostics reported; what comes after is counted only.
    pub max_diagnostics: usize,
    /// Threads of a block when the program names no number.
    pub block_size: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allow_unchecked: false,
            unchecked: false,
            max_text: 256 << 10,
            max_nesting: 64,
            max_loop_nesting: 8,
            max_kernels: 64,
            max_params: 64,
            max_shared: 48 << 10,
            max_operations: 100_000,
            max_diagnostics: 50,
            block_size: 256,
        }
    }
}
