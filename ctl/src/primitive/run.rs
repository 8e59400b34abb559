//! `pxctl primitive run`: statements in order, each kernel where the target or the cost model puts it.

use super::library::{Library, Value as Argument};
use super::{On, Run, load, machine, values};
use pxos_primitives::{
    Arg, CpuArg, CpuOptions, Executor, Kernel, Machine, ParamType, Place, Program, Target, Value, Workspace,
    run_statements,
};
use serde_json::json;
use std::process::ExitCode;

/// The GPU, where there is one, and what is known of it.
pub(super) struct Gpu {
    pub(super) library: Library,
    pub(super) device: String,
    pub(super) machine: Machine,
}

impl Gpu {
    pub(super) fn open() -> Result<Self, String> {
        let library = Library::open()?;
        let (device, _) = library.device()?;
        let machine = machine::known(&library, &device)?;
        Ok(Self { library, device, machine })
    }
}

/// The kernel's arguments as the planner takes them; addresses do not matter to it.
pub(super) fn planned(kernel: &Kernel, held: &[Value]) -> Vec<Arg> {
    let one = |(param, value): (&pxos_primitives::Param, &Value)| match (param.ty, value) {
        (ParamType::Scalar(element), Value::Number(number)) => {
            Arg::Scalar(values::scalar_bits(element, *number))
        }
        (_, Value::Buffer(buffer)) => {
            Arg::Array { address: 1 << 20, length: (buffer.bytes.len() / buffer.element.bytes()) as u64 }
        }
        _ => Arg::Scalar(0),
    };
    kernel.params().iter().zip(held).map(one).collect()
}

/// Runs a kernel on the CPU; seconds.
pub(super) fn on_cpu(kernel: &Kernel, held: &mut [Value], elements: Option<u64>) -> Result<f64, String> {
    let scalars = planned(kernel, held);
    let mut args: Vec<CpuArg<'_>> = held
        .iter_mut()
        .zip(scalars)
        .map(|(value, planned)| match (value, planned) {
            (Value::Buffer(buffer), _) => CpuArg::Array(&mut buffer.bytes),
            (_, Arg::Scalar(bits)) => CpuArg::Scalar(bits),
            _ => CpuArg::Scalar(0),
        })
        .collect();
    let report = kernel.run_on_cpu(&mut args, &CpuOptions { elements, ..CpuOptions::default() });
    Ok(report.map_err(|error| error.to_string())?.duration.as_secs_f64())
}

/// Runs a kernel on the GPU.
pub(super) fn on_gpu(
    gpu: &Gpu,
    text: &str,
    kernel: &Kernel,
    held: &mut [Value],
    elements: Option<u64>,
) -> Result<super::library::Report, String> {
    let scalars = planned(kernel, held);
    let mut arguments: Vec<Argument<'_>> = held
        .iter_mut()
        .zip(scalars)
        .map(|(value, planned)| match (value, planned) {
            (Value::Buffer(buffer), _) => {
                let size = buffer.element.bytes();
                Argument::Array(&mut buffer.bytes, size)
            }
            (_, Arg::Scalar(bits)) => Argument::Scalar(bits),
            _ => Argument::Scalar(0),
        })
        .collect();
    gpu.library.submit(text, kernel, &mut arguments, elements)
}

/// Kernels of one run.
struct Runner<'a> {
    text: &'a str,
    on: On,
    /// Opened at the first launch that may need it.
    gpu: Option<Result<Gpu, String>>,
    log: Vec<serde_json::Value>,
}

impl Runner<'_> {
    fn gpu(&mut self) -> Result<&mut Gpu, String> {
        self.gpu.get_or_insert_with(Gpu::open).as_mut().map_err(|error| error.clone())
    }

    /// Where a launch runs, and why.
    fn place(
        &mut self,
        kernel: &Kernel,
        held: &[Value],
        elements: Option<u64>,
    ) -> Result<(Place, String), String> {
        let work = kernel.work(&planned(kernel, held), elements).map_err(|error| error.to_string())?;
        match self.on {
            On::Cpu => Ok((Place::Cpu, "CPU: as asked for".to_owned())),
            On::Gpu => self.gpu().map(|_| (Place::Gpu, "GPU: as asked for".to_owned())),
            On::Auto => Ok(match self.gpu() {
                Ok(gpu) => {
                    let decision = gpu.machine.decide(kernel, &work);
                    (decision.place, decision.reason)
                }
                Err(error) => (Place::Cpu, format!("CPU: {error}")),
            }),
        }
    }

    fn run(&mut self, kernel: &Kernel, held: &mut [Value], elements: Option<u64>) -> Result<(), String> {
        let (place, reason) = self.place(kernel, held, elements)?;
        eprintln!("{}: {reason}", kernel.name());
        let work = kernel.work(&planned(kernel, held), elements).map_err(|error| error.to_string())?;
        let text = self.text;
        let mut entry = json!({ "kernel": kernel.name(), "on": place, "reason": reason });
        let seconds = match place {
            Place::Cpu => on_cpu(kernel, held, elements)?,
            Place::Gpu => {
                let gpu = self.gpu()?;
                let report = on_gpu(gpu, text, kernel, held, elements)?;
                entry["bytes_in"] = report.bytes_in.into();
                entry["bytes_out"] = report.bytes_out.into();
                entry["devices"] = report.devices.into();
                entry["total_ms"] = report.total_ms.into();
                gpu.machine.device.start + report.kernel_ms / 1e3
            }
        };
        entry["ms"] = (seconds * 1e3).into();
        self.log.push(entry);
        if let Some(Ok(gpu)) = &mut self.gpu {
            gpu.machine.learn(kernel, &work, place, seconds);
        }
        Ok(())
    }
}

impl Executor for Runner<'_> {
    fn launch(
        &mut self,
        kernel: &Kernel,
        elements: Option<u64>,
        space: &mut Workspace,
    ) -> Result<(), String> {
        let mut held = values::take(kernel.params(), space)?;
        let outcome = self.run(kernel, &mut held, elements);
        values::give_back(kernel.params(), held, space);
        outcome
    }
}

/// Runs the program of a file.
pub(super) fn run(options: &Run) -> Result<ExitCode, String> {
    let Some((text, program)) = load(&options.file)? else { return Ok(ExitCode::FAILURE) };
    let mut space = Workspace::default();
    let params: Vec<_> = program.kernels().iter().flat_map(|kernel| kernel.params()).collect();
    for word in &options.args {
        let (name, value) = values::parse(word, &params, &options.directory)?;
        space.values.insert(name, value);
    }
    let on = options.on.unwrap_or_else(|| match program.target() {
        Target::Auto => On::Auto,
        Target::Cpu => On::Cpu,
        Target::Gpu => On::Gpu,
    });
    let mut runner = Runner { text: &text, on, gpu: None, log: Vec::new() };
    run_whole(options, &program, &mut space, &mut runner)?;
    if let Some(Ok(gpu)) = &runner.gpu {
        machine::keep(&gpu.device, &gpu.machine);
    }
    for word in &options.save {
        let (name, path) = word.split_once('=').ok_or_else(|| format!("`{word}` is not NAME=FILE"))?;
        let Some(Value::Buffer(buffer)) = space.values.get(name) else {
            return Err(format!("there is no array `{name}`"));
        };
        std::fs::write(path, &buffer.bytes).map_err(|error| format!("{path}: {error}"))?;
    }
    show(options, &program, &space, &runner);
    Ok(ExitCode::SUCCESS)
}

fn run_whole(
    options: &Run,
    program: &Program,
    space: &mut Workspace,
    runner: &mut Runner<'_>,
) -> Result<(), String> {
    if !program.statements().is_empty() && options.kernel.is_none() {
        return run_statements(program, &options.directory, space, runner).map_err(|error| {
            let source = std::error::Error::source(&error);
            source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
        });
    }
    let kernel = match (&options.kernel, program.kernels()) {
        (Some(name), _) => program.kernel(name).ok_or_else(|| format!("there is no kernel `{name}`"))?,
        (None, [kernel]) => kernel,
        (None, _) => return Err("the program has several kernels; name one with --kernel".to_owned()),
    };
    runner.launch(kernel, options.elements, space)
}

/// The first elements of every array that a kernel may have written, or all of everything as JSON.
fn show(options: &Run, program: &Program, space: &Workspace, runner: &Runner<'_>) {
    let written = |name: &str| {
        program.kernels().iter().any(|kernel| {
            let access = kernel.access();
            kernel.params().iter().zip(access).any(|(param, access)| param.name == name && access.written)
        })
    };
    let mut arrays = serde_json::Map::new();
    let mut names: Vec<&String> = space.values.keys().filter(|name| written(name)).collect();
    names.sort();
    for name in names {
        let Some(Value::Buffer(buffer)) = space.values.get(name) else { continue };
        if options.json {
            arrays.insert(name.clone(), values::to_json(buffer));
            continue;
        }
        let size = buffer.element.bytes();
        let some = pxos_primitives::Buffer {
            element: buffer.element,
            bytes: buffer.bytes[..buffer.bytes.len().min(8 * size)].to_vec(),
        };
        let length = buffer.bytes.len() / size;
        let more = if length > 8 { format!(" … {length} in all") } else { String::new() };
        println!("{name} = {}{more}", values::to_json(&some));
    }
    if options.json {
        println!("{}", json!({ "launches": runner.log, "arrays": arrays }));
    } else {
        for entry in &runner.log {
            println!(
                "{}: {:.3} ms on the {}",
                entry["kernel"].as_str().unwrap_or(""),
                entry["ms"].as_f64().unwrap_or(0.0),
                entry["on"].as_str().unwrap_or("")
            );
        }
    }
}
