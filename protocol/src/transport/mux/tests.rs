//! Both ends over a pair of sockets, with hands in between.

use super::*;
use crate::transport::Transport;
use std::sync::mpsc::{Receiver, channel};

/// A guest end that serves `listener`, and the stream that its port is.
struct Guest {
    path: std::path::PathBuf,
    port: UnixStream,
    _folder: tempfile::TempDir,
}

fn guest() -> Guest {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gpu.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (port, ours) = UnixStream::pair().unwrap();
    std::thread::spawn(move || serve_guest(&ours.into(), &listener, |_| {}));
    Guest { path, port, _folder: folder }
}

/// Serves the host's end of a port; gives the sockets of channels, and what stops it.
fn host(port: UnixStream) -> (Receiver<Socket>, UnixStream) {
    let (sender, receiver) = channel();
    let (stop, stopped) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        let _ = serve_host(&port.into(), stopped.as_fd(), |socket| sender.send(socket).unwrap());
    });
    (receiver, stop)
}

/// Reads up to the end of a marker.
fn read_until(hand: &mut UnixStream, mark: Mark, epoch: u64) {
    let wanted = marker(mark, epoch);
    let mut last = VecDeque::new();
    let mut byte = [0];
    while last != wanted {
        hand.read_exact(&mut byte).unwrap();
        last.push_back(byte[0]);
        if last.len() > wanted.len() {
            last.pop_front();
        }
    }
}

fn exchange(one: &Socket, other: &Socket, length: usize) {
    let bytes: Vec<u8> = (0..251_u8).cycle().take(length).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| one.send_all(&mut [io::IoSlice::new(&bytes)]).unwrap());
        let (mut came, mut buffer) = (Vec::new(), vec![0; 100_000]);
        while came.len() < length {
            let count = other.receive(&mut buffer).unwrap();
            assert!(count > 0, "closed after {} of {length}", came.len());
            came.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(came, bytes);
    });
}

/// Connects as a process of the guest does, until the two ends have agreed.
fn connect(guest: &Guest, channels: &Receiver<Socket>) -> (Socket, Socket) {
    for _ in 0..200 {
        let ours: Socket = OwnedFd::from(UnixStream::connect(&guest.path).unwrap()).into();
        if let Ok(theirs) = channels.recv_timeout(Duration::from_millis(100)) {
            return (ours, theirs);
        }
    }
    panic!("no channel comes to the host");
}

#[test]
fn channels_carry_bytes_both_ways_and_close_alone() {
    let guest = guest();
    let (channels, _stop) = host(guest.port.try_clone().unwrap());
    let (first, first_far) = connect(&guest, &channels);
    let (second, second_far) = connect(&guest, &channels);
    for length in [1, 4096, 3_000_000] {
        exchange(&first, &first_far, length);
        exchange(&second_far, &second, length);
    }
    drop(first);
    let mut byte = [0];
    assert_eq!(first_far.receive(&mut byte).unwrap(), 0);
    exchange(&second, &second_far, 1000);
    drop(second_far);
    assert_eq!(second.receive(&mut byte).unwrap(), 0);
}

#[test]
fn a_last_word_arrives_before_the_end() {
    let guest = guest();
    let (channels, _stop) = host(guest.port.try_clone().unwrap());
    let (near, far) = connect(&guest, &channels);
    let word = vec![7; 100_000];
    far.send_all(&mut [io::IoSlice::new(&word)]).unwrap();
    drop(far);
    let (mut came, mut buffer) = (0, [0; 4096]);
    loop {
        match near.receive(&mut buffer).unwrap() {
            0 => break,
            count => came += count,
        }
    }
    assert_eq!(came, word.len());
}

#[test]
fn a_channel_that_nobody_reads_holds_up_no_other() {
    let guest = guest();
    let (channels, _stop) = host(guest.port.try_clone().unwrap());
    let (stuffed, _unread) = connect(&guest, &channels);
    let writer = std::thread::spawn(move || {
        let bytes = vec![1; 4 << 20];
        let _ = stuffed.send_all(&mut [io::IoSlice::new(&bytes)]);
    });
    let (near, far) = connect(&guest, &channels);
    for _ in 0..20 {
        exchange(&near, &far, 100_000);
        exchange(&far, &near, 100_000);
    }
    drop((guest, channels, _unread, _stop));
    let _ = writer;
}

#[test]
fn a_host_that_comes_anew_begins_a_new_epoch_whatever_lies_in_the_stream() {
    let guest = guest();
    // What a host before it left: it was killed in the middle of a record, and the guest's answer stays unread.
    for round in 0..10 {
        let (channels, stop) = host(guest.port.try_clone().unwrap());
        let (near, far) = connect(&guest, &channels);
        exchange(&near, &far, 1000 * (round + 1));
        drop(stop); // ends the host's end; the stream stays
        drop(far);
        let garbage: Vec<u8> = (0..round * 37).map(|byte| u8::try_from(byte % 251).unwrap()).collect();
        (&guest.port).write_all(&garbage).unwrap();
        let mut byte = [0];
        // The old connection ends, at the latest when the next host comes.
        let (channels, _stop) = host(guest.port.try_clone().unwrap());
        let _ = connect(&guest, &channels);
        assert_eq!(near.receive(&mut byte).unwrap_or(0), 0);
    }
}

#[test]
fn a_guest_s_lies_end_its_own_channels() {
    let lies: [Box<dyn Fn(u32) -> Vec<u8>>; 5] = [
        // More than the window.
        Box::new(|epoch| {
            let data = vec![0; MOST_DATA];
            let value = u32::try_from(MOST_DATA).unwrap();
            let one = Record { kind: Kind::Data, channel: 1, epoch, value }.to_bytes();
            [&one[..], &data].concat().repeat(64)
        }),
        Box::new(|epoch| {
            Record { kind: Kind::Credit, channel: 1, epoch, value: u32::MAX }.to_bytes().to_vec()
        }),
        Box::new(|epoch| Record { kind: Kind::Open, channel: 1, epoch, value: 0 }.to_bytes().to_vec()),
        Box::new(|epoch| Record { kind: Kind::Close, channel: 99, epoch, value: 0 }.to_bytes().to_vec()),
        Box::new(|_| vec![0x55; 64]),
    ];
    for lie in lies {
        let (port, mut hand) = UnixStream::pair().unwrap();
        let (channels, _stop) = host(port);
        hand.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        read_until(&mut hand, Mark::Again, 0);
        hand.write_all(&marker(Mark::Begin, 5)).unwrap();
        read_until(&mut hand, Mark::Begun, 5);
        hand.write_all(&Record { kind: Kind::Open, channel: 1, epoch: 5, value: 0 }.to_bytes()).unwrap();
        let far = channels.recv_timeout(Duration::from_secs(20)).unwrap();
        let lie = lie(5);
        let mut writing = hand.try_clone().unwrap();
        let writer = std::thread::spawn(move || writing.write_all(&lie));
        // The channel ends, and the host asks for a new beginning.
        let mut buffer = [0; 4096];
        let mut taken = 0;
        while taken < usize::try_from(WINDOW).unwrap() {
            match far.receive(&mut buffer).unwrap_or(0) {
                0 => break,
                count => taken += count,
            }
        }
        read_until(&mut hand, Mark::Again, 0);
        let _ = writer.join().unwrap();
        hand.write_all(&marker(Mark::Begin, 6)).unwrap();
        read_until(&mut hand, Mark::Begun, 6);
    }
}

#[test]
fn a_mux_that_dies_inside_a_record_is_followed_by_another() {
    let (port, mut hand) = UnixStream::pair().unwrap();
    let (channels, _stop) = host(port);
    hand.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for epoch in [5_u64, 6] {
        // What a mux sends at its start.
        hand.write_all(&[0; RECORD + MOST_DATA]).unwrap();
        hand.write_all(&marker(Mark::Begin, epoch)).unwrap();
        read_until(&mut hand, Mark::Begun, epoch);
        let epoch = u32::try_from(epoch).unwrap();
        hand.write_all(&Record { kind: Kind::Open, channel: 1, epoch, value: 0 }.to_bytes()).unwrap();
        let far = channels.recv_timeout(Duration::from_secs(20)).unwrap();
        let value = u32::try_from(MOST_DATA).unwrap();
        hand.write_all(&Record { kind: Kind::Data, channel: 1, epoch, value }.to_bytes()).unwrap();
        hand.write_all(b"the rest never comes").unwrap();
        std::thread::spawn(move || while far.receive(&mut [0; 4096]).is_ok_and(|count| count > 0) {});
    }
}

#[test]
fn channels_are_bounded() {
    let (port, mut hand) = UnixStream::pair().unwrap();
    let (channels, _stop) = host(port);
    hand.write_all(&marker(Mark::Begin, 5)).unwrap();
    for id in 1..=100 {
        hand.write_all(&Record { kind: Kind::Open, channel: id, epoch: 5, value: 0 }.to_bytes()).unwrap();
    }
    let mut kept = Vec::new();
    while let Ok(socket) = channels.recv_timeout(Duration::from_millis(500)) {
        kept.push(socket);
    }
    assert_eq!(kept.len(), MAX_CHANNELS);
}

#[test]
fn channels_that_come_and_go_take_no_more_descriptors_than_those_that_stay() {
    let open = |epoch: u64, channel: u32, kind: Kind| {
        Record { kind, channel, epoch: u32::try_from(epoch).unwrap(), value: 0 }.to_bytes()
    };
    let mut begins = Vec::new();
    for epoch in 1..=20 {
        begins.extend(marker(Mark::Begin, epoch));
        (1..=64).for_each(|channel| begins.extend(open(epoch, channel, Kind::Open)));
    }
    let mut closes = marker(Mark::Begin, 1).to_vec();
    for channel in 1..=1000 {
        closes.extend(open(1, channel, Kind::Open));
        closes.extend(open(1, channel, Kind::Close));
    }
    for bytes in [begins, closes] {
        let mut mux = Mux::new(Role::Host);
        mux.take(&bytes).unwrap();
        let held = mux.channels.len() + mux.opened.len();
        assert!(held <= 2 * MAX_CHANNELS, "{held} descriptors");
    }
}
