//! What this machine was measured to do, kept in a file: once for each GPU that it reaches.

use super::library::{Library, Value};
use super::values::random;
use pxos_primitives::{Arg, CpuArg, CpuOptions, Element, Kernel, Machine, Options, Program, Rate, compile};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Elements of the kernels that measure: large enough that starting does not count, and 16 MiB an array.
const SIZE: usize = 4 << 20;

/// One that moves memory, and one that computes.
const KERNELS: &str = "\
GPU_KERNEL moves
GPU_PARAM a float[]
GPU_PARAM b float[]
GPU_THREAD_CODE:
    THREAD_ID → t
    LOAD a[t] → x
    STORE x → b[t]
GPU_END
GPU_KERNEL computes
GPU_PARAM a float[]
GPU_PARAM b float[]
GPU_THREAD_CODE:
    THREAD_ID → t
    LOAD a[t] → x
    CALCULATE y = x
    FOR i IN 0..256:
        FMA y x x → y
    STORE y → b[t]
GPU_END
";

/// The file, by the GPU's name.
type File = BTreeMap<String, Machine>;

fn path() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state"));
    Some(state.or_else(home)?.join("pxos/machine.json"))
}

fn read() -> File {
    let text = path().and_then(|path| std::fs::read_to_string(path).ok());
    // A file that cannot be read, of an older version say, is measured anew.
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// Keeps what is known of a GPU. That it cannot be kept only costs measuring it again.
pub(super) fn keep(device: &str, machine: &Machine) {
    let Some(path) = path() else { return };
    let mut file = read();
    file.insert(device.to_owned(), machine.clone());
    let written = || -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        // Whole or not at all, whoever else writes.
        let beside = path.with_extension(format!("json.{}", std::process::id()));
        std::fs::write(&beside, serde_json::to_vec_pretty(&file)?)?;
        std::fs::rename(&beside, &path)
    };
    if let Err(error) = written() {
        eprintln!("pxctl: {} is not kept: {error}", path.display());
    }
}

/// What is known of this machine with that GPU, measured where nothing is.
pub(super) fn known(library: &Library, device: &str) -> Result<Machine, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if let Some(machine) = read().remove(device).filter(|machine| machine.cores == cores) {
        return Ok(machine);
    }
    eprintln!("pxctl: measuring this machine and {device} once");
    let machine = measure(library, cores)?;
    keep(device, &machine);
    Ok(machine)
}

fn bytes_of(size: usize) -> (Vec<u8>, Vec<u8>) {
    (random(Element::Float, size as u64, 3), vec![0; size * 4])
}

/// Least time of three runs, in seconds.
fn least(mut run: impl FnMut() -> Result<f64, String>) -> Result<f64, String> {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        best = best.min(run()?);
    }
    Ok(best)
}

fn on_cpu(kernel: &Kernel, size: usize) -> Result<f64, String> {
    let (mut a, mut b) = bytes_of(size);
    least(|| {
        let mut args = [CpuArg::Array(&mut a), CpuArg::Array(&mut b)];
        let report = kernel.run_on_cpu(&mut args, &CpuOptions::default());
        Ok(report.map_err(|error| error.to_string())?.duration.as_secs_f64())
    })
}

/// Times of one kernel on the GPU: kernel, to the device, to the host, and what the launch took beyond.
fn on_gpu(library: &Library, kernel: &Kernel, size: usize) -> Result<[f64; 4], String> {
    let (mut a, mut b) = bytes_of(size);
    let mut best = [f64::INFINITY; 4];
    for _ in 0..3 {
        let mut values = [Value::Array(&mut a, 4), Value::Array(&mut b, 4)];
        let report = library.submit(KERNELS, kernel, &mut values, None)?;
        let times = [
            report.kernel_ms,
            report.to_device_ms,
            report.to_host_ms,
            report.total_ms - report.compile_ms - report.kernel_ms,
        ];
        for (best, time) in best.iter_mut().zip(times) {
            *best = best.min(time / 1e3);
        }
    }
    Ok(best)
}

fn measure(library: &Library, cores: usize) -> Result<Machine, String> {
    let program: Program = compile(KERNELS, &Options::default()).map_err(|found| format!("{found:?}"))?;
    let [moves, computes] = program.kernels() else { return Err("two kernels are two".to_owned()) };
    // A tenth of it computes: a CPU takes long enough for that.
    let few = SIZE / 16;
    let work = |kernel: &Kernel, size: usize| {
        let array = |address| Arg::Array { address, length: size as u64 };
        kernel.work(&[array(1 << 20), array(1 << 30)], None).map_err(|error| error.to_string())
    };
    let (moved, computed) = (work(moves, SIZE)?, work(computes, few)?);
    let rate = |start: f64, moving: f64, computing: f64| Rate {
        start,
        bytes: moved.bytes / (moving - start).max(1e-6),
        operations: computed.operations / (computing - start).max(1e-6),
    };
    let start = on_cpu(moves, 1)?;
    let host = rate(start, on_cpu(moves, SIZE)?, on_cpu(computes, few)?);
    let [_, _, _, beyond] = on_gpu(library, moves, 1)?;
    let [moving, to_device, to_host, _] = on_gpu(library, moves, SIZE)?;
    let [computing, ..] = on_gpu(library, computes, few)?;
    let device = Rate { start: beyond, ..rate(0.0, moving, computing) };
    #[expect(clippy::cast_precision_loss, reason = "a few MiB")]
    let bytes = (SIZE * 4) as f64;
    let link = [2.0 * bytes / to_device.max(1e-6), bytes / to_host.max(1e-6)];
    Ok(Machine { cores, host, device, link, learnt: BTreeMap::new() })
}
