//! Workers that accept by themselves are killed again and again: who had no answer had been accepted by a killed worker, or
//! is counted as lost.
//!
//! What a worker has accepted is what it holds when it is killed: it is stopped just before, so that its descriptors can be
//! read, and for a while, so that clients wait in its backlog.

use std::fs;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::clients::Clients;
use super::faults::{Fault, Faults};
use super::ledger::{self, Kill, Outcome, Request, judge, unexplained};
use super::{CLIENTS, EndOfClients, REST, Server, WORKERS, duration, ledgers, run, seeded, settle, start};
use crate::harness::needs::needs;
use crate::harness::ports::free_port;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, Signal, network, until};

/// How many workers are killed at least.
const KILLS: usize = 30;
/// How long a worker is stopped at most before it is killed: it may be left out by then, or not yet.
const LONGEST_STOP: Duration = Duration::from_millis(60);
/// Workers that lived for so many seconds are started again at once.
const MIN_UPTIME: f64 = 0.05;

/// How the server comes to accept by itself.
fn accepting(server: Server) -> Setup {
    let setup = server.setup().options("--min-uptime 50ms --max-restarts 1000");
    match server {
        // Its calls are intercepted.
        Server::Go => setup,
        // By the shim; clients come to the port that it binds.
        Server::C | Server::Node | Server::Python => {
            let port = free_port();
            setup.port(&port.to_string()).worker_port(port).options("--accept workers")
        }
    }
}

/// How many connections clusterd says that it has lost.
fn counted(cluster: &Cluster) -> usize {
    let lost = cluster.metrics().count("clusterd_connections_rejected_total", &[("reason", "backlog")]);
    usize::try_from(lost).expect("few")
}

/// Kills workers under load. None is lost, even though none is passed on.
fn storm(server: Server, options: &str) {
    let mut random = seeded(&format!("a storm over {server:?}"));
    let cluster = start(accepting(server).options(options));
    let clients = Clients::of(cluster.address(), true, REST);
    let faults = Faults::new(&cluster, &[Fault::Kill], LONGEST_STOP, random.fork()).with_lifetime(MIN_UPTIME);
    let end = Instant::now() + duration();
    let is_enough = |faults: &Faults<'_>| faults.kills.len() >= KILLS && Instant::now() >= end;
    let (requests, kills) = run(&clients, faults, &mut random, &|_, faults| is_enough(faults));
    settle(&cluster);
    let lost = lost(&cluster, &requests, &kills);
    assert!(kills.iter().any(|kill| !kill.taken.is_empty()), "nobody was killed who had accepted something");
    assert_eq!((lost, counted(&cluster)), (0, 0), "as many are lost as clusterd counts, and these are none");
}

/// How many were lost that no worker had accepted; nothing else is wrong.
fn lost(cluster: &Cluster, requests: &[Request], kills: &[Kill]) -> usize {
    let notes = ledger::read(&ledgers(cluster)).expect("the ledgers can be read");
    let unexplained = unexplained(requests, kills, &notes);
    let wrong = judge(requests, kills, &notes);
    let of =
        |outcome: fn(&Outcome) -> bool| requests.iter().filter(|request| outcome(&request.outcome)).count();
    let answered = of(|outcome| matches!(outcome, Outcome::Answered(_)));
    let failed = of(|outcome| matches!(outcome, Outcome::Lost(_)));
    println!(
        "{answered} answered, {failed} not, {} of these not accepted, {} kills",
        unexplained.len(),
        kills.len()
    );
    assert!(answered > 0, "nobody was answered");
    assert_eq!(wrong.len(), unexplained.len(), "{}", wrong.join("\n"));
    unexplained.len()
}

#[test]
fn a_storm_over_a_c_server_loses_only_what_was_accepted() {
    needs!("gcc");
    storm(Server::C, "");
}

#[test]
fn a_storm_over_a_go_server_loses_only_what_was_accepted() {
    needs!("go");
    storm(Server::Go, "");
}

#[test]
fn a_storm_loses_only_what_was_accepted_where_the_kernel_passes_connections_on() {
    needs!("gcc", "go", "unshare", "ip");
    network::run_in_its_own("campaign::storm::in_its_own_network");
}

#[test]
#[ignore = "changes its network's settings; run by a_storm_loses_only_what_was_accepted_where_the_kernel_passes_connections_on"]
fn in_its_own_network() {
    for server in [Server::C, Server::Go] {
        storm(server, "--tcp-migrate");
    }
}

#[test]
fn what_a_worker_without_a_successor_leaves_is_counted_as_lost() {
    needs!("gcc");
    if fs::read_to_string("/proc/sys/net/ipv4/tcp_migrate_req").is_ok_and(|value| value.trim() != "0") {
        println!("skipped: the kernel passes connections on");
        return;
    }
    let mut random = seeded("no successor");
    let cluster = start(accepting(Server::C).options("--drain-timeout 1s --kill-timeout 1s"));
    let clients = Clients::of(cluster.address(), true, REST);
    let (requests, kill) = thread::scope(|scope| {
        let _end = EndOfClients(&clients.over);
        let running: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (random, clients) = (random.fork(), &clients);
                scope.spawn(move || clients.run(&client.to_string(), random))
            })
            .collect();
        let worker = cluster.worker(WORKERS);
        worker.signal(Signal::STOP);
        until("it is stopped", || worker.is_stopped().then_some(()));
        until("the others get its share", || {
            cluster.stderr.text().contains("took no connection in time").then_some(())
        });
        let kill = Kill { pid: worker.pid(), at: Instant::now(), taken: worker.peers() };
        let less = WORKERS - 1;
        assert_eq!(cluster.say(&format!("scale {less}")).code, 0);
        until("it is killed", || (!worker.is_alive()).then_some(()));
        until("what it has left is lost", || (counted(&cluster) > 0).then_some(()));
        clients.over.store(true, Ordering::Relaxed);
        let requests: Vec<_> =
            running.into_iter().flat_map(|client| client.join().expect("no client panics")).collect();
        (requests, kill)
    });
    let lost = lost(&cluster, &requests, &[kill]);
    assert_eq!(lost, counted(&cluster));
}
