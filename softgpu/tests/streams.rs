//! Streams and events: order, overlap, waiting, callbacks.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a test as a whole"
)]

mod support;

use pxsoft::api::{context, copy, event, memory, memset, stream};
use std::ffi::c_void;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::*;

/// A host function that waits until the test lets it go: what stands before everything behind it.
struct Gate {
    open: Sender<()>,
}

unsafe extern "C" fn wait_for_gate(data: *mut c_void) {
    // SAFETY: the gate's receiver, boxed by `Gate::close` for this one call.
    let receiver = unsafe { Box::from_raw(data.cast::<Receiver<()>>()) };
    receiver.recv().unwrap();
}

impl Gate {
    fn close(stream: CUstream) -> Self {
        let (open, receiver) = channel::<()>();
        let data = Box::into_raw(Box::new(receiver)).cast();
        ok!(stream::cuLaunchHostFunc(stream, Some(wait_for_gate), data));
        Self { open }
    }

    fn open(self) {
        self.open.send(()).unwrap();
    }
}

type Log = Arc<Mutex<Vec<(u32, CUresult)>>>;

struct Entry {
    log: Log,
    number: u32,
}

unsafe extern "C" fn write_log(_: CUstream, status: CUresult, data: *mut c_void) {
    // SAFETY: boxed by `note` for this one call.
    let entry = unsafe { Box::from_raw(data.cast::<Entry>()) };
    entry.log.lock().unwrap().push((entry.number, status));
}

fn note(log: &Log, number: u32, stream: CUstream) {
    let data = Box::into_raw(Box::new(Entry { log: Arc::clone(log), number })).cast();
    ok!(stream::cuStreamAddCallback(stream, Some(write_log), data, 0));
}

fn new_stream(flags: u32) -> CUstream {
    let mut made = CUstream::NULL;
    ok!(stream::cuStreamCreate(&raw mut made, flags));
    made
}

fn new_event(flags: u32) -> CUevent {
    let mut made = CUevent::NULL;
    ok!(event::cuEventCreate(&raw mut made, flags));
    made
}

fn numbers(log: &Log) -> Vec<u32> {
    log.lock().unwrap().iter().map(|(number, _)| *number).collect()
}

#[test]
fn work_is_asynchronous_and_in_order() {
    primary();
    let (stream, log) = (new_stream(1), Log::default());
    let gate = Gate::close(stream);
    for number in 0..5 {
        note(&log, number, stream);
    }
    let event = new_event(0);
    ok!(event::cuEventRecord(event, stream));
    assert_eq!(cu!(stream::cuStreamQuery(stream)), CUresult::ERROR_NOT_READY);
    assert_eq!(cu!(event::cuEventQuery(event)), CUresult::ERROR_NOT_READY);
    assert!(numbers(&log).is_empty());
    gate.open();
    ok!(event::cuEventSynchronize(event));
    assert_eq!(numbers(&log), [0, 1, 2, 3, 4]);
    ok!(stream::cuStreamQuery(stream));
}

#[test]
fn streams_run_beside_each_other_and_events_join_them() {
    primary();
    let (first, second, log) = (new_stream(1), new_stream(1), Log::default());
    let gate = Gate::close(first);
    note(&log, 1, first);
    let event = new_event(2);
    ok!(event::cuEventRecord(event, first));
    note(&log, 2, second);
    ok!(stream::cuStreamSynchronize(second));
    assert_eq!(numbers(&log), [2]);
    ok!(stream::cuStreamWaitEvent(second, event, 0));
    note(&log, 3, second);
    // A later recording does not concern the wait.
    ok!(event::cuEventRecord(event, first));
    assert_eq!(cu!(stream::cuStreamQuery(second)), CUresult::ERROR_NOT_READY);
    gate.open();
    ok!(stream::cuStreamSynchronize(second));
    assert_eq!(numbers(&log), [2, 1, 3]);
}

#[test]
fn the_legacy_default_stream_stands_between_blocking_streams() {
    isolated("the_legacy_default_stream_stands_between_blocking_streams", || {
        primary();
        let (blocking, other, free, log) = (new_stream(0), new_stream(0), new_stream(1), Log::default());
        let gate = Gate::close(blocking);
        note(&log, 1, blocking);
        note(&log, 2, CUstream::NULL);
        note(&log, 3, other);
        note(&log, 4, free);
        ok!(stream::cuStreamSynchronize(free));
        assert_eq!(numbers(&log), [4]);
        gate.open();
        ok!(stream::cuStreamSynchronize(other));
        assert_eq!(numbers(&log), [4, 1, 2, 3]);
        // A thread's own default stream is ordered with the legacy one, and apart from other threads'.
        let gate = Gate::close(CU_STREAM_PER_THREAD);
        assert_eq!(cu!(stream::cuStreamQuery(CU_STREAM_PER_THREAD)), CUresult::ERROR_NOT_READY);
        assert_eq!(cu!(stream::cuStreamQuery_ptsz(CUstream::NULL)), CUresult::ERROR_NOT_READY);
        ok!(stream::cuStreamQuery(CUstream::NULL));
        let mut context = CUcontext::NULL;
        ok!(context::cuCtxGetCurrent(&raw mut context));
        std::thread::spawn(move || {
            ok!(context::cuCtxSetCurrent(context));
            ok!(stream::cuStreamQuery(CU_STREAM_PER_THREAD));
            ok!(stream::cuStreamSynchronize_ptsz(CUstream::NULL));
        })
        .join()
        .unwrap();
        note(&log, 5, CUstream::NULL);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(numbers(&log).len(), 4);
        gate.open();
        ok!(context::cuCtxSynchronize());
        assert_eq!(numbers(&log), [4, 1, 2, 3, 5]);
    });
}

#[test]
fn a_destroyed_stream_finishes_its_work() {
    isolated("a_destroyed_stream_finishes_its_work", || {
        primary();
        let (stream, log) = (new_stream(1), Log::default());
        let gate = Gate::close(stream);
        note(&log, 1, stream);
        ok!(stream::cuStreamDestroy_v2(stream));
        assert_eq!(cu!(stream::cuStreamQuery(stream)), CUresult::ERROR_INVALID_HANDLE);
        assert_eq!(cu!(stream::cuStreamDestroy_v2(CUstream::NULL)), CUresult::ERROR_INVALID_HANDLE);
        gate.open();
        ok!(context::cuCtxSynchronize());
        assert_eq!(numbers(&log), [1]);
    });
}

unsafe extern "C" fn calls_the_api(data: *mut c_void) {
    let mut address = 0;
    // SAFETY: the answer is the test's own, which waits for this function.
    unsafe { *data.cast::<CUresult>() = memory::cuMemAlloc_v2(&raw mut address, 16) };
}

#[test]
fn host_functions_may_not_call_the_api() {
    primary();
    let (stream, mut answer) = (new_stream(1), CUresult::SUCCESS);
    ok!(stream::cuLaunchHostFunc(stream, Some(calls_the_api), (&raw mut answer).cast()));
    ok!(stream::cuStreamSynchronize(stream));
    assert_eq!(answer, CUresult::ERROR_NOT_PERMITTED);
}

#[test]
fn events_answer_as_a_gpu_does() {
    primary();
    let mut made = CUevent::NULL;
    for (flags, answer) in [(8, 1), (4, 1), (0, 0), (1, 0), (2, 0)] {
        assert_eq!(cu!(event::cuEventCreate(&raw mut made, flags)).0, answer, "flags {flags}");
    }
    let (stream, first, second, untimed) = (new_stream(1), new_event(0), new_event(0), new_event(2));
    let mut time = -1f32;
    ok!(event::cuEventQuery(first));
    ok!(event::cuEventSynchronize(first));
    let unrecorded = cu!(event::cuEventElapsedTime_v2(&raw mut time, first, first));
    assert_eq!(unrecorded, CUresult::ERROR_INVALID_HANDLE);
    ok!(event::cuEventRecord(first, stream));
    ok!(event::cuEventRecord(untimed, stream));
    let gate = Gate::close(stream);
    ok!(event::cuEventRecord(second, stream));
    let early = cu!(event::cuEventElapsedTime_v2(&raw mut time, first, second));
    assert_eq!(early, CUresult::ERROR_NOT_READY);
    std::thread::sleep(Duration::from_millis(20));
    gate.open();
    ok!(event::cuEventSynchronize(second));
    ok!(event::cuEventElapsedTime_v2(&raw mut time, first, second));
    assert!((20.0..5000.0).contains(&time), "{time}");
    let wrong = cu!(event::cuEventElapsedTime_v2(&raw mut time, first, untimed));
    assert_eq!(wrong, CUresult::ERROR_INVALID_HANDLE);
    for answer in [
        cu!(event::cuEventQuery(CUevent::NULL)),
        cu!(event::cuEventRecord(CUevent::NULL, stream)),
        cu!(event::cuEventDestroy_v2(CUevent::NULL)),
        cu!(stream::cuStreamWaitEvent(stream, CUevent::NULL, 0)),
    ] {
        assert_eq!(answer, CUresult::ERROR_INVALID_HANDLE);
    }
    assert_eq!(cu!(stream::cuStreamWaitEvent(stream, first, 1)), CUresult::ERROR_ILLEGAL_STATE);
    assert_eq!(cu!(stream::cuStreamWaitEvent(stream, first, 2)), CUresult::ERROR_INVALID_VALUE);
    ok!(event::cuEventDestroy_v2(first));
    assert_eq!(cu!(event::cuEventQuery(first)), CUresult::ERROR_INVALID_HANDLE);
}

#[test]
fn streams_tell_what_they_are() {
    primary();
    let (mut made, mut flags, mut priority) = (CUstream::NULL, 9, 9);
    assert_eq!(cu!(stream::cuStreamCreate(&raw mut made, 2)), CUresult::ERROR_INVALID_VALUE);
    for (asked, given) in [(-100, -5), (100, 0), (-3, -3)] {
        ok!(stream::cuStreamCreateWithPriority(&raw mut made, 1, asked));
        ok!(stream::cuStreamGetPriority(made, &raw mut priority));
        assert_eq!(priority, given);
    }
    ok!(stream::cuStreamGetFlags(made, &raw mut flags));
    assert_eq!(flags, 1);
    let id = |stream| {
        let mut id = 0;
        ok!(stream::cuStreamGetId(stream, &raw mut id));
        id
    };
    assert_eq!(id(CUstream::NULL), id(CU_STREAM_LEGACY));
    assert_ne!(id(CUstream::NULL), id(CU_STREAM_PER_THREAD));
    assert_ne!(id(made), id(CUstream::NULL));
}

#[test]
fn freeing_waits_for_the_work() {
    isolated("freeing_waits_for_the_work", || {
        primary();
        let (stream, mut address, mut pinned) = (new_stream(1), 0, std::ptr::null_mut());
        ok!(memory::cuMemAlloc_v2(&raw mut address, 4096));
        ok!(memory::cuMemHostAlloc(&raw mut pinned, 4096, 0));
        let gate = Gate::close(stream);
        ok!(memset::cuMemsetD8Async(address, 5, 4096, stream));
        ok!(copy::cuMemcpyDtoHAsync_v2(pinned, address, 4096, stream));
        let opener = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            gate.open();
        });
        ok!(memory::cuMemFree_v2(address));
        // SAFETY: pinned memory that the host owns too.
        assert_eq!(unsafe { pinned.cast::<u8>().add(4095).read() }, 5);
        opener.join().unwrap();
        ok!(memory::cuMemFreeHost(pinned));
    });
}
