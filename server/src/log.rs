//! The log: lines for people or JSON objects on stderr, with the journal's priorities where stderr is the journal, and a
//! limit for what guests can cause.

use crate::config::{Log, LogFormat};
use parking_lot::Mutex;
use std::fmt;
use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::{Layer, reload};

static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Starts the log of this process. Later calls change nothing but the level.
pub fn init(log: Log) {
    if LEVEL.get().is_some() {
        return set_level(log.level);
    }
    let (filter, handle) = reload::Layer::new(LevelFilter::from_level(log.level));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer: Box<dyn Layer<_> + Send + Sync> = match log.format {
        LogFormat::Json => lines.json().flatten_event(true).with_target(false).boxed(),
        LogFormat::Text if stderr_is_the_journal() => lines
            .with_ansi(false)
            .event_format(Journal(
                tracing_subscriber::fmt::format()
                    .without_time()
                    .with_target(false)
                    .with_level(false)
                    .with_ansi(false),
            ))
            .boxed(),
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(layer);
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        let _ = LEVEL.set(handle);
    }
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

/// Lines that begin with a priority as in syslog (`<4>`), which the journal takes off again. It has its own times.
struct Journal(Format<Full, ()>);

impl<S, N> FormatEvent<S, N> for Journal
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

/// What a guest says of itself, made fit for a log and a terminal: at most `limit` characters, none that controls.
#[must_use]
pub fn printable(text: &str, limit: usize) -> String {
    let fit = |c: char| if c.is_control() || c == '\u{fffd}' { '?' } else { c };
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
    fn what_a_guest_says_cannot_control_a_terminal() {
        assert_eq!(printable("app\u{1b}[31m\nx", 64), "app?[31m?x");
        assert_eq!(printable("äöüäöü", 3), "äöü…");
    }
}
