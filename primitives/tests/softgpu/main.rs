//! Kernels as PTX on softgpu: against the CPU executor, and against references written plainly.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "an integration test; the numbers are small"
)]

mod common;
mod cuda;
mod differential;
mod driver;
mod examples;
mod hostile;
