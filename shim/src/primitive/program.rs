//! Programs that the worker has compiled, by their text.

use super::{Failure, Outcome};
use crate::lock;
use crate::session::Session;
use pxos_protocol::control::decode;
use pxos_protocol::frame::control;
use pxos_protocol::primitive::{Compilation, Kernel, MAX_TEXT, Program};
use pxos_protocol::types::CUresult;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

/// Texts that are remembered; beyond it all are forgotten, and the worker still knows them.
const MAX_KNOWN: usize = 256;

static KNOWN: Mutex<Option<HashMap<String, Arc<Program>>>> = Mutex::new(None);

/// Compiles a text, unless it is known.
pub(super) fn compile(session: &Session, text: &[u8]) -> Outcome<Arc<Program>> {
    let refused = |message: String| Failure::new(CUresult::ERROR_INVALID_SOURCE, message);
    if text.len() > MAX_TEXT {
        return Err(refused(format!("the program has {} bytes; at most {MAX_TEXT} are allowed", text.len())));
    }
    let text = std::str::from_utf8(text)
        .map_err(|error| refused(format!("the program is not UTF-8 after {} bytes", error.valid_up_to())))?;
    let mut known = lock(&KNOWN);
    let table = known.get_or_insert_default();
    if let Some(program) = table.get(text) {
        return Ok(Arc::clone(program));
    }
    let reply = session.call(control::COMPILE_PRIMITIVE, |writer| writer.put_bytes(text.as_bytes()))?;
    let compilation: Compilation = decode(reply.reader().rest())
        .map_err(|error| Failure::new(CUresult::ERROR_UNKNOWN, error.to_string()))?;
    match compilation {
        Compilation::Compiled(program) => {
            if table.len() >= MAX_KNOWN {
                table.clear();
            }
            let program = Arc::new(program);
            table.insert(text.to_owned(), Arc::clone(&program));
            Ok(program)
        }
        Compilation::Refused(findings) => {
            Err(Failure { json: findings.json, ..refused(findings.text.trim_end().to_owned()) })
        }
    }
}

/// Forgets a text that the worker no longer knows.
pub(super) fn forget(text: &[u8]) {
    let mut known = lock(&KNOWN);
    if let (Some(table), Ok(text)) = (known.as_mut(), std::str::from_utf8(text)) {
        table.remove(text);
    }
}

/// The kernel of that name; without one the only kernel.
pub(super) fn kernel<'a>(program: &'a Program, name: Option<&str>) -> Outcome<(usize, &'a Kernel)> {
    let names = || program.kernels.iter().map(|kernel| kernel.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, &program.kernels[..]) {
        (None, [kernel]) => Ok((0, kernel)),
        (None, []) => Err(Failure::invalid("the program has no kernel")),
        (None, _) => Err(Failure::invalid(format!("the program has several kernels: {}; which?", names()))),
        (Some(name), kernels) => {
            kernels.iter().enumerate().find(|(_, kernel)| kernel.name == name).ok_or_else(|| {
                Failure::invalid(format!("the program has no kernel `{name}`; it has {}", names()))
            })
        }
    }
}

/// The program as JSON. Names of the language are letters, digits and `_`, so that nothing has to be escaped.
pub(super) fn to_json(program: &Program) -> String {
    let mut out = format!("{{\"program\":{},\"kernels\":[", program.number);
    for (index, kernel) in program.kernels.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(out, "{comma}{{\"name\":\"{}\",\"params\":[", kernel.name);
        for (index, param) in kernel.params.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(
                out,
                "{comma}{{\"name\":\"{}\",\"type\":\"{}\",\"array\":{},\"read\":{},\"written\":{}}}",
                param.name,
                param.element.name(),
                param.array,
                param.read,
                param.written
            );
        }
        let _ = write!(out, "],\"divisible\":{}}}", kernel.divisible);
    }
    let _ = write!(out, "],\"distribute\":{},\"warnings\":{}}}", program.distribute, program.warnings.json);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use pxos_protocol::primitive::{Element, Findings, Param};

    fn program(names: &[&str]) -> Program {
        let kernels = names
            .iter()
            .map(|name| Kernel {
                name: (*name).to_owned(),
                params: vec![Param {
                    name: "a".to_owned(),
                    element: Element::Float,
                    array: true,
                    read: true,
                    written: false,
                    elementwise: true,
                }],
                divisible: true,
            })
            .collect();
        let warnings = Findings { text: String::new(), json: "[]".to_owned() };
        Program { number: 3, kernels, distribute: false, warnings }
    }

    #[test]
    fn one_kernel_needs_no_name_and_several_do() {
        assert_eq!(kernel(&program(&["k"]), None).unwrap().0, 0);
        assert_eq!(kernel(&program(&["k", "l"]), Some("l")).unwrap().0, 1);
        assert!(kernel(&program(&["k", "l"]), None).unwrap_err().message.contains("k, l"));
        assert!(kernel(&program(&["k"]), Some("x")).unwrap_err().message.contains("no kernel `x`"));
    }

    #[test]
    fn a_program_is_described_in_json() {
        assert_eq!(
            to_json(&program(&["k"])),
            "{\"program\":3,\"kernels\":[{\"name\":\"k\",\"params\":[{\"name\":\"a\",\"type\":\"float\",\"array\":true,\
             \"read\":true,\"written\":false}],\"divisible\":true}],\"distribute\":false,\"warnings\":[]}"
        );
    }
}
