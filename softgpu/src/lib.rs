//! Placeholder.

pub mod image;
pub mod isa;
pub mod printf;
