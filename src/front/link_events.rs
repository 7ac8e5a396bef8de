//! What follows from what the links of a group have seen: told by the workers, or asked of the kernel.
//!
//! It gives nobody a client's connection.

use std::task::{Poll, Waker};
use std::time::Instant;

use tracing::{info, warn};

use super::connection::Connection;
use super::group::Parts;
use super::links::{Due, LinkEvent, LinkKey};
use super::listener;
use super::private::{Delivery, Undelivered};
use super::service::Progress;
use crate::ids::WorkerId;
use crate::protocol::wire::SocketOption;

/// How many messages of one worker are read before everything else gets its turn.
const EVENTS: usize = 16;

impl Parts<'_> {
    /// Looks at the links that were woken; `task` is woken when there are more.
    pub(super) fn poll_links(&mut self, task: &Waker) -> Progress {
        let mut progress = Progress::Waiting;
        let woken = self.links.woken(task);
        for &key in &woken {
            if self.look_at(key) == Progress::More {
                progress = Progress::More;
            }
        }
        self.links.looked_at_all(woken);
        progress
    }

    fn look_at(&mut self, key: LinkKey) -> Progress {
        self.links.looked_at(key);
        for _ in 0..EVENTS {
            match self.links.change(key, |member| member.link.poll()) {
                Some(Poll::Ready(event)) => self.on_event(key, event),
                Some(Poll::Pending) if self.give_private(key) => {}
                Some(Poll::Pending) | None => return Progress::Waiting,
            }
        }
        self.links.wake(key);
        Progress::More
    }

    /// Asks the kernel whether the worker has taken what it was given, which may not have been announced yet.
    pub(super) fn ask(&mut self, key: LinkKey) {
        self.links.change(key, |member| member.link.ask());
        while let Some(event) = self.links.change(key, |member| member.link.next_taken()).flatten() {
            self.on_event(key, event);
        }
        self.give_private(key);
    }

    /// Asks the kernel which workers have taken something that nobody has heard of.
    pub(super) fn ask_all(&mut self) {
        self.links.ask_edges();
        for key in self.links.heard() {
            if self.links.get(key).is_some_and(|member| !member.link.is_relayed()) {
                self.ask(key);
            }
            // Whoever looks at it knows the rest.
            if self.links.get(key).is_some_and(|member| member.link.awaits_taking()) {
                self.links.wake(key);
            }
        }
    }

    /// Hands over a connection of clusterd's own if one waits and the worker has a turn for it; whether it did. For
    /// clients this is as if the worker had been given one of theirs.
    fn give_private(&mut self, key: LinkKey) -> bool {
        let has_turn = |key| {
            let member = self.links.get(key)?;
            Some(!member.private.is_empty() && member.link.is_idle())
        };
        if has_turn(key) != Some(true) {
            return false;
        }
        let next = self.links.change(key, |member| member.private.pop()).flatten();
        let Some(Delivery { connection, reply, .. }) = next else { return false };
        match self.links.hand_off(key, connection, Instant::now()) {
            Ok(()) => {
                self.links.change(key, |member| member.private.begin(reply));
                true
            }
            Err(not_given) => {
                let _ = reply.send(Err(Undelivered::HandOff(not_given.error.kind())));
                false
            }
        }
    }

    fn on_event(&mut self, key: LinkKey, event: LinkEvent) {
        let Some(member) = self.links.get(key) else { return };
        let worker = member.link.worker();
        match event {
            LinkEvent::Taken { since, was_slow } => self.on_taken(key, worker, (since, was_slow)),
            LinkEvent::Listening => {
                if !self.intake.is_for(self.bindings.takes) {
                    let (service, address) = (self.service, self.bindings.address);
                    // Many servers listen on both families whatever they are reached by.
                    info!(%worker, %service, %address, "no public address is of the family of this listener");
                }
                let (link, is_ready) = (member.link.id(), member.link.speaks_for_itself());
                self.launches.listens(worker, self.service, link, is_ready);
            }
            LinkEvent::Moving => {
                member.stalled.dec();
                self.launches.moves(worker);
            }
            LinkEvent::Nothing | LinkEvent::CaughtUp => {}
            LinkEvent::Declined(connection) => {
                self.given_back(key, connection, Undelivered::Declined);
            }
            LinkEvent::Paused(connection) => {
                self.stalled(key, Instant::now());
                self.given_back(key, connection, Undelivered::Stalled);
            }
            LinkEvent::SetOption(option) => self.set_option(worker, option),
            LinkEvent::Broken(fault) => {
                let service = self.service;
                warn!(%worker, %service, ?fault, "closed a channel that does not speak the attach protocol");
                self.drop_link(key);
            }
        }
    }

    /// Of one that was asked about in its turn it is only known that it was not slow.
    fn on_taken(&mut self, key: LinkKey, worker: WorkerId, (since, was_slow): (Instant, bool)) {
        let now = Instant::now();
        let after = now.saturating_duration_since(since);
        let is_exact = was_slow || self.links.is_exact(since);
        let taken = self.links.change(key, |member| {
            member.is_sample = false;
            if member.link.is_retired() && !member.link.is_busy() {
                member.link.drain();
            }
            let is_clients = !member.private.end(Ok(()));
            if is_clients {
                member.handed.inc();
            }
            let known = if is_exact { after } else { after.min(member.window.in_time()) };
            (is_clients, member.window.taken(known))
        });
        let Some((is_clients, in_time)) = taken else { return };
        if is_clients {
            if is_exact {
                self.handoff.observe(after.as_secs_f64());
            }
            self.launches.took(worker, now);
        }
        if !in_time {
            self.take_back_ahead(key);
        }
    }

    fn set_option(&mut self, worker: WorkerId, option: SocketOption) {
        let takes = self.bindings.takes;
        if self.intake.set_option(worker, takes, option) {
            let parked = self.parked.iter().filter(|connection| takes.has(connection.arrival));
            for connection in self.queue.iter().chain(parked) {
                listener::apply(&option, &connection.socket);
            }
        }
    }

    /// Does what has become due on a link.
    pub(super) fn on_due(&mut self, key: LinkKey, due: Due, now: Instant) {
        match due {
            Due::Slow => {
                if let Some(link) = self.links.get(key).map(|member| &member.link) {
                    self.launches.slow(link.id(), link.holder());
                }
                self.links.change(key, |member| member.window.close());
                self.take_back_ahead(key);
            }
            Due::TimedOut => self.stall(key, now),
            Due::Unmoved => self.stalls(key, now),
            Due::Late | Due::Rested => {}
        }
    }

    /// The worker is too slow for what it was given ahead: it goes to others. The youngest is left.
    fn take_back_ahead(&mut self, key: LinkKey) {
        if self.links.get(key).is_some_and(|member| !member.window.stays_open()) {
            self.take_back(key, 1);
        }
    }

    /// Takes back what the worker leaves untaken, but for the youngest `leave`; returns how many.
    fn take_back(&mut self, key: LinkKey, leave: usize) -> usize {
        let occupancy = &mut self.launches.occupancy;
        self.reclaim.take_back(self.links, key, leave, Undelivered::Stalled, self.queue, occupancy)
    }

    fn given_back(&mut self, key: LinkKey, connection: Connection, why: Undelivered) {
        let occupancy = &mut self.launches.occupancy;
        self.reclaim.given_back(self.links, key, connection, why, self.queue, occupancy);
    }

    /// Takes its oldest connection from a worker that is late.
    pub(super) fn bypass(&mut self, late: LinkKey) -> Option<Connection> {
        let connection = self.reclaim.bypass(self.links, late)?;
        if let Some(member) = self.links.get(late) {
            self.launches.occupancy.ended(member.link.worker(), 1);
        }
        Some(connection)
    }

    /// Whether the worker of one link has fewer connections than that of another.
    pub(super) fn has_fewer(&self, one: LinkKey, other: LinkKey) -> bool {
        let open = |key| {
            let worker = self.links.get(key)?.link.worker();
            Some(self.launches.occupancy.of(worker).open)
        };
        open(one) < open(other)
    }

    /// The worker was given a client's connection.
    pub(super) fn occupy(&mut self, key: LinkKey) {
        let occupancy = &mut self.launches.occupancy;
        if occupancy.is_counted()
            && let Some(worker) = self.links.get(key).map(|member| member.link.worker())
        {
            occupancy.given(worker);
            self.links.occupied(worker, occupancy.of(worker));
        }
    }

    fn stall(&mut self, key: LinkKey, now: Instant) {
        let back = self.take_back(key, 0);
        let is_empty = self.links.get(key).is_some_and(|member| member.link.untaken() == 0);
        if back > 0 && is_empty {
            self.stalls(key, now);
        }
    }

    fn stalls(&mut self, key: LinkKey, now: Instant) {
        if self.links.change(key, |member| member.link.stall()) == Some(true) {
            self.stalled(key, now);
        }
    }

    /// A worker has left what it was given untaken.
    fn stalled(&mut self, key: LinkKey, now: Instant) {
        self.links.change(key, |member| {
            member.stalled.inc();
            member.private.refuse(Undelivered::Stalled);
        });
        if let Some(member) = self.links.get(key) {
            self.launches.stalls(member.link.worker(), now);
        }
    }

    /// Drops a channel after taking back what is in it. Returns how many connections were found to have been taken.
    pub(super) fn drop_link(&mut self, key: LinkKey) -> u64 {
        let Some(member) = self.links.remove(key) else { return 0 };
        if member.link.is_stalled() {
            member.stalled.dec();
            self.launches.moves(member.link.worker());
        }
        self.reclaim.recover(member, self.queue, self.launches)
    }
}
