//! Structures of memory pools, virtual memory, stream memory operations, interprocess handles and device resources, each with
//! its size asserted against cuda.h 13.0 on x86-64.

use super::{CUdeviceptr, CUmemAllocationHandleType, CUmemAllocationType, CUmemLocation};
use std::ffi::{c_uint, c_void};

/// Numbers of `CUmemLocationType`.
pub mod location_type {
    #![expect(missing_docs, reason = "the names are CUDA's own, less the prefix CU_MEM_LOCATION_TYPE_")]
    pub const DEVICE: u32 = 1;
    pub const HOST: u32 = 2;
    pub const HOST_NUMA: u32 = 3;
    pub const HOST_NUMA_CURRENT: u32 = 4;
}

/// `CU_MEM_ALLOCATION_TYPE_PINNED`: memory that stays where it is.
pub const CU_MEM_ALLOCATION_TYPE_PINNED: CUmemAllocationType = 1;
/// `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`: memory that can be shared through a file descriptor.
pub const CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR: CUmemAllocationHandleType = 1;

/// Who may access memory, and how.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CUmemAccessDesc {
    /// Who.
    pub location: CUmemLocation,
    /// `CUmemAccess_flags`: 0 not at all, 1 reading, 3 reading and writing.
    pub flags: c_uint,
}

/// What a new pool should be.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUmemPoolProps {
    /// Kind of memory.
    pub alloc_type: CUmemAllocationType,
    /// How its allocations may be shared.
    pub handle_types: CUmemAllocationHandleType,
    /// Where its memory is.
    pub location: CUmemLocation,
    /// For Windows; null elsewhere.
    pub win32_security_attributes: *mut c_void,
    /// The most it may hold; 0 for a default.
    pub max_size: usize,
    /// What it is for, `CU_MEM_POOL_CREATE_USAGE_*`.
    pub usage: u16,
    /// Zero.
    pub reserved: [u8; 54],
}

/// What another process needs to know of one allocation of a shared pool.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUmemPoolPtrExportData {
    /// Only the driver (here: the server) reads it.
    pub reserved: [u8; 64],
}

/// What a piece of physical memory should be, or is.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUmemAllocationProp {
    /// Kind of memory.
    pub kind: CUmemAllocationType,
    /// How it may be shared.
    pub requested_handle_types: CUmemAllocationHandleType,
    /// Where it is.
    pub location: CUmemLocation,
    /// For Windows; null elsewhere.
    pub win32_handle_meta_data: *mut c_void,
    /// `CU_MEM_ALLOCATION_COMP_*`.
    pub compression_type: u8,
    /// Whether other devices on the bus may reach it.
    pub gpu_direct_rdma_capable: u8,
    /// What it is for, `CU_MEM_CREATE_USAGE_*`.
    pub usage: u16,
    /// Zero.
    pub reserved: [u8; 4],
}

/// `CUmem_advise`.
pub mod mem_advise {
    #![expect(missing_docs, reason = "the names are CUDA's own, less the prefix CU_MEM_ADVISE_")]
    pub const SET_READ_MOSTLY: u32 = 1;
    pub const UNSET_READ_MOSTLY: u32 = 2;
    pub const SET_PREFERRED_LOCATION: u32 = 3;
    pub const UNSET_PREFERRED_LOCATION: u32 = 4;
    pub const SET_ACCESSED_BY: u32 = 5;
    pub const UNSET_ACCESSED_BY: u32 = 6;
}

/// `CUmem_range_attribute`.
pub mod range_attribute {
    #![expect(missing_docs, reason = "the names are CUDA's own, less the prefix CU_MEM_RANGE_ATTRIBUTE_")]
    pub const READ_MOSTLY: u32 = 1;
    pub const PREFERRED_LOCATION: u32 = 2;
    pub const ACCESSED_BY: u32 = 3;
    pub const LAST_PREFETCH_LOCATION: u32 = 4;
    pub const PREFERRED_LOCATION_TYPE: u32 = 5;
    pub const PREFERRED_LOCATION_ID: u32 = 6;
    pub const LAST_PREFETCH_LOCATION_TYPE: u32 = 7;
    pub const LAST_PREFETCH_LOCATION_ID: u32 = 8;
}

/// `CUstreamBatchMemOpType`.
pub mod stream_mem_op {
    #![expect(missing_docs, reason = "the names are CUDA's own, less the prefix CU_STREAM_MEM_OP_")]
    pub const WAIT_VALUE_32: u32 = 1;
    pub const WRITE_VALUE_32: u32 = 2;
    pub const FLUSH_REMOTE_WRITES: u32 = 3;
    pub const WAIT_VALUE_64: u32 = 4;
    pub const WRITE_VALUE_64: u32 = 5;
    pub const BARRIER: u32 = 6;
}

/// One operation of `cuStreamBatchMemOp`: a union in C, whose `waitValue` and `writeValue` have this form. `barrier` and
/// `flushRemoteWrites` keep their flags directly behind the operation, in [`Self::short_flags`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CUstreamBatchMemOpParams {
    /// [`stream_mem_op`].
    pub operation: c_uint,
    /// Flags of a barrier or a flush.
    pub short_flags: c_uint,
    /// What is waited for or written.
    pub address: CUdeviceptr,
    /// The value; the lower half for an operation of 32 bits.
    pub value: u64,
    /// Flags of a wait or a write.
    pub flags: c_uint,
    /// Alignment.
    pub pad: c_uint,
    /// For the driver.
    pub alias: CUdeviceptr,
    /// The union's other member is longer.
    pub rest: u64,
}

/// An event that another process may open.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUipcEventHandle {
    /// Only the driver (here: the server) reads it.
    pub reserved: [u8; 64],
}

/// Memory that another process may open.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUipcMemHandle {
    /// Only the driver (here: the server) reads it.
    pub reserved: [u8; 64],
}

/// A part of a device: which multiprocessors a green context may use.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug)]
pub struct CUdevResource {
    /// `CUdevResourceType`: 0 invalid, 1 multiprocessors.
    pub kind: c_uint,
    /// Only the driver (here: the server) reads it.
    pub internal: [u8; 92],
    /// How many multiprocessors.
    pub sm_count: c_uint,
    /// The fewest that a split gives.
    pub min_sm_partition_size: c_uint,
    /// Multiprocessors come in multiples of this.
    pub sm_coscheduled_alignment: c_uint,
    /// Room for other kinds of resource.
    pub oversize: [u8; 36],
}

impl CUdevResource {
    /// No resource.
    pub const INVALID: Self = Self {
        kind: 0,
        internal: [0; 92],
        sm_count: 0,
        min_sm_partition_size: 0,
        sm_coscheduled_alignment: 0,
        oversize: [0; 36],
    };
}

const _: () = {
    assert!(size_of::<CUmemAccessDesc>() == 12);
    assert!(size_of::<CUmemPoolProps>() == 88);
    assert!(size_of::<CUmemPoolPtrExportData>() == 64);
    assert!(size_of::<CUmemAllocationProp>() == 32);
    assert!(size_of::<CUstreamBatchMemOpParams>() == 48);
    assert!(std::mem::offset_of!(CUstreamBatchMemOpParams, flags) == 24);
    assert!(std::mem::offset_of!(CUstreamBatchMemOpParams, alias) == 32);
    assert!(size_of::<CUipcEventHandle>() == 64);
    assert!(size_of::<CUipcMemHandle>() == 64);
    assert!(size_of::<CUdevResource>() == 144);
    assert!(std::mem::offset_of!(CUdevResource, sm_count) == 96);
};
