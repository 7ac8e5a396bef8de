//! The handshake: from a process that says what it binds to a channel that the front has, or to a listening socket.
//!
//! Whether it gets one is [`admission`]'s to decide, and what stands in its way is known to [`bound`].

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::SocketAddrUnix;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tracing::{debug, info, warn};

use super::admission::{self, Admission, Applicant, Grant, Refusal, Request, Takes};
use super::bound::{self, Bound};
use super::snapshot::Stage;
use super::socket::AttachContext;
use super::turns::Turn;
use super::waiting::Complaints;
use super::{listener, room_for_a_descriptor};
use crate::carry::CarriedFd;
use crate::front::links::{Attachment, ChannelPermit, Holder};
use crate::ids::{ServiceId, WorkerId, WorkerPort};
use crate::protocol::wire::{self, Binding, ChannelName, FromWorker, MAX_MESSAGE, ToWorker, Token};
use crate::sys::closer::ForeignFd;
use crate::sys::peer::Peer;
use crate::sys::watched::Watched;
use crate::sys::{guarded, seqpacket};

/// How long a process may take for what it has to say.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Why a process does not get what it asks for.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttachError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A question is not answered. A process that a worker has left behind may ask again and again.
    #[error(transparent)]
    Question(Refusal),
    #[error("process sent no message within {PATIENCE:?}")]
    Silent,
    #[error("process sent no message, and others wait")]
    GaveWay,
    #[error("message is not one of the attach protocol")]
    Malformed,
    #[error("no file descriptor is free for its channel")]
    NoDescriptor,
    #[error("socket failed: {0}")]
    Socket(#[from] io::Error),
}

impl AttachError {
    /// What the process is answered.
    pub(super) fn refusal(&self) -> wire::Refusal {
        match self {
            AttachError::Refused(refusal) | AttachError::Question(refusal) => refusal.on_the_wire(),
            // It may try again.
            AttachError::NoDescriptor | AttachError::GaveWay => wire::Refusal::Full,
            AttachError::Silent | AttachError::Malformed | AttachError::Socket(_) => {
                wire::Refusal::NotAdmitted
            }
        }
    }

    /// Says it to the operator, if that is news. Whoever may connect could have a line written for each connection.
    pub(super) fn log(&self, peer: Peer, complaints: &Complaints) {
        let Peer { pid, uid } = peer;
        match self {
            AttachError::Refused(Refusal::NotServed(_) | Refusal::InUse { is_news: false, .. })
            | AttachError::Question(_) => {
                debug!(pid, uid, error = %self, "refused a process at the attach socket");
            }
            AttachError::Refused(refusal @ Refusal::InUse { .. }) => info!(pid, "{refusal}"),
            _ => match complaints.say(Instant::now()) {
                Some(0) => warn!(pid, uid, error = %self, "refused a process at the attach socket"),
                Some(others) => {
                    warn!(pid, uid, others, error = %self, "refused a process at the attach socket");
                }
                None => debug!(pid, uid, error = %self, "refused a process at the attach socket"),
            },
        }
    }
}

/// What a process asks for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hello {
    pub(super) token: Token,
    pub(super) binding: Binding,
    pub(super) wants_drain: bool,
    pub(super) brings_socket: bool,
}

/// A process that was told that it may send descriptors.
#[derive(Debug)]
pub(super) struct Invited {
    /// Its end, if it has sent that.
    pub(super) worker_end: Option<ForeignFd>,
    /// How long it may take for what is still to come.
    pub(super) until: Instant,
}

/// Gives the process what it may have: the front gets the channel, or a listening socket is sent. Another image may have
/// invited it before.
pub(super) async fn attach(
    channel: &ForeignFd,
    (peer, turn): (Peer, &mut Turn),
    hello: Hello,
    before: Option<Invited>,
    context: &AttachContext,
) -> Result<(), AttachError> {
    let permit = context.served.permits.take();
    let worker = context.supervisor.admit(hello.token).await;
    let port = WorkerPort(hello.binding.address.port());
    let takes = if hello.wants_drain { Takes::Channel } else { Takes::ChannelOrSocket };
    let request = Request { applicant: Applicant::Process(worker), port, takes };
    let admitted = admission::admit(request, permit.as_ref(), context.served.rules())?;
    let (Admission { worker, source, grant }, Some(permit)) = (admitted, permit) else {
        return Err(Refusal::NotServed(port).into());
    };
    let service = context.served.service(source, &hello.binding).await?;
    let invited = before.map_or_else(|| invite_descriptors(channel), Ok)?;
    let (worker_end, socket) = receive_descriptors(channel, turn, hello, invited).await?;
    let bound = Bound { worker, uid: peer.uid, binding: hello.binding };
    match grant {
        Grant::Channel => {
            give_channel(channel, (bound, peer.pid), (service, socket), worker_end, (hello, permit), context)
                .await?;
        }
        Grant::Socket => {
            listener::give(channel, (bound, peer.pid), (service, socket), permit, context).await?;
        }
    }
    // The worker may have died, and been forgotten by the front, since it was admitted. One that only drains keeps its
    // channels, for to close one is to tell a process that the primary is gone.
    let serves = context.supervisor.admit(hello.token).await.is_some();
    if !serves && !runs(context, worker) {
        context.served.front.forget(worker).await;
        context.served.bound.forget(worker);
    }
    Ok(())
}

async fn give_channel(
    channel: &ForeignFd,
    (bound, pid): (Bound, i32),
    (service, socket): (ServiceId, Option<ForeignFd>),
    worker_end: ForeignFd,
    (hello, permit): (Hello, ChannelPermit),
    context: &AttachContext,
) -> Result<(), AttachError> {
    let options = socket.as_ref().map(bound::options_set_on).unwrap_or_default();
    let inode = rustix::fs::fstat(&worker_end).map_err(io::Error::from)?.st_ino;
    let holder = Holder { inode, pid };
    let place = bound::Place { link: permit.link(), holder, nonce: nonce_of(channel)?, given: false };
    let registration =
        context.served.bound.claim(bound, &context.served.front).await?.register(place, socket);
    context.supervisor.binds(pid).await;
    seqpacket::send(channel, ToWorker::Welcome.encode(&mut [0; MAX_MESSAGE]), None)?;
    let attachment = Attachment {
        worker: bound.worker,
        service,
        binding: hello.binding,
        options,
        registration: Some(registration),
        channel: channel.try_clone()?,
        worker_end,
        holder,
        wants_drain: hello.wants_drain,
        relayed: false,
        permit,
    };
    context.served.front.attach(attachment).await;
    Ok(())
}

fn runs(context: &AttachContext, launch: WorkerId) -> bool {
    let app = Arc::clone(&context.supervisor.status().borrow());
    app.workers.iter().any(|worker| worker.running.is_some_and(|(running, _)| running == launch))
}

/// Waits for the next message, and leaves it where it is.
pub(super) async fn peek(channel: &ForeignFd) -> Result<FromWorker, AttachError> {
    let watched = Watched::new(channel.try_clone()?, Interest::READABLE)?;
    let mut buffer = [0; MAX_MESSAGE + 1];
    let len = watched.when_readable(|channel| seqpacket::peek_bytes(channel, &mut buffer)).await?;
    understood(&buffer[..len])
}

/// Waits for the next message, and leaves it where it is: how long it is, and 0 at the end of the connection.
pub(super) async fn peek_len(channel: &ForeignFd) -> io::Result<usize> {
    let watched = Watched::new(channel.try_clone()?, Interest::READABLE)?;
    watched.when_readable(|channel| seqpacket::peek_bytes(channel, &mut [0; MAX_MESSAGE])).await
}

/// The next message if it is there, which is left where it is.
pub(super) fn peek_now(channel: &ForeignFd) -> Option<Result<FromWorker, AttachError>> {
    let mut buffer = [0; MAX_MESSAGE + 1];
    let len = seqpacket::peek_bytes(channel, &mut buffer).ok()?;
    Some(understood(&buffer[..len]))
}

fn understood(record: &[u8]) -> Result<FromWorker, AttachError> {
    FromWorker::decode(record).map_err(|_| AttachError::Malformed)
}

/// Takes the first message, with which there is no descriptor yet.
pub(super) fn take_message(channel: &ForeignFd) -> Result<(), AttachError> {
    match guarded::receive(channel, &mut [0; MAX_MESSAGE])?.fd {
        Some(_) => Err(AttachError::Malformed),
        None => Ok(()),
    }
}

/// Takes the first message, and lets the process send descriptors from now on.
fn invite_descriptors(channel: &ForeignFd) -> Result<Invited, AttachError> {
    take_message(channel)?;
    guarded::pass_descriptors(channel, true);
    seqpacket::send(channel, ToWorker::Admitted.encode(&mut [0; MAX_MESSAGE]), None)?;
    Ok(Invited { worker_end: None, until: Instant::now() + PATIENCE })
}

/// Waits for the worker's end of the channel, and for the server's own socket if it brings that.
async fn receive_descriptors(
    channel: &ForeignFd,
    turn: &mut Turn,
    hello: Hello,
    Invited { worker_end, until }: Invited,
) -> Result<(ForeignFd, Option<ForeignFd>), AttachError> {
    let worker_end = match worker_end {
        Some(worker_end) => worker_end,
        None => {
            let stage = Stage::Admitted { hello, worker_end: None };
            receive_descriptor(channel, turn, (stage, until), FromWorker::End).await?
        }
    };
    if !is_other_end(channel, &worker_end) {
        return Err(AttachError::Malformed);
    }
    if !hello.brings_socket {
        return Ok((worker_end, None));
    }
    let stage = Stage::Admitted { hello, worker_end: Some(CarriedFd::of(&worker_end)) };
    let socket = receive_descriptor(channel, turn, (stage, until), FromWorker::Socket).await?;
    if bound::is_tcp(&socket) { Ok((worker_end, Some(socket))) } else { Err(AttachError::Malformed) }
}

async fn receive_descriptor(
    channel: &ForeignFd,
    turn: &mut Turn,
    (stage, until): (Stage, Instant),
    message: FromWorker,
) -> Result<ForeignFd, AttachError> {
    let next = turn.wait(channel, (stage.clone(), until), peek(channel)).await;
    if next.or_else(|| peek_now(channel)).ok_or(AttachError::Silent)?? != message {
        return Err(AttachError::Malformed);
    }
    let until = Instant::now() + PATIENCE;
    let room = turn.wait(channel, (stage, until), room_for_a_descriptor(channel)).await;
    room.ok_or(AttachError::NoDescriptor)?;
    match guarded::receive(channel, &mut [0; MAX_MESSAGE]) {
        Ok(record) => record.fd.ok_or(AttachError::Malformed),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(AttachError::Malformed),
        // Somebody else was faster to take the last descriptor that was free.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
            Err(AttachError::NoDescriptor)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether `worker_end` is the socket at the other end of `channel`: the only one that has its name.
fn is_other_end(channel: impl AsFd, worker_end: impl AsFd) -> bool {
    let peer = rustix::net::getpeername(channel).ok().flatten().map(SocketAddrUnix::try_from);
    let own = rustix::net::getsockname(worker_end).map(SocketAddrUnix::try_from);
    match (peer, own) {
        (Some(Ok(peer)), Ok(Ok(own))) => !peer.is_unnamed() && peer == own,
        _ => false,
    }
}

/// What tells the channel from all others, by the name of its other end.
fn nonce_of(channel: impl AsFd) -> Result<u64, AttachError> {
    let name = rustix::net::getpeername(channel).map_err(io::Error::from)?;
    let name = name.and_then(|name| SocketAddrUnix::try_from(name).ok()).ok_or(AttachError::Malformed)?;
    let name = name.abstract_name().ok_or(AttachError::Malformed)?;
    let name = ChannelName::decode(&[&[0], name].concat()).ok_or(AttachError::Malformed)?;
    Ok(name.nonce)
}
