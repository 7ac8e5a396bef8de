//! Listening sockets for servers that accept by themselves: one that clusterd has made takes the place of the server's own.
//!
//! The front makes them, and decides which of them clients come to. Whether a server gets one is [`admission`]'s to decide.
//!
//! [`admission`]: super::admission

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::socket_cookie;

use super::admission::Refusal;
use super::bound::{self, Bound, Place};
use super::handshake::AttachError;
use super::questions::whose;
use super::socket::AttachContext;
use crate::front::links::{ChannelPermit, Holder};
use crate::front::steering::Given;
use crate::ids::{LinkId, ServiceId, WorkerPort};
use crate::protocol::wire::{MAX_MESSAGE, ToWorker, Token};
use crate::sys::closer::ForeignFd;
use crate::sys::seqpacket;

/// How long it may take until clients are let in.
const LETTING_IN: Duration = Duration::from_secs(1);

/// Sends the process a listening socket for what it binds, made as its own one is.
pub(super) async fn give(
    channel: &ForeignFd,
    (bound, pid): (Bound, i32),
    (port, own): (WorkerPort, Option<ForeignFd>),
    permit: ChannelPermit,
    context: &AttachContext,
) -> Result<(), AttachError> {
    let (listener, link) = make((bound, pid), (port, Given::Bound), permit, context).await?;
    if let Some(own) = own {
        bound::set_as_on(&own, &listener);
    }
    let sent = send(channel, port, &listener);
    if sent.is_err() {
        context.front.detach(link).await;
    }
    sent
}

fn send(channel: &ForeignFd, port: WorkerPort, listener: &OwnedFd) -> Result<(), AttachError> {
    let record = ToWorker::Listener { port: port.0 };
    Ok(seqpacket::send(channel, record.encode(&mut [0; MAX_MESSAGE]), Some(listener.as_fd()))?)
}

/// Has the front make a listener, which nobody is steered to yet.
async fn make(
    (bound, pid): (Bound, i32),
    (port, given): (WorkerPort, Given),
    permit: ChannelPermit,
    context: &AttachContext,
) -> Result<(OwnedFd, LinkId), AttachError> {
    let Bound { worker, binding, .. } = bound;
    let claim = context.bound.claim(bound, &context.front).await?;
    let link = permit.link();
    let sharing = context.front.share((worker, pid), ServiceId::Port(port), binding, given, permit);
    let listener = match sharing.await {
        Ok(listener) => listener,
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            return Err(Refusal::NoAddress { worker, address: binding.address.into() }.into());
        }
        // A stop has begun.
        Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => return Err(Refusal::Full.into()),
        Err(error) => return Err(error.into()),
    };
    let inode = rustix::fs::fstat(&listener).map_err(io::Error::from)?.st_ino;
    let nonce = socket_cookie(&listener).map_err(io::Error::from)?;
    claim.register_socket(Place { link, holder: Holder { inode, pid }, nonce, given: false });
    Ok((listener, link))
}

/// A server listens on its socket: clients are let in, as they are when listen(2) returns.
pub(super) async fn listens(
    channel: &ForeignFd,
    token: Token,
    cookie: u64,
    context: &AttachContext,
) -> Result<(), AttachError> {
    let worker = whose(token, context).await?;
    let link = context.bound.socket_with(worker, cookie);
    if let Some(link) = link {
        context.front.listens(link).await?;
        context.bound.becomes(LETTING_IN, || context.bound.listens(link)).await;
    }
    let answer = ToWorker::HasListened(link.is_some());
    Ok(seqpacket::send(channel, answer.encode(&mut [0; MAX_MESSAGE]), None)?)
}
