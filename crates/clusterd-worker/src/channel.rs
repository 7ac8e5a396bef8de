//! A worker's end of the attach protocol: asking for a channel, and receiving from it.
//!
//! It decides nothing about listeners: here, that the primary does not serve a port is an answer, not an error.

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram as StdUnixDatagram;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use super::error::BindError;
use super::seqpacket::{self, Record};
use super::wire::{Binding, ChannelName, FromWorker, Linger, MAX_MESSAGE, Refusal, ToWorker, Token};

/// Between two attempts to connect to an attach socket whose backlog is full. connect(2) on a Unix socket fails with
/// EAGAIN then, and no event announces that there is room again.
const CONNECT_RETRY: Duration = Duration::from_millis(10);

/// The primary's answer to an attach.
#[derive(Debug)]
pub(super) enum Attached {
    /// The channel stands.
    Channel(Channel),
    /// The primary does not serve this port: listen without it.
    NotServed,
}

/// What a channel brings to a server.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A client.
    Connection(TcpStream, SocketAddr),
    /// There will be no further connection.
    Drain,
}

/// The worker's end of a channel. tokio has no type for a SOCK_SEQPACKET socket; its `UnixDatagram` watches and closes
/// any socket, and makes no call of its own on it.
#[derive(Debug)]
pub(super) struct Channel(UnixDatagram);

/// Asks the primary behind `socket` for a channel on which connections to `address` come.
pub(super) async fn attach(
    socket: OsString,
    token: Token,
    address: SocketAddr,
    timeout: Duration,
) -> Result<Attached, BindError> {
    let answer = tokio::time::timeout(timeout, async {
        let channel = connect(&socket, address).await?;
        channel.attach(token, address).await
    });
    match answer.await {
        Ok(answer) => answer,
        Err(_) => Err(BindError::Timeout { socket: socket.to_string_lossy().into_owned() }),
    }
}

async fn connect(socket: &OsStr, address: SocketAddr) -> Result<Channel, BindError> {
    let unreachable = |cause| BindError::Unreachable { socket: socket.to_string_lossy().into_owned(), cause };
    let server = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name),
        path => SocketAddrUnix::new(path),
    };
    let server = server.map_err(|errno| unreachable(errno.into()))?;
    loop {
        let name = ChannelName { address: address.into(), given: false, nonce: fastrand::u64(..) };
        let name = SocketAddrUnix::new_abstract_name(&name.encode()[1..]);
        let name = name.map_err(|errno| unreachable(errno.into()))?;
        match seqpacket::connect(&name, &server) {
            Ok(fd) => return Channel::new(fd).map_err(unreachable),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(CONNECT_RETRY).await;
            }
            Err(error) => return Err(unreachable(error)),
        }
    }
}

impl Channel {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        UnixDatagram::from_std(StdUnixDatagram::from(fd)).map(Self)
    }

    async fn attach(self, token: Token, address: SocketAddr) -> Result<Attached, BindError> {
        let failed = |cause| BindError::Attach { address, cause };
        let attach = FromWorker::Attach {
            token,
            // As tokio and the standard library bind.
            binding: Binding { reuses_address: true, ..Binding::new(address.into()) },
            wants_drain: true,
            brings_socket: false,
        };
        let mut buffer = [0; MAX_MESSAGE];
        seqpacket::send(&self.0, attach.encode(&mut buffer), None).map_err(failed)?;
        let mut answer = self.receive_with(receive_answer).await.map_err(failed)?;
        if answer == ToWorker::Admitted {
            // The primary keeps this duplicate, and takes back through it what the worker leaves untaken.
            let end = FromWorker::End.encode(&mut buffer);
            seqpacket::send(&self.0, end, Some(self.0.as_fd())).map_err(failed)?;
            answer = self.receive_with(receive_answer).await.map_err(failed)?;
        }
        match answer {
            ToWorker::Welcome => Ok(Attached::Channel(self)),
            ToWorker::Refuse(Refusal::NotServed) => Ok(Attached::NotServed),
            ToWorker::Refuse(Refusal::NotAdmitted) => Err(BindError::NotAdmitted { address }),
            ToWorker::Refuse(Refusal::Full) => Err(BindError::Full { address }),
            ToWorker::Refuse(Refusal::Shared) => Err(BindError::Shared { address }),
            ToWorker::Refuse(Refusal::InUse) => Err(BindError::InUse { address }),
            _ => Err(failed(unexpected("the first message does not answer the attach"))),
        }
    }

    /// Sends a message to the primary.
    pub(super) fn send(&self, message: FromWorker) -> io::Result<()> {
        let mut buffer = [0; MAX_MESSAGE];
        seqpacket::send(&self.0, message.encode(&mut buffer), None).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => primary_gone(),
            _ => error,
        })
    }

    /// The next connection or notice. Cancel safe.
    pub(super) async fn next(&self) -> io::Result<Incoming> {
        loop {
            if let Some(incoming) = self.receive_with(receive_incoming).await? {
                return Ok(incoming);
            }
        }
    }

    /// Waits until `attempt` does not fail with `WouldBlock`. Cancel safe: there is no await between an attempt that
    /// succeeds and the return.
    async fn receive_with<T>(&self, attempt: fn(&UnixDatagram) -> io::Result<T>) -> io::Result<T> {
        self.0.async_io(Interest::READABLE, || attempt(&self.0)).await
    }
}

fn receive_answer(socket: &UnixDatagram) -> io::Result<ToWorker> {
    receive(socket).map(|(message, _)| message)
}

/// `None`: a message that is not for the server.
fn receive_incoming(socket: &UnixDatagram) -> io::Result<Option<Incoming>> {
    seqpacket::room_for_a_descriptor(socket)?;
    let (message, record) = receive(socket)?;
    match message {
        ToWorker::Connection { peer, linger } => {
            let stream = record.fd.ok_or_else(|| no_descriptor(record.truncated))?;
            if let Some(Linger(seconds)) = linger {
                let time = Duration::from_secs(seconds.unsigned_abs().into());
                // The client may have reset the connection.
                let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(time));
            }
            Ok(Some(Incoming::Connection(stream.into(), peer.into())))
        }
        ToWorker::Drain => Ok(Some(Incoming::Drain)),
        ToWorker::Wake => Ok(None),
        ToWorker::Admitted
        | ToWorker::Welcome
        | ToWorker::Refuse(_)
        | ToWorker::Socket
        | ToWorker::Listener { .. }
        | ToWorker::HasListened(_) => Err(unexpected("a second answer to the attach")),
    }
}

fn receive(socket: &UnixDatagram) -> io::Result<(ToWorker, Record)> {
    let mut buffer = [0; MAX_MESSAGE];
    let record = match seqpacket::receive(socket, &mut buffer) {
        // A primary that is gone and had not read everything shows like this, once, before what it has sent.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
            seqpacket::receive(socket, &mut buffer)
        }
        received => received,
    }?;
    if record.len == 0 {
        return Err(primary_gone());
    }
    let message = ToWorker::decode(&buffer[..record.len])
        .map_err(|_| unexpected("not a message of this protocol version"))?;
    Ok((message, record))
}

/// The last free descriptor can go to another thread between the probe and the reception.
fn no_descriptor(truncated: bool) -> io::Error {
    if truncated {
        io::Error::from_raw_os_error(Errno::MFILE.raw_os_error())
    } else {
        unexpected("a connection without its descriptor")
    }
}

fn primary_gone() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "clusterd is gone: no further connection will come")
}

fn unexpected(what: &str) -> io::Error {
    let text = format!("unexpected message from clusterd on the attach channel: {what}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}
