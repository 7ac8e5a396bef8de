//! What a link may be given, and when: its state machine, without the channel.
//!
//! Pure: no I/O, no clock but a passed time. What lies in the channel is known to `in_flight`.
//!
//! ```text
//!        Listening          given                      (not taken in time)
//! Bound ────────────▶ Idle ───────────────▶ Busy ──────────────────────────▶ Stalled
//!                      ▲ ▲      all taken     │        take_back, Wake            │
//!                      │ ├────────────────────┘                                   │
//!                      │ ├─────── Resting ◀── Decline ── Busy                     │
//!                      │ └─ Listening ── Paused ◀── Decline, pause ── Busy        │
//!                      └──────────────────────────────────────────────────────────┘
//!                                    the worker has read the Wake
//! ```

use std::time::{Duration, Instant};

/// How long a worker that declined a connection gets no other.
const REST: Duration = Duration::from_millis(100);

/// Whose connections a link may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Longer than this, and the worker counts as stuck.
    pub timeout: Duration,
}

/// What is due on a link at a certain time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The connection waits longer than a hand-off takes when all is well.
    Slow,
    /// The hand-off timeout is over.
    TimedOut,
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
        due: Due,
        at: Instant,
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

    /// Whether it can be given a client's connection.
    pub(crate) fn is_available(&self) -> bool {
        self.phase == Phase::Idle && self.gate == Gate::Open
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

    /// Whether it left a connection untaken and has not moved since.
    pub(crate) fn is_stalled(&self) -> bool {
        matches!(self.phase, Phase::Stalled | Phase::Paused)
    }

    /// Whether it is told of when the worker receives what lies in the channel.
    pub(super) fn awaits_taking(&self) -> bool {
        matches!(self.phase, Phase::Busy { .. } | Phase::Stalled)
    }

    /// The worker says that it listens.
    pub(super) fn listens(&mut self) -> Listens {
        let was = std::mem::replace(&mut self.phase, Phase::Idle);
        match was {
            Phase::Bound => Listens::Now,
            Phase::Paused => Listens::Again,
            Phase::Idle | Phase::Busy { .. } | Phase::Resting { .. } | Phase::Stalled => {
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
        let Timeouts { slow, timeout } = self.timeouts;
        self.phase = Phase::Busy { due: Due::Slow, at: now + slow.min(timeout) };
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

    /// The stalled worker moves again.
    pub(super) fn moves(&mut self) {
        self.phase = Phase::Idle;
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
            Phase::Resting { until } => Some(until),
            Phase::Bound | Phase::Idle | Phase::Paused | Phase::Stalled => None,
        }
    }

    /// What is due at `now`. The deadline is in the future afterwards: a timeout that could not be acted on is due
    /// again later.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        if self.deadline().is_none_or(|end| end > now) {
            return None;
        }
        let Phase::Busy { due, at } = &mut self.phase else {
            self.phase = Phase::Idle;
            return Some(Due::Rested);
        };
        let said = *due;
        let Timeouts { slow, timeout } = self.timeouts;
        *at = match said {
            Due::Slow => (*at + timeout.saturating_sub(slow)).max(now),
            Due::TimedOut | Due::Rested => now + timeout,
        };
        *due = Due::TimedOut;
        Some(said)
    }
}
