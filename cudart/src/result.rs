//! The `CUresult` numbers that this crate answers with, under their names in `cuda.h` without the `CUDA_` prefix.
//!
//! Only the numbers used here: the libcuda around this crate has its own full list.

/// The call did what it says.
pub const SUCCESS: u32 = 0;
/// A null pointer, an unknown table, a version or flag that the driver does not know.
pub const ERROR_INVALID_VALUE: u32 = 1;
/// No driver was installed yet (`cuInit` was not called), or this process is the child of a fork.
pub const ERROR_NOT_INITIALIZED: u32 = 3;
/// The process is past the driver's own exit handler.
pub const ERROR_DEINITIALIZED: u32 = 4;
/// The image is no module image, or is damaged.
pub const ERROR_INVALID_IMAGE: u32 = 200;
/// No context is current to the calling thread.
pub const ERROR_INVALID_CONTEXT: u32 = 201;
/// The handle names nothing, or the storage has no such entry.
pub const ERROR_INVALID_HANDLE: u32 = 400;
/// `cuGetProcAddress` (first version) has no such symbol.
pub const ERROR_NOT_FOUND: u32 = 500;
/// The current context is a primary context that is not active.
pub const ERROR_CONTEXT_IS_DESTROYED: u32 = 709;
/// A slot of an export table whose meaning is not known here.
pub const ERROR_NOT_SUPPORTED: u32 = 801;
/// A panic was stopped at the C boundary.
pub const ERROR_UNKNOWN: u32 = 999;
