//! The least that a worker of the attach protocol can do: receive a connection, answer a byte, close.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;
use clusterd::internal::protocol::name_address;
use clusterd::internal::protocol::wire::{
    Binding, ChannelName, ENV_PORTS, ENV_SOCKET, ENV_TOKEN, FromWorker, MAX_MESSAGE, ToWorker, Token,
};
use clusterd::internal::sys::seqpacket;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix,
};

/// The first argument of a process that is to be a worker.
pub(crate) const ROLE: &str = "role-worker";

/// Attaches as the environment says, and serves until the primary is gone. What is to be done after each
/// answer is done before it takes the next connection.
pub(crate) fn run(mut answered: impl FnMut()) -> anyhow::Result<()> {
    let channel = attach()?;
    while let Some((_, connection)) = receive(&channel)? {
        if let Some(connection) = connection {
            // A client that has gone away is no failure of the worker.
            let _ = rustix::io::write(&connection, b"x");
            drop(connection);
            answered();
        }
    }
    Ok(())
}

fn attach() -> anyhow::Result<OwnedFd> {
    let variable = |name| std::env::var(name).with_context(|| format!("{name} is not set"));
    let socket = variable(ENV_SOCKET)?;
    let server = match socket.strip_prefix('@') {
        Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes())?,
        None => SocketAddrUnix::new(socket.as_str())?,
    };
    let token = Token::from_hex(variable(ENV_TOKEN)?.as_bytes()).context("not a token")?;
    let port = variable(ENV_PORTS)?.split(',').next().unwrap_or_default().parse::<u16>()?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into();
    let name = ChannelName { address, given: false, nonce: std::process::id().into() };
    let name = name_address(&name)?;
    let channel = seqpacket::connect(&name, &server).context("cannot connect to the primary")?;
    rustix::io::ioctl_fionbio(&channel, false)?;
    let binding = Binding::new(address);
    let attach = FromWorker::Attach { token, binding, wants_drain: false, brings_socket: false };
    send(&channel, attach, None)?;
    let answer = receive(&channel)?;
    anyhow::ensure!(matches!(answer, Some((ToWorker::Admitted, _))), "the primary answered {answer:?}");
    send(&channel, FromWorker::End, Some(&channel))?;
    let answer = receive(&channel)?;
    anyhow::ensure!(matches!(answer, Some((ToWorker::Welcome, _))), "the primary answered {answer:?}");
    send(&channel, FromWorker::Listening, None)?;
    Ok(channel)
}

fn send(channel: &OwnedFd, message: FromWorker, fd: Option<&OwnedFd>) -> anyhow::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fd = fd.map(AsFd::as_fd);
    if fd.is_some() {
        ancillary.push(SendAncillaryMessage::ScmRights(fd.as_slice()));
    }
    let mut buffer = [0; MAX_MESSAGE];
    let record = [IoSlice::new(message.encode(&mut buffer))];
    rustix::net::sendmsg(channel, &record, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Waits for a message; `None` when the primary is gone.
fn receive(channel: &OwnedFd) -> anyhow::Result<Option<(ToWorker, Option<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = [0; MAX_MESSAGE];
    let mut record = [IoSliceMut::new(&mut buffer)];
    let received = match rustix::net::recvmsg(channel, &mut record, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
        // A primary that ends before it has read everything.
        Err(Errno::CONNRESET) => return Ok(None),
        received => received?,
    };
    let fd = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    if received.bytes == 0 {
        return Ok(None);
    }
    let message = ToWorker::decode(&buffer[..received.bytes]).ok().context("not a message")?;
    Ok(Some((message, fd)))
}
