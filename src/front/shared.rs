//! Listening sockets that workers share: they accept by themselves, and the kernel chooses who gets a connection.
//!
//! It keeps each open while no worker is up, gives copies of it to workers, and knows which of them listen. It accepts
//! nothing, so that there is nothing to queue, to hand over or to take back.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::bound::ListeningSocket;
use super::launches::LaunchTable;
use super::public_socket::LAST_HANDSHAKES;
use crate::front::links::{ChannelPermit, Gate};
use crate::ids::{LinkId, ServiceId, WorkerId};

/// How often it is looked whether workers have emptied a backlog.
const LOOK: Duration = Duration::from_millis(50);

/// What a worker's server asks for that shall accept by itself.
#[derive(Debug)]
pub(crate) struct Sharing {
    /// Whose it is.
    pub worker: WorkerId,
    /// On what it listens.
    pub service: ServiceId,
    /// Its permit, and thereby its name.
    pub permit: ChannelPermit,
    /// Told the copy.
    pub reply: oneshot::Sender<io::Result<OwnedFd>>,
}

/// The sockets; those that are always served come first.
#[derive(Debug, Default)]
pub(crate) struct SharedSockets(Vec<SharedSocket>);

#[derive(Debug)]
struct SharedSocket {
    id: ServiceId,
    intake: Intake,
    members: Vec<Member>,
}

/// Whether clients may come.
#[derive(Debug)]
enum Intake {
    Open(ListeningSocket),
    /// They may not, but those that are in the backlog are still taken by workers.
    Closing {
        bound: ListeningSocket,
        until: Instant,
    },
    Closed,
}

/// A worker's server. It accepts as soon as it listens: its gate tells only whether it counts.
#[derive(Debug)]
struct Member {
    worker: WorkerId,
    permit: ChannelPermit,
    gate: Gate,
    listens: bool,
}

impl SharedSockets {
    /// Keeps a socket.
    pub(crate) fn open(&mut self, id: ServiceId, bound: ListeningSocket) {
        self.0.push(SharedSocket { id, intake: Intake::Open(bound), members: Vec::new() });
    }

    /// Closes the primary's copy of a socket.
    pub(crate) fn close(&mut self, id: ServiceId) {
        self.0.retain(|socket| socket.id != id);
    }

    /// Gives a server a copy of its socket.
    pub(crate) fn share(&mut self, sharing: Sharing, launches: &mut LaunchTable) {
        let Sharing { worker, service, permit, reply } = sharing;
        let socket = self.0.iter_mut().find(|socket| socket.id == service);
        let copy = socket.ok_or(io::ErrorKind::NotFound.into()).and_then(|socket| {
            let copy = socket.copy()?;
            let gate = launches.attaches(worker);
            socket.members.push(Member { worker, permit, gate, listens: false });
            Ok(copy)
        });
        // Who asked may be gone; the worker is then forgotten.
        let _ = reply.send(copy);
    }

    /// A server listens.
    pub(crate) fn listens(&mut self, link: LinkId, launches: &mut LaunchTable) {
        for socket in &mut self.0 {
            let member = socket.members.iter_mut().find(|member| member.permit.link() == link);
            let Some(member) = member.filter(|member| !member.listens) else { continue };
            member.listens = true;
            launches.listens(member.worker, socket.id, false);
            socket.restore_backlog();
        }
    }

    /// The worker is released: its servers that were held count.
    pub(crate) fn release(&mut self, worker: WorkerId) {
        for member in self.members_of(worker).filter(|member| member.gate == Gate::Held) {
            member.gate = Gate::Open;
        }
    }

    /// The worker is to get nothing more: its servers count no more. It accepts until it closes them.
    pub(crate) fn retire(&mut self, worker: WorkerId) {
        self.members_of(worker).for_each(|member| member.gate = Gate::Retired);
    }

    fn members_of(&mut self, worker: WorkerId) -> impl Iterator<Item = &mut Member> {
        let members = self.0.iter_mut().flat_map(|socket| &mut socket.members);
        members.filter(move |member| member.worker == worker)
    }

    /// The servers that `which` picks listen no more.
    pub(crate) fn drop_members(&mut self, which: impl Fn(LinkId, WorkerId) -> bool) {
        for socket in &mut self.0 {
            socket.members.retain(|member| !which(member.permit.link(), member.worker));
        }
    }

    /// Lets no new connection begin. Those that clients have already established are left to the workers.
    pub(crate) fn stop(&mut self, now: Instant) {
        for socket in &mut self.0 {
            socket.stop(now);
        }
    }

    /// Closes the primary's copies when the last handshakes had their time and workers have emptied the backlogs.
    pub(crate) fn tick(&mut self, now: Instant) {
        for socket in &mut self.0 {
            socket.tick(now);
        }
    }

    /// When [`SharedSockets::tick`] is next needed.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let ends = self.0.iter().filter_map(|socket| match socket.intake {
            Intake::Closing { until, .. } => Some(until),
            Intake::Open(_) | Intake::Closed => None,
        });
        ends.min()
    }

    /// Whether all were stopped, and workers have taken every connection.
    pub(crate) fn is_done(&self) -> bool {
        self.0.iter().all(|socket| matches!(socket.intake, Intake::Closed))
    }

    /// How many servers listen on each.
    pub(crate) fn listening(&self) -> impl Iterator<Item = usize> {
        let listens = |member: &&Member| member.listens && member.gate == Gate::Open;
        self.0.iter().map(move |socket| socket.members.iter().filter(listens).count())
    }
}

impl SharedSocket {
    fn copy(&self) -> io::Result<OwnedFd> {
        match &self.intake {
            Intake::Open(bound) | Intake::Closing { bound, .. } => bound.copy(),
            Intake::Closed => Err(io::Error::from_raw_os_error(libc::ECANCELED)),
        }
    }

    /// With listen(2) a server sets the backlog that it wants, and the socket is that of all.
    fn restore_backlog(&self) {
        if let Intake::Open(bound) = &self.intake
            && let Err(error) = bound.listen()
        {
            debug!(service = %self.id, %error, "cannot set the backlog");
        }
    }

    fn stop(&mut self, now: Instant) {
        let Intake::Open(bound) = std::mem::replace(&mut self.intake, Intake::Closed) else { return };
        // What is in its backlog is for whoever listens with it next.
        if bound.is_inherited() {
            return;
        }
        if let Err(error) = bound.filter_new_handshakes() {
            warn!(service = %self.id, %error, "cannot keep new connections out while stopping");
        }
        self.intake = Intake::Closing { bound, until: now + LAST_HANDSHAKES };
    }

    fn tick(&mut self, now: Instant) {
        let Intake::Closing { bound, until } = &mut self.intake else { return };
        if *until > now {
            return;
        }
        if bound.has_empty_backlog() {
            self.intake = Intake::Closed;
        } else {
            *until = now + LOOK;
        }
    }
}
