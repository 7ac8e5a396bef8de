//! Workers that end or do not come up: when they are started again, and when they are given up.

use crate::harness::needs::needs;
use crate::harness::{Cluster, Signal};

fn starts(cluster: &Cluster, worker: u64) -> usize {
    let started = cluster.stderr.messages("worker started");
    started.iter().filter(|message| message["worker"] == worker).count()
}

#[test]
fn when_every_worker_has_failed_too_often_clusterd_ends_with_its_code() {
    let setup = Cluster::of("sh -c").arg("echo there is no database >&2; exit 7").workers(2);
    let ended = setup.options("--max-restarts 2").run();
    assert_eq!(ended.status.code(), Some(7), "{}", ended.stderr);
    for worker in [1, 2] {
        let started = format!(r#""message":"worker started","worker":{worker}"#);
        assert_eq!(ended.stderr.matches(&started).count(), 3, "{}", ended.stderr);
    }
    assert_eq!(ended.stderr.matches("restarting in").count(), 2 * 2, "{}", ended.stderr);
    let given_up = "giving it up; its last lines: there is no database";
    assert_eq!(ended.stderr.matches(given_up).count(), 2, "{}", ended.stderr);
}

#[test]
fn a_worker_that_is_not_ready_in_time_has_failed() {
    let setup = Cluster::of("sleep 1000").options("--ready-timeout 100ms --max-restarts 1");
    let ended = setup.run();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    let said = "worker was not ready within 100ms";
    for message in
        [format!("{said}; stopping it"), format!("{said}; restarting"), format!("{said}; giving it up")]
    {
        assert!(ended.stderr.contains(&message), "{message} in {}", ended.stderr);
    }
}

#[test]
fn a_worker_that_is_given_up_is_shown_and_a_reload_brings_it_back() {
    needs!("python3");
    let script = "[ $CLUSTERD_WORKER_ID = 1 ] || [ -e fixed ] || exit 7; exec python3 {fixtures}/server.py";
    let setup = Cluster::of("sh -c").arg(script).workers(2).options("--max-restarts 1 --min-uptime 100ms");
    let cluster = setup.launch();
    cluster.wait_for(1, "errored");
    cluster.wait_for(1, "online");
    assert_eq!(starts(&cluster, 2), 2);
    assert!(cluster.get("/").starts_with("worker 1 "), "the other one serves");
    cluster.open_gate("fixed");
    cluster.reload().expect("the new workers come up");
    cluster.wait_for(2, "online");
    cluster.wait_for(0, "errored");
}

#[test]
fn a_worker_that_ends_with_a_code_that_is_meant_is_not_started_again() {
    needs!("python3");
    let script = "[ $CLUSTERD_WORKER_ID = 1 ] || exit 42; exec python3 {fixtures}/server.py";
    let mut cluster = Cluster::of("sh -c")
        .arg(script)
        .workers(2)
        .options("--stop-exit-codes 0 --stop-exit-codes 42")
        .launch();
    cluster.wait_for(1, "stopped");
    cluster.wait_for(1, "online");
    assert_eq!(starts(&cluster, 2), 1);
    assert_eq!(cluster.get("/last/0").split(' ').next(), Some("worker"));
    cluster.wait_exit_code(42);
}

#[test]
fn without_autorestart_a_worker_that_ends_stays_so_and_the_last_one_ends_clusterd() {
    needs!("python3");
    let mut cluster = Cluster::of_servers().workers(2).options("--no-autorestart").start();
    cluster.get("/last/0");
    cluster.wait_for(1, "stopped");
    cluster.get("/last/5");
    cluster.wait_exit_code(5);
    assert_eq!(cluster.stderr.messages("worker started").len(), 2);
}

#[test]
fn a_worker_is_started_again_after_the_delay_that_was_asked_for() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).options("--restart-delay 1h --min-uptime 1ms").start();
    cluster.worker(1).signal(Signal::KILL);
    cluster.wait_for(1, "waiting_restart");
    assert!(cluster.get("/").starts_with("worker 2 "), "the other one serves");
    // A command does not wait.
    cluster.say("restart --worker 1").done();
    cluster.wait_for(2, "online");
}
