//! `pxctl top`: what VMs and their processes use, live in a terminal, or once for a script.

use crate::units::{fit, seconds, short_bytes};
use crate::{Failure, json};
use pxos_client::Control;
use pxos_protocol::admin::{Session, Status, Vm};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Text};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// How to show it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Shows it once, measured over one interval
    #[arg(long)]
    once: bool,
    /// Once, as JSON
    #[arg(long)]
    json: bool,
    /// Seconds between two looks
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS", value_parser = interval)]
    interval: f64,
}

fn interval(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|seconds| (0.3..=60.0).contains(seconds))
        .ok_or_else(|| "not from 0.3 to 60".to_owned())
}

/// Columns of a terminal where nobody says otherwise.
const WIDTH: usize = 80;

/// What was seen at one moment.
#[derive(Debug, Serialize)]
struct Sample {
    vms: Vec<Vm>,
    sessions: Vec<Session>,
    #[serde(skip)]
    head: String,
    #[serde(skip)]
    at: Instant,
}

impl Sample {
    fn take(control: &mut Control, before: Option<&Self>) -> Result<Self, Failure> {
        let status = control.status()?;
        let mut sample =
            Self { vms: control.vms()?, head: head(&status), sessions: status.sessions, at: Instant::now() };
        if let Some(before) = before {
            sample.rate(before);
        }
        Ok(sample)
    }

    /// Rates of sessions: the server keeps those of VMs only.
    fn rate(&mut self, before: &Self) {
        let window = (self.at - before.at).as_secs_f64().max(1e-3);
        let old: BTreeMap<u64, &Session> =
            before.sessions.iter().map(|session| (session.id, session)).collect();
        for session in &mut self.sessions {
            let Some(old) = old.get(&session.id) else { continue };
            let copied = |session: &Session| {
                session.counters.copy_bytes_to_device.saturating_add(session.counters.copy_bytes_to_host)
            };
            #[expect(clippy::cast_precision_loss, reason = "rates for people")]
            let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / window;
            session.usage.share = rate(session.usage.gpu_nanos, old.usage.gpu_nanos) / 1e9;
            session.usage.launch_rate = rate(session.counters.launches, old.counters.launches);
            session.usage.copy_rate = rate(copied(session), copied(old));
        }
    }

    /// Lines of at most `width` characters: the head, the columns' names, VMs and below each its processes.
    fn lines(&self, width: usize) -> Vec<(bool, String)> {
        // Only where somebody is promised memory: reasons need the room.
        let promises = self.vms.iter().any(|vm| vm.limits.memory_min > 0);
        let mut lines = vec![(false, fit(&self.head, width)), (true, fit(&titles(promises), width))];
        for vm in &self.vms {
            let usage = &vm.usage;
            let faults: u64 =
                self.of(&vm.name).map(|session| session.counters.faults).fold(0, u64::saturating_add);
            let reason = if usage.reason.is_empty() { &vm.class } else { &usage.reason };
            let held = memory(vm.memory.charged, vm.limits.memory_max, promises.then_some(vm.memory.owed));
            lines.push((false, fit(&row(&vm.name, usage, &held, faults, reason), width)));
            for session in self.of(&vm.name) {
                let name = format!("  {} {}", session.id, session.program);
                let counters = &session.counters;
                let held = memory(counters.memory_used, None, promises.then_some(0));
                let text = row(&name, &session.usage, &held, counters.faults, &session.usage.reason);
                lines.push((false, fit(&text, width)));
            }
        }
        if self.vms.is_empty() {
            lines.push((false, "no VMs".to_owned()));
        }
        lines
    }

    fn of<'a>(&'a self, vm: &'a str) -> impl Iterator<Item = &'a Session> {
        self.sessions.iter().filter(move |session| session.vm == vm)
    }
}

fn head(status: &Status) -> String {
    let device = status.devices.first().map_or_else(|| "no device".to_owned(), |device| device.name.clone());
    let more = if status.devices.len() > 1 {
        format!(" and {} more", status.devices.len() - 1)
    } else {
        String::new()
    };
    let software = if status.driver.software { " (this CPU)" } else { "" };
    format!(
        "pxOS {}, up {}: {} processes on {device}{more}{software}",
        status.server.software,
        seconds(status.server.uptime),
        status.sessions.len(),
    )
}

fn titles(promises: bool) -> String {
    let owed = if promises { "   OWED" } else { "" };
    format!(
        "{:<15} {:>6} {:>6} {:>6} {:>4}{owed} {:>3} {:>6} {:>6} {:>3} {}",
        "VM / PROCESS", "SHARE", "GPU-S", "MEMORY", "OF", "QU", "WAIT", "COPY/S", "FLT", "REASON"
    )
}

/// What is held, which part of the limit that is, and what is kept from others for it.
fn memory(held: u64, limit: Option<u64>, owed: Option<u64>) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
    let of = limit
        .map_or_else(|| "-".to_owned(), |limit| format!("{:.0}%", held as f64 * 100.0 / limit.max(1) as f64));
    let owed = owed.map_or_else(String::new, |owed| {
        format!(" {:>6}", if owed == 0 { "-".to_owned() } else { short_bytes(owed) })
    });
    format!("{:>6} {of:>4}{owed}", short_bytes(held))
}

fn row(name: &str, usage: &pxos_protocol::admin::Usage, memory: &str, faults: u64, reason: &str) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "numbers for people, none negative"
    )]
    let (copies, gpu) = (usage.copy_rate as u64, usage.gpu_nanos as f64 / 1e9);
    let queue = if usage.waiting { format!("{}w", usage.queue) } else { usage.queue.to_string() };
    format!(
        "{:<15} {:>5.1}% {:>6} {memory} {queue:>3} {:>6} {:>6} {faults:>3} {reason}",
        fit(name, 15),
        usage.share * 100.0,
        short(gpu),
        time(usage.wait_nanos),
        short_bytes(copies),
    )
}

/// Seconds in six characters.
fn short(seconds: f64) -> String {
    match seconds {
        ..100.0 => format!("{seconds:.2}"),
        ..1000.0 => format!("{seconds:.1}"),
        _ => format!("{seconds:.0}"),
    }
}

/// A time in six characters: `12µs`, `3ms`, `120s`.
fn time(nanos: u64) -> String {
    let micros = nanos / 1000;
    match micros {
        0..1000 => format!("{micros}µs"),
        1000..10_000_000 => format!("{}ms", micros / 1000),
        _ => format!("{}s", micros / 1_000_000),
    }
}

/// Shows it.
pub(crate) fn run(path: &Path, args: &Args) -> Result<(), Failure> {
    let mut control = Control::connect(path)?;
    let pause = Duration::from_secs_f64(args.interval);
    if args.once || args.json {
        let first = Sample::take(&mut control, None)?;
        std::thread::sleep(pause);
        let sample = Sample::take(&mut control, Some(&first))?;
        if args.json {
            json(&sample);
        } else {
            sample.lines(usize::MAX).iter().for_each(|(_, line)| println!("{}", line.trim_end()));
        }
        return Ok(());
    }
    let mut terminal = ratatui::try_init()
        .map_err(|error| Failure::Other(format!("this is no terminal ({error}); --once shows it once")))?;
    let result = live(&mut terminal, &mut control, pause);
    ratatui::restore();
    result
}

fn live(
    terminal: &mut ratatui::DefaultTerminal,
    control: &mut Control,
    pause: Duration,
) -> Result<(), Failure> {
    let other = |error: std::io::Error| Failure::Other(error.to_string());
    let mut sample = Sample::take(control, None)?;
    loop {
        terminal
            .draw(|frame| {
                frame.render_widget(text(&sample, frame.area().width, frame.area().height), frame.area());
            })
            .map_err(other)?;
        let next = Instant::now() + pause;
        loop {
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() || !event::poll(left).map_err(other)? {
                break;
            }
            match event::read().map_err(other)? {
                Event::Key(key) if key.kind == KeyEventKind::Press => {
                    let interrupted =
                        key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                    if interrupted || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                        return Ok(());
                    }
                }
                Event::Resize(..) => break,
                _ => {}
            }
        }
        sample = Sample::take(control, Some(&sample))?;
    }
}

/// What fits a screen: the first lines, and how many more there would be.
fn text(sample: &Sample, width: u16, height: u16) -> Text<'static> {
    let width = if width == 0 { WIDTH } else { usize::from(width) };
    let room = usize::from(height).saturating_sub(2).max(2);
    let mut lines: Vec<Line<'static>> = sample
        .lines(width)
        .into_iter()
        .map(|(title, line)| {
            let style = if title { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
            Line::styled(if title { format!("{line:<width$}") } else { line }, style)
        })
        .collect();
    let hidden = lines.len().saturating_sub(room);
    lines.truncate(room);
    lines.push(Line::raw(""));
    let more =
        if hidden > 0 { format!("q ends; {hidden} more lines do not fit (--once)") } else { "q ends".into() };
    lines.push(Line::styled(more, Style::new().add_modifier(Modifier::DIM)));
    Text::from(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pxos_protocol::admin::{Counters, Limits, Memory, Usage};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn sample() -> Sample {
        let usage = Usage {
            gpu_nanos: 12_345_678_901,
            share: 0.502,
            queue: 16,
            waiting: true,
            wait_nanos: 3_400_000,
            copy_rate: 55e9,
            reason: "lease ends soon, because another VM waits".into(),
            ..Usage::default()
        };
        let session = Session {
            id: 12,
            vm: "red".into(),
            program: "a_program_with_a_long_name".into(),
            pid: 1,
            peer: String::new(),
            software: String::new(),
            worker: 2,
            shared_memory: String::new(),
            started: 0,
            uptime: 0,
            counters: Counters { memory_used: 3 << 29, faults: 2, ..Counters::default() },
            usage: usage.clone(),
            gpus: vec![0],
            audited: None,
        };
        let vm = Vm {
            name: "red".into(),
            memory: Memory { charged: 3 << 29, ..Memory::default() },
            limits: Limits { memory_max: Some(6 << 30), ..Limits::default() },
            usage,
            ..Vm::default()
        };
        Sample {
            vms: vec![vm],
            sessions: vec![session],
            head: "pxOS 0.1.0, up 12 s: 1 processes on softgpu".into(),
            at: Instant::now(),
        }
    }

    #[test]
    fn it_looks_right_in_80_columns() {
        let mut terminal = Terminal::new(TestBackend::new(80, 8)).unwrap();
        let sample = sample();
        terminal.draw(|frame| frame.render_widget(text(&sample, 80, 8), frame.area())).unwrap();
        let shown = terminal.backend().to_string();
        for wanted in [
            "VM / PROCESS     SHARE  GPU-S MEMORY   OF  QU   WAIT COPY/S FLT REASON",
            "red              50.2%  12.35   1.5G  25% 16w    3ms  51.2G   2 lease ends soon",
            "  12 a_program…",
            "q ends",
        ] {
            assert!(shown.contains(wanted), "'{wanted}' is not in\n{shown}");
        }
        assert!(sample.lines(80).iter().all(|(_, line)| line.chars().count() <= 80));
        let cut: Vec<String> = text(&sample, 80, 5).lines.iter().map(ToString::to_string).collect();
        assert_eq!((cut.len(), cut[4].as_str()), (5, "q ends; 1 more lines do not fit (--once)"), "{cut:?}");
        let mut promised = sample;
        promised.vms[0].limits.memory_min = 2 << 30;
        promised.vms[0].memory.owed = 1 << 29;
        let lines = promised.lines(80);
        assert!(lines[1].1.contains("MEMORY   OF   OWED  QU"), "{lines:?}");
        assert!(lines[2].1.contains("  1.5G  25%   512M 16w"), "{lines:?}");
        assert!(lines[3].1.contains("  1.5G    -      - 16w"), "{lines:?}");
    }

    #[test]
    fn rates_are_taken_between_two_looks() {
        let before = sample();
        let mut after = sample();
        after.at = before.at + Duration::from_secs(2);
        after.sessions[0].usage.gpu_nanos += 1_000_000_000;
        after.sessions[0].counters.copy_bytes_to_host = 4096;
        after.rate(&before);
        assert!((after.sessions[0].usage.share - 0.5).abs() < 1e-9);
        assert!((after.sessions[0].usage.copy_rate - 2048.0).abs() < 1e-9);
    }
}
