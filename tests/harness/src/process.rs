//! What the kernel knows of a process: whether it lives, what it holds, where it stands.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Whether a process exists; one that is dead but not waited for does not count.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    stat_field(pid, 0).is_some_and(|state| state != "Z" && state != "X")
}

/// A field of `/proc/PID/stat` behind the name: 0 is the state, 1 the parent.
fn stat_field(pid: u32, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(index).map(str::to_owned)
}

/// Waits until a process is gone; false if it is still there after `patience`.
#[must_use]
pub fn is_gone_within(pid: u32, patience: Duration) -> bool {
    let start = Instant::now();
    while is_alive(pid) {
        if start.elapsed() > patience {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Every process of the machine.
fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The living children of a process.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let parent = pid.to_string();
    all().filter(|child| stat_field(*child, 1).as_deref() == Some(&parent) && is_alive(*child)).collect()
}

/// The open descriptors of a process, each as what it refers to; anonymous ones by kind.
#[must_use]
pub fn descriptors(pid: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let name = |path: &Path| fs::read_link(path).ok().map(|target| target.display().to_string());
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| name(&entry.path())).collect();
    names.sort();
    names
}

/// How many descriptors of each kind: `socket`, `pipe`, `anon_inode`, or the path.
#[must_use]
pub fn descriptor_kinds(pid: u32) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for name in descriptors(pid) {
        let kind = name.split_once(":[").map_or(name.as_str(), |(kind, _)| kind).to_owned();
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

/// Number of threads.
#[must_use]
pub fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// Resident anonymous memory in bytes: what the process itself has grown to, without files and shared memory.
#[must_use]
pub fn anonymous_memory(pid: u32) -> u64 {
    status_bytes(pid, "RssAnon:")
}

/// Resident memory in bytes, shared memory included.
#[must_use]
pub fn resident_memory(pid: u32) -> u64 {
    status_bytes(pid, "VmRSS:")
}

fn status_bytes(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
}

/// Sends a signal to a process, or, for a negative number, to its group.
pub fn signal(pid: i32, signal: i32) {
    // SAFETY: plain numbers.
    unsafe { libc::kill(pid, signal) };
}

/// Kills a process at once.
pub fn kill(pid: u32) {
    signal(i32::try_from(pid).expect("process ids are small"), libc::SIGKILL);
}

/// Where every thread of a process stands, for the report on a hang: from the kernel, and from gdb where it is installed.
#[must_use]
pub fn stacks(pid: u32) -> String {
    let read = |path: String| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let mut text = format!("process {pid} ({}):\n", read(format!("/proc/{pid}/cmdline")).replace('\0', " "));
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return text + "  gone\n" };
    for task in tasks.flatten() {
        let task = task.path().display().to_string();
        let state = read(format!("{task}/status"))
            .lines()
            .find_map(|line| Some(line.strip_prefix("State:")?.trim().to_owned()));
        let _ = writeln!(
            text,
            "  {} {} wchan={} syscall={}",
            read(format!("{task}/comm")),
            state.unwrap_or_default(),
            read(format!("{task}/wchan")),
            read(format!("{task}/syscall")),
        );
    }
    let gdb = std::process::Command::new("timeout")
        .args(["20", "gdb", "-p", &pid.to_string(), "-batch", "-ex", "thread apply all backtrace 25"])
        .stdin(std::process::Stdio::null())
        .output();
    if let Ok(output) = gdb {
        let lines = String::from_utf8_lossy(&output.stdout);
        // Frames of the system's calls and of this repository's folders; what libraries have between them says little.
        let ours = [
            " at ../sysdeps",
            " at softgpu/",
            " at server/",
            " at shim/",
            " at protocol/",
            " at cudart/",
            " in cu",
        ];
        for line in lines.lines() {
            if line.starts_with("Thread")
                || line.starts_with('#') && ours.iter().any(|part| line.contains(part))
            {
                let _ = writeln!(text, "    {}", line.chars().take(150).collect::<String>());
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let own = std::process::id();
        assert!(is_alive(own) && threads(own) > 0);
        assert!(anonymous_memory(own) > 0 && resident_memory(own) >= anonymous_memory(own));
        let before = descriptors(own).len();
        let file = fs::File::open("/proc/self/exe").unwrap();
        // Other tests of this process may open files at the same time, but none closes one of these.
        assert!(descriptors(own).len() > before.saturating_sub(2));
        drop(file);
    }

    #[test]
    fn a_child_is_found_and_its_end_seen() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(children(std::process::id()).contains(&child.id()));
        assert!(stacks(child.id()).contains("sleep"));
        kill(child.id());
        assert!(is_gone_within(child.id(), Duration::from_secs(5)));
        child.wait().unwrap();
    }
}
