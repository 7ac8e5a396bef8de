//! The attach socket: where a worker's process asks to listen, and gets its channel.
//!
//! Whether it gets one is [`admission`]'s to decide; from then on the channel is the front's.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::SocketAddrUnix;
use tokio::io::Interest;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::admission::{self, Admission, Applicant, Grant, Refusal, Request, Rules, Source, Takes};
use super::closer::{Closer, Turn};
use super::room_for_a_descriptor;
use crate::front;
use crate::front::Accepts;
use crate::front::links::{Attachment, ChannelPermits, Holder};
use crate::ids::{ServiceId, WorkerId, WorkerPort};
use crate::protocol::wire::{self, Binding, FromWorker, MAX_MESSAGE, ToWorker, Token};
use crate::supervisor::{self, identity::Users};
use crate::sys::peer::Peer;
use crate::sys::seqpacket;
use crate::sys::watched::Watched;

/// What the socket is called in its folder.
const FILE_NAME: &str = "attach";

/// How many connections may wait in the attach socket's backlog.
const BACKLOG: i32 = 256;

/// How many processes may be waited for that have said nothing yet. If another comes, the first of them has to go: who
/// wants to attach speaks as soon as it is connected.
const SILENT: usize = 64;

/// How long a process may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);

/// The socket, listening.
#[derive(Debug)]
pub(crate) struct AttachSocket {
    listener: Watched,
    name: String,
    /// The ways in and out of one that takes the listener's place.
    next: (mpsc::Sender<Watched>, mpsc::Receiver<Watched>),
}

/// Binds the attach socket again where its file was removed, while it is served.
#[derive(Debug)]
pub(crate) struct Rebind {
    path: PathBuf,
    next: mpsc::Sender<Watched>,
}

impl Rebind {
    /// Whether there is a socket where workers look for it.
    pub(crate) fn is_bound(&self) -> bool {
        self.path.symlink_metadata().is_ok_and(|file| file.file_type().is_socket())
    }

    /// Listens at the same path again. The listener before is closed once it has answered everybody that waits there.
    ///
    /// # Errors
    /// Those of bind(2) and listen(2).
    pub(crate) fn again(&self) -> io::Result<()> {
        let listener = listen_at(&self.path)?;
        self.next.try_send(listener).map_err(|_| io::Error::other("the attach socket is not served"))
    }
}

/// What the handshakes depend on.
#[derive(Clone, Debug)]
pub(crate) struct AttachContext {
    /// Knows whose tokens there are.
    pub supervisor: supervisor::Handle,
    /// Gets the channels.
    pub front: front::handle::Handle,
    /// Room for channels.
    pub permits: ChannelPermits,
    /// The ports that are always served.
    pub ports: Arc<[WorkerPort]>,
    /// Whose processes may attach.
    pub users: Users,
    /// Who accepts there.
    pub accepts: Accepts,
}

impl AttachContext {
    fn rules(&self) -> Rules<'_> {
        Rules { users: &self.users, ports: &self.ports, accepts: self.accepts }
    }
}

impl AttachSocket {
    /// Listens in `folder`, or at an abstract name where there is no folder.
    ///
    /// # Errors
    /// Those of bind(2) and listen(2).
    pub(crate) fn bind(folder: Option<&Path>) -> io::Result<Self> {
        let (listener, name) = match folder {
            Some(folder) => {
                let path = folder.join(FILE_NAME);
                (listen_at(&path)?, path.display().to_string())
            }
            None => {
                let name = format!("clusterd-{:016x}", fastrand::u64(..));
                let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
                let listener = seqpacket::listen(&address, BACKLOG)?;
                (Watched::new(listener, Interest::READABLE)?, format!("@{name}"))
            }
        };
        Ok(Self { listener, name, next: mpsc::channel(1) })
    }

    /// What binds it again in this folder, where it is bound.
    pub(crate) fn rebind(&self, folder: &Path) -> Rebind {
        Rebind { path: folder.join(FILE_NAME), next: self.next.0.clone() }
    }

    /// What workers find in their environment: a path, or `@name`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Answers for as long as the program runs.
    pub(crate) async fn serve(mut self, context: AttachContext) {
        let closer = Closer::default();
        let mut silent = Silent::default();
        while let Some(turn) = closer.turn().await {
            let accepted = tokio::select! {
                biased;
                accepted = self.listener.when_readable(|listener| seqpacket::accept(listener)) => accepted,
                Some(bound) = self.next.1.recv() => {
                    self.listener = bound;
                    continue;
                }
            };
            let channel = match accepted {
                Ok(channel) => channel,
                Err(error) => {
                    warn!(%error, "cannot accept at the attach socket; trying again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            tokio::spawn(handshake(channel, turn, silent.joined(), context.clone()));
        }
    }
}

fn listen_at(path: &Path) -> io::Result<Watched> {
    let listener = seqpacket::listen(&SocketAddrUnix::new(path)?, BACKLOG)?;
    // Who may attach is decided by user and token, and a refused process should read why.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Watched::new(listener, Interest::READABLE)
}

/// The processes that have said nothing yet, in the order in which they came.
#[derive(Debug, Default)]
struct Silent(VecDeque<oneshot::Sender<()>>);

impl Silent {
    /// There is another. What is returned ends when it has to go.
    fn joined(&mut self) -> oneshot::Receiver<()> {
        self.0.retain(|process| !process.is_closed());
        if self.0.len() >= SILENT {
            self.0.pop_front();
        }
        let (stays, goes) = oneshot::channel();
        self.0.push_back(stays);
        goes
    }
}

/// Why a process gets no channel.
#[derive(Debug, thiserror::Error)]
enum AttachError {
    #[error(transparent)]
    Refused(#[from] Refusal),
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
    fn refusal(&self) -> wire::Refusal {
        match self {
            AttachError::Refused(refusal) => refusal.on_the_wire(),
            AttachError::NoDescriptor => wire::Refusal::Full,
            AttachError::Silent | AttachError::GaveWay | AttachError::Malformed | AttachError::Socket(_) => {
                wire::Refusal::NotAdmitted
            }
        }
    }
}

/// Answers one process. What is not admitted is closed elsewhere, unread.
async fn handshake(channel: OwnedFd, turn: Turn, goes: oneshot::Receiver<()>, context: AttachContext) {
    let Ok(peer) = Peer::of(&channel) else { return turn.close(channel) };
    let Err(error) = attach(&channel, peer, goes, &context).await else { return };
    match error {
        AttachError::Refused(Refusal::NotServed(_)) => {
            debug!(pid = peer.pid, %error, "refused a process at the attach socket");
        }
        _ => warn!(pid = peer.pid, %error, "refused a process at the attach socket"),
    }
    let refuse = ToWorker::Refuse(error.refusal());
    let _ = seqpacket::send(&channel, refuse.encode(&mut [0; MAX_MESSAGE]), None);
    turn.close(channel);
}

async fn attach(
    channel: &OwnedFd,
    peer: Peer,
    goes: oneshot::Receiver<()>,
    context: &AttachContext,
) -> Result<(), AttachError> {
    admission::may_speak(peer.uid, &context.users)?;
    let hello = tokio::select! {
        hello = timeout(PATIENCE, Hello::read(channel)) => hello.map_err(|_| AttachError::Silent)??,
        _ = goes => return Err(AttachError::GaveWay),
    };
    let (uid, permit) = (peer.uid, context.permits.take());
    let worker = context.supervisor.admit(hello.token, uid).await;
    let port = WorkerPort(hello.binding.address.port());
    let request = Request { applicant: Applicant::Process { uid, worker }, port, takes: Takes::Channel };
    let admitted = admission::admit(request, permit.as_ref(), context.rules())?;
    let (Admission { worker, source: Source::Served(port), grant: Grant::Channel }, Some(permit)) =
        (admitted, permit)
    else {
        return Err(Refusal::NotServed(port).into());
    };
    let worker_end = receive_worker_end(channel).await?;
    let inode = rustix::fs::fstat(&worker_end).map_err(io::Error::from)?.st_ino;
    seqpacket::send(channel, ToWorker::Welcome.encode(&mut [0; MAX_MESSAGE]), None)?;
    let attachment = Attachment {
        worker,
        service: ServiceId::Port(port),
        binding: hello.binding,
        options: Vec::new(),
        channel: channel.try_clone()?,
        worker_end,
        holder: Holder { inode, pid: peer.pid },
        wants_drain: hello.wants_drain,
        relayed: false,
        permit,
    };
    context.front.attach(attachment).await;
    // The worker may have died, and been forgotten by the front, since it was admitted. One that only drains keeps its
    // channels, for to close one is to tell a process that the primary is gone.
    let serves = context.supervisor.admit(hello.token, uid).await.is_some();
    if !serves && !runs(context, worker) {
        context.front.forget(worker).await;
    }
    Ok(())
}

fn runs(context: &AttachContext, launch: WorkerId) -> bool {
    let app = Arc::clone(&context.supervisor.status().borrow());
    app.workers.iter().any(|worker| worker.running.is_some_and(|(running, _)| running == launch))
}

/// What a process asks for.
#[derive(Clone, Copy, Debug)]
struct Hello {
    token: Token,
    binding: Binding,
    wants_drain: bool,
}

impl Hello {
    /// Waits for the one message that opens a channel, and leaves it where it is: no descriptor of a process that may
    /// not be admitted is received.
    async fn read(channel: &OwnedFd) -> Result<Self, AttachError> {
        let watched = Watched::new(channel.try_clone()?, Interest::READABLE)?;
        let mut buffer = [0; MAX_MESSAGE + 1];
        let len = watched.when_readable(|channel| seqpacket::peek_bytes(channel, &mut buffer)).await?;
        match FromWorker::decode(&buffer[..len]) {
            Ok(FromWorker::Attach { token, binding, wants_drain, .. }) => {
                Ok(Self { token, binding, wants_drain })
            }
            _ => Err(AttachError::Malformed),
        }
    }
}

/// Receives the message that was read, and the worker's end of the channel beside it.
async fn receive_worker_end(channel: &OwnedFd) -> Result<OwnedFd, AttachError> {
    timeout(PATIENCE, room_for_a_descriptor(channel)).await.map_err(|_| AttachError::NoDescriptor)?;
    let record = seqpacket::receive(channel, &mut [0; MAX_MESSAGE])?;
    match record.fd {
        Some(worker_end) if is_other_end(channel, &worker_end) => Ok(worker_end),
        // Somebody else was faster to take the last descriptor that was free.
        None if record.truncated => Err(AttachError::NoDescriptor),
        _ => Err(AttachError::Malformed),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_those_that_say_nothing_the_first_has_to_go_when_there_are_too_many() {
        let mut silent = Silent::default();
        let mut here: VecDeque<_> = (0..SILENT).map(|_| silent.joined()).collect();
        let goes = |process: &mut oneshot::Receiver<()>| {
            matches!(process.try_recv(), Err(oneshot::error::TryRecvError::Closed))
        };
        assert!(!here.iter_mut().any(goes), "there is room for all of them");
        here.push_back(silent.joined());
        assert!(goes(&mut here[0]), "the first goes");
        assert!(!here.iter_mut().skip(1).any(goes));
        // One that has spoken makes room.
        here.truncate(SILENT);
        here.push_back(silent.joined());
        assert!(!here.iter_mut().skip(1).any(goes));
        assert_eq!(silent.0.len(), SILENT);
    }
}
