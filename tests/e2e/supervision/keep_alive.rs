//! Clients that keep their connections while the workers behind them are replaced.

use std::time::{Duration, Instant};

use super::{App, tests};
use crate::harness::http::Kept;
use crate::harness::needs::needs;
use crate::harness::{Cluster, Load};

tests!([node, newconn] kept_connections_are_closed_between_two_requests);

const RELOADS: usize = 3;

/// Node closes them when it is asked to disconnect; clients open others, and notice nothing else.
fn kept_connections_are_closed_between_two_requests(app: App) {
    let cluster = app.setup().workers(2).env("KEEP_ALIVE", "1").start();
    let load = Load::of_kept_connections(&cluster);
    for _ in 0..RELOADS {
        cluster.reload().expect("the new version works");
        load.goes_on();
    }
    load.lost_nothing();
}

/// Another server knows nothing of its leave, and keeps an idle connection until the drain timeout ends it.
#[test]
fn an_idle_connection_of_any_server_is_kept_until_the_drain_timeout() {
    needs!("python3");
    const DRAIN: Duration = Duration::from_secs(1);
    let setup = App::Python.setup().env("SERVER_KEEP_ALIVE", "1").options("--drain-timeout 1s");
    let cluster = setup.start();
    let mut client = Kept::new(cluster.address());
    let old = asked_twice(&cluster, &mut client);

    let begin = Instant::now();
    cluster.reload().expect("the new version works");
    assert!(begin.elapsed() >= DRAIN, "the old worker had {:?} with its client", begin.elapsed());
    assert_ne!(asked_twice(&cluster, &mut client), old);
    assert_eq!(client.opened(), 2, "a connection for each worker");
}

fn asked_twice(cluster: &Cluster, client: &mut Kept) -> String {
    let mut ask = || client.get("/").expect("an answer").text();
    let answer = ask();
    assert_eq!(answer, format!("worker 1 pid {}", cluster.worker(1).pid()));
    assert_eq!(ask(), answer, "the connection is kept");
    answer
}
