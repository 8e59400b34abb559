//! x
use crate::diagnostic::Diagnostics;
use crate::program::Kernel;
pub(crate) fn advise(_k: &[Kernel], _d: &mut Diagnostics) {}
