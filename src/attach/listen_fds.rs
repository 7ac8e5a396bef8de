//! The step between clusterd and a server that takes its listeners as from systemd (sd_listen_fds(3)): it runs in the worker's
//! process, gets the listeners from the primary, and becomes the server.
//!
//! `LISTEN_PID` has to be the number of the very process that becomes the server, which nobody knows before that is there.
//! The primary's part is in [`listener`](super::listener).

use std::convert::Infallible;
use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::protocol::wire::{self, FromWorker, MAX_MESSAGE, Refusal, ToWorker, Token};
use crate::sys::process::give_descriptor;
use crate::sys::seqpacket;

/// The hidden verb with which clusterd runs itself as this step: the program's file follows, the name that it is called by,
/// and its arguments.
pub(crate) const VERB: &str = "listen-fds";

/// SD_LISTEN_FDS_START: the first number after the standard streams.
const FIRST: i32 = 3;

/// How long the primary may take for each answer.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("cannot start {program}: {source}")]
    Program { program: String, source: io::Error },
    #[error("{0} is not what clusterd gives its workers")]
    Environment(&'static str),
    #[error("cannot get the worker's listeners from clusterd: {0}")]
    Socket(#[from] io::Error),
    #[error("clusterd gives this process no listeners ({0:?})")]
    Refused(Refusal),
    #[error("clusterd's answer is not one of the attach protocol")]
    Malformed,
}

impl From<rustix::io::Errno> for StepError {
    fn from(errno: rustix::io::Errno) -> Self {
        StepError::Socket(errno.into())
    }
}

/// Becomes the server, or returns what to exit with.
pub(crate) fn step_main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let (Some(file), Some(name)) = (arguments.next(), arguments.next()) else {
        return ExitCode::FAILURE;
    };
    match become_server(&file, &name, arguments) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("clusterd: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

impl StepError {
    /// What a shell has for it.
    fn exit_code(&self) -> u8 {
        match self {
            StepError::Program { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            StepError::Program { .. } => 126,
            _ => 1,
        }
    }
}

fn become_server(
    file: &OsString,
    name: &OsString,
    arguments: impl Iterator<Item = OsString>,
) -> Result<Infallible, StepError> {
    let (primary, listeners) = Primary::reach()?.listeners()?;
    let count = i32::try_from(listeners.len()).map_err(|_| StepError::Malformed)?;
    // Out of the way of the numbers where they are to be.
    let above = |fd: OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, FIRST + count);
    let primary = above(primary.0)?;
    let mut command = Command::new(file);
    command.arg0(name).args(arguments);
    let names: Vec<_> = listeners.iter().map(|(port, _)| port.to_string()).collect();
    let numbers = [("LISTEN_PID", std::process::id().to_string()), ("LISTEN_FDS", count.to_string())];
    command.envs(numbers).env("LISTEN_FDNAMES", names.join(":"));
    for (number, (_, listener)) in (FIRST..).zip(listeners) {
        // As systemd passes them (`NonBlocking=no`): servers that want it otherwise say so.
        rustix::io::ioctl_fionbio(&listener, false)?;
        give_descriptor(&mut command, above(listener)?, number);
    }
    // The end of this connection tells the primary that the server runs.
    let source = command.exec();
    let failed = FromWorker::End;
    let _ = seqpacket::send(&primary, failed.encode(&mut [0; MAX_MESSAGE]), None);
    Err(StepError::Program { program: name.to_string_lossy().into_owned(), source })
}

/// A connection to the primary's attach socket.
struct Primary(OwnedFd);

impl Primary {
    fn reach() -> Result<Self, StepError> {
        let variable = |name| env::var_os(name).ok_or(StepError::Environment(name));
        let name = variable(wire::ENV_SOCKET)?;
        let token = Token::from_hex(variable(wire::ENV_TOKEN)?.as_encoded_bytes());
        let token = token.ok_or(StepError::Environment(wire::ENV_TOKEN))?;
        let address = match name.to_str().and_then(|name| name.strip_prefix('@')) {
            Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes())?,
            None => SocketAddrUnix::new(name.as_os_str())?,
        };
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &address)?;
        let inherit = FromWorker::Inherit { token };
        seqpacket::send(&socket, inherit.encode(&mut [0; MAX_MESSAGE]), None)?;
        Ok(Self(socket))
    }

    /// All listeners, each with its port.
    fn listeners(self) -> Result<(Self, Vec<(u16, OwnedFd)>), StepError> {
        let mut listeners = Vec::new();
        loop {
            match self.hear()? {
                (ToWorker::Listener { port }, Some(listener)) => listeners.push((port, listener)),
                (ToWorker::Welcome, None) => return Ok((self, listeners)),
                (ToWorker::Refuse(refusal), None) => return Err(StepError::Refused(refusal)),
                _ => return Err(StepError::Malformed),
            }
        }
    }

    fn hear(&self) -> Result<(ToWorker, Option<OwnedFd>), StepError> {
        let mut readable = [PollFd::new(&self.0, PollFlags::IN)];
        if rustix::io::retry_on_intr(|| poll(&mut readable, Some(&PATIENCE)))? == 0 {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        let mut buffer = [0; MAX_MESSAGE];
        let record = seqpacket::receive(self.0.as_fd(), &mut buffer)?;
        let bytes = buffer.get(..record.len).unwrap_or_default();
        let message = ToWorker::decode(bytes).map_err(|_| StepError::Malformed)?;
        Ok((message, record.fd))
    }
}
