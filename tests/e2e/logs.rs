//! What workers and clusterd itself write.

use std::collections::BTreeMap;

use crate::harness::needs::needs;
use crate::harness::{Cluster, Signal, until};

#[test]
fn without_a_terminal_lines_of_workers_pass_unchanged_and_whole() {
    needs!("perl");
    const LINES: usize = 300;
    // Each line is written in three pieces, so that pieces of different workers interleave unless they are joined.
    let script = "$| = 1; for (1..300) { print 'begin-'; print $ENV{CLUSTERD_WORKER_ID} x 50; print qq(-end\\n); } \
                  sleep 1000";
    let cluster = Cluster::of("perl -e").arg(script).workers(3).launch();
    let lines =
        until("every line came", || Some(cluster.stdout.lines()).filter(|lines| lines.len() >= 3 * LINES));
    let mut counts = BTreeMap::<String, usize>::new();
    for line in lines {
        *counts.entry(line).or_default() += 1;
    }
    let whole = ["1", "2", "3"].map(|worker| (format!("begin-{}-end", worker.repeat(50)), LINES));
    assert_eq!(counts, BTreeMap::from(whole));
}

#[test]
fn standard_error_of_a_worker_stays_apart_from_its_standard_output() {
    let cluster = Cluster::of("sh -c").arg("echo to-out; echo to-err >&2; sleep 1000").launch();
    until("both lines came", || {
        let (out, err) = (cluster.stdout.lines(), cluster.stderr.lines());
        (out.contains(&"to-out".to_owned()) && err.contains(&"to-err".to_owned())).then_some(())
    });
    assert!(!cluster.stdout.text().contains("to-err"));
}

#[test]
fn on_a_terminal_lines_of_workers_bear_their_number() {
    needs!("script");
    let script = "echo worker-$CLUSTERD_WORKER_ID; sleep 1000";
    let terminal = Cluster::of("sh -c").arg(script).workers(2).on_a_terminal();
    for worker in ["1", "2"] {
        let line = until("a line of the worker came", || {
            let lines = terminal.stdout.lines();
            lines.into_iter().find(|line| line.contains(&format!("worker-{worker}")))
        });
        let plain = without_colour(&line);
        assert!(plain.starts_with(&format!("{worker} | worker-")), "{line:?}");
    }
}

/// The numbers of a coloured dump are yellow.
const DUMP: &str = "console.log({ answer: 42 }); setInterval(() => {}, 1000)";

#[test]
fn on_a_terminal_workers_write_colours() {
    needs!("script", "node");
    for (said, expected) in [(&[][..], true), (&[("NO_COLOR", "1")], false), (&[("FORCE_COLOR", "0")], false)]
    {
        let setup = Cluster::of("node -e").arg(DUMP).env("TERM", "xterm");
        let terminal =
            said.iter().fold(setup, |setup, (name, value)| setup.env(name, *value)).on_a_terminal();
        let line = until("the dump came", || {
            terminal.stdout.lines().into_iter().find(|line| line.contains("answer"))
        });
        assert_eq!(line.contains("\x1b[33m42"), expected, "{said:?}: {line:?}");
    }
}

#[test]
fn without_a_terminal_workers_write_no_colours() {
    needs!("node");
    let cluster = Cluster::of("node -e").arg(DUMP).env("TERM", "xterm").launch();
    let line =
        until("the dump came", || cluster.stdout.lines().into_iter().find(|line| line.contains("answer")));
    assert_eq!(line, "{ answer: 42 }");
}

fn without_colour(line: &str) -> String {
    let mut pieces = line.split('\x1b');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |plain, piece| plain + piece.split_once('m').map_or("", |(_, text)| text))
}

#[test]
fn json_messages_are_an_object_a_line() {
    let cluster = Cluster::demo().workers(2).start();
    let lines = cluster.stderr.lines();
    assert!(!lines.is_empty());
    for line in lines {
        let message: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("JSON: {line}"));
        for field in ["timestamp", "level", "message"] {
            assert!(message[field].is_string(), "{field} of {line}");
        }
    }
    assert!(cluster.stdout.lines().is_empty(), "messages of clusterd go to standard error");
}

#[test]
fn output_that_nobody_reads_holds_up_who_writes_it_and_nobody_else() {
    needs!("python3");
    let script = "yes flood & exec python3 {fixtures}/server.py";
    let mut cluster = Cluster::of("sh -c").arg(script).workers(2).nobody_reads_stdout().start();
    for _ in 0..20 {
        cluster.get("/");
    }
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
}
