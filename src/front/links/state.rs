//! What a link may be given, and when: its state machine, without the channel.
//!
//! Pure: no I/O, no clock but a passed time. What lies in the channel is known to `in_flight`.
//!
//! ```text
//!        Listening          given                 (late: another worker was idle)
//! Bound ────────────▶ Idle ───────────────▶ Busy ────────────────────────────▶ Bypassed ─┐
//!                      ▲ ▲      all taken     │       take_back, Wake               │     │
//!                      │ ├────────────────────┤                   (hand-off timeout)│     │
//!                      │ │                    │        take_back, Wake              ▼     │
//!                      │ │                    └────────────────────────────────▶ Stalled  │
//!                      │ │                              (hand-off timeout)          │     │
//!                      │ ├─────── Resting ◀── Decline ── Busy                       │     │
//!                      │ └─ Listening ── Paused ◀── Decline, pause ── Busy          │     │
//!                      └────────────────────────────────────────────────────────────┴─────┘
//!                                    the worker has read the Wake
//! ```
//!
//! A worker that is late has done nothing wrong: it works for longer than usual, and somebody else has the time. So it is
//! only left out until it moves. One that moves in none of the hand-off timeout, bypassed or not, is stalled.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::snapshot::{LinkStateSnapshot, PhaseSnapshot};

/// How long a worker that declined a connection gets no other.
const REST: Duration = Duration::from_millis(100);

/// Whose connections a link may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Gate {
    /// Only clusterd's own, until the worker is ready.
    Held,
    /// Everybody's.
    Open,
    /// Nobody's, for good.
    Retired,
}

/// How long a hand-off may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// Longer than this, and one may ask whether anyone is there.
    pub slow: Duration,
    /// Longer than this, and an idle worker gets the connection.
    pub late: Duration,
    /// Longer than this, and the worker counts as stuck.
    pub timeout: Duration,
}

/// What is due on a link at a certain time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Due {
    /// The connection waits longer than a hand-off takes when all is well.
    Slow,
    /// From now on, another worker that is idle gets it.
    Late,
    /// The hand-off timeout is over.
    TimedOut,
    /// The hand-off timeout is over for a connection that went to another worker, and this one has not moved.
    Unmoved,
    /// A worker that declined a connection may be given one again: the link is idle.
    Rested,
}

/// The diagram above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Bound,
    Idle,
    /// Of what was given, something was not yet told to be taken. This is due for the next of them.
    Busy {
        since: Instant,
        due: Due,
        at: Instant,
    },
    /// Its connection went to another worker. It is stalled if it does not move until then.
    Bypassed {
        until: Instant,
    },
    Resting {
        until: Instant,
    },
    Paused,
    Stalled,
}

/// The state of one link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkState {
    phase: Phase,
    gate: Gate,
    relayed: bool,
    timeouts: Timeouts,
}

/// What it means that a worker says it listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listens {
    /// It does now: the link is idle.
    Now,
    /// It takes connections again: the link is idle.
    Again,
    /// It did already.
    Still,
}

impl LinkState {
    /// A channel whose server does not listen yet.
    pub(crate) fn new(gate: Gate, relayed: bool, timeouts: Timeouts) -> Self {
        Self { phase: Phase::Bound, gate, relayed, timeouts }
    }

    /// As it is written down.
    pub(super) fn snapshot(&self) -> LinkStateSnapshot {
        LinkStateSnapshot { phase: self.phase.snapshot(), gate: self.gate, relayed: self.relayed }
    }

    /// It stands as it was written down.
    pub(super) fn resume(&mut self, snapshot: LinkStateSnapshot) {
        let LinkStateSnapshot { phase, gate, relayed } = snapshot;
        (self.phase, self.gate, self.relayed) = (Phase::restored(phase), gate, relayed);
    }

    /// Whether it can be given a client's connection.
    pub(crate) fn is_available(&self) -> bool {
        self.phase == Phase::Idle && self.gate == Gate::Open
    }

    /// Whether it could be given a client's connection if it were idle, and says by taking it that it is.
    pub(super) fn is_available_when_idle(&self) -> bool {
        self.gate == Gate::Open && !self.relayed
    }

    /// Whether it can be given another client's connection while it is busy. One at a time goes to a relay, which may
    /// decline it.
    pub(crate) fn may_be_given_ahead(&self) -> bool {
        self.is_busy() && self.gate == Gate::Open && !self.relayed
    }

    /// Whether the other end passes connections on, so that they are not taken back from it while it lives.
    pub(crate) fn is_relayed(&self) -> bool {
        self.relayed
    }

    /// Whether it can be given a connection of clusterd's own.
    pub(crate) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle && self.gate != Gate::Retired
    }

    /// Whether the server listens, be it for clients or not.
    pub(crate) fn has_listened(&self) -> bool {
        self.phase != Phase::Bound
    }

    /// Whether the server listens, and clients' connections may come to it.
    pub(crate) fn is_listening(&self) -> bool {
        self.has_listened() && self.gate == Gate::Open
    }

    /// Whether the server listens, be it ready or not, and is not to end.
    pub(crate) fn is_up(&self) -> bool {
        self.has_listened() && self.gate != Gate::Retired
    }

    /// Whether it gets no connection any more.
    pub(crate) fn is_retired(&self) -> bool {
        self.gate == Gate::Retired
    }

    /// Whether a connection was given and not yet told to be taken.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self.phase, Phase::Busy { .. })
    }

    /// Whether a connection waits for longer than a hand-off takes when all is well.
    pub(super) fn is_slow(&self) -> bool {
        matches!(self.phase, Phase::Busy { due: Due::Late | Due::TimedOut, .. })
    }

    /// Whether what it was given may go to another worker: it was not taken for long.
    pub(crate) fn is_late(&self) -> bool {
        let Timeouts { late, timeout, .. } = self.timeouts;
        let is_over = late < timeout && matches!(self.phase, Phase::Busy { due: Due::TimedOut, .. });
        is_over && self.gate == Gate::Open
    }

    /// Whether all that it was given went to other workers, and it has not moved since.
    pub(super) fn is_bypassed(&self) -> bool {
        matches!(self.phase, Phase::Bypassed { .. })
    }

    /// Whether it left a connection untaken for the hand-off timeout and has not moved since.
    pub(crate) fn is_stalled(&self) -> bool {
        matches!(self.phase, Phase::Stalled | Phase::Paused)
    }

    /// Whether it is told of when the worker receives what lies in the channel.
    pub(crate) fn awaits_taking(&self) -> bool {
        matches!(self.phase, Phase::Busy { .. } | Phase::Bypassed { .. } | Phase::Stalled)
    }

    /// The worker says that it listens.
    pub(super) fn listens(&mut self) -> Listens {
        let was = std::mem::replace(&mut self.phase, Phase::Idle);
        match was {
            Phase::Bound => Listens::Now,
            Phase::Paused => Listens::Again,
            Phase::Idle
            | Phase::Busy { .. }
            | Phase::Bypassed { .. }
            | Phase::Resting { .. }
            | Phase::Stalled => {
                self.phase = was;
                Listens::Still
            }
        }
    }

    /// It was given a connection.
    pub(super) fn given(&mut self, now: Instant) {
        if !self.is_busy() {
            self.wait_from(now);
        }
    }

    /// One of those that were given is done with; `is_last` if it was the last.
    pub(super) fn done(&mut self, is_last: bool) {
        if is_last && self.is_busy() {
            self.phase = Phase::Idle;
        }
    }

    /// The next connection in the channel has its turn from now on.
    pub(super) fn wait_from(&mut self, now: Instant) {
        let Timeouts { slow, timeout, .. } = self.timeouts;
        self.phase = Phase::Busy { since: now, due: Due::Slow, at: now + slow.min(timeout) };
    }

    /// All that it was given went to other workers before it was taken. Only a late one is bypassed.
    pub(super) fn bypass(&mut self, since: Instant) {
        self.phase = Phase::Bypassed { until: since + self.timeouts.timeout };
    }

    /// Since when the connection in front has had its turn.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        match self.phase {
            Phase::Busy { since, .. } => Some(since),
            _ => None,
        }
    }

    /// The worker has given a connection back, and rests for a moment.
    pub(super) fn rest(&mut self, now: Instant) {
        self.phase = Phase::Resting { until: now + REST };
    }

    /// The worker has given a connection back, and takes none until it says that it listens.
    pub(super) fn pause(&mut self) {
        self.phase = Phase::Paused;
    }

    /// The worker has left what it was given untaken.
    pub(super) fn stall(&mut self) {
        self.phase = Phase::Stalled;
    }

    /// The worker that was bypassed or stalled moves again. Returns whether it was stalled.
    pub(super) fn moves(&mut self) -> bool {
        std::mem::replace(&mut self.phase, Phase::Idle) == Phase::Stalled
    }

    /// The worker is ready: clients' connections may come, unless it is retired.
    pub(super) fn open(&mut self) {
        if self.gate == Gate::Held {
            self.gate = Gate::Open;
        }
    }

    /// The worker gets no connection any more.
    pub(super) fn retire(&mut self) {
        self.gate = Gate::Retired;
    }

    /// When it ends by itself. A relay's connections are timed by the relay.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Busy { at, .. } => (!self.relayed).then_some(at),
            Phase::Resting { until } | Phase::Bypassed { until } => Some(until),
            Phase::Bound | Phase::Idle | Phase::Paused | Phase::Stalled => None,
        }
    }

    /// What is due at `now`. The deadline is in the future afterwards: a timeout that could not be acted on is due
    /// again later.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        if self.deadline().is_none_or(|end| end > now) {
            return None;
        }
        let Timeouts { slow, late, timeout } = self.timeouts;
        match &mut self.phase {
            Phase::Busy { since, due, at } => {
                let said = *due;
                (*due, *at) = match said {
                    Due::Slow if late > slow && late < timeout => (Due::Late, *since + late),
                    Due::Slow | Due::Late => (Due::TimedOut, *since + timeout),
                    _ => (Due::TimedOut, now + timeout),
                };
                Some(said)
            }
            Phase::Bypassed { until } => {
                *until = now + timeout;
                Some(Due::Unmoved)
            }
            _ => {
                self.phase = Phase::Idle;
                Some(Due::Rested)
            }
        }
    }
}

impl Phase {
    fn snapshot(self) -> PhaseSnapshot {
        match self {
            Phase::Bound => PhaseSnapshot::Bound,
            Phase::Idle => PhaseSnapshot::Idle,
            Phase::Busy { since, due, at } => PhaseSnapshot::Busy { since: since.into(), due, at: at.into() },
            Phase::Bypassed { until } => PhaseSnapshot::Bypassed { until: until.into() },
            Phase::Resting { until } => PhaseSnapshot::Resting { until: until.into() },
            Phase::Paused => PhaseSnapshot::Paused,
            Phase::Stalled => PhaseSnapshot::Stalled,
        }
    }

    fn restored(snapshot: PhaseSnapshot) -> Self {
        match snapshot {
            PhaseSnapshot::Bound => Phase::Bound,
            PhaseSnapshot::Idle => Phase::Idle,
            PhaseSnapshot::Busy { since, due, at } => Phase::Busy { since: since.into(), due, at: at.into() },
            PhaseSnapshot::Bypassed { until } => Phase::Bypassed { until: until.into() },
            PhaseSnapshot::Resting { until } => Phase::Resting { until: until.into() },
            PhaseSnapshot::Paused => Phase::Paused,
            PhaseSnapshot::Stalled => Phase::Stalled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A link that was given a connection at `now`.
    fn busy(now: Instant, late: Duration, timeout: Duration) -> LinkState {
        let mut state = LinkState::new(Gate::Open, false, Timeouts { slow: ms(20), late, timeout });
        state.listens();
        state.given(now);
        state
    }

    #[test]
    fn a_connection_that_is_not_taken_is_slow_then_late_then_over_time() {
        /// When, what is due, and whether the worker is late then.
        type Expected<'a> = &'a [(u64, Due, bool)];
        let cases: [(Duration, Duration, Expected<'_>); 6] = [
            (
                ms(20),
                ms(1000),
                &[(20, Due::Slow, true), (1000, Due::TimedOut, true), (2000, Due::TimedOut, true)],
            ),
            (ms(1), ms(1000), &[(20, Due::Slow, true), (1000, Due::TimedOut, true)]),
            (ms(50), ms(1000), &[(20, Due::Slow, false), (50, Due::Late, true), (1000, Due::TimedOut, true)]),
            (
                ms(20),
                ms(20),
                &[(20, Due::Slow, false), (20, Due::TimedOut, false), (40, Due::TimedOut, false)],
            ),
            (ms(20), ms(5), &[(5, Due::Slow, false), (5, Due::TimedOut, false)]),
            (ms(9000), ms(1000), &[(20, Due::Slow, false), (1000, Due::TimedOut, false)]),
        ];
        for (late, timeout, expected) in cases {
            let start = Instant::now();
            let mut state = busy(start, late, timeout);
            for &(at, due, is_late) in expected {
                let when = state.deadline().unwrap();
                assert_eq!(when, start + ms(at), "{late:?} {timeout:?}");
                assert_eq!(state.due(when - ms(1)), None);
                assert_eq!(
                    (state.due(when), state.is_late()),
                    (Some(due), is_late),
                    "{late:?} {timeout:?} {at}"
                );
            }
        }
    }

    #[test]
    fn a_worker_that_was_bypassed_is_stalled_only_when_the_hand_off_timeout_is_over() {
        let start = Instant::now();
        let mut state = busy(start, ms(20), ms(1000));
        state.due(start + ms(20));
        state.done(true);
        state.bypass(start);
        assert!(!state.is_late() && !state.is_stalled() && !state.is_idle() && !state.is_busy());
        assert!(state.awaits_taking(), "it is heard of when it moves");
        assert_eq!(state.due(start + ms(999)), None);
        assert_eq!(state.due(start + ms(1000)), Some(Due::Unmoved));
        let mut quick = state;
        assert!(!quick.moves() && quick.is_available(), "it was never stalled");
        state.stall();
        assert!(state.is_stalled() && state.moves() && state.is_available());
    }

    #[test]
    fn neither_a_relay_nor_a_worker_that_is_to_end_is_late() {
        let start = Instant::now();
        let mut relayed =
            LinkState::new(Gate::Open, true, Timeouts { slow: ms(20), late: ms(20), timeout: ms(1000) });
        relayed.listens();
        relayed.given(start);
        assert_eq!(
            (relayed.deadline(), relayed.due(start + ms(500)), relayed.is_late()),
            (None, None, false)
        );
        let mut retired = busy(start, ms(20), ms(1000));
        retired.due(start + ms(20));
        retired.retire();
        assert!(!retired.is_late());
    }
}
