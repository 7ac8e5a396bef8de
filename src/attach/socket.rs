//! The attach socket: where a worker's process asks to listen, and gets its channel.
//!
//! It listens, and hears the first message of each connection; what follows from that is in [`handshake`] and
//! [`questions`].

use std::future::poll_fn;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::SocketAddrUnix;
use tokio::io::Interest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tracing::warn;

use super::handshake::{self, AttachError, Hello, PATIENCE};
use super::served::ServedPorts;
use super::waiting::{Complaints, Waiting};
use super::{listener, on_demand, questions};
use crate::ids::WorkerPort;
use crate::protocol::wire::{Binding, FromWorker, MAX_MESSAGE, ToWorker};
use crate::supervisor;
use crate::sys::closer::{self, ForeignFd};
use crate::sys::peer::Peer;
use crate::sys::watched::Watched;
use crate::sys::{guarded, seqpacket};

/// What the socket is called in its folder.
const FILE_NAME: &str = "attach";

/// How many connections may wait in the attach socket's backlog.
const BACKLOG: i32 = 256;

/// How many connections it has in hand at once.
const TURNS: usize = 128;

/// The socket, listening.
#[derive(Debug)]
pub(crate) struct AttachSocket {
    listener: Watched<ForeignFd>,
    name: String,
    /// The ways in and out of one that takes the listener's place.
    next: (mpsc::Sender<Watched<ForeignFd>>, mpsc::Receiver<Watched<ForeignFd>>),
}

/// Binds the attach socket again where its file was removed, while it is served.
#[derive(Debug)]
pub(crate) struct Rebind {
    path: PathBuf,
    next: mpsc::Sender<Watched<ForeignFd>>,
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
    /// Where channels go.
    pub served: ServedPorts,
    /// What servers that take their listeners as from systemd get.
    pub inherited: Arc<[(WorkerPort, Binding)]>,
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
                (listen(&address)?, format!("@{name}"))
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
        tokio::spawn(close_unused(context.served.clone()));
        let turns = Arc::new(Semaphore::new(TURNS));
        let (mut waiting, complaints) = (Waiting::default(), Complaints::default());
        let mut is_said = false;
        // Nobody closes the semaphore.
        while let Ok(turn) = Arc::clone(&turns).acquire_owned().await {
            poll_fn(closer::poll_room_for_sent).await;
            let accepted = tokio::select! {
                biased;
                accepted = self.listener.when_readable(|listener| seqpacket::accept(listener)) => accepted,
                Some(bound) = self.next.1.recv() => {
                    self.listener = bound;
                    continue;
                }
            };
            let channel = match accepted {
                Ok(channel) => {
                    is_said = false;
                    ForeignFd::from(channel)
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_said, true) {
                        warn!(%error, "cannot accept at the attach socket; trying again");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(peer) = Peer::of(&channel) else { continue };
            let applicant = Applicant { channel, peer, _turn: turn, goes: waiting.joined(peer.uid) };
            tokio::spawn(answer(applicant, context.clone(), complaints.clone()));
        }
    }
}

/// Closes what was opened for servers that are gone, as long as the program runs.
async fn close_unused(served: ServedPorts) {
    let Some(on_demand) = &served.on_demand else { return };
    let mut times = tokio::time::interval(on_demand::LOOK);
    loop {
        times.tick().await;
        on_demand.close_unused(&served.bound, &served.front, Instant::now()).await;
    }
}

fn listen_at(path: &Path) -> io::Result<Watched<ForeignFd>> {
    let listener = listen(&SocketAddrUnix::new(path)?)?;
    // Who may attach is decided by the token, whatever user a process has become.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

fn listen(address: &SocketAddrUnix) -> io::Result<Watched<ForeignFd>> {
    let listener = seqpacket::listen(address, BACKLOG)?;
    // Nobody can send one before it is admitted. An older kernel lets them, and then they are not received.
    guarded::pass_descriptors(&listener, false);
    Watched::new(listener.into(), Interest::READABLE)
}

/// A process that has connected.
struct Applicant {
    channel: ForeignFd,
    peer: Peer,
    _turn: OwnedSemaphorePermit,
    /// Ends when it has to go.
    goes: oneshot::Receiver<()>,
}

/// Hears what one process wants, and answers. What is not admitted is closed unread.
async fn answer(applicant: Applicant, context: AttachContext, complaints: Complaints) {
    let Applicant { channel, peer, _turn, goes } = applicant;
    let answered = match first_message(&channel, goes).await {
        Ok(FromWorker::Attach { token, binding, wants_drain, brings_socket }) => {
            let hello = Hello { token, binding, wants_drain, brings_socket };
            match handshake::attach(&channel, peer, hello, &context).await {
                Ok(()) => return,
                refused => refused,
            }
        }
        Ok(FromWorker::FetchSocket { token, nonce }) => {
            questions::fetch_socket(&channel, token, nonce, &context).await
        }
        Ok(FromWorker::AskListened { token, port, channel: nonce }) => {
            questions::ask_listened(&channel, token, (WorkerPort(port), nonce), &context).await
        }
        Ok(FromWorker::Inherit { token }) => match listener::inherit(&channel, peer, token, &context).await {
            Ok(()) => return,
            refused => refused,
        },
        Ok(FromWorker::Listens { token, cookie }) => {
            listener::listens(&channel, token, cookie, &context).await
        }
        Ok(FromWorker::Catches { token, signals }) => {
            match questions::catches(token, signals, &context).await {
                Ok(()) => return,
                refused => refused,
            }
        }
        Ok(_) => Err(AttachError::Malformed),
        Err(error) => Err(error),
    };
    if let Err(error) = answered {
        error.log(peer, &complaints);
        let refuse = ToWorker::Refuse(error.refusal());
        let _ = seqpacket::send(&channel, refuse.encode(&mut [0; MAX_MESSAGE]), None);
    }
}

/// Waits for the message that opens a connection, and leaves it where it is: no descriptor of a process that may not be
/// admitted is received.
async fn first_message(channel: &ForeignFd, goes: oneshot::Receiver<()>) -> Result<FromWorker, AttachError> {
    tokio::select! {
        message = timeout(PATIENCE, handshake::peek(channel)) => message.map_err(|_| AttachError::Silent)?,
        // Who has spoken by now is heard.
        _ = goes => handshake::peek_now(channel).unwrap_or(Err(AttachError::GaveWay)),
    }
}
