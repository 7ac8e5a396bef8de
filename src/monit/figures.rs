//! How an app has done lately: rates and waiting times, made of what it tells each time that it is asked.
//!
//! It asks nobody, and has no clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::control::api::{Accept, App, Histogram, Traffic};

/// How many moments are remembered: as many as the widest terminal has columns for.
const MOMENTS: usize = 300;

/// An app at a moment. What nobody knows is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Moment {
    /// Connections accepted, a second. Those that workers accept by themselves nobody counts.
    pub connections: Option<f64>,
    /// Within what time 99 of 100 connections were given to a worker, in seconds.
    pub wait: Option<f64>,
    /// Connections that wait for a worker.
    pub queued: Option<u64>,
    /// Connections that are open.
    pub open: Option<u64>,
    /// CPU time of all workers, in percent of one CPU.
    pub cpu: f64,
    /// Resident memory of all workers, in bytes.
    pub memory: u64,
}

/// An app's last moments, and what the next one is compared with.
#[derive(Debug, Default)]
pub(super) struct Figures {
    before: Option<Before>,
    moments: VecDeque<Moment>,
    taken: BTreeMap<u32, f64>,
}

#[derive(Debug)]
struct Before {
    at: Instant,
    /// Another process has counted anew.
    pid: u32,
    accepted: u64,
    queue_wait: Histogram,
    taken: BTreeMap<u32, u64>,
}

impl Figures {
    /// The app was asked, and has said this.
    pub(super) fn add(&mut self, app: &App, at: Instant) {
        let before = self.before.take().filter(|before| before.pid == app.pid && before.at < at);
        let traffic = app.traffic.clone().unwrap_or_default();
        let is_counted = app.accept == Accept::Primary && app.traffic.is_some();
        let seconds = before.as_ref().map(|before| (at - before.at).as_secs_f64());
        let rate = |now: u64, then: u64| seconds.map(|seconds| now.saturating_sub(then) as f64 / seconds);
        let taken = taken_by_worker(app);
        self.taken = match &before {
            Some(before) if is_counted => taken
                .iter()
                .filter_map(|(worker, now)| Some((*worker, rate(*now, *before.taken.get(worker)?)?)))
                .collect(),
            _ => BTreeMap::new(),
        };
        let then = before.as_ref().filter(|_| is_counted);
        self.moments.push_back(Moment {
            connections: then.and_then(|then| rate(traffic.accepted, then.accepted)),
            wait: then.and_then(|then| p99(&traffic.queue_wait.since(&then.queue_wait))),
            queued: app.traffic.as_ref().map(|traffic| traffic.queued),
            open: open(app),
            // A sum of nothing is -0.
            cpu: app.workers.iter().filter_map(|worker| worker.cpu_percent).fold(0.0, std::ops::Add::add),
            memory: app.workers.iter().filter_map(|worker| worker.memory_bytes).sum(),
        });
        if self.moments.len() > MOMENTS {
            self.moments.pop_front();
        }
        let Traffic { accepted, queue_wait, .. } = traffic;
        self.before = Some(Before { at, pid: app.pid, accepted, queue_wait, taken });
    }

    /// The last moment.
    pub(super) fn now(&self) -> Moment {
        self.moments.back().copied().unwrap_or_default()
    }

    /// A figure of the last moments, the last first. What nobody knows is nothing, as in a gap.
    pub(super) fn latest(
        &self,
        figure: impl Fn(&Moment) -> Option<f64>,
    ) -> impl Iterator<Item = Option<f64>> {
        self.moments.iter().rev().map(figure)
    }

    /// How many connections a second this worker takes.
    pub(super) fn taken(&self, worker: u32) -> Option<f64> {
        self.taken.get(&worker).copied()
    }
}

fn p99(waits: &Histogram) -> Option<f64> {
    waits.quantile(0.99)
}

/// While a worker is replaced, two processes share the number, and what is counted for it.
fn open(app: &App) -> Option<u64> {
    let by_worker: Option<BTreeMap<u32, u64>> =
        app.workers.iter().map(|worker| Some((worker.worker, worker.connections_open?))).collect();
    by_worker.map(|counts| counts.values().sum())
}

fn taken_by_worker(app: &App) -> BTreeMap<u32, u64> {
    app.workers.iter().map(|worker| (worker.worker, worker.connections_taken)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::control::api::Bucket;
    use crate::monit::model::tests::app;

    fn with(accepted: u64, slow: u64) -> App {
        let buckets =
            vec![Bucket { seconds: 0.001, count: accepted - slow }, Bucket { seconds: 1.0, count: accepted }];
        let queue_wait = Histogram { count: accepted, sum_seconds: 0.0, buckets };
        let mut app = app("web", 2);
        app.workers[0].connections_taken = accepted / 2;
        app.workers[0].connections_open = Some(3);
        app.workers[1].connections_open = Some(4);
        app.traffic = Some(Traffic { accepted, queue_wait, queued: 5, ..Traffic::default() });
        app
    }

    #[test]
    fn rates_are_made_of_two_answers() {
        let (start, mut figures) = (Instant::now(), Figures::default());
        figures.add(&with(1000, 1000), start);
        assert_eq!((figures.now().connections, figures.now().wait, figures.taken(1)), (None, None, None));
        assert_eq!((figures.now().open, figures.now().queued), (Some(7), Some(5)));
        figures.add(&with(1200, 1000), start + Duration::from_secs(2));
        assert_eq!((figures.now().connections, figures.taken(1)), (Some(100.0), Some(50.0)));
        assert_eq!(figures.taken(2), Some(0.0));
        assert!(figures.now().wait.is_some_and(|seconds| seconds < 0.001), "only what came since counts");
        let latest: Vec<_> = figures.latest(|moment| moment.connections).collect();
        assert_eq!(latest, [Some(100.0), None]);
    }

    #[test]
    fn another_process_counts_anew() {
        let (start, mut figures) = (Instant::now(), Figures::default());
        figures.add(&with(1000, 0), start);
        figures.add(&App { pid: 4712, ..with(10, 0) }, start + Duration::from_secs(1));
        assert_eq!(figures.now().connections, None);
        figures.add(&App { pid: 4712, ..with(30, 0) }, start + Duration::from_secs(2));
        assert_eq!(figures.now().connections, Some(20.0));
    }

    #[test]
    fn what_workers_accept_by_themselves_is_not_known() {
        let (start, mut figures) = (Instant::now(), Figures::default());
        for second in 0..3 {
            let app = App { accept: Accept::Workers, ..with(1000, 0) };
            figures.add(&app, start + Duration::from_secs(second));
        }
        assert_eq!((figures.now().connections, figures.now().wait, figures.taken(1)), (None, None, None));
        let mut old = with(1000, 0);
        (old.traffic, old.workers[1].connections_open) = (None, None);
        figures.add(&old, start + Duration::from_secs(9));
        assert_eq!(
            (figures.now().queued, figures.now().open),
            (None, None),
            "an older clusterd does not tell"
        );
    }

    #[test]
    fn no_more_is_remembered_than_can_be_shown() {
        let (start, mut figures) = (Instant::now(), Figures::default());
        for second in 0..1000 {
            figures.add(&with(1000, 0), start + Duration::from_secs(second));
        }
        assert_eq!(figures.moments.len(), MOMENTS);
    }
}
