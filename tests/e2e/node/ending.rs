//! What an app of Node does at its end, it does to the end: after a signal, after `disconnect`, or because work is left;
//! at a stop, a reload and when workers become fewer, with every Node that there is, and Deno.
//!
//! All time-outs are so long that whoever waits for one of them waits for longer than the test does.

use std::collections::BTreeMap;
use std::fs;

use crate::harness::needs::{self, needs};
use crate::harness::setup::Setup;
use crate::harness::{Cluster, Signal, until};

/// What an app does at its end, and what it is to have written then.
struct Ending {
    name: &'static str,
    /// Of clusterd.
    options: &'static str,
    /// `--kill-timeout`.
    kill: &'static str,
    /// That it handles.
    signal: &'static str,
    written: &'static [&'static str],
}

const SIGNAL: Ending =
    Ending { name: "signal", options: "", kill: "10m", signal: "SIGTERM", written: SIGNAL_ENDS };
const SIGNAL_ENDS: &[&str] = &["signal begins", "signal ends"];
const DISCONNECT: Ending =
    Ending { name: "disconnect", written: &["disconnect begins", "disconnect ends"], ..SIGNAL };
const BOTH: Ending = Ending { name: "both", ..SIGNAL };
const WORK: Ending = Ending { name: "work", written: &["work begins", "work ends"], ..SIGNAL };

/// An app that ends like this, run by this program. What it holds open, it does until there is the file `gate`.
fn app(program: &str, ending: &Ending) -> Setup {
    let Ending { kill, options, .. } = ending;
    let options = format!("--drain-timeout 10m --kill-timeout {kill} --min-uptime 50ms {options}");
    Cluster::of(&format!("{program} {{fixtures}}/node/ending.cjs"))
        .env("ENDING", ending.name)
        .env("SIGNAL", ending.signal)
        .options(options.trim_end())
}

/// What each process has written of its end.
fn endings(cluster: &Cluster) -> BTreeMap<i32, Vec<String>> {
    let text = fs::read_to_string(cluster.folder().join("endings")).unwrap_or_default();
    let mut endings: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for (pid, line) in text.lines().filter_map(|line| line.split_once(' ')) {
        endings.entry(pid.parse().expect("a number")).or_default().push(line.to_owned());
    }
    endings
}

/// Has the worker in this slot leave while a client waits for its answer, which then comes. Its end is its own.
#[track_caller]
fn ends_as_it_was_written(cluster: &Cluster, slot: u32, ending: &Ending, leave: impl FnOnce(&Cluster)) {
    let worker = cluster.worker(slot);
    let others = cluster.pids().len();
    // It may have served before; what it did then is over.
    let of_worker = || endings(cluster).remove(&worker.pid()).unwrap_or_default();
    until("nobody is at work", || endings(cluster).values().all(|lines| lines.len() % 2 == 0).then_some(()));
    let before_that = of_worker().len();
    let handed = cluster.metrics().handed().values().sum::<u64>();
    // Workers take turns.
    let held: Vec<_> = (0..others).map(|_| cluster.send("/")).collect();
    cluster.handed(handed + others as u64);
    let before = cluster.stderr.messages("worker draining").len();
    leave(cluster);
    until("it drains", || (cluster.stderr.messages("worker draining").len() > before).then_some(()));
    assert_eq!(of_worker().len(), before_that, "nobody is asked to leave while it has a client");
    cluster.open_gate("gate");
    for request in held {
        assert_eq!(request.response().expect("an open request is answered").status, 200);
    }
    until("it has ended", || (!worker.is_alive()).then_some(()));
    assert_eq!(
        of_worker()[before_that..],
        *ending.written,
        "{}: its own ending has run to its end",
        ending.name
    );
    fs::remove_file(cluster.folder().join("gate")).expect("it was opened");
}

/// A reload, fewer workers, and a stop.
#[track_caller]
fn every_end_is_its_own(program: &str, ending: &Ending) {
    let mut cluster = app(program, ending).start();
    let old = cluster.worker(1).pid();
    ends_as_it_was_written(&cluster, 1, ending, |cluster| cluster.primary().signal(Signal::HUP));
    until("it is replaced", || {
        let pids = cluster.pids();
        (pids.len() == 1 && !pids.contains(&old)).then_some(())
    });
    cluster.wait_for(1, "online");
    cluster.primary().signal(Signal::TTIN);
    cluster.wait_for(2, "online");
    ends_as_it_was_written(&cluster, 2, ending, |cluster| cluster.primary().signal(Signal::TTOU));
    ends_as_it_was_written(&cluster, 1, ending, |cluster| cluster.primary().signal(Signal::TERM));
    cluster.wait_success();
    let text = cluster.stderr.text();
    assert!(!text.contains("was killed by"), "nobody was ended from outside:\n{text}");
}

#[track_caller]
fn with_every_node(ending: &Ending) {
    for node in needs::nodes() {
        every_end_is_its_own(&node.display().to_string(), ending);
    }
}

#[test]
fn a_handler_of_the_stop_signal_runs_to_its_end() {
    with_every_node(&SIGNAL);
}

#[test]
fn a_handler_of_disconnect_runs_to_its_end() {
    with_every_node(&DISCONNECT);
}

#[test]
fn with_both_handlers_that_of_the_signal_runs_to_its_end() {
    with_every_node(&BOTH);
}

#[test]
fn work_that_is_left_after_the_last_answer_is_finished() {
    with_every_node(&WORK);
}

#[test]
fn the_ends_of_apps_of_deno_are_their_own() {
    needs!("deno");
    // Nobody knows what its apps handle: with its server closed, one with a handler has nothing to wait for.
    for ending in [&DISCONNECT, &WORK] {
        every_end_is_its_own("deno run -A", ending);
    }
}

#[test]
fn an_app_that_was_written_for_pm2_handles_int_or_a_message() {
    needs!("node");
    every_end_is_its_own("node", &Ending { signal: "SIGINT", ..SIGNAL });
    every_end_is_its_own("node", &Ending { signal: "SIGINT", options: "--stop-signal INT", ..SIGNAL });
    let written = &["message begins", "message ends"];
    let options = "--shutdown-with-message";
    every_end_is_its_own("node", &Ending { name: "message", options, written, ..SIGNAL });
}

/// Its handler has nothing to do but to close the server, as in the documentation of Express.
#[test]
fn a_handler_that_leaves_the_rest_to_the_event_loop_is_not_killed() {
    needs!("node");
    every_end_is_its_own("node", &Ending { name: "closes", kill: "2s", ..SIGNAL });
}

/// Without the shim nobody knows what an app handles. It is asked to disconnect, and gets the signal much later.
#[test]
fn without_the_shim_an_app_has_the_time_that_it_needs_after_disconnect() {
    needs!("node");
    for ending in [&DISCONNECT, &WORK] {
        every_end_is_its_own("node", &Ending { options: "--attach node", ..*ending });
    }
}

#[test]
fn at_the_beginning_of_the_drain_a_handler_gets_the_signal_and_one_without_does_not() {
    needs!("node");
    let options = "--drain-timeout 10m --kill-timeout 10m --stop-signal-at drain";
    let mut cluster =
        Cluster::of("node {fixtures}/node/ending.cjs").env("ENDING", "closes").options(options).start();
    let held = cluster.send("/");
    cluster.handed(1);
    let pid = cluster.worker(1).pid();
    cluster.primary().signal(Signal::TERM);
    until("its handler has run", || endings(&cluster).contains_key(&pid).then_some(()));
    cluster.open_gate("gate");
    assert_eq!(held.response().expect("an open request is answered").status, 200);
    cluster.wait_success();
    assert_eq!(endings(&cluster)[&pid], SIGNAL_ENDS);

    every_end_is_its_own("node", &Ending { options: "--stop-signal-at drain", ..WORK });
}
