//! CUDA's C types under their own names, laid out as cuda.h lays them out.
//!
//! Handles are newtypes over the pointer-sized number that C passes, so that they can be sent, compared and
//! kept in tables without a raw pointer in sight; enums are plain integers, because an application may pass
//! any value (see `facts`: a Rust enum holding an undeclared variant is undefined behaviour).
#![expect(non_camel_case_types, reason = "the names are CUDA's own")]

mod array;
pub mod attribute;
mod batch;
mod box_copy;
mod graph;
mod handle;
mod memory;
mod result;
mod structs;
mod texture;

pub use array::*;
pub use attribute::CUdevice_attribute;
pub use batch::*;
pub use box_copy::{BoxCopy, Place};
pub use graph::*;
pub use handle::*;
pub use memory::*;
pub use result::CUresult;
pub use structs::*;
pub use texture::*;

/// A device address. The driver's value on both sides (design D6).
pub type CUdeviceptr = u64;
/// A device by its ordinal.
pub type CUdevice = i32;
/// Resource limits of a context (`cuCtxSetLimit`).
pub type CUlimit = u32;
/// Cache preference of a function or context.
pub type CUfunc_cache = u32;
/// Shared memory bank width; without effect on today's devices.
pub type CUsharedconfig = u32;
/// Attribute of a function or kernel.
pub type CUfunction_attribute = u32;
/// Whether a function's code is on the device yet.
pub type CUfunctionLoadingState = u32;
/// JIT compilation option.
pub type CUjit_option = u32;
/// Option of `cuLibraryLoadData`.
pub type CUlibraryOption = u32;
/// Lazy or eager module loading.
pub type CUmoduleLoadingMode = u32;
/// Attribute of a pointer.
pub type CUpointer_attribute = u32;
/// Capture mode of a thread.
pub type CUstreamCaptureMode = u32;
/// Capture status of a stream.
pub type CUstreamCaptureStatus = u32;
/// Kind of execution affinity.
pub type CUexecAffinityType = u32;
/// Output mode of the old profiler.
pub type CUoutput_mode = u32;
/// What `cuGetProcAddress_v2` says of a symbol: 0 found, 1 not found, 2 version too old.
pub type CUdriverProcAddressQueryResult = u32;
/// Hint about managed memory.
pub type CUmem_advise = u32;
/// Attribute of a range of managed memory.
pub type CUmem_range_attribute = u32;
/// Peer-to-peer attribute.
pub type CUdevice_P2PAttribute = u32;
/// Element format of an array.
pub type CUarray_format = u32;

/// Kind of memory: pinned or managed.
pub type CUmemAllocationType = u32;
/// How memory may be shared between processes.
pub type CUmemAllocationHandleType = u32;
/// Attribute of a memory pool.
pub type CUmemPool_attribute = u32;
/// Access to memory: none, reading, reading and writing.
pub type CUmemAccess_flags = u32;
/// What the JIT linker is given.
pub type CUjitInputType = u32;
/// Kind of device resource.
pub type CUdevResourceType = u32;
/// Resources of a device, put together for a green context: an opaque pointer in C.
pub type CUdevResourceDesc = u64;
/// An atomic operation whose support is asked for.
pub type CUatomicOperation = u32;

/// `cuLaunchHostFunc`'s function.
pub type CUhostFn = Option<unsafe extern "C" fn(user_data: *mut std::ffi::c_void)>;
/// `cuStreamAddCallback`'s function.
pub type CUstreamCallback =
    Option<unsafe extern "C" fn(stream: CUstream, status: CUresult, user_data: *mut std::ffi::c_void)>;
/// Dynamic shared memory for a block size, asked by the occupancy functions.
pub type CUoccupancyB2DSize = Option<unsafe extern "C" fn(block_size: std::ffi::c_int) -> usize>;
