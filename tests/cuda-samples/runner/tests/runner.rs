//! The runner as a whole, with shell scripts for samples and for the server.
//!
//! A sample learns how it is run from `WAY`, which the tests set with `--direct-env` and `--remote-env`.

#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a test module"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A folder with samples.
struct Folder(TempDir);

impl Folder {
    fn new(samples: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, text) in samples {
            folder.script(&format!("samples/{name}"), text);
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Runs the runner; the report is read back.
    fn run(&self, args: &[&str]) -> (Output, Value) {
        let report = self.path("report.json");
        let output = Command::new(env!("CARGO_BIN_EXE_pxos-samples"))
            .arg(self.path("samples"))
            .args(["--direct-env", "WAY=direct", "--remote-env", "WAY=remote", "--json"])
            .arg(&report)
            .args(args)
            .output()
            .unwrap();
        let text = fs::read_to_string(&report).unwrap_or_else(|_| "null".into());
        (output, serde_json::from_str(&text).unwrap())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn verdict<'a>(report: &'a Value, name: &str) -> &'a str {
    let samples = report["samples"].as_array().unwrap();
    samples.iter().find(|sample| sample["name"] == name).unwrap_or_else(|| panic!("no {name}"))["verdict"]
        .as_str()
        .unwrap()
}

#[test]
fn verdicts_of_both_modes() {
    let folder = Folder::new(&[
        ("same", "echo took $$.5 ms; echo file $$.5 s > log; exit 0"),
        ("waived", "exit 2"),
        ("output", "echo $WAY"),
        ("files", "echo $WAY > result"),
        ("crash", "[ $WAY = direct ] || kill -SEGV $$"),
        ("better", "[ $WAY = remote ]"),
        ("fails", "exit 7"),
        ("deep/er/same2", "cat data; echo 2 >> data; cat data"),
        ("notes.txt", "exit 1"),
    ]);
    fs::write(folder.path("samples/deep/er/data"), "1\n").unwrap();
    let (output, report) = folder.run(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    for (name, want) in [
        ("same", "same"),
        ("waived", "waived"),
        ("output", "worse_output"),
        ("files", "worse_files"),
        ("crash", "worse_exit"),
        ("better", "better"),
        ("fails", "fails_both"),
        ("deep/er/same2", "same"),
    ] {
        assert_eq!(verdict(&report, name), want, "{name}");
    }
    assert_eq!(report["samples"].as_array().unwrap().len(), 8);
    assert_eq!(report["worse"], 3);
    let table = text(&output.stdout);
    assert!(table.lines().take(9).all(|line| line.chars().count() <= 80), "{table}");
    assert!(table.contains("line 1: direct `direct`, remote `remote`"), "{table}");
    // The original stays as it was.
    assert_eq!(fs::read_to_string(folder.path("samples/deep/er/data")).unwrap(), "1\n");

    let (output, _) = folder.run(&[
        "--only", "s*", "--only", "deep/*", "--only", "waived", "--only", "fails", "--only", "better",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let (output, report) =
        folder.run(&["--skip", "output", "--skip", "files", "--skip", "crash", "--jobs", "4"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(report["samples"][0]["name"], "better");
}

#[test]
fn single_modes() {
    let folder = Folder::new(&[("a", "[ $WAY = direct ]"), ("b", "exit 2"), ("c", "true")]);
    let (output, report) = folder.run(&["--mode", "direct"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!((verdict(&report, "a"), verdict(&report, "b")), ("ok", "waived"));
    let (output, report) = folder.run(&["--mode", "remote"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!((verdict(&report, "a"), verdict(&report, "c")), ("failed", "ok"));
    assert!(report["samples"][0]["direct"].is_null());
}

#[test]
fn samples_that_vary_by_themselves() {
    // $$ is the process number: never the same, and not marked as one.
    let folder = Folder::new(&[("varies", "echo $$"), ("does_not", "echo $WAY")]);
    let (_, report) = folder.run(&[]);
    assert_eq!(verdict(&report, "varies"), "worse_output");
    let (_, report) = folder.run(&["--repeat-native"]);
    assert_eq!((verdict(&report, "varies"), verdict(&report, "does_not")), ("varies", "worse_output"));
}

#[test]
fn a_list_excuses_what_varies_and_nothing_else() {
    let folder =
        Folder::new(&[("varies", "echo $WAY"), ("does_not", "echo $WAY"), ("ends", "[ $WAY = direct ]")]);
    let list = folder.path("varying.toml");
    fs::write(&list, "# Seen on a GPU.\n\n[sample]\nvaries = 'why'\nends = 'why'\n").unwrap();
    let (output, report) = folder.run(&["--varying", list.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(verdict(&report, "varies"), "varies");
    assert_eq!((verdict(&report, "does_not"), verdict(&report, "ends")), ("worse_output", "worse_exit"));
}

#[test]
fn the_list_is_made_from_reports() {
    let folder = Folder::new(&[("varies", "echo $$"), ("does_not", "echo 1")]);
    let (_, report) = folder.run(&["--repeat-native"]);
    assert!(report["samples"][1]["varies"].as_str().unwrap().starts_with("line 1: direct `"));
    assert!(report["samples"][0]["varies"].is_null());
    let list = folder.path("varying.toml");
    fs::write(&list, "# Seen on a GPU.\n\n[sample]\n").unwrap();
    let note = || {
        let mut runner = Command::new(env!("CARGO_BIN_EXE_pxos-samples"));
        runner.arg("--note-varying").arg(folder.path("report.json")).arg("--varying").arg(&list);
        text(&runner.output().unwrap().stdout)
    };
    assert_eq!((note().as_str(), note().as_str()), ("1 added\n", "0 added\n"));
    assert!(
        fs::read_to_string(&list)
            .unwrap()
            .starts_with("# Seen on a GPU.\n\n[sample]\n\"varies\" = \"line 1: ")
    );
    let (output, report) = folder.run(&["--varying", list.to_str().unwrap()]);
    assert_eq!((output.status.code(), verdict(&report, "varies")), (Some(0), "varies"));
}

#[test]
fn direct_runs_of_another_machine() {
    let folder = Folder::new(&[
        ("same", "echo on device $DEVICE; echo in $PWD"),
        ("other", "echo $WAY"),
        ("varies", "echo $$"),
        ("new", "echo 1"),
    ]);
    let earlier = folder.path("earlier.json");
    let (output, _) =
        folder.run(&["--direct-env", "DEVICE=GPU", "--repeat-native", "--skip", "new", "--mode", "direct"]);
    assert_eq!(output.status.code(), Some(0));
    fs::rename(folder.path("report.json"), &earlier).unwrap();
    let run = |rename: &str| {
        Command::new(env!("CARGO_BIN_EXE_pxos-samples"))
            .arg(folder.path("samples"))
            .arg("--against")
            .arg(&earlier)
            .args(["--remote-env", "WAY=remote", "--remote-env", "DEVICE=soft", "--rename", rename, "--json"])
            .arg(folder.path("report.json"))
            .output()
            .unwrap()
    };
    assert_eq!(run("soft=GPU").status.code(), Some(1));
    let report: Value =
        serde_json::from_str(&fs::read_to_string(folder.path("report.json")).unwrap()).unwrap();
    for (name, want) in
        [("same", "same"), ("other", "worse_output"), ("varies", "varies"), ("new", "skipped")]
    {
        assert_eq!(verdict(&report, name), want, "{name}");
    }
    run("x=y");
    let report: Value =
        serde_json::from_str(&fs::read_to_string(folder.path("report.json")).unwrap()).unwrap();
    assert_eq!(verdict(&report, "same"), "worse_output");
}

#[test]
fn a_run_is_cut_into_parts() {
    let log = "echo x >> \"$LOG.$(basename $0)\"";
    let folder = Folder::new(&[("a", log), ("b", log), ("c", log), ("d", log), ("e", log)]);
    let env = format!("LOG={}", folder.path("log").display());
    let run = |args: &[&str]| folder.run(&[&["--env", &env], args].concat());
    let names = |report: &Value| -> String {
        report["samples"].as_array().unwrap().iter().map(|sample| sample["name"].as_str().unwrap()).collect()
    };
    let (output, report) = run(&["--shard", "2/2"]);
    assert_eq!((output.status.code(), names(&report).as_str()), (Some(0), "bd"));
    let (output, report) = run(&["--resume", "--budget", "0"]);
    assert_eq!((output.status.code(), names(&report).as_str()), (Some(3), "bd"));
    assert!(text(&output.stdout).contains("3 samples were not started in time"), "{}", text(&output.stdout));
    let (output, report) = run(&["--resume", "--jobs", "2"]);
    assert_eq!((output.status.code(), names(&report).as_str()), (Some(0), "abcde"));
    // Each ran once directly and once remoted, whatever the number of parts.
    for name in ["a", "b", "c", "d", "e"] {
        assert_eq!(fs::read_to_string(folder.path(&format!("log.{name}"))).unwrap(), "x\nx\n", "{name}");
    }
    let (output, _) = run(&["--shard", "3/2"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn samples_that_need_the_device_for_themselves_get_it() {
    // Whoever finds the other's mark was not alone.
    let alone = "[ -e \"$MARK\" ] && echo together; touch \"$MARK\"; sleep 0.2; rm -f \"$MARK\"";
    let folder = Folder::new(&[("a", alone), ("b", alone), ("c", alone)]);
    let file = folder.path("args.toml");
    fs::write(&file, "[default]\nalone = true\n").unwrap();
    let env = format!("MARK={}", folder.path("mark").display());
    let (_, report) = folder.run(&[
        "--jobs",
        "3",
        "--args-file",
        file.to_str().unwrap(),
        "--env",
        &env,
        "--mode",
        "direct",
    ]);
    for sample in report["samples"].as_array().unwrap() {
        assert_eq!(sample["direct"]["stdout"], "");
    }
}

#[test]
fn the_args_file_is_obeyed() {
    let folder = Folder::new(&[
        ("args", "echo \"$# $1\""),
        ("slow", "[ $WAY = direct ] || sleep 30"),
        ("shuffled", "[ $WAY = direct ] && printf 'a\\nb\\n' || printf 'b\\na\\n'"),
        ("host", "echo host: $WAY"),
        ("three", "exit 3"),
        ("never", "exit 1"),
    ]);
    let file = folder.path("args.toml");
    fs::write(
        &file,
        "[default]\nmask_lines = ['host:']\n[sample.args]\nruns = [['x y'], ['1', '2']]\n[sample.slow]\ntimeout = 0.5\n\
         [sample.shuffled]\nunordered = true\n[sample.three]\nwaive = [3]\n[sample.never]\nskip = 'not today'\n",
    )
    .unwrap();
    let (output, report) = folder.run(&["--args-file", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    for (name, want) in [
        ("slow", "worse_exit"),
        ("shuffled", "same"),
        ("host", "same"),
        ("three", "waived"),
        ("never", "skipped"),
    ] {
        assert_eq!(verdict(&report, name), want, "{name}");
    }
    let outputs: Vec<_> = report["samples"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|sample| sample["name"] == "args")
        .map(|sample| sample["direct"]["stdout"].as_str().unwrap())
        .collect();
    assert_eq!(outputs, ["1 x y\n", "2 1\n"]);
}

/// A server that listens where it is told, says so and ends on SIGTERM; python because a shell cannot listen.
const SERVER: &str = r#"exec python3 -c '
import signal, socket, sys
where = sys.argv[1].removeprefix("unix:")
server = socket.socket(socket.AF_UNIX)
server.bind(where)
server.listen()
print("listening", flush=True)
def end(*_):
    print("ended", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
while True:
    server.accept()
' "$2""#;

#[test]
fn a_server_is_started_and_stopped() {
    let folder = Folder::new(&[(
        "asks",
        "[ $WAY = direct ] || { [ -S \"${PXOS_SERVER#unix:}\" ] && echo there >&2; }",
    )]);
    let server = folder.script("server", SERVER);
    let kept = folder.path("kept");
    let args = ["--start-server", server.to_str().unwrap(), "--keep", kept.to_str().unwrap()];
    let (output, report) = folder.run(&args);
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(report["samples"][0]["remote"]["stderr"], "there\n");
    assert_eq!(fs::read_to_string(kept.join("server.log")).unwrap(), "listening\nended\n");
    assert_eq!(fs::read_to_string(kept.join("asks.remote.err")).unwrap(), "there\n");

    let broken = folder.script("broken", "echo cannot listen; exit 4");
    let (output, _) = folder.run(&["--start-server", broken.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("cannot listen"), "{}", text(&output.stderr));
}

#[test]
fn mistakes_of_the_user_are_named() {
    let folder = Folder::new(&[("a", "true")]);
    let runner = |args: &[&str], path: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_pxos-samples")).arg(path).args(args).output().unwrap();
        (output.status.code(), text(&output.stderr), text(&output.stdout))
    };
    let samples = folder.path("samples");
    let (code, error, _) = runner(&[], &samples);
    assert!(code == Some(2) && error.contains("--remote-preload"), "{error}");
    let (code, error, _) = runner(&["--mode", "direct", "--only", "zzz"], &samples);
    assert!(code == Some(2) && error.contains("no programs"), "{error}");
    let (code, error, _) = runner(&["--mode", "direct", "--timeout", "-1"], &samples);
    assert!(code == Some(2) && !error.contains("panicked"), "{error}");
    let (code, error, _) = runner(&["--remote-preload", "/no/such.so"], &samples);
    assert!(code == Some(2) && error.contains("/no/such.so"), "{error}");
    let (code, _, out) = runner(&["--list"], &samples);
    assert_eq!((code, out.as_str()), (Some(0), "a\n"));
}
