//! Makes two outputs comparable: what may differ between two good runs becomes a placeholder.
//!
//! `PATTERNS` is the documentation and the test of it; `--list-masks` shows it.

use std::io::{self, Write};

/// Name of a pattern, a line that shows it, and what becomes of the line.
pub(crate) const PATTERNS: [(&str, &str, &str); 12] = [
    ("number with a unit of time", "copy took 12.5 ms, 3 us each", "copy took # ms, # us each"),
    ("number with a rate", "Bandwidth:   55.1 GB/s (1.2e3 GFLOP/s)", "Bandwidth: # GB/s (# GFLOP/s)"),
    ("number with a unit in brackets", "Processing time: 0.123000 (ms)", "Processing time: # (ms)"),
    (
        "number after a word for a measurement",
        "Throughput = 1.25, Elapsed time: 3",
        "Throughput = #, Elapsed time: #",
    ),
    ("number after such a word with a unit in brackets", "GPU time (ms): 12.5", "GPU time (ms): #"),
    ("speed-up", "2.5x faster", "#x faster"),
    ("address (8 or more digits)", "a is at 0x7f00deadbeef, flag 0xbeef", "a is at <address>, flag 0xbeef"),
    ("process or thread number", "[pid 4711] tid=12 started", "[pid #] tid=# started"),
    ("clock and date", "at 12:34:56 on 2026-11-21", "at <clock> on <date>"),
    ("line of times", "time: 1 2 3 anything", "time: #"),
    ("the folder of the run", "wrote {scratch}/out.ppm", "wrote <scratch>/out.ppm"),
    (
        "not masked",
        "5 samples, 12 steps, 3.5 apples, 16x16, v1.2",
        "5 samples, 12 steps, 3.5 apples, 16x16, v1.2",
    ),
];

/// Units that make the number before them a measurement; compared without regard to case.
const UNITS: [&str; 29] = [
    "ns",
    "nsec",
    "nanoseconds",
    "us",
    "µs",
    "usec",
    "microseconds",
    "ms",
    "msec",
    "msecs",
    "milliseconds",
    "s",
    "sec",
    "secs",
    "second",
    "seconds",
    "gbps",
    "mbps",
    "flops",
    "gflops",
    "tflops",
    "tops",
    "fps",
    "hz",
    "khz",
    "mhz",
    "ghz",
    "cycles",
    "clocks",
];

/// Words that make the number after them a measurement.
const MEASUREMENTS: [&str; 15] = [
    "time",
    "elapsed",
    "took",
    "duration",
    "latency",
    "throughput",
    "bandwidth",
    "performance",
    "speedup",
    "speed-up",
    "rate",
    "gflops",
    "gflop/s",
    "average",
    "clocks/block",
];

/// Words that make the number after them a process or thread number.
const PROCESSES: [&str; 4] = ["pid", "tid", "process id", "thread id"];

/// What is masked besides `PATTERNS`.
#[derive(Debug, Default)]
pub(crate) struct Mask<'a> {
    /// The folder of this run; becomes `<scratch>`.
    pub(crate) scratch: &'a str,
    /// Lines that contain one of these become `<line>`.
    pub(crate) lines: &'a [String],
    /// Every number with a decimal point becomes `#`.
    pub(crate) decimals: bool,
    /// Lines are sorted.
    pub(crate) unordered: bool,
}

impl Mask<'_> {
    /// The lines of an output, masked. Bytes that are not UTF-8 become replacement characters.
    pub(crate) fn lines(&self, output: &[u8]) -> Vec<String> {
        let text = String::from_utf8_lossy(output);
        let mut lines: Vec<String> = text.lines().map(|line| self.line(line)).collect();
        if self.unordered {
            lines.sort();
        }
        lines
    }

    fn line(&self, line: &str) -> String {
        if line.starts_with("time:") {
            return "time: #".into();
        }
        if self.lines.iter().any(|part| line.contains(part.as_str())) {
            return "<line>".into();
        }
        let line =
            if self.scratch.is_empty() { line.to_owned() } else { line.replace(self.scratch, "<scratch>") };
        let (masked, changed) = self.numbers(&line);
        // The width of a column follows from the width of the number.
        if changed { masked.split_whitespace().collect::<Vec<_>>().join(" ") } else { masked }
    }

    fn numbers(&self, line: &str) -> (String, bool) {
        let mut out = String::with_capacity(line.len());
        let mut changed = false;
        let mut at = 0;
        while let Some(first) = line[at..].chars().next() {
            let rest = &line[at..];
            let starts_word = !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.');
            let (taken, placeholder) = match starts_word.then(|| self.token(&line[..at], rest)).flatten() {
                Some((length, placeholder)) => (length, Some(placeholder)),
                None => {
                    (number_length(rest).filter(|_| starts_word).unwrap_or_else(|| first.len_utf8()), None)
                }
            };
            match placeholder {
                Some(text) => {
                    out.push_str(text);
                    changed = true;
                }
                None => out.push_str(&rest[..taken]),
            }
            at += taken;
        }
        (out, changed)
    }

    /// The length of what is masked at the start of `rest`, and its placeholder.
    fn token(&self, before: &str, rest: &str) -> Option<(usize, &'static str)> {
        if let Some(hex) = rest.strip_prefix("0x") {
            let digits = hex.bytes().take_while(u8::is_ascii_hexdigit).count();
            return (digits >= 8).then_some((2 + digits, "<address>"));
        }
        if let Some(length) = shaped(rest, "dd:dd:dd") {
            return Some((length, "<clock>"));
        }
        if let Some(length) = shaped(rest, "dddd-dd-dd") {
            return Some((length, "<date>"));
        }
        let length = number_length(rest)?;
        let (number, after) = rest.split_at(length);
        let speed_up = number.contains('.')
            && after.starts_with(['x', 'X'])
            && !after[1..].starts_with(|c: char| c.is_alphanumeric());
        let masked = speed_up
            || self.decimals && number.contains('.')
            || unit_follows(after)
            || ends_with_word(before, &PROCESSES)
            || ends_with_word(before, &MEASUREMENTS);
        masked.then_some((length, "#"))
    }
}

/// The length of `text`'s start if it has the form, `d` standing for a digit, and no digit follows.
fn shaped(text: &str, form: &str) -> Option<usize> {
    let fits = text.len() >= form.len()
        && text.bytes().zip(form.bytes()).all(|(c, f)| if f == b'd' { c.is_ascii_digit() } else { c == f });
    (fits && !text[form.len()..].starts_with(|c: char| c.is_ascii_digit())).then_some(form.len())
}

/// The length of the decimal number at the start of the text: digits, a fraction, an exponent.
fn number_length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut length = digits(0);
    if length == 0 {
        return None;
    }
    if bytes.get(length) == Some(&b'.') && digits(length + 1) > 0 {
        length += 1 + digits(length + 1);
    }
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        if length + 1 + sign < bytes.len() && digits(length + 1 + sign) > 0 {
            length += 1 + sign + digits(length + 1 + sign);
        }
    }
    Some(length)
}

/// Whether a unit follows: at once, after blanks, or in brackets.
fn unit_follows(after: &str) -> bool {
    let after = after.trim_start_matches([' ', '\t']);
    let (after, brackets) = match after.strip_prefix(['(', '[']) {
        Some(inside) => (inside, true),
        None => (after, false),
    };
    let length = after.find(|c: char| !(c.is_alphanumeric() || c == '/')).unwrap_or(after.len());
    let (word, rest) = after.split_at(length);
    let word = word.to_lowercase();
    (!brackets || rest.starts_with([')', ']'])) && is_unit(word.trim_end_matches('/'))
}

/// Whether a word, in small letters, is a unit of time or of a rate: one of the list, or anything per second.
fn is_unit(word: &str) -> bool {
    let per_second = |word: &str| {
        word.rsplit_once('/')
            .is_some_and(|(what, per)| !what.is_empty() && matches!(per, "s" | "sec" | "second" | "seconds"))
    };
    UNITS.contains(&word) || per_second(word)
}

/// Whether the text ends with one of the words, followed only by `=`, `:`, blanks or a unit in brackets.
fn ends_with_word(before: &str, words: &[&str]) -> bool {
    let separators = [' ', '\t', ':', '=', '~'];
    let mut before = before.trim_end_matches(separators);
    if let Some(inside) = before.strip_suffix([')', ']'])
        && let Some(open) = inside.rfind(['(', '['])
        && is_unit(inside[open + 1..].trim().to_lowercase().as_str())
    {
        before = before[..open].trim_end_matches(separators);
    }
    let lower = before.to_lowercase();
    words.iter().any(|word| {
        lower
            .strip_suffix(word)
            .is_some_and(|rest| !rest.ends_with(|c: char| c.is_alphanumeric() || c == '_'))
    })
}

/// Writes the table of patterns.
pub(crate) fn describe(out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "Two outputs count as the same if they are the same after this:\n")?;
    for (name, example, result) in PATTERNS {
        writeln!(out, "{name}\n    {example}\n    {result}")?;
    }
    writeln!(
        out,
        "\nBlanks in a line that was changed are reduced to one. More per sample: see the args file."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(text: &str) -> String {
        Mask { scratch: "{scratch}", ..Mask::default() }.lines(text.as_bytes()).join("\n")
    }

    #[test]
    fn every_pattern_does_what_its_row_says() {
        for (name, example, want) in PATTERNS {
            assert_eq!(mask(example), want, "{name}");
        }
    }

    #[test]
    fn measurements_of_nvidia_s_samples() {
        for (line, want) in [
            (
                "Performance= 4303.52 GFlop/s, Time= 0.030 msec, Size= 131072000 Ops, WorkgroupSize= 1024 threads/block",
                "Performance= # GFlop/s, Time= # msec, Size= 131072000 Ops, WorkgroupSize= 1024 threads/block",
            ),
            (
                "Reduction, Throughput = 128.7551 GB/s, Time = 0.00052 s, Size = 16777216 Elements, NumDevsUsed = 1",
                "Reduction, Throughput = # GB/s, Time = # s, Size = 16777216 Elements, NumDevsUsed = 1",
            ),
            ("time spent executing by the GPU: 12.50", "time spent executing by the GPU: 12.50"),
            (
                "CPU executed 51733 iterations while waiting for GPU to finish",
                "CPU executed 51733 iterations while waiting for GPU to finish",
            ),
            ("  GPU Max Clock rate: 1980 MHz (1.98 GHz)", " GPU Max Clock rate: # MHz (# GHz)"),
            ("> 12.5% done in 3s", "> 12.5% done in #s"),
            ("Average time to complete set: 0.3 ms", "Average time to complete set: # ms"),
            ("10.48 Mtexlookups/sec", "# Mtexlookups/sec"),
            ("Average clocks/block = 15078.937500", "Average clocks/block = #"),
            ("Test passed (error 1.2e-07)", "Test passed (error 1.2e-07)"),
            ("a=1.0s5 b=2sx", "a=1.0s5 b=2sx"),
        ] {
            let want = if want == line {
                want.to_owned()
            } else {
                want.split_whitespace().collect::<Vec<_>>().join(" ")
            };
            assert_eq!(mask(line), want);
        }
    }

    #[test]
    fn what_differs_otherwise_still_differs() {
        for (a, b) in [
            ("checksum 0123456789abcdef", "checksum 0123456789abcdee"),
            ("value 17", "value 18"),
            ("0xdead", "0xbeef"),
            ("error: 0.5", "error: 0.6"),
            ("a", "a\nb"),
            ("10 elements", "11 elements"),
        ] {
            assert_ne!(mask(a), mask(b));
        }
        assert_eq!(mask("t = 1.00 ms"), mask("t =   23.45 ms"));
        assert_eq!(mask("ptr 0x7f0012345678"), mask("ptr 0x55aa12345678"));
    }

    #[test]
    fn settings_of_a_sample() {
        let lines = ["host:".to_owned()];
        let mask = Mask { lines: &lines, decimals: true, unordered: true, ..Mask::default() };
        assert_eq!(mask.lines(b"z 1.5 2\nhost: x\na"), ["<line>", "a", "z # 2"]);
        // Bytes that are not text do no harm.
        assert_eq!(mask.lines(b"\xff\xfe 1.5\n").len(), 1);
        assert_eq!(Mask::default().lines("µ 5 µs 日本 7".as_bytes()), ["µ # µs 日本 7"]);
    }
}
