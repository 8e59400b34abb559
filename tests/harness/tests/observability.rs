//! What an operator sees: metrics, top, accounts and advice, of guests that really run.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Fixture, Running, Server, probe};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port can be had");
    listener.local_addr().expect("a listener has an address").to_string()
}

/// A guest that holds memory, was refused some, and works for ever.
fn worker(server: &Server) -> Running {
    let guest = server.guest(probe()).args(["init", "alloc", "8388608", "alloc", "99999999", "work"]).start();
    guest.wait_for("working");
    guest
}

fn scrape(address: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("metrics are served");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("a request is small");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    text
}

/// The sum of a metric's lines.
fn value(text: &str, name: &str) -> f64 {
    let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    lines.filter_map(|line| line.rsplit(' ').next()).filter_map(|value| value.parse::<f64>().ok()).sum()
}

#[test]
fn metrics_move_with_the_work() {
    let address = free_port();
    let server = Fixture::new()
        .arg(&format!("--metrics-listen={address}"))
        .configuration("[default]\nmemory_max = \"64M\"")
        .start();
    assert!(scrape(&address).ends_with("# EOF\n"), "nobody is there yet");
    let guest = worker(&server);
    let (first, mut second) = (scrape(&address), String::new());
    for _ in 0..100 {
        second = scrape(&address);
        if value(&second, "pxos_vm_gpu_seconds_total") > value(&first, "pxos_vm_gpu_seconds_total")
            && value(&second, "pxos_vm_launches_total") > value(&first, "pxos_vm_launches_total")
        {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    for name in ["pxos_vm_gpu_seconds_total", "pxos_vm_launches_total", "pxos_vm_copied_bytes_total"] {
        assert!(value(&second, name) > value(&first, name), "{name} does not grow:\n{second}");
    }
    for name in ["pxos_process_launches_total", "pxos_process_gpu_seconds_total", "pxos_vm_processes"] {
        assert!(value(&second, name) > 0.0, "{name} is 0:\n{second}");
    }
    assert!(value(&second, "pxos_vm_memory_bytes") >= 8_388_608.0, "{second}");
    assert!((value(&second, "pxos_vm_quota_refusals_total") - 1.0).abs() < 0.5, "{second}");
    drop(guest);
    server.wait("empty", |status| status.sessions.is_empty());
    let accounts = server.pxctl(&["accounting", "--csv"]).stdout;
    let fields: Vec<&str> = accounts.lines().nth(1).expect("one VM").split(',').collect();
    let number = |index: usize| fields[index].parse::<f64>().expect("a number");
    assert!(number(3) > 0.0 && number(5) > 0.0 && number(6) > 0.0, "time, memory and launches: {accounts}");
    assert!((number(9) - 1.0).abs() < 0.5, "refusals: {accounts}");
}

#[test]
fn top_shows_vms_and_their_processes() {
    let server = Fixture::new().configuration("[default]\nmemory_max = \"64M\"").start();
    let _guest = worker(&server);
    let shown = server.pxctl(&["top", "--once", "--interval", "0.5"]).stdout;
    assert!(shown.contains("VM / PROCESS") && shown.contains("pxos-probe"), "{shown}");
    assert!(
        shown.lines().any(|line| line.starts_with("unix:") && line.contains("13%")),
        "8 of 64 MiB: {shown}"
    );
    let json = server.pxctl(&["top", "--json", "--interval", "0.5"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let share = json["vms"][0]["usage"]["share"].as_f64().expect("a share");
    assert!(share > 0.0 && share < 2.0, "{json}");
    assert!(json["sessions"][0]["usage"]["launch_rate"].as_f64().is_some_and(|rate| rate > 0.0), "{json}");
}

/// Stands in for an advisor: answers each request with this content, and passes on what was asked.
fn advisor(content: &'static str) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port can be had");
    let url = format!("http://{}/v1", listener.local_addr().expect("a listener has an address"));
    let (sender, asked) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(&stream);
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) <= 2 {
                    break;
                }
                let lower = line.to_lowercase();
                if let Some(value) = lower.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
                head += &line;
            }
            let mut body = vec![0; length];
            let _ = reader.read_exact(&mut body);
            let _ = sender.send(format!("{head}{}", String::from_utf8_lossy(&body)));
            let answer =
                serde_json::json!({ "choices": [{ "message": { "content": content } }] }).to_string();
            let _ = write!(
                &stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
                answer.len()
            );
        }
    });
    (url, asked)
}

#[test]
fn advice_from_outside_is_checked_and_followed_only_when_told() {
    let (url, asked) = advisor(
        "{\"advice\":[{\"vm\":\"red\",\"why\":\"it waits\",\"set\":{\"weight\":300}},\
         {\"vm\":\"red\",\"why\":\"more\",\"set\":{\"weight\":0}},\
         {\"vm\":\"red\",\"why\":\"open the door\",\"set\":{\"policy\":\"allow\"}},\
         {\"vm\":\"nobody\",\"why\":\"who\",\"set\":{\"weight\":1}}]}",
    );
    let server = Fixture::new()
        .configuration(&format!(
            "[advisor]\nurl = \"{url}\"\nmodel = \"stand-in\"\n[[vm]]\nname = \"red\"\nsocket = \"RED\"\n"
        ))
        .replacing("RED", "red.sock")
        .start();
    let weight = || -> u64 {
        let shown = server.pxctl(&["vm", "show", "--json", "red"]).stdout;
        let vm: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        vm["limits"]["weight"].as_u64().expect("a weight")
    };
    let shown = server.pxctl(&["advise", "--measure", "0.3"]).stdout;
    assert_eq!(weight(), 100, "advice is only shown: {shown}");
    for part in [
        "red (advisor): it waits",
        "pxctl vm set red weight=300",
        "refused: weight: 0 is not a weight",
        "refused: policy is for the operator alone",
        "there is no VM 'nobody'",
    ] {
        let flat = shown.replace("\n  ", " ");
        assert!(flat.contains(part), "'{part}' is not in\n{shown}");
    }
    let question = asked.recv().expect("it was asked");
    assert!(question.starts_with("POST /v1/chat/completions HTTP/1.1"), "{question}");
    assert!(question.contains("\"model\":\"stand-in\"") && question.contains("quota period"), "{question}");
    let shown = server.pxctl(&["advise", "--measure", "0.3", "--apply"]).stdout;
    assert!(shown.contains("applied: VM red: weight: 100 -> 300"), "{shown}");
    assert_eq!(weight(), 300);
}
