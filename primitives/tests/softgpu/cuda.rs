//! CUDA C out: nvcc compiles it, and the program that comes of it finds the results of the CPU executor, which are those of
//! the PTX. It runs on softgpu; `PXOS_TEST_DRIVER=auto` runs it on this machine's GPU.
#![expect(clippy::tests_outside_test_module, reason = "all of it is tests")]

use crate::common::{compiled, generate};
use pxos_primitives::{Options, emit_cuda};
use std::path::{Path, PathBuf};
use std::process::Command;

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
