//! Kernels that kernels launch: the functions of the device runtime behind `<<<…>>>` in device code (CUDA C++ programming
//! guide, "Dynamic parallelism"; the names are those that nvcc 12 and later emit).
//!
//! A launch is noted and done when the launching grid has ended, one after the other and each with what it launches
//! itself: streams and events of device code ask for no more order than that, and the parent may not wait for it.

use std::collections::HashMap;
use std::sync::PoisonError;

use super::aux::{CallSite, Piece};
use super::builtins::read_piece;
use super::fault::{Fault, FaultKind};
use super::host::Host;
use super::launch::{Job, Launch, LaunchReport, run};
use super::memory_ops::{read_bytes, write_bytes};
use super::op::Cx;
use super::{CODE_WINDOW, WARP};
use crate::device::memory::Memory;

/// `cudaStreamTailLaunch`: after everything else that the grid has launched.
const TAIL_LAUNCH: u64 = 3;
/// What a device-side handle of a stream or event is: anything but the numbers with a meaning.
const HANDLE: u64 = 0x100;
/// Most launches that one grid may leave (`cudaLimitDevRuntimePendingLaunchCount` bounds it natively).
const MAX_PENDING: usize = 1 << 20;
/// Kernels that launch kernels that …; natively 24.
const MAX_DEPTH: u32 = 24;

/// `cudaErrorMemoryAllocation`, `cudaErrorLaunchPendingCountExceeded`, `cudaErrorInvalidDeviceFunction`.
const OUT_OF_MEMORY: u64 = 2;
const PENDING_COUNT_EXCEEDED: u64 = 69;
const INVALID_DEVICE_FUNCTION: u64 = 98;

/// A function of the device runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    GetParameterBuffer,
    LaunchDevice,
    Malloc,
    Free,
    Memcpy,
    Memset,
    /// Makes a stream or an event.
    Create,
    GetDevice,
    /// Ends, records, waits or asks for an error: nothing is to be done, and there was none.
    Nothing,
}

impl Function {
    /// The function that is called so.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(match name.strip_prefix("__cudaCDP2")? {
            "GetParameterBufferV2" => Self::GetParameterBuffer,
            "LaunchDeviceV2" | "LaunchDeviceV2_ptsz" => Self::LaunchDevice,
            "Malloc" => Self::Malloc,
            "Free" => Self::Free,
            "MemcpyAsync" | "MemcpyAsync_ptsz" => Self::Memcpy,
            "MemsetAsync" | "MemsetAsync_ptsz" => Self::Memset,
            "StreamCreateWithFlags" | "EventCreateWithFlags" => Self::Create,
            "GetDevice" => Self::GetDevice,
            "StreamDestroy"
            | "EventDestroy"
            | "EventRecord"
            | "EventRecord_ptsz"
            | "EventRecordWithFlags"
            | "StreamWaitEvent"
            | "StreamWaitEvent_ptsz"
            | "GetLastError"
            | "PeekAtLastError"
            | "GetErrorString"
            | "GetErrorName" => Self::Nothing,
            _ => return None,
        })
    }
}

/// What a grid has launched, and the launches whose parameters are being written.
#[derive(Debug, Default)]
pub(super) struct Children {
    /// By the address of their parameters.
    begun: HashMap<u64, Shape>,
    launched: Vec<Child>,
    last: Vec<Child>,
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    kernel: usize,
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    depth: u32,
}

/// Something that a grid has launched.
#[derive(Debug)]
pub(super) enum Child {
    Kernel { shape: Launched, params: Vec<u8> },
    Copy { to: u64, from: u64, bytes: u64 },
    Fill { at: u64, value: u8, bytes: u64 },
}

/// The shape of a launched kernel.
#[derive(Debug)]
pub(super) struct Launched(Shape);

impl Children {
    /// Everything in the order in which it runs.
    pub(super) fn in_order(self) -> impl Iterator<Item = Child> {
        self.launched.into_iter().chain(self.last)
    }

    fn push(&mut self, child: Child, stream: u64) -> u64 {
        let list = if stream == TAIL_LAUNCH { &mut self.last } else { &mut self.launched };
        if list.len() >= MAX_PENDING {
            return PENDING_COUNT_EXCEEDED;
        }
        list.push(child);
        0
    }
}

impl Child {
    /// Does it, with all that it launches in turn.
    pub(super) fn run(
        self,
        parent: &Launch<'_>,
        memory: &Memory,
        host: &dyn Host,
    ) -> Result<LaunchReport, Fault> {
        let illegal = |error: crate::device::memory::AccessError| Fault {
            kind: FaultKind::IllegalAddress,
            message: format!("copy of the device runtime: {error}"),
        };
        match self {
            Self::Kernel { shape: Launched(shape), params } => {
                let launch = Launch {
                    kernel: shape.kernel,
                    grid: shape.grid,
                    block: shape.block,
                    dynamic_shared: shape.shared,
                    cooperative: false,
                    depth: shape.depth,
                    params: &params,
                    ..*parent
                };
                run(&launch, memory, host)
            }
            Self::Copy { to, from, bytes } => {
                memory.copy(to, from, bytes).map_err(illegal)?;
                Ok(LaunchReport::default())
            }
            Self::Fill { at, value, bytes } => {
                memory.fill(at, &[value], bytes).map_err(illegal)?;
                Ok(LaunchReport::default())
            }
        }
    }
}

/// Calls a function of the device runtime for a lane; `None` after a fault.
pub(super) fn call(
    job: &Job<'_>,
    cx: &mut Cx<'_>,
    site: &CallSite,
    function: Function,
    lane: usize,
) -> Option<u64> {
    debug_assert!(lane < WARP);
    let arg =
        |cx: &Cx<'_>, index: usize| site.args.get(index).map_or(0, |piece| read_piece(cx, lane, *piece));
    // A `dim3` is passed in twelve bytes.
    let triple = |cx: &Cx<'_>, index: usize| {
        let part = |at: u32| {
            site.args.get(index).map_or(1, |piece| {
                let word = Piece { offset: piece.offset + 4 * at, bytes: 4 };
                low_half(read_piece(cx, lane, word))
            })
        };
        [part(0), part(1), part(2)]
    };
    let write = |cx: &mut Cx<'_>, at: u64, bytes: &[u8]| match write_bytes(cx, lane, at, bytes) {
        Ok(()) => Some(0),
        Err(_) => {
            let text = format!("a result of the device runtime at {at:#x} is not accessible");
            cx.fail(FaultKind::IllegalAddress, lane, text);
            None
        }
    };
    let children = || job.children.lock().unwrap_or_else(PoisonError::into_inner);
    match function {
        Function::Nothing => Some(0),
        Function::GetDevice => write(cx, arg(cx, 0), &0u32.to_le_bytes()),
        Function::Create => write(cx, arg(cx, 0), &HANDLE.to_le_bytes()),
        Function::Malloc => {
            let address = job.host.malloc(arg(cx, 1));
            write(cx, arg(cx, 0), &address.to_le_bytes())?;
            Some(if address == 0 { OUT_OF_MEMORY } else { 0 })
        }
        Function::Free => {
            match arg(cx, 0) {
                0 => {}
                address => job.host.free(address),
            }
            Some(0)
        }
        Function::Memcpy => {
            let (to, from, bytes) = (arg(cx, 0), arg(cx, 1), arg(cx, 2));
            Some(children().push(Child::Copy { to, from, bytes }, arg(cx, 4)))
        }
        Function::Memset => {
            let (at, value, bytes) = (arg(cx, 0), low_half(arg(cx, 1)).to_le_bytes()[0], arg(cx, 2));
            Some(children().push(Child::Fill { at, value, bytes }, arg(cx, 3)))
        }
        Function::GetParameterBuffer => {
            let index = arg(cx, 0).wrapping_sub(CODE_WINDOW) / 16;
            let kernels = job.program.kernels();
            let found = kernels.iter().position(|kernel| kernel.function as u64 == index);
            // Without a buffer the compiler's code launches nothing.
            let Some(kernel) = found.filter(|_| job.depth < MAX_DEPTH) else { return Some(0) };
            let buffer = job.host.malloc(u64::from(kernels[kernel].param_bytes).max(8));
            let (grid, block) = (triple(cx, 1), triple(cx, 2));
            let shared = low_half(arg(cx, 3));
            if buffer != 0 {
                let depth = job.depth + 1;
                children().begun.insert(buffer, Shape { kernel, grid, block, shared, depth });
            }
            Some(buffer)
        }
        Function::LaunchDevice => {
            let buffer = arg(cx, 0);
            let Some(shape) = children().begun.remove(&buffer) else { return Some(INVALID_DEVICE_FUNCTION) };
            let mut params = vec![0; job.program.kernels()[shape.kernel].param_bytes as usize];
            if read_bytes(cx, lane, buffer, &mut params).is_err() {
                let text = format!("parameters at {buffer:#x} are not accessible");
                cx.fail(FaultKind::IllegalAddress, lane, text);
                return None;
            }
            job.host.free(buffer);
            let stream = arg(cx, 1);
            Some(children().push(Child::Kernel { shape: Launched(shape), params }, stream))
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "takes the half that a 32-bit argument fills")]
fn low_half(word: u64) -> u32 {
    word as u32
}
