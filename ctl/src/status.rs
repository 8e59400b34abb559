//! The status for people, in 80 columns.

use crate::units::{bytes, count, fit, seconds, wrap};
use pxos_protocol::admin::{Counters, Session, Status};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Columns of a terminal.
const WIDTH: usize = 80;
/// Columns of the words at the left.
const LABEL: usize = 10;

/// The status as text; with the functions that each session called where `calls`.
pub(crate) fn render(status: &Status, calls: bool) -> String {
    let mut out = String::new();
    let server = &status.server;
    let up = seconds(server.uptime);
    line(&mut out, "server", &format!("{} {}, up {up}, pid {}", server.software, server.state, server.pid));
    driver(&mut out, status);
    for device in &status.devices {
        let (major, minor) = device.compute_capability;
        let memory = bytes(device.total_memory);
        let mut text = format!("{}, sm_{major}{minor}, {memory}, {}", device.name, device.uuid);
        if !device.pci.is_empty() {
            let _ = write!(text, ", {}", device.pci);
        }
        if device.promised > 0 {
            let _ = write!(text, ", {} promised to VMs", bytes(device.promised));
        }
        line(&mut out, &format!("device {}", device.ordinal), &text);
    }
    for listener in &status.listeners {
        let text = match &listener.error {
            Some(error) => format!("{} CANNOT BE USED: {error}", listener.endpoint),
            None => format!("{}, {} connections", listener.endpoint, count(listener.accepted)),
        };
        line(&mut out, "listens", &text);
    }
    pool(&mut out, status);
    let totals = &status.totals;
    let text = format!(
        "{} sessions, {} probes, {} calls awaited and {} not, {} launches",
        count(totals.sessions),
        count(totals.probes),
        count(sum(status, |counters| counters.messages_sync).saturating_add(totals.messages_sync)),
        count(sum(status, |counters| counters.messages_async).saturating_add(totals.messages_async)),
        count(sum(status, |counters| counters.launches).saturating_add(totals.launches)),
    );
    line(&mut out, "so far", &text);
    if !totals.ended.is_empty() {
        line(&mut out, "ended", &pairs(&totals.ended));
    }
    if !totals.refused.is_empty() {
        line(&mut out, "refused", &pairs(&totals.refused));
    }
    sessions(&mut out, &status.sessions);
    for session in &status.sessions {
        details(&mut out, session, calls, status.devices.len() > 1);
    }
    out
}

fn driver(out: &mut String, status: &Status) {
    let driver = &status.driver;
    let Some(path) = &driver.path else {
        return line(out, "driver", &format!("{}: not ready yet", driver.configured));
    };
    let version = driver
        .version
        .map_or_else(String::new, |version| format!(", CUDA {}.{}", version / 1000, version % 1000 / 10));
    let software = if driver.software { ", on this CPU" } else { "" };
    line(out, "driver", &format!("{}{version}{software}", path.display()));
    if let Some(fallback) = &driver.fallback {
        line(out, "NO GPU", fallback);
    }
}

fn pool(out: &mut String, status: &Status) {
    let pool = &status.pool;
    let mut text = format!("{} of {} workers warm, {} held", pool.warm, pool.size, bytes(pool.memory));
    for (number, what) in [(pool.starting, "starting"), (pool.waiting, "guests waiting")] {
        if number > 0 {
            let _ = write!(text, ", {number} {what}");
        }
    }
    if pool.failures > 0 {
        let last = pool.last_failure.as_deref().unwrap_or("unknown");
        let _ = write!(text, ", {} failed, the last: {last}", pool.failures);
    }
    line(out, "pool", &text);
}

fn sessions(out: &mut String, sessions: &[Session]) {
    if sessions.is_empty() {
        out.push_str("\nno sessions\n");
        return;
    }
    let _ = writeln!(
        out,
        "\n{:>5}  {:<14} {:<14} {:>8} {:>9} {:>6} {:>6} {:>9}",
        "ID", "VM", "PROGRAM", "UP", "MEMORY", "SYNC", "ASYNC", "LAUNCHES"
    );
    for session in sessions {
        let counters = &session.counters;
        let _ = writeln!(
            out,
            "{:>5}  {:<14} {:<14} {:>8} {:>9} {:>6} {:>6} {:>9}",
            session.id,
            fit(&session.vm, 14),
            fit(&session.program, 14),
            seconds(session.uptime),
            bytes(counters.memory_used),
            count(counters.messages_sync),
            count(counters.messages_async),
            count(counters.launches)
        );
    }
}

/// What does not fit the table: who it is, what went wrong, what it called.
fn details(out: &mut String, session: &Session, calls: bool, several: bool) {
    let counters = &session.counters;
    let mut text = format!("pid {} at {}, worker {}", session.pid, session.peer, session.worker);
    if several && !session.gpus.is_empty() {
        let gpus: Vec<String> = session.gpus.iter().map(ToString::to_string).collect();
        let _ = write!(text, ", device {}", gpus.join(", "));
    }
    if counters.memory_limit > 0 {
        let _ = write!(text, ", memory limit {}", bytes(counters.memory_limit));
    }
    if let Some(audited) = session.audited {
        let _ = write!(text, ", {} as NVML says", bytes(audited));
    }
    for (number, what) in [
        (counters.faults, "faults"),
        (counters.decode_errors, "malformed frames"),
        (counters.unsupported_calls, "calls not carried"),
        (counters.errors, "errors"),
    ] {
        if number > 0 {
            let _ = write!(text, ", {} {what}", count(number));
        }
    }
    if let Some(error) = &counters.last_error {
        let name = error.name.clone().unwrap_or_else(|| error.result.to_string());
        let function = error.function.as_deref().unwrap_or("unknown");
        let _ = write!(text, ", last {name} from {function}");
    }
    out.push('\n');
    line(out, &format!("{:>5}", session.id), &text);
    if !calls {
        return;
    }
    let mut called: Vec<(&String, &u64)> = counters.calls.iter().collect();
    called.sort_by_key(|(name, calls)| (std::cmp::Reverse(**calls), (*name).clone()));
    for (name, calls) in called {
        let awaited = counters.awaited.get(name).copied().unwrap_or(0);
        let awaited = if awaited > 0 { format!(", {} awaited", count(awaited)) } else { String::new() };
        let _ = writeln!(out, "{:>LABEL$}{:>8}  {name}{awaited}", "", count(*calls));
    }
}

fn sum(status: &Status, of: impl Fn(&Counters) -> u64) -> u64 {
    status.sessions.iter().map(|session| of(&session.counters)).fold(0, u64::saturating_add)
}

fn pairs(counts: &BTreeMap<String, u64>) -> String {
    counts.iter().map(|(name, number)| format!("{name} {}", count(*number))).collect::<Vec<_>>().join(", ")
}

/// A label and text beside it, wrapped.
fn line(out: &mut String, label: &str, text: &str) {
    let mut label = label;
    for line in wrap(text, WIDTH - LABEL) {
        let _ = writeln!(out, "{label:<LABEL$}{line}");
        label = "";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pxos_protocol::admin::{Device, Driver, LastError, Listener, Pool, Server, Totals};

    fn status() -> Status {
        let counters = Counters {
            memory_used: 3 << 29,
            memory_limit: 8 << 30,
            messages_sync: 1234,
            messages_async: 56_789,
            launches: 44_000,
            errors: 3,
            last_error: Some(LastError {
                result: 2,
                name: Some("CUDA_ERROR_OUT_OF_MEMORY".into()),
                function: Some("cuMemAlloc_v2".into()),
            }),
            calls: [("cuLaunchKernel".to_owned(), 44_000), ("cuMemAlloc_v2".to_owned(), 12)].into(),
            awaited: [("cuMemAlloc_v2".to_owned(), 12)].into(),
            ..Counters::default()
        };
        Status {
            server: Server {
                software: "0.1.0".into(),
                wire: 1,
                fingerprint: "0".into(),
                pid: 4711,
                state: "running".into(),
                started: 0,
                uptime: 7260,
                config: None,
                advisor: Default::default(),
            },
            driver: Driver {
                configured: "auto".into(),
                path: Some("/usr/lib/pxos/libpxsoft.so".into()),
                version: Some(13000),
                software: true,
                fallback: Some("libcuda.so.1: cannot open shared object file: No such file or directory, which is a long story".into()),
            },
            devices: vec![Device {
                ordinal: 0,
                name: "NVIDIA H200".into(),
                uuid: "GPU-5f6a5f6a-5f6a-5f6a-5f6a-5f6a5f6a5f6a".into(),
                pci: "0000:1B:00.0".into(),
                total_memory: 150_120_000_000,
                promised: 2 << 30,
                compute_capability: (9, 0),
            }],
            listeners: vec![Listener { endpoint: "vsock:any:9700".into(), accepted: 12, error: Some("no device".into()) }],
            pool: Pool { size: 1, warm: 1, starting: 0, waiting: 2, memory: 527 << 20, failures: 0, last_failure: None },
            sessions: vec![Session {
                id: 12,
                vm: "a-virtual-machine-of-some-name".into(),
                program: "a_program_with_a_long_name".into(),
                pid: 4242,
                shared_memory: "memfd".into(),
                peer: "unix:/run/vm/some-directory/some-other.sock pid 12 uid 0".into(),
                software: "0.1.0".into(),
                worker: 4712,
                started: 0,
                uptime: 61,
                counters,
                usage: Default::default(),
                gpus: vec![0],
                audited: None,
            }],
            totals: Totals { refused: [("version".to_owned(), 3)].into(), ..Totals::default() },
        }
    }

    #[test]
    fn it_fits_a_terminal_and_says_what_matters() {
        let text = render(&status(), true);
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{} columns: {line}", line.chars().count());
        }
        for wanted in [
            "0.1.0 running, up 2 h 01",
            "CUDA 13.0, on this CPU",
            "NO GPU    libcuda.so.1: cannot open",
            "NVIDIA H200, sm_90, 140 GiB",
            "2.0 GiB promised to VMs",
            "CANNOT BE USED",
            "527 MiB held, 2 guests waiting",
            "1.5 GiB",
            "56.8k",
            "CUDA_ERROR_OUT_OF_MEMORY from cuMemAlloc_v2",
            "12  cuMemAlloc_v2, 12 awaited",
            "version 3",
        ] {
            assert!(text.contains(wanted), "'{wanted}' is not in:\n{text}");
        }
        let (launch, alloc) =
            (text.find("44.0k  cuLaunchKernel").unwrap(), text.find("12  cuMemAlloc_v2").unwrap());
        assert!(launch < alloc, "most often called first");
        assert!(!render(&status(), false).contains("cuLaunchKernel"));
    }
}
