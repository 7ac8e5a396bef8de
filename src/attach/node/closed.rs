//! Servers that a worker has closed, and whose listeners it may have given to a child process before (`child.send` with a
//! server): natively the child serves on.
//!
//! It only keeps them, and when to look whether anybody holds them. To look, and to end them, is the session's.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use super::offers::Offers;
use super::servers::{Server, Supply};
use super::snapshot::{ClosedSnapshot, wrong};
use crate::carry::Moment;
use crate::front::links::Holder;

/// How long after its first look a server is looked at again, which doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
pub(super) const LAST_PAUSE: Duration = Duration::from_secs(5);

/// The servers.
#[derive(Debug, Default)]
pub(super) struct ClosedServers(Vec<Closed>);

/// A server that is closed in the process that had opened it.
#[derive(Debug)]
pub(super) struct Closed {
    pub key: String,
    pub server: Server,
    pub holder: Holder,
    look_at: Instant,
    pause: Duration,
}

impl ClosedServers {
    /// A server was closed; it is to be looked at now.
    pub(super) fn add(&mut self, key: String, server: Server, holder: Holder, now: Instant) {
        self.0.push(Closed { key, server, holder, look_at: now, pause: FIRST_PAUSE });
    }

    /// When to look next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.iter().map(|closed| closed.look_at).min()
    }

    /// Those that are to be looked at by now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Closed> {
        let (due, others) = std::mem::take(&mut self.0).into_iter().partition(|closed| closed.look_at <= now);
        self.0 = others;
        due
    }

    /// Whether there is any.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Somebody holds it: it is looked at again, less and less often.
    pub(super) fn is_held(&mut self, mut closed: Closed, now: Instant) {
        closed.look_at = now + closed.pause;
        closed.pause = (closed.pause * 2).min(LAST_PAUSE);
        self.0.push(closed);
    }

    /// As they are written down.
    pub(super) fn snapshot(&self) -> Vec<ClosedSnapshot> {
        let closed = self.0.iter().map(|closed| ClosedSnapshot {
            // None of them has a relay.
            server: closed.server.snapshot(&BTreeMap::new(), &Offers::default()),
            look_at: closed.look_at.into(),
            pause: closed.pause,
        });
        closed.collect()
    }

    /// One of those that were written down.
    ///
    /// # Errors
    /// A server without a channel is held by nobody.
    pub(super) fn add_again(&mut self, server: Server, look_at: Moment, pause: Duration) -> io::Result<()> {
        let Supply::Channel(_, holder) = server.supply else {
            return Err(wrong("a server is closed and kept that has no channel"));
        };
        let (key, pause) = (server.query.key(), pause.clamp(FIRST_PAUSE, LAST_PAUSE));
        self.0.push(Closed { key, server, holder, look_at: look_at.into(), pause });
        Ok(())
    }

    /// All of them are gone.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = (String, Server)> + use<> {
        std::mem::take(&mut self.0).into_iter().map(|closed| (closed.key, closed.server))
    }
}
