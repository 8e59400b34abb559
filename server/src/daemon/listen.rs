//! Listening: one thread per endpoint, which accepts and passes each connection on, until its endpoint is dropped.

use super::{Daemon, admit, serial, system};
use parking_lot::Mutex;
use pxos_protocol::endpoint::Endpoint;
use pxos_protocol::transport::Listener;
use std::borrow::Cow;
use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tracing::{info, warn};

/// Wait after an accept that failed for want of descriptors or memory: others have to end first.
const PAUSE: Duration = Duration::from_millis(200);

/// Endpoints at which the daemon listens, or could not.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    list: Mutex<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    endpoint: Endpoint,
    accepted: Arc<AtomicU64>,
    error: Option<String>,
    /// Why nobody can connect for the time being.
    trouble: Arc<Mutex<Option<String>>>,
    /// Bound, and not yet accepting.
    bound: Option<Bound>,
    accepting: Option<Accepting>,
}

/// What there is to accept at.
#[derive(Debug)]
enum Bound {
    Listener(Listener),
    /// A VMM's socket, to which the server connects.
    Serial(PathBuf),
}

/// A thread that accepts; it has ended, and its socket is gone, once this is dropped.
#[derive(Debug)]
struct Accepting {
    /// Closes first, which wakes the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Accepting {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its panic would be a bug that the log has already; there is nothing to add here.
            let _ = thread.join();
        }
    }
}

/// An endpoint that cannot be listened at.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {endpoint}: {error}")]
pub(super) struct BindError {
    endpoint: Endpoint,
    error: io::Error,
}

impl Endpoints {
    /// Binds those of `wanted` that are not bound yet, all or none. Where `lenient`, one that fails is noted and is no
    /// error, unless all fail.
    pub(super) fn bind(&self, wanted: &[Endpoint], mode: u32, lenient: bool) -> Result<(), Vec<BindError>> {
        let mut list = self.list.lock();
        let mut new = Vec::new();
        let mut errors = Vec::new();
        for endpoint in wanted {
            if list.iter().any(|entry| entry.endpoint == *endpoint && entry.error.is_none()) {
                continue;
            }
            let bound = match endpoint {
                Endpoint::Serial { path, .. } => Ok(Bound::Serial(path.clone())),
                endpoint => bind(endpoint, mode).map(Bound::Listener),
            };
            match bound {
                Ok(listener) => new.push((endpoint, Some(listener), None)),
                Err(error) if lenient => {
                    new.push((endpoint, None, Some(error.to_string())));
                    errors.push(BindError { endpoint: endpoint.clone(), error });
                }
                Err(error) => errors.push(BindError { endpoint: endpoint.clone(), error }),
            }
        }
        let standing =
            list.iter().any(|entry| entry.error.is_none()) || new.iter().any(|(_, bound, _)| bound.is_some());
        let enough = errors.is_empty() || (lenient && standing);
        if !enough {
            return Err(errors);
        }
        for error in errors {
            warn!("{error}");
        }
        for (endpoint, bound, error) in new {
            list.retain(|entry| entry.endpoint != *endpoint);
            let accepted = Arc::default();
            let trouble = Arc::default();
            list.push(Entry { endpoint: endpoint.clone(), accepted, error, trouble, bound, accepting: None });
        }
        Ok(())
    }

    /// Begins to accept at all that are bound.
    pub(super) fn start(&self, daemon: &Arc<Daemon>) {
        for entry in self.list.lock().iter_mut() {
            let Some(bound) = entry.bound.take() else { continue };
            let started = match bound {
                Bound::Listener(listener) => start(daemon, listener, entry),
                Bound::Serial(path) => start_serial(daemon, path, entry),
            };
            match started {
                Ok(accepting) => {
                    info!(endpoint = %entry.endpoint, "listening");
                    entry.accepting = Some(accepting);
                }
                Err(error) => {
                    warn!(endpoint = %entry.endpoint, %error, "cannot accept connections");
                    entry.error = Some(error.to_string());
                }
            }
        }
    }

    /// Stops listening at all but `wanted`.
    pub(super) fn keep(&self, wanted: &[Endpoint]) {
        self.list.lock().retain(|entry| wanted.contains(&entry.endpoint));
    }

    /// For the status.
    pub(super) fn view(&self) -> Vec<pxos_protocol::admin::Listener> {
        let list = self.list.lock();
        let view = list.iter().map(|entry| pxos_protocol::admin::Listener {
            endpoint: entry.endpoint.to_string(),
            accepted: entry.accepted.load(Ordering::Relaxed),
            error: entry.error.clone().or_else(|| entry.trouble.lock().clone()),
        });
        view.collect()
    }
}

fn start(daemon: &Arc<Daemon>, listener: Listener, entry: &Entry) -> io::Result<Accepting> {
    let (stop, stopped) = UnixStream::pair()?;
    system::set_nonblocking(&listener)?;
    let (daemon, endpoint, accepted) =
        (Arc::clone(daemon), entry.endpoint.clone(), Arc::clone(&entry.accepted));
    let accept = move || {
        while wait(&listener, &stopped) {
            match listener.accept() {
                Ok((socket, peer)) => {
                    accepted.fetch_add(1, Ordering::Relaxed);
                    admit::spawn(&daemon, &endpoint, socket, peer);
                }
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    if daemon.limits.accept.pass().is_some() {
                        warn!(%endpoint, %error, "a connection cannot be accepted");
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        }
    };
    let thread = super::spawn_thread(format!("listen {}", entry.endpoint), accept)?;
    Ok(Accepting { stop: Some(stop), thread: Some(thread) })
}

fn start_serial(daemon: &Arc<Daemon>, path: PathBuf, entry: &Entry) -> io::Result<Accepting> {
    let (stop, stopped) = UnixStream::pair()?;
    let daemon = Arc::clone(daemon);
    let port = serial::Port {
        endpoint: entry.endpoint.clone(),
        accepted: Arc::clone(&entry.accepted),
        trouble: Arc::clone(&entry.trouble),
    };
    let body = move || serial::serve(&daemon, &port, &path, &stopped);
    let thread = super::spawn_thread(format!("serial {}", entry.endpoint), body)?;
    Ok(Accepting { stop: Some(stop), thread: Some(thread) })
}

/// Waits for a connection; `false` once it is time to stop.
fn wait(listener: &Listener, stopped: &UnixStream) -> bool {
    use std::os::fd::AsRawFd;
    // SAFETY: the listener is open as long as it is borrowed.
    let listener = unsafe { BorrowedFd::borrow_raw(listener.as_raw_fd()) };
    matches!(system::poll([stopped.as_fd(), listener], None), Ok([false, _]))
}

/// Errors that say nothing about the listener: the peer has gone already, or a network between failed (accept(2)).
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
    ) || matches!(
        error.raw_os_error(),
        Some(libc::EPROTO | libc::ENETDOWN | libc::EHOSTUNREACH | libc::ENETUNREACH)
    )
}

/// Binds an endpoint; a unix socket gets `mode`.
pub(super) fn bind(endpoint: &Endpoint, mode: u32) -> io::Result<Listener> {
    let mut endpoint = Cow::Borrowed(endpoint);
    // A name in /run that leads to where an unprivileged server may make sockets.
    if let Endpoint::Unix(path) = &*endpoint
        && let Ok(target) = std::fs::read_link(path)
    {
        let folder = path.parent().unwrap_or_else(|| Path::new("/"));
        endpoint = Cow::Owned(Endpoint::Unix(folder.join(target)));
    }
    let socket = endpoint.socket();
    if let Some(path) = &socket {
        // A stale socket is replaced, but nothing else is.
        match std::fs::symlink_metadata(path) {
            Ok(meta) if !meta.file_type().is_socket() => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "something that is no socket lies there",
                ));
            }
            _ => {}
        }
        make_directory(path)?;
    }
    let listener = Listener::bind(&endpoint)?;
    if let Some(path) = &socket {
        // The umask made it private; only now may others come.
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(listener)
}

/// Makes the directory of a socket where it is missing (`/run` is empty after a boot).
fn make_directory(path: &Path) -> io::Result<()> {
    let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) else {
        return Ok(());
    };
    if !directory.exists() {
        std::fs::create_dir(directory)?;
        std::fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_file_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/a.sock");
        let endpoint = Endpoint::Unix(path.clone());
        let listener = bind(&endpoint, 0o640).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(bind(&endpoint, 0o640).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a socket that nobody answers at");
        drop(bind(&endpoint, 0o600).unwrap());
        std::fs::write(&path, "precious").unwrap();
        assert!(bind(&endpoint, 0o600).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_link_leads_to_the_socket_and_outlives_it() {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().join("gpu.sock");
        std::os::unix::fs::symlink("pxos/gpu.sock", &name).unwrap();
        let listener = bind(&Endpoint::Unix(name.clone()), 0o600).unwrap();
        assert!(UnixStream::connect(&name).is_ok());
        assert!(directory.path().join("pxos/gpu.sock").exists());
        drop(listener);
        assert!(UnixStream::connect(&name).is_err() && name.is_symlink());
    }

    #[test]
    fn all_or_none_unless_lenient() {
        let directory = tempfile::tempdir().unwrap();
        let good = Endpoint::Unix(directory.path().join("good.sock"));
        let bad = Endpoint::Unix(directory.path().join("no/such/place.sock"));
        let endpoints = Endpoints::default();
        let both = [good.clone(), bad.clone()];
        let errors = endpoints.bind(&both, 0o600, false).unwrap_err();
        assert_eq!(errors.len(), 1);
        assert!(errors[0].to_string().starts_with(&format!("cannot listen at {bad}")));
        assert!(endpoints.view().is_empty());
        endpoints.bind(&both, 0o600, true).unwrap();
        let view = endpoints.view();
        assert!(view[0].error.is_none() && view[1].error.is_some());
        endpoints.keep(std::slice::from_ref(&bad));
        assert_eq!(endpoints.view().len(), 1);
        assert!(endpoints.bind(&[bad], 0o600, true).is_err(), "none stands");
    }
}
