//! A listening socket of a group, with the servers that have it.
//!
//! It does not know where it stands in its group.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use tracing::{debug, warn};

use super::MemberId;
use super::snapshot::{LeftSnapshot, MemberSnapshot, ServerSnapshot};
use crate::front::bound::ListeningSocket;
use crate::front::links::{ChannelPermit, Gate, Holder};
use crate::front::public_socket::LAST_HANDSHAKES;
use crate::front::snapshot::Legacy;
use crate::ids::{LinkId, WorkerId};

/// A worker's server, which accepts from a socket by itself.
#[derive(Debug)]
pub(super) struct Server {
    /// Whose it is.
    pub(super) worker: WorkerId,
    /// Its permit, and thereby its name.
    pub(super) permit: ChannelPermit,
    /// The process that asked for it; 0 if it is not known.
    pub(super) pid: i32,
    /// Whether it counts, and connections are to be steered to it.
    pub(super) gate: Gate,
    /// It has called listen(2).
    pub(super) listens: bool,
}

/// A socket, and the primary's copy of it.
#[derive(Debug)]
pub(super) struct Member {
    /// Its name.
    pub(super) id: MemberId,
    /// The primary's copy.
    pub(super) socket: ListeningSocket,
    /// One, if each has a socket of its own.
    pub(super) servers: Vec<Server>,
    /// Its server is gone, and none has listened with it since.
    pub(super) left: Option<Left>,
    /// New clients are kept out, and until then handshakes may end that have begun.
    pub(super) closing: Option<Instant>,
}

/// What a server has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// Since when.
    pub(super) since: Instant,
    /// Whose it was.
    pub(super) worker: WorkerId,
    /// It was retired: what came before had its time.
    pub(super) was_retired: bool,
}

/// Connections are steered to those of the best rank that there is; the best comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Its server listens and takes.
    Taking,
    /// It listens, and leaves connections waiting.
    LeftOut,
    /// It listens, and its worker is not ready.
    Held,
    /// It waits for a server to come, or to listen.
    Waiting,
    /// Its worker is to end.
    Ending,
    /// New clients are kept out.
    Closing,
}

impl Server {
    fn snapshot(&self) -> ServerSnapshot {
        let &Self { worker, ref permit, pid, gate, listens } = self;
        ServerSnapshot { worker, link: permit.link(), pid, gate, listens }
    }

    fn restored(snapshot: &ServerSnapshot, legacy: &mut Legacy) -> io::Result<Self> {
        let &ServerSnapshot { worker, link, pid, gate, listens } = snapshot;
        let (permit, _) = legacy.channel(link)?;
        Ok(Self { worker, permit, pid, gate, listens })
    }
}

impl Left {
    fn snapshot(self) -> LeftSnapshot {
        let Self { since, worker, was_retired } = self;
        LeftSnapshot { since: since.into(), worker, was_retired }
    }

    fn restored(snapshot: LeftSnapshot) -> Self {
        let LeftSnapshot { since, worker, was_retired } = snapshot;
        Self { since: since.into(), worker, was_retired }
    }
}

impl Member {
    /// One without a server.
    pub(super) fn new(id: MemberId, socket: ListeningSocket) -> Self {
        Self { id, socket, servers: Vec::new(), left: None, closing: None }
    }

    /// As it is written down.
    pub(super) fn snapshot(&self) -> MemberSnapshot {
        MemberSnapshot {
            id: self.id,
            socket: self.socket.snapshot(),
            servers: self.servers.iter().map(Server::snapshot).collect(),
            left: self.left.map(Left::snapshot),
            closing: self.closing.map(Into::into),
        }
    }

    /// As it was written down.
    ///
    /// # Errors
    /// Its descriptor has two owners, or a server gets no permit.
    pub(super) fn restored(snapshot: MemberSnapshot, legacy: &mut Legacy) -> io::Result<Self> {
        let MemberSnapshot { id, socket, servers, left, closing } = snapshot;
        Ok(Self {
            id,
            socket: ListeningSocket::carried(&socket, legacy.descriptor(socket.socket)?),
            servers: servers
                .iter()
                .map(|server| Server::restored(server, legacy))
                .collect::<io::Result<_>>()?,
            left: left.map(Left::restored),
            closing: closing.map(Into::into),
        })
    }

    /// Gives a server a copy; clients may come to it, if they were kept out.
    ///
    /// # Errors
    /// Those of fcntl(2), and of setsockopt(2).
    pub(super) fn join(&mut self, server: Server) -> io::Result<OwnedFd> {
        if self.closing.is_some() {
            self.socket.take_new_handshakes()?;
            self.closing = None;
        }
        let copy = self.socket.copy()?;
        self.servers.push(server);
        Ok(copy)
    }

    /// The server with this name.
    pub(super) fn server(&mut self, link: LinkId) -> Option<&mut Server> {
        self.servers.iter_mut().find(|server| server.permit.link() == link)
    }

    /// The servers that `which` picks are gone. Returns them.
    pub(super) fn leave(&mut self, which: impl Fn(LinkId, WorkerId) -> bool, now: Instant) -> Vec<Server> {
        let gone = self.servers.extract_if(.., |server| which(server.permit.link(), server.worker));
        let gone: Vec<_> = gone.collect();
        if let Some(last) = gone.last().filter(|_| self.servers.is_empty()) {
            let since = self.left.map_or(now, |left| left.since);
            let was_retired = last.gate == Gate::Retired;
            self.left = Some(Left { since, worker: last.worker, was_retired });
        }
        gone
    }

    /// Whether connections are to be steered to it.
    pub(super) fn rank(&self, is_left_out: bool) -> Rank {
        let listens = |gate: Gate| self.servers.iter().any(|server| server.listens && server.gate == gate);
        if self.closing.is_some() {
            Rank::Closing
        } else if listens(Gate::Open) {
            if is_left_out { Rank::LeftOut } else { Rank::Taking }
        } else if listens(Gate::Held) {
            Rank::Held
        } else if self.servers.iter().any(|server| server.gate == Gate::Retired) {
            Rank::Ending
        } else {
            Rank::Waiting
        }
    }

    /// Whether a server of this worker listens with it.
    pub(super) fn is_listened_by(&self, worker: WorkerId) -> bool {
        self.servers.iter().any(|server| server.listens && server.worker == worker)
    }

    /// How many servers listen with it to which clients are to come.
    pub(super) fn listening(&self) -> usize {
        self.servers.iter().filter(|server| server.listens && server.gate == Gate::Open).count()
    }

    /// Lets no new connection begin. An inherited socket is left as it is: what is in its backlog is for whoever listens
    /// with it next.
    pub(super) fn close(&mut self, now: Instant) {
        if self.closing.is_some() || self.socket.is_inherited() {
            return;
        }
        if let Err(error) = self.socket.filter_new_handshakes() {
            warn!(address = %self.socket.address(), %error, "cannot keep new connections out while stopping");
        }
        self.closing = Some(now + LAST_HANDSHAKES);
    }

    /// With listen(2) a server sets the backlog that it wants; here the setting says how long it is.
    pub(super) fn restore_backlog(&self) {
        if let Err(error) = self.socket.listen() {
            debug!(address = %self.socket.address(), %error, "cannot set the backlog");
        }
    }

    /// Who would hold the socket, if it is not closed.
    pub(super) fn holders(&self) -> impl Iterator<Item = (LinkId, Holder)> {
        let inode = rustix::fs::fstat(&self.socket).map(|status| status.st_ino).ok();
        let holder =
            move |server: &Server| Some((server.permit.link(), Holder { inode: inode?, pid: server.pid }));
        self.servers.iter().filter_map(holder)
    }
}
