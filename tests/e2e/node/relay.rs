//! `--relay-messages`: what a worker sends with `process.send` reaches the other workers; and what packages make of it.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::{Attach, both_ways};
use crate::harness::folder::fixtures;
use crate::harness::needs;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, http, until};

both_ways!(
    a_message_reaches_every_other_worker_as_it_was_sent,
    without_the_setting_the_first_message_is_named,
    what_a_worker_does_not_read_is_dropped_and_counted,
);

const NOBODY: &str = "nobody receives what workers send with process.send";

fn chat(attach: Attach) -> Setup {
    Cluster::of("node {fixtures}/node/chat.js").workers(3).options(attach.option())
}

/// Makes one worker send this; returns which one.
fn say(cluster: &Cluster, message: &Value) -> u64 {
    let answer = http::post(cluster.address(), "/", &message.to_string()).expect("an answer");
    seen(&answer.text()).0
}

fn seen(answer: &str) -> (u64, Vec<Value>) {
    let mut answer: Value = serde_json::from_str(answer).expect("an answer in JSON");
    let heard = serde_json::from_value(answer["heard"].take()).expect("a list");
    (answer["worker"].as_u64().expect("a number"), heard)
}

fn a_message_reaches_every_other_worker_as_it_was_sent(attach: Attach) {
    let cluster = chat(attach).options("--relay-messages").start();
    let message = json!({ "text": "Zürich\n日本 🦀", "deep": { "er": [1.5, null, "x".repeat(100_000)] } });
    let sender = say(&cluster, &message);
    let heard = until("all have answered, and two have heard it", || {
        let heard: BTreeMap<u64, Vec<Value>> = (0..3).map(|_| seen(&cluster.get("/"))).collect();
        (heard.len() == 3 && heard.values().filter(|heard| !heard.is_empty()).count() == 2).then_some(heard)
    });
    for (worker, heard) in heard {
        let expected = if worker == sender { vec![] } else { vec![message.clone()] };
        assert!(heard == expected, "worker {worker} has heard {} messages", heard.len());
    }
    assert_eq!(cluster.metrics().count("clusterd_worker_messages_total", &[("result", "relayed")]), 2);
    assert!(!cluster.stderr.text().contains(NOBODY));
}

fn without_the_setting_the_first_message_is_named(attach: Attach) {
    let cluster = chat(attach).start();
    assert!(!cluster.stderr.text().contains(NOBODY));
    for number in 0..6 {
        say(&cluster, &json!({ "number": number }));
    }
    until("it is named", || cluster.stderr.text().contains(NOBODY).then_some(()));
    let text = cluster.stderr.text();
    assert_eq!(text.matches(NOBODY).count(), 1, "{text}");
    assert!(text.contains("--relay-messages"), "{text}");
}

fn what_a_worker_does_not_read_is_dropped_and_counted(attach: Attach) {
    let cluster = chat(attach).workers(2).options("--relay-messages --handoff-timeout 200ms").start();
    let stopped = cluster.worker(1);
    crate::handoff::stop(&stopped);
    let message = json!("x".repeat(600_000));
    let dropped = |result| cluster.metrics().count("clusterd_worker_messages_total", &[("result", result)]);
    until("its mailbox is full", || {
        say(&cluster, &message);
        (dropped("full") > 0).then_some(())
    });
    until("it is said", || {
        cluster.stderr.text().contains("dropping messages of other workers").then_some(())
    });
    let before = cluster.primary().resident_bytes();
    for _ in 0..20 {
        say(&cluster, &message);
    }
    assert!(cluster.primary().resident_bytes() < before + 8_000_000);
    say(&cluster, &json!("x".repeat(1_100_000)));
    until("a long one is dropped", || (dropped("too_long") == 1).then_some(()));
}

#[test]
fn log4js_writes_the_lines_of_all_workers_without_its_clustering() {
    every_line_is_written(r#"{"disableClustering":true}"#, "");
}

/// Worker 1, whose NODE_APP_INSTANCE is 0, writes for all.
#[test]
fn log4js_as_under_pm2_writes_the_lines_of_all_workers() {
    every_line_is_written(r#"{"pm2":true}"#, "--relay-messages");
}

/// Three workers, each of which has written a line once all of them were there.
fn log4js(configuration: &str, options: &str) -> Cluster {
    let server = Cluster::of("node {fixtures}/packages/log4js.js").workers(3);
    let cluster = server.env("LOG4JS", configuration).options(options).start();
    cluster.wait_for(3, "online");
    cluster.say("sendSignal USR2 all").done();
    cluster
}

#[track_caller]
fn every_line_is_written(configuration: &str, options: &str) {
    if !needs::package("log4js") {
        return;
    }
    let cluster = log4js(configuration, options);
    let log = cluster.folder().join("app.log");
    let mut lines = until("there are three lines", || {
        let text = fs::read_to_string(&log).ok()?;
        (text.lines().count() >= 3).then(|| text.lines().map(str::to_owned).collect::<Vec<_>>())
    });
    lines.sort();
    assert_eq!(lines, [1, 2, 3].map(|worker| format!("line of worker {worker}")));
}

#[test]
fn log4js_that_leaves_its_lines_to_nobody_is_told_what_to_set() {
    if !needs::package("log4js") {
        return;
    }
    let cluster = log4js("{}", "");
    until("it is told", || cluster.stderr.text().contains("disableClustering: true").then_some(()));
}

#[test]
fn socket_io_broadcasts_reach_the_clients_of_all_workers() {
    if !needs::package("@socket.io/cluster-adapter") {
        return;
    }
    let server = fixtures().join("packages/socket_io.js");
    let cluster = Cluster::of(&format!("node {}", server.display()))
        .workers(3)
        .options("--relay-messages --window 1")
        .start();
    cluster.wait_for(3, "online");
    let port = cluster.address().port().to_string();
    let output =
        Command::new("node").arg(&server).args(["client", &port]).output().expect("node can be started");
    let counts: Value = serde_json::from_slice(&output.stdout).expect("counts in JSON");
    assert_eq!(counts, json!({ "workers": 3, "heard": 9, "count": 9 }));
}
