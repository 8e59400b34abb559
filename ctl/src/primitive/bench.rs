//! `pxctl primitive bench`: each kernel on the CPU and on the GPU, what was predicted beside what was measured.

use super::run::{Gpu, on_cpu, on_gpu, planned};
use super::{Bench, load, machine, values};
use pxos_primitives::{Buffer, Kernel, Param, ParamType, Place, Prediction, Value, Workspace};
use serde_json::json;
use std::process::ExitCode;

/// One kernel's figures, in seconds.
struct Row {
    kernel: String,
    predicted: Prediction,
    /// Of the launch, without transfers.
    cpu: f64,
    gpu: Option<f64>,
    transfer: Option<f64>,
    reason: String,
    bytes: f64,
    equal: Option<bool>,
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A value for a parameter that the command line does not give: sizes fit the arrays.
fn default_value(param: &Param, position: usize, size: u64) -> Value {
    match param.ty {
        ParamType::Array(element) => {
            Value::Buffer(Buffer { element, bytes: values::random(element, size, position as u64 + 1) })
        }
        ParamType::Scalar(_) => {
            let side = size.isqrt();
            let whole = match param.name.as_str() {
                "width" | "w" | "cols" | "columns" => side,
                "height" | "h" | "rows" => size / side.max(1),
                "n" | "count" | "size" | "length" => size,
                _ => 1,
            };
            #[expect(clippy::cast_precision_loss, reason = "below 2^31")]
            let number = whole as f64;
            Value::Number(number)
        }
    }
}

fn measure(
    options: &Bench,
    text: &str,
    kernel: &Kernel,
    space: &Workspace,
    gpu: &mut Option<Gpu>,
) -> Result<Row, String> {
    let held: Vec<Value> = kernel
        .params()
        .iter()
        .enumerate()
        .map(|(position, param)| {
            let given = space.values.get(&param.name).cloned();
            given.unwrap_or_else(|| default_value(param, position, options.size))
        })
        .collect();
    let args = planned(kernel, &held);
    let work = kernel.work(&args, None).map_err(|error| error.to_string())?;
    let decision = gpu.as_ref().map(|gpu| gpu.machine.decide(kernel, &work));
    let mut after = Vec::new();
    let mut times = Vec::new();
    for _ in 0..options.repeat {
        let mut values = held.clone();
        times.push(on_cpu(kernel, &mut values, None)?);
        after = values;
    }
    let cpu = median(times);
    let (mut on_device, mut transfer, mut equal) = (None, None, None);
    if let Some(gpu) = gpu {
        let (mut kernels, mut transfers) = (Vec::new(), Vec::new());
        // The first run compiles.
        for run in 0..=options.repeat {
            let mut values = held.clone();
            let report = on_gpu(gpu, text, kernel, &mut values, None)?;
            if run > 0 {
                kernels.push(
                    (report.total_ms - report.to_device_ms - report.to_host_ms - report.compile_ms) / 1e3,
                );
                transfers.push((report.to_device_ms + report.to_host_ms) / 1e3);
            }
            equal = Some(values == after);
        }
        let seconds = median(kernels);
        gpu.machine.learn(kernel, &work, Place::Gpu, seconds);
        gpu.machine.learn(kernel, &work, Place::Cpu, cpu);
        on_device = Some(seconds);
        transfer = Some(median(transfers));
    }
    let none = Prediction { gpu: f64::NAN, transfer: f64::NAN, cpu: f64::NAN };
    Ok(Row {
        kernel: kernel.name().to_owned(),
        predicted: decision.as_ref().map_or(none, |decision| decision.prediction),
        cpu,
        gpu: on_device,
        transfer,
        reason: decision.map_or_else(|| "no GPU is reached".to_owned(), |decision| decision.reason),
        bytes: work.bytes,
        equal,
    })
}

/// Measures the kernels of a file.
pub(super) fn bench(options: &Bench) -> Result<ExitCode, String> {
    let Some((text, program)) = load(&options.file)? else { return Ok(ExitCode::FAILURE) };
    let mut space = Workspace::default();
    let params: Vec<_> = program.kernels().iter().flat_map(|kernel| kernel.params()).collect();
    for word in &options.args {
        let (name, value) = values::parse(word, &params, std::path::Path::new("."))?;
        space.values.insert(name, value);
    }
    let mut gpu = match Gpu::open() {
        Ok(gpu) => Some(gpu),
        Err(error) => {
            eprintln!("pxctl: {error}; only the CPU is measured");
            None
        }
    };
    let mut rows = Vec::new();
    for kernel in program.kernels() {
        if options.kernel.as_deref().is_none_or(|name| name == kernel.name()) {
            rows.push(measure(options, &text, kernel, &space, &mut gpu)?);
        }
    }
    if rows.is_empty() {
        return Err("there is no such kernel".to_owned());
    }
    if let Some(gpu) = &gpu {
        machine::keep(&gpu.device, &gpu.machine);
    }
    let device = gpu.as_ref().map(|gpu| gpu.device.as_str());
    if options.json {
        println!("{}", as_json(&rows, device));
    } else {
        print!("{}", as_table(&rows, device, options.repeat));
    }
    Ok(if rows.iter().all(|row| row.equal != Some(false)) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn as_json(rows: &[Row], device: Option<&str>) -> serde_json::Value {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "kernel": row.kernel, "reason": row.reason, "results_equal": row.equal,
                "predicted_ms": {
                    "cpu": row.predicted.cpu * 1e3, "gpu": row.predicted.gpu * 1e3,
                    "transfer": row.predicted.transfer * 1e3
                },
                "measured_ms": {
                    "cpu": row.cpu * 1e3, "gpu": row.gpu.map(|s| s * 1e3),
                    "transfer": row.transfer.map(|s| s * 1e3)
                }
            })
        })
        .collect();
    json!({ "device": device, "kernels": rows })
}

fn as_table(rows: &[Row], device: Option<&str>, repeat: u32) -> String {
    use std::fmt::Write as _;
    let mut out = format!("GPU: {}; median of {repeat} runs, in ms\n", device.unwrap_or("none"));
    let _ = writeln!(
        out,
        "{:<20} {:<9} {:>11} {:>11} {:>8} {:>9}",
        "kernel", "where", "predicted", "measured", "ratio", "GB/s"
    );
    for row in rows {
        let places = [
            ("cpu", row.predicted.cpu, Some(row.cpu), row.bytes),
            ("gpu", row.predicted.gpu, row.gpu, row.bytes),
            ("transfer", row.predicted.transfer, row.transfer, f64::NAN),
        ];
        for (place, predicted, measured, bytes) in places {
            let Some(measured) = measured else { continue };
            let number = |value: f64| if value.is_nan() { "-".to_owned() } else { format!("{value:.3}") };
            let rate = bytes / measured / 1e9;
            let _ = writeln!(
                out,
                "{:<20} {place:<9} {:>11} {:>11} {:>8} {:>9}",
                row.kernel,
                number(predicted * 1e3),
                number(measured * 1e3),
                number(measured / predicted),
                if rate.is_nan() { "-".to_owned() } else { format!("{rate:.1}") }
            );
        }
        let equal = match row.equal {
            Some(true) => "; results are equal",
            Some(false) => "; RESULTS DIFFER",
            None => "",
        };
        let _ = writeln!(out, "{:<20} {}{equal}", "", row.reason);
    }
    out
}
