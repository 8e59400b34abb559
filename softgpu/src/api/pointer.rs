//! What is known of an address (CUDA driver API, section "Unified addressing"). Values and errors are those that an
//! H200 gives (measured), where the manual leaves them open.

use super::{Answer, Out, driver_fns};
use crate::device::allocation::{self, Allocation, Origin};
use pxos_protocol::types::{CUdeviceptr, CUpointer_attribute, CUresult};
use std::ffi::{c_uint, c_void};
use std::sync::atomic::Ordering;

driver_fns! {
    /// One attribute of an address.
    ready fn cuPointerGetAttribute(data: *mut c_void, attribute: CUpointer_attribute, address: CUdeviceptr) {
        let data = data.required()?;
        let held = allocation::find(address).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        match value(&held, attribute, address) {
            Some(value) => value.write(data),
            None => {
                // Where there is no such address, a null one is written beside the error (measured).
                if matches!(attribute, HOST_POINTER | P2P_TOKENS) {
                    data.cast::<u64>().put(0)?;
                }
                Err(CUresult::ERROR_INVALID_VALUE)
            }
        }
    }

    /// Several attributes; what does not apply is given as null or zero.
    ready fn cuPointerGetAttributes(count: c_uint, attributes: *mut CUpointer_attribute, data: *mut *mut c_void, address: CUdeviceptr) {
        attributes.required()?;
        data.required()?;
        let held = allocation::find(address);
        for index in 0..count as usize {
            let attribute = attributes.read_at(index)?;
            let to = Out::<c_void>::from_api(data.read_at(index)?);
            let known = held.as_deref().and_then(|held| value(held, attribute, address));
            known.map_or_else(|| absent(attribute, address, held.is_some()), Ok)?.write(to)?;
        }
        Ok(())
    }

    /// Sets an attribute; only `SYNC_MEMOPS` can be.
    ready fn cuPointerSetAttribute(value: *const c_void, attribute: CUpointer_attribute, address: CUdeviceptr) {
        let held = allocation::find(address).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        if attribute != SYNC_MEMOPS || value.is_null() {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        held.synchronous.store(value.cast::<c_uint>().read()? != 0, Ordering::Relaxed);
        Ok(())
    }
}

const CONTEXT: CUpointer_attribute = 1;
const MEMORY_TYPE: CUpointer_attribute = 2;
const DEVICE_POINTER: CUpointer_attribute = 3;
const HOST_POINTER: CUpointer_attribute = 4;
const P2P_TOKENS: CUpointer_attribute = 5;
const SYNC_MEMOPS: CUpointer_attribute = 6;
const BUFFER_ID: CUpointer_attribute = 7;
const IS_MANAGED: CUpointer_attribute = 8;
const DEVICE_ORDINAL: CUpointer_attribute = 9;
const IPC_CAPABLE: CUpointer_attribute = 10;
const RANGE_START: CUpointer_attribute = 11;
const RANGE_SIZE: CUpointer_attribute = 12;
const MAPPED: CUpointer_attribute = 13;
const HANDLE_TYPES: CUpointer_attribute = 14;
const RDMA_CAPABLE: CUpointer_attribute = 15;
const ACCESS_FLAGS: CUpointer_attribute = 16;
const MEMPOOL: CUpointer_attribute = 17;
const MAPPING_SIZE: CUpointer_attribute = 18;
const MAPPING_BASE: CUpointer_attribute = 19;
const BLOCK_ID: CUpointer_attribute = 20;
const DECOMPRESS_CAPABLE: CUpointer_attribute = 21;

/// A value in the width that its attribute has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Int(u32),
    Wide(u64),
}

impl Value {
    fn write(self, to: Out<c_void>) -> Answer {
        match self {
            Self::Int(value) => to.cast::<u32>().put(value),
            Self::Wide(value) => to.cast::<u64>().put(value),
        }
    }
}

/// The value of an attribute in a known range; `None` where it does not apply.
fn value(held: &Allocation, attribute: CUpointer_attribute, address: u64) -> Option<Value> {
    let page = |address: u64| address / 4096 * 4096;
    let on_host = held.on_host();
    let managed = matches!(held.origin, Origin::Managed(_));
    let pool = if let Origin::Pool(pool) = held.origin { pool.0 } else { 0 };
    Some(match attribute {
        // Memory of a pool belongs to no context (measured).
        CONTEXT => Value::Wide(if pool == 0 { held.context.0 } else { 0 }),
        MEMORY_TYPE => Value::Int(if on_host { 1 } else { 2 }),
        DEVICE_POINTER => Value::Wide(address),
        HOST_POINTER if on_host || managed => Value::Wide(address),
        P2P_TOKENS if !on_host => Value::Wide(0),
        SYNC_MEMOPS => Value::Int(u32::from(held.synchronous.load(Ordering::Relaxed))),
        BUFFER_ID | BLOCK_ID => Value::Wide(held.buffer),
        IS_MANAGED => Value::Int(u32::from(managed)),
        DEVICE_ORDINAL => Value::Int(held.device.cast_unsigned()),
        RANGE_START => Value::Wide(held.base),
        RANGE_SIZE => Value::Wide(held.bytes),
        MAPPED => Value::Int(1),
        HANDLE_TYPES => Value::Wide(0),
        IPC_CAPABLE | RDMA_CAPABLE | DECOMPRESS_CAPABLE => Value::Int(0),
        ACCESS_FLAGS => Value::Int(3),
        MEMPOOL => Value::Wide(pool),
        MAPPING_SIZE => Value::Wide((held.base + held.bytes).next_multiple_of(4096) - page(held.base)),
        MAPPING_BASE => Value::Wide(page(held.base)),
        _ => return None,
    })
}

/// What [`cuPointerGetAttributes`] gives for an attribute that does not apply, or for an unknown address (measured).
fn absent(attribute: CUpointer_attribute, address: u64, known: bool) -> Answer<Value> {
    Ok(match attribute {
        MEMORY_TYPE | SYNC_MEMOPS | IS_MANAGED | IPC_CAPABLE | MAPPED | RDMA_CAPABLE | ACCESS_FLAGS
        | DECOMPRESS_CAPABLE => Value::Int(0),
        DEVICE_ORDINAL => Value::Int((-2i32).cast_unsigned()),
        // Memory that the driver does not know is taken for the host's.
        HOST_POINTER if !known => Value::Wide(address),
        CONTEXT..=DECOMPRESS_CAPABLE => Value::Wide(0),
        _ => return Err(CUresult::ERROR_INVALID_VALUE),
    })
}
