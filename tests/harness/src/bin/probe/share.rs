//! A guest that always has work: kernels in two streams, one of which is waited for while the other goes on.

use super::Probe;
use std::time::{Duration, Instant};

/// Kernels that are put into a stream at a time, singly or as one graph.
const BATCH: usize = 4;

/// What is submitted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Kernels.
    Kernels,
    /// Graphs of as many.
    Graphs,
    /// Kernels, and in the same stream at once a capture.
    Captures,
}

/// Runs for a while; the line says how many kernels completed.
pub(crate) fn run(probe: &Probe, milliseconds: usize, what: What) -> Result<String, String> {
    let mut streams = [0_u64; 2];
    let mut execs = [0_u64; 2];
    for (stream, exec) in streams.iter_mut().zip(&mut execs) {
        // CU_STREAM_NON_BLOCKING
        // SAFETY: a pointer to a local.
        check(probe, unsafe { (probe.driver.cuStreamCreate)(&raw mut *stream, 1) })?;
        if what == What::Graphs {
            *exec = capture(probe, *stream)?;
        }
    }
    let submit = |index: usize| match execs[index] {
        _ if what == What::Captures => {
            (0..BATCH).try_for_each(|_| check(probe, launch(probe, streams[index])))?;
            let exec = capture(probe, streams[index])?;
            call(probe, "cuGraphExecDestroy", [exec, 0])
        }
        0 => (0..BATCH).try_for_each(|_| check(probe, launch(probe, streams[index]))),
        exec => call(probe, "cuGraphLaunch", [exec, streams[index]]),
    };
    let end = Instant::now() + Duration::from_millis(milliseconds as u64);
    let mut completed = 0;
    submit(0)?;
    for turn in 0.. {
        submit((turn + 1) % 2)?;
        // SAFETY: a stream of ours.
        check(probe, unsafe { (probe.driver.cuStreamSynchronize)(streams[turn % 2]) })?;
        if Instant::now() >= end {
            break;
        }
        completed += BATCH;
    }
    Ok(completed.to_string())
}

fn launch(probe: &Probe, stream: u64) -> u32 {
    let none = std::ptr::null_mut();
    // SAFETY: a kernel without parameters.
    unsafe { (probe.driver.cuLaunchKernel)(probe.empty, 1, 1, 1, 1, 1, 1, 0, stream, none, none.cast()) }
}

/// A graph of a batch of kernels.
fn capture(probe: &Probe, stream: u64) -> Result<u64, String> {
    let (mut graph, mut exec) = (0_u64, 0_u64);
    // CU_STREAM_CAPTURE_MODE_RELAXED
    call(probe, "cuStreamBeginCapture_v2", [stream, 2])?;
    (0..BATCH).try_for_each(|_| check(probe, launch(probe, stream)))?;
    call(probe, "cuStreamEndCapture", [stream, (&raw mut graph).expose_provenance() as u64])?;
    let exec_address = (&raw mut exec).expose_provenance() as u64;
    let arguments = [exec_address, graph, 0, 0, 0, 0, 0, 0];
    check(probe, probe.driver.call("cuGraphInstantiateWithFlags", arguments)?)?;
    call(probe, "cuGraphDestroy", [graph, 0])?;
    Ok(exec)
}

fn call(probe: &Probe, name: &str, [one, other]: [u64; 2]) -> Result<(), String> {
    check(probe, probe.driver.call(name, [one, other, 0, 0, 0, 0, 0, 0])?)
}

fn check(probe: &Probe, status: u32) -> Result<(), String> {
    if status == 0 { Ok(()) } else { Err(probe.name(status)) }
}
