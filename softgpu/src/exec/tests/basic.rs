//! Whole kernels.

use super::{Arg, bytes, f32s, grid, launch};

const VECTOR_ADD: &str = include_str!("../../../tests/ptx/vector_add.ptx");

#[test]
fn vector_add_over_many_blocks() {
    let n = 10_007u32;
    let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let b: Vec<f32> = (0..n).map(|i| 2.0 * i as f32).collect();
    let (mut a, mut b, mut c) = (bytes(&a), bytes(&b), vec![0u8; 4 * n as usize]);
    let mut args = [Arg::Buffer(&mut a), Arg::Buffer(&mut b), Arg::Buffer(&mut c), Arg::U32(n)];
    let (report, _) = launch(VECTOR_ADD, "vector_add", &grid(n.div_ceil(256), 256), &mut args).unwrap();
    assert_eq!(report.blocks, 40);
    assert!(report.instructions > u64::from(n) * 10);
    let c = f32s(&c);
    for i in 0..n {
        assert_eq!(c[i as usize], 3.0 * i as f32, "element {i}");
    }
}
