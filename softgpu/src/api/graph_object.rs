//! User objects of graphs, and attributes of kernel nodes (CUDA driver API, section "Graph management").

use super::graph::{find, live};
use super::{Answer, driver_fns};
use crate::device::graph::Body;
use crate::device::user_object::{self, Reference};
use pxos_protocol::types::{
    CUattributeValue, CUgraph, CUgraphNode, CUhostFn, CUkernelNodeAttrID, CUresult, CUuserObject,
    launch_attribute,
};
use std::ffi::{c_uint, c_void};

driver_fns! {
    /// Makes an object that a function of the application's ends.
    ready fn cuUserObjectCreate(object: *mut CUuserObject, data: *mut c_void, destroy: CUhostFn, references: c_uint, flags: c_uint) {
        object.required()?;
        let destroy = destroy.ok_or(CUresult::ERROR_INVALID_VALUE)?;
        if references == 0 || references > i32::MAX.unsigned_abs() || flags != NO_DESTRUCTOR_SYNC {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        object.put(user_object::create(data.raw(), destroy, references))
    }

    /// Adds references of the application's.
    ready fn cuUserObjectRetain(object: CUuserObject, references: c_uint) {
        check(references)?;
        user_object::live(object)?.retain(references.into());
        Ok(())
    }

    /// Takes references of the application's away.
    ready fn cuUserObjectRelease(object: CUuserObject, references: c_uint) {
        check(references)?;
        user_object::live(object)?.release(references.into())
    }

    /// Gives a graph references, new ones or the application's.
    ready fn cuGraphRetainUserObject(graph: CUgraph, object: CUuserObject, references: c_uint, flags: c_uint) {
        check(references)?;
        let (graph, object) = (live(graph)?, user_object::live(object)?);
        if flags & !MOVE != 0 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let refer = |_| if flags == MOVE { Reference::adopt(&object) } else { object.refer() };
        graph.refer((0..references).map(refer));
        Ok(())
    }

    /// Takes references of a graph away.
    ready fn cuGraphReleaseUserObject(graph: CUgraph, object: CUuserObject, references: c_uint) {
        check(references)?;
        live(graph)?.release(&user_object::live(object)?, references as usize)
    }

    /// Gives a kernel node the attributes of another.
    ready fn cuGraphKernelNodeCopyAttributes(to: CUgraphNode, from: CUgraphNode) {
        let Body::Kernel(from) = find(from)?.1.body else { return Err(CUresult::ERROR_INVALID_VALUE) };
        let (attributes, cooperative) = (from.attributes.clone(), from.launch.shape.cooperative);
        change(to, |kernel| {
            kernel.attributes = attributes;
            kernel.launch.shape.cooperative = cooperative;
            Ok(())
        })
    }

    /// An attribute of a kernel node.
    ready fn cuGraphKernelNodeGetAttribute(node: CUgraphNode, attribute: CUkernelNodeAttrID, value: *mut CUattributeValue) {
        value.required()?;
        let Body::Kernel(kernel) = find(node)?.1.body else { return Err(CUresult::ERROR_INVALID_VALUE) };
        if !(1..=LAST_ATTRIBUTE).contains(&attribute) {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let mut held = kernel.attributes.get(&attribute).copied().unwrap_or_default();
        if attribute == launch_attribute::COOPERATIVE {
            held[0] = kernel.launch.shape.cooperative.into();
        }
        value.put(held)
    }

    /// Sets an attribute of a kernel node.
    ready fn cuGraphKernelNodeSetAttribute(node: CUgraphNode, attribute: CUkernelNodeAttrID, value: *const CUattributeValue) {
        let value = value.read()?;
        match attribute {
            launch_attribute::CLUSTER_DIMENSION if value[0] > (1 | 1 << 32) || value[1] > 1 => {
                Err(CUresult::ERROR_NOT_SUPPORTED)
            }
            launch_attribute::DEVICE_UPDATABLE_KERNEL_NODE => Err(CUresult::ERROR_NOT_SUPPORTED),
            1..=LAST_ATTRIBUTE => change(node, |kernel| {
                if attribute == launch_attribute::COOPERATIVE {
                    kernel.launch.shape.cooperative = value[0] & 0xffff_ffff != 0;
                }
                kernel.attributes.insert(attribute, value);
                Ok(())
            }),
            _ => Err(CUresult::ERROR_INVALID_VALUE),
        }
    }
}

/// `CU_USER_OBJECT_NO_DESTRUCTOR_SYNC`: the only kind there is.
const NO_DESTRUCTOR_SYNC: c_uint = 1;
/// `CU_GRAPH_USER_OBJECT_MOVE`.
const MOVE: c_uint = 1;
/// The last launch attribute of CUDA 13.0.
const LAST_ATTRIBUTE: u32 = 17;

/// Counts of references are positive, and fit into an `int` (CUDA driver API).
fn check(references: c_uint) -> Answer {
    if references == 0 || references > i32::MAX.unsigned_abs() {
        Err(CUresult::ERROR_INVALID_VALUE)
    } else {
        Ok(())
    }
}

/// Changes a kernel node.
fn change(node: CUgraphNode, change: impl FnOnce(&mut crate::device::graph::KernelNode) -> Answer) -> Answer {
    let (graph, _) = find(node)?;
    graph.change(node, |node| {
        let Body::Kernel(kernel) = &node.body else { return Err(CUresult::ERROR_INVALID_VALUE) };
        let mut copy = kernel.duplicate();
        change(&mut copy)?;
        node.body = Body::Kernel(std::sync::Arc::new(copy));
        Ok(())
    })
}
