//! VMs at sockets of their own: what one learns of another opens nothing, and a guest that dies at any byte leaves nothing.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Fixture, Guest, Server, hello};
use pxos_protocol::api::op;
use pxos_protocol::codec::{Reader, Writer};
use pxos_protocol::control;
use pxos_protocol::endpoint::Endpoint;
use pxos_protocol::frame::{self, FLAG_REPLY, Header};

/// `CUDA_ERROR_INVALID_VALUE`, `CUDA_ERROR_INVALID_CONTEXT`, `CUDA_ERROR_INVALID_HANDLE`.
const REFUSED: [u32; 3] = [1, 201, 400];

/// `CUDA_ERROR_NOT_SUPPORTED`.
const NOT_SUPPORTED: u32 = 801;

struct Vms {
    server: Server,
    folder: tempfile::TempDir,
}

impl Vms {
    fn new(more: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("pxvms").tempdir().expect("a folder can be made");
        let mut fixture = Fixture::new().arg("--pool-size=3");
        for name in ["red", "blue"] {
            fixture = fixture.arg(&format!("--listen=vm:{name}={}/{name}", folder.path().display()));
        }
        for arg in more {
            fixture = fixture.arg(arg);
        }
        Self { server: fixture.start(), folder }
    }

    fn connect(&self, vm: &str) -> Guest {
        Guest::connect(&Endpoint::Unix(self.folder.path().join(format!("{vm}_9700"))))
    }
}

fn result(answer: Result<(u32, Vec<u8>), pxos_harness::Incoming>) -> u32 {
    answer.expect("the session stands").0
}

#[test]
fn what_one_vm_knows_of_another_opens_nothing() {
    let vms = Vms::new(&[]);
    let [mut red, mut sibling, mut blue] = ["red", "red", "blue"].map(|vm| vms.connect(vm).begin(false));
    let names: Vec<String> = vms.server.status().sessions.into_iter().map(|session| session.vm).collect();
    assert_eq!(names, ["red", "red", "blue"]);
    let context = red.retain();
    let (status, payload) =
        red.call(op::cuMemAlloc_v2, context, |writer| writer.put(4096_u64)).expect("an answer");
    assert_eq!(status, 0);
    let address: u64 = Reader::new(&payload).get().expect("an address");
    let shared = red.call(op::cuIpcGetMemHandle, context, |writer| writer.put(address)).expect("an answer");
    // A server that cannot share leaves blue to guess.
    let share: [u64; 8] = match shared {
        (0, ref share) => Reader::new(share).get().expect("a share"),
        (status, _) => {
            assert_eq!(status, NOT_SUPPORTED);
            [u64::from_le_bytes(*b"pxOSshr1"), 1, 2, 3, 1, 0, 0, 0]
        }
    };
    let open = |guest: &mut Guest, context: u64| {
        result(guest.call(op::cuIpcOpenMemHandle_v2, context, |writer| {
            writer.put(share);
            writer.put(1_u32);
        }))
    };
    // A handle of red's context is a number that means nothing to blue before blue has made one of its own.
    let sync = |guest: &mut Guest| result(guest.call(op::cuCtxSynchronize, context, |_| {}));
    assert_eq!(sync(&mut red), 0);
    assert!(REFUSED.contains(&sync(&mut blue)));
    let free =
        |guest: &mut Guest| result(guest.call(op::cuMemFree_v2, context, |writer| writer.put(address)));
    assert!(REFUSED.contains(&free(&mut blue)));
    let own = blue.retain();
    assert!(REFUSED.contains(&free(&mut blue)), "an address that blue was not given");
    let opened = open(&mut blue, own);
    assert!(REFUSED.contains(&opened) || opened == shared.0, "blue opens red's memory: {opened}");
    assert_ne!(opened, 0);
    let of_sibling = sibling.retain();
    assert_eq!(open(&mut sibling, of_sibling) == 0, shared.0 == 0, "a process of the same VM may");
    assert_eq!(free(&mut red), 0);
}

#[test]
fn a_name_that_a_guest_tells_is_not_believed() {
    let vms = Vms::new(&[]);
    let mut guest = vms.connect("red");
    guest.say_hello(&control::Hello { program: "vm:blue".into(), token: Some("blue".into()), ..hello() });
    assert_eq!(guest.welcome().vm, "red");
}

/// A session's beginning as bytes: the hello, then frames.
fn session() -> (Vec<u8>, Vec<u8>) {
    let frame = |mut header: Header, payload: &[u8]| {
        header.length = u32::try_from(payload.len()).expect("small");
        [&header.to_bytes()[..], payload].concat()
    };
    let hello = frame(Header::new(frame::control::HELLO), &control::encode(&hello()).expect("small"));
    let mut payload = Vec::new();
    let mut writer = Writer::new(&mut payload);
    writer.put(pxos_protocol::types::GuestHandle { kind: 1, generation: 0, slot: 0 }.encode());
    writer.put(0_i32);
    writer.put(0_u32);
    let call = |op, request| Header { thread: 1, flags: FLAG_REPLY, request, ..Header::new(op) };
    let calls =
        [frame(call(op::cuDevicePrimaryCtxRetain, 1), &payload), frame(call(frame::control::PING, 2), &[])];
    (hello, calls.concat())
}

#[test]
fn a_guest_may_die_at_any_byte() {
    let vms = Vms::new(&["--max-connecting=1000"]);
    let before = vms.server.settled();
    let mut neighbour = vms.connect("blue").begin(false);
    let (hello, calls) = session();
    for cut in 0..hello.len() {
        let guest = vms.connect("red");
        // It may be refused meanwhile for the many that wait.
        let _ = guest.send_bytes(&hello[..cut]);
        guest.shut();
    }
    for cut in 0..calls.len() {
        let mut guest = vms.connect("red");
        assert!(guest.send_bytes(&hello));
        let _ = guest.welcome();
        assert!(guest.send_bytes(&calls[..cut]));
        guest.shut();
    }
    assert!(neighbour.is_served());
    drop(neighbour);
    vms.server.assert_settles_as(&before);
    let ended = vms.server.status().totals.ended;
    assert!(ended.keys().all(|how| ["closed", "lost"].contains(&how.as_str())), "{ended:?}");
}
