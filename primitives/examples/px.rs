//! Compiles a program file and prints its findings, or the PTX or CUDA C that it becomes: `px FILE [ptx|cuda|json]`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program")]

use std::process::ExitCode;

use pxos_primitives::{Options, compile, emit_cuda, to_json};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), form) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: px FILE [ptx|cuda|json]");
        return ExitCode::from(2);
    };
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("{file}: {error}");
            return ExitCode::from(2);
        }
    };
    let json = form.as_deref() == Some("json");
    match compile(&text, &Options::default()) {
        Ok(program) => {
            if json {
                println!("{}", to_json(program.warnings()));
                return ExitCode::SUCCESS;
            }
            for found in program.warnings() {
                eprint!("{}", found.render(&file, &text));
            }
            if form.as_deref() == Some("ptx") {
                for kernel in program.kernels() {
                    println!("{}", kernel.ptx().ptx);
                }
            }
            if form.as_deref() == Some("cuda") {
                println!("{}", emit_cuda(&program));
            }
            ExitCode::SUCCESS
        }
        Err(found) => {
            if json {
                println!("{}", to_json(&found));
            } else {
                for found in &found {
                    eprint!("{}", found.render(&file, &text));
                }
            }
            ExitCode::FAILURE
        }
    }
}
