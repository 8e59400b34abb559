//! TLS endpoints: the handshake with a guest, and the thread that carries its bytes from then on ([`pxos_tls::carry`]). What
//! is admitted is the other end of a socket pair, which a worker serves as it serves any socket.

use super::Daemon;
use crate::config::Config;
use parking_lot::RwLock;
use pxos_protocol::transport::{Peer, Socket};
use pxos_tls::{Acceptor, Identity, TlsError, carry};
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;
use tracing::debug;

/// What the server shows and asks for, where its configuration has the files; another after a reload.
#[derive(Debug)]
pub(super) struct Tls(RwLock<Option<Arc<Acceptor>>>);

impl Tls {
    /// As [`load`] gives it.
    pub(super) fn new(acceptor: Option<Arc<Acceptor>>) -> Self {
        Self(RwLock::new(acceptor))
    }

    /// For guests that connect from now on.
    pub(super) fn replace(&self, acceptor: Option<Arc<Acceptor>>) {
        *self.0.write() = acceptor;
    }
}

/// Reads the files that the configuration names.
///
/// # Errors
/// What is wrong with which of them.
pub(super) fn load(config: &Config) -> Result<Option<Arc<Acceptor>>, String> {
    let (Some(certificate), Some(key)) = (&config.tls.certificate, &config.tls.key) else {
        return Ok(None);
    };
    let own = Identity { certificate, key };
    let acceptor = Acceptor::load(own, config.tls.client_ca.as_deref());
    acceptor.map(|acceptor| Some(Arc::new(acceptor))).map_err(|error| format!("tls: {error}"))
}

/// Shakes hands with who has connected at `socket`; the plain stream, and who it is.
pub(super) fn accept(
    daemon: &Arc<Daemon>,
    socket: Socket,
    address: String,
    deadline: Instant,
) -> Result<(Socket, Peer), TlsError> {
    let acceptor = daemon.tls.0.read().clone();
    let acceptor =
        acceptor.ok_or_else(|| TlsError::Settings("there are no tls.certificate and tls.key".into()))?;
    let stream = TcpStream::from(OwnedFd::from(socket));
    let accepted = acceptor.accept(&stream, deadline)?;
    let (ours, theirs) = UnixStream::pair()?;
    let body = {
        let address = address.clone();
        move || {
            if let Some(error) = carry(accepted.connection, &stream, &ours).error {
                debug!(address, %error, "a TLS connection breaks");
            }
        }
    };
    super::spawn_thread("tls".into(), body).map_err(|error: io::Error| TlsError::Io(error))?;
    Ok((OwnedFd::from(theirs).into(), Peer::Tls { address, names: accepted.names }))
}
