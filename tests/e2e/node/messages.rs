//! What workers say over Node's channel: heard, logged, and bounded whatever it is.

use std::fs;
use std::time::{Duration, Instant};

use super::{Attach, both_ways};
use crate::harness::needs;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, until};

both_ways!(
    what_a_worker_says_is_in_the_debug_log,
    what_a_worker_says_is_not_in_the_log_otherwise,
    a_worker_that_sends_handles_is_answered,
    with_wait_ready_a_worker_is_online_once_it_says_so,
    garbage_hurts_nobody,
    a_line_without_an_end_hurts_nobody,
    nested_nonsense_hurts_nobody,
    a_flood_of_messages_hurts_nobody,
    answers_to_nothing_hurt_nobody,
    questions_without_number_hurt_nobody,
    questions_of_a_worker_that_hears_no_answer_hurt_nobody,
    descriptors_without_number_hurt_nobody,
);

fn messages(attach: Attach) -> Setup {
    Cluster::of("node {fixtures}/node/messages.js").options(attach.option())
}

/// Waits for a message of clusterd of this level in which this text occurs.
#[track_caller]
fn logged(cluster: &Cluster, level: &str, text: &str) {
    until(&format!("{text:?} is in the log with level {level}"), || {
        let lines = cluster.stderr.lines();
        let messages = lines.iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut messages = messages.filter(|message| message["level"] == level);
        messages.any(|message| message.to_string().contains(text)).then_some(())
    });
}

fn what_a_worker_says_is_in_the_debug_log(attach: Attach) {
    let cluster = messages(attach).options("--log-level debug").start();
    for said in
        ["a-string", "4711001", "an-array", "an-object", "another", "Zürich-日本-🦀", "a-cmd", "after-all"]
    {
        logged(&cluster, "DEBUG", said);
    }
    assert_eq!(cluster.get("/").split(' ').next(), Some("worker"));
    assert_eq!(cluster.stderr.text().matches("4711001").count(), 1, "each is logged once");
}

fn what_a_worker_says_is_not_in_the_log_otherwise(attach: Attach) {
    let cluster = messages(attach).start();
    cluster.get("/");
    // The first is named, since nobody receives it.
    assert_eq!(cluster.stderr.text().matches("-said").count(), 1, "it was logged");
}

fn a_worker_that_sends_handles_is_answered(attach: Attach) {
    let cluster = messages(attach).env("SAY_HANDLES", "1").options("--log-level debug").start();
    logged(&cluster, "DEBUG", "after-all-said");
    logged(&cluster, "WARN", "net.Server");
    logged(&cluster, "WARN", "net.Socket");
    for _ in 0..5 {
        cluster.get("/");
    }
}

/// A cluster whose first worker misuses the channel for at least three seconds, while the other two serve.
#[track_caller]
fn others_serve_beside(attach: Attach, way: &str) -> Option<Cluster> {
    needs::program("python3").then_some(())?;
    let script = format!(
        "if [ $CLUSTERD_WORKER_ID = 1 ]; then exec python3 {{fixtures}}/node/hostile.py {way}; fi; \
         exec node {{fixtures}}/node/app.js"
    );
    let cluster = Cluster::of("sh -c").arg(&script).workers(3).options(attach.option()).launch();
    cluster.wait_listening();
    cluster.get("/");
    let written = cluster.folder().join("written");
    until("the misuse has begun", || {
        fs::read_to_string(&written).is_ok_and(|text| !text.is_empty()).then_some(())
    });
    let begin = Instant::now();
    until("three seconds have gone by", || {
        let asked = Instant::now();
        cluster.get("/");
        assert!(asked.elapsed() < Duration::from_secs(2), "a request took {:?}", asked.elapsed());
        (begin.elapsed() > Duration::from_secs(3)).then_some(())
    });
    let primary = cluster.primary();
    assert!(
        primary.resident_bytes() < 128_000_000,
        "clusterd has {} bytes of memory",
        primary.resident_bytes()
    );
    assert!(primary.open_files() < 2_000, "clusterd has {} files open", primary.open_files());
    Some(cluster)
}

fn with_wait_ready_a_worker_is_online_once_it_says_so(attach: Attach) {
    let ready = Cluster::of("node {fixtures}/node/ready.js").options(attach.option()).options("--wait-ready");
    let cluster = ready.launch();
    let listening = cluster.folder().join("listening");
    until("the worker listens", || listening.exists().then_some(()));
    assert_eq!(cluster.metrics().count("clusterd_workers", &[("state", "online")]), 0);
    assert_eq!(cluster.probe("/readyz").status, 503);
    cluster.open_gate("gate");
    cluster.wait_online();
    assert_eq!(cluster.get("/"), "worker 1");
}

/// What cannot be understood is read and dropped from then on.
#[track_caller]
fn is_ignored(attach: Attach, way: &str) {
    let Some(cluster) = others_serve_beside(attach, way) else { return };
    until("clusterd says that it listens no more", || {
        cluster.stderr.text().contains("ignoring the worker's Node channel from now on").then_some(())
    });
    let written = || fs::read_to_string(cluster.folder().join("written")).ok()?.parse::<u64>().ok();
    let before = written();
    until("the worker goes on", || (written() > before).then_some(()));
    assert!(!cluster.folder().join("cut-off").exists());
}

fn garbage_hurts_nobody(attach: Attach) {
    is_ignored(attach, "garbage");
}

fn a_line_without_an_end_hurts_nobody(attach: Attach) {
    is_ignored(attach, "endless");
}

fn nested_nonsense_hurts_nobody(attach: Attach) {
    is_ignored(attach, "deep");
}

fn a_flood_of_messages_hurts_nobody(attach: Attach) {
    others_serve_beside(attach, "flood");
}

fn answers_to_nothing_hurt_nobody(attach: Attach) {
    others_serve_beside(attach, "answers");
}

fn questions_without_number_hurt_nobody(attach: Attach) {
    others_serve_beside(attach, "listeners");
}

fn questions_of_a_worker_that_hears_no_answer_hurt_nobody(attach: Attach) {
    others_serve_beside(attach, "deaf");
}

fn descriptors_without_number_hurt_nobody(attach: Attach) {
    others_serve_beside(attach, "descriptors");
}
