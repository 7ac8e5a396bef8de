//! `--connection-stats`: what connections have moved and how long they lived, counted by worker.
//!
//! An open connection counts as far as it has come whenever somebody looks, and with what is left when it ends: a counter
//! of long connections rises steadily, never falls, and no byte counts twice. It asks the kernel nothing.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::{Histogram, IntCounter};

use super::snapshot::{CountedSnapshot, StatisticsSnapshot};
use super::{Ended, Figures, OpenConnection};
use crate::carry::Still;
use crate::ids::Slot;
use crate::metrics::Metrics;

/// What was counted of a connection is forgotten after this time if it is not open and its end was not heard of. The
/// kernel gives up a connection that nobody holds sooner (tcp_orphan_retries in tcp(7)).
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// The counters, and what they know already of open connections.
#[derive(Debug)]
pub(crate) struct Statistics {
    metrics: Metrics,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    workers: HashMap<Slot, Series>,
    /// What was counted of connections that have not ended, by their cookies.
    counted: HashMap<u64, Counted>,
    /// Those that have ended since somebody began to look. What was seen of them is old.
    ended: Option<HashSet<u64>>,
    /// What is seen now is counted later: what was counted goes to the next image of clusterd.
    stands_still: bool,
}

/// A worker's metrics.
#[derive(Debug)]
struct Series {
    received: IntCounter,
    sent: IntCounter,
    retransmitted: IntCounter,
    duration: Histogram,
    rtt: Histogram,
}

/// What a connection has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Moved {
    received: u64,
    sent: u64,
    retransmitted: u64,
}

#[derive(Clone, Copy, Debug)]
struct Counted {
    moved: Moved,
    /// When it was last seen open.
    seen: Instant,
}

impl Statistics {
    /// Counts into these metrics.
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self { metrics, state: Arc::default() }
    }

    /// Shows these workers, also before they have had a connection.
    pub(crate) fn show(&self, workers: impl IntoIterator<Item = Slot>) {
        self.with_state(|state| {
            for slot in workers {
                state.series(slot, &self.metrics);
            }
        });
    }

    /// Counts these connections, which have ended, each once.
    pub(crate) fn count_ended(&self, ended: &[Ended]) {
        self.with_state(|state| ended.iter().for_each(|ended| state.count_ended(ended, &self.metrics)));
    }

    /// Begins to look at the open connections. Not to be done twice at a time.
    pub(crate) fn begin_look(&self) -> Look<'_> {
        self.with_state(|state| state.ended = Some(HashSet::new()));
        Look { statistics: self }
    }

    fn with_state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut lock(&self.state))
    }

    /// Counts nothing more of open connections, for the next image of clusterd. Whoever tells of ends is to stand still
    /// already, and the metrics are to be written down afterwards.
    pub(crate) fn stand_still(&self) -> Still<StatisticsSnapshot> {
        let mut state = lock(&self.state);
        state.stands_still = true;
        Still::new(state.snapshot(), GoesOn(Arc::clone(&self.state)))
    }

    /// That was counted by an image before, and is in the metrics.
    pub(crate) fn restore(&self, snapshot: StatisticsSnapshot) {
        self.with_state(|state| state.restore(snapshot));
    }
}

/// Lets it go on when it is dropped.
struct GoesOn(Arc<Mutex<State>>);

impl Drop for GoesOn {
    fn drop(&mut self) {
        lock(&self.0).stands_still = false;
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A look at the open connections that is under way. It may be given up.
#[derive(Debug)]
pub(crate) struct Look<'a> {
    statistics: &'a Statistics,
}

impl Look<'_> {
    /// Counts what is new of these connections, which were open since it began.
    pub(crate) fn finish(self, open: &[OpenConnection], now: Instant) {
        let metrics = &self.statistics.metrics;
        self.statistics.with_state(|state| {
            if state.stands_still {
                return;
            }
            for connection in open {
                state.count_open(connection, metrics, now);
            }
            state.counted.retain(|_, counted| now.saturating_duration_since(counted.seen) < FORGOTTEN_AFTER);
        });
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        self.statistics.with_state(|state| state.ended = None);
    }
}

impl State {
    fn snapshot(&self) -> StatisticsSnapshot {
        let counted = self.counted.iter().map(|(&cookie, &Counted { moved, seen })| {
            let Moved { received, sent, retransmitted } = moved;
            CountedSnapshot { cookie, received, sent, retransmitted, seen: seen.into() }
        });
        StatisticsSnapshot { counted: counted.collect() }
    }

    fn restore(&mut self, snapshot: StatisticsSnapshot) {
        self.counted.extend(snapshot.counted.into_iter().map(|counted| {
            let CountedSnapshot { cookie, received, sent, retransmitted, seen } = counted;
            let moved = Moved { received, sent, retransmitted };
            (cookie, Counted { moved, seen: seen.into() })
        }));
    }

    fn count_ended(&mut self, ended: &Ended, metrics: &Metrics) {
        let counted = self.counted.remove(&ended.cookie).map(|counted| counted.moved).unwrap_or_default();
        if let Some(since) = &mut self.ended {
            since.insert(ended.cookie);
        }
        let series = self.series(ended.worker.slot, metrics);
        series.duration.observe(ended.lived.as_secs_f64());
        let Some(figures) = ended.figures else { return };
        series.add(Moved::of(figures).beyond(counted));
        // It is zero if the kernel has measured none.
        if !figures.rtt.is_zero() {
            series.rtt.observe(figures.rtt.as_secs_f64());
        }
    }

    fn count_open(&mut self, open: &OpenConnection, metrics: &Metrics, now: Instant) {
        let is_old = self.ended.as_ref().is_some_and(|ended| ended.contains(&open.cookie));
        let (Some(worker), Some(figures), false) = (open.worker, open.figures, is_old) else { return };
        let moved = Moved::of(figures);
        let before = self.counted.insert(open.cookie, Counted { moved, seen: now });
        let before = before.map(|counted| counted.moved).unwrap_or_default();
        self.series(worker.slot, metrics).add(moved.beyond(before));
    }

    fn series(&mut self, slot: Slot, metrics: &Metrics) -> &Series {
        self.workers.entry(slot).or_insert_with(|| Series::of(slot, metrics))
    }
}

impl Moved {
    fn of(figures: Figures) -> Self {
        Self { received: figures.received, sent: figures.sent, retransmitted: figures.retransmitted }
    }

    /// What is more than that.
    fn beyond(self, before: Self) -> Self {
        Self {
            received: self.received.saturating_sub(before.received),
            sent: self.sent.saturating_sub(before.sent),
            retransmitted: self.retransmitted.saturating_sub(before.retransmitted),
        }
    }
}

impl Series {
    fn of(slot: Slot, metrics: &Metrics) -> Self {
        let (slot, of) = (slot.to_string(), &metrics.connections);
        let label = [slot.as_str()];
        Self {
            received: of.received.with_label_values(&label),
            sent: of.sent.with_label_values(&label),
            retransmitted: of.retransmitted.with_label_values(&label),
            duration: of.duration.with_label_values(&label),
            rtt: of.rtt.with_label_values(&label),
        }
    }

    fn add(&self, moved: Moved) {
        self.received.inc_by(moved.received);
        self.sent.inc_by(moved.sent);
        self.retransmitted.inc_by(moved.retransmitted);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::connections::ConnectionState;
    use crate::ids::WorkerId;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

    fn worker(slot: u32) -> WorkerId {
        WorkerId { slot: Slot(slot), launch: 7 }
    }

    /// Ten times as many bytes are sent, and every second one of the received is a segment sent again.
    fn figures(received: u64) -> Option<Figures> {
        let rtt = Duration::from_millis(2);
        Some(Figures {
            received,
            sent: received * 10,
            retransmitted: received / 2,
            rtt,
            ..Figures::default()
        })
    }

    fn open(cookie: u64, received: u64) -> OpenConnection {
        OpenConnection {
            cookie,
            worker: Some(worker(1)),
            local: ANY,
            client: ANY,
            state: ConnectionState::Established,
            age: None,
            queued_for: None,
            figures: figures(received),
        }
    }

    fn ended(cookie: u64, received: u64) -> Ended {
        Ended { cookie, worker: worker(1), lived: Duration::from_secs(3), figures: figures(received) }
    }

    /// What worker 1 has received, sent, and sent again, and how many of its connections have ended.
    fn shown(metrics: &Metrics) -> (u64, u64, u64, u64) {
        let of = &metrics.connections;
        (
            of.received.with_label_values(&["1"]).get(),
            of.sent.with_label_values(&["1"]).get(),
            of.retransmitted.with_label_values(&["1"]).get(),
            of.duration.with_label_values(&["1"]).get_sample_count(),
        )
    }

    fn counting() -> (Metrics, Statistics) {
        let metrics = Metrics::new();
        (metrics.clone(), Statistics::new(metrics))
    }

    #[test]
    fn an_open_connection_counts_as_far_as_it_has_come_and_its_end_counts_the_rest() {
        let (metrics, statistics) = counting();
        let now = Instant::now();
        statistics.begin_look().finish(&[open(1, 10), open(2, 4)], now);
        assert_eq!(shown(&metrics), (14, 140, 7, 0));
        statistics.begin_look().finish(&[open(1, 30), open(2, 4)], now);
        assert_eq!(shown(&metrics), (34, 340, 17, 0));
        statistics.count_ended(&[ended(1, 32), ended(3, 100)]);
        assert_eq!(shown(&metrics), (136, 1360, 68, 2));
        let rtt = metrics.connections.rtt.with_label_values(&["1"]);
        assert!(rtt.get_sample_count() == 2 && (rtt.get_sample_sum() - 0.004).abs() < 1e-9);
        assert!((metrics.connections.duration.with_label_values(&["1"]).get_sample_sum() - 6.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_not_known_does_not_count() {
        let (metrics, statistics) = counting();
        let of_nobody = OpenConnection { worker: None, ..open(1, 10) };
        let not_measured = OpenConnection { figures: None, ..open(2, 10) };
        statistics.begin_look().finish(&[of_nobody, not_measured], Instant::now());
        assert_eq!(shown(&metrics), (0, 0, 0, 0));
        let without_rtt = figures(1).map(|figures| Figures { rtt: Duration::ZERO, ..figures });
        statistics.count_ended(&[Ended { figures: without_rtt, ..ended(3, 1) }]);
        statistics.count_ended(&[Ended { figures: None, ..ended(2, 1) }]);
        assert_eq!(shown(&metrics), (1, 10, 0, 2));
        assert_eq!(metrics.connections.rtt.with_label_values(&["1"]).get_sample_count(), 0);
    }

    #[test]
    fn a_worker_is_shown_before_it_has_had_a_connection() {
        let (metrics, statistics) = counting();
        statistics.show([Slot(1), Slot(2)]);
        let families = metrics.registry.gather();
        let received =
            families.iter().find(|family| family.name() == "clusterd_worker_connection_received_bytes_total");
        assert_eq!(received.expect("the family").get_metric().len(), 2);
    }

    #[test]
    fn what_ended_while_somebody_looked_is_not_counted_again() {
        let (metrics, statistics) = counting();
        let look = statistics.begin_look();
        statistics.count_ended(&[ended(1, 10)]);
        look.finish(&[open(1, 9), open(2, 1)], Instant::now());
        assert_eq!(shown(&metrics), (11, 110, 5, 1));
        drop(statistics.begin_look());
        statistics.count_ended(&[ended(2, 3)]);
        let state = statistics.state.lock().unwrap();
        assert!(state.counted.is_empty() && state.ended.is_none(), "nothing is remembered: {state:?}");
    }

    #[test]
    fn an_end_that_is_never_heard_of_is_forgotten_in_time() {
        let (_metrics, statistics) = counting();
        let now = Instant::now();
        statistics.begin_look().finish(&[open(1, 1)], now);
        for (later, remembered) in [(FORGOTTEN_AFTER / 2, 2), (FORGOTTEN_AFTER, 1)] {
            statistics.begin_look().finish(&[open(2, 1)], now + later);
            assert_eq!(statistics.state.lock().unwrap().counted.len(), remembered);
        }
    }

    #[test]
    fn in_the_next_image_no_byte_counts_again_and_what_is_seen_meanwhile_counts_later() {
        let (metrics, statistics) = counting();
        let now = Instant::now();
        statistics.begin_look().finish(&[open(1, 10), open(2, 4)], now);
        let still = statistics.stand_still();
        let (snapshot, _) = crate::carry::testing::carried(&still.state);
        statistics.begin_look().finish(&[open(1, 20), open(2, 4)], now);
        assert_eq!(shown(&metrics).0, 14, "it stands still");
        let (next_metrics, next) = counting();
        next.restore(snapshot);
        next.count_ended(&[ended(2, 5)]);
        next.begin_look().finish(&[open(1, 20)], now);
        assert_eq!(shown(&next_metrics), (11, 110, 5, 1));
        // It was not to be: the old one goes on.
        drop(still);
        statistics.begin_look().finish(&[open(1, 20), open(2, 4)], now);
        assert_eq!(shown(&metrics).0, 24);
    }

    /// What happens, in any order, to connections that each grow by one with each step.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Begin,
        /// The look that was begun is answered with what was open then.
        Finish,
        GiveUp,
        End(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            Just(Step::Begin),
            Just(Step::Finish),
            Just(Step::GiveUp),
            (0..4_usize).prop_map(Step::End)
        ];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        #[test]
        fn no_counter_falls_and_at_the_end_each_byte_has_counted_once(steps in steps()) {
            let (metrics, statistics) = counting();
            let (mut alive, mut total, mut last) = (vec![true; 4], 0, 0);
            let mut look: Option<(Look<'_>, Vec<OpenConnection>)> = None;
            let is_end_of_all = (0..4).map(Step::End);
            for (at, step) in (1_u64..).zip(steps.into_iter().chain([Step::Finish]).chain(is_end_of_all)) {
                match step {
                    Step::Begin if look.is_none() => {
                        let begun = statistics.begin_look();
                        let open = (0..4).filter(|&index| alive[index]).map(|index| open(index as u64, at));
                        look = Some((begun, open.collect()));
                    }
                    Step::Finish => {
                        if let Some((begun, open)) = look.take() {
                            begun.finish(&open, Instant::now());
                        }
                    }
                    Step::GiveUp => look = None,
                    Step::End(index) if alive[index] => {
                        alive[index] = false;
                        total += at;
                        statistics.count_ended(&[ended(index as u64, at)]);
                    }
                    Step::Begin | Step::End(_) => {}
                }
                let now = shown(&metrics).0;
                prop_assert!(now >= last, "{now} after {last}");
                last = now;
            }
            prop_assert_eq!(last, total);
        }
    }
}
