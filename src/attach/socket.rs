//! The attach socket: where a worker's process asks to listen, and gets its channel.
//!
//! It listens, and hears the first message of each connection; what follows from that is in [`handshake`] and
//! [`questions`].

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::SocketAddrUnix;
use tokio::io::Interest;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::warn;

use super::admission::Rules;
use super::bound::BoundChannels;
use super::closer::{Closer, Turn};
use super::handshake::{self, AttachError, Hello, PATIENCE};
use super::questions;
use crate::front;
use crate::front::Accepts;
use crate::front::links::ChannelPermits;
use crate::ids::WorkerPort;
use crate::protocol::wire::{FromWorker, MAX_MESSAGE, ToWorker};
use crate::supervisor;
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
    /// What workers have bound.
    pub bound: BoundChannels,
    /// Who accepts there.
    pub accepts: Accepts,
}

impl AttachContext {
    /// What admission depends on.
    pub(super) fn rules(&self) -> Rules<'_> {
        Rules { ports: &self.ports, accepts: self.accepts }
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
            tokio::spawn(answer(channel, turn, silent.joined(), context.clone()));
        }
    }
}

fn listen_at(path: &Path) -> io::Result<Watched> {
    let listener = seqpacket::listen(&SocketAddrUnix::new(path)?, BACKLOG)?;
    // Who may attach is decided by the token, whatever user a process has become.
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

/// Hears what one process wants, and answers. What is not admitted is closed elsewhere, unread.
async fn answer(channel: OwnedFd, turn: Turn, goes: oneshot::Receiver<()>, context: AttachContext) {
    let Ok(peer) = Peer::of(&channel) else { return turn.close(channel) };
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
        Ok(_) => Err(AttachError::Malformed),
        Err(error) => Err(error),
    };
    if let Err(error) = answered {
        error.log(peer);
        let refuse = ToWorker::Refuse(error.refusal());
        let _ = seqpacket::send(&channel, refuse.encode(&mut [0; MAX_MESSAGE]), None);
    }
    turn.close(channel);
}

/// Waits for the message that opens a connection, and leaves it where it is: no descriptor of a process that may not be
/// admitted is received.
async fn first_message(channel: &OwnedFd, goes: oneshot::Receiver<()>) -> Result<FromWorker, AttachError> {
    let message = tokio::select! {
        message = timeout(PATIENCE, handshake::peek(channel)) => message.map_err(|_| AttachError::Silent)?,
        _ = goes => return Err(AttachError::GaveWay),
    };
    message
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
