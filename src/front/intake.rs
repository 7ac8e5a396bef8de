//! Where a service's connections come from: its listeners, open, closing or closed, and pauses when the system is short.
//!
//! It keeps no connection, and does not know who gets it.

use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::connection::Connection;
use super::listener::Listener;
use crate::ids::{ServiceId, WorkerId};
use crate::protocol::wire::SocketOption;

/// How long nothing is accepted or given after the kernel ran out of descriptors or memory.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// How long handshakes that had begun when the stop came may take to be completed.
pub(super) const LAST_HANDSHAKES: Duration = Duration::from_millis(100);

/// How often a lasting shortage is logged.
const COMPLAINTS: Duration = Duration::from_secs(10);

/// The listeners of one service.
#[derive(Debug)]
pub(super) struct Intake {
    service: ServiceId,
    source: Source,
    paused_until: Option<Instant>,
    /// When the next shortage may be logged.
    complain_from: Option<Instant>,
}

#[derive(Debug)]
enum Source {
    Open(Vec<Listener>),
    Closing { listeners: Vec<Listener>, until: Instant },
    Closed,
}

impl Intake {
    pub(super) fn new(service: ServiceId, listeners: Vec<Listener>) -> Self {
        Self { service, source: Source::Open(listeners), paused_until: None, complain_from: None }
    }

    /// The next connection.
    ///
    /// # Errors
    /// As [`Listener::poll_accept`].
    pub(super) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Connection>> {
        let (Source::Open(listeners) | Source::Closing { listeners, .. }) = &mut self.source else {
            return Poll::Pending;
        };
        for turn in 0..listeners.len() {
            if let ready @ Poll::Ready(_) = listeners[turn].poll_accept(cx) {
                // The next one is asked first next time, so that none keeps the others waiting.
                listeners.rotate_left(turn + 1);
                return ready;
            }
        }
        Poll::Pending
    }

    /// Sets an option of a worker's listener, which holds for all. Returns whether it was taken over.
    pub(super) fn set_option(&mut self, worker: WorkerId, option: SocketOption) -> bool {
        let Source::Open(listeners) = &mut self.source else { return false };
        if !may_be_inherited(&option) {
            return false;
        }
        for listener in listeners {
            if let Err(error) = listener.set_option(option) {
                debug!(%worker, service = %self.service, ?option, %error, "cannot set a worker's socket option");
            }
        }
        true
    }

    /// Nothing is accepted or given for a moment: the system is short of something.
    pub(super) fn pause(&mut self, what: &str, error: &io::Error) {
        let now = Instant::now();
        self.paused_until = Some(now + PAUSE);
        if self.complain_from.is_none_or(|from| from <= now) {
            self.complain_from = Some(now + COMPLAINTS);
            warn!(service = %self.service, %error, "{what}");
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused_until.is_some()
    }

    /// Lets no new connection begin. Those that clients have already established are still accepted; at an inherited
    /// socket they wait for whoever listens with it next.
    pub(super) fn stop(&mut self, now: Instant) {
        match std::mem::replace(&mut self.source, Source::Closed) {
            Source::Open(mut listeners) => {
                listeners.retain(|listener| !listener.is_inherited());
                for listener in &mut listeners {
                    if let Err(error) = listener.stop() {
                        debug!(service = %self.service, %error, "cannot filter new connections while stopping");
                    }
                }
                self.source = Source::Closing { listeners, until: now + LAST_HANDSHAKES };
            }
            stopped => self.source = stopped,
        }
    }

    /// Ends a pause, and closes the listeners when the last handshakes had their time and nobody is left in the backlogs.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        let Source::Closing { listeners, until } = &mut self.source else { return };
        if *until > now {
            return;
        }
        if listeners.iter().all(Listener::has_empty_backlog) {
            self.source = Source::Closed;
        } else {
            *until = now + PAUSE;
        }
    }

    /// When [`Intake::tick`] is next needed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let closing = match &self.source {
            Source::Closing { until, .. } => Some(*until),
            Source::Open(_) | Source::Closed => None,
        };
        closing.into_iter().chain(self.paused_until).min()
    }

    /// Whether it was stopped, and everybody was accepted.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.source, Source::Closed)
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
