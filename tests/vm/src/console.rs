//! A guest's console: what it printed, and commands to its shell ([`tests/vm/init`](../../init)).

use std::io::{Read, Write};
use std::process::{ChildStdin, ChildStdout};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a command in the guest did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What it printed.
    pub output: String,
    /// Its exit status.
    pub status: i32,
}

impl Ran {
    /// Fails unless the command succeeded; gives its output.
    #[must_use]
    pub fn good(self) -> String {
        assert_eq!(self.status, 0, "a command in the guest failed:\n{}", self.output);
        self.output
    }
}

#[derive(Debug, Default)]
struct Seen {
    text: String,
    closed: bool,
}

/// The console of a machine that runs.
#[derive(Debug)]
pub(crate) struct Console {
    input: Mutex<ChildStdin>,
    seen: Arc<(Mutex<Seen>, Condvar)>,
}

impl Console {
    pub(crate) fn new(input: ChildStdin, mut output: ChildStdout) -> Self {
        let seen: Arc<(Mutex<Seen>, Condvar)> = Arc::default();
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let count = output.read(&mut buffer).unwrap_or(0);
                let mut seen = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
                seen.text.extend(String::from_utf8_lossy(&buffer[..count]).chars().filter(|c| *c != '\r'));
                seen.closed = count == 0;
                shared.1.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        Self { input: Mutex::new(input), seen }
    }

    /// Everything so far.
    pub(crate) fn text(&self) -> String {
        self.seen.0.lock().unwrap_or_else(PoisonError::into_inner).text.clone()
    }

    /// Types a line.
    pub(crate) fn type_line(&self, line: &str) {
        assert!(line.len() < 4000 && !line.contains('\n'), "a terminal's line holds 4095 characters");
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        // A machine that is gone is noticed by whoever waits for what it prints.
        let _ = writeln!(input, "{line}").and_then(|()| input.flush());
    }

    /// Waits until `found` finds what it looks for in the text.
    pub(crate) fn wait<T>(
        &self,
        what: &str,
        patience: Duration,
        found: impl Fn(&str) -> Option<T>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + patience;
        let mut seen = self.seen.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = found(&seen.text) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if seen.closed || left.is_zero() {
                let why = if seen.closed { "the machine is gone" } else { "nothing came in time" };
                return Err(format!("{what}: {why}; the console:\n{}", seen.text));
            }
            seen = self.seen.1.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The result of the command with this token, once it is there.
pub(crate) fn result(text: &str, token: u32) -> Option<Ran> {
    let (_, rest) = text.split_once(&format!("PXVM-BEGIN {token}\n"))?;
    let (output, rest) = rest.split_once(&format!("\nPXVM-END {token} "))?;
    let (status, _) = rest.split_once('\n')?;
    Some(Ran { output: output.to_owned(), status: status.trim().parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_there_once_it_is_whole() {
        let text = "PXVM-BEGIN 1\nhello\n\nPXVM-END 1 0\nPXVM-BEGIN 12\nx\nPXVM-END 12 3";
        assert_eq!(result(text, 1), Some(Ran { output: "hello\n".into(), status: 0 }));
        assert_eq!(result(text, 12), None);
        assert_eq!(result(&format!("{text}\n"), 12).unwrap().status, 3);
    }
}
