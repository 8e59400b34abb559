//! Barriers, waiting, faults and linking, in hand-written PTX and from `tests/ptx/async.cu`.

#![expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "small numbers")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Arg, Shape, bytes, grid, launch, module, u32s};
use crate::device::memory::Memory;
use crate::exec::{Fault, FaultKind, Host, Launch, Program, run};

const ASYNC: &str = include_str!("../../../tests/ptx/async.ptx");

fn fault(body: &str, shape: &Shape) -> Fault {
    launch(&module(body), "k", shape, &mut []).unwrap_err()
}

#[test]
fn double_buffered_copies() {
    let values: Vec<i32> = (0..4 * 64 * 5).map(|i| i % 101).collect();
    let (mut input, mut out) = (bytes(&values), vec![0; 256]);
    let mut args = [Arg::Buffer(&mut input), Arg::Buffer(&mut out), Arg::U32(5)];
    launch(ASYNC, "pipelined", &grid(1, 64), &mut args).unwrap();
    for (thread, found) in u32s(&out).into_iter().enumerate() {
        let at = |tile: usize, k: usize| values[tile * 256 + (63 - thread) * 4 + k] * (k as i32 + 1);
        let sum: i32 = (0..5).map(|tile| (0..4).map(|k| at(tile, k)).sum::<i32>()).sum();
        assert_eq!(found.cast_signed(), sum, "{thread}");
    }
}

#[test]
fn mbarriers_through_the_library() {
    let mut values: Vec<i32> = (0..128).collect();
    let (mut input, mut out) = (bytes(&values), vec![0; 512]);
    launch(ASYNC, "block_barrier", &grid(1, 128), &mut [Arg::Buffer(&mut input), Arg::Buffer(&mut out)])
        .unwrap();
    for _ in 0..4 {
        values = (0..128).map(|i| values[i] + values[(i + 1) % 128]).collect();
    }
    assert_eq!(out, bytes(&values));
    let (mut input, mut out) = (bytes(&(0..128).collect::<Vec<i32>>()), vec![0; 512]);
    launch(ASYNC, "bulk_copy", &grid(1, 128), &mut [Arg::Buffer(&mut input), Arg::Buffer(&mut out)]).unwrap();
    assert_eq!(out, bytes(&(5..133).collect::<Vec<i32>>()));
}

#[test]
fn tiles_with_masks_of_their_own() {
    let values: Vec<i32> = (0..64).map(|i| (i * 37) % 50).collect();
    let (mut input, mut out) = (bytes(&values), vec![0; 256]);
    launch(ASYNC, "tiles", &grid(1, 64), &mut [Arg::Buffer(&mut input), Arg::Buffer(&mut out)]).unwrap();
    for (i, found) in u32s(&out).into_iter().enumerate() {
        let most = *values[i / 8 * 8..][..8].iter().max().unwrap();
        let warp = &values[i / 32 * 32..][..32];
        let odd = warp.iter().filter(|v| *v & 1 == values[i] & 1).count() as i32;
        let rank = warp[..i % 32].iter().filter(|v| *v % 3 == values[i] % 3).count() as i32;
        assert_eq!(found.cast_signed(), most * 10000 + odd * 100 + rank, "{i}");
    }
}

#[test]
fn producers_arrive_and_consumers_wait() {
    // Warp 0 produces into shared memory, warp 1 consumes; three rounds over two named barriers.
    let text = module(
        ".visible .entry k(.param .u64 out) { .reg .b32 t, w, i, v, s, a; .reg .b64 o; .reg .pred p, q; .shared .align 4 .b8 box[128];
         ld.param.u64 o, [out]; mov.u32 t, %tid.x; shr.u32 w, t, 5; and.b32 a, t, 31; shl.b32 a, a, 2; mov.u32 s, box; add.u32 a, a, s;
         setp.eq.u32 p, w, 0; mov.u32 i, 0; mov.u32 v, 0; @!p bra CONSUME;
         PRODUCE: bar.sync 1, 64; mad.lo.u32 v, i, 100, t; st.shared.u32 [a], v; bar.arrive 2, 64;
         add.u32 i, i, 1; setp.lt.u32 q, i, 3; @q bra PRODUCE; ret;
         CONSUME: bar.arrive 1, 64; bar.sync 2, 64; ld.shared.u32 s, [a]; add.u32 v, v, s;
         add.u32 i, i, 1; setp.lt.u32 q, i, 3; @q bra CONSUME;
         mad.wide.u32 o, t, 4, o; st.global.u32 [o+-128], v; ret; }",
    );
    let mut out = vec![0; 128];
    launch(&text, "k", &grid(1, 64), &mut [Arg::Buffer(&mut out)]).unwrap();
    assert_eq!(u32s(&out), (0..32).map(|t| 300 + 3 * t).collect::<Vec<_>>());
}

#[test]
fn exited_lanes_do_not_hold_up_the_others() {
    let text = module(
        ".visible .entry k(.param .u64 out) { .reg .b32 t, v; .reg .b64 o; .reg .pred p; ld.param.u64 o, [out];
         mov.u32 t, %tid.x; setp.ge.u32 p, t, 40; @p exit; bar.sync 0; shfl.sync.down.b32 v, t, 1, 31, -1;
         mad.wide.u32 o, t, 4, o; st.global.u32 [o], v; bar.sync 0; ret; }",
    );
    let mut out = vec![0; 160];
    launch(&text, "k", &grid(1, 96), &mut [Arg::Buffer(&mut out)]).unwrap();
    let out = u32s(&out);
    assert_eq!((out[0], out[30], out[31], out[38]), (1, 31, 31, 39));
}

#[test]
fn what_a_gpu_would_hang_in_is_a_deadlock() {
    let one_warp_missing =
        ".visible .entry k() { .reg .b32 t; .reg .pred p; mov.u32 t, %tid.x; setp.lt.u32 p, t, 32;
        @p bar.sync 1, 64; ret; }";
    let found = fault(one_warp_missing, &grid(1, 64));
    assert_eq!(found.kind, FaultKind::Deadlock, "{found}");
    let lane_missing =
        ".visible .entry k() { .reg .b32 t; .reg .pred p; mov.u32 t, %tid.x; setp.eq.u32 p, t, 0;
        @p bra L; bar.warp.sync -1; bra M; L: bar.sync 1, 32; M: ret; }";
    assert_eq!(fault(lane_missing, &grid(1, 32)).kind, FaultKind::Deadlock);
}

#[test]
fn calls_that_go_wrong() {
    let wild =
        ".visible .entry k() { .reg .b64 f; mov.u64 f, 0x1234; P: .callprototype _ (); call f, (), P; ret; }";
    assert_eq!(fault(wild, &grid(1, 1)).kind, FaultKind::InvalidPc);
    let endless =
        ".func f() { .local .b8 l[1024]; call f, (); ret; } .visible .entry k() { call f, (); ret; }";
    let found = fault(endless, &grid(1, 32));
    assert_eq!(found.kind, FaultKind::StackOverflow, "{found}");
    let table =
        ".visible .entry k() { .reg .b32 i; mov.u32 i, 2; T: .branchtargets A, B; brx.idx i, T; A: B: ret; }";
    assert_eq!(fault(table, &grid(1, 1)).kind, FaultKind::InvalidPc);
}

#[test]
fn old_style_functions_with_register_parameters() {
    let text = module(
        ".func (.reg .u32 r) twice(.reg .u32 x) { add.u32 r, x, x; ret; }
         .visible .entry k(.param .u64 out) { .reg .b32 t, v; .reg .b64 o; ld.param.u64 o, [out]; mov.u32 t, %tid.x;
         call (v), twice, (t); mad.wide.u32 o, t, 4, o; st.global.u32 [o], v; ret; }",
    );
    let mut out = vec![0; 128];
    launch(&text, "k", &grid(1, 32), &mut [Arg::Buffer(&mut out)]).unwrap();
    assert_eq!(u32s(&out), (0..32).map(|t| 2 * t).collect::<Vec<_>>());
}

#[test]
fn several_texts_are_linked() {
    let first = module(
        ".extern .func (.param .b32 r) from_second (.param .b32 x); .extern .global .align 4 .u32 shared_value;
         .global .u32 own = 7; .weak .global .u32 common_value = 1;
         .visible .entry k(.param .u64 out) { .reg .b32 v; .reg .b64 o; ld.param.u64 o, [out];
         { .param .b32 a; .param .b32 b; mov.u32 v, 5; st.param.b32 [a], v; call (b), from_second, (a); ld.param.b32 v, [b]; }
         st.global.u32 [o], v; ld.global.u32 v, [shared_value]; st.global.u32 [o+4], v; ld.global.u32 v, [own];
         st.global.u32 [o+8], v; ld.global.u32 v, [common_value]; st.global.u32 [o+12], v; ret; }",
    );
    let second = module(
        ".visible .global .u32 own = 100; .visible .global .align 4 .u32 shared_value = 11; .weak .global .u32 common_value = 1;
         .visible .func (.param .b32 r) from_second (.param .b32 x) { .reg .b32 v, w; ld.param.b32 v, [x];
         ld.global.u32 w, [own]; add.u32 v, v, w; st.param.b32 [r], v; ret; }",
    );
    let program = Program::compile_all(&[&first, &second]).unwrap();
    let mut out = vec![0; 16];
    super::launch_program(&program, "k", &grid(1, 1), &mut [Arg::Buffer(&mut out)]).unwrap();
    assert_eq!(u32s(&out), [105, 11, 7, 1]);
    let error = Program::compile(&first).unwrap_err();
    assert!(error.message.contains("from_second, which is not defined"), "{error}");
    let twice = Program::compile_all(&[&second, &second]).unwrap_err();
    assert!(twice.message.contains("defined twice"), "{twice}");
}

/// Cancels when told to.
struct Cancel(AtomicBool, Mutex<Vec<u8>>);
impl Host for Cancel {
    fn print(&self, text: &[u8]) {
        self.1.lock().unwrap().extend_from_slice(text);
    }
    fn malloc(&self, _: u64) -> u64 {
        0
    }
    fn free(&self, _: u64) {}
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn plain<'a>(program: &'a Program, symbols: &'a [u64], params: &'a [u8]) -> Launch<'a> {
    Launch {
        program,
        kernel: 0,
        symbols,
        grid: [4, 1, 1],
        block: [64, 1, 1],
        dynamic_shared: 0,
        cooperative: false,
        depth: 0,
        params,
    }
}

#[test]
fn a_launch_that_never_ends_can_be_cancelled_and_does_not_hold_up_others() {
    let endless = Program::compile(&module(".visible .entry k() { L: bra L; }")).unwrap();
    let short = Program::compile(&module(".visible .entry k() { ret; }")).unwrap();
    let memory = Memory::new(1 << 20).unwrap();
    let host = Cancel(AtomicBool::new(false), Mutex::default());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| run(&plain(&endless, &[], &[]), &memory, &host));
        for _ in 0..20 {
            run(&plain(&short, &[], &[]), &memory, &Cancel(AtomicBool::new(false), Mutex::default()))
                .unwrap();
        }
        assert!(!waiting.is_finished());
        host.0.store(true, Ordering::Relaxed);
        assert_eq!(waiting.join().unwrap().unwrap_err().kind, FaultKind::Cancelled);
    });
}

#[test]
fn host_memory_is_reached_when_registered() {
    let program = Program::compile(&module(
        ".visible .entry k(.param .u64 p) { .reg .b64 p0; .reg .b32 t; ld.param.u64 p0, [p]; atom.add.u32 t, [p0], 1; ret; }",
    ))
    .unwrap();
    let memory = Memory::new(1 << 20).unwrap();
    let counter = std::sync::atomic::AtomicU32::new(0);
    let address = counter.as_ptr().expose_provenance() as u64;
    let host = Cancel(AtomicBool::new(false), Mutex::default());
    let params = address.to_le_bytes();
    assert_eq!(
        run(&plain(&program, &[], &params), &memory, &host).unwrap_err().kind,
        FaultKind::IllegalAddress
    );
    assert!(memory.register_host(address, 4));
    run(&plain(&program, &[], &params), &memory, &host).unwrap();
    assert_eq!(counter.load(Ordering::Relaxed), 256);
}

#[test]
fn launches_that_do_not_fit_the_kernel_are_refused() {
    let program = Program::compile(&module(".visible .entry k(.param .u64 p) { ret; }")).unwrap();
    let memory = Memory::new(1 << 20).unwrap();
    let host = Cancel(AtomicBool::new(false), Mutex::default());
    let good = plain(&program, &[], &[0; 8]);
    assert!(run(&good, &memory, &host).is_ok());
    for bad in [
        Launch { params: &[0; 7], ..good },
        Launch { kernel: 1, ..good },
        Launch { grid: [0, 1, 1], ..good },
        Launch { block: [1025, 1, 1], ..good },
        Launch { symbols: &[1], ..good },
        Launch { dynamic_shared: 1 << 30, ..good },
    ] {
        assert_eq!(run(&bad, &memory, &host).unwrap_err().kind, FaultKind::InvalidLaunch);
    }
}
