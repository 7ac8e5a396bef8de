//! Workers that are stopped, continued and killed over and over under load: no connection that a worker had not taken
//! is lost.
//!
//! An ordinary run makes 3,000 connections; `CLUSTERD_TEST_STORM=30000` makes as many as the promise is about.

use std::collections::BTreeSet;
use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::{Attach, app, both_ways};
use crate::handoff::stop;
use crate::harness::{Cluster, Signal, http, until};

both_ways!(no_untaken_connection_is_lost);

const WORKERS: u32 = 4;
const CLIENTS: usize = 16;
/// The least of kills, however fast the connections are, and one for so many connections.
const KILLS: u64 = 12;
const CONNECTIONS_A_KILL: u64 = 1_000;
/// A worker that lived for so long is started again at once, and the storm goes on.
const LIFETIME: f64 = 1.1;

/// What is going on.
struct Storm {
    cluster: Cluster,
    served: AtomicU64,
    /// The clients' ports of connections without an answer.
    lost: Mutex<BTreeSet<u16>>,
    over: AtomicBool,
}

fn no_untaken_connection_is_lost(attach: Attach) {
    let connections = env::var("CLUSTERD_TEST_STORM").map_or(3_000, |text| text.parse().expect("a number"));
    let cluster = app(attach).workers(WORKERS).options("--handoff-timeout 100ms").start();
    let (served, lost, over) = (AtomicU64::new(0), Mutex::default(), AtomicBool::new(false));
    let storm = Storm { cluster, served, lost, over };
    let begin = Instant::now();
    let (mut taken, mut kills, enough) = (BTreeSet::new(), 0, KILLS.max(connections / CONNECTIONS_A_KILL));
    thread::scope(|scope| {
        let _end = EndOfStorm(&storm);
        for _ in 0..CLIENTS {
            scope.spawn(|| storm.client());
        }
        while kills < enough || storm.served.load(Ordering::Relaxed) < connections {
            storm.stop_and_continue(kills as u32 % WORKERS + 1);
            taken.extend(storm.kill(kills as u32 / 2 % WORKERS + 1));
            kills += 1;
        }
    });
    let lost = storm.lost.into_inner().expect("no client panicked");
    let (served, elapsed) = (storm.served.into_inner(), begin.elapsed());
    println!("{attach:?}: {served} served, {kills} kills, {} lost, {elapsed:?}", lost.len());
    let untaken: Vec<_> = lost.difference(&taken).collect();
    assert!(untaken.is_empty(), "{untaken:?} of {lost:?} were never taken by a killed worker; {kills} kills");
    assert!(elapsed < Duration::from_secs(60), "it took {elapsed:?}");
    let redispatched = storm.cluster.metrics().count("clusterd_connections_redispatched_total", &[]);
    assert!(redispatched > 0, "no worker was stopped or killed before it had taken a connection");
}

/// Ends the clients, also when the test fails.
struct EndOfStorm<'a>(&'a Storm);

impl Drop for EndOfStorm<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

impl Storm {
    /// Connects again and again.
    fn client(&self) {
        while !self.over.load(Ordering::Relaxed) {
            let stream = self.cluster.connect().expect("the cluster accepts");
            let port = stream.local_addr().expect("a connected socket has an address").port();
            // No socket stays behind in TIME_WAIT: they would be as many as the connections.
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket can linger");
            let answer = http::send_on(stream, "GET", "/").and_then(http::Pending::response);
            match answer {
                Ok(answer) if answer.status == 200 => {
                    self.served.fetch_add(1, Ordering::Relaxed);
                }
                _ => {
                    self.lost.lock().expect("no client panicked").insert(port);
                }
            }
        }
    }

    fn others_go_on(&self) {
        let before = self.served.load(Ordering::Relaxed);
        until("the others serve on", || (self.served.load(Ordering::Relaxed) > before + 50).then_some(()));
    }

    fn stop_and_continue(&self, slot: u32) {
        let worker = self.cluster.worker(slot);
        stop(&worker);
        self.others_go_on();
        worker.signal(Signal::CONT);
    }

    /// Kills a worker, and returns the clients' ports of the connections that it had taken.
    fn kill(&self, slot: u32) -> BTreeSet<u16> {
        let worker = self.cluster.worker(slot);
        until("the worker has run well", || (worker.age()? > LIFETIME).then_some(()));
        stop(&worker);
        self.others_go_on();
        let taken = worker.clients();
        worker.signal(Signal::KILL);
        until("it is gone", || (!worker.is_alive()).then_some(()));
        taken
    }
}
