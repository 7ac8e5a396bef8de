//! A worker that is to end, while something is on its way to it: handshakes that had begun when it was left out, and what
//! waits in its backlogs.
//!
//! Pure: it is told what was seen, and keeps no clock but a passed time.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long handshakes may take, and how long it may take nothing that waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// The worker.
#[derive(Debug)]
pub(super) struct Retiring {
    begun: Instant,
    /// Since when it has taken nothing.
    since: Instant,
    backlog: usize,
    /// Clients whose handshakes had begun.
    handshakes: BTreeSet<SocketAddr>,
}

/// Whether to go on waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It takes what waits.
    Waits,
    /// Nothing is on its way to it.
    Done,
    /// It does not take what waits.
    Stuck,
}

impl Retiring {
    /// It is left out from now on.
    pub(super) fn new(handshakes: BTreeSet<SocketAddr>, now: Instant) -> Self {
        Self { begun: now, since: now, backlog: usize::MAX, handshakes }
    }

    /// Whether handshakes may still come to its backlog.
    pub(super) fn has_handshakes(&self, now: Instant) -> bool {
        !self.handshakes.is_empty() && now < self.begun + PATIENCE
    }

    /// Only these handshakes have not ended yet.
    pub(super) fn keep(&mut self, handshakes: &BTreeSet<SocketAddr>) {
        self.handshakes.retain(|client| handshakes.contains(client));
    }

    /// So many wait in its backlogs.
    pub(super) fn see(&mut self, backlog: usize, now: Instant) -> Verdict {
        if backlog < self.backlog {
            self.since = now;
        }
        self.backlog = backlog;
        match backlog {
            0 if self.has_handshakes(now) => Verdict::Waits,
            0 => Verdict::Done,
            _ if self.since + PATIENCE <= now => Verdict::Stuck,
            _ => Verdict::Waits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of these backlogs, so many milliseconds after the start.
    fn seen(handshakes: &[&str], steps: &[(u64, usize)]) -> Vec<Verdict> {
        let start = Instant::now();
        let clients = handshakes.iter().map(|client| client.parse().unwrap()).collect();
        let mut retiring = Retiring::new(clients, start);
        steps.iter().map(|&(at, backlog)| retiring.see(backlog, start + Duration::from_millis(at))).collect()
    }

    #[test]
    fn it_is_waited_for_as_long_as_it_takes() {
        use Verdict::{Done, Stuck, Waits};
        assert_eq!(seen(&[], &[(0, 0)]), [Done]);
        assert_eq!(seen(&[], &[(0, 3), (900, 2), (1800, 1), (2700, 0)]), [Waits, Waits, Waits, Done]);
        assert_eq!(seen(&[], &[(0, 3), (900, 3), (1000, 3)]), [Waits, Waits, Stuck]);
        assert_eq!(seen(&["192.0.2.1:7"], &[(0, 0), (999, 0), (1000, 0)]), [Waits, Waits, Done]);
    }

    #[test]
    fn handshakes_that_have_ended_are_not_waited_for() {
        let start = Instant::now();
        let [one, other] = ["192.0.2.1:7", "192.0.2.2:7"].map(|client| client.parse().unwrap());
        let mut retiring = Retiring::new(BTreeSet::from([one]), start);
        retiring.keep(&BTreeSet::from([one, other]));
        assert_eq!(retiring.see(0, start), Verdict::Waits);
        retiring.keep(&BTreeSet::from([other]));
        assert_eq!(retiring.see(0, start), Verdict::Done);
    }
}
