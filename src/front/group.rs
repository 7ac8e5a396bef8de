//! The listeners of a service that were bound alike, and the connections that are for them.
//!
//! Which connections those are is decided in `routes`.

use std::io;
use std::task::Context;
use std::time::Instant;

use prometheus::Histogram;

use super::dispatch::Dispatch;
use super::intake::Intake;
use super::launches::LaunchTable;
use super::links::Links;
use super::occupancy::Occupancy;
use super::openness::Seen;
use super::private::Undelivered;
use super::queue::Queue;
use super::reclaim::Reclaim;
use super::routes::Bindings;
use super::setup::ServiceLimits;
use super::snapshot::{GroupSnapshot, Legacy};
use crate::connections::notes::Notes;
use crate::ids::{ServiceId, WorkerId};
use crate::metrics::Metrics;
use crate::policy::window::Window;

/// A group of listeners.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) bindings: Bindings,
    pub(super) queue: Queue,
    pub(super) links: Links,
    dispatch: Dispatch,
    pub(super) reclaim: Reclaim,
    /// Whether connections were routed to it when that was last decided.
    pub(super) is_served: bool,
}

/// A group without who chooses: what a choice, and what becomes of it, is about. Each of these is changed by its own
/// methods.
pub(super) struct Parts<'a> {
    pub(super) bindings: Bindings,
    pub(super) queue: &'a mut Queue,
    pub(super) links: &'a mut Links,
    pub(super) reclaim: &'a mut Reclaim,
    pub(super) service: ServiceId,
    pub(super) intake: &'a mut Intake,
    /// Those who wait until there is a group for them.
    pub(super) parked: &'a Queue,
    pub(super) launches: &'a mut LaunchTable,
    pub(super) handoff: &'a Histogram,
}

/// What all groups of a service have in common.
pub(super) struct Around<'a> {
    pub(super) service: ServiceId,
    pub(super) intake: &'a mut Intake,
    pub(super) parked: &'a Queue,
    pub(super) launches: &'a mut LaunchTable,
    pub(super) handoff: &'a Histogram,
}

impl Group {
    /// Nobody yet.
    ///
    /// # Errors
    /// Those of epoll_create1(2).
    pub(super) fn new(
        bindings: Bindings,
        limits: &ServiceLimits,
        metrics: &Metrics,
        notes: &Notes,
    ) -> io::Result<Self> {
        let window = Window::new(limits.window, limits.timeouts.slow);
        // Who has the fewest connections has just begun, often, and shall get those that come at once, though it is slow.
        let window = if limits.choice.counts() { window.opened() } else { window };
        Ok(Self {
            bindings,
            queue: Queue::new(limits.queue_timeout),
            links: Links::new(limits.choice, window, limits.timeouts)?,
            dispatch: Dispatch::new(limits, metrics, notes),
            reclaim: Reclaim::new(metrics.redispatched.clone(), notes.clone()),
            is_served: false,
        })
    }

    /// Hears of workers that have received something; whether some link is to be looked at.
    pub(super) fn hear_edges(&mut self, cx: &mut Context<'_>) -> bool {
        let waits = !self.queue.is_empty() || !self.reclaim.is_done();
        self.links.hear_edges(waits, cx)
    }

    /// As it is written down.
    pub(super) fn snapshot(&mut self) -> GroupSnapshot {
        let order = self.dispatch.order(&mut self.links);
        GroupSnapshot {
            address: self.bindings.address,
            takes: self.bindings.takes,
            queue: self.queue.snapshot(),
            links: self.links.snapshot(&order),
            gone: self.reclaim.snapshot(),
        }
    }

    /// It takes over what was written down of it. To where connections are routed is decided anew.
    ///
    /// # Errors
    /// Those of epoll_ctl(2), and that the snapshot cannot be one.
    pub(super) fn resume(
        &mut self,
        snapshot: GroupSnapshot,
        (service, occupancy): (ServiceId, &Occupancy),
        metrics: &Metrics,
        legacy: &mut Legacy,
    ) -> io::Result<()> {
        let GroupSnapshot { address, takes: _, queue, links, gone } = snapshot;
        for connection in &queue {
            self.queue.put_back(legacy.connection(connection)?);
        }
        for link in links {
            let key = self.links.resume(link, (service, address), metrics, legacy)?;
            if let Some(worker) = self.links.get(key).map(|member| member.link.worker()) {
                self.links.occupied(worker, occupancy.of(worker));
            }
        }
        self.links.keep_order();
        for link in gone {
            let key = self.links.resume(link, (service, address), metrics, legacy)?;
            self.links.remove(key).into_iter().for_each(|gone| self.reclaim.resume(gone));
        }
        Ok(())
    }

    /// The parts, and who chooses.
    pub(super) fn split<'a>(&'a mut self, around: Around<'a>) -> (Parts<'a>, &'a mut Dispatch) {
        let Around { service, intake, parked, launches, handoff } = around;
        let parts = Parts {
            bindings: self.bindings,
            queue: &mut self.queue,
            links: &mut self.links,
            reclaim: &mut self.reclaim,
            service,
            intake,
            parked,
            launches,
            handoff,
        };
        (parts, &mut self.dispatch)
    }

    /// How many connections wait for a worker.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len() + self.links.ahead()
    }

    /// Whether it has a server that listens and that clients are sent to.
    pub(super) fn serves(&self) -> bool {
        self.links.listening() > 0
    }

    /// What is seen of its listeners.
    pub(super) fn seen(&self) -> Seen {
        let takes = |any: bool| if any { self.bindings.takes } else { Default::default() };
        Seen { listened_on: takes(self.links.up() > 0), served: takes(self.serves()) }
    }

    /// Whether nothing of it is left, nor will be.
    pub(super) fn is_over(&self) -> bool {
        self.links.is_empty() && self.queue.is_empty() && self.reclaim.is_done()
    }

    /// Whether every connection has been taken by a worker.
    pub(super) fn is_done(&self) -> bool {
        self.queue.is_empty() && self.reclaim.is_done() && !self.links.is_any_busy()
    }

    /// The worker is released: clients may be sent to its channels that were held.
    pub(super) fn release(&mut self, worker: WorkerId) {
        for key in self.links.of_worker(worker).to_vec() {
            self.links.change(key, |member| member.link.open());
        }
    }

    /// The worker gets no connection any more: what it has not taken goes to others.
    pub(super) fn retire(&mut self, worker: WorkerId, occupancy: &mut Occupancy) {
        for key in self.links.of_worker(worker).to_vec() {
            let is_relayed = self.links.change(key, |member| {
                member.private.refuse(Undelivered::Retired);
                member.link.retire();
                member.link.is_relayed()
            });
            // The other end of a relayed channel may have offered a connection to the worker by now, and is left to say
            // what became of it.
            if is_relayed == Some(false) {
                let why = Undelivered::Retired;
                self.reclaim.take_back(&mut self.links, key, 0, why, &mut self.queue, occupancy);
            }
            self.links.change(key, |member| {
                if !member.link.is_busy() {
                    member.link.drain();
                }
            });
        }
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let due = self.links.deadline().into_iter().chain(self.queue.deadline());
        due.chain(self.reclaim.deadline()).min()
    }
}
