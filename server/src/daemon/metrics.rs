//! Metrics for Prometheus: one small listener that answers `GET /metrics` with everything at that moment.
//!
//! [`METRICS`] declares each metric once; a scrape reads the same numbers as the status does. Nothing runs between
//! scrapes. Connections are answered one after the other, each within [`PATIENCE`]: who scrapes slowly holds up only
//! others who scrape.

use super::accounts::{self, Sums, nanos};
use super::{Daemon, spawn_thread, usage};
use crate::quota;
use crate::vm::registry::Vm;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use pxos_protocol::admin::Usage;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tracing::{info, warn};

/// How long a scrape may take to ask, and to take its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest request: a scraper says little.
const REQUEST: u64 = 8 << 10;

/// Labels of one line.
type Labels = Vec<(&'static str, String)>;

/// A metric: its name (without the prefix and a counter's `_total`), what it says, and how a value is had.
#[derive(Clone, Copy)]
struct Metric {
    name: &'static str,
    help: &'static str,
    of: Value,
}

#[derive(Clone, Copy)]
enum Value {
    /// Grows, of a VM since the daemon knows it.
    VmCounter(fn(&Scraped) -> f64),
    /// Of a VM now.
    VmGauge(fn(&Scraped) -> f64),
    /// Grows, by a direction.
    VmDirections(fn(&Scraped) -> [u64; 2]),
    /// Of a VM now, by the kind of memory.
    VmMemory,
    /// Waits of a VM by length.
    VmWaits,
    /// Grows, of a session while it stands.
    SessionCounter(fn(&Sums) -> f64),
    /// Grows, by a direction, of a session while it stands.
    SessionDirections(fn(&Sums) -> [u64; 2]),
    /// Of a session now.
    SessionGauge(fn(&quota::Usage, &Usage) -> f64),
    /// Of a session now, by the kind of memory.
    SessionMemory,
    /// Seconds that a session has waited.
    SessionWait,
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has floating point numbers only")]
fn number(value: u64) -> f64 {
    value as f64
}

const fn metric(name: &'static str, help: &'static str, of: Value) -> Metric {
    Metric { name, help, of }
}

/// Every metric.
const METRICS: &[Metric] = &[
    metric("vm_gpu_seconds", "Device time", Value::VmCounter(|vm| nanos(vm.sums.gpu_nanos))),
    metric("vm_gpu_share", "Fraction of device time since the last look", Value::VmGauge(|vm| vm.share)),
    metric("vm_lease_wait_seconds", "Waits for a turn", Value::VmWaits),
    metric("vm_leases", "Turns", Value::VmCounter(|vm| number(vm.usage.leases))),
    metric("vm_memory_bytes", "Device memory by kind", Value::VmMemory),
    metric(
        "vm_memory_limit_bytes",
        "Device memory that may be held, 0 for no limit",
        Value::VmGauge(|vm| number(vm.limit)),
    ),
    metric(
        "vm_memory_min_bytes",
        "Device memory that other VMs cannot take",
        Value::VmGauge(|vm| number(vm.minimum)),
    ),
    metric("vm_launches", "Kernel and graph launches", Value::VmCounter(|vm| number(vm.sums.launches))),
    metric("vm_copied_bytes", "Bytes copied, by direction", Value::VmDirections(|vm| vm.sums.copied)),
    metric("vm_faults", "Broken contexts", Value::VmCounter(|vm| number(vm.sums.faults))),
    metric(
        "vm_quota_refusals",
        "Allocations and streams refused for a quota",
        Value::VmCounter(|vm| number(vm.sums.refusals)),
    ),
    metric(
        "vm_decode_errors",
        "Frames that were not what they claimed",
        Value::VmCounter(|vm| number(vm.sums.decode_errors)),
    ),
    metric("vm_processes", "Guest processes with a session", Value::VmGauge(|vm| number(vm.processes))),
    metric("process_gpu_seconds", "Device time", Value::SessionCounter(|sums| nanos(sums.gpu_nanos))),
    metric(
        "process_launches",
        "Kernel and graph launches",
        Value::SessionCounter(|sums| number(sums.launches)),
    ),
    metric("process_memory_bytes", "Device memory by kind", Value::SessionMemory),
    metric(
        "process_copied_bytes",
        "Bytes copied, by direction",
        Value::SessionDirections(|sums| sums.copied),
    ),
    metric(
        "process_queue",
        "Commands in flight, where they are measured",
        Value::SessionGauge(|_, usage| number(usage.queue)),
    ),
    metric("process_lease_wait_seconds", "Time waited for turns", Value::SessionWait),
    metric("process_faults", "Broken contexts", Value::SessionCounter(|sums| number(sums.faults))),
    metric(
        "process_quota_refusals",
        "Allocations and streams refused for a quota",
        Value::SessionCounter(|sums| number(sums.refusals)),
    ),
    metric(
        "process_decode_errors",
        "Frames that were not what they claimed",
        Value::SessionCounter(|sums| number(sums.decode_errors)),
    ),
];

/// A VM at a scrape.
struct Scraped {
    name: String,
    sums: Sums,
    usage: Usage,
    share: f64,
    held: quota::Usage,
    limit: u64,
    minimum: u64,
    processes: u64,
}

/// A session at a scrape.
struct Process {
    labels: Labels,
    sums: Sums,
    usage: Usage,
    held: quota::Usage,
}

/// What a scrape reads.
struct Source(Weak<Daemon>);

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

impl Collector for Source {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(daemon) = self.0.upgrade() else { return Ok(()) };
        let (vms, processes) = scrape(&daemon);
        encode_all(encoder, &vms, &processes)
    }
}

fn scrape(daemon: &Arc<Daemon>) -> (Vec<Scraped>, Vec<Process>) {
    let vm = |vm: &Arc<Vm>| {
        let seen = accounts::look(daemon, vm);
        Scraped {
            name: vm.name.clone(),
            sums: seen.sums,
            usage: usage::of_vm(daemon, vm),
            share: seen.rates.share,
            held: vm.quota.total(),
            limit: vm.limits().memory_max.unwrap_or(0),
            minimum: vm.limits().memory_min,
            processes: daemon.sessions.of_vm(vm) as u64,
        }
    };
    let vms = daemon.vms.all().iter().map(vm).collect();
    let processes = daemon.sessions.map(|id, session| Process {
        labels: vec![
            ("vm", session.vm.name.clone()),
            ("session", id.to_string()),
            ("program", session.program.clone()),
        ],
        sums: accounts::of_session(daemon, id, session),
        usage: usage::of_session(daemon, id),
        held: session.vm.quota.of(session.slot),
    });
    (vms, processes)
}

fn encode_all(mut encoder: DescriptorEncoder<'_>, vms: &[Scraped], processes: &[Process]) -> fmt::Result {
    for metric in METRICS {
        let kind = match metric.of {
            Value::VmCounter(_)
            | Value::VmDirections(_)
            | Value::SessionCounter(_)
            | Value::SessionDirections(_)
            | Value::SessionWait => MetricType::Counter,
            Value::VmGauge(_) | Value::VmMemory | Value::SessionGauge(_) | Value::SessionMemory => {
                MetricType::Gauge
            }
            Value::VmWaits => MetricType::Histogram,
        };
        let mut lines = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
        for vm in vms {
            encode_vm(&mut lines, metric.of, vm)?;
        }
        for process in processes {
            match metric.of {
                Value::SessionCounter(of) => counter(&mut lines, &process.labels, of(&process.sums))?,
                Value::SessionGauge(of) => {
                    gauge(&mut lines, &process.labels, of(&process.held, &process.usage))?;
                }
                Value::SessionDirections(of) => {
                    directions(&mut lines, of(&process.sums), |more| with(&process.labels, more))?;
                }
                Value::SessionWait => {
                    counter(&mut lines, &process.labels, nanos(process.usage.wait_nanos))?;
                }
                Value::SessionMemory => {
                    memory(&mut lines, &process.held, |more| with(&process.labels, more))?;
                }
                Value::VmCounter(_)
                | Value::VmGauge(_)
                | Value::VmDirections(_)
                | Value::VmMemory
                | Value::VmWaits => {}
            }
        }
    }
    Ok(())
}

/// Labels, and one more.
fn with(labels: &Labels, (key, value): (&'static str, &str)) -> Labels {
    labels.iter().cloned().chain([(key, value.to_owned())]).collect()
}

/// Bytes in both directions.
fn directions(
    lines: &mut MetricEncoder<'_>,
    [to, from]: [u64; 2],
    labels: impl Fn((&'static str, &str)) -> Labels,
) -> fmt::Result {
    counter(lines, &labels(("direction", "to_device")), number(to))?;
    counter(lines, &labels(("direction", "to_host")), number(from))
}

/// Bytes of each kind, and the overhead of contexts.
fn memory(
    lines: &mut MetricEncoder<'_>,
    held: &quota::Usage,
    labels: impl Fn((&'static str, &str)) -> Labels,
) -> fmt::Result {
    for (kind, bytes) in accounts::kinds(held) {
        gauge(lines, &labels(("kind", &kind)), number(bytes))?;
    }
    gauge(lines, &labels(("kind", "context")), number(held.context))
}

fn encode_vm(lines: &mut MetricEncoder<'_>, value: Value, vm: &Scraped) -> fmt::Result {
    let labels = vec![("vm", vm.name.clone())];
    match value {
        Value::VmCounter(of) => counter(lines, &labels, of(vm)),
        Value::VmGauge(of) => gauge(lines, &labels, of(vm)),
        Value::VmDirections(of) => directions(lines, of(vm), |more| with(&labels, more)),
        Value::VmMemory => memory(lines, &vm.held, |more| with(&labels, more)),
        Value::VmWaits => {
            let waits = &vm.usage.waits;
            // Entry n counts waits below 2^n microseconds; the last one has no bound.
            let bound = |index: usize| {
                if index + 1 == waits.len() {
                    f64::INFINITY
                } else {
                    2f64.powi(i32::try_from(index).unwrap_or(0)) / 1e6
                }
            };
            let buckets: Vec<(f64, u64)> =
                waits.iter().enumerate().map(|(index, count)| (bound(index), *count)).collect();
            let count = waits.iter().fold(0, |sum: u64, more| sum.saturating_add(*more));
            lines.encode_family(&labels)?.encode_histogram::<Labels>(
                nanos(vm.usage.wait_nanos),
                count,
                &buckets,
                None,
            )
        }
        Value::SessionCounter(_)
        | Value::SessionDirections(_)
        | Value::SessionGauge(_)
        | Value::SessionMemory
        | Value::SessionWait => Ok(()),
    }
}

fn counter(lines: &mut MetricEncoder<'_>, labels: &Labels, value: f64) -> fmt::Result {
    lines.encode_family(labels)?.encode_counter::<Labels, f64, f64>(&value, None)
}

fn gauge(lines: &mut MetricEncoder<'_>, labels: &Labels, value: f64) -> fmt::Result {
    lines.encode_family(labels)?.encode_gauge(&value)
}

/// Serves metrics at `address` as long as the daemon lives.
///
/// # Errors
/// The operating system's.
pub(super) fn serve(daemon: &Arc<Daemon>, address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    let mut registry = Registry::with_prefix("pxos");
    registry.register_collector(Box::new(Source(Arc::downgrade(daemon))));
    info!(address = %listener.local_addr()?, "metrics are served");
    spawn_thread("metrics".into(), move || {
        for stream in listener.incoming() {
            match stream {
                Ok(stream) => {
                    let _ = answer(&stream, &registry);
                }
                Err(error) => {
                    warn!(%error, "a scrape cannot be accepted");
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        }
    })
    .map(drop)
}

fn answer(mut stream: &TcpStream, registry: &Registry) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.take(REQUEST));
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut words = request.split_whitespace();
    let (status, body) = match (words.next(), words.next()) {
        (Some("GET"), Some("/metrics")) => {
            let mut body = String::new();
            text::encode(&mut body, registry).map_err(io::Error::other)?;
            ("200 OK", body)
        }
        (Some("GET"), Some(_)) => ("404 Not Found", "metrics are at /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "GET /metrics\n".to_owned()),
    };
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fixed;

    /// A VM and a process of which every number is another one than zero.
    impl Collector for Fixed {
        fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
            let sums = Sums {
                gpu_nanos: 1_500_000_000,
                memory_byte_seconds: 1.0,
                launches: 11,
                copied: [12, 13],
                wire: [14, 15],
                refusals: 16,
                faults: 17,
                decode_errors: 18,
                synchronisations: 21,
            };
            let held =
                quota::Usage { used: 31, peak: 32, context: 33, streams: 34, refusals: 35, kinds: [36; 6] };
            let usage = Usage {
                wait_nanos: 3_000_000,
                leases: 41,
                queue: 42,
                waits: vec![0, 1, 2, 3],
                ..Usage::default()
            };
            let vm = Scraped {
                name: "red\"\n".into(),
                sums: sums.clone(),
                usage: usage.clone(),
                share: 0.5,
                held: held.clone(),
                limit: 51,
                minimum: 53,
                processes: 52,
            };
            let labels = vec![("vm", "red".to_owned()), ("session", "7".into()), ("program", "a\"b".into())];
            encode_all(encoder, &[vm], &[Process { labels, sums, usage, held }])
        }
    }

    #[test]
    fn every_declared_metric_moves_and_hostile_names_do_no_harm() {
        let mut registry = Registry::with_prefix("pxos");
        registry.register_collector(Box::new(Fixed));
        let mut shown = String::new();
        text::encode(&mut shown, &registry).unwrap();
        for metric in METRICS {
            let values: Vec<f64> = shown
                .lines()
                .filter(|line| line.starts_with(&format!("pxos_{}", metric.name)) && line.contains('{'))
                .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
                .collect();
            assert!(values.iter().any(|value| *value > 0.0), "{} does not move:\n{shown}", metric.name);
        }
        assert!(shown.contains("vm=\"red\\\"\\n\""), "{shown}");
        assert!(
            shown.contains("pxos_vm_lease_wait_seconds_bucket{le=\"+Inf\",vm=") && shown.ends_with("# EOF\n"),
            "{shown}"
        );
        assert!(
            shown.contains("pxos_vm_copied_bytes_total{vm=\"red\\\"\\n\",direction=\"to_host\"} 13.0"),
            "{shown}"
        );
        let of_process =
            "pxos_process_memory_bytes{vm=\"red\",session=\"7\",program=\"a\\\"b\",kind=\"pool\"} 36";
        assert!(shown.contains(of_process), "{shown}");
    }
}
