//! Graphs and stream capture: C structures with cuda.h 13.0's layout, and the numbers that both sides treat by name.

use super::{
    CUDA_MEMCPY3D, CUcontext, CUdeviceptr, CUevent, CUfunction, CUgraph, CUgraphNode, CUhostFn, CUkernel,
    CUmemAccessDesc, CUmemPoolProps, CUstream, CUstreamBatchMemOpParams,
};
use std::ffi::{c_int, c_uint, c_void};

/// Kind of a node.
pub type CUgraphNodeType = u32;
/// The value of a conditional node on the device. The driver's own on both sides, since kernels are given it.
pub type CUgraphConditionalHandle = u64;
/// Attribute of the memory that graphs allocate.
pub type CUgraphMem_attribute = u32;
/// Attribute of a stream, numbered as launch attributes are.
pub type CUstreamAttrID = u32;
/// Attribute of a kernel node, numbered as launch attributes are.
pub type CUkernelNodeAttrID = u32;

/// A reference-counted object of the application's that graphs keep alive.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct CUuserObject(pub u64);

/// Numbers of `CUgraphNodeType`.
pub mod node_type {
    #![expect(missing_docs, reason = "the names are CUDA's own, less the prefix CU_GRAPH_NODE_TYPE_")]
    pub const KERNEL: u32 = 0;
    pub const MEMCPY: u32 = 1;
    pub const MEMSET: u32 = 2;
    pub const HOST: u32 = 3;
    pub const GRAPH: u32 = 4;
    pub const EMPTY: u32 = 5;
    pub const WAIT_EVENT: u32 = 6;
    pub const EVENT_RECORD: u32 = 7;
    pub const EXT_SEMAS_SIGNAL: u32 = 8;
    pub const EXT_SEMAS_WAIT: u32 = 9;
    pub const MEM_ALLOC: u32 = 10;
    pub const MEM_FREE: u32 = 11;
    pub const BATCH_MEM_OP: u32 = 12;
    pub const CONDITIONAL: u32 = 13;
}

/// Numbers of `CUstreamCaptureStatus`.
pub mod capture_status {
    #![expect(missing_docs, reason = "the names are CUDA's own, less the prefix CU_STREAM_CAPTURE_STATUS_")]
    pub const NONE: u32 = 0;
    pub const ACTIVE: u32 = 1;
    pub const INVALIDATED: u32 = 2;
}

/// Numbers of `CUstreamCaptureMode`.
pub mod capture_mode {
    #![expect(missing_docs, reason = "the names are CUDA's own, less the prefix CU_STREAM_CAPTURE_MODE_")]
    pub const GLOBAL: u32 = 0;
    pub const THREAD_LOCAL: u32 = 1;
    pub const RELAXED: u32 = 2;
}

/// `CUDA_KERNEL_NODE_PARAMS_v1`: the structure of the functions without suffix.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUDA_KERNEL_NODE_PARAMS_v1 {
    pub func: CUfunction,
    pub grid_dim: [c_uint; 3],
    pub block_dim: [c_uint; 3],
    pub shared_mem_bytes: c_uint,
    pub kernel_params: *mut *mut c_void,
    pub extra: *mut *mut c_void,
}

/// `CUDA_KERNEL_NODE_PARAMS_v2`, which `_v3` equals.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUDA_KERNEL_NODE_PARAMS_v2 {
    pub func: CUfunction,
    pub grid_dim: [c_uint; 3],
    pub block_dim: [c_uint; 3],
    pub shared_mem_bytes: c_uint,
    pub kernel_params: *mut *mut c_void,
    pub extra: *mut *mut c_void,
    pub kern: CUkernel,
    pub ctx: CUcontext,
}

/// Parameters of a memset node for `cuGraphAddMemsetNode`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUDA_MEMSET_NODE_PARAMS {
    pub dst: CUdeviceptr,
    pub pitch: usize,
    pub value: c_uint,
    pub element_size: c_uint,
    pub width: usize,
    pub height: usize,
}

/// Parameters of a memset node for `cuGraphAddNode`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUDA_MEMSET_NODE_PARAMS_v2 {
    pub memset: CUDA_MEMSET_NODE_PARAMS,
    pub ctx: CUcontext,
}

/// Parameters of a host node.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUDA_HOST_NODE_PARAMS {
    pub function: CUhostFn,
    pub user_data: *mut c_void,
}

/// Parameters of a copy node for `cuGraphAddNode`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUDA_MEMCPY_NODE_PARAMS {
    pub flags: c_int,
    pub reserved: c_int,
    pub copy_ctx: CUcontext,
    pub copy_params: CUDA_MEMCPY3D,
}

/// Parameters of a child graph node for `cuGraphAddNode`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUDA_CHILD_GRAPH_NODE_PARAMS {
    pub graph: CUgraph,
    pub ownership: c_uint,
}

/// Parameters of an allocation node.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUDA_MEM_ALLOC_NODE_PARAMS {
    pub pool_props: CUmemPoolProps,
    pub access_descs: *const CUmemAccessDesc,
    pub access_desc_count: usize,
    pub bytesize: usize,
    pub dptr: CUdeviceptr,
}

/// Parameters of a node of stream memory operations.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUDA_BATCH_MEM_OP_NODE_PARAMS {
    pub ctx: CUcontext,
    pub count: c_uint,
    pub param_array: *mut CUstreamBatchMemOpParams,
    pub flags: c_uint,
}

/// Parameters of a conditional node.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUDA_CONDITIONAL_NODE_PARAMS {
    pub handle: CUgraphConditionalHandle,
    pub kind: c_uint,
    pub size: c_uint,
    pub graph_out: *mut CUgraph,
    pub ctx: CUcontext,
}

/// The parameters of a node of any kind.
#[repr(C)]
#[derive(Clone, Copy)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub union CUgraphNodeBody {
    pub reserved1: [u64; 29],
    pub kernel: CUDA_KERNEL_NODE_PARAMS_v2,
    pub memcpy: CUDA_MEMCPY_NODE_PARAMS,
    pub memset: CUDA_MEMSET_NODE_PARAMS_v2,
    pub host: CUDA_HOST_NODE_PARAMS,
    pub graph: CUDA_CHILD_GRAPH_NODE_PARAMS,
    pub event: CUevent,
    pub alloc: CUDA_MEM_ALLOC_NODE_PARAMS,
    pub free: CUdeviceptr,
    pub mem_op: CUDA_BATCH_MEM_OP_NODE_PARAMS,
    pub conditional: CUDA_CONDITIONAL_NODE_PARAMS,
}

impl std::fmt::Debug for CUgraphNodeBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CUgraphNodeBody")
    }
}

/// `cuGraphAddNode`'s parameters: a kind, and the parameters of that kind.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUgraphNodeParams {
    pub kind: CUgraphNodeType,
    pub reserved0: [c_int; 3],
    pub body: CUgraphNodeBody,
    pub reserved2: i64,
}

impl CUgraphNodeParams {
    /// Parameters of a kind, all zero.
    #[must_use]
    pub fn new(kind: CUgraphNodeType) -> Self {
        Self { kind, reserved0: [0; 3], body: CUgraphNodeBody { reserved1: [0; 29] }, reserved2: 0 }
    }
}

/// What an edge means beyond "after"; all zero for just that.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUgraphEdgeData {
    pub from_port: u8,
    pub to_port: u8,
    pub kind: u8,
    pub reserved: [u8; 5],
}

impl CUgraphEdgeData {
    /// As it travels.
    #[must_use]
    pub fn to_word(self) -> u64 {
        let [a, b, c, d, e] = self.reserved;
        u64::from_le_bytes([self.from_port, self.to_port, self.kind, a, b, c, d, e])
    }

    /// From what travelled.
    #[must_use]
    pub fn from_word(word: u64) -> Self {
        let [from_port, to_port, kind, reserved @ ..] = word.to_le_bytes();
        Self { from_port, to_port, kind, reserved }
    }
}

/// Parameters and results of `cuGraphInstantiateWithParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUDA_GRAPH_INSTANTIATE_PARAMS {
    pub flags: u64,
    pub upload_stream: CUstream,
    pub err_node_out: CUgraphNode,
    pub result_out: c_uint,
}

/// Why an executable graph could not be updated.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUgraphExecUpdateResultInfo {
    pub result: c_uint,
    pub error_node: CUgraphNode,
    pub error_from_node: CUgraphNode,
}

/// The value of a stream's or kernel node's attribute, as `CUlaunchAttributeValue` lays it out.
pub type CUattributeValue = [u64; 8];

const _: () = {
    assert!(size_of::<CUDA_KERNEL_NODE_PARAMS_v1>() == 56);
    assert!(size_of::<CUDA_KERNEL_NODE_PARAMS_v2>() == 72);
    assert!(size_of::<CUDA_MEMSET_NODE_PARAMS>() == 40);
    assert!(size_of::<CUDA_MEMSET_NODE_PARAMS_v2>() == 48);
    assert!(size_of::<CUDA_HOST_NODE_PARAMS>() == 16);
    assert!(size_of::<CUDA_MEMCPY3D>() == 200);
    assert!(size_of::<CUDA_MEMCPY_NODE_PARAMS>() == 216);
    assert!(size_of::<CUDA_CHILD_GRAPH_NODE_PARAMS>() == 16);
    assert!(size_of::<CUDA_MEM_ALLOC_NODE_PARAMS>() == 120);
    assert!(size_of::<CUDA_BATCH_MEM_OP_NODE_PARAMS>() == 32);
    assert!(size_of::<CUDA_CONDITIONAL_NODE_PARAMS>() == 32);
    assert!(size_of::<CUgraphNodeBody>() == 232);
    assert!(size_of::<CUgraphNodeParams>() == 256);
    assert!(size_of::<CUgraphEdgeData>() == 8);
    assert!(size_of::<CUDA_GRAPH_INSTANTIATE_PARAMS>() == 32);
    assert!(size_of::<CUgraphExecUpdateResultInfo>() == 24);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_data_survive_the_round_trip() {
        let edge = CUgraphEdgeData { from_port: 1, to_port: 2, kind: 3, reserved: [4, 5, 6, 7, 8] };
        assert_eq!(CUgraphEdgeData::from_word(edge.to_word()), edge);
        assert_eq!(CUgraphEdgeData::default().to_word(), 0);
    }
}
