//! One service: its public listeners, its queue, and the channels to the workers that listen on it.
//!
//! It moves connections whenever it is polled, and keeps no clock of its own beyond asking what time it is.

mod giving;
mod hearing;
mod taking_back;

use std::task::Context;
use std::time::{Duration, Instant};

use prometheus::{IntCounter, IntGauge};
use tracing::debug;

use self::giving::BURST;
use super::launches::LaunchTable;
use super::listener::Listener;
use super::private::{Delivery, Private, Undelivered};
use super::queue::Queue;
use crate::front::connection::Connection;
use crate::front::links::{Due, Link};
use crate::ids::{ServiceId, WorkerId};
use crate::metrics::{Metrics, Rejected};
use crate::policy::round_robin::RoundRobin;
use crate::policy::window::Window;

/// How long nothing is accepted or given after the kernel ran out of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// How long handshakes that had begun when the stop came may take to be completed.
pub(super) const LAST_HANDSHAKES: Duration = Duration::from_millis(100);

/// A port that workers listen on.
#[derive(Debug)]
pub struct Service {
    id: ServiceId,
    intake: Intake,
    queue: Queue,
    free: RoundRobin<WorkerId>,
    /// The window of a new member.
    window: Window,
    members: Vec<Member>,
    /// How many of them clients are sent to.
    listening: usize,
    /// Who has taken a connection, and when it was given, since the links were last polled.
    taken: Vec<(Instant, WorkerId)>,
    /// Those who are gone, and in whose channels connections still lie: there was no room to take them back.
    gone: Vec<Member>,
    /// When that is tried again.
    recover_at: Option<Instant>,
    paused: Option<Instant>,
    /// When the next shortage may be said aloud.
    complain_from: Option<Instant>,
    metrics: Metrics,
}

/// Where connections come from.
#[derive(Debug)]
enum Intake {
    Open(Vec<Listener>),
    Closing { listeners: Vec<Listener>, until: Instant },
    Closed,
}

/// A channel, with what is counted for its worker.
#[derive(Debug)]
struct Member {
    link: Link,
    window: Window,
    private: Private,
    handed: IntCounter,
    stalled: IntGauge,
}

impl Member {
    /// Whether it may be given a connection ahead, before it has taken those that it was given. One of clusterd's own is
    /// on its way alone, and does not wait until nobody comes any more.
    fn has_room_ahead(&self) -> bool {
        self.link.may_be_given_ahead()
            && self.link.untaken() < self.window.size()
            && self.private.is_empty()
            && !self.private.is_under_way()
    }

    /// A connection has come back from the worker, for this reason. One of clusterd's own is closed: it is for nobody
    /// else.
    fn returned(&mut self, connection: Connection, why: Undelivered) -> Option<Connection> {
        if self.private.end(Err(why)) { None } else { Some(connection) }
    }
}

/// Whether a service could go on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It waits for a client, a worker or a deadline.
    Waiting,
    /// It stopped to give others a turn.
    More,
}

impl Service {
    /// A service without workers.
    pub fn new(
        id: ServiceId,
        listeners: Vec<Listener>,
        queue: Queue,
        window: Window,
        metrics: Metrics,
    ) -> Self {
        Self {
            id,
            intake: Intake::Open(listeners),
            queue,
            free: RoundRobin::new(),
            window,
            members: Vec::new(),
            listening: 0,
            taken: Vec::new(),
            gone: Vec::new(),
            recover_at: None,
            paused: None,
            complain_from: None,
            metrics,
        }
    }

    /// What it is for.
    pub fn id(&self) -> ServiceId {
        self.id
    }

    /// How many channels have a listening server at their other end to which clients are sent.
    pub fn listening(&self) -> usize {
        self.listening
    }

    fn count_listening(&mut self) {
        self.listening = self.members.iter().filter(|member| member.link.is_listening()).count();
    }

    /// Adds a channel. It gets connections once its server listens.
    pub fn attach(&mut self, link: Link) {
        if link.is_retired() {
            link.drain();
        }
        let slot = link.worker().slot.to_string();
        self.members.push(Member {
            handed: self.metrics.handed.with_label_values(&[&slot]),
            stalled: self.metrics.stalled.with_label_values(&[&slot]),
            window: self.window,
            private: Private::default(),
            link,
        });
    }

    /// Hands a connection of clusterd's own to its worker when that has a turn for it.
    pub fn deliver(&mut self, delivery: Delivery) {
        let links = self.members.iter_mut().filter(|member| member.link.worker() == delivery.worker);
        let listening = links.filter(|member| member.link.has_listened());
        let best = listening
            .min_by_key(|member| (member.link.is_stalled(), !member.link.is_idle(), member.private.len()));
        let refused = match best {
            None => Undelivered::NotListening,
            Some(member) if member.link.is_retired() => Undelivered::Retired,
            Some(member) if member.link.is_stalled() => Undelivered::Stalled,
            Some(member) => return member.private.push(delivery),
        };
        let _ = delivery.reply.send(Err(refused));
    }

    /// The worker is released: clients may be sent to its channels that were held.
    pub fn release(&mut self, worker: WorkerId) {
        for member in self.members.iter_mut().filter(|member| member.link.worker() == worker) {
            member.link.open();
            if member.link.is_available() {
                self.free.release(worker);
            }
        }
        self.count_listening();
    }

    /// The worker gets no connection any more: what it has not taken goes to others.
    pub fn retire(&mut self, worker: WorkerId) {
        self.leave_out(worker);
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            if member.link.worker() != worker {
                continue;
            }
            member.private.refuse(Undelivered::Retired);
            member.link.retire();
            // The other end of a relayed channel may have offered a connection to the worker by now, and is left to say
            // what became of it.
            if !member.link.is_relayed() {
                self.take_back(index, 0, Undelivered::Retired);
            }
            let link = &self.members[index].link;
            if !link.is_busy() {
                link.drain();
            }
        }
        self.count_listening();
    }

    /// Whether the worker has a channel that can be given a client's connection.
    fn is_available(&self, worker: WorkerId) -> bool {
        self.members.iter().any(|member| member.link.worker() == worker && member.link.is_available())
    }

    /// The worker has no turn until it is released again.
    fn leave_out(&mut self, worker: WorkerId) {
        self.free.remove(worker);
        self.taken.retain(|&(_, taken)| taken != worker);
    }

    /// Whether a connection is on its way to this worker.
    pub fn is_giving_to(&self, worker: WorkerId) -> bool {
        self.members.iter().any(|member| member.link.worker() == worker && member.link.is_busy())
    }

    /// Moves everything that can be moved now.
    pub fn poll(&mut self, cx: &mut Context<'_>, launches: &mut LaunchTable) -> Progress {
        let mut progress = Progress::Waiting;
        loop {
            if self.poll_links(cx, launches) == Progress::More {
                progress = Progress::More;
            }
            let moved = self.distribute(cx, launches);
            if moved == BURST {
                progress = Progress::More;
            }
            if moved == 0 || progress == Progress::More {
                return progress;
            }
        }
    }

    /// Does what has become due.
    pub fn tick(&mut self, now: Instant, launches: &mut LaunchTable) {
        if self.paused.is_some_and(|until| until <= now) {
            self.paused = None;
        }
        if self.recover_at.is_some_and(|at| at <= now) {
            self.recover_at = None;
            for member in std::mem::take(&mut self.gone) {
                self.recover(member, launches);
            }
        }
        while self.queue.pop_expired(now).is_some() {
            self.metrics.rejected.with_label_values(&[Rejected::QueueTimeout.label()]).inc();
        }
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            member.private.expire(now);
            let link = &mut member.link;
            match link.due(now) {
                Some(Due::Slow) => {
                    launches.slow(link.id(), link.holder());
                    member.window.close();
                    self.take_back_ahead(index);
                }
                Some(Due::TimedOut) => self.stall(index, now, launches),
                Some(Due::Rested) if link.is_available() => {
                    let worker = link.worker();
                    self.free.release(worker);
                }
                Some(Due::Rested) | None => {}
            }
        }
        self.close(now);
    }

    /// Closes the listeners when the last handshakes had their time and nobody is left in the backlogs.
    fn close(&mut self, now: Instant) {
        let Intake::Closing { listeners, until } = &mut self.intake else {
            return;
        };
        if *until > now {
            return;
        }
        if listeners.iter().all(Listener::has_empty_backlog) {
            self.intake = Intake::Closed;
        } else {
            *until = now + PAUSE;
        }
    }

    /// When [`Service::tick`] is next needed.
    pub fn deadline(&self) -> Option<Instant> {
        let links = self.members.iter().filter_map(|member| member.link.deadline());
        let closing = match &self.intake {
            Intake::Closing { until, .. } => Some(*until),
            Intake::Open(_) | Intake::Closed => None,
        };
        let private = self.members.iter().filter_map(|member| member.private.deadline());
        let due = links.chain(private).chain(self.queue.deadline()).chain(closing);
        due.chain(self.recover_at).chain(self.paused).min()
    }

    /// Lets no new connection begin. Those that clients have already established are still accepted; at an inherited
    /// socket they wait for whoever listens with it next.
    pub fn stop(&mut self, now: Instant) {
        let Intake::Open(mut listeners) = std::mem::replace(&mut self.intake, Intake::Closed) else {
            return;
        };
        listeners.retain(|listener| !listener.is_inherited());
        for listener in &mut listeners {
            if let Err(error) = listener.stop() {
                debug!(service = %self.id, %error, "cannot filter new connections while stopping");
            }
        }
        self.intake = Intake::Closing { listeners, until: now + LAST_HANDSHAKES };
    }

    /// Whether it was stopped and every connection has been taken by a worker.
    pub fn is_done(&self) -> bool {
        matches!(self.intake, Intake::Closed)
            && self.queue.is_empty()
            && self.gone.is_empty()
            && !self.members.iter().any(|member| member.link.is_busy())
    }

    /// How many connections wait for a worker.
    pub fn waiting(&self) -> usize {
        self.queue.len() + self.ahead()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let unserved = self.queue.len() as u64;
        self.metrics.rejected.with_label_values(&[Rejected::Shutdown.label()]).inc_by(unserved);
    }
}
