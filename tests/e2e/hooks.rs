//! `--on-event`: a command for each event, which nobody waits for.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::needs::needs;
use crate::harness::{Cluster, Signal, until};
use crate::shutdown::nothing_is_left;

fn with_hook(command: &str) -> crate::harness::setup::Setup {
    Cluster::demo().env("CLUSTERD_ON_EVENT", command)
}

/// The events that a hook has written to `events`, in the order of their time.
fn events(cluster: &Cluster) -> Vec<Value> {
    let text = fs::read_to_string(cluster.folder().join("events")).unwrap_or_default();
    let mut events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    events.sort_by_key(|event| event["time"].as_str().expect("a time").to_owned());
    events
}

#[test]
fn each_event_is_told_up_to_the_last() {
    let mut cluster = with_hook("cat >>events").options("--name web").workers(2).start();
    let pid = cluster.worker(1).pid();
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
    let events = events(&cluster);
    let of = |name: &str| events.iter().filter(|event| event["event"] == name).collect::<Vec<_>>();
    for name in ["worker-started", "worker-listens", "worker-online", "worker-draining", "worker-ended"] {
        assert_eq!(of(name).len(), 2, "{name}: {events:#?}");
    }
    assert_eq!(of("stopping").len(), 1);
    assert_eq!(of("stopping")[0]["by"], "SIGTERM");
    assert!(events.iter().all(|event| event["app"] == "web"));
    assert!(of("worker-started").iter().any(|event| event["worker"] == 1 && event["pid"] == pid));
}

#[test]
fn a_hook_knows_its_event_inherits_nothing_and_is_heard() {
    let script = "echo \"$CLUSTERD_EVENT $CLUSTERD_WORKER ${CLUSTERD_ON_EVENT-unset} ${NOTIFY_SOCKET-unset}\"; \
                  for fd in 3 4 5 6 7 8 9; do [ ! -e /proc/$$/fd/$fd ] || echo inherits $fd; done; echo oh >&2";
    let setup = with_hook(script);
    let manager = setup.folder.path().join("nobody");
    let cluster = setup.env("NOTIFY_SOCKET", manager).start();
    let said = |message: &str, level: &str| {
        until(&format!("the log has {message:?}"), || {
            let messages = cluster.stderr.messages(message);
            messages.iter().any(|message| message["level"] == level).then_some(())
        });
    };
    said("hook: worker-online 1 unset unset", "INFO");
    said("hook: oh", "WARN");
    assert!(!cluster.stderr.text().contains("hook: inherits"), "{}", cluster.stderr.text());
    let primary = cluster.primary();
    until("every hook was waited for", || {
        (primary.zombies() == 0 && primary.children().len() == 2).then_some(())
    });
}

#[test]
fn a_hook_that_hangs_holds_up_neither_connections_nor_the_end() {
    needs!("python3");
    let mut cluster = Cluster::of_servers()
        .env("CLUSTERD_ON_EVENT", "sleep 1000 & sleep 1001")
        .options("--drain-timeout 60s")
        .workers(3)
        .start();
    for _ in 0..10 {
        cluster.get("/");
    }
    let processes = cluster.processes();
    let begin = Instant::now();
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    nothing_is_left(&cluster, &processes);
}

#[test]
fn too_many_events_for_a_slow_hook_are_dropped_and_counted() {
    let cluster = with_hook("sleep 1000").workers(40).start();
    let dropped = || cluster.metrics().count("clusterd_hooks_total", &[("result", "dropped")]);
    // Three events each, of which 4 are told at once and 64 wait.
    until("they are counted", || (dropped() == 40 * 3 - 4 - 64).then_some(()));
    until("it is said", || {
        cluster
            .stderr
            .text()
            .contains("events dropped: the commands of --on-event are too slow")
            .then_some(())
    });
}
