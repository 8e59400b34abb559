//! The host side of an emitted program: inputs, launches, verification, timing.

use std::fmt::Write as _;

use super::kernel::storage;
use crate::cpu::{CpuArg, CpuOptions};
use crate::intrinsics::{Number, Schedule, Source};
use crate::ir::{ArrayRef, Stmt, visit_statements};
use crate::plan::{Launch, Operand, Request};
use crate::program::{Kernel, hash};
use crate::types::{Element, ParamType};

/// Elements of an array, when the program's user names no number.
const ELEMENTS: usize = 1 << 16;
/// The side of matrices and images of that many elements.
const SIDE: usize = 1 << 8;

/// Whether a kernel's threads work alone, so that its body can run on the host one thread after another.
pub(super) fn threads_alone(kernel: &Kernel) -> bool {
    if !kernel.schedule.is_map() {
        return false;
    }
    let unit = &kernel.stages[0].unit;
    let mut alone = !unit.whole_blocks && unit.tables.is_empty();
    visit_statements(&unit.body, &mut |stmt| alone &= !matches!(stmt, Stmt::Atomic(_)));
    alone
}

/// The elements of each parameter and the value of each scalar, for the size that the program is made for.
fn shape(kernel: &Kernel) -> Vec<usize> {
    kernel
        .params
        .iter()
        .enumerate()
        .map(|(index, param)| match (&kernel.schedule, param.ty) {
            (Schedule::Aes { key, counter, .. }, _) if *key == index || *counter == Some(index) => 16,
            (Schedule::Sha256 { chunk: Number::Fixed(chunk), out, .. }, _) if *out == index => {
                ELEMENTS.div_ceil(usize::try_from(*chunk).unwrap_or(1)) * 32
            }
            (Schedule::Sha256 { out, .. }, _) if *out == index => ELEMENTS * 32,
            (_, ParamType::Array(_)) => ELEMENTS,
            (Schedule::Matmul { .. } | Schedule::Sha256 { .. }, _) => SIDE,
            (_, ParamType::Scalar(Element::Int | Element::Uint)) => match param.name.as_str() {
                "width" | "height" | "w" | "h" | "rows" | "columns" | "cols" | "m" | "k" => SIDE,
                _ => ELEMENTS,
            },
            (_, ParamType::Scalar(_)) => 2,
        })
        .collect()
}

/// A scalar's bits for a number.
#[expect(clippy::cast_precision_loss, reason = "numbers are sizes")]
fn scalar_bits(element: Element, value: usize) -> u64 {
    match element {
        Element::Float => u64::from((value as f32).to_bits()),
        Element::Double => (value as f64).to_bits(),
        Element::Half => u64::from(crate::arith::float_to_half(value as f32)),
        _ => value as u64,
    }
}

/// The next number of the rule that makes inputs; the C form is `px_next`.
fn next(state: &mut u32) -> u32 {
    *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    *state >> 8
}

/// An element of an input array; the C form is [`element_rule`].
#[expect(clippy::cast_precision_loss, reason = "the numbers are below 2^24")]
fn input(element: Element, state: &mut u32, out: &mut Vec<u8>) {
    let value = next(state);
    let small = (value % 2001) as f32 / 16.0 - 62.5;
    match element {
        Element::Byte => out.push(value.to_le_bytes()[0]),
        Element::Int => out.extend((value % 2001).cast_signed().wrapping_sub(1000).to_le_bytes()),
        Element::Uint | Element::Pixel => out.extend(value.wrapping_mul(257).to_le_bytes()),
        Element::Float => out.extend(small.to_le_bytes()),
        Element::Double => out.extend(f64::from(small).to_le_bytes()),
        Element::Half => out.extend(crate::arith::float_to_half(small).to_le_bytes()),
    }
}

fn element_rule(element: Element) -> &'static str {
    match element {
        Element::Byte => "(unsigned char)px_next()",
        Element::Int => "(int)(px_next() % 2001) - 1000",
        Element::Uint | Element::Pixel => "px_next() * 257u",
        Element::Float => "(float)(px_next() % 2001) / 16.f - 62.5f",
        Element::Double => "(double)((float)(px_next() % 2001) / 16.f - 62.5f)",
        Element::Half => "px_f2h((float)(px_next() % 2001) / 16.f - 62.5f)",
    }
}

/// What each array holds after a run on this machine's CPU: a checksum, or a reason why there is none.
fn expected(kernel: &Kernel, shape: &[usize]) -> Result<Vec<Option<u64>>, String> {
    let mut arrays: Vec<Vec<u8>> = Vec::new();
    for (index, param) in kernel.params.iter().enumerate() {
        let mut bytes = Vec::new();
        if let ParamType::Array(element) = param.ty {
            let mut state = u32::try_from(index).unwrap_or(0);
            for _ in 0..shape[index] {
                input(element, &mut state, &mut bytes);
            }
        }
        arrays.push(bytes);
    }
    let mut args: Vec<CpuArg<'_>> = kernel
        .params
        .iter()
        .zip(arrays.iter_mut())
        .zip(shape)
        .map(|((param, bytes), size)| match param.ty {
            ParamType::Array(_) => CpuArg::Array(bytes),
            ParamType::Scalar(element) => CpuArg::Scalar(scalar_bits(element, *size)),
        })
        .collect();
    // Emitting must not take as long as an endless program runs.
    let limit = Some(std::time::Duration::from_secs(20));
    kernel
        .run_on_cpu(&mut args, &CpuOptions { limit, ..CpuOptions::default() })
        .map_err(|error| error.to_string())?;
    Ok(kernel
        .params
        .iter()
        .zip(&arrays)
        .map(|(param, bytes)| matches!(param.ty, ParamType::Array(_)).then(|| hash(bytes)))
        .collect())
}

/// Arrays whose result depends on the order of additions.
fn sums_floats(kernel: &Kernel) -> Vec<bool> {
    let unit = &kernel.stages[0].unit;
    let mut found = vec![false; kernel.params.len()];
    visit_statements(&unit.body, &mut |stmt| {
        if let Stmt::Atomic(atomic) = stmt
            && let ArrayRef::Param(index) = atomic.array
            && matches!(unit.element(atomic.array), Element::Float | Element::Double)
        {
            found[index as usize] = true;
        }
    });
    found
}

/// The arguments of a launch as they are written.
fn arguments(kernel: &Kernel, launch: &Launch, threads: &str, prefix: &str, fault: &str) -> String {
    let stage = &kernel.stages[launch.stage];
    let mut list = Vec::new();
    for ((param, source), operand) in stage.unit.params.iter().zip(&stage.sources).zip(&launch.operands) {
        match (param.ty, source) {
            (ParamType::Array(_), Source::Param(index)) => {
                let name = &kernel.params[*index].name;
                list.push(format!("{prefix}{name}, (unsigned)size_{name}"));
            }
            (ParamType::Scalar(_), Source::Param(index)) => {
                list.push(format!("scalar_{}", kernel.params[*index].name));
            }
            (_, Source::Extra(_)) => list.push(crate::arith::int(operand.bits).to_string()),
        }
    }
    list.push(format!("{threads}, 0u, {fault}"));
    list.join(", ")
}

/// The function that tests one kernel.
pub(super) fn test(kernel: &Kernel, alone: bool) -> String {
    let name = kernel.name();
    let shape = shape(kernel);
    let mut out = format!("\nstatic int test_{name}(long elements) {{\n");
    let operands: Vec<Operand> = kernel
        .params
        .iter()
        .zip(&shape)
        .map(|(param, size)| match param.ty {
            ParamType::Array(_) => Operand { bits: 0, length: *size as u64 },
            ParamType::Scalar(element) => Operand { bits: scalar_bits(element, *size), length: 0 },
        })
        .collect();
    let launches = match kernel.launches(&operands, &Request::default()) {
        Ok(launches) => launches,
        Err(error) => {
            let _ = writeln!(out, "    printf(\"{name}: not run: {error}\\n\");\n    return 0;\n}}");
            return out;
        }
    };
    let sums = sums_floats(kernel);
    let checks = if alone { Ok(Vec::new()) } else { expected(kernel, &shape) };
    if alone {
        let _ = writeln!(out, "    if (elements <= 0) elements = {ELEMENTS};");
    } else {
        let _ = writeln!(out, "    if (elements > 0) printf(\"{name}: runs with {ELEMENTS} elements\\n\");");
    }
    prepare(&mut out, kernel, &shape, alone);
    out.push_str("    px_fault *d_fault, fault;\n    CHECK(cudaMalloc(&d_fault, sizeof fault));\n");
    out.push_str("    CHECK(cudaMemset(d_fault, 0, sizeof fault));\n");
    let run = run_function(kernel, &launches, alone);
    let _ = write!(
        out,
        "    auto run = [&]() {{\n{run}        CHECK(cudaGetLastError());\n    }};\n    run();\n"
    );
    out.push_str("    CHECK(cudaDeviceSynchronize());\n    CHECK(cudaMemcpy(&fault, d_fault, sizeof fault, cudaMemcpyDeviceToHost));\n");
    let _ = writeln!(
        out,
        "    if (fault.taken) {{ printf(\"{name}: line %u, thread %u: index %d of %u\\n\", fault.line, fault.thread, fault.index, fault.length); return 1; }}\n    int wrong = 0;"
    );
    verify(&mut out, kernel, &launches, alone, &checks, &sums);
    out.push_str("    cudaEvent_t start, stop;\n    CHECK(cudaEventCreate(&start));\n    CHECK(cudaEventCreate(&stop));\n");
    out.push_str("    const int repeats = 20;\n    CHECK(cudaEventRecord(start));\n    for (int i = 0; i < repeats; i++) run();\n");
    out.push_str("    CHECK(cudaEventRecord(stop));\n    CHECK(cudaEventSynchronize(stop));\n    float ms = 0;\n    CHECK(cudaEventElapsedTime(&ms, start, stop));\n");
    let _ =
        writeln!(out, "    printf(\"{name}: %s, %.4f ms\\n\", wrong ? \"WRONG\" : \"right\", ms / repeats);");
    for param in arrays(kernel) {
        let _ =
            writeln!(out, "    CHECK(cudaFree(d_{param}));\n    free(h_{param});\n    free(out_{param});");
    }
    out.push_str("    CHECK(cudaFree(d_fault));\n    CHECK(cudaEventDestroy(start));\n    CHECK(cudaEventDestroy(stop));\n    return wrong;\n}\n");
    out
}

fn arrays(kernel: &Kernel) -> impl Iterator<Item = &str> {
    kernel.params.iter().filter(|p| matches!(p.ty, ParamType::Array(_))).map(|p| p.name.as_str())
}

/// Inputs on the host and their copies on the device.
fn prepare(out: &mut String, kernel: &Kernel, shape: &[usize], alone: bool) {
    for (index, (param, size)) in kernel.params.iter().zip(shape).enumerate() {
        let name = &param.name;
        match param.ty {
            ParamType::Array(element) => {
                let ty = storage(element);
                let count = if alone { "(size_t)elements".to_owned() } else { size.to_string() };
                let _ = write!(
                    out,
                    "    const size_t size_{name} = {count}, bytes_{name} = size_{name} * sizeof({ty});\n    \
                     {ty} *h_{name} = ({ty} *)malloc(bytes_{name}), *out_{name} = ({ty} *)malloc(bytes_{name}), *d_{name};\n    \
                     px_state = {index};\n    for (size_t i = 0; i < size_{name}; i++) h_{name}[i] = {};\n    \
                     CHECK(cudaMalloc(&d_{name}, bytes_{name}));\n    \
                     CHECK(cudaMemcpy(d_{name}, h_{name}, bytes_{name}, cudaMemcpyHostToDevice));\n",
                    element_rule(element)
                );
            }
            ParamType::Scalar(element) => {
                let value = match element {
                    Element::Half => format!("px_f2h({size}.f)"),
                    Element::Int | Element::Uint if alone && *size == ELEMENTS => "elements".to_owned(),
                    _ => size.to_string(),
                };
                let _ = writeln!(out, "    const {0} scalar_{name} = ({0}){value};", storage(element));
            }
        }
    }
}

fn run_function(kernel: &Kernel, launches: &[Launch], alone: bool) -> String {
    let mut out = String::new();
    for launch in launches {
        let unit = &kernel.stages[launch.stage].unit;
        let (block, name) = (unit.block, &unit.name);
        if alone {
            let arguments = arguments(kernel, launch, "(unsigned)elements", "d_", "d_fault");
            let _ = writeln!(
                out,
                "        px_{name}<<<(unsigned)((elements + {}) / {block}), {block}>>>({arguments});",
                block - 1
            );
        } else {
            let threads = format!("{}u", launch.elements);
            let arguments = arguments(kernel, launch, &threads, "d_", "d_fault");
            let _ = writeln!(out, "        px_{name}<<<{}, {block}>>>({arguments});", launch.blocks(unit));
        }
    }
    out
}

fn verify(
    out: &mut String,
    kernel: &Kernel,
    launches: &[Launch],
    alone: bool,
    checks: &Result<Vec<Option<u64>>, String>,
    sums: &[bool],
) {
    for name in arrays(kernel) {
        let _ = writeln!(
            out,
            "    CHECK(cudaMemcpy(out_{name}, d_{name}, bytes_{name}, cudaMemcpyDeviceToHost));"
        );
    }
    if alone {
        let unit = &kernel.stages[0].unit;
        let block = unit.block;
        out.push_str("    memset(&fault, 0, sizeof fault);\n");
        if let Some(launch) = launches.first() {
            let arguments = arguments(kernel, launch, "(unsigned)elements", "h_", "&fault");
            let _ = writeln!(
                out,
                "    for (unsigned t = 0; t < (unsigned)elements; t++)\n        body_{}(t / {block}, t % {block}, (unsigned)((elements + {}) / {block}), {arguments});",
                unit.name,
                block - 1
            );
        }
        for param in &kernel.params {
            let ParamType::Array(element) = param.ty else { continue };
            let name = &param.name;
            // All NaNs are one.
            let nan = match element {
                Element::Float | Element::Double => {
                    format!(" && !(out_{name}[i] != out_{name}[i] && h_{name}[i] != h_{name}[i])")
                }
                _ => String::new(),
            };
            let _ = writeln!(
                out,
                "    for (size_t i = 0; i < size_{name}; i++)\n        if (memcmp(&out_{name}[i], &h_{name}[i], sizeof out_{name}[i]) != 0{nan}) {{ printf(\"{0}: {name}[%zu] differs\\n\", i); wrong = 1; break; }}",
                kernel.name()
            );
        }
        return;
    }
    match checks {
        Ok(checks) => {
            for (index, param) in kernel.params.iter().enumerate() {
                let name = &param.name;
                match checks[index] {
                    Some(_) if sums[index] => {
                        let _ =
                            writeln!(out, "    // {name} sums floats in no fixed order: it is not compared.");
                    }
                    Some(hash) => {
                        let _ = writeln!(
                            out,
                            "    if (px_hash(out_{name}, bytes_{name}) != {hash:#x}ull) {{ printf(\"{}: {name} differs\\n\"); wrong = 1; }}",
                            kernel.name()
                        );
                    }
                    None => {}
                }
            }
        }
        Err(reason) => {
            let reason = reason.replace(['"', '\\', '%'], "'");
            let _ = writeln!(out, "    printf(\"{}: not compared: {reason}\\n\");", kernel.name());
        }
    }
}
