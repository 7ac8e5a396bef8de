//! In which ways clients may arrive at a service, as workers listen and cease to.
//!
//! Pure: no I/O, no clock but a passed time. Natively a port answers once somebody listens on it; so does this one, and
//! from then on clients wait through crashes, restarts and reloads. They are refused again when the app is stopped, and
//! when workers serve other clients and have left these alone for good.
//!
//! ```text
//!            a listener takes it              none does, others take others
//! Refused ───────────────────────▶ Open ◀────────────────────────────────▶ Left { until }
//!    ▲                              │ none does, but its twin is taken          │
//!    └───── the app is stopped ─────┴───────────────────────────────────────────┘
//! ```

use std::time::{Duration, Instant};

use super::arrival::{Arrival, Arrivals};
use super::snapshot::{OpenSnapshot, OpennessSnapshot};

/// How long a worker may leave clients of one family alone while it serves the other: it opens one listener after the
/// other.
pub(super) const GRACE: Duration = Duration::from_secs(3);

/// What is seen of the listeners of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// What listeners take whose workers are not to end, be they ready or not.
    pub(super) listened_on: Arrivals,
    /// What those take that clients are given to.
    pub(super) served: Arrivals,
}

impl Seen {
    /// Of these listeners and those.
    pub(super) fn and(self, others: Self) -> Self {
        let listened_on = self.listened_on.and(others.listened_on);
        Self { listened_on, served: self.served.and(others.served) }
    }
}

/// How each arrival stands.
#[derive(Debug, Default)]
pub(super) struct Openness {
    states: [State; 3],
    seen: Seen,
    /// The app is stopped until it is started again.
    is_stopped: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Refused,
    Open,
    Left {
        until: Instant,
    },
}

impl Openness {
    /// In which ways clients may arrive.
    pub(super) fn open(&self) -> Arrivals {
        let states = Arrival::ALL.into_iter().zip(self.states);
        states.filter(|&(_, state)| state != State::Refused).map(|(arrival, _)| arrival).collect()
    }

    /// Whether the listeners stood otherwise when they were last seen.
    pub(super) fn is_news(&self, seen: Seen) -> bool {
        self.seen != seen
    }

    /// This is how the listeners stand now.
    pub(super) fn see(&mut self, seen: Seen, now: Instant) {
        if self.is_news(seen) {
            self.seen = seen;
            self.step(now);
        }
    }

    /// The app is stopped, or started again.
    pub(super) fn stopped(&mut self, is_stopped: bool, now: Instant) {
        self.is_stopped = is_stopped;
        self.step(now);
    }

    /// Clients who arrive in these ways wait, as they did at the process before this one, though nobody has listened yet.
    pub(super) fn hold(&mut self, arrivals: Arrivals, now: Instant) {
        for (arrival, state) in Arrival::ALL.into_iter().zip(&mut self.states) {
            if arrivals.has(arrival) && *state == State::Refused {
                *state = State::Open;
            }
        }
        self.step(now);
    }

    /// Refuses whom nobody has wanted for long.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.step(now);
        }
    }

    /// When [`Openness::tick`] is next needed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let left = self.states.iter().filter_map(|state| match state {
            State::Left { until } => Some(*until),
            State::Refused | State::Open => None,
        });
        left.min()
    }

    /// As it is written down.
    pub(super) fn snapshot(&self) -> OpennessSnapshot {
        let Seen { listened_on, served } = self.seen;
        OpennessSnapshot {
            states: self.states.map(State::snapshot),
            listened_on,
            served,
            is_stopped: self.is_stopped,
        }
    }

    /// As it was written down.
    pub(super) fn restored(snapshot: &OpennessSnapshot) -> Self {
        let &OpennessSnapshot { states, listened_on, served, is_stopped } = snapshot;
        Self { states: states.map(State::restored), seen: Seen { listened_on, served }, is_stopped }
    }

    fn step(&mut self, now: Instant) {
        let (seen, is_stopped) = (self.seen, self.is_stopped);
        for (arrival, state) in Arrival::ALL.into_iter().zip(&mut self.states) {
            *state = if is_stopped { State::Refused } else { next(*state, arrival, seen, now) };
        }
    }
}

impl State {
    fn snapshot(self) -> OpenSnapshot {
        match self {
            State::Refused => OpenSnapshot::Refused,
            State::Open => OpenSnapshot::Open,
            State::Left { until } => OpenSnapshot::Left { until: until.into() },
        }
    }

    fn restored(snapshot: OpenSnapshot) -> Self {
        match snapshot {
            OpenSnapshot::Refused => State::Refused,
            OpenSnapshot::Open => State::Open,
            OpenSnapshot::Left { until } => State::Left { until: until.into() },
        }
    }
}

fn next(state: State, arrival: Arrival, seen: Seen, now: Instant) -> State {
    if seen.listened_on.has(arrival) {
        return State::Open;
    }
    if state == State::Refused || seen.served.is_empty() {
        return match state {
            State::Refused => State::Refused,
            State::Open | State::Left { .. } => State::Open,
        };
    }
    let is_taken_by_twin = arrival.twin().is_some_and(|twin| seen.served.has(twin));
    match state {
        _ if is_taken_by_twin => State::Refused,
        State::Left { until } if until <= now => State::Refused,
        State::Left { .. } => state,
        State::Open | State::Refused => State::Left { until: now + GRACE },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clients_whom_the_process_before_has_held_wait_until_workers_serve_others() {
        let (mut openness, now) = (Openness::default(), Instant::now());
        openness.hold(set(DUAL), now);
        assert_eq!(openness.open(), set(DUAL));
        openness.stopped(false, now);
        assert_eq!(openness.open(), set(DUAL), "the app is started, and no worker listens yet");
        openness.see(Seen { listened_on: set(EACH), served: set(EACH) }, now);
        assert_eq!(openness.open(), set(EACH));
        openness.stopped(true, now);
        assert_eq!(openness.open(), set(NOTHING));
        openness.hold(set(DUAL), now);
        assert_eq!(openness.open(), set(NOTHING), "it is stopped, and refuses");
    }

    const NOTHING: &[Arrival] = &[];
    const V4: &[Arrival] = &[Arrival::V4];
    const V6: &[Arrival] = &[Arrival::V6];
    const DUAL: &[Arrival] = &[Arrival::Mapped, Arrival::V6];
    const EACH: &[Arrival] = &[Arrival::V4, Arrival::V6];

    fn set(arrivals: &[Arrival]) -> Arrivals {
        arrivals.iter().copied().collect()
    }

    /// Everybody who listens is ready, too.
    fn all(arrivals: &[Arrival]) -> Seen {
        Seen { listened_on: set(arrivals), served: set(arrivals) }
    }

    /// After each of these, one second later than the one before, clients may arrive so.
    fn story(steps: &[(Seen, &[Arrival])]) {
        let mut openness = Openness::default();
        let mut now = Instant::now();
        for (index, (seen, open)) in steps.iter().enumerate() {
            openness.tick(now);
            openness.see(*seen, now);
            assert_eq!(openness.open(), set(open), "step {index}");
            now += Duration::from_secs(1);
        }
    }

    #[test]
    fn clients_are_refused_until_a_worker_listens_and_wait_from_then_on() {
        story(&[(all(NOTHING), NOTHING), (all(V4), V4), (all(NOTHING), V4), (all(V4), V4)]);
        let not_ready = Seen { listened_on: set(DUAL), ..Seen::default() };
        story(&[(not_ready, DUAL), (all(NOTHING), DUAL), (all(DUAL), DUAL)]);
    }

    #[test]
    fn another_family_that_is_left_alone_is_refused_after_a_while() {
        let every = &[Arrival::V4, Arrival::Mapped, Arrival::V6];
        story(&[(all(DUAL), DUAL), (all(every), every), (all(V4), EACH), (all(V4), EACH)]);
        story(&[(all(EACH), EACH), (all(V4), EACH), (all(EACH), EACH), (all(V4), EACH), (all(V4), EACH)]);
        story(&[(all(EACH), EACH), (all(V6), EACH), (all(V6), EACH), (all(V6), EACH), (all(V6), V6)]);
    }

    #[test]
    fn an_ipv4_client_arrives_in_the_one_way_or_the_other() {
        story(&[(all(V4), V4), (all(DUAL), DUAL), (all(NOTHING), DUAL), (all(V4), EACH)]);
    }

    #[test]
    fn a_worker_that_is_not_ready_turns_nobody_away() {
        let mixed = Seen { listened_on: set(DUAL), served: set(NOTHING) };
        story(&[(all(V4), V4), (mixed, &[Arrival::V4, Arrival::Mapped, Arrival::V6])]);
    }

    #[test]
    fn what_is_stopped_is_refused_until_a_worker_listens_after_the_start() {
        let now = Instant::now();
        let mut openness = Openness::default();
        openness.see(all(EACH), now);
        openness.stopped(true, now);
        assert_eq!(openness.open(), set(NOTHING));
        openness.see(all(NOTHING), now);
        openness.stopped(false, now);
        assert_eq!(openness.open(), set(NOTHING));
        openness.see(all(V4), now);
        assert_eq!(openness.open(), set(V4));
    }

    fn some() -> impl Strategy<Value = Arrivals> {
        proptest::sample::subsequence(Arrival::ALL.to_vec(), 0..=3).prop_map(|some| set(&some))
    }

    proptest! {
        #[test]
        fn who_is_listened_for_may_come_and_who_never_was_may_not(
            steps in proptest::collection::vec((some(), some(), 0_u64..5), 1..20)
        ) {
            let mut openness = Openness::default();
            let (mut now, mut ever) = (Instant::now(), Arrivals::default());
            for (listened_on, served, seconds) in steps {
                now += Duration::from_secs(seconds);
                openness.tick(now);
                let seen = Seen { listened_on, served };
                let before = openness.open();
                openness.see(seen, now);
                ever = ever.and(listened_on);
                for arrival in Arrival::ALL {
                    let is_open = openness.open().has(arrival);
                    prop_assert!(is_open || !listened_on.has(arrival));
                    prop_assert!(!is_open || ever.has(arrival));
                    let is_kept = before.has(arrival) && served.is_empty();
                    prop_assert!(is_open || !is_kept, "clients wait while nobody serves");
                }
            }
        }
    }
}
