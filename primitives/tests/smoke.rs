//! Compiles every shape of program and looks at what comes out.

use pxos_primitives::{Arg, CpuArg, CpuOptions, Options, Request, compile};

fn compiled(text: &str) -> pxos_primitives::Program {
    compile(text, &Options::default()).unwrap_or_else(|found| {
        panic!("{}", found.iter().map(|d| d.render("test", text)).collect::<String>())
    })
}

#[test]
fn vector_add() {
    let p = compiled("
    GPU_KERNEL vector_add
    GPU_PARAM a float[]
    GPU_PARAM b float[]
    GPU_PARAM output float[]
    GPU_PARAM n int
    GPU_THREAD_CODE:
        THREAD_ID → tid
        IF tid < n:
            LOAD a[tid] → x
            LOAD b[tid] → y
            ADD x y → sum
            STORE sum → output[tid]
    GPU_END
");
    let k = &p.kernels()[0];
    println!("{}", k.ptx().ptx);
    let arr = |address| Arg::Array { address, length: 1000 };
    let plan = k.plan(&[arr(256), arr(4096), arr(8192), Arg::from(1000)], &Request::default()).unwrap();
    println!("{}", plan.module.ptx);
    println!("{:?} {:?}", plan.steps, plan.checks);
    let mut a: Vec<u8> = (0..1000).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let mut b = a.clone();
    let mut c = vec![0u8; 4000];
    k.run_on_cpu(&mut [CpuArg::Array(&mut a), CpuArg::Array(&mut b), CpuArg::Array(&mut c), CpuArg::Scalar(1000)], &CpuOptions::default()).unwrap();
    assert_eq!(f32::from_le_bytes(c[3996..].try_into().unwrap()), 1998.0);
}
