//! The log: lines for people or JSON objects on stderr, in a file that can be rotated or in the system's log, with
//! priorities where the journal or syslog takes them off again, and a limit for what guests can cause.

use crate::background::take_place;
use crate::config::{Log, LogFormat, LogOutput};
use parking_lot::Mutex;
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::{Layer, reload};

static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// The log's file, where it is one.
static FILE: OnceLock<PathBuf> = OnceLock::new();

/// Starts the log of this process. Later calls change nothing but the level.
///
/// # Errors
/// The operating system's, where the log's file cannot be opened.
pub fn init(log: &Log) -> io::Result<()> {
    if LEVEL.get().is_some() {
        set_level(log.level);
        return Ok(());
    }
    if let LogOutput::File(path) = &log.output {
        take_stderr(path)?;
        let _ = FILE.set(path.clone());
    }
    let (filter, handle) = reload::Layer::new(LevelFilter::from_level(log.level));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let layer: Box<dyn Layer<_> + Send + Sync> = match (log.format, &log.output) {
        (LogFormat::Json, LogOutput::Syslog(path)) => {
            let lines = lines.with_writer(Syslog::new(path.clone()));
            lines.json().flatten_event(true).with_target(false).boxed()
        }
        (LogFormat::Json, _) => lines.json().flatten_event(true).with_target(false).boxed(),
        (LogFormat::Text, LogOutput::Syslog(path)) => {
            lines.with_writer(Syslog::new(path.clone())).event_format(Prioritised::new()).boxed()
        }
        (LogFormat::Text, LogOutput::Stderr) if stderr_is_the_journal() => {
            lines.event_format(Prioritised::new()).boxed()
        }
        (LogFormat::Text, _) => lines.with_ansi(io::stderr().is_terminal()).with_target(false).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(layer);
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        let _ = LEVEL.set(handle);
    }
    Ok(())
}

/// Opens the log's file anew, after somebody has moved it away; whether there is one. Workers that run write to the old one
/// until they end.
///
/// # Errors
/// The operating system's; the old file is written on then.
pub fn reopen() -> io::Result<bool> {
    FILE.get().map_or(Ok(false), |path| take_stderr(path).map(|()| true))
}

/// Puts a log file in the place of stderr, which workers inherit, and to which a panic writes.
fn take_stderr(path: &Path) -> io::Result<()> {
    let file = File::options().append(true).create(true).mode(0o640).open(path)?;
    take_place(&file, 2)
}

/// Changes what is logged from now on.
pub fn set_level(level: Level) {
    if let Some(handle) = LEVEL.get() {
        let _ = handle.modify(|filter| *filter = LevelFilter::from_level(level));
    }
}

/// Whether what is written to stderr goes to the journal, as systemd says it in `JOURNAL_STREAM` (device:inode).
fn stderr_is_the_journal() -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else { return false };
    stream == format!("{}:{}", stderr.dev(), stderr.ino())
}

/// Lines that begin with a priority as in syslog (`<4>`), which the reader takes off again. It has its own times.
struct Prioritised(Format<Full, ()>);

impl Prioritised {
    fn new() -> Self {
        let plain = tracing_subscriber::fmt::format().without_time();
        Self(plain.with_target(false).with_level(false).with_ansi(false))
    }
}

impl<S, N> FormatEvent<S, N> for Prioritised
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}

/// The system's log: a datagram for each line, in the form of syslog(3). A log that is not there, or does not keep up, loses
/// lines and never holds up the daemon.
struct Syslog {
    path: PathBuf,
    socket: Mutex<Option<UnixDatagram>>,
}

/// `LOG_DAEMON` of syslog(3).
const FACILITY: u8 = 3 << 3;

impl Syslog {
    fn new(path: PathBuf) -> Self {
        Self { path, socket: Mutex::default() }
    }

    fn connect(&self) -> io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(&self.path)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &Syslog {
    /// A whole line, which the formatter hands over at once.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_end();
        let prefix = text.strip_prefix('<').and_then(|text| text.split_once('>'));
        let (priority, text) = match prefix.and_then(|(number, text)| Some((number.parse().ok()?, text))) {
            Some((priority, text)) => (priority, text),
            None => (6u8, text),
        };
        let line = format!("<{}>pxos-server[{}]: {text}", FACILITY + priority, std::process::id());
        let mut socket = self.socket.lock();
        for _ in 0..2 {
            if socket.is_none() {
                *socket = self.connect().ok();
            }
            match socket.as_ref().map(|socket| socket.send(line.as_bytes())) {
                Some(Err(error)) if error.kind() != io::ErrorKind::WouldBlock => *socket = None,
                _ => break,
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets a few lines of one kind through and counts the rest, so that a guest cannot fill the disk. One per place.
#[derive(Debug)]
pub struct Limited(Mutex<Bucket>);

#[derive(Debug)]
struct Bucket {
    since: Option<Instant>,
    left: u32,
    suppressed: u64,
}

/// Lines that may come at once.
const BURST: u32 = 10;
/// How often one more may come.
const PERIOD: Duration = Duration::from_secs(1);

impl Limited {
    /// A new limit.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "made in statics only")]
    pub const fn new() -> Self {
        Self(Mutex::new(Bucket { since: None, left: BURST, suppressed: 0 }))
    }

    /// `Some` where a line may be written: how many were kept back before it.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut bucket = self.0.lock();
        let since = *bucket.since.get_or_insert(now);
        let periods = now.saturating_duration_since(since).as_secs() / PERIOD.as_secs();
        if periods > 0 {
            bucket.left = bucket.left.saturating_add(u32::try_from(periods).unwrap_or(BURST)).min(BURST);
            bucket.since = Some(now);
        }
        if bucket.left == 0 {
            bucket.suppressed += 1;
            return None;
        }
        bucket.left -= 1;
        Some(std::mem::take(&mut bucket.suppressed))
    }
}

/// Whether a character changes how those beside it are shown, or is not shown itself: separators of lines, directions of
/// writing, joiners, marks of order (Unicode 16.0, general categories Zl, Zp, Cf).
fn changes_layout(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// What a guest says of itself, made fit for a log and a terminal: at most `limit` characters, none that controls.
#[must_use]
pub fn printable(text: &str, limit: usize) -> String {
    let fit = |c: char| if c.is_control() || changes_layout(c) || c == '\u{fffd}' { '?' } else { c };
    let mut short: String = text.chars().take(limit).map(fit).collect();
    if text.chars().nth(limit).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_says_stays_on_its_line_and_in_its_order() {
        assert_eq!(printable("a\nb\u{1b}[2J\u{9b}", 64), "a?b?[2J?");
        assert_eq!(
            printable("app\u{2028}session ends\u{202e}dlrow\u{200b}\u{feff}", 64),
            "app?session ends?dlrow??"
        );
        assert_eq!(printable("größer 数", 64), "größer 数");
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let limited = Limited::new();
        let start = Instant::now();
        let passed = (0..1000).filter(|_| limited.pass_at(start).is_some()).count();
        assert_eq!(passed, 10);
        assert_eq!(limited.pass_at(start + Duration::from_secs(1)), Some(990));
        assert_eq!(limited.pass_at(start + Duration::from_secs(1)), None);
        assert_eq!(limited.pass_at(start + Duration::from_secs(3600)), Some(1));
    }

    #[test]
    fn syslog_gets_a_priority_a_name_and_a_line_and_may_be_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let syslog = Syslog::new(path.clone());
        (&syslog).write_all(b"<4>lost\n").unwrap();
        for _ in 0..2 {
            let _ = std::fs::remove_file(&path);
            let system = UnixDatagram::bind(&path).unwrap();
            (&syslog).write_all(b"<4>a line\n").unwrap();
            let mut bytes = [0; 256];
            let count = system.recv(&mut bytes).unwrap();
            let wanted = format!("<28>pxos-server[{}]: a line", std::process::id());
            assert_eq!(std::str::from_utf8(&bytes[..count]).unwrap(), wanted);
        }
    }

    #[test]
    fn what_a_guest_says_cannot_control_a_terminal() {
        assert_eq!(printable("app\u{1b}[31m\nx", 64), "app?[31m?x");
        assert_eq!(printable("äöüäöü", 3), "äöü…");
    }
}
