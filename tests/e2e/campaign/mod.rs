//! The fault campaign: whatever happens to workers, primary and clients, each request is served once, and each that is
//! not was lost with the killed worker that had taken it.
//!
//! An ordinary run takes some seconds for each server. `CLUSTERD_TEST_CAMPAIGN=10m` takes that long for each, and
//! `CLUSTERD_TEST_LEDGER=100000` makes as many connections while workers stop and go on. `CLUSTERD_TEST_SEED`, with the
//! number that a run has printed, makes the same choices again; what comes of them is up to the machine.

mod clients;
mod faults;
mod ledger;
mod storm;

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use self::clients::Clients;
use self::faults::{Fault, Faults, is_reloading};
use self::ledger::{Kill, Outcome, Request, judge};
use crate::harness::needs::needs;
use crate::harness::process::Process;
use crate::harness::setup::Setup;
use crate::harness::wait::PATIENCE;
use crate::harness::{Cluster, Signal, build, until};

const WORKERS: u32 = 4;
const CLIENTS: usize = 6;
/// How long a campaign against one server takes, unless it is told.
const USUALLY: Duration = Duration::from_secs(8);
/// So many rounds has a long one: each has a cluster and options of its own.
const ROUNDS: u32 = 8;
const REST: Duration = Duration::from_millis(4);
const LONGEST_FAULT: Duration = Duration::from_millis(500);
/// How many connections the ledger test makes.
const CONNECTIONS: u64 = 2_000;
/// How much memory the primary may keep of what it needed meanwhile: its allocator does not give all back.
const KEPT_BYTES: u64 = 12 << 20;

/// Threads that look into /proc, and what they have open for that, come and go at any time. What is left behind by faults
/// is more: there are dozens of them.
const COME_AND_GO: usize = 2;

/// A server that keeps a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    C,
    Go,
    Node,
    Python,
}

impl Server {
    fn setup(self) -> Setup {
        match self {
            Server::C => {
                Cluster::of(&build::program("ledger-server", "ledger/server.c", &["gcc", "-O1", "-Wall"]))
            }
            Server::Go => Cluster::of(&build::go("ledger-server-in-go", "ledger/server.go")),
            Server::Node => Cluster::of("node {fixtures}/ledger/server.js"),
            Server::Python => Cluster::of("python3 {fixtures}/ledger/server.py"),
        }
    }
}

/// What becomes of the cluster's standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stdout {
    Read,
    /// A pipe that nobody reads.
    Blocked,
    /// A full disk.
    Full,
}

#[test]
fn a_campaign_against_c_loses_only_what_was_killed() {
    needs!("gcc");
    campaign(Server::C);
}

#[test]
fn a_campaign_against_node_loses_only_what_was_killed() {
    needs!("node");
    campaign(Server::Node);
}

#[test]
fn a_campaign_against_python_loses_only_what_was_killed() {
    needs!("python3");
    campaign(Server::Python);
}

#[test]
fn no_connection_is_served_twice_or_lost_while_workers_stop_and_go_on() {
    needs!("python3");
    let connections = number("CLUSTERD_TEST_LEDGER").unwrap_or(CONNECTIONS);
    let mut random = seeded("ledger");
    let cluster = start(Server::Python.setup().options("--handoff-timeout 100ms --redispatch-after 5ms"));
    let clients = Clients::of(cluster.address(), true, Duration::ZERO);
    let faults = Faults::new(&cluster, &[Fault::Stop], Duration::from_millis(150), random.fork());
    let (requests, kills) = run(&clients, faults, &mut random, &|clients, _| {
        clients.answered.load(Ordering::Relaxed) >= connections
    });
    settle(&cluster);
    assert_eq!(kills.len(), 0);
    check(&cluster, &requests, &kills);
    let lost: Vec<_> =
        requests.iter().filter(|request| !matches!(request.outcome, Outcome::Answered(_))).collect();
    assert!(lost.is_empty(), "nobody was killed, and these have no answer: {lost:?}");
    let late = cluster.metrics().count("clusterd_worker_late_connections_total", &[]);
    println!("{} requests, {late} of them went from a late worker to an idle one", requests.len());
    assert!(late > 0, "no worker was stopped before it had taken a connection");
}

fn number(name: &str) -> Option<u64> {
    env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text:?}")))
}

fn duration() -> Duration {
    let told = env::var("CLUSTERD_TEST_CAMPAIGN").ok();
    told.map_or(USUALLY, |text| {
        humantime::parse_duration(&text).expect("CLUSTERD_TEST_CAMPAIGN is a duration")
    })
}

/// The choices of a run, which can be made again.
fn seeded(what: &str) -> Rng {
    let seed = number("CLUSTERD_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("{what}: CLUSTERD_TEST_SEED={seed}");
    Rng::with_seed(seed)
}

fn campaign(server: Server) {
    let mut random = seeded(&format!("{server:?}"));
    let (end, longest) = (Instant::now() + duration(), USUALLY.max(duration() / ROUNDS));
    loop {
        round(server, &mut random, longest);
        if Instant::now() + longest / 2 > end {
            return;
        }
    }
}

/// One cluster, its clients and its faults, which go on for so long.
fn round(server: Server, random: &mut Rng, length: Duration) {
    const FAULTS: [Fault; 8] = [
        Fault::Kill,
        Fault::Kill,
        Fault::Stop,
        Fault::Stop,
        Fault::FullWorker,
        Fault::FullPrimary,
        Fault::Reload,
        Fault::Scale,
    ];
    let (options, stdout) = (options(server, random), stdout(server, random));
    println!("{server:?}: {options}, standard output {stdout:?}");
    let mut cluster = start(with_stdout(server.setup().options(&options), stdout));
    let rest = AtRest::of(&cluster);
    let clients = Clients::of(cluster.address(), false, REST);
    let faults = Faults::new(&cluster, &FAULTS, LONGEST_FAULT, random.fork());
    let end = Instant::now() + length;
    let (requests, kills) = run(&clients, faults, random, &|_, _| Instant::now() >= end);
    settle(&cluster);
    check(&cluster, &requests, &kills);
    // Whoever reads the output comes back, and the processes that have ended are done with.
    cluster.read_stdout();
    rest.is_reached_again(&cluster);
    stops_without_a_trace(&mut cluster);
}

/// Settings that change how connections go.
fn options(server: Server, random: &mut Rng) -> String {
    let mut any = |choices: &[&str]| (*random.choice(choices).expect("a choice")).to_owned();
    let mut options = vec![
        "--drain-timeout 30s".to_owned(),
        any(&["--window 1", "--window 4", "--window 16"]),
        any(&["--queue 4", "--queue 64", "--queue 1024"]),
        any(&["--handoff-timeout 50ms", "--handoff-timeout 300ms", "--handoff-timeout 1s"]),
        any(&["--redispatch-after 5ms", "--redispatch-after 20ms", "--redispatch-after 100ms"]),
        any(&[
            "--policy round-robin",
            "--policy least-connections",
            "--policy source-ip",
            "--policy random-two",
        ]),
        any(&["", "", "--concurrency 1", "--concurrency 3"]),
        any(&["", "--connection-stats"]),
    ];
    if server == Server::Node {
        options.push(any(&["--attach auto", "--attach node", "--attach preload"]));
    }
    options.join(" ")
}

/// A worker that writes to an output that is blocked waits with it, as without clusterd. Only threads of Python do.
fn stdout(server: Server, random: &mut Rng) -> Stdout {
    let choices: &[_] = match server {
        Server::Python => &[Stdout::Read, Stdout::Blocked, Stdout::Full],
        Server::C | Server::Go | Server::Node => &[Stdout::Read, Stdout::Full],
    };
    *random.choice(choices).expect("a choice")
}

fn with_stdout(setup: Setup, stdout: Stdout) -> Setup {
    match stdout {
        Stdout::Read => setup,
        Stdout::Blocked => setup.nobody_reads_stdout().env("CHATTER", "1"),
        Stdout::Full => setup.env("CHATTER", "1").under(&["sh", "-c", "exec \"$@\" > /dev/full", "sh"]),
    }
}

/// Where the workers of a cluster keep their ledgers.
fn ledgers(cluster: &Cluster) -> PathBuf {
    cluster.folder().join("ledgers")
}

fn start(setup: Setup) -> Cluster {
    let folder = setup.folder.path().join("ledgers");
    std::fs::create_dir(&folder).expect("a folder for the ledgers");
    let cluster = setup.workers(WORKERS).env("LEDGER", folder).start();
    // What is made at the first use, is made.
    for _ in 0..WORKERS * 8 {
        cluster.get("/first");
    }
    for entry in std::fs::read_dir(ledgers(&cluster)).expect("a folder").flatten() {
        std::fs::OpenOptions::new().write(true).truncate(true).open(entry.path()).expect("a ledger");
    }
    cluster
}

/// Clients and faults, until it is enough; what became of the requests, and who was killed.
fn run(
    clients: &Clients,
    mut faults: Faults<'_>,
    random: &mut Rng,
    is_enough: &dyn Fn(&Clients, &Faults<'_>) -> bool,
) -> (Vec<Request>, Vec<Kill>) {
    thread::scope(|scope| {
        let _end = EndOfClients(&clients.over);
        let running: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let random = random.fork();
                scope.spawn(move || clients.run(&client.to_string(), random))
            })
            .collect();
        while !is_enough(clients, &faults) {
            faults.next();
        }
        clients.over.store(true, Ordering::Relaxed);
        let requests =
            running.into_iter().flat_map(|client| client.join().expect("no client panics")).collect();
        println!("{:?}", faults.counts);
        (requests, faults.kills)
    })
}

/// Ends the clients, also when the test fails.
struct EndOfClients<'a>(&'a AtomicBool);

impl Drop for EndOfClients<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits until nothing is under way any more, and there are as many workers as in the beginning.
fn settle(cluster: &Cluster) {
    until("no reload is under way", || (!is_reloading(cluster)).then_some(()));
    until("the number of workers is set", || {
        (cluster.say(&format!("scale {WORKERS}")).code == 0).then_some(())
    });
    until("all workers are online, and no other is there", || {
        let online = cluster.metrics().count("clusterd_workers", &[("state", "online")]);
        (online == u64::from(WORKERS) && cluster.pids().len() == WORKERS as usize).then_some(())
    });
    cluster.get("/last");
}

#[track_caller]
fn check(cluster: &Cluster, requests: &[Request], kills: &[Kill]) {
    let notes = ledger::read(&ledgers(cluster)).expect("the ledgers can be read");
    let mut outcomes = BTreeMap::<_, usize>::new();
    for request in requests {
        *outcomes
            .entry(match request.outcome {
                Outcome::Answered(_) => "answered",
                Outcome::Left => "left",
                Outcome::Lost(_) => "lost with a worker",
            })
            .or_default() += 1;
    }
    println!("{outcomes:?}, {} kills", kills.len());
    let wrong = judge(requests, kills, &notes);
    assert!(wrong.is_empty(), "{} of {} requests:\n{}", wrong.len(), requests.len(), wrong.join("\n"));
    assert!(outcomes.get("answered").is_some_and(|&answered| answered > 0), "nobody was answered");
}

/// What the primary needs when nothing happens.
#[derive(Debug)]
struct AtRest {
    descriptors: BTreeMap<String, usize>,
    threads: i64,
    bytes: u64,
}

impl AtRest {
    fn of(cluster: &Cluster) -> Self {
        let primary = cluster.primary();
        let mut least = Self::now(&primary);
        // Threads that come and go have gone by then, and clients' connections are closed.
        let begin = Instant::now();
        until("a second has gone by", || {
            let now = Self::now(&primary);
            if now.count() < least.count() {
                least.descriptors = now.descriptors;
            }
            least.threads = least.threads.min(now.threads);
            (begin.elapsed() > Duration::from_secs(1)).then_some(())
        });
        least
    }

    fn now(primary: &Process) -> Self {
        let (descriptors, threads) = (primary.descriptors(), primary.threads());
        Self { descriptors, threads, bytes: primary.resident_bytes() }
    }

    fn count(&self) -> usize {
        self.descriptors.values().sum()
    }

    fn is_beyond(&self, rest: &Self) -> bool {
        self.count() > rest.count() + COME_AND_GO || self.threads > rest.threads + COME_AND_GO as i64
    }

    #[track_caller]
    fn is_reached_again(&self, cluster: &Cluster) {
        let primary = cluster.primary();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = Self::now(&primary);
            if !now.is_beyond(self) {
                break;
            }
            assert!(Instant::now() < deadline, "the primary needs more than at rest\n{now:?}\n{self:?}");
            thread::sleep(Duration::from_millis(200));
        }
        let bytes = primary.resident_bytes();
        assert!(bytes <= self.bytes + KEPT_BYTES, "{bytes} bytes, and {} at rest", self.bytes);
    }
}

fn stops_without_a_trace(cluster: &mut Cluster) {
    let processes = cluster.processes();
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
    until("every process is gone", || {
        let left: Vec<_> = processes
            .iter()
            .chain(&cluster.processes())
            .filter(|process| process.is_alive())
            .map(Process::pid)
            .collect();
        left.is_empty().then_some(())
    });
}
