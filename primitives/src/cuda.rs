//! x
/// x
pub fn emit_cuda() {}
