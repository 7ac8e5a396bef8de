//! Clients that keep their connections while the workers behind them are replaced.

use std::time::{Duration, Instant};

use super::App;
use crate::harness::Load;
use crate::harness::http::Kept;
use crate::harness::needs::needs;

/// Node closes kept connections between two requests when it is asked to disconnect.
fn kept_connections_of_node_survive_reloads(app: App) {
    let cluster = app.setup().workers(2).env("KEEP_ALIVE", "1").start();
    let load = Load::of_kept_connections(&cluster);
    for _ in 0..3 {
        let begin = Instant::now();
        cluster.reload().expect("the new version works");
        load.goes_on();
        println!("{app:?}: {:?}", begin.elapsed());
    }
    load.lost_nothing();
}

#[test]
fn kept_connections_of_node() {
    needs!("node");
    kept_connections_of_node_survive_reloads(App::Node);
}

#[test]
fn kept_connections_of_node_without_the_shim() {
    needs!("node");
    kept_connections_of_node_survive_reloads(App::Newconn);
}

/// A server that knows nothing of its leave keeps an idle connection, until the drain timeout ends it.
#[test]
fn an_idle_connection_of_any_server_is_kept_until_the_drain_timeout() {
    needs!("python3");
    const DRAIN: Duration = Duration::from_secs(1);
    let setup = App::Python.setup().env("SERVER_KEEP_ALIVE", "1").options("--drain-timeout 1s");
    let cluster = setup.start();
    let mut client = Kept::new(cluster.address());
    let old = client.get("/").expect("an answer").text();
    assert_eq!(client.get("/").expect("another answer").text(), old);
    assert_eq!(client.opened(), 1, "the connection is kept");

    let begin = Instant::now();
    cluster.reload().expect("the new version works");
    assert!(
        begin.elapsed() >= DRAIN,
        "the old worker was left alone with its client for {:?}",
        begin.elapsed()
    );
    let new = client.get("/").expect("an answer on a new connection").text();
    assert_ne!(new, old);
    assert_eq!(client.opened(), 2);
}
