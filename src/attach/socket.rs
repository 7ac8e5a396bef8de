//! The attach socket: where a worker's process asks to listen, and gets its channel.
//!
//! It checks who asks and passes the channel on; from then on the channel is the front's.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::SocketAddrUnix;
use tokio::io::Interest;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::front;
use crate::front::links::{Attachment, ChannelPermits, Holder};
use crate::ids::{ServiceId, WorkerId, WorkerPort};
use crate::protocol::wire::{Endpoint, FromWorker, MAX_MESSAGE, Refusal, ToWorker, Token};
use crate::settings::Policy;
use crate::supervisor::{self, identity::Users};
use crate::sys::peer::Peer;
use crate::sys::seqpacket;
use crate::sys::watched::Watched;

/// How many connections may wait in the attach socket's backlog.
const BACKLOG: i32 = 256;

/// How many handshakes may be under way at once. Only processes of our own user get this far.
const HANDSHAKES: usize = 64;

/// How long a process may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);

/// The socket, listening.
#[derive(Debug)]
pub struct AttachSocket {
    listener: Watched,
    name: String,
}

/// Whom the handshakes speak with.
#[derive(Clone, Debug)]
pub struct Rooms {
    /// Knows which tokens are living workers'.
    pub supervisor: supervisor::Handle,
    /// Gets the channels.
    pub front: front::handle::Handle,
    /// Room for channels.
    pub places: ChannelPermits,
    /// The ports that are served.
    pub ports: Arc<[WorkerPort]>,
    /// Whose processes may attach.
    pub users: Users,
    /// Who accepts there.
    pub policy: Policy,
}

impl AttachSocket {
    /// Listens in `folder`, or at an abstract name where there is no folder.
    ///
    /// # Errors
    /// Those of bind(2) and listen(2).
    pub fn bind(folder: Option<&Path>) -> io::Result<Self> {
        let (address, name) = match folder {
            Some(folder) => {
                let path = folder.join("attach");
                (SocketAddrUnix::new(&path)?, path.display().to_string())
            }
            None => {
                let name = format!("clusterd-{:016x}", fastrand::u64(..));
                (SocketAddrUnix::new_abstract_name(name.as_bytes())?, format!("@{name}"))
            }
        };
        let listener = seqpacket::listen(&address, BACKLOG)?;
        if folder.is_some() {
            // Who may attach is decided by user and token, and a refused process should read why.
            std::fs::set_permissions(&name, std::fs::Permissions::from_mode(0o666))?;
        }
        Ok(Self { listener: Watched::new(listener, Interest::READABLE)?, name })
    }

    /// What workers find in their environment: a path, or `@name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Answers for ever.
    pub async fn serve(self, rooms: Rooms) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        loop {
            let Ok(turn) = Arc::clone(&handshakes).acquire_owned().await else {
                return;
            };
            let channel = match self.listener.when_readable(|listener| seqpacket::accept(listener)).await {
                Ok(channel) => channel,
                Err(error) => {
                    warn!(%error, "cannot accept at the attach socket; trying again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let rooms = rooms.clone();
            tokio::spawn(async move {
                handshake(channel, &rooms).await;
                drop(turn);
            });
        }
    }
}

/// Why a process gets no channel.
#[derive(Debug, thiserror::Error)]
enum Denied {
    #[error("it belongs to user {uid}, and only processes of these may attach: {users}")]
    OtherUser { uid: u32, users: Users },
    #[error("it said nothing for {PATIENCE:?}")]
    Silent,
    #[error("what it said is not the attach protocol")]
    Malformed,
    #[error("its token is not a living worker's")]
    UnknownToken,
    #[error("port {0} is not served")]
    NotServed(WorkerPort),
    #[error(
        "`--policy shared` is for Node's cluster workers, which accept by themselves on port {0}; other servers are \
         served with `--policy round-robin`"
    )]
    Shared(WorkerPort),
    #[error("the primary has no room for another channel")]
    Full,
    #[error("its socket failed: {0}")]
    Socket(#[from] io::Error),
}

impl Denied {
    /// What the process is told.
    fn refusal(&self) -> Refusal {
        match self {
            Denied::NotServed(_) => Refusal::NotServed,
            Denied::Shared(_) => Refusal::Shared,
            Denied::Full => Refusal::Full,
            Denied::OtherUser { .. }
            | Denied::Silent
            | Denied::Malformed
            | Denied::UnknownToken
            | Denied::Socket(_) => Refusal::NotAdmitted,
        }
    }
}

async fn handshake(channel: OwnedFd, rooms: &Rooms) {
    let Ok(peer) = Peer::of(&channel) else {
        return;
    };
    let mut buffer = [0; MAX_MESSAGE];
    if let Err(denied) = attach(&channel, peer, rooms).await {
        match denied {
            Denied::NotServed(_) => debug!(pid = peer.pid, %denied, "refused a process at the attach socket"),
            _ => warn!(pid = peer.pid, %denied, "refused a process at the attach socket"),
        }
        let refuse = ToWorker::Refuse(denied.refusal());
        let _ = seqpacket::send(&channel, refuse.encode(&mut buffer), None);
    }
}

async fn attach(channel: &OwnedFd, peer: Peer, rooms: &Rooms) -> Result<(), Denied> {
    if !rooms.users.contains(peer.uid) {
        return Err(Denied::OtherUser { uid: peer.uid, users: rooms.users.clone() });
    }
    let request = tokio::time::timeout(PATIENCE, hear(channel)).await.map_err(|_| Denied::Silent)??;
    let port = WorkerPort(request.address.port());
    if !rooms.ports.contains(&port) {
        return Err(Denied::NotServed(port));
    }
    if rooms.policy == Policy::Shared {
        return Err(Denied::Shared(port));
    }
    let place = rooms.places.take().ok_or(Denied::Full)?;
    let worker = admit(rooms, request.token, peer.uid).await?;
    let inode = rustix::fs::fstat(&request.worker_end).map_err(io::Error::from)?.st_ino;
    let mut buffer = [0; MAX_MESSAGE];
    seqpacket::send(channel, ToWorker::Welcome.encode(&mut buffer), None)?;
    let attachment = Attachment {
        worker,
        service: ServiceId::Port(port),
        channel: channel.try_clone()?,
        worker_end: request.worker_end,
        holder: Holder { inode, pid: peer.pid },
        wants_drain: request.wants_drain,
        relayed: false,
        permit: place,
    };
    rooms.front.attach(attachment).await;
    // The worker may have died, and been forgotten by the front, since it was admitted. One that only drains keeps its
    // channels, for to close one is to tell a process that the primary is gone.
    if admit(rooms, request.token, peer.uid).await.is_err() && !runs(rooms, worker) {
        rooms.front.forget(worker).await;
    }
    Ok(())
}

fn runs(rooms: &Rooms, launch: WorkerId) -> bool {
    let app = Arc::clone(&rooms.supervisor.status().borrow());
    app.workers.iter().any(|worker| worker.running.is_some_and(|(running, _)| running == launch))
}

async fn admit(rooms: &Rooms, token: Token, uid: u32) -> Result<WorkerId, Denied> {
    rooms.supervisor.admit(token, uid).await.ok_or(Denied::UnknownToken)
}

/// What a process asks for.
#[derive(Debug)]
struct Request {
    token: Token,
    address: Endpoint,
    wants_drain: bool,
    worker_end: OwnedFd,
}

/// Waits for the one message that opens a channel.
async fn hear(channel: &OwnedFd) -> Result<Request, Denied> {
    let watched = Watched::new(channel.try_clone()?, Interest::READABLE)?;
    let mut buffer = [0; MAX_MESSAGE + 1];
    let record = watched.when_readable(|channel| seqpacket::receive(channel, &mut buffer)).await?;
    let said = FromWorker::decode(&buffer[..record.len]).map_err(|_| Denied::Malformed)?;
    let FromWorker::Attach { token, address, wants_drain } = said else {
        return Err(Denied::Malformed);
    };
    let worker_end = record.fd.ok_or(Denied::Malformed)?;
    if !is_other_end(channel, &worker_end) {
        return Err(Denied::Malformed);
    }
    Ok(Request { token, address, wants_drain, worker_end })
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
