//! Command lines, settings and requests of the documents: `pxos-server` and `pxctl` take them as they stand there. What a command
//! then does is the affair of other tests; here it is only that no page has an option, a word or a key that there is not.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::tool;
use pxos_protocol::admin::Request;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The pages with commands, and what each is called.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut paths: Vec<PathBuf> = ["README.md", "SECURITY.md", "python/README.md"].map(Into::into).into();
    let folder = std::fs::read_dir(root.join("docs")).expect("docs/ is there");
    paths.extend(folder.map(|entry| Path::new("docs").join(entry.expect("it can be read").file_name())));
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "md"));
    let read = |path: &PathBuf| std::fs::read_to_string(root.join(path)).expect("a page can be read");
    paths.iter().map(|path| (path.display().to_string(), read(path))).collect()
}

/// Lines of indented and fenced blocks, those that go on after a backslash put together.
fn code_lines(page: &str) -> Vec<String> {
    let (mut lines, mut fenced, mut going_on) = (Vec::<String>::new(), false, false);
    for line in page.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced || line.starts_with("    ") {
            let text = line.trim();
            match lines.last_mut().filter(|_| going_on) {
                Some(last) => last.push_str(text.trim_end_matches('\\')),
                None => lines.push(text.trim_end_matches('\\').into()),
            }
            going_on = text.ends_with('\\');
        }
    }
    lines
}

/// Words between backticks in running text and tables.
fn spans(page: &str) -> Vec<String> {
    let text = page.lines().filter(|line| !line.starts_with("    ")).collect::<Vec<_>>().join(" ");
    text.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

/// The arguments of each call of `program` in a line of shell: up to whatever ends the command.
fn calls(line: &str, program: &str) -> Vec<String> {
    let line = line.split(" #").next().unwrap_or_default();
    let commands = line.split(['&', ';', '|', '(', ')', '>']).map(str::trim);
    let of = |command: &str| {
        let (called, arguments) = command.split_once(' ')?;
        (Path::new(called).file_name()? == program).then(|| arguments.trim().to_owned())
    };
    commands.filter_map(of).collect()
}

/// As a shell splits and expands them, in a folder where nothing is.
fn words(arguments: &str) -> Vec<String> {
    let output = Command::new("sh")
        .args(["-c", &format!("printf '%s\\n' {arguments}")])
        .env("XDG_RUNTIME_DIR", "/run/user/1")
        .current_dir("/")
        .output()
        .expect("a shell can be started");
    let text = String::from_utf8(output.stdout).expect("words are text");
    text.lines().filter(|word| !word.is_empty() && *word != "…").map(ToOwned::to_owned).collect()
}

/// What a program says against these arguments, if it is refused.
fn refusal(program: &str, arguments: &[String]) -> Option<String> {
    let mut command = Command::new(tool(program));
    for name in ["LD_PRELOAD", "PXOS_SERVER", "PXOS_LISTEN", "PXOS_CONTROL"] {
        command.env_remove(name);
    }
    let output = command.args(arguments).output().expect("it can be started");
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn the_server_takes_every_command_line_of_the_documents() {
    let (mut tried, mut wrong) = (0, Vec::new());
    for (name, page) in pages() {
        for call in code_lines(&page).iter().flat_map(|line| calls(line, "pxos-server")) {
            let mut arguments = words(&call);
            arguments.extend(["--config".into(), "/dev/null".into(), "--check-config".into()]);
            tried += 1;
            wrong.extend(
                refusal("pxos-server", &arguments).map(|why| format!("{name}: pxos-server {call}\n{why}")),
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tried >= 8, "only {tried} command lines were found");
}

#[test]
fn pxctl_takes_every_command_line_of_the_documents() {
    let (mut tried, mut wrong) = (0, Vec::new());
    for (name, page) in pages() {
        let in_code = code_lines(&page).into_iter().flat_map(|line| calls(&line, "pxctl"));
        // In running text a colon ends what pxctl is called with, and bars stand between words to choose from.
        let in_text =
            spans(&page).into_iter().filter(|span| span.starts_with("pxctl ") && !span.contains('|'));
        let in_text =
            in_text.filter(|span| !span.contains(": ")).map(|span| span["pxctl ".len()..].to_owned());
        for call in in_code.chain(in_text) {
            // A session has a number; every other name that stands for something may be a name.
            let mut arguments = words(&call.replace("SESSION", "7"));
            // The help of a command is shown where everything before `--help` is known to it.
            arguments.push("--help".into());
            tried += 1;
            wrong.extend(refusal("pxctl", &arguments).map(|why| format!("{name}: pxctl {call}\n{why}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tried >= 30, "only {tried} command lines were found");
}

#[test]
fn the_server_takes_the_settings_of_the_documents() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("server.toml");
    let (mut tried, mut wrong) = (0, Vec::new());
    for (name, page) in pages() {
        for block in page.split("\n\n") {
            // A block with certificates has them made first, in `tls.rs`.
            let first = block.lines().next().unwrap_or_default();
            let is_settings = first.starts_with("    listen = ") || first.starts_with("    [[vm]]");
            if !is_settings || block.contains("[tls]") {
                continue;
            }
            std::fs::write(&file, block).expect("the folder takes files");
            let arguments = ["--config".to_owned(), file.display().to_string(), "--check-config".to_owned()];
            tried += 1;
            wrong.extend(refusal("pxos-server", &arguments).map(|why| format!("{name}:\n{block}\n{why}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tried >= 1, "no settings were found");
}

#[test]
fn the_control_socket_takes_every_request_of_its_page() {
    let (_, page) = pages().into_iter().find(|(name, _)| name == "docs/control.md").expect("it is a page");
    let requests: Vec<String> = spans(&page).into_iter().filter(|span| span.starts_with("{\"op\"")).collect();
    assert!(requests.len() >= 10, "only {requests:?}");
    for request in requests {
        let read = serde_json::from_str::<Request>(&request);
        assert!(read.is_ok(), "docs/control.md: {request}: {}", read.unwrap_err());
    }
}
