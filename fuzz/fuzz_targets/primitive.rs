//! Any bytes as the text of a program: parser and checker end, with a program or with errors that lie in the text; what
//! compiles becomes PTX and CUDA C, is planned for odd arguments, and runs on the CPU within its limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pxos_primitives::{Arg, CpuArg, CpuOptions, Options, ParamType, Request, Severity, compile, emit_cuda};
use std::time::Duration;

fuzz_target!(|text: &str| {
    let program = match compile(text, &Options::default()) {
        Ok(program) => program,
        Err(found) => {
            assert!(found.iter().any(|diagnostic| diagnostic.severity == Severity::Error));
            assert!(found.len() <= 51);
            for diagnostic in &found {
                let _ = diagnostic.render("fuzz", text);
            }
            return;
        }
    };
    let _ = emit_cuda(&program);
    for kernel in program.kernels() {
        let ptx = kernel.ptx();
        assert!(ptx.ptx.len() < 64 << 20);
        let args: Vec<Arg> = kernel
            .params()
            .iter()
            .enumerate()
            .map(|(index, param)| match param.ty {
                ParamType::Array(_) => Arg::Array { address: 1 << 20, length: 7 * index as u64 },
                ParamType::Scalar(_) => Arg::Scalar(0x4000_0000_0000_0003),
            })
            .collect();
        let planned = kernel.plan(&args, &Request::default()).is_ok();
        let _ = kernel.work(&args, None);
        let mut arrays: Vec<Vec<u8>> = kernel
            .params()
            .iter()
            .enumerate()
            .map(|(index, param)| match param.ty {
                ParamType::Array(element) => vec![index as u8; 7 * index * element.bytes()],
                ParamType::Scalar(_) => Vec::new(),
            })
            .collect();
        let mut values: Vec<CpuArg<'_>> = arrays
            .iter_mut()
            .zip(kernel.params())
            .map(|(bytes, param)| match param.ty {
                ParamType::Array(_) => CpuArg::Array(bytes),
                ParamType::Scalar(_) => CpuArg::Scalar(0x4000_0000_0000_0003),
            })
            .collect();
        let limit = Some(Duration::from_millis(50));
        let ran = kernel.run_on_cpu(&mut values, &CpuOptions { threads: 1, limit, ..CpuOptions::default() });
        if let Err(error) = ran {
            let _ = (error.to_string(), planned);
        }
    }
});
