//! CUDA C out: nvcc compiles it, and the program that comes of it finds the results of the CPU executor, which are those of
//! the PTX. It runs on softgpu; `PXOS_TEST_DRIVER=auto` runs it on this machine's GPU. And the PTX is no longer than what
//! nvcc makes of the same kernel written by hand.
#![expect(clippy::tests_outside_test_module, reason = "all of it is tests")]

use crate::common::{compiled, generate};
use pxos_primitives::{Arg, Options, ParamType, Request, emit_cuda};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A part of the text of `benches/primitives.cu`.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let start = text.find(from).unwrap_or_else(|| panic!("no {from}"));
    let length = text[start..].find(to).unwrap_or_else(|| panic!("no {to} behind {from}"));
    &text[start..start + length]
}

/// Instructions of each kernel of a cubin for sm_90: words of 16 bytes up to what pads the section, which is a branch to
/// itself and instructions that do nothing.
fn instructions(cubin: &[u8]) -> Vec<(String, usize)> {
    use object::{Object as _, ObjectSection as _};
    const NOP: u64 = 0x918;
    let file = object::File::parse(cubin).unwrap();
    let kernels = file.sections().filter_map(|section| {
        let name = section.name().ok()?.strip_prefix(".text.")?.to_owned();
        let data = section.data().ok()?;
        let opcode = |word: &[u8]| u64::from_le_bytes(word[..8].try_into().unwrap()) & 0xfff;
        let count = data.chunks_exact(16).rposition(|word| opcode(word) != NOP).unwrap();
        Some((name, count))
    });
    kernels.collect()
}

#[test]
fn no_more_instructions_than_by_hand() {
    let Some(nvcc) = nvcc() else { return eprintln!("skipped: no nvcc in .toolchain") };
    let bench = include_str!("../../../benches/primitives.cu");
    let folder = std::env::temp_dir().join(format!("px-sass-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let compile = |tool: &Path, source: &Path, flags: &[&str]| {
        let cubin = source.with_extension("cubin");
        let built = Command::new(tool).args(flags).arg(source).arg("-o").arg(&cubin).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        instructions(&std::fs::read(cubin).unwrap())
    };
    let hand = folder.join("hand.cu");
    std::fs::write(&hand, between(bench, "__global__ void sum", "__global__ void blur")).unwrap();
    let by_hand = compile(&nvcc, &hand, &["-O2", "-arch=sm_90", "-cubin"]);
    for (name, example) in [("sum", "vector_add"), ("stencil", "stencil")] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{example}.px"));
        let program = compiled(&std::fs::read_to_string(path).unwrap(), &Options::default());
        let kernel = &program.kernels()[0];
        let args: Vec<Arg> = kernel
            .params()
            .iter()
            .map(|param| match (param.ty, param.name.as_str()) {
                (ParamType::Array(_), _) => Arg::Array { address: 1 << 32, length: 1 << 20 },
                (_, "n") => Arg::from(1_i32 << 20),
                _ => Arg::from(1_i32 << 10),
            })
            .collect();
        let plan = kernel.plan(&args, &Request::default()).unwrap();
        assert_eq!(plan.checks.1, 0, "{example}: the arguments prove every access");
        let ptx = folder.join(format!("{example}.ptx"));
        std::fs::write(&ptx, &plan.module.ptx).unwrap();
        let ours = compile(&nvcc.with_file_name("ptxas"), &ptx, &["-arch=sm_90"])[0].1;
        let (_, theirs) = by_hand.iter().find(|(symbol, _)| symbol.contains(name)).unwrap();
        println!("{example}: {ours} instructions for sm_90, {theirs} by hand");
        assert!(ours > 10 && ours <= *theirs, "{example}: {ours}, by hand {theirs}\n{}", plan.module.ptx);
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

fn nvcc() -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.toolchain/venv/lib");
    let found = std::fs::read_dir(venv).ok()?.filter_map(Result::ok);
    let mut installed = found.map(|entry| entry.path().join("site-packages/nvidia/cu13/bin/nvcc"));
    installed.find(|path| path.exists())
}

/// softgpu as a library, where cargo has built it.
pub(crate) fn softgpu() -> Option<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let folders = test.ancestors().skip(1).take(2);
    folders.map(|folder| folder.join("libpxsoft.so")).find(|path| path.exists())
}

/// Every example and some programs made at random, as one text.
fn text() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut text = String::new();
    for name in ["vector_add", "render_frame", "stencil", "gaussian_blur", "color_correct", "library"] {
        text += &std::fs::read_to_string(folder.join(format!("{name}.px"))).unwrap();
    }
    for seed in 0..12 {
        let case = generate::program(seed * 7919 + 3).text;
        // Names are the program's own: several programs in one text need different ones.
        let case = case.replace("GPU_KERNEL k\n", &format!("GPU_KERNEL random{seed}\n"));
        let case = case.replace("mix(", &format!("mix{seed}("));
        text += &case
            .replace("table[", &format!("table{seed}["))
            .replace("table float", &format!("table{seed} float"));
    }
    text.lines().filter(|line| !line.starts_with("GPU_TARGET") && !line.starts_with("GPU_DIST")).fold(
        String::new(),
        |mut all, line| {
            all.push_str(line);
            all.push('\n');
            all
        },
    )
}

#[test]
fn nvcc_compiles_it_and_its_results_are_right() {
    let (Some(nvcc), Some(soft)) = (nvcc(), softgpu()) else {
        eprintln!("skipped: no nvcc in .toolchain, or no libpxsoft.so beside this test");
        return;
    };
    let program = compiled(&text(), &Options::default());
    let folder = std::env::temp_dir().join(format!("px-cuda-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (source, binary) = (folder.join("program.cu"), folder.join("program"));
    std::fs::write(&source, emit_cuda(&program)).unwrap();
    let built = Command::new(nvcc)
        .args(["-O1", "-gencode", "arch=compute_90,code=compute_90", "-o"])
        .arg(&binary)
        .arg(&source)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let mut run = Command::new(&binary);
    if std::env::var("PXOS_TEST_DRIVER").as_deref() != Ok("auto") {
        run.env("LD_PRELOAD", soft);
    }
    let ran = run.output().unwrap();
    let told = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{told}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(told.contains("all results are right"), "{told}");
    std::fs::remove_dir_all(&folder).unwrap();
}
