//! Listening sockets that workers share: they accept by themselves, and the kernel chooses who gets a connection.
//!
//! It keeps each open while no worker is up, gives copies of it to workers, and knows which of them listen. It accepts
//! nothing, so that there is nothing to queue, to hand over or to take back.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::arrival::Arrivals;
use super::bound::{Bound, BoundAddress, ListeningSocket};
use super::launches::LaunchTable;
use super::public_socket::LAST_HANDSHAKES;
use crate::front::links::{ChannelPermit, Gate};
use crate::ids::{LinkId, ServiceId, WorkerId};
use crate::protocol::wire::Binding;

/// How often it is looked whether workers have emptied a backlog.
const LOOK: Duration = Duration::from_millis(50);

/// What a worker's server asks for that shall accept by itself.
#[derive(Debug)]
pub(crate) struct Sharing {
    /// Whose it is.
    pub worker: WorkerId,
    /// On what it listens.
    pub service: ServiceId,
    /// What it would bind without clusterd.
    pub binding: Binding,
    /// Its permit, and thereby its name.
    pub permit: ChannelPermit,
    /// Told the copy.
    pub reply: oneshot::Sender<io::Result<OwnedFd>>,
}

/// The ports; those that are always served come first.
#[derive(Debug, Default)]
pub(crate) struct SharedSockets(Vec<SharedPort>);

/// A port with its sockets: one for each kind of listener that workers have asked for.
#[derive(Debug)]
struct SharedPort {
    id: ServiceId,
    /// Keeps the port, and refuses clients where no worker has a socket.
    reserved: Option<BoundAddress>,
    sockets: Vec<SharedSocket>,
    is_ending: bool,
}

#[derive(Debug)]
struct SharedSocket {
    /// Whom it is for; `None` if it is for all who ask, because it was inherited, or bound for one query.
    takes: Option<Arrivals>,
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
    /// Keeps a port.
    pub(crate) fn open(&mut self, id: ServiceId, bound: Bound) {
        let (reserved, sockets) = match bound {
            Bound::Address(address) => (Some(address), Vec::new()),
            Bound::Socket(socket) => (None, vec![SharedSocket::new(None, socket)]),
        };
        self.0.push(SharedPort { id, reserved, sockets, is_ending: false });
    }

    /// Closes the primary's copies of the sockets of a port.
    pub(crate) fn close(&mut self, id: ServiceId) {
        self.0.retain(|port| port.id != id);
    }

    /// Gives a server a copy of its socket.
    pub(crate) fn share(&mut self, sharing: Sharing, launches: &mut LaunchTable) {
        let Sharing { worker, service, binding, permit, reply } = sharing;
        let port = self.0.iter_mut().find(|port| port.id == service);
        let copy = port.ok_or(io::ErrorKind::NotFound.into()).and_then(|port| {
            let socket = port.socket_for(Arrivals::of(&binding))?;
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
        for port in &mut self.0 {
            for socket in &mut port.sockets {
                let member = socket.members.iter_mut().find(|member| member.permit.link() == link);
                let Some(member) = member.filter(|member| !member.listens) else { continue };
                member.listens = true;
                launches.listens(member.worker, port.id, link, false);
                socket.restore_backlog();
            }
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
        let sockets = self.0.iter_mut().flat_map(|port| &mut port.sockets);
        let members = sockets.flat_map(|socket| &mut socket.members);
        members.filter(move |member| member.worker == worker)
    }

    /// The servers that `which` picks listen no more. A socket that has lost its last one stays, for the next, unless
    /// workers listen on the port otherwise.
    pub(crate) fn drop_members(&mut self, which: impl Fn(LinkId, WorkerId) -> bool) {
        let now = Instant::now();
        for port in &mut self.0 {
            for socket in &mut port.sockets {
                socket.members.retain(|member| !which(member.permit.link(), member.worker));
            }
            if port.sockets.iter().any(|socket| socket.listening() > 0) {
                let left = port.sockets.iter_mut().filter(|socket| socket.members.is_empty());
                left.filter(|socket| socket.takes.is_some()).for_each(|socket| socket.stop(now));
            }
        }
    }

    /// The app is stopped, and clients are refused.
    pub(crate) fn app_stopped(&mut self, now: Instant) {
        let sockets = self.0.iter_mut().flat_map(|port| &mut port.sockets);
        sockets.filter(|socket| socket.takes.is_some()).for_each(|socket| socket.stop(now));
    }

    /// Lets no new connection begin. Those that clients have already established are left to the workers.
    pub(crate) fn stop(&mut self, now: Instant) {
        for port in &mut self.0 {
            port.is_ending = true;
            port.reserved = None;
            port.sockets.iter_mut().for_each(|socket| socket.stop(now));
        }
    }

    /// Closes the primary's copies when the last handshakes had their time and workers have emptied the backlogs.
    pub(crate) fn tick(&mut self, now: Instant) {
        for port in &mut self.0 {
            port.sockets.iter_mut().for_each(|socket| socket.tick(now));
            port.sockets.retain(|socket| !socket.is_closed() || !socket.members.is_empty());
        }
    }

    /// When [`SharedSockets::tick`] is next needed.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let ends = self.sockets().filter_map(|socket| match socket.intake {
            Intake::Closing { until, .. } => Some(until),
            Intake::Open(_) | Intake::Closed => None,
        });
        ends.min()
    }

    fn sockets(&self) -> impl Iterator<Item = &SharedSocket> {
        self.0.iter().flat_map(|port| &port.sockets)
    }

    /// Whether all were stopped, and workers have taken every connection.
    pub(crate) fn is_done(&self) -> bool {
        self.sockets().all(SharedSocket::is_closed)
    }

    /// How many servers listen on each port.
    pub(crate) fn listening(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|port| port.sockets.iter().map(SharedSocket::listening).sum())
    }
}

impl SharedPort {
    /// The socket for those who take these, which is made for the first.
    fn socket_for(&mut self, takes: Arrivals) -> io::Result<&mut SharedSocket> {
        let is_for = |socket: &SharedSocket| {
            socket.takes.is_none_or(|known| known == takes) && matches!(socket.intake, Intake::Open(_))
        };
        if self.is_ending {
            return Err(io::Error::from_raw_os_error(libc::ECANCELED));
        }
        let index = match self.sockets.iter().position(is_for) {
            Some(index) => index,
            None => {
                let reserved = self.reserved.as_ref().ok_or(io::ErrorKind::NotFound)?;
                let others: Vec<_> = self.sockets.iter().filter_map(SharedSocket::bound).collect();
                let socket = reserved.share(takes, &others)?;
                self.sockets.push(SharedSocket::new(Some(takes), socket));
                self.sockets.len() - 1
            }
        };
        self.sockets.get_mut(index).ok_or(io::ErrorKind::NotFound.into())
    }
}

impl SharedSocket {
    fn new(takes: Option<Arrivals>, bound: ListeningSocket) -> Self {
        Self { takes, intake: Intake::Open(bound), members: Vec::new() }
    }

    fn bound(&self) -> Option<&ListeningSocket> {
        match &self.intake {
            Intake::Open(bound) | Intake::Closing { bound, .. } => Some(bound),
            Intake::Closed => None,
        }
    }

    fn copy(&self) -> io::Result<OwnedFd> {
        self.bound().ok_or(io::Error::from_raw_os_error(libc::ECANCELED))?.copy()
    }

    fn listening(&self) -> usize {
        self.members.iter().filter(|member| member.listens && member.gate == Gate::Open).count()
    }

    fn is_closed(&self) -> bool {
        matches!(self.intake, Intake::Closed)
    }

    /// With listen(2) a server sets the backlog that it wants, and the socket is that of all.
    fn restore_backlog(&self) {
        if let Intake::Open(bound) = &self.intake
            && let Err(error) = bound.listen()
        {
            debug!(address = %bound.address(), %error, "cannot set the backlog");
        }
    }

    fn stop(&mut self, now: Instant) {
        let bound = match std::mem::replace(&mut self.intake, Intake::Closed) {
            // What is in its backlog is for whoever listens with it next.
            Intake::Open(bound) if bound.is_inherited() => return,
            Intake::Open(bound) => bound,
            stopped => return self.intake = stopped,
        };
        if let Err(error) = bound.filter_new_handshakes() {
            warn!(address = %bound.address(), %error, "cannot keep new connections out while stopping");
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
