//! What the shim says, to stderr and only on request: `PXOS_LOG=off|error|warn|info|call` (default `warn`; `call` is a trace
//! of every call with its result), `PXOS_COUNTERS=1` prints calls per function at exit.

use pxos_protocol::api::{NUMBERS, name_of};
use pxos_protocol::types::CUresult;
use std::fmt::Arguments;
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing.
    Off,
    /// What keeps the program from working; one line each.
    Error,
    /// What will surprise: a function that is not supported, once each.
    Warn,
    /// Connecting, contexts, modules.
    Info,
    /// Every call.
    Call,
}

/// What is asked for, read from the environment once.
struct Settings {
    level: Level,
    counters: bool,
}

fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let level = match std::env::var("PXOS_LOG").unwrap_or_default().as_str() {
            "off" => Level::Off,
            "error" => Level::Error,
            "info" => Level::Info,
            "call" | "trace" | "debug" => Level::Call,
            _ => Level::Warn,
        };
        let counters =
            std::env::var_os("PXOS_COUNTERS").is_some_and(|value| value != "0" && !value.is_empty());
        if counters {
            // SAFETY: registering a function without captured state; it is valid for the life of the process.
            unsafe { libc::atexit(print_counters) };
        }
        Settings { level, counters }
    })
}

/// Whether lines of `level` are printed.
pub(crate) fn enabled(level: Level) -> bool {
    level <= settings().level
}

/// Prints one line, `pxos: …`, in one write.
pub(crate) fn line(level: Level, text: Arguments<'_>) {
    if enabled(level) {
        let line = format!("pxos: {text}\n");
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
}

static COUNTS: [AtomicU64; NUMBERS] = [const { AtomicU64::new(0) }; NUMBERS];
static WARNED: [AtomicBool; NUMBERS] = [const { AtomicBool::new(false) }; NUMBERS];

/// Whether [`finished`] wants to be told of calls.
pub(crate) fn tracing() -> bool {
    let settings = settings();
    settings.level == Level::Call || settings.counters
}

/// Counts and traces one finished call.
pub(crate) fn finished(name: &str, number: u16, result: CUresult) {
    // Relaxed: a statistic.
    COUNTS[usize::from(number)].fetch_add(1, Ordering::Relaxed);
    if enabled(Level::Call) {
        line(Level::Call, format_args!("{name} → {result}"));
    }
}

/// Names a function that is not supported, once.
pub(crate) fn unsupported(name: &str, number: u16, reason: &str) {
    // Relaxed: at worst two threads print the line.
    if !WARNED[usize::from(number)].swap(true, Ordering::Relaxed) {
        line(Level::Warn, format_args!("{name} is not supported: {reason}"));
    }
}

extern "C" fn print_counters() {
    let mut counts: Vec<(u64, &str)> = (0_u16..)
        .zip(&COUNTS)
        .filter_map(|(number, count)| Some((count.load(Ordering::Relaxed), name_of(number)?)))
        .filter(|(count, _)| *count > 0)
        .collect();
    counts.sort_by(|one, other| other.cmp(one));
    let mut text = String::from("pxos: calls per function\n");
    for (count, name) in counts {
        text.push_str(&format!("{count:>12}  {name}\n"));
    }
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
