//! TLS 1.3 for guests that reach the server over a network.
//!
//! Sessions speak over plain sockets, whose descriptors the daemon hands to workers. So TLS ends beside them: each connection
//! has a thread that carries bytes between it and one end of a socket pair ([`carry()`]). On the host that thread is the
//! daemon's ([`Acceptor`]); in the guest it is `pxctl guest-tls` ([`Connector`]), which alone needs the VM's key. No other
//! transport passes here.

mod carry;

pub use carry::{Carried, carry};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection, version,
};
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM of that kind.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The files do not go together, or the library refuses them.
    #[error("{0}")]
    Settings(String),
    /// The peer, or what it sent, is not acceptable.
    #[error("{0}")]
    Peer(#[from] rustls::Error),
    /// The peer closed, or was too slow.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The files of one side: its certificate (with those that lead to its authority) and the key of it.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// PEM, this side's own certificate first.
    pub certificate: &'a Path,
    /// PEM.
    pub key: &'a Path,
}

/// The server's side.
#[derive(Debug)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    asks_for_certificates: bool,
}

/// A guest whose handshake is done.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub connection: Connection,
    /// DNS names in the certificate that it showed, which is of an authority that the server trusts; empty where the server
    /// asks for none.
    pub names: Vec<String>,
}

impl Acceptor {
    /// Reads the files. With `authority` every guest must show a certificate of it.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn load(own: Identity<'_>, authority: Option<&Path>) -> Result<Self, TlsError> {
        let (chain, key) = read(own)?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| settings(&error))?;
        let builder = match authority {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(roots(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                builder.with_client_cert_verifier(verifier.build().map_err(|error| settings(&error))?)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| settings(&error))?;
        // A session that is resumed would be that of a certificate which may not be good any more.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), asks_for_certificates: authority.is_some() })
    }

    /// The handshake with a guest that has connected, until `deadline`.
    ///
    /// # Errors
    /// Why there is no connection; the guest has been told what TLS can tell.
    pub fn accept(&self, stream: &TcpStream, deadline: Instant) -> Result<Accepted, TlsError> {
        let mut connection = Connection::Server(ServerConnection::new(Arc::clone(&self.config))?);
        carry::handshake(&mut connection, stream, deadline)?;
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        let names = match certificate {
            Some(certificate) if self.asks_for_certificates => names(certificate)?,
            _ => Vec::new(),
        };
        Ok(Accepted { connection, names })
    }
}

/// The guest's side.
#[derive(Debug)]
pub struct Connector {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Connector {
    /// Reads the files: the authority of the server's certificate, the name that this must have, and what the guest shows.
    ///
    /// # Errors
    /// What is wrong with which file or name.
    pub fn load(authority: &Path, name: &str, own: Option<Identity<'_>>) -> Result<Self, TlsError> {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| TlsError::Settings(format!("'{name}' is no host name and no address")))?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| settings(&error))?
            .with_root_certificates(roots(authority)?);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let (chain, key) = read(own)?;
                builder.with_client_auth_cert(chain, key).map_err(|error| settings(&error))?
            }
        };
        Ok(Self { config: Arc::new(config), name })
    }

    /// The handshake with a server, until `deadline`. The server's verdict on the guest's certificate comes later, as the end
    /// of [`carry()`].
    ///
    /// # Errors
    /// Why there is no connection.
    pub fn connect(&self, stream: &TcpStream, deadline: Instant) -> Result<Connection, TlsError> {
        let mut connection =
            Connection::Client(ClientConnection::new(Arc::clone(&self.config), self.name.clone())?);
        carry::handshake(&mut connection, stream, deadline)?;
        Ok(connection)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn settings(error: &dyn std::fmt::Display) -> TlsError {
    TlsError::Settings(error.to_string())
}

fn read(own: Identity<'_>) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let key = PrivateKeyDer::from_pem_file(own.key)
        .map_err(|error| TlsError::File { path: own.key.to_owned(), reason: error.to_string() })?;
    Ok((certificates(own.certificate)?, key))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason: String| TlsError::File { path: path.to_owned(), reason };
    let all: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?.collect();
    let all = all.map_err(|error| wrong(error.to_string()))?;
    if all.is_empty() { Err(wrong("there is no certificate in it".into())) } else { Ok(all) }
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::File { path: path.to_owned(), reason: error.to_string() })?;
    }
    Ok(roots)
}

/// The DNS names of a certificate, which has been verified.
fn names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, TlsError> {
    let parsed = webpki::EndEntityCert::try_from(certificate).map_err(|error| settings(&error))?;
    Ok(parsed.valid_dns_names().map(str::to_ascii_lowercase).collect())
}
