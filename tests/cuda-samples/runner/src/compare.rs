//! The verdict on one sample from its runs.

use serde::{Deserialize, Serialize};

use crate::discover::matches;
use crate::mask::Mask;
use crate::run::{End, Outcome};
use crate::scratch::Written;
use crate::settings::Resolved;

/// What the runs of one sample say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Remoted as direct: exit code, masked standard output, written files.
    Same,
    /// Both say that the sample does not apply (exit code 2).
    Waived,
    /// The output differs, but so do two direct runs, or the sample is listed as one of which that was seen.
    Varies,
    /// Direct fails, remoted does not.
    Better,
    /// Both fail, remoted no worse than direct.
    FailsBoth,
    /// Not run, for the reason in the args file.
    Skipped,
    /// In a single mode: exit code 0.
    Ok,
    /// In a single mode: anything but success or waiver.
    Failed,
    /// Remoted ends worse than direct.
    WorseExit,
    /// Both succeed, standard output differs.
    WorseOutput,
    /// Both succeed, written files differ.
    WorseFiles,
}

impl Verdict {
    /// Whether this makes the runner's exit code 1.
    pub(crate) fn is_worse(self) -> bool {
        matches!(self, Self::Failed | Self::WorseExit | Self::WorseOutput | Self::WorseFiles)
    }

    /// At most ten characters for the table; those that are worse are in capitals.
    pub(crate) fn short(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Waived => "waived",
            Self::Varies => "varies",
            Self::Better => "better",
            Self::FailsBoth => "fails both",
            Self::Skipped => "skipped",
            Self::Ok => "ok",
            Self::Failed => "FAILED",
            Self::WorseExit => "EXIT",
            Self::WorseOutput => "OUTPUT",
            Self::WorseFiles => "FILES",
        }
    }
}

/// A verdict and, where there is something to say, why.
pub(crate) type Judgement = (Verdict, Option<String>);

/// Judges a run without a partner.
pub(crate) fn single(run: &Outcome, settings: &Resolved) -> Judgement {
    match run.end {
        End::Exit(0) => (Verdict::Ok, None),
        End::Exit(code) if settings.waive.contains(&code) => (Verdict::Waived, None),
        _ => (Verdict::Failed, Some(describe(&run.end))),
    }
}

/// Judges a remoted run against a direct one. `varies` is the difference between two direct runs, if they differed.
pub(crate) fn pair(
    direct: &Outcome,
    varies: Option<&str>,
    remote: &Outcome,
    settings: &Resolved,
) -> Judgement {
    if let Some(judgement) = ends(&direct.end, &remote.end, settings) {
        return judgement;
    }
    let Some((verdict, detail)) = difference([direct, remote], ["direct", "remote"], settings) else {
        return (Verdict::Same, None);
    };
    // A sample that does not repeat itself cannot be held against the remoted run.
    let verdict = match varies.or(settings.varies.as_deref()) {
        Some(_) => Verdict::Varies,
        None => verdict,
    };
    (verdict, Some(detail))
}

/// The first difference between two successful direct runs of a sample.
pub(crate) fn varies(first: &Outcome, second: &Outcome, settings: &Resolved) -> Option<String> {
    (first.end.is_success() && second.end.is_success())
        .then(|| difference([first, second], ["direct", "again"], settings).map(|(_, detail)| detail))
        .flatten()
}

/// What the ends alone decide; nothing if both runs succeeded.
fn ends(direct: &End, remote: &End, settings: &Resolved) -> Option<Judgement> {
    let waived = |end: &End| matches!(end, End::Exit(code) if *code != 0 && settings.waive.contains(code));
    // How bad an end is: success, waiver, a failure that was reported, a crash, a hang.
    let badness = |end: &End| match end {
        End::Exit(0) => 0,
        End::Exit(_) if waived(end) => 1,
        End::Exit(_) => 2,
        End::Signal(_) | End::NotStarted(_) => 3,
        End::TimedOut => 4,
    };
    let detail = || Some(format!("direct {}, remote {}", describe(direct), describe(remote)));
    Some(match (badness(direct), badness(remote)) {
        (0, 0) => return None,
        (1, 1) => (Verdict::Waived, None),
        (d, r) if r > d => (Verdict::WorseExit, detail()),
        (_, 0 | 1) => (Verdict::Better, detail()),
        _ if direct == remote => (Verdict::FailsBoth, None),
        _ => (Verdict::FailsBoth, detail()),
    })
}

/// The first difference between two successful runs, with what each is called.
fn difference(runs: [&Outcome; 2], sides: [&str; 2], settings: &Resolved) -> Option<(Verdict, String)> {
    let [a, b] = runs;
    let [mut lines_a, mut lines_b] = runs.map(|run| mask(run, settings).lines(&run.stdout));
    if a.cut || b.cut {
        // Of an output that was not kept whole, the last line may be a part of one.
        let kept = |run: &Outcome, lines: &[String]| {
            if run.cut { lines.len().saturating_sub(1) } else { usize::MAX }
        };
        let length = kept(a, &lines_a).min(kept(b, &lines_b));
        lines_a.truncate(length);
        lines_b.truncate(length);
    }
    if let Some(text) = first_difference([&lines_a, &lines_b], sides) {
        return Some((Verdict::WorseOutput, text));
    }
    let names = a.written.keys().chain(b.written.keys().filter(|name| !a.written.contains_key(*name)));
    for name in names.filter(|name| !matches(&settings.ignore_files, name)) {
        let text = match (a.written.get(name), b.written.get(name)) {
            (Some(_), None) => format!("{name}: written only {}", sides[0]),
            (None, Some(_)) => format!("{name}: written only {}", sides[1]),
            (Some(x), Some(y)) => match content([x, y], runs, sides, settings) {
                Some(text) => format!("{name}: {text}"),
                None => continue,
            },
            (None, None) => continue,
        };
        return Some((Verdict::WorseFiles, text));
    }
    None
}

fn content(
    [x, y]: [&Written; 2],
    runs: [&Outcome; 2],
    sides: [&str; 2],
    settings: &Resolved,
) -> Option<String> {
    if x == y {
        return None;
    }
    match (&x.text, &y.text) {
        (Some(a), Some(b)) => {
            let [a, b] = [(a, runs[0]), (b, runs[1])].map(|(text, run)| mask(run, settings).lines(text));
            first_difference([&a, &b], sides)
        }
        _ if x.same_bytes(y) => None,
        _ if x.size != y.size => {
            let size = |written: &Written| {
                written.size.map_or_else(|| "removed".to_owned(), |size| format!("{size} bytes"))
            };
            Some(format!("{} {}, {} {}", sides[0], size(x), sides[1], size(y)))
        }
        _ => Some("the bytes differ".into()),
    }
}

fn mask<'a>(run: &'a Outcome, settings: &'a Resolved) -> Mask<'a> {
    Mask {
        scratch: &run.scratch,
        lines: &settings.mask_lines,
        decimals: settings.mask_decimals,
        unordered: settings.unordered,
    }
}

fn first_difference([a, b]: [&[String]; 2], sides: [&str; 2]) -> Option<String> {
    let at = (0..a.len().max(b.len())).find(|&i| a.get(i) != b.get(i))?;
    let side =
        |lines: &[String]| lines.get(at).map_or_else(|| "nothing".to_owned(), |line| format!("`{line}`"));
    Some(format!("line {}: {} {}, {} {}", at + 1, sides[0], side(a), sides[1], side(b)))
}

fn describe(end: &End) -> String {
    match end {
        End::Exit(code) => format!("exit code {code}"),
        End::Signal(signal) => format!("signal {signal}"),
        End::TimedOut => "timed out".into(),
        End::NotStarted(message) => format!("did not start ({message})"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn outcome(end: End, stdout: &str) -> Outcome {
        Outcome {
            end,
            wall: 1.0,
            stdout: stdout.into(),
            cut: false,
            stderr: Vec::new(),
            written: BTreeMap::new(),
            scratch: "/scratch/1".into(),
        }
    }

    fn settings() -> Resolved {
        Resolved { waive: vec![2], ..Resolved::default() }
    }

    #[test]
    fn every_pair_of_ends() {
        let all = [End::Exit(0), End::Exit(2), End::Exit(1), End::Signal(11), End::TimedOut];
        // Rows: direct; columns: remote.
        use Verdict::{Better, FailsBoth, Same, Waived, WorseExit};
        let want = [
            [Same, WorseExit, WorseExit, WorseExit, WorseExit],
            [Better, Waived, WorseExit, WorseExit, WorseExit],
            [Better, Better, FailsBoth, WorseExit, WorseExit],
            [Better, Better, FailsBoth, FailsBoth, WorseExit],
            [Better, Better, FailsBoth, FailsBoth, FailsBoth],
        ];
        for (d, direct) in all.iter().enumerate() {
            for (r, remote) in all.iter().enumerate() {
                let (verdict, _) =
                    pair(&outcome(direct.clone(), "x"), None, &outcome(remote.clone(), "x"), &settings());
                assert_eq!(verdict, want[d][r], "direct {direct:?}, remote {remote:?}");
            }
        }
    }

    #[test]
    fn output_is_compared_after_masking() {
        let ok = |text: &str| outcome(End::Exit(0), text);
        let judge = |a: &str, b: &str| pair(&ok(a), None, &ok(b), &settings());
        assert_eq!(judge("took 1 ms\nPASS\n", "took 9 ms\nPASS\n"), (Verdict::Same, None));
        let (verdict, detail) = judge("a\nvalue 1\n", "a\nvalue 2\n");
        assert_eq!(verdict, Verdict::WorseOutput);
        assert_eq!(detail.as_deref(), Some("line 2: direct `value 1`, remote `value 2`"));
        assert_eq!(judge("a\nb\n", "a\n").1.as_deref(), Some("line 2: direct `b`, remote nothing"));
        let unordered = Resolved { unordered: true, ..settings() };
        assert_eq!(pair(&ok("a\nb\n"), None, &ok("b\na\n"), &unordered).0, Verdict::Same);
        // The folders of the two runs differ.
        let mut other = ok("in /scratch/2\n");
        other.scratch = "/scratch/2".into();
        assert_eq!(pair(&ok("in /scratch/1\n"), None, &other, &settings()).0, Verdict::Same);
    }

    #[test]
    fn a_sample_that_varies_by_itself_is_not_held_against_the_remoted_run() {
        let ok = |text: &str| outcome(End::Exit(0), text);
        let judge = |a: &str, again: &str, b: &str| {
            pair(&ok(a), varies(&ok(a), &ok(again), &settings()).as_deref(), &ok(b), &settings()).0
        };
        assert_eq!(judge("1", "2", "3"), Verdict::Varies);
        assert_eq!(judge("1", "1", "3"), Verdict::WorseOutput);
        assert_eq!(judge("1", "2", "1"), Verdict::Same);
        assert_eq!(varies(&ok("1"), &ok("2"), &settings()).as_deref(), Some("line 1: direct `1`, again `2`"));
        // A list excuses a difference, not an end.
        let listed = Resolved { varies: Some("seen on a GPU".into()), ..settings() };
        assert_eq!(pair(&ok("1"), None, &ok("2"), &listed).0, Verdict::Varies);
        assert_eq!(pair(&ok("1"), None, &outcome(End::Exit(1), "2"), &listed).0, Verdict::WorseExit);
    }

    #[test]
    fn of_an_output_that_was_cut_the_whole_lines_are_compared() {
        let cut = |text: &str| Outcome { cut: true, ..outcome(End::Exit(0), text) };
        let judge = |a: &Outcome, b: &Outcome| pair(a, None, b, &settings()).0;
        let whole = outcome(End::Exit(0), "a\nb\nccc\nd\n");
        assert_eq!(judge(&cut("a\nb\nc"), &whole), Verdict::Same);
        assert_eq!(judge(&whole, &cut("a\nb\ncc")), Verdict::Same);
        assert_eq!(judge(&cut("a\nx\nc"), &whole), Verdict::WorseOutput);
    }

    #[test]
    fn written_files_are_compared() {
        let dir = tempfile::tempdir().unwrap();
        let with = |name: &str, content: &[u8]| {
            let scratch = crate::scratch::Scratch::copy_of(dir.path()).unwrap();
            std::fs::write(scratch.path().join(name), content).unwrap();
            Outcome { written: scratch.written().unwrap(), ..outcome(End::Exit(0), "x") }
        };
        let judge = |a: &Outcome, b: &Outcome| pair(a, None, b, &settings());
        assert_eq!(judge(&with("f", b"took 1 ms"), &with("f", b"took 22 ms")).0, Verdict::Same);
        assert_eq!(judge(&with("f", b"\0a"), &with("f", b"\0a")).0, Verdict::Same);
        let (verdict, detail) = judge(&with("f", b"\0a"), &with("f", b"\0b"));
        assert_eq!((verdict, detail.as_deref()), (Verdict::WorseFiles, Some("f: the bytes differ")));
        assert_eq!(
            judge(&with("f", b"\0a"), &with("f", b"\0ab")).1.as_deref(),
            Some("f: direct 2 bytes, remote 3 bytes")
        );
        assert_eq!(judge(&with("f", b"1"), &with("g", b"1")).1.as_deref(), Some("f: written only direct"));
        let ignoring = Resolved { ignore_files: vec!["*.log".into()], ..settings() };
        assert_eq!(pair(&with("a.log", b"1"), None, &with("a.log", b"2"), &ignoring).0, Verdict::Same);
    }

    #[test]
    fn single_runs() {
        let judge = |end: End| single(&outcome(end, ""), &settings()).0;
        assert_eq!(judge(End::Exit(0)), Verdict::Ok);
        assert_eq!(judge(End::Exit(2)), Verdict::Waived);
        assert_eq!(judge(End::Exit(1)), Verdict::Failed);
        assert_eq!(judge(End::TimedOut), Verdict::Failed);
    }
}
