//! `pxctl primitive` and `pxctl gpu-test`: programs of the primitive language from the command line.
//!
//! Checking, emitting and the CPU executor need no server; the GPU is reached through libpxshim.so ([`library`]), as any
//! guest program reaches it.

mod bench;
mod library;
mod machine;
mod run;
mod values;

use clap::{Args, Subcommand, ValueEnum};
use library::{Library, Request};
use pxos_primitives::{Diagnostic, Options, Program, Severity, compile, emit_cuda, to_json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What is done with a program.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Says everything that is wrong with a program, and what will be slow
    Check {
        /// The program
        file: PathBuf,
        /// As JSON, for editors
        #[arg(long)]
        json: bool,
    },
    /// Writes what a program is compiled to
    Emit(Emit),
    /// Runs a program: its statements, or one kernel
    Run(Run),
    /// Measures kernels on the CPU and on the GPU, beside what was predicted
    Bench(Bench),
}

/// `emit`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("form").required(true))]
pub(crate) struct Emit {
    file: PathBuf,
    /// PTX, as it runs for any arguments
    #[arg(long, group = "form")]
    ptx: bool,
    /// A CUDA C program with memory management, checks and timing, for nvcc
    #[arg(long, group = "form")]
    cuda: bool,
    /// One kernel's PTX only
    #[arg(long, value_name = "NAME", requires = "ptx")]
    kernel: Option<String>,
    /// Into a file instead of to stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Where kernels run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum On {
    /// On the CPU
    Cpu,
    /// On the GPU
    Gpu,
    /// Where the cost model says, for each launch
    Auto,
}

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    file: PathBuf,
    /// Where kernels run; without it as GPU_TARGET says
    #[arg(long, value_enum)]
    on: Option<On>,
    /// The kernel of a program without statements; needed where it has several
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// A value by name: a number, `[1,2,3]`, zeros:N, iota:N, random:N or @file
    #[arg(long = "arg", value_name = "NAME=VALUE")]
    args: Vec<String>,
    /// Threads of the kernel
    #[arg(long, value_name = "N")]
    elements: Option<u64>,
    /// Folder of the files that READ_FILE and WRITE_FILE name
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    directory: PathBuf,
    /// Writes an array to a file afterwards
    #[arg(long = "save", value_name = "NAME=FILE")]
    save: Vec<String>,
    /// As JSON, with every array
    #[arg(long)]
    json: bool,
}

/// `bench`.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    file: PathBuf,
    /// Elements of arrays that --arg does not give
    #[arg(long, value_name = "N", default_value_t = 1 << 20)]
    size: u64,
    /// One kernel only
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// As for run
    #[arg(long = "arg", value_name = "NAME=VALUE")]
    args: Vec<String>,
    /// Runs of which the median counts
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Runs a subcommand.
pub(crate) fn execute(command: Command) -> Result<ExitCode, String> {
    match command {
        Command::Check { file, json } => check(&file, json),
        Command::Emit(emit) => write_out(&emit),
        Command::Run(run) => run::run(&run),
        Command::Bench(bench) => bench::bench(&bench),
    }
}

fn read(file: &Path) -> Result<String, String> {
    let limit = Options::default().max_text as u64;
    let shown = file.display();
    let size = std::fs::metadata(file).map_err(|error| format!("{shown}: {error}"))?.len();
    if size > limit {
        return Err(format!("{shown} has {size} bytes; a program has at most {limit}"));
    }
    std::fs::read_to_string(file).map_err(|error| format!("{shown}: {error}"))
}

fn render(found: &[Diagnostic], file: &Path, text: &str) -> String {
    found.iter().map(|diagnostic| diagnostic.render(&file.display().to_string(), text)).collect()
}

/// The compiled file; what is wrong with it, and what will be slow, goes to stderr.
fn load(file: &Path) -> Result<Option<(String, Program)>, String> {
    let text = read(file)?;
    match compile(&text, &Options::default()) {
        Ok(program) => {
            eprint!("{}", render(program.warnings(), file, &text));
            Ok(Some((text, program)))
        }
        Err(found) => {
            eprint!("{}", render(&found, file, &text));
            Ok(None)
        }
    }
}

fn check(file: &Path, json: bool) -> Result<ExitCode, String> {
    let text = read(file)?;
    let compiled = compile(&text, &Options::default());
    let found = match &compiled {
        Ok(program) => program.warnings(),
        Err(found) => found,
    };
    if json {
        println!("{}", to_json(found));
    } else {
        print!("{}", render(found, file, &text));
        let count = |severity| found.iter().filter(|diagnostic| diagnostic.severity == severity).count();
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        match &compiled {
            Ok(program) => println!(
                "{}: {} kernels, {} statements, {warnings} warnings",
                file.display(),
                program.kernels().len(),
                program.statements().len()
            ),
            Err(_) => println!("{}: {errors} errors", file.display()),
        }
    }
    Ok(if compiled.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write_out(emit: &Emit) -> Result<ExitCode, String> {
    let Some((_, program)) = load(&emit.file)? else { return Ok(ExitCode::FAILURE) };
    let out = if emit.cuda {
        emit_cuda(&program)
    } else {
        let wanted = |name: &str| emit.kernel.as_deref().is_none_or(|kernel| kernel == name);
        let kernels: Vec<_> = program.kernels().iter().filter(|kernel| wanted(kernel.name())).collect();
        if kernels.is_empty() {
            return Err(format!("{} has no such kernel", emit.file.display()));
        }
        if kernels.len() > 1 && emit.output.is_some() {
            return Err("each kernel is a module of its own; name one with --kernel".to_owned());
        }
        kernels.iter().map(|kernel| kernel.ptx().ptx.clone()).collect()
    };
    match &emit.output {
        Some(path) => std::fs::write(path, out).map_err(|error| format!("{}: {error}", path.display()))?,
        None => print!("{out}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// `pxctl gpu-test`: one request of the stub protocol.
pub(crate) fn gpu_test(command: &str) -> Result<ExitCode, String> {
    let cmd = match command {
        "nop" => 0,
        "vector_add" => 1,
        "status" => 2,
        // The device refuses it, not this program.
        _ => u16::MAX,
    };
    let response =
        Library::open()?.command(&Request { cmd, id: std::process::id(), ..Request::default() })?;
    if response.status == 0 {
        println!("{}", response.text());
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("Error: {}", response.text());
    Ok(ExitCode::FAILURE)
}
