//! One service: its intake, its queue, its links, and who brings connections and workers together.
//!
//! It moves connections whenever it is polled, and keeps no clock of its own beyond asking what time it is.

use std::io;
use std::task::Context;
use std::time::Instant;

use prometheus::Histogram;

use super::dispatch::{BURST, Dispatch};
use super::intake::Intake;
use super::launches::LaunchTable;
use super::links::{Attachment, Gate, Links};
use super::listener::Listener;
use super::private::{Delivery, Undelivered};
use super::queue::Queue;
use super::reclaim::Reclaim;
use super::setup::ServiceLimits;
use crate::ids::{LinkId, ServiceId, WorkerId};
use crate::metrics::{Metrics, Rejected};
use crate::policy::window::Window;

/// A port that workers listen on.
#[derive(Debug)]
pub(super) struct Service {
    id: ServiceId,
    intake: Intake,
    queue: Queue,
    links: Links,
    dispatch: Dispatch,
    reclaim: Reclaim,
    metrics: Metrics,
}

/// A service without who chooses: what a choice, and what becomes of it, is about. Each of these is changed by its own
/// methods.
pub(super) struct Parts<'a> {
    pub(super) service: ServiceId,
    pub(super) intake: &'a mut Intake,
    pub(super) queue: &'a mut Queue,
    pub(super) links: &'a mut Links,
    pub(super) reclaim: &'a mut Reclaim,
    pub(super) launches: &'a mut LaunchTable,
    pub(super) handoff: &'a Histogram,
}

/// Whether a service could go on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It waits for a client, a worker or a deadline.
    Waiting,
    /// It stopped to give others a turn.
    More,
}

impl Service {
    /// A service without workers.
    pub(super) fn new(
        id: ServiceId,
        listeners: Vec<Listener>,
        limits: &ServiceLimits,
        metrics: Metrics,
    ) -> Self {
        let window = Window::new(limits.window, limits.timeouts.slow);
        Self {
            id,
            intake: Intake::new(id, listeners),
            queue: Queue::new(limits.queue, limits.queue_timeout),
            links: Links::new(window, limits.timeouts),
            dispatch: Dispatch::new(limits.choice, &metrics),
            reclaim: Reclaim::new(metrics.redispatched.clone()),
            metrics,
        }
    }

    /// The parts, and who chooses.
    fn split<'a>(&'a mut self, launches: &'a mut LaunchTable) -> (Parts<'a>, &'a mut Dispatch) {
        let parts = Parts {
            service: self.id,
            intake: &mut self.intake,
            queue: &mut self.queue,
            links: &mut self.links,
            reclaim: &mut self.reclaim,
            launches,
            handoff: &self.metrics.handoff,
        };
        (parts, &mut self.dispatch)
    }

    /// What it is for.
    pub(super) fn id(&self) -> ServiceId {
        self.id
    }

    /// How many channels have a listening server at their other end to which clients are sent.
    pub(super) fn listening(&self) -> usize {
        self.links.listening()
    }

    /// How many connections wait for a worker.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len() + self.links.ahead()
    }

    /// Adds a channel. It gets connections once its server listens.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(super) fn attach(&mut self, attachment: Attachment, gate: Gate) -> io::Result<()> {
        for &option in &attachment.options {
            self.intake.set_option(attachment.worker, option);
        }
        self.links.attach(attachment, gate, &self.metrics)
    }

    /// Hands a connection of clusterd's own to its worker when that has a turn for it.
    pub(super) fn deliver(&mut self, delivery: Delivery) {
        let links = self.links.of_worker(delivery.worker).iter();
        let members = links.filter_map(|&key| Some((key, self.links.get(key)?)));
        let best = members.filter(|(_, member)| member.link.has_listened()).min_by_key(|(_, member)| {
            (member.link.is_stalled(), !member.link.is_idle(), member.private.len())
        });
        let refused = match best {
            None => Undelivered::NotListening,
            Some((_, member)) if member.link.is_retired() => Undelivered::Retired,
            Some((_, member)) if member.link.is_stalled() => Undelivered::Stalled,
            Some((key, _)) => {
                self.links.change(key, |member| member.private.push(delivery));
                self.links.wake(key);
                return;
            }
        };
        let _ = delivery.reply.send(Err(refused));
    }

    /// The worker is released: clients may be sent to its channels that were held.
    pub(super) fn release(&mut self, worker: WorkerId) {
        for key in self.links.of_worker(worker).to_vec() {
            self.links.change(key, |member| member.link.open());
        }
    }

    /// The worker gets no connection any more: what it has not taken goes to others.
    pub(super) fn retire(&mut self, worker: WorkerId) {
        for key in self.links.of_worker(worker).to_vec() {
            let is_relayed = self.links.change(key, |member| {
                member.private.refuse(Undelivered::Retired);
                member.link.retire();
                member.link.is_relayed()
            });
            // The other end of a relayed channel may have offered a connection to the worker by now, and is left to say
            // what became of it.
            if is_relayed == Some(false) {
                self.reclaim.take_back(&mut self.links, key, 0, Undelivered::Retired, &mut self.queue);
            }
            self.links.change(key, |member| {
                if !member.link.is_busy() {
                    member.link.drain();
                }
            });
        }
    }

    /// Drops the channel with this name, if it is one of these.
    pub(super) fn detach(&mut self, link: LinkId, launches: &mut LaunchTable) {
        if let Some(key) = self.links.find(link) {
            self.split(launches).0.drop_link(key);
        }
    }

    /// Drops the channels of a worker that is gone. Returns how many connections were found to have been taken.
    pub(super) fn forget(&mut self, worker: WorkerId, launches: &mut LaunchTable) -> u64 {
        let keys = self.links.of_worker(worker).to_vec();
        let (mut parts, _) = self.split(launches);
        keys.into_iter().map(|key| parts.drop_link(key)).sum()
    }

    /// Whether a connection is on its way to this worker.
    pub(super) fn is_giving_to(&self, worker: WorkerId) -> bool {
        self.links.is_busy(worker)
    }

    /// Moves everything that can be moved now.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, launches: &mut LaunchTable) -> Progress {
        let (mut parts, dispatch) = self.split(launches);
        let progress = parts.poll_links(cx.waker());
        if dispatch.distribute(cx, &mut parts) == BURST {
            return Progress::More;
        }
        progress
    }

    /// Does what has become due.
    pub(super) fn tick(&mut self, now: Instant, launches: &mut LaunchTable) {
        self.intake.tick(now);
        self.reclaim.tick(now, &mut self.queue, launches);
        while self.queue.pop_expired(now).is_some() {
            self.metrics.rejected.with_label_values(&[Rejected::QueueTimeout.label()]).inc();
        }
        for (key, due) in self.links.due(now) {
            self.split(launches).0.on_due(key, due, now);
        }
    }

    /// When [`Service::tick`] is next needed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let due = self.links.deadline().into_iter().chain(self.queue.deadline());
        due.chain(self.intake.deadline()).chain(self.reclaim.deadline()).min()
    }

    /// Lets no new connection begin. Those that clients have already established are still accepted; at an inherited
    /// socket they wait for whoever listens with it next.
    pub(super) fn stop(&mut self, now: Instant) {
        self.intake.stop(now);
    }

    /// Whether it was stopped and every connection has been taken by a worker.
    pub(super) fn is_done(&self) -> bool {
        self.intake.is_closed()
            && self.queue.is_empty()
            && self.reclaim.is_done()
            && !self.links.is_any_busy()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let unserved = self.queue.len() as u64;
        self.metrics.rejected.with_label_values(&[Rejected::Shutdown.label()]).inc_by(unserved);
    }
}
