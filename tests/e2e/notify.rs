//! `--wait-ready` for servers that speak systemd's language: READY=1 to the socket that NOTIFY_SOCKET names.

use crate::harness::needs::{self, needs};
use crate::harness::setup::Setup;
use crate::harness::{Cluster, NOBODY, until};

/// A server that listens at once, and says by this command that it is ready once there is a gate.
fn server(says: &str) -> Setup {
    let wait = "python3 {fixtures}/server.py & until [ -e gate ]; do sleep 0.05; done;";
    Cluster::of("sh -c").arg(&format!("{wait} {says}; wait")).options("--wait-ready")
}

#[track_caller]
fn is_served_once_it_has_said_so(setup: Setup) {
    let cluster = setup.launch();
    until("the worker listens", || cluster.stderr.messages("worker listens").pop());
    let waiting = cluster.send("/");
    assert_eq!(cluster.probe("/readyz").status, 503);
    assert_eq!(cluster.metrics().count("clusterd_workers", &[("state", "online")]), 0);
    assert!(cluster.metrics().handed().values().all(|&handed| handed == 0));
    cluster.open_gate("gate");
    assert!(waiting.response().expect("it is served").text().starts_with("worker 1"));
    cluster.wait_online();
}

#[test]
fn a_worker_is_served_once_it_has_said_that_it_is_ready() {
    needs!("python3");
    is_served_once_it_has_said_so(server("python3 {fixtures}/notify.py READY=1"));
}

#[test]
fn a_process_that_is_gone_when_it_is_heard_counts() {
    needs!("python3", "systemd-notify");
    is_served_once_it_has_said_so(server("systemd-notify --ready --status='all is well'"));
}

#[test]
fn without_a_folder_it_is_said_at_an_abstract_name() {
    needs!("python3", "unshare");
    if !needs::root() {
        return;
    }
    let read_only = "mount --bind /tmp /tmp && mount -o remount,bind,ro /tmp && \
                     mount -t tmpfs -o ro tmpfs /run && mount -t tmpfs -o ro tmpfs /dev/shm && exec \"$@\"";
    let setup = server("case $NOTIFY_SOCKET in @*) python3 {fixtures}/notify.py READY=1;; esac");
    let namespace = ["unshare", "--mount", "--propagation", "private", "sh", "-c", read_only, "sh"];
    is_served_once_it_has_said_so(setup.env("TMPDIR", "/tmp").under(&namespace));
}

#[test]
fn a_worker_that_has_become_another_user_is_heard() {
    needs!("python3", "perl", "setpriv");
    if !needs::root() {
        return;
    }
    let says = "exec setpriv --reuid=65534 --regid=65534 --clear-groups perl -MIO::Socket::UNIX -e \
                '$s = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Peer => $ENV{NOTIFY_SOCKET}); \
                $s->send(\"READY=1\"); sleep 60'";
    is_served_once_it_has_said_so(server(says));
}

#[test]
fn other_words_and_strangers_of_another_user_change_nothing() {
    needs!("python3", "setpriv", "systemd-notify");
    if !needs::root() {
        return;
    }
    let says = "python3 {fixtures}/notify.py STATUS=READY=1; \
                until [ -e end ]; do sleep 0.05; done; python3 {fixtures}/notify.py READY=1";
    let cluster = server(says).options("--log-level debug").launch();
    cluster.open_gate("gate");
    let place = until("the worker has its socket", || {
        cluster.workers().first().and_then(|worker| worker.environment("NOTIFY_SOCKET"))
    });
    let mut stranger = std::process::Command::new(NOBODY[0]);
    stranger.args(&NOBODY[1..]).args(["systemd-notify", "--no-block", "--ready"]).env("NOTIFY_SOCKET", place);
    assert!(stranger.status().expect("it can be started").success());
    for heard in ["a notification was not read", "worker status"] {
        until(heard, || cluster.stderr.messages(heard).pop());
    }
    assert_eq!(cluster.metrics().count("clusterd_workers", &[("state", "online")]), 0);
    cluster.open_gate("end");
    cluster.wait_online();
}

#[test]
fn without_wait_ready_workers_are_told_of_no_socket_not_even_of_clusterds_own() {
    needs!("python3");
    let setup = Cluster::of_servers();
    let manager = setup.folder.path().join("manager");
    let cluster = setup.env("NOTIFY_SOCKET", manager).env("WATCHDOG_USEC", "1000000").start();
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC"] {
        assert_eq!(cluster.get(&format!("/env/{name}")), "", "{name}");
    }
}
