//! What the workers of a service have done: heard when they say it, or asked of the kernel.
//!
//! It gives nobody a connection.

use std::task::{Context, Poll};
use std::time::Instant;

use tracing::{debug, warn};

use super::{Intake, Progress, Service};
use crate::front::launches::LaunchTable;
use crate::front::links::LinkEvent;
use crate::front::listener;
use crate::front::private::Undelivered;
use crate::ids::WorkerId;
use crate::protocol::wire::SocketOption;

/// How many messages of one worker are read before everything else gets its turn.
const EVENTS: usize = 16;

impl Service {
    /// Hears what the workers have done.
    pub(super) fn poll_links(&mut self, cx: &mut Context<'_>, launches: &mut LaunchTable) -> Progress {
        let mut progress = Progress::Waiting;
        let mut index = 0;
        let mut left = EVENTS;
        while let Some(member) = self.members.get_mut(index) {
            match member.link.poll(cx) {
                Poll::Ready(event) => {
                    left -= 1;
                    self.hear(index, event, launches);
                    if left > 0 {
                        continue;
                    }
                    progress = Progress::More;
                }
                // The link is polled again: it has to be watched for the taking.
                Poll::Pending if self.give_private(index) => continue,
                Poll::Pending => {}
            }
            index += 1;
            left = EVENTS;
        }
        self.ask_older(launches);
        self.release_taken();
        progress
    }

    /// On a busy machine the front may hear of a connection that was taken while it has yet to hear of others that were
    /// given, and taken, before. Their workers are next, so they are asked about.
    fn ask_older(&mut self, launches: &mut LaunchTable) {
        while let Some(latest) = self.taken.iter().map(|&(since, _)| since).max() {
            let heard = self.taken.len();
            self.ask_about_given_before(latest, launches);
            if self.taken.len() == heard {
                return;
            }
        }
    }

    pub(super) fn ask_about_given_before(&mut self, then: Instant, launches: &mut LaunchTable) {
        for index in 0..self.members.len() {
            let link = &mut self.members[index].link;
            // A relay's worker may have declined, and is left to say so.
            if link.is_relayed() {
                continue;
            }
            link.ask_if_older(then);
            while let Some(event) = self.members[index].link.next_taken() {
                self.hear(index, event, launches);
            }
        }
    }

    /// Puts those who have taken a connection back into the pool, in the order in which they were given one. Under
    /// load several are heard of at once, and by the order of their links they would lose their turns.
    pub(super) fn release_taken(&mut self) {
        self.taken.sort_unstable_by_key(|&(since, _)| since);
        for (_, worker) in self.taken.drain(..) {
            self.free.release(worker);
        }
    }

    fn hear(&mut self, index: usize, event: LinkEvent, launches: &mut LaunchTable) {
        let member = &mut self.members[index];
        let (link, worker) = (&member.link, member.link.worker());
        match event {
            LinkEvent::Taken { since } => {
                let now = Instant::now();
                let after = now.saturating_duration_since(since);
                let in_time = member.window.taken(after);
                if !member.private.end(Ok(())) {
                    member.handed.inc();
                    self.metrics.handoff.observe(after.as_secs_f64());
                    launches.took(worker, now);
                }
                if link.is_available() {
                    self.taken.push((since, worker));
                } else if link.is_retired() && !link.is_busy() {
                    link.drain();
                }
                if !in_time {
                    self.take_back_ahead(index);
                }
            }
            LinkEvent::Listening => {
                launches.listens(worker, self.id, link.speaks_for_itself());
                if link.is_available() {
                    self.free.release(worker);
                }
                self.count_listening();
            }
            LinkEvent::Moving => {
                member.stalled.dec();
                launches.moves(worker);
                if link.is_available() {
                    self.free.release(worker);
                }
            }
            LinkEvent::Nothing => {}
            LinkEvent::Declined(connection) => self.given_back(index, connection, Undelivered::Declined),
            LinkEvent::Paused(connection) => {
                self.stalled(index, Instant::now(), launches);
                self.given_back(index, connection, Undelivered::Stalled);
            }
            LinkEvent::SetOption(option) => self.set_option(worker, option),
            LinkEvent::Broken(fault) => {
                warn!(%worker, service = %self.id, ?fault, "closed a channel that does not speak the attach protocol");
                self.drop_member(index, launches);
            }
        }
    }

    fn set_option(&mut self, worker: WorkerId, option: SocketOption) {
        let Intake::Open(listeners) = &mut self.intake else {
            return;
        };
        if !may_be_inherited(&option) {
            return;
        }
        for listener in listeners {
            if let Err(error) = listener.set_option(option) {
                debug!(%worker, service = %self.id, ?option, %error, "cannot set a worker's socket option");
            }
        }
        for connection in self.queue.iter() {
            listener::apply(&option, &connection.socket);
        }
    }
}

/// Whether this is an option that accepted connections inherit from their listener and that does no harm to other
/// workers: a worker may not, for instance, bind the public socket to a device or filter its traffic.
fn may_be_inherited(option: &SocketOption) -> bool {
    match option.level {
        libc::SOL_SOCKET => matches!(option.name, libc::SO_KEEPALIVE | libc::SO_LINGER),
        libc::IPPROTO_TCP => matches!(
            option.name,
            libc::TCP_NODELAY
                | libc::TCP_KEEPIDLE
                | libc::TCP_KEEPINTVL
                | libc::TCP_KEEPCNT
                | libc::TCP_USER_TIMEOUT
                | libc::TCP_DEFER_ACCEPT
                | libc::TCP_LINGER2
        ),
        libc::IPPROTO_IP => option.name == libc::IP_TOS,
        libc::IPPROTO_IPV6 => option.name == libc::IPV6_TCLASS,
        _ => false,
    }
}
