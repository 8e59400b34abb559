//! The guest's end of TLS: the one process that has the VM's key, and the socket at which the guest's programs connect. Each
//! of their connections becomes one of its own to the server, in a thread of its own.

use crate::mux::bind;
use pxos_protocol::control::{Refusal, encode};
use pxos_protocol::frame::{Header, control};
use pxos_protocol::types::CUresult;
use pxos_tls::{Connector, Identity, carry};
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long connecting and shaking hands may take: a network's round trips, on a bad day.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a program that is refused may take to read why and close.
const LINGER: Duration = Duration::from_secs(1);

/// Carries the connections of this guest's programs to a server over TLS
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The server, which listens there with tls:HOST:PORT
    #[arg(long, env = "PXOS_TLS_SERVER", value_name = "HOST:PORT")]
    server: String,
    /// The authority of the server's certificate, PEM
    #[arg(long, env = "PXOS_TLS_CA", value_name = "FILE")]
    ca: PathBuf,
    /// This VM's certificate, where the server asks for one, PEM
    #[arg(long, env = "PXOS_TLS_CERTIFICATE", value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The key of that certificate, PEM
    #[arg(long, env = "PXOS_TLS_KEY", value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// The name in the server's certificate, where that is not HOST
    #[arg(long, env = "PXOS_TLS_NAME", value_name = "NAME")]
    name: Option<String>,
    /// The socket at which programs connect, which is where they look first
    #[arg(long, default_value = "/run/pxos-gpu.sock", value_name = "PATH")]
    listen: PathBuf,
    /// Its permissions, octal
    #[arg(long, default_value = "0666", value_name = "MODE", value_parser = crate::mux::mode)]
    mode: u32,
}

/// Serves until it is ended.
pub(crate) fn run(args: &Args) -> ExitCode {
    let Err(error) = serve(args);
    eprintln!("pxctl: {error}");
    ExitCode::FAILURE
}

fn serve(args: &Args) -> Result<std::convert::Infallible, String> {
    let (host, _) = args
        .server
        .rsplit_once(':')
        .ok_or_else(|| format!("--server {}: it is not HOST:PORT", args.server))?;
    let name = args.name.clone().unwrap_or_else(|| host.trim_matches(['[', ']']).to_owned());
    let own = match (&args.certificate, &args.key) {
        (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
        _ => None,
    };
    let connector = Arc::new(Connector::load(&args.ca, &name, own).map_err(|error| error.to_string())?);
    let listener = bind(&args.listen, args.mode)?;
    eprintln!("pxctl: programs of this guest connect at {}", args.listen.display());
    loop {
        let (program, _) =
            listener.accept().map_err(|error| format!("{}: {error}", args.listen.display()))?;
        let (connector, server) = (Arc::clone(&connector), args.server.clone());
        let body = move || {
            if let Err(why) = carry_one(&connector, &server, &program) {
                eprintln!("pxctl: {why}");
                tell(&program, &why);
            }
        };
        // Without a thread the program's connection closes, and the program says so.
        if let Err(error) = std::thread::Builder::new().name("tls".into()).spawn(body) {
            eprintln!("pxctl: no thread for a connection: {error}");
        }
    }
}

/// Carries one program's connection to its end; why it never came about, where it did not.
fn carry_one(connector: &Connector, server: &str, program: &UnixStream) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    let stream = connect(server).map_err(|error| format!("{server}: {error}"))?;
    let tls = connector.connect(&stream, deadline).map_err(|error| format!("{server}: TLS: {error}"))?;
    // The carrier closes its end; another of the same socket stays for what has to be told.
    let carrier = program.try_clone().map_err(|error| error.to_string())?;
    let carried = carry(tls, &stream, &carrier);
    match carried.error {
        Some(error) if !carried.delivered => Err(format!("{server} does not take this VM: {error}")),
        _ => Ok(()),
    }
}

fn connect(server: &str) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::other("the name has no address");
    for address in server.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Refuses the program's hello in the server's place, so that it says why.
fn tell(mut program: &UnixStream, why: &str) {
    let refusal =
        Refusal { result: CUresult::ERROR_NOT_PERMITTED.0, message: format!("pxctl guest-tls: {why}") };
    let Ok(payload) = encode(&refusal) else { return };
    let mut header = Header::new(control::REFUSAL);
    header.length = u32::try_from(payload.len()).unwrap_or(0);
    // A program that has gone needs no answer.
    let _ = program.set_nonblocking(false);
    let _ = program.write_all(&[&header.to_bytes()[..], &payload].concat());
    // Its hello may still come; one that finds the socket closed does not look for an answer.
    let _ = program.set_read_timeout(Some(LINGER));
    let mut rest = [0; 4096];
    for _ in 0..16 {
        if !matches!(program.read(&mut rest), Ok(1..)) {
            break;
        }
    }
}
