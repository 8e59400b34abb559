//! The virtio-serial port of a VM: the server connects to the socket at which the VMM serves it, again whenever the VMM has gone,
//! and takes each channel of the guest's mux ([`pxos_protocol::transport::mux`]) for a connection.
//!
//! The stream is read here, in the daemon, as far as records go: bounded, and without a look at what is inside.

use super::{Daemon, admit, system};
use parking_lot::Mutex;
use pxos_protocol::endpoint::Endpoint;
use pxos_protocol::transport::{Peer, mux};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tracing::info;

/// How long to wait before the next try to reach a VMM: a guest's mux asks as often.
const PAUSE: Duration = Duration::from_millis(200);

/// One port.
#[derive(Debug)]
pub(super) struct Port {
    /// As configured.
    pub(super) endpoint: Endpoint,
    /// Channels accepted.
    pub(super) accepted: Arc<AtomicU64>,
    /// Why nobody can connect now.
    pub(super) trouble: Arc<Mutex<Option<String>>>,
}

/// Serves a port until `stopped` is readable.
pub(super) fn serve(daemon: &Arc<Daemon>, port: &Port, path: &Path, stopped: &UnixStream) {
    let tell = |trouble: Option<String>| {
        let mut told = port.trouble.lock();
        if *told != trouble {
            match &trouble {
                None => info!(endpoint = %port.endpoint, "port is connected"),
                Some(trouble) => info!(endpoint = %port.endpoint, "waiting for the VM: {trouble}"),
            }
            *told = trouble;
        }
    };
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => {
                tell(None);
                let ended = mux::serve_host(&OwnedFd::from(stream), stopped.as_fd(), |socket| {
                    port.accepted.fetch_add(1, Ordering::Relaxed);
                    admit::spawn(daemon, &port.endpoint, socket, Peer::Unix { pid: None, uid: None });
                });
                tell(Some(
                    ended.map_or_else(|error| error.to_string(), |()| "the VMM closed the port".into()),
                ));
            }
            Err(error) => tell(Some(error.to_string())),
        }
        if !matches!(system::poll([stopped.as_fd()], Some(Instant::now() + PAUSE)), Ok([false])) {
            return;
        }
    }
}
