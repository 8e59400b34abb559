//! State spaces: how an address of a lane becomes a pointer, and when it does not.

#![expect(clippy::cast_possible_truncation, reason = "the engine runs on 64-bit machines only")]

use super::fault::FaultKind;
use super::op::Cx;
use super::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_BYTES, WINDOWS};

/// Why an address cannot be accessed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bad {
    pub(super) kind: FaultKind,
    pub(super) address: u64,
}

fn illegal(address: u64) -> Bad {
    Bad { kind: FaultKind::IllegalAddress, address }
}

/// A state space: how an address becomes a pointer.
pub(super) trait Place: 'static {
    const NAME: &'static str;
    /// Whether accesses are worth an instance for each set of CPU features.
    const HOT: bool = false;
    /// Whether only the thread that runs the block can reach it.
    const PRIVATE: bool = false;
    /// Where `bytes` bytes at an address are for a lane. Alignment has been checked.
    fn locate(cx: &mut Cx<'_>, lane: usize, address: u64, bytes: u32) -> Result<*mut u8, Bad>;
    /// Where a stretch is that all lanes share, if it is accessible as a whole.
    fn span(cx: &mut Cx<'_>, address: u64, bytes: u32) -> Option<*mut u8> {
        Self::locate(cx, 0, address, bytes).ok()
    }
    /// Where offset 0 is, if every access at or below `highest` is in bounds for all lanes.
    fn window(_: &mut Cx<'_>, _highest: u64, _bytes: u32) -> Option<*mut u8> {
        None
    }
}

/// Global and constant memory.
pub(super) struct GlobalPlace;
impl Place for GlobalPlace {
    const NAME: &'static str = "global";
    const HOT: bool = true;
    #[inline(always)]
    fn locate(cx: &mut Cx<'_>, _: usize, address: u64, bytes: u32) -> Result<*mut u8, Bad> {
        cx.memory.check(&mut cx.view, address, u64::from(bytes)).map_err(|error| illegal(error.address))
    }
}

/// Shared memory of the block.
pub(super) struct SharedPlace;
impl Place for SharedPlace {
    const NAME: &'static str = "shared";
    const PRIVATE: bool = true;
    const HOT: bool = true;
    #[inline(always)]
    fn locate(cx: &mut Cx<'_>, _: usize, address: u64, bytes: u32) -> Result<*mut u8, Bad> {
        let limit = u64::from(cx.shared_bytes);
        if address < limit && u64::from(bytes) <= limit - address {
            return Ok(cx.shared.wrapping_add(address as usize));
        }
        Err(illegal(address))
    }
    #[inline(always)]
    fn window(cx: &mut Cx<'_>, highest: u64, bytes: u32) -> Option<*mut u8> {
        (highest + u64::from(bytes) <= u64::from(cx.shared_bytes)).then_some(cx.shared)
    }
}

/// The lane's local memory.
pub(super) struct LocalPlace;
impl Place for LocalPlace {
    const NAME: &'static str = "local";
    const PRIVATE: bool = true;
    #[inline(always)]
    fn locate(cx: &mut Cx<'_>, lane: usize, address: u64, bytes: u32) -> Result<*mut u8, Bad> {
        let limit = cx.local_stride as u64;
        if address < limit && u64::from(bytes) <= limit - address {
            return Ok(cx.local.wrapping_add(lane * cx.local_stride + address as usize));
        }
        Err(illegal(address))
    }
    fn span(_: &mut Cx<'_>, _: u64, _: u32) -> Option<*mut u8> {
        None
    }
}

/// The kernel's parameter buffer, by offset. Stores to it are refused when lowered.
pub(super) struct ParamPlace;
impl Place for ParamPlace {
    const NAME: &'static str = "param";
    #[inline(always)]
    fn locate(cx: &mut Cx<'_>, _: usize, address: u64, bytes: u32) -> Result<*mut u8, Bad> {
        let offset = if address >= PARAM_WINDOW { address - PARAM_WINDOW } else { address };
        let limit = cx.params.len() as u64;
        if offset < limit && u64::from(bytes) <= limit - offset {
            return Ok(cx.params.as_ptr().wrapping_add(offset as usize).cast_mut());
        }
        Err(illegal(address))
    }
}

/// A generic address.
pub(super) struct GenericPlace;
impl Place for GenericPlace {
    const NAME: &'static str = "generic";
    const HOT: bool = true;
    #[inline(always)]
    fn locate(cx: &mut Cx<'_>, lane: usize, address: u64, bytes: u32) -> Result<*mut u8, Bad> {
        if address < WINDOWS {
            GlobalPlace::locate(cx, lane, address, bytes)
        } else {
            window(cx, lane, address, bytes)
        }
    }
    #[inline(always)]
    fn span(cx: &mut Cx<'_>, address: u64, bytes: u32) -> Option<*mut u8> {
        if address < WINDOWS {
            return GlobalPlace::span(cx, address, bytes);
        }
        if (LOCAL_WINDOW..LOCAL_WINDOW + WINDOW_BYTES).contains(&address) {
            return None;
        }
        window(cx, 0, address, bytes).ok()
    }
}

#[inline(never)]
fn window(cx: &mut Cx<'_>, lane: usize, address: u64, bytes: u32) -> Result<*mut u8, Bad> {
    let within = |window: u64| (window..window + WINDOW_BYTES).contains(&address);
    let with_address = |bad: Bad| Bad { address, ..bad };
    if within(SHARED_WINDOW) {
        return SharedPlace::locate(cx, lane, address - SHARED_WINDOW, bytes).map_err(with_address);
    }
    if within(LOCAL_WINDOW) {
        return LocalPlace::locate(cx, lane, address - LOCAL_WINDOW, bytes).map_err(with_address);
    }
    if within(PARAM_WINDOW) {
        return ParamPlace::locate(cx, lane, address, bytes);
    }
    Err(illegal(address))
}

/// Locates a naturally aligned access.
#[inline(always)]
pub(super) fn aligned<P: Place>(
    cx: &mut Cx<'_>,
    lane: usize,
    address: u64,
    bytes: u32,
) -> Result<*mut u8, Bad> {
    if address & u64::from(bytes - 1) != 0 {
        return Err(Bad { kind: FaultKind::MisalignedAddress, address });
    }
    P::locate(cx, lane, address, bytes)
}
