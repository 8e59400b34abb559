//! `pxctl vm`: VMs and their rights.

use crate::units::{bytes, count, fit, short_bytes};
use crate::{Failure, act, json};
use clap::Subcommand;
use pxos_client::Control;
use pxos_protocol::admin::{Request, Vm};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Lists all VMs
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Shows one VM with all its limits
    Show {
        /// Its name
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Makes a VM that lasts until the server ends
    Create {
        /// Its name
        name: String,
        /// How it is recognised: cid=3, socket=/path, token=TEXT or certificate=NAME
        #[arg(value_parser = pair)]
        identity: (String, Value),
        /// Limits, as for set
        #[arg(value_parser = pair, value_name = "KEY=VALUE")]
        set: Vec<(String, Value)>,
    },
    /// Changes limits, all of them or none: weight=300 gpu.max=25% gpus=0,1 memory.min=2G memory.max=8G tier=latency policy=deny …
    Set {
        /// Its name
        name: String,
        /// Keys as in the configuration, with dots or underscores
        #[arg(value_parser = pair, value_name = "KEY=VALUE", required = true)]
        set: Vec<(String, Value)>,
    },
    /// Lets a VM begin no more sessions; those that stand go on
    Drain {
        /// Its name
        name: String,
        /// Lets it begin sessions again
        #[arg(long)]
        undo: bool,
    },
    /// Ends all sessions of a VM
    Kill {
        /// Its name
        name: String,
    },
    /// Ends all sessions of a VM and forgets it
    Destroy {
        /// Its name
        name: String,
    },
}

fn pair(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("'{text}' is not KEY=VALUE"))?;
    Ok((key.trim().to_owned(), Value::from(value.trim())))
}

/// Does it.
pub(crate) fn run(path: &Path, command: Command) -> Result<(), Failure> {
    let request = match command {
        Command::List { json: as_json } => {
            let vms = Control::connect(path)?.vms()?;
            if as_json {
                json(&vms);
            } else {
                print!("{}", table(&vms));
            }
            return Ok(());
        }
        Command::Show { name, json: as_json } => {
            let vm = Control::connect(path)?.vm(&name)?;
            if as_json {
                json(&vm);
            } else {
                print!("{}", details(&vm));
            }
            return Ok(());
        }
        Command::Create { name, identity, set } => {
            Request::VmCreate { name, identity: [identity].into(), set: map(set)? }
        }
        Command::Set { name, set } => Request::VmSet { name, set: map(set)?, check: false },
        Command::Drain { name, undo } => Request::VmDrain { name, undo },
        Command::Kill { name } => Request::VmKill { name },
        Command::Destroy { name } => Request::VmDestroy { name },
    };
    act(path, &request)
}

fn map(pairs: Vec<(String, Value)>) -> Result<BTreeMap<String, Value>, Failure> {
    let mut map = BTreeMap::new();
    for (key, value) in pairs {
        if map.insert(key.clone(), value).is_some() {
            return Err(Failure::Other(format!("{key} is set twice")));
        }
    }
    Ok(map)
}

fn or_max<T: ToString>(limit: Option<T>) -> String {
    limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string())
}

/// The list, in 80 columns.
fn table(vms: &[Vm]) -> String {
    if vms.is_empty() {
        return "no VMs\n".to_owned();
    }
    let mut out = format!(
        "{:<16} {:>4} {:>6} {:>7} {:<7} {:<8} {:>6} {:>6} {:>6} {}\n",
        "VM", "PROC", "WEIGHT", "GPU.MAX", "TIER", "GPUS", "MEMORY", "MIN", "MAX", "STATE"
    );
    for vm in vms {
        let limits = &vm.limits;
        let state = match (vm.policy.as_str(), vm.draining) {
            ("deny", _) => "deny",
            (_, true) => "drain",
            _ => "ok",
        };
        let _ = writeln!(
            out,
            "{:<16} {:>4} {:>6} {:>7} {:<7} {:<8} {:>6} {:>6} {:>6} {state}",
            fit(&vm.name, 16),
            vm.sessions,
            limits.weight,
            percentage(&limits.gpu_max),
            limits.tier,
            fit(&vm.gpus, 8),
            short_bytes(vm.memory.charged),
            if limits.memory_min == 0 { "-".to_owned() } else { short_bytes(limits.memory_min) },
            limits.memory_max.map_or_else(|| "max".to_owned(), short_bytes),
        );
    }
    out
}

/// A cap of `QUOTA PERIOD` as a part of a device: `25%`, `12.5%`, `max`.
fn percentage(cap: &str) -> String {
    let part = |text: Option<&str>| text.and_then(|number| number.parse::<f64>().ok());
    let mut words = cap.split_whitespace();
    match (part(words.next()), part(words.next())) {
        (Some(quota), Some(period)) if period > 0.0 => {
            let percent = (quota * 1000.0 / period).round() / 10.0;
            format!("{percent}%")
        }
        _ => "max".to_owned(),
    }
}

fn details(vm: &Vm) -> String {
    let limits = &vm.limits;
    let mut out = String::new();
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(out, "{key:<18}{value}");
    };
    line("name", &vm.name);
    line("recognised by", vm.identity.as_deref().unwrap_or("nothing: no rule names it"));
    line("rights from", &vm.origin);
    line("policy", if vm.draining { "allow, but drained" } else { &vm.policy });
    line("weight", &limits.weight.to_string());
    line("gpu.max", &limits.gpu_max);
    line("tier", &limits.tier);
    line("class", &format!("{} ({})", vm.class, vm.class_reason));
    line("gpus", &vm.gpus);
    let owed =
        if vm.memory.owed > 0 { format!(", {} of it owed", bytes(vm.memory.owed)) } else { String::new() };
    line("memory.min", &format!("{}{owed}", bytes(limits.memory_min)));
    line("memory.max", &limits.memory_max.map_or_else(|| "max".to_owned(), bytes));
    line("max_processes", &or_max(limits.max_processes));
    line("max_streams", &or_max(limits.max_streams));
    line("unchecked", &limits.unchecked);
    line("latency_critical", &limits.latency_critical);
    line("processes", &vm.sessions.to_string());
    let kinds: Vec<String> = vm
        .memory
        .kinds
        .iter()
        .filter(|(_, held)| **held > 0)
        .map(|(kind, held)| format!("{kind} {}", bytes(*held)))
        .collect();
    line("memory", &[vec![bytes(vm.memory.charged)], kinds].concat().join(", "));
    line("contexts", &bytes(vm.memory.context));
    line("streams", &vm.streams.to_string());
    line("refused", &count(vm.refusals));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use pxos_protocol::admin::{Limits, Memory};

    fn vm() -> Vm {
        Vm {
            name: "a-virtual-machine-with-a-long-name".into(),
            limits: Limits {
                weight: 10_000,
                gpu_max: "1000000 1000000".into(),
                tier: "latency".into(),
                memory_min: 512 << 20,
                memory_max: Some(1023 << 20),
                ..Limits::default()
            },
            memory: Memory {
                charged: 1 << 30,
                kinds: [("linear".to_owned(), 1 << 30), ("pool".to_owned(), 0)].into(),
                ..Memory::default()
            },
            policy: "allow".into(),
            gpus: "0,1,2,3,4".into(),
            sessions: 1024,
            ..Vm::default()
        }
    }

    #[test]
    fn the_list_fits_a_terminal() {
        let text = table(&[vm(), Vm { draining: true, ..vm() }]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        for part in ["drain", " 100% ", "512M  1023M", "0,1,2,3…"] {
            assert!(text.contains(part), "'{part}' is not in\n{text}");
        }
        assert_eq!([percentage("max 100000"), percentage("12500 100000")], ["max", "12.5%"]);
        assert_eq!(table(&[]), "no VMs\n");
    }

    #[test]
    fn details_say_all_limits() {
        let text = details(&vm());
        assert!(text.contains("gpus              0,1,2,3,4\n"), "{text}");
        assert!(text.contains("memory.min        512 MiB\n"), "{text}");
        assert!(text.contains("memory.max        1023 MiB"), "{text}");
        assert!(text.contains("memory            1.0 GiB, linear 1.0 GiB\n"), "{text}");
        assert!(text.contains("max_streams       max"), "{text}");
    }

    #[test]
    fn pairs_are_pairs() {
        assert_eq!(pair("gpu.max=50000 100000"), Ok(("gpu.max".into(), Value::from("50000 100000"))));
        assert!(pair("weight").is_err());
        assert!(map(vec![pair("a=1").unwrap(), pair("a=2").unwrap()]).is_err());
    }
}
