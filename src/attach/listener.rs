//! Listening sockets for servers that accept by themselves: one that clusterd has made takes the place of the server's own.
//!
//! The front makes them, and decides which of them clients come to. Whether a server gets one is [`admission`]'s to decide.
//!
//! [`admission`]: super::admission

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::sockopt::socket_cookie;

use super::admission::Refusal;
use super::bound::{self, Bound, Place};
use super::handshake::{self, AttachError, PATIENCE};
use super::questions::whose;
use super::served::ServedPorts;
use super::snapshot::Stage;
use super::socket::AttachContext;
use super::turns::Turn;
use crate::front::links::{ChannelPermit, Holder};
use crate::front::steering::Given;
use crate::ids::{LinkId, ServiceId, WorkerId, WorkerPort};
use crate::protocol::wire::{MAX_MESSAGE, ToWorker, Token};
use crate::sys::closer::ForeignFd;
use crate::sys::peer::Peer;
use crate::sys::seqpacket;

/// How long it may take until clients are let in.
const LETTING_IN: Duration = Duration::from_secs(1);

/// Sends the process a listening socket for what it binds, made as its own one is.
pub(super) async fn give(
    channel: &ForeignFd,
    (bound, pid): (Bound, i32),
    (service, own): (ServiceId, Option<ForeignFd>),
    permit: ChannelPermit,
    context: &AttachContext,
) -> Result<(), AttachError> {
    let made = make(Some(channel), (bound, pid), (service, Given::Bound), permit, &context.served).await?;
    let Made { listener, link, .. } = made;
    if let Some(own) = own {
        bound::set_as_on(&own, &listener);
    }
    let sent = send(channel, WorkerPort(bound.binding.address.port()), &listener);
    if sent.is_err() {
        context.served.front.detach(link).await;
    }
    sent
}

fn send(channel: &ForeignFd, port: WorkerPort, listener: &OwnedFd) -> Result<(), AttachError> {
    let record = ToWorker::Listener { port: port.0 };
    Ok(seqpacket::send(channel, record.encode(&mut [0; MAX_MESSAGE]), Some(listener.as_fd()))?)
}

/// A listening socket that was made, and is to be put in place.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) listener: OwnedFd,
    pub(super) link: LinkId,
    /// Its SO_COOKIE (socket(7)).
    pub(super) cookie: u64,
}

/// Has the front make a listener, which nobody is steered to yet.
/// On its way to a process it is until this `way` has ended.
pub(super) async fn make(
    way: Option<&ForeignFd>,
    (bound, pid): (Bound, i32),
    (service, given): (ServiceId, Given),
    permit: ChannelPermit,
    served: &ServedPorts,
) -> Result<Made, AttachError> {
    let Bound { worker, binding, .. } = bound;
    let ServedPorts { front, bound: table, .. } = served;
    let claim = table.claim(bound, front).await?;
    let link = permit.link();
    let sharing = front.share((worker, pid), service, binding, given, permit);
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
    let cookie = socket_cookie(&listener).map_err(io::Error::from)?;
    let place = Place { link, holder: Holder { inode, pid }, nonce: cookie, given: false };
    claim.register_socket(place, way.map(ForeignFd::try_clone).transpose()?);
    Ok(Made { listener, link, cookie })
}

/// A server listens on its socket: clients are let in, as they are when listen(2) returns.
pub(super) async fn listens(
    channel: &ForeignFd,
    token: Token,
    cookie: u64,
    context: &AttachContext,
) -> Result<(), AttachError> {
    let worker = whose(token, context).await?;
    let answer = ToWorker::HasListened(let_in(worker, cookie, &context.served).await?);
    Ok(seqpacket::send(channel, answer.encode(&mut [0; MAX_MESSAGE]), None)?)
}

/// Gives the process all listeners of a server that takes them as from systemd, and has clients let in once it runs.
pub(super) async fn inherit(
    channel: &ForeignFd,
    (peer, turn): (Peer, &mut Turn),
    token: Token,
    context: &AttachContext,
) -> Result<(), AttachError> {
    let worker = whose(token, context).await?;
    handshake::take_message(channel)?;
    let mut links = Vec::new();
    for &(port, binding) in context.inherited.iter() {
        let permit = context.served.permits.take().ok_or(Refusal::Full)?;
        let bound = Bound { worker, uid: peer.uid, binding };
        let given = Given::Listening;
        let made =
            make(Some(channel), (bound, peer.pid), (ServiceId::Port(port), given), permit, &context.served)
                .await?;
        let Made { listener, link, .. } = made;
        links.push(link);
        send(channel, port, &listener)?;
    }
    seqpacket::send(channel, ToWorker::Welcome.encode(&mut [0; MAX_MESSAGE]), None)?;
    inherited(channel, turn, (links, Instant::now() + PATIENCE), context).await
}

/// Has clients let in to these listeners if the process that has got them becomes its program within this time.
pub(super) async fn inherited(
    channel: &ForeignFd,
    turn: &mut Turn,
    (links, until): (Vec<LinkId>, Instant),
    context: &AttachContext,
) -> Result<(), AttachError> {
    let stage = Stage::Inherited { links: links.clone() };
    let end = turn.wait(channel, (stage, until), handshake::peek_len(channel)).await;
    // It says so before if it cannot.
    let runs = matches!(end.unwrap_or_else(|| seqpacket::peek_bytes(channel, &mut [0])), Ok(0));
    for link in links {
        match runs {
            true => context.served.front.listens(link).await?,
            false => context.served.front.detach(link).await,
        }
    }
    Ok(())
}

/// Lets clients in to the listening socket of this cookie, if the worker has it; whether it has.
///
/// # Errors
/// Those of listen(2).
pub(super) async fn let_in(worker: WorkerId, cookie: u64, served: &ServedPorts) -> io::Result<bool> {
    let ServedPorts { front, bound: table, .. } = served;
    let Some(link) = table.socket_with(worker, cookie) else { return Ok(false) };
    front.listens(link).await?;
    table.becomes(LETTING_IN, || table.listens(link)).await;
    Ok(true)
}
