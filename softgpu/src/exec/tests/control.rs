//! Divergence, barriers, calls, tables, atomics, printf and faults, compiled by nvcc from `tests/ptx/control.cu`.

#![expect(clippy::cast_possible_wrap, clippy::cast_sign_loss, reason = "small numbers")]

use std::sync::OnceLock;

use super::{Arg, Shape, bytes, grid, launch_program, u32s};
use crate::exec::{Fault, FaultKind, LaunchReport, Program};

fn program() -> &'static Program {
    static PROGRAM: OnceLock<Program> = OnceLock::new();
    PROGRAM.get_or_init(|| Program::compile(include_str!("../../../tests/ptx/control.ptx")).unwrap())
}

fn launch(kernel: &str, shape: &Shape, args: &mut [Arg<'_>]) -> Result<(LaunchReport, String), Fault> {
    launch_program(program(), kernel, shape, args)
}

fn ints(data: &[u8]) -> Vec<i32> {
    u32s(data).into_iter().map(u32::cast_signed).collect()
}

#[test]
fn block_sum_with_barriers_and_atomics() {
    let n = 100_000;
    let values: Vec<i32> = (0..n).map(|i| i % 17 - 5).collect();
    let (mut input, mut out) = (bytes(&values), bytes(&[0i32]));
    let mut args = [Arg::Buffer(&mut input), Arg::Buffer(&mut out), Arg::U32(n as u32)];
    launch("block_sum", &grid(391, 256), &mut args).unwrap();
    assert_eq!(ints(&out)[0], values.iter().sum::<i32>());
}

#[test]
fn warp_sum_by_shuffles() {
    let values: Vec<i32> = (0..256).map(|i| i * i).collect();
    let (mut input, mut out) = (bytes(&values), vec![0; 32]);
    launch("warp_sum", &grid(2, 128), &mut [Arg::Buffer(&mut input), Arg::Buffer(&mut out)]).unwrap();
    let expected: Vec<i32> = values.chunks(32).map(|c| c.iter().sum()).collect();
    assert_eq!(ints(&out), expected);
}

#[test]
fn lanes_that_leave_loops_at_different_times() {
    let mut out = vec![0; 4 * 1000];
    launch("collatz", &grid(8, 128), &mut [Arg::Buffer(&mut out), Arg::U32(1000)]).unwrap();
    let steps = |mut x: u64| {
        let mut n = 0;
        while x != 1 {
            x = if x & 1 == 1 { 3 * x + 1 } else { x / 2 };
            n += 1;
        }
        n
    };
    assert_eq!(u32s(&out), (1..=1000).map(steps).collect::<Vec<u32>>());
}

#[test]
fn recursion_at_different_depths() {
    let mut out = vec![0; 4 * 64];
    launch("recursion", &grid(1, 64), &mut [Arg::Buffer(&mut out)]).unwrap();
    let fib = [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144];
    assert_eq!(ints(&out), (0..64).map(|i| fib[i % 13]).collect::<Vec<i32>>());
}

#[test]
fn virtual_calls_of_two_classes_in_one_warp() {
    let mut out = vec![0; 4 * 64];
    launch("virtuals", &grid(1, 64), &mut [Arg::Buffer(&mut out)]).unwrap();
    let expected: Vec<i32> = (0..64).map(|i| if i % 3 != 0 { i * i + 100 } else { i * 3 - 100 }).collect();
    assert_eq!(ints(&out), expected);
}

#[test]
fn jump_table() {
    let ops: Vec<i32> = (0..96).map(|i| (i * 7) % 10).collect();
    let (mut input, mut out) = (bytes(&ops), vec![0; 4 * 96]);
    launch("table", &grid(1, 96), &mut [Arg::Buffer(&mut input), Arg::Buffer(&mut out)]).unwrap();
    let expected: Vec<i32> = (0..96)
        .map(|x: i32| match ops[x as usize] {
            0 => x * 3,
            1 => x + 1000,
            2 => -x,
            3 => x ^ 0x55,
            4 => x << 4,
            5 => x % 7,
            6 => x.count_ones() as i32,
            7 => x.reverse_bits(),
            _ => 42,
        })
        .collect();
    assert_eq!(ints(&out), expected);
}

#[test]
fn spin_locks_inside_warps_and_among_blocks() {
    for kernel in ["spin_lock", "spin_lock_plain"] {
        let mut counter = bytes(&[0i32]);
        launch(kernel, &grid(8, 128), &mut [Arg::Buffer(&mut counter)]).unwrap();
        assert_eq!(ints(&counter)[0], 8 * 128, "{kernel}");
    }
}

#[test]
fn blocks_that_wait_for_each_other() {
    let (mut flags, mut out) = (vec![0; 400], vec![0; 400]);
    launch("chain", &grid(100, 32), &mut [Arg::Buffer(&mut flags), Arg::Buffer(&mut out)]).unwrap();
    assert_eq!(ints(&out), (0..100).map(|i| 1 + 2 * i).collect::<Vec<_>>());
    let mut flags = vec![0; 80];
    launch("backward_chain", &grid(20, 32), &mut [Arg::Buffer(&mut flags)]).unwrap();
    assert_eq!(ints(&flags), (1..=20).collect::<Vec<_>>());
}

#[test]
fn grid_sync_of_a_cooperative_launch() {
    let n = 32 * 64;
    let mut data: Vec<i32> = (0..n).collect();
    let (mut input, mut out) = (bytes(&data), vec![0; 4 * n as usize]);
    let shape = Shape { cooperative: true, ..grid(32, 64) };
    launch("grid_sync", &shape, &mut [Arg::Buffer(&mut input), Arg::Buffer(&mut out), Arg::U32(5)]).unwrap();
    for _ in 0..5 {
        data = (0..data.len()).map(|i| data[i].wrapping_add(data[(i + 1) % data.len()])).collect();
    }
    assert_eq!(ints(&out), data);
}

#[test]
fn printf_from_every_thread() {
    let (_, text) = launch("hello", &grid(2, 3), &mut [Arg::U64(0)]).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[0], "block 0 thread 0: text  0.00 123456789abcdef z");
    assert_eq!(lines[5], "block 1 thread 2: text  3.00 123456789abcdef z");
}

#[test]
fn device_heap() {
    let mut out = vec![0; 4 * 64];
    launch("heap", &grid(1, 64), &mut [Arg::Buffer(&mut out)]).unwrap();
    assert_eq!(ints(&out), (0..64).map(|i| 45 * i).collect::<Vec<_>>());
}

#[test]
fn module_variables_and_addresses_in_them() {
    let mut out = vec![0; 4 * 16];
    launch("symbols", &grid(1, 16), &mut [Arg::Buffer(&mut out)]).unwrap();
    assert_eq!(ints(&out), (0..16).map(|i| (i % 8 + 1) * 10).collect::<Vec<_>>());
}

#[test]
fn dynamic_shared_memory_follows_the_static() {
    let mut out = vec![0; 4 * 64];
    let shape = Shape { dynamic_shared: 256, ..grid(1, 64) };
    launch("dynamic_shared", &shape, &mut [Arg::Buffer(&mut out)]).unwrap();
    assert_eq!(ints(&out), (0..64).map(|i| (63 - i) * 2 + (i & 3)).collect::<Vec<_>>());
    let shape = Shape { dynamic_shared: 252, ..grid(1, 64) };
    let fault = launch("dynamic_shared", &shape, &mut [Arg::Buffer(&mut out)]).unwrap_err();
    assert_eq!(fault.kind, FaultKind::IllegalAddress, "{fault}");
}

#[test]
fn votes_and_masks() {
    let mut out = vec![0; 4 * 32];
    launch("votes", &grid(1, 32), &mut [Arg::Buffer(&mut out)]).unwrap();
    let ballot = (0..32).filter(|i| i % 3 == 0).fold(0u32, |m, i| m | 1 << i);
    let expected: Vec<u32> = (0..32u32)
        .map(|i| {
            // The odd lanes see 0xaaaaaaaa, the even ones the complement of what they see.
            let half = 0xaaaa_aaaa;
            ballot ^ (1 << 1) ^ 1 ^ (0xf << (i / 4 * 4)) ^ 496 ^ half
        })
        .collect();
    assert_eq!(u32s(&out), expected);
}

#[test]
fn exchange_among_lanes_at_different_places() {
    let mut out = vec![0; 4 * 32];
    launch("diverged_shuffle", &grid(1, 32), &mut [Arg::Buffer(&mut out)]).unwrap();
    let expected: Vec<i32> =
        (0..32).map(|i| if i & 1 == 1 { (i - 1) * 10 + 2 + 1000 } else { (i + 1) * 10 + 1 + 2000 }).collect();
    assert_eq!(ints(&out), expected);
}

#[test]
fn barrier_reductions() {
    let mut out = vec![0; 4 * 128];
    launch("barrier_or", &grid(1, 128), &mut [Arg::Buffer(&mut out)]).unwrap();
    assert_eq!(ints(&out), vec![1 + 4 * 26; 128]);
}

#[test]
fn faults_name_kind_and_place() {
    let mut data = vec![0; 400];
    let fault = launch("fails_at", &grid(1, 32), &mut [Arg::Buffer(&mut data), Arg::U32(100)]).unwrap_err();
    assert_eq!(fault.kind, FaultKind::IllegalAddress);
    assert!(fault.message.contains("kernel fails_at, block (0,0,0), thread (3,0,0), ptx line"), "{fault}");
    assert!(fault.message.contains("store of 4 bytes in global memory"), "{fault}");
    launch("fails_at", &grid(1, 32), &mut [Arg::Buffer(&mut data), Arg::U32(99)]).unwrap();
    let fault = launch("misaligned", &grid(1, 1), &mut [Arg::Buffer(&mut data)]).unwrap_err();
    assert_eq!(fault.kind, FaultKind::MisalignedAddress, "{fault}");
    let fault = launch("traps", &grid(1, 32), &mut []).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Trap);
    assert!(fault.message.contains("thread (7,0,0)"), "{fault}");
    let fault = launch("asserts", &grid(2, 32), &mut [Arg::U32(5)]).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Assert);
    assert!(
        fault.message.contains("thread: [5,0,0] Assertion `threadIdx.x != n && \"must differ\"` failed."),
        "{fault}"
    );
}
