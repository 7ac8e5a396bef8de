//! Every metric that clusterd counts itself, declared once.
//!
//! What is read from the kernel at scrape time (the workers' memory and so on) is in `admin`.

mod continued;
mod snapshot;

use prometheus::core::{Collector, Metric as _};
use prometheus::proto;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use self::continued::Before;
pub(crate) use self::snapshot::MetricsSnapshot;
use self::snapshot::SeriesName;

/// The counters and gauges. Cheap to clone: clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Where all of them are registered.
    pub registry: Registry,
    /// Connections accepted from clients.
    pub accepted: IntCounter,
    /// Connections taken by a worker, by slot.
    pub handed: IntCounterVec,
    /// Connections given to another worker because the first one did not take them.
    pub redispatched: IntCounter,
    /// Connections closed unserved, by `reason`: `queue_timeout`, `shutdown` or `backlog`.
    pub rejected: IntCounterVec,
    /// Connections that wait for an idle worker now.
    pub queue: IntGauge,
    /// From accepting a connection to giving it to a worker, in seconds.
    pub queue_wait: Histogram,
    /// From giving a connection to a worker until the worker has taken it, in seconds.
    pub handoff: Histogram,
    /// Workers by `state`.
    pub workers: IntGaugeVec,
    /// Connections that went to an idle worker because this one was late, by slot.
    pub late: IntCounterVec,
    /// Listeners of workers that left a connection untaken for the hand-off timeout and have not moved since, by slot.
    pub stalled: IntGaugeVec,
    /// Starts of a worker's process after its first, by slot and `reason`.
    pub restarts: IntCounterVec,
    /// Reloads by `result`: `done` or `failed`.
    pub reloads: IntCounterVec,
    /// Commands of `--on-event`, by `result`.
    pub hooks: IntCounterVec,
    /// Messages between workers (`--relay-messages`), by `result`.
    pub messages: IntCounterVec,
    /// Health probes that failed, by slot.
    pub health_failures: IntCounterVec,
    /// Failures to fetch a worker's own metrics, and lines of them that were left out, by slot.
    pub scrape_errors: IntCounterVec,
    /// Lines that could not be written, by `log`: `out`, `error`, `combined` or `clusterd`.
    pub lines_dropped: IntCounterVec,
    /// What clients' connections move (`--connection-stats`).
    pub connections: ConnectionMetrics,
    /// What an image of clusterd before this one has counted in histograms.
    before: Before,
}

/// What clients' connections move, and how they are, by slot. Without `--connection-stats` there is nothing in them.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionMetrics {
    /// Bytes that clients have sent.
    pub received: IntCounterVec,
    /// Bytes that clients have acknowledged.
    pub sent: IntCounterVec,
    /// Segments that were sent again.
    pub retransmitted: IntCounterVec,
    /// From accepting a connection to its end, in seconds.
    pub duration: HistogramVec,
    /// The smoothed round-trip time of a connection at its end, in seconds.
    pub rtt: HistogramVec,
}

/// Why a connection was closed unserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// It waited longer than the queue timeout.
    QueueTimeout,
    /// clusterd stopped before a worker was free for it.
    Shutdown,
    /// It was in the backlog of a listening socket from which nobody takes any more.
    Backlog,
}

/// Everything for which one is.
const REJECTED: [Rejected; 3] = [Rejected::QueueTimeout, Rejected::Shutdown, Rejected::Backlog];

impl Rejected {
    /// The value of the `reason` label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Rejected::QueueTimeout => "queue_timeout",
            Rejected::Shutdown => "shutdown",
            Rejected::Backlog => "backlog",
        }
    }
}

/// How a reload has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reloaded {
    /// Every worker was replaced.
    Done,
    /// It was given up.
    Failed,
}

impl Reloaded {
    /// The value of the `result` label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Reloaded::Done => "done",
            Reloaded::Failed => "failed",
        }
    }
}

/// What became of an event for `--on-event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hooked {
    /// Its command has ended by itself, well or not.
    Done,
    /// Its command was killed: it took too long.
    Killed,
    /// Its command could not be started.
    Failed,
    /// There was no room to wait for its turn.
    Dropped,
}

impl Hooked {
    /// Everything that can become of one.
    pub(crate) const ALL: [Hooked; 4] = [Hooked::Done, Hooked::Killed, Hooked::Failed, Hooked::Dropped];

    /// The value of the `result` label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Hooked::Done => "done",
            Hooked::Killed => "killed",
            Hooked::Failed => "failed",
            Hooked::Dropped => "dropped",
        }
    }
}

/// What became of a message for one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Messages {
    /// It waits to be written to the worker.
    Relayed,
    /// It was dropped: too many wait for the worker.
    Full,
    /// It was dropped, for all workers: it is too long.
    TooLong,
}

impl Messages {
    /// Everything that can become of one.
    const ALL: [Messages; 3] = [Messages::Relayed, Messages::Full, Messages::TooLong];

    /// The value of the `result` label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Messages::Relayed => "relayed",
            Messages::Full => "full",
            Messages::TooLong => "too_long",
        }
    }
}

/// A hand-off takes microseconds, a wait for a busy worker up to seconds.
const SECONDS: &[f64] = &[1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0];

/// From one answer over a connection of its own to a day of a websocket.
const DURATIONS: &[f64] = &[1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3600.0, 86400.0];

/// From the same machine to a satellite.
const ROUND_TRIPS: &[f64] = &[1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0];

impl Metrics {
    /// All metrics, at zero, in a registry of their own.
    ///
    /// # Panics
    /// If two of the names below are the same.
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let metrics = Self {
            accepted: counter("clusterd_connections_accepted_total", "Connections accepted from clients."),
            handed: counters(
                "clusterd_connections_handed_total",
                "Connections taken by a worker.",
                &["worker"],
            ),
            redispatched: counter(
                "clusterd_connections_redispatched_total",
                "Connections given to another worker because the first one did not take them.",
            ),
            rejected: counters(
                "clusterd_connections_rejected_total",
                "Connections closed before a worker took them.",
                &["reason"],
            ),
            queue: IntGauge::new("clusterd_queue_connections", "Connections waiting for an idle worker.")
                .expect("a valid metric"),
            queue_wait: histogram(
                "clusterd_queue_wait_seconds",
                "From accepting a connection to giving it to a worker.",
            ),
            handoff: histogram(
                "clusterd_handoff_duration_seconds",
                "From giving a connection to a worker until it has taken it.",
            ),
            workers: gauges("clusterd_workers", "Workers by state.", &["state"]),
            stalled: gauges(
                "clusterd_worker_stalled_listeners",
                "Listeners of the worker that left a connection untaken and have not moved since.",
                &["worker"],
            ),
            late: counters(
                "clusterd_worker_late_connections_total",
                "Connections that went to an idle worker because this one had not taken them in time.",
                &["worker"],
            ),
            restarts: counters(
                "clusterd_worker_restarts_total",
                "Restarts of the worker's process.",
                &["worker", "reason"],
            ),
            reloads: counters("clusterd_reloads_total", "Reloads that have ended.", &["result"]),
            hooks: counters(
                "clusterd_hooks_total",
                "Events for --on-event, by what became of its command.",
                &["result"],
            ),
            messages: counters(
                "clusterd_worker_messages_total",
                "Messages between workers (--relay-messages), for each that receives them.",
                &["result"],
            ),
            health_failures: counters(
                "clusterd_worker_health_failures_total",
                "Health probes of the worker that failed.",
                &["worker"],
            ),
            scrape_errors: counters(
                "clusterd_worker_scrape_errors_total",
                "Failures to fetch the worker's own metrics, and lines of them that were left out.",
                &["worker"],
            ),
            lines_dropped: lines_dropped(),
            connections: ConnectionMetrics::new(),
            before: Before::default(),
            registry,
        };
        metrics.register_all();
        metrics.build_info();
        metrics
    }

    fn register_all(&self) {
        let counters_and_gauges: [Box<dyn Collector>; 18] = [
            Box::new(self.accepted.clone()),
            Box::new(self.handed.clone()),
            Box::new(self.redispatched.clone()),
            Box::new(self.rejected.clone()),
            Box::new(self.queue.clone()),
            Box::new(self.workers.clone()),
            Box::new(self.late.clone()),
            Box::new(self.stalled.clone()),
            Box::new(self.restarts.clone()),
            Box::new(self.reloads.clone()),
            Box::new(self.hooks.clone()),
            Box::new(self.messages.clone()),
            Box::new(self.health_failures.clone()),
            Box::new(self.scrape_errors.clone()),
            Box::new(self.lines_dropped.clone()),
            Box::new(self.connections.received.clone()),
            Box::new(self.connections.sent.clone()),
            Box::new(self.connections.retransmitted.clone()),
        ];
        for metric in counters_and_gauges.into_iter().chain(self.histograms()) {
            self.registry.register(metric).expect("names are unique");
        }
        for reason in REJECTED {
            self.rejected.with_label_values(&[reason.label()]);
        }
        for result in [Reloaded::Done, Reloaded::Failed] {
            self.reloads.with_label_values(&[result.label()]);
        }
        for result in Hooked::ALL {
            self.hooks.with_label_values(&[result.label()]);
        }
        for log in ["out", "error", "combined", "clusterd"] {
            self.lines_dropped.with_label_values(&[log]);
        }
        for result in Messages::ALL {
            self.messages.with_label_values(&[result.label()]);
        }
    }

    /// The histograms, with all that was counted in them.
    fn histograms(&self) -> [Box<dyn Collector>; 4] {
        [
            Box::new(self.before.and(self.queue_wait.clone())),
            Box::new(self.before.and(self.handoff.clone())),
            Box::new(self.before.and(self.connections.duration.clone())),
            Box::new(self.before.and(self.connections.rtt.clone())),
        ]
    }

    /// All that was counted in this histogram, which is one of these.
    pub(crate) fn counted(&self, histogram: &Histogram) -> proto::Histogram {
        let metric = histogram.metric();
        let family = histogram.desc().first().map_or("", |desc| desc.fq_name.as_str());
        self.before.with(&SeriesName::of(family, &metric), metric.get_histogram())
    }

    /// How many connections were closed unserved, for whichever reason.
    pub(crate) fn rejected_of_all_reasons(&self) -> u64 {
        REJECTED.iter().map(|reason| self.rejected.with_label_values(&[reason.label()]).get()).sum()
    }

    fn build_info(&self) {
        let info = gauges("clusterd_build_info", "Always 1; the version is in the label.", &["version"]);
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        self.registry.register(Box::new(info)).expect("names are unique");
    }
}

impl ConnectionMetrics {
    fn new() -> Self {
        Self {
            received: counters(
                "clusterd_worker_connection_received_bytes_total",
                "Bytes received over clients' connections.",
                &["worker"],
            ),
            sent: counters(
                "clusterd_worker_connection_sent_bytes_total",
                "Bytes sent over clients' connections and acknowledged.",
                &["worker"],
            ),
            retransmitted: counters(
                "clusterd_worker_connection_retransmitted_segments_total",
                "TCP segments sent again over clients' connections.",
                &["worker"],
            ),
            duration: histograms(
                "clusterd_worker_connection_duration_seconds",
                "From accepting a client's connection to its end.",
                DURATIONS,
            ),
            rtt: histograms(
                "clusterd_worker_connection_rtt_seconds",
                "Smoothed round-trip time of a client's connection at its end.",
                ROUND_TRIPS,
            ),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts lines that could not be written.
pub(crate) fn lines_dropped() -> IntCounterVec {
    counters("clusterd_log_lines_dropped_total", "Log lines that could not be written in time.", &["log"])
}

fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect("a valid metric")
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("a valid metric")
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), labels).expect("a valid metric")
}

fn histogram(name: &str, help: &str) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
    Histogram::with_opts(options).expect("a valid metric")
}

fn histograms(name: &str, help: &str, buckets: &[f64]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    HistogramVec::new(options, &["worker"]).expect("a valid metric")
}
