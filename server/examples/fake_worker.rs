//! A worker without a driver, for the daemon's tests: what it does depends on the driver that it is told to open.
//!
//! `/fake/ready` serves a session that answers pings; `/fake/slow` does so after a while; `/fake/fail` says that the
//! driver fails; `/fake/blind` is ready with two devices, whatever `CUDA_VISIBLE_DEVICES` says; `/fake/die` dies at once; `/fake/silent` never becomes ready; `/fake/garbage` talks nonsense; and
//! `/fake/gone` dies while it is warm. `libcuda.so.1` fails and `libpxsoft.so` is ready. In a session, a ping's thread
//! number asks for more: see [`Mischief`].

use clap::Parser;
use pxos_protocol::control::{self, Device, Snapshot, Welcome};
use pxos_protocol::frame::{self, Header};
use pxos_protocol::transport::{FrameReader, Socket, Transport};
use pxos_protocol::types::attribute;
use pxos_server::handoff::{self, Assign, EndReason, FromWorker, SOFTWARE, ToWorker};
use pxos_server::stats::{State, Stats};
use std::io::{IoSlice, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Debug, Parser)]
struct Args {
    #[arg(hide = true)]
    mode: String,
    #[arg(long)]
    control_fd: i32,
    #[arg(long)]
    stats_fd: i32,
    #[arg(long)]
    driver: PathBuf,
    #[arg(long)]
    log_level: String,
    #[arg(long)]
    log_format: String,
}

/// Thread numbers of pings that are more than pings.
struct Mischief;

impl Mischief {
    const ABORT: u32 = 1001;
    const HANG: u32 = 1002;
    const GARBAGE_STATS: u32 = 1003;
    const GARBAGE_CONTROL: u32 = 1004;
    const CLOSE_CONTROL: u32 = 1005;
    const EXIT_3: u32 = 1006;
}

fn main() {
    let args = Args::parse();
    assert_eq!(args.mode, "worker");
    assert!(["text", "json"].contains(&args.log_format.as_str()) && !args.log_level.is_empty());
    // SAFETY: the daemon left these open for this process, which owns nothing else.
    let (control, page) =
        unsafe { (OwnedFd::from_raw_fd(args.control_fd), OwnedFd::from_raw_fd(args.stats_fd)) };
    let control = UnixStream::from(control);
    let stats = Stats::inherit(&page).expect("the daemon's page");
    let say = |message: &FromWorker| handoff::send(&control, message, &[]).expect("the daemon listens");
    match args.driver.to_str().expect("a fake driver") {
        "/fake/ready" | "/fake/blind" => {}
        "/fake/slow" => std::thread::sleep(Duration::from_millis(400)),
        "/fake/fail" | "libcuda.so.1" => {
            return say(&FromWorker::Failed { message: "the fake driver fails on purpose".into() });
        }
        "/fake/die" => std::process::abort(),
        "/fake/silent" => std::thread::sleep(Duration::from_secs(600)),
        "/fake/garbage" => {
            (&control).write_all(&[0xff; 64]).expect("the daemon listens");
            std::thread::sleep(Duration::from_secs(600));
        }
        "/fake/gone" => {
            let once = std::env::var("FAKE_GONE_ONCE").expect("a file");
            if std::fs::write(&once, "").is_ok() && std::fs::hard_link(&once, format!("{once}.done")).is_ok()
            {
                say(&FromWorker::Ready { snapshot: snapshot(), pid: std::process::id() });
                std::thread::sleep(Duration::from_millis(200));
                std::process::abort();
            }
        }
        path if path.ends_with("/libpxsoft.so") => {}
        other => panic!("no such fake driver: {other}"),
    }
    stats.context_bytes.store(527 << 20, Ordering::Relaxed);
    stats.set_state(State::Warm);
    let mut found = snapshot();
    if args.driver.ends_with("blind") {
        let mut other = found.devices[0].clone();
        (other.uuid, other.uuid_v2) = ([0xcd; 16], [0xcd; 16]);
        found.devices.push(other);
    }
    say(&FromWorker::Ready { snapshot: found, pid: std::process::id() });
    let Ok(Some((ToWorker::Assign(assign), mut beside))) = handoff::receive::<ToWorker>(&control) else {
        return;
    };
    stats.set_state(State::Serving);
    serve(&Socket::from(beside.pop().expect("the connection")), &assign, stats, control);
}

fn serve(socket: &Socket, assign: &Assign, stats: &'static Stats, control: UnixStream) {
    assert!(assign.hello.token.is_none(), "the daemon keeps tokens to itself");
    let welcome = Welcome {
        software: SOFTWARE.into(),
        session: assign.session,
        vm: assign.vm.clone(),
        snapshot: snapshot(),
        shared_memory: None,
        instance: assign.instance,
        bounds_streams: false,
    };
    let payload = control::encode(&welcome).expect("small");
    send(socket, Header::new(frame::control::WELCOME), &payload);
    let mut reader = FrameReader::new(socket.try_clone().expect("a descriptor"));
    let mut control = Some(control);
    while let Ok(ping) = reader.header() {
        stats.note_call(pxos_protocol::api::op::cuCtxSynchronize, true);
        match ping.thread {
            Mischief::ABORT => std::process::abort(),
            Mischief::HANG => std::thread::sleep(Duration::from_secs(600)),
            Mischief::GARBAGE_STATS => {
                let all = std::ptr::from_ref(stats).cast::<AtomicU64>();
                for index in 0..size_of::<Stats>() / 8 {
                    // SAFETY: the page is an array of that many atomics.
                    unsafe { &*all.add(index) }.store(u64::MAX, Ordering::Relaxed);
                }
            }
            Mischief::GARBAGE_CONTROL => {
                let control = control.as_ref().expect("not closed");
                let _ = (&mut &*control).write_all(&[0xff; 64]);
            }
            Mischief::CLOSE_CONTROL => drop(control.take()),
            Mischief::EXIT_3 => return leave(3),
            _ => {}
        }
        let reply =
            Header { thread: ping.thread, request: ping.request, ..Header::new(frame::control::REPLY) };
        send(socket, reply, &[]);
    }
    if let Some(control) = control {
        let ended = FromWorker::Ended { reason: EndReason::Closed, message: String::new() };
        let _ = handoff::send(&control, &ended, &[]);
    }
}

#[expect(clippy::exit, reason = "the status is what the test is about")]
fn leave(status: i32) {
    std::process::exit(status);
}

fn send(socket: &Socket, mut header: Header, payload: &[u8]) {
    header.length = u32::try_from(payload.len()).expect("small");
    let _ = socket.send_all(&mut [IoSlice::new(&header.to_bytes()), IoSlice::new(payload)]);
}

fn snapshot() -> Snapshot {
    let mut attributes = vec![None; attribute::ATTRIBUTE_COUNT as usize];
    attributes[attribute::COMPUTE_CAPABILITY_MAJOR as usize] = Some(9);
    attributes[attribute::COMPUTE_CAPABILITY_MINOR as usize] = Some(0);
    Snapshot {
        driver_version: 13000,
        loading_mode: 2,
        devices: vec![Device {
            name: "Fake device".into(),
            uuid: [0xab; 16],
            uuid_v2: [0xab; 16],
            luid: None,
            total_memory: 8 << 30,
            pci_bus_id: "0000:01:00.0".into(),
            attributes,
            peers: vec![false],
            priorities: (0, -5),
            limits: vec![Some(1024)],
            context_api_version: 3020,
            exec_affinity: false,
        }],
        error_strings: vec![(0, "no error".into())],
        software: true,
    }
}
