//! What a kernel's fault does to its context, its device and its process: every call's answer is that of an H200 with
//! driver 580 (measured), which keeps the fault until the process ends.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a test as a whole"
)]

mod support;

use pxsoft::api::{context, device, event, execution, memory, memset, module, occupancy, pointer, stream};
use pxsoft::api::{copy, event as events};
use std::ffi::{CString, c_void};
use support::*;

/// A context struck by a fault, and objects made before that.
struct Struck {
    device: CUdevice,
    context: CUcontext,
    module: CUmodule,
    function: CUfunction,
    memory: CUdeviceptr,
    stream: CUstream,
    events: [CUevent; 2],
}

fn strike(kernel: &str, address: impl FnOnce(CUdeviceptr) -> u64, expected: CUresult) -> Struck {
    let (device, context) = primary();
    let module = module();
    let (mut memory, mut stream, mut events) = (0, CUstream::NULL, [CUevent::NULL; 2]);
    ok!(memory::cuMemAlloc_v2(&raw mut memory, 64));
    ok!(stream::cuStreamCreate(&raw mut stream, 1));
    for event in &mut events {
        ok!(event::cuEventCreate(event, 0));
    }
    ok!(event::cuEventRecord(events[1], stream));
    ok!(stream::cuStreamSynchronize(stream));
    let mut target = address(memory);
    let (faulty, empty) = (function(module, kernel), function(module, "empty"));
    let mut parameters = [(&raw mut target).cast::<c_void>()];
    let given = if kernel == "traps" { &mut [][..] } else { &mut parameters[..] };
    assert_eq!(launch(faulty, 1, 1, stream, given), CUresult::SUCCESS);
    assert_eq!(cu!(stream::cuStreamSynchronize(stream)), expected);
    Struck { device, context, module, function: empty, memory, stream, events }
}

fn every_call_says(struck: &Struck, fault: CUresult) {
    let Struck { device, context, module, function, memory, stream, events } = *struck;
    let mut bytes = [0u8; 64];
    let buffer = bytes.as_mut_ptr().cast::<c_void>();
    let (mut size, mut other, mut number, mut wide, mut flags, mut time) = (0, 0, 0, 0u64, 0, 0f32);
    let (mut host, mut new_stream, mut new_event, mut current) =
        (std::ptr::null_mut(), CUstream::NULL, CUevent::NULL, CUcontext::NULL);
    let says = |answer: CUresult, call: &str| assert_eq!(answer, fault, "{call}");
    says(cu!(stream::cuStreamQuery(stream)), "cuStreamQuery");
    says(cu!(stream::cuStreamQuery(CUstream::NULL)), "cuStreamQuery of the default stream");
    for event in events {
        says(cu!(events::cuEventQuery(event)), "cuEventQuery");
    }
    says(cu!(event::cuEventRecord(events[0], stream)), "cuEventRecord");
    says(cu!(event::cuEventSynchronize(events[0])), "cuEventSynchronize");
    says(cu!(event::cuEventElapsedTime_v2(&raw mut time, events[0], events[1])), "cuEventElapsedTime");
    says(cu!(memory::cuMemAlloc_v2(&raw mut wide, 16)), "cuMemAlloc");
    says(cu!(memory::cuMemFree_v2(memory)), "cuMemFree");
    says(cu!(memory::cuMemFree_v2(0)), "cuMemFree of null");
    says(cu!(copy::cuMemcpyHtoD_v2(memory, buffer, 4)), "cuMemcpyHtoD");
    says(cu!(copy::cuMemcpyDtoH_v2(buffer, memory, 4)), "cuMemcpyDtoH");
    says(cu!(memset::cuMemsetD8_v2(memory, 0, 4)), "cuMemsetD8");
    says(cu!(memory::cuMemGetInfo_v2(&raw mut size, &raw mut other)), "cuMemGetInfo");
    says(cu!(memory::cuMemHostAlloc(&raw mut host, 64, 0)), "cuMemHostAlloc");
    says(cu!(stream::cuStreamCreate(&raw mut new_stream, 0)), "cuStreamCreate");
    says(cu!(event::cuEventCreate(&raw mut new_event, 0)), "cuEventCreate");
    says(cu!(stream::cuStreamDestroy_v2(stream)), "cuStreamDestroy");
    says(cu!(event::cuEventDestroy_v2(events[1])), "cuEventDestroy");
    let (mut other_function, name) = (CUfunction::NULL, CString::new("empty").unwrap());
    says(
        cu!(module::cuModuleGetFunction(&raw mut other_function, module, name.as_ptr())),
        "cuModuleGetFunction",
    );
    says(launch(function, 1, 1, CUstream::NULL, &mut []), "cuLaunchKernel");
    says(cu!(context::cuCtxSynchronize()), "cuCtxSynchronize");
    says(cu!(context::cuCtxGetLimit(&raw mut size, 0)), "cuCtxGetLimit");
    says(cu!(context::cuCtxSetLimit(0, 2048)), "cuCtxSetLimit");
    says(cu!(memory::cuMemGetAddressRange_v2(&raw mut wide, &raw mut size, memory)), "cuMemGetAddressRange");
    says(cu!(module::cuModuleUnload(module)), "cuModuleUnload");
    says(cu!(stream::cuStreamGetPriority(CUstream::NULL, &raw mut number)), "cuStreamGetPriority");
    says(cu!(execution::cuFuncGetAttribute(&raw mut number, 0, function)), "cuFuncGetAttribute");
    says(
        cu!(occupancy::cuOccupancyMaxActiveBlocksPerMultiprocessor(&raw mut number, function, 64, 0)),
        "cuOccupancyMaxActiveBlocksPerMultiprocessor",
    );
    // What needs no working context still works.
    ok!(context::cuCtxGetCurrent(&raw mut current));
    assert_eq!(current, context);
    ok!(context::cuCtxGetDevice(&raw mut number));
    ok!(context::cuCtxGetFlags(&raw mut flags));
    ok!(context::cuCtxGetId(context, &raw mut wide));
    ok!(pointer::cuPointerGetAttribute((&raw mut flags).cast(), 2, memory));
    ok!(context::cuCtxPushCurrent_v2(context));
    ok!(context::cuCtxPopCurrent_v2(&raw mut current));
    ok!(device::cuDeviceTotalMem_v2(&raw mut size, device));
}

/// A reset ends the context and not the fault: the device stays unusable to this process.
fn a_reset_does_not_help(struck: &Struck, fault: CUresult) {
    let (mut context, mut flags, mut active, mut memory) = (CUcontext::NULL, 0, 1, 0);
    ok!(device::cuDevicePrimaryCtxReset_v2(struck.device));
    ok!(device::cuDevicePrimaryCtxGetState(struck.device, &raw mut flags, &raw mut active));
    assert_eq!(active, 0);
    ok!(context::cuCtxGetCurrent(&raw mut context));
    assert_eq!(context, struck.context);
    assert_eq!(cu!(memory::cuMemAlloc_v2(&raw mut memory, 16)), CUresult::ERROR_CONTEXT_IS_DESTROYED);
    ok!(device::cuDevicePrimaryCtxRelease_v2(struck.device));
    assert_eq!(cu!(device::cuDevicePrimaryCtxRetain(&raw mut context, struck.device)), fault);
    assert_eq!(cu!(context::cuCtxSynchronize()), CUresult::ERROR_CONTEXT_IS_DESTROYED);
    assert_eq!(cu!(context::cuCtxCreate_v2(&raw mut context, 0, struck.device)), fault);
}

fn check(kernel: &str, address: impl FnOnce(CUdeviceptr) -> u64, fault: CUresult) {
    let struck = strike(kernel, address, fault);
    every_call_says(&struck, fault);
    a_reset_does_not_help(&struck, fault);
}

#[test]
fn a_trap_is_a_launch_failure() {
    isolated("a_trap_is_a_launch_failure", || check("traps", |_| 0, CUresult::ERROR_LAUNCH_FAILED));
}

#[test]
fn an_address_that_is_nowhere_is_illegal() {
    isolated("an_address_that_is_nowhere_is_illegal", || {
        check("store", |_| 0x10, CUresult::ERROR_ILLEGAL_ADDRESS);
    });
}

#[test]
fn the_byte_behind_an_allocation_is_illegal() {
    isolated("the_byte_behind_an_allocation_is_illegal", || {
        check("store", |memory| memory + 64, CUresult::ERROR_ILLEGAL_ADDRESS);
    });
}

#[test]
fn an_odd_address_is_misaligned() {
    isolated("an_odd_address_is_misaligned", || {
        check("store", |memory| memory + 1, CUresult::ERROR_MISALIGNED_ADDRESS);
    });
}

#[test]
fn work_after_the_fault_does_not_run() {
    isolated("work_after_the_fault_does_not_run", || {
        primary();
        let (module, mut memory, mut stream) = (module(), 0, CUstream::NULL);
        let traps = function(module, "traps");
        let mut pinned = std::ptr::null_mut();
        ok!(memory::cuMemHostAlloc(&raw mut pinned, 4, 0));
        ok!(memory::cuMemAlloc_v2(&raw mut memory, 4));
        ok!(memset::cuMemsetD32_v2(memory, 7, 1));
        ok!(context::cuCtxSynchronize());
        ok!(stream::cuStreamCreate(&raw mut stream, 1));
        assert_eq!(launch(traps, 1, 1, stream, &mut []), CUresult::SUCCESS);
        // Whether the call still succeeds depends on how fast the kernel is; that the copy is not made does not.
        let _ = cu!(copy::cuMemcpyDtoHAsync_v2(pinned, memory, 4, stream));
        assert_eq!(cu!(stream::cuStreamSynchronize(stream)), CUresult::ERROR_LAUNCH_FAILED);
        // SAFETY: four bytes of memory that the host owns too.
        assert_eq!(unsafe { pinned.cast::<u32>().read() }, 0);
    });
}
