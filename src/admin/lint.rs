//! Checks that every metric is named and explained as Prometheus asks
//! (prometheus.io, "Metric and label naming" and "Writing exporters").
//!
//! A test, and nothing else.

use std::net::TcpListener;

use prometheus::proto::{MetricFamily, MetricType};

use super::collect;
use super::listen_queues::ListenQueues;
use crate::ids::Slot;
use crate::metrics::Metrics;

/// Units that are not base units, as they would stand in a name.
const SMALL_UNITS: &[&str] = &[
    "ms",
    "milliseconds",
    "us",
    "microseconds",
    "ns",
    "nanoseconds",
    "minutes",
    "kb",
    "kilobytes",
    "mb",
    "megabytes",
    "percent",
];

/// Labels with a bounded set of values.
const LABELS: &[&str] = &["worker", "reason", "state", "version", "result", "log", "listener"];

fn everything() -> Vec<MetricFamily> {
    let metrics = Metrics::new();
    let processes = || vec![(Slot(1), rustix::process::getpid())];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let public = vec![(address, vec![address])];
    collect::register(&metrics.registry, Box::new(processes), &ListenQueues::new(&public)).unwrap();
    // A family without a child would not appear.
    metrics.handed.with_label_values(&["1"]);
    metrics.workers.with_label_values(&["online"]);
    metrics.stalled.with_label_values(&["1"]);
    metrics.restarts.with_label_values(&["1", "exit"]);
    metrics.health_failures.with_label_values(&["1"]);
    metrics.scrape_errors.with_label_values(&["1"]);
    metrics.registry.gather()
}

fn complaints(family: &MetricFamily) -> Vec<&'static str> {
    let name = family.name();
    let counter = family.get_field_type() == MetricType::COUNTER;
    let mut complaints = Vec::new();
    let mut insist = |holds: bool, complaint| {
        if !holds {
            complaints.push(complaint);
        }
    };
    let ours = name.starts_with("clusterd_");
    insist(ours || name.starts_with("process_"), "has no prefix");
    insist(name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_')), "is not snake case");
    insist(counter == name.ends_with("_total"), "only a counter ends in _total, and each does");
    insist(!name.split('_').any(|word| SMALL_UNITS.contains(&word)), "is not in base units");
    insist(family.help().len() > 10 && family.help().ends_with('.'), "has no help");
    let labels = family.get_metric().iter().flat_map(|metric| metric.get_label());
    insist(labels.into_iter().all(|label| LABELS.contains(&label.name())), "has an unbounded label");
    complaints
}

#[test]
fn every_metric_is_named_and_explained() {
    let found: Vec<_> = everything()
        .iter()
        .flat_map(|family| complaints(family).into_iter().map(|c| format!("{} {c}", family.name())))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_metric_of_the_design_is_there() {
    let families = everything();
    let names: Vec<_> = families.iter().map(MetricFamily::name).collect();
    for name in [
        "clusterd_build_info",
        "clusterd_connections_accepted_total",
        "clusterd_connections_handed_total",
        "clusterd_connections_redispatched_total",
        "clusterd_connections_rejected_total",
        "clusterd_queue_connections",
        "clusterd_queue_wait_seconds",
        "clusterd_handoff_duration_seconds",
        "clusterd_workers",
        "clusterd_worker_restarts_total",
        "clusterd_worker_cpu_seconds_total",
        "clusterd_worker_resident_memory_bytes",
        "clusterd_worker_open_fds",
        "clusterd_worker_start_time_seconds",
        "clusterd_listen_queue_connections",
        "clusterd_listen_queue_limit",
        "clusterd_listen_queue_fullest_ratio",
        "clusterd_listen_dropped_packets_total",
        "clusterd_netns_listen_overflows_total",
        "clusterd_netns_listen_drops_total",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
    ] {
        assert!(names.contains(&name), "{name} is missing");
    }
}
