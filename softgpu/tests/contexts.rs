//! Contexts: the stack, primary and created ones, limits and flags. Answers are those of an H200 with driver 580.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a test as a whole"
)]

mod support;

use pxsoft::api::{context, device, event, initialise, memory, module, pointer, stream};
use std::ffi::CString;
use support::*;

#[test]
fn nothing_works_before_initialisation() {
    isolated("nothing_works_before_initialisation", || {
        let (mut count, mut found, mut version, mut size) = (0, CUcontext::NULL, 0, 0);
        assert_eq!(cu!(device::cuDeviceGetCount(&raw mut count)), CUresult::ERROR_NOT_INITIALIZED);
        assert_eq!(cu!(context::cuCtxGetCurrent(&raw mut found)), CUresult::ERROR_NOT_INITIALIZED);
        assert_eq!(
            cu!(memory::cuMemGetInfo_v2(&raw mut size, &raw mut size)),
            CUresult::ERROR_NOT_INITIALIZED
        );
        ok!(initialise::cuDriverGetVersion(&raw mut version));
        assert_eq!(version, 13000);
        assert_eq!(cu!(initialise::cuDriverGetVersion(std::ptr::null_mut())), CUresult::ERROR_INVALID_VALUE);
        assert_eq!(cu!(initialise::cuInit(1)), CUresult::ERROR_INVALID_VALUE);
        ok!(initialise::cuInit(0));
        ok!(initialise::cuInit(0));
        ok!(device::cuDeviceGetCount(&raw mut count));
        assert_eq!(count, 1);
    });
}

#[test]
fn the_child_of_a_fork_is_not_initialised() {
    isolated("the_child_of_a_fork_is_not_initialised", || {
        primary();
        // SAFETY: the child calls two functions that only read atomics, and ends without destructors.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let (mut memory, mut context) = (0, CUcontext::NULL);
            let refused = cu!(memory::cuMemAlloc_v2(&raw mut memory, 16)) == CUresult::ERROR_NOT_INITIALIZED
                && cu!(context::cuCtxGetCurrent(&raw mut context)) == CUresult::ERROR_NOT_INITIALIZED
                && cu!(initialise::cuInit(0)) == CUresult::ERROR_NOT_INITIALIZED;
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(i32::from(!refused)) };
        }
        let mut status = -1;
        // SAFETY: waits for the child made above.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
        let mut memory = 0;
        ok!(memory::cuMemAlloc_v2(&raw mut memory, 16));
    });
}

#[test]
fn calls_without_a_context_are_refused() {
    isolated("calls_without_a_context_are_refused", || {
        let device = device();
        let invalid = CUresult::ERROR_INVALID_CONTEXT;
        let (mut number, mut wide, mut size, mut flags) = (0, 0u64, 0, 0);
        let (mut stream, mut event, mut module) = (CUstream::NULL, CUevent::NULL, CUmodule::NULL);
        let text = CString::new(PTX).unwrap();
        assert_eq!(cu!(context::cuCtxGetDevice(&raw mut number)), invalid);
        assert_eq!(cu!(memory::cuMemAlloc_v2(&raw mut wide, 16)), invalid);
        ok!(memory::cuMemFree_v2(0));
        assert_eq!(cu!(memory::cuMemFree_v2(16)), CUresult::ERROR_INVALID_VALUE);
        assert_eq!(cu!(context::cuCtxSynchronize()), invalid);
        assert_eq!(cu!(stream::cuStreamCreate(&raw mut stream, 0)), invalid);
        assert_eq!(cu!(stream::cuStreamSynchronize(CUstream::NULL)), invalid);
        assert_eq!(cu!(event::cuEventCreate(&raw mut event, 0)), invalid);
        assert_eq!(cu!(module::cuModuleLoadData(&raw mut module, text.as_ptr().cast())), invalid);
        assert_eq!(cu!(context::cuCtxGetFlags(&raw mut flags)), invalid);
        assert_eq!(cu!(context::cuCtxGetLimit(&raw mut size, 0)), invalid);
        assert_eq!(cu!(context::cuCtxGetId(CUcontext::NULL, &raw mut wide)), invalid);
        assert_eq!(cu!(context::cuCtxPopCurrent_v2(std::ptr::null_mut())), invalid);
        ok!(context::cuCtxSetCurrent(CUcontext::NULL));
        assert_eq!(cu!(context::cuCtxSetCurrent(CUcontext(0x12_3456_7890))), invalid);
        let no_address = cu!(pointer::cuPointerGetAttribute((&raw mut wide).cast(), 2, 16));
        assert_eq!(no_address, CUresult::ERROR_INVALID_VALUE);
        assert_eq!(cu!(device::cuDevicePrimaryCtxRelease_v2(device)), invalid);
        ok!(device::cuDevicePrimaryCtxReset_v2(device));
        ok!(device::cuDevicePrimaryCtxSetFlags_v2(device, 4));
        ok!(device::cuDevicePrimaryCtxGetState(device, &raw mut flags, &raw mut number));
        assert_eq!((flags, number), (4, 0));
        assert_eq!(cu!(device::cuDevicePrimaryCtxSetFlags_v2(device, 0x1000)), CUresult::ERROR_INVALID_VALUE);
    });
}

#[test]
fn the_primary_context_keeps_its_handle_through_resets() {
    isolated("the_primary_context_keeps_its_handle_through_resets", || {
        let (device, context) = primary();
        let (mut again, mut memory, mut active, mut flags) = (CUcontext::NULL, 0, 0, 0);
        ok!(device::cuDevicePrimaryCtxRetain(&raw mut again, device));
        assert_eq!(again, context);
        ok!(context::cuCtxGetFlags(&raw mut flags));
        assert_eq!(flags, 8);
        ok!(memory::cuMemAlloc_v2(&raw mut memory, 16));
        ok!(device::cuDevicePrimaryCtxReset_v2(device));
        ok!(device::cuDevicePrimaryCtxGetState(device, &raw mut flags, &raw mut active));
        assert_eq!(active, 0);
        let mut other = 0;
        assert_eq!(cu!(memory::cuMemAlloc_v2(&raw mut other, 16)), CUresult::ERROR_CONTEXT_IS_DESTROYED);
        assert_eq!(cu!(memory::cuMemFree_v2(memory)), CUresult::ERROR_INVALID_VALUE);
        ok!(device::cuDevicePrimaryCtxRetain(&raw mut again, device));
        assert_eq!(again, context);
        ok!(memory::cuMemAlloc_v2(&raw mut other, 16));
        // Three retains, three releases; the reset has not changed their number.
        for _ in 0..3 {
            ok!(device::cuDevicePrimaryCtxRelease_v2(device));
        }
        assert_eq!(cu!(device::cuDevicePrimaryCtxRelease_v2(device)), CUresult::ERROR_INVALID_CONTEXT);
        ok!(context::cuCtxGetCurrent(&raw mut again));
        assert_eq!(again, context);
        assert_eq!(cu!(context::cuCtxDestroy_v2(context)), CUresult::ERROR_INVALID_CONTEXT);
    });
}

#[test]
fn the_stack_is_the_threads_own() {
    isolated("the_stack_is_the_threads_own", || {
        let (device, primary) = primary();
        let (mut made, mut seen, mut flags) = (CUcontext::NULL, CUcontext::NULL, 0);
        ok!(context::cuCtxCreate_v4(&raw mut made, std::ptr::null_mut(), 4, device));
        ok!(context::cuCtxGetCurrent(&raw mut seen));
        assert_eq!(seen, made);
        ok!(context::cuCtxGetFlags(&raw mut flags));
        assert_eq!(flags, 4);
        std::thread::spawn(|| {
            let mut seen = CUcontext(1);
            ok!(context::cuCtxGetCurrent(&raw mut seen));
            assert!(seen.is_null());
        })
        .join()
        .unwrap();
        ok!(context::cuCtxPopCurrent_v2(&raw mut seen));
        assert_eq!(seen, made);
        ok!(context::cuCtxGetCurrent(&raw mut seen));
        assert_eq!(seen, primary);
        ok!(context::cuCtxPushCurrent_v2(made));
        ok!(context::cuCtxPushCurrent_v2(primary));
        ok!(context::cuCtxDestroy_v2(made));
        assert_eq!(cu!(context::cuCtxDestroy_v2(made)), CUresult::ERROR_INVALID_CONTEXT);
        // The destroyed context stays below in the stack, of no use.
        ok!(context::cuCtxPopCurrent_v2(&raw mut seen));
        ok!(context::cuCtxGetCurrent(&raw mut seen));
        assert_eq!(seen, made);
        assert_eq!(cu!(context::cuCtxSynchronize()), CUresult::ERROR_CONTEXT_IS_DESTROYED);
        ok!(context::cuCtxSetCurrent(CUcontext::NULL));
        ok!(context::cuCtxGetCurrent(&raw mut seen));
        assert_eq!(seen, primary);
        assert_eq!(cu!(context::cuCtxPushCurrent_v2(CUcontext::NULL)), CUresult::ERROR_INVALID_VALUE);
        for bad in [3, 0x800] {
            assert_eq!(
                cu!(context::cuCtxCreate_v2(&raw mut made, bad, device)),
                CUresult::ERROR_INVALID_VALUE
            );
        }
    });
}

#[test]
fn a_context_gives_back_what_was_made_in_it() {
    isolated("a_context_gives_back_what_was_made_in_it", || {
        let (device, _) = primary();
        let (mut before, mut after, mut total) = (0, 0, 0);
        ok!(memory::cuMemGetInfo_v2(&raw mut before, &raw mut total));
        let (mut made, mut memory, mut stream, mut event) =
            (CUcontext::NULL, 0, CUstream::NULL, CUevent::NULL);
        ok!(context::cuCtxCreate_v2(&raw mut made, 0, device));
        ok!(memory::cuMemAlloc_v2(&raw mut memory, 1 << 20));
        ok!(stream::cuStreamCreate(&raw mut stream, 0));
        ok!(event::cuEventCreate(&raw mut event, 0));
        let loaded = module();
        ok!(context::cuCtxDestroy_v2(made));
        ok!(memory::cuMemGetInfo_v2(&raw mut after, &raw mut total));
        assert_eq!(before, after);
        let mut function = CUfunction::NULL;
        let name = CString::new("empty").unwrap();
        let dead = cu!(module::cuModuleGetFunction(&raw mut function, loaded, name.as_ptr()));
        assert_eq!(dead, CUresult::ERROR_INVALID_HANDLE);
        assert_eq!(cu!(stream::cuStreamSynchronize(stream)), CUresult::ERROR_INVALID_HANDLE);
        assert_eq!(cu!(event::cuEventQuery(event)), CUresult::ERROR_INVALID_HANDLE);
        assert_eq!(cu!(memory::cuMemFree_v2(memory)), CUresult::ERROR_INVALID_VALUE);
    });
}

#[test]
fn limits_are_those_of_the_measured_device() {
    isolated("limits_are_those_of_the_measured_device", || {
        primary();
        let get = |limit| {
            let mut value = 0;
            let answer = cu!(context::cuCtxGetLimit(&raw mut value, limit));
            (answer.0, value)
        };
        let limits: Vec<_> = (0..11).map(get).collect();
        let want = [1024, 8_650_752, 8 << 20, 0, 2048, 64, 11_796_480, 232_448, 0, 0, 0];
        let errors = [0, 0, 0, 215, 0, 0, 0, 0, 0, 215, 1];
        for (index, (found, (error, value))) in limits.iter().zip(errors.iter().zip(want)).enumerate() {
            assert_eq!(*found, (*error, value), "limit {index}");
        }
        for (limit, value, answer, then) in [
            (0, 100, 0, 112),
            (0, 1 << 20, 1, 112),
            (2, 16 << 20, 0, 16 << 20),
            (1, 100, 0, 512 << 10),
            (3, 4, 215, 0),
            (6, 1 << 20, 0, 3_932_160),
            (7, 1, 800, 232_448),
            (20, 1, 1, 0),
        ] {
            assert_eq!(cu!(context::cuCtxSetLimit(limit, value)).0, answer, "limit {limit}");
            if limit < 8 {
                assert_eq!(get(limit).1, then, "limit {limit}");
            }
        }
        let (mut least, mut greatest) = (-1, -1);
        ok!(context::cuCtxGetStreamPriorityRange(&raw mut least, &raw mut greatest));
        assert_eq!((least, greatest), (0, -5));
    });
}
