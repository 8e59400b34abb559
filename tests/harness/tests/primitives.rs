//! Primitives beside CUDA calls: from C, from a shell through the stub's files, from Python, and from guests that mean harm.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Fixture, Server, Way, skipped, tool};
use pxos_protocol::codec::Reader;
use pxos_protocol::control::decode;
use pxos_protocol::frame::control;
use pxos_protocol::primitive::{Argument, Compilation, Completion, Submission, WAIT};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const ADD: &str = include_str!("../../../primitives/examples/vector_add.px");

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The C program of `shim/tests/c`; `None` where there is no C compiler.
fn c_program(folder: &TempDir) -> Option<PathBuf> {
    let program = folder.path().join("primitives");
    let shim = repository().join("shim");
    let built = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&program)
        .arg("-I")
        .arg(shim.join("include"))
        .arg(shim.join("tests/c/primitives.c"))
        .arg(tool("libpxshim.so"))
        .output()
        .ok()?;
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(program)
}

#[test]
fn a_c_program_submits_kernels_each_way() {
    let folder = TempDir::new().expect("a temporary folder can be made");
    let Some(program) = c_program(&folder) else { return skipped("no C compiler") };
    let server = Fixture::new().tcp().start();
    for way in Way::REMOTED {
        let finished = server.program(&program, way).passes();
        assert_eq!(finished.stdout, "0 failures\n", "{way:?}: {finished}");
    }
}

/// Runs a script of bash in which file 3 is the device.
fn shell(server: &Server, file: &str, script: &str) -> Vec<String> {
    let script = format!("exec 3<>{file}\n{script}");
    let finished = server.guest("/bin/bash").args(["-c", &script]).passes();
    finished.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn a_shell_talks_to_the_device_file() {
    let server = Fixture::new().start();
    for file in ["/dev/pxos_gpu0", "/dev/vgpu_stub"] {
        let script = format!(
            "ask() {{ echo \"$1\" >&3; read -r answer <&3; echo \"$answer\"; }}\n\
             ask NOP; ask 'VECTOR_ADD 100'; ask STATUS; ask 'FLY me'\n\
             ask '{ADD}'\n\
             ask 'RUN vector_add a=[1,2,3] b=[10,20,30] output=[0,0,0] n=3'\n\
             ask 'RUN vector_add a=[1] b=[10,20,30] output=[0,0,0] n=3'\n\
             ask 'ALLOC 12'\n\
             ask $'GPU_KERNEL k\\nGPU_THREAD_CODE:\\n    LAOD x -> y\\nGPU_END'"
        );
        let lines = shell(&server, file, &script);
        let answers: Vec<serde_json::Value> =
            lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
        let statuses: Vec<u64> = answers.iter().filter_map(|answer| answer["status"].as_u64()).collect();
        assert_eq!(statuses, [0, 0, 0, 1, 0, 0, 700, 0, 300], "{lines:#?}");
        assert_eq!(answers[0]["message"], "NOP command successful");
        assert_eq!(answers[1]["message"], "Vector add passed: 100 elements, 0 errors");
        assert!(answers[2]["total"].as_u64().is_some_and(|total| total > 0));
        assert!(answers[3]["message"].as_str().is_some_and(|text| text.starts_with("Invalid command")));
        assert_eq!(answers[4]["compiled"]["kernels"][0]["name"], "vector_add");
        assert_eq!(answers[5]["results"]["output"], serde_json::json!([11.0, 22.0, 33.0]));
        assert!(answers[6]["line"].as_u64().is_some_and(|line| line > 0), "{}", lines[6]);
        assert_eq!(answers[8]["diagnostics"][0]["hint"], "did you mean `LOAD`?");
    }
}

#[test]
fn other_files_are_none_of_ours() {
    let server = Fixture::new().start();
    let script = "set -e; echo hello > file; read -r line < file; echo $line; echo more >> file; cat file; \
                  cat /nonexistent 2>/dev/null || echo none; (cat < /dev/pxos_gpu) 2>/dev/null || echo none";
    let finished = server.guest("/bin/bash").args(["-c", script]).passes();
    assert_eq!(finished.stdout, "hello\nhello\nmore\nnone\nnone\n", "{finished}");
    // Nothing of this was a reason to connect.
    assert!(server.status().sessions.is_empty());
}

const POLL: &str = "\
import os, select, struct
device = os.open('/dev/vgpu_stub', os.O_RDWR)
poller = select.poll()
poller.register(device, select.POLLIN)
assert poller.poll(0) == []
for number, command in enumerate([0, 1, 2, 99]):
    os.write(device, struct.pack('<HHIIxxxxQ', command, 0, number, 0, 0))
    assert poller.poll(30000) == [(device, select.POLLIN)]
    answer = b''
    while len(answer) < 268:
        answer += os.read(device, 268 - len(answer))
    identity, status, length, data = struct.unpack('<IiI256s', answer)
    assert identity == number
    print(status, data[:length].decode())
os.close(device)
";

#[test]
fn requests_of_the_stub_are_polled_and_read() {
    let server = Fixture::new().start();
    let Some(python) = python() else { return skipped("no Python 3.9") };
    let finished = server.guest(python).args(["-c", POLL]).passes();
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert_eq!(lines[0], "0 NOP command successful", "{finished}");
    assert_eq!(lines[1], "0 Vector add passed: 1024 elements, 0 errors");
    assert!(lines[2].starts_with("0 GPU: "), "{finished}");
    assert_eq!(lines[3], "-22 Invalid command");
}

const FILES: &str = "\
import ctypes, errno, fcntl, os, stat, struct, termios

def refused(number, call):
    try:
        call()
    except OSError as error:
        assert error.errno == number, error
    else:
        raise AssertionError('it was not refused')

libc = ctypes.CDLL(None, use_errno=True)
libc.fopen.restype = libc.fgets.restype = ctypes.c_void_p
libc.fopen.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
libc.fputs.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
libc.fgets.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p]
libc.fflush.argtypes = libc.fclose.argtypes = [ctypes.c_void_p]
for name in ['/dev/pxos_gpu0', '/dev/vgpu_stub']:
    assert os.path.exists(name) and not os.path.exists(name + '1')
    for told in [os.stat(name), os.lstat(name), os.stat(name, dir_fd=os.open('/', os.O_RDONLY))]:
        assert stat.S_ISCHR(told.st_mode) and told.st_mode & 0o777 == 0o660, told
    assert os.access(name, os.R_OK | os.W_OK) and os.access(name, os.F_OK) and not os.access(name, os.X_OK)
    refused(errno.ENOENT, lambda: os.stat(name + '1'))

    device = os.open(name, os.O_RDWR | os.O_NONBLOCK)
    refused(errno.EAGAIN, lambda: os.read(device, 1))
    assert stat.S_ISCHR(os.fstat(device).st_mode)
    refused(errno.ESPIPE, lambda: os.lseek(device, 0, os.SEEK_SET))
    refused(errno.ENOTTY, lambda: fcntl.ioctl(device, termios.TCGETS, bytes(64)))
    copy = os.dup(device)
    os.close(device)
    assert stat.S_ISCHR(os.fstat(copy).st_mode)
    os.set_blocking(copy, True)
    os.write(copy, b'NOP\\n')
    answer = os.read(copy, 100)
    assert b'NOP command successful' in answer, answer
    os.write(copy, b'NOP\\n')
    while struct.unpack('i', fcntl.ioctl(copy, termios.FIONREAD, bytes(4)))[0] < len(answer):
        pass
    assert os.read(copy, 100) == answer
    os.close(copy)

    for mode in [b'r+', b'w+']:
        stream = libc.fopen(name.encode(), mode)
        assert stream, (mode, ctypes.get_errno())
        assert libc.fputs(b'VECTOR_ADD 10\\n', stream) >= 0 and libc.fflush(stream) == 0
        line = ctypes.create_string_buffer(1000)
        assert libc.fgets(line, 1000, stream) and b'10 elements, 0 errors' in line.value, line.value
        libc.fclose(stream)
assert libc.fopen(b'/dev/pxos_gpu1', b'r') is None
a, b = __import__('socket').socketpair()
assert stat.S_ISSOCK(os.fstat(a.fileno()).st_mode)
assert stat.S_ISREG(os.stat('/proc/self/exe').st_mode)
print('all passed')
";

#[test]
fn the_files_are_devices_to_those_that_ask() {
    let server = Fixture::new().start();
    let Some(python) = python() else { return skipped("no Python 3.9") };
    let finished = server.guest(python).args(["-c", FILES]).passes();
    assert_eq!(finished.stdout, "all passed\n", "{finished}");
    let script = "test -c /dev/pxos_gpu0 && test -w /dev/vgpu_stub && ! test -x /dev/vgpu_stub && ! test -e /dev/pxos_gpu && \
                  stat -c %F /dev/pxos_gpu0 && ls /dev/vgpu_stub";
    let finished = server.guest("/bin/bash").args(["-c", script]).passes();
    assert_eq!(finished.stdout, "character special file\n/dev/vgpu_stub\n", "{finished}");
}

/// Every example: file, kernel, arguments. A program of statements has no kernel; its file is `input.f32`.
const EXAMPLES: [(&str, &str, &str); 12] = [
    ("vector_add", "vector_add", "a=random:3001 b=random:3001 output=zeros:3001 n=3001"),
    ("render_frame", "render_frame", "framebuffer=zeros:3200 width=64 height=50"),
    ("stencil", "stencil", "grid=random:3200 next=zeros:3200 width=64 height=50"),
    ("gaussian_blur", "gaussian_blur", "image=random:3200 blurred=zeros:3200 width=64 height=50"),
    ("color_correct", "color_correct", "image=random:3001 brightness=0.1"),
    ("filter_rows", "filter_rows", "value=random:3001 kept=zeros:3001 count=zeros:1 threshold=3"),
    (
        "train_neural_layer",
        "forward",
        "weights=random:3200 bias=random:50 input=random:64 output=zeros:50 inputs=64",
    ),
    (
        "train_neural_layer",
        "train_neural_layer",
        "weights=random:3200 bias=random:50 input=random:64 output=random:50 target=random:50 inputs=64 rate=0.01",
    ),
    ("library", "product", "a=random:6000 b=random:9000 c=zeros:5400"),
    ("library", "sorted", "keys=random:3001"),
    ("library", "encrypted", "data=random:3200 key=random:32 out=zeros:3200"),
    ("library", "digests", "data=random:3200 out=zeros:1600"),
];

/// A folder with what pxctl knows of this machine, where it was not measured but said here: how fast the device is, and the
/// way to it.
fn machine(server: &Server, speed: f64) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder can be made");
    let status = shell(server, "/dev/pxos_gpu0", "echo STATUS >&3; read -r answer <&3; echo \"$answer\"");
    let status: serde_json::Value = serde_json::from_str(&status[0]).expect(&status[0]);
    let name = status["name"].as_str().expect("the device has a name");
    let rate =
        |speed: f64| serde_json::json!({ "start": 1e-5, "bytes": 1e9 * speed, "operations": 1e9 * speed });
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let link = [1e9 * speed, 1e9 * speed];
    let known = serde_json::json!({ "cores": cores, "host": rate(1.0), "device": rate(speed), "link": link });
    std::fs::create_dir(folder.path().join("pxos")).expect("it is ours");
    let file = serde_json::json!({ name: known }).to_string();
    std::fs::write(folder.path().join("pxos/machine.json"), file).expect("it is ours");
    folder
}

#[test]
fn the_cost_model_decides_and_says_why_and_learns() {
    let server = Fixture::new().start();
    let file = repository().join("primitives/examples/vector_add.px").display().to_string();
    let values = ["a=random:20000", "b=random:20000", "output=zeros:20000", "n=20000"];
    let args: Vec<&str> = values.iter().flat_map(|value| ["--arg", *value]).collect();
    for (speed, place, said) in [
        (1000.0, "gpu", "vector_add: GPU: 234 KiB in, 78 KiB out, 0.01"),
        (0.001, "cpu", "vector_add: CPU: 0."),
    ] {
        let folder = machine(&server, speed);
        let pxctl = |args: &[&str]| {
            server
                .guest(tool("pxctl"))
                .args(["primitive"])
                .args(args)
                .env("XDG_STATE_HOME", folder.path())
                .passes()
        };
        let finished = pxctl(&[&["run", &file, "--on", "auto", "--json"], &args[..]].concat());
        let told: serde_json::Value = serde_json::from_str(&finished.stdout).expect(&finished.stdout);
        let launch = &told["launches"][0];
        assert_eq!(launch["on"], place, "{finished}");
        assert!(finished.stderr.contains(said) && finished.stderr.contains(" transfer"), "{finished}");
        // What it took is what the next prediction starts from, for this kernel and this place.
        let known = std::fs::read_to_string(folder.path().join("pxos/machine.json")).expect("it is kept");
        let known: serde_json::Value = serde_json::from_str(&known).expect(&known);
        let learnt =
            known.as_object().and_then(|all| all.values().next()).expect("a device")["learnt"].clone();
        let (name, ratios) = learnt.as_object().and_then(|all| all.iter().next()).expect("it has learnt");
        assert!(name.starts_with("vector_add-"), "{learnt}");
        let changed = usize::from(place == "cpu");
        assert!(ratios[changed] != 1.0 && ratios[1 - changed] == 1.0, "{learnt}");
        // Predicted and measured stand side by side.
        let finished = pxctl(&["bench", &file, "--size", "20000", "--repeat", "1", "--json"]);
        let told: serde_json::Value = serde_json::from_str(&finished.stdout).expect(&finished.stdout);
        let row = &told["kernels"][0];
        assert_eq!(row["results_equal"], true, "{finished}");
        for place in ["cpu", "gpu", "transfer"] {
            let positive = |what: &str| row[what][place].as_f64().is_some_and(|time| time > 0.0);
            assert!(positive("predicted_ms") && positive("measured_ms"), "{place}: {finished}");
        }
    }
}

#[test]
fn every_example_has_the_same_results_remoted_and_on_the_host() {
    let server = Fixture::new().start();
    let state = machine(&server, 1.0);
    let examples = repository().join("primitives/examples");
    let run = |on: &str, args: &[&str]| {
        let finished = server
            .guest(tool("pxctl"))
            .args(["primitive", "run", "--json", "--on", on])
            .args(args)
            .env("XDG_STATE_HOME", state.path())
            .passes();
        let told: serde_json::Value = serde_json::from_str(&finished.stdout).expect(&finished.stdout);
        assert!(told["launches"].as_array().is_some_and(|l| l.iter().all(|l| l["on"] == on)), "{finished}");
        told["arrays"].clone()
    };
    for (file, kernel, args) in EXAMPLES {
        let path = examples.join(format!("{file}.px")).display().to_string();
        let mut all = vec![path.as_str(), "--kernel", kernel];
        all.extend(args.split(' ').flat_map(|arg| ["--arg", arg]));
        let (mut here, mut there) = (run("cpu", &all), run("gpu", &all));
        if file == "filter_rows" {
            // Rows are kept in no defined order, and the rest stays zero.
            for told in [&mut here, &mut there] {
                let kept = told["kept"].as_array_mut().expect("an array");
                kept.sort_by_key(serde_json::Value::as_i64);
            }
        }
        assert!(here.as_object().is_some_and(|arrays| !arrays.is_empty()), "{kernel}");
        assert_eq!(here, there, "{kernel} of {file}");
    }
    // A program of statements: what it reads and writes is this process's.
    let folder = TempDir::new().expect("a temporary folder can be made");
    let input: Vec<u8> = (0..1000_u16).flat_map(|i| (f32::from(i) / 4.0).to_le_bytes()).collect();
    let (path, at) =
        (examples.join("process_data.px").display().to_string(), folder.path().display().to_string());
    let written = ["cpu", "gpu"].map(|on| {
        std::fs::write(folder.path().join("input.f32"), &input).expect("it can be written");
        run(on, &[&path, "--directory", &at]);
        std::fs::read(folder.path().join("output.f32")).expect("the program has written it")
    });
    assert!(written[0].len() == input.len() && written[0] == written[1] && written[0] != input);
    // Whatever is in the folder is run here.
    let all: Vec<&str> = EXAMPLES.iter().map(|(file, ..)| *file).chain(["process_data"]).collect();
    for entry in std::fs::read_dir(examples).expect("the examples are there").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(name.strip_suffix(".px").is_none_or(|name| all.contains(&name)), "{name} is not run");
    }
}

/// A Python that is no shim of a version manager: its own path.
fn python() -> Option<PathBuf> {
    let script = "import sys; assert sys.version_info >= (3, 9); print(sys.executable)";
    let told = Command::new("python3").args(["-c", script]).output().ok()?;
    told.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&told.stdout).trim()))
}

#[test]
fn the_python_package_takes_buffers_lists_and_device_arrays() {
    let Some(python) = python() else { return skipped("no Python 3.9") };
    let server = Fixture::new().start();
    for (preload, way) in [(true, Way::SharedMemory), (false, Way::Socket)] {
        let mut program = server.program(&python, way).arg(repository().join("python/tests/submit.py"));
        program = program.env("PYTHONPATH", repository().join("python"));
        if !preload {
            program = program.env("LD_PRELOAD", "").env("PXOS_SHIM", tool("libpxshim.so"));
        }
        let finished = program.passes();
        assert!(finished.stdout.ends_with("all passed\n"), "{finished}");
    }
}

/// A guest that speaks by hand, with a compiled program.
fn compiled(server: &Server) -> (pxos_harness::Guest, u64, u64) {
    let mut guest = server.begin();
    let context = guest.retain();
    let (result, payload) = guest
        .call(control::COMPILE_PRIMITIVE, context, |writer| writer.put_bytes(ADD.as_bytes()))
        .expect("an answer");
    assert_eq!(result, 0);
    let Ok(Compilation::Compiled(program)) = decode(&payload) else { panic!("the example compiles") };
    (guest, context, program.number)
}

fn submit(guest: &mut pxos_harness::Guest, context: u64, submission: &Submission) -> Completion {
    let (result, payload) =
        guest.call(control::SUBMIT_PRIMITIVE, context, |writer| submission.write(writer)).expect("an answer");
    assert_eq!(result, 0);
    Completion::read(&mut Reader::new(&payload)).expect("a completion")
}

#[test]
fn the_worker_believes_nothing_of_a_submission() {
    let server = Fixture::new().start();
    let before = server.settled();
    let (mut guest, context, program) = compiled(&server);
    let (result, payload) =
        guest.call(control::ALLOC_MEMORY, context, |writer| writer.put(4096_u64)).expect("an answer");
    assert_eq!(result, 0);
    let address: u64 = Reader::new(&payload).get().expect("an address");
    let array = |length: u64| Argument::Array { address, length };
    let good = Submission {
        program,
        kernel: 0,
        stream: 0,
        elements: 0,
        first: 0,
        flags: WAIT,
        arguments: vec![array(1024), array(1024), array(1024), Argument::Scalar(1024)],
    };
    assert_eq!(submit(&mut guest, context, &good).result, 0);
    let with = |at: usize, argument: Argument| {
        let mut other = good.clone();
        other.arguments[at] = argument;
        other
    };
    let refused = [
        with(0, array(1025)),
        with(0, array(u64::MAX - 1)),
        with(0, Argument::Array { address: u64::MAX - 8, length: 100 }),
        with(0, Argument::Array { address: 0x1000, length: 1 }),
        with(0, Argument::Array { address: address + 1, length: 4 }),
        with(0, Argument::Scalar(1)),
        with(3, array(1)),
        Submission { arguments: Vec::new(), ..good.clone() },
        Submission { kernel: 7, ..good.clone() },
        Submission { elements: u64::MAX, ..good.clone() },
        Submission { first: 5, ..good.clone() },
    ];
    for submission in &refused {
        let completion = submit(&mut guest, context, submission);
        assert_eq!((completion.result, completion.number), (1, 0), "{submission:?}: {completion:?}");
        assert!(!completion.message.is_empty());
    }
    let unknown = submit(&mut guest, context, &Submission { program: 99, ..good.clone() });
    assert_eq!(unknown.result, 500);
    // A fault, and everything still works.
    let outside = submit(&mut guest, context, &with(3, Argument::Scalar(5000)));
    assert_eq!(outside.result, 0, "no thread is beyond the arrays: {outside:?}");
    let mut many = with(3, Argument::Scalar(5000));
    many.elements = 5000;
    let outside = submit(&mut guest, context, &many);
    assert_eq!((outside.result, outside.line > 0, outside.index >= 1024), (700, true, true), "{outside:?}");
    assert_eq!(submit(&mut guest, context, &good).result, 0);
    // Submissions that nobody asks about do not pile up.
    let mut last = Completion::default();
    for _ in 0..100 {
        last = submit(&mut guest, context, &Submission { flags: 0, ..good.clone() });
    }
    assert_eq!(last.result, 701, "{last:?}");
    drop(guest);
    server.assert_settles_as(&before);
}

#[test]
fn loops_without_end_are_refused_before_they_run() {
    let text = "GPU_KERNEL k\nGPU_PARAM o int[]\nGPU_PARAM n int\nGPU_THREAD_CODE:\n    CALCULATE x = 0\n    \
                FOR i IN 0..n:\n        FOR j IN 0..n:\n            FOR k IN 0..n:\n                CALCULATE x = x ^ k\n    \
                STORE x -> o[0]\nGPU_END\n";
    let server = Fixture::new().start();
    let mut guest = server.begin();
    let context = guest.retain();
    let (_, payload) = guest
        .call(control::COMPILE_PRIMITIVE, context, |writer| writer.put_bytes(text.as_bytes()))
        .expect("an answer");
    let Ok(Compilation::Compiled(program)) = decode(&payload) else { panic!("it compiles") };
    let (_, payload) =
        guest.call(control::ALLOC_MEMORY, context, |writer| writer.put(4_u64)).expect("an answer");
    let address: u64 = Reader::new(&payload).get().expect("an address");
    let with = |n: u64| Submission {
        program: program.number,
        kernel: 0,
        stream: 0,
        elements: 0,
        first: 0,
        flags: WAIT,
        arguments: vec![Argument::Array { address, length: 1 }, Argument::Scalar(n)],
    };
    assert_eq!(submit(&mut guest, context, &with(10)).result, 0);
    let endless = submit(&mut guest, context, &with(i32::MAX as u64));
    assert_eq!(endless.result, 1, "{endless:?}");
    assert!(endless.message.contains("turns"), "{endless:?}");
}

#[test]
fn primitives_stand_under_the_memory_limit() {
    let server = Fixture::new().arg("--default-memory-max=1M").start();
    let script = "ask() { echo \"$1\" >&3; read -r answer <&3; echo \"$answer\"; }\nask 'ALLOC 1000000'; ask 'ALLOC 1000000'; ask 'VECTOR_ADD 1000000'";
    let lines = shell(&server, "/dev/pxos_gpu0", script);
    assert!(lines[0].contains("\"status\":0"), "{lines:?}");
    assert!(lines[1].contains("\"status\":2") && lines[2].contains("\"status\":2"), "{lines:?}");
}

#[test]
fn pxctl_tests_the_device() {
    let server = Fixture::new().start();
    let run = |command: &str| server.guest(tool("pxctl")).args(["gpu-test", command]).run();
    assert_eq!(run("nop").stdout, "NOP command successful\n");
    assert_eq!(run("vector_add").stdout, "Vector add passed: 1024 elements, 0 errors\n");
    let status = run("status");
    assert!(status.status.success() && status.stdout.starts_with("GPU: "), "{status}");
    let invalid = run("invalid_command");
    assert_eq!(invalid.code(), Some(1), "{invalid}");
    assert!(invalid.stderr == "Error: Invalid command\n" && invalid.stdout.is_empty(), "{invalid}");
}

/// The Python example of the README.
fn example() -> String {
    let readme = std::fs::read_to_string(repository().join("README.md")).expect("the README can be read");
    let start = readme.find("```python\n").expect("the README has a Python example") + "```python\n".len();
    let length = readme[start..].find("```").expect("the example ends");
    readme[start..start + length].to_owned()
}

#[test]
fn the_example_of_the_readme_and_numpy_work_in_a_fresh_environment() {
    let Some(python) = python() else { return skipped("no Python 3.9") };
    let folder = TempDir::new().expect("a temporary folder can be made");
    let (venv, package) = (folder.path().join("venv"), folder.path().join("package"));
    let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    // pip builds in the folder that it is given.
    assert!(run(Command::new("cp").arg("-r").arg(repository().join("python")).arg(&package)));
    if !run(Command::new(python).args(["-m", "venv"]).arg(&venv)) {
        return skipped("this Python makes no environments");
    }
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    if !run(Command::new(venv.join("bin/python")).args(pip).arg(&package)) {
        return skipped("pip installs nothing here: it needs setuptools from an index");
    }
    let server = Fixture::new().start();
    let finished = server
        .program(venv.join("bin/python"), Way::SharedMemory)
        .args(["-c", &example()])
        .env("LD_PRELOAD", "")
        .env("PXOS_SHIM", tool("libpxshim.so"))
        .passes();
    assert!(finished.stdout.starts_with("[0.0, 2.5, 5.0, 7.5] "), "{finished}");
    assert!(finished.stdout.contains(" ms on "), "{finished}");
    // numpy is an extra of the package.
    if !run(Command::new(venv.join("bin/python")).args(pip).arg(format!("{}[numpy]", package.display()))) {
        return skipped("pip installs no numpy here");
    }
    let finished = server
        .program(venv.join("bin/python"), Way::SharedMemory)
        .arg(repository().join("python/tests/submit.py"))
        .env("LD_PRELOAD", "")
        .env("PXOS_SHIM", tool("libpxshim.so"))
        .passes();
    assert!(
        finished.stdout.contains("with numpy ") && finished.stdout.ends_with("all passed\n"),
        "{finished}"
    );
}

#[test]
fn distributed_programs_use_every_gpu_by_ranges() {
    let Some(python) = python() else { return skipped("no Python 3.9") };
    if pxos_harness::is_on_a_gpu() {
        return skipped("two devices are softgpu's");
    }
    let server = Fixture::new().env("PXSOFT_DEVICES", "2").start();
    let finished = server
        .guest(python)
        .arg(repository().join("python/tests/distribute.py"))
        .env("PYTHONPATH", repository().join("python"))
        .passes();
    assert_eq!(finished.stdout, "all passed\n", "{finished}");
}
