//! Structures that cross the C boundary, each with its size asserted against cuda.h 13.0 on x86-64.

use super::{CUexecAffinityType, CUstream};
use std::ffi::{c_int, c_uint, c_void};

/// A UUID as the driver gives it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CUuuid {
    /// The bytes in order.
    pub bytes: [u8; 16],
}

/// The device properties of `cuDeviceGetProperties` (deprecated since CUDA 5).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "field names are CUDA's own; each is the device attribute of that name")]
pub struct CUdevprop {
    pub max_threads_per_block: c_int,
    pub max_threads_dim: [c_int; 3],
    pub max_grid_size: [c_int; 3],
    pub shared_mem_per_block: c_int,
    pub total_constant_memory: c_int,
    pub simd_width: c_int,
    pub mem_pitch: c_int,
    pub regs_per_block: c_int,
    pub clock_rate: c_int,
    pub texture_align: c_int,
}

/// A place for memory.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CUmemLocation {
    /// `CUmemLocationType`: 0 invalid, 1 device, 2 host, 3 host NUMA node, 4 current host NUMA node.
    pub kind: c_uint,
    /// Which device or node.
    pub id: c_int,
}

/// Execution affinity of a context.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUexecAffinityParam {
    /// Only `CU_EXEC_AFFINITY_TYPE_SM_COUNT` (0) exists.
    pub kind: CUexecAffinityType,
    /// How many multiprocessors.
    pub sm_count: c_uint,
}

/// Parameters of `cuCtxCreate_v4`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUctxCreateParams {
    /// Affinities, `num` of them.
    pub exec_affinity_params: *mut CUexecAffinityParam,
    /// Length of the array.
    pub num_exec_affinity_params: c_int,
    /// CUDA in graphics; not available to a guest.
    pub cig_params: *mut c_void,
}

/// One attribute of a launch: an id and 64 bytes whose meaning depends on it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUlaunchAttribute {
    /// `CUlaunchAttributeID`.
    pub id: c_uint,
    /// Alignment.
    pub pad: [u8; 4],
    /// The value, as `CUlaunchAttributeValue` lays it out.
    pub value: [u64; 8],
}

/// Numbers of `CUlaunchAttributeID` that the shim treats by name.
pub mod launch_attribute {
    #![expect(missing_docs, reason = "the names are CUDA's own, less the prefix CU_LAUNCH_ATTRIBUTE_")]
    pub const IGNORE: u32 = 0;
    pub const ACCESS_POLICY_WINDOW: u32 = 1;
    pub const COOPERATIVE: u32 = 2;
    pub const CLUSTER_DIMENSION: u32 = 4;
    pub const CLUSTER_SCHEDULING_POLICY_PREFERENCE: u32 = 5;
    pub const PROGRAMMATIC_STREAM_SERIALIZATION: u32 = 6;
    pub const PROGRAMMATIC_EVENT: u32 = 7;
    pub const PRIORITY: u32 = 8;
    pub const LAUNCH_COMPLETION_EVENT: u32 = 12;
    pub const DEVICE_UPDATABLE_KERNEL_NODE: u32 = 13;
}

/// How `cuLaunchKernelEx` launches.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUlaunchConfig {
    pub grid_dim_x: c_uint,
    pub grid_dim_y: c_uint,
    pub grid_dim_z: c_uint,
    pub block_dim_x: c_uint,
    pub block_dim_y: c_uint,
    pub block_dim_z: c_uint,
    pub shared_mem_bytes: c_uint,
    pub stream: CUstream,
    pub attrs: *mut CUlaunchAttribute,
    pub num_attrs: c_uint,
}

const _: () = {
    assert!(size_of::<CUuuid>() == 16);
    assert!(size_of::<CUdevprop>() == 56);
    assert!(size_of::<CUexecAffinityParam>() == 8);
    assert!(size_of::<CUmemLocation>() == 8);
    assert!(size_of::<CUctxCreateParams>() == 24);
    assert!(size_of::<CUlaunchAttribute>() == 72);
    assert!(size_of::<CUlaunchConfig>() == 56);
};
