//! Without a server: a program that needs CUDA is told what is missing and how to mend it; one that does not cannot tell.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Fixture, probe, sample};
use std::time::Duration;

#[test]
fn a_program_is_told_what_was_tried() {
    let server = Fixture::new().start();
    let nowhere = server.at("nobody.sock");
    let finished = server
        .guest(probe())
        .env("PXOS_SERVER", format!("unix:{}", nowhere.display()))
        .args(["init", "init"])
        .limit(Duration::from_secs(5))
        .passes();
    assert_eq!(finished.stdout, "init CUDA_ERROR_NO_DEVICE\ninit CUDA_ERROR_NO_DEVICE\n");
    let first = finished.stderr.lines().next().expect("a line says what was tried");
    for word in ["pxos", "nobody.sock", "PXOS_SERVER", "pxctl doctor"] {
        assert!(first.contains(word), "'{word}' is not in: {first}");
    }
}

#[test]
fn a_runtime_program_says_that_there_is_no_device() {
    let server = Fixture::new().start();
    let finished = server
        .guest(sample("vectorAdd"))
        .env("PXOS_SERVER", "unix:/nonexistent/pxos.sock")
        .limit(Duration::from_secs(5))
        .run();
    assert_eq!(finished.code(), Some(1), "{finished}");
    assert!(finished.stdout.contains("cudaErrorNoDevice"), "{finished}");
}

#[test]
fn an_address_that_is_none_is_named() {
    let server = Fixture::new().start();
    let finished = server.guest(probe()).env("PXOS_SERVER", "carrier-pigeon").args(["init"]).passes();
    assert_eq!(finished.stdout, "init CUDA_ERROR_NO_DEVICE\n");
    assert!(finished.stderr.contains("'carrier-pigeon' is no endpoint"), "{finished}");
}

#[test]
fn a_socket_without_a_listener_is_no_hang() {
    let server = Fixture::new().start();
    let path = server.at("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let address = format!("unix:{}", path.display());
    let finished = server
        .guest(probe())
        .env("PXOS_SERVER", address)
        .args(["init"])
        .limit(Duration::from_secs(5))
        .passes();
    assert_eq!(finished.stdout, "init CUDA_ERROR_NO_DEVICE\n");
}

#[test]
fn a_server_that_is_none_is_found_out() {
    let server = Fixture::new().start();
    let path = server.at("chatty.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let chatty = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"220 mail.example ESMTP ready, and some more words\r\n")
            .unwrap();
        // Kept open: the guest must not wait for an end.
        std::thread::sleep(Duration::from_millis(500));
    });
    let address = format!("unix:{}", path.display());
    let finished = server
        .guest(probe())
        .env("PXOS_SERVER", address)
        .args(["init"])
        .limit(Duration::from_secs(5))
        .passes();
    assert_eq!(finished.stdout, "init CUDA_ERROR_NO_DEVICE\n");
    assert!(finished.stderr.contains("magic"), "{finished}");
    chatty.join().unwrap();
}

#[test]
fn a_program_without_cuda_is_unaffected() {
    let server = Fixture::new().start();
    let before = server.status().totals.connections;
    let plain = server.direct(sample("noCuda")).env("LD_PRELOAD", "").passes();
    let remoted = server.guest(sample("noCuda")).env("PXOS_SERVER", "unix:/nonexistent").passes();
    assert_eq!((remoted.stdout, remoted.stderr.as_str()), (plain.stdout, ""));
    server.guest(sample("noCuda")).passes();
    assert_eq!(server.status().totals.connections, before, "nothing is opened before the first CUDA call");
}
