//! What is proved of each server of the table.
//!
//! 1. Three workers answer in equal turns.
//! 2. It sees its clients, over IPv4 and over IPv6, exactly as it does without clusterd, and who is refused there is
//!    refused here.
//! 3. A reload under load loses no request.
//! 4. A stop exits with 0, and leaves no process and no file.
//!
//! With `--accept workers`, and with `--attach seccomp`, the same, but that there are no turns: all three answer.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::dialogue::Dialogue;
use super::server::Server;
use super::turns::took_turns;
use crate::harness::process::Process;
use crate::harness::witness::Sighting;
use crate::harness::{Cluster, Load, Native, Signal, Witness, http, needs, until};
use crate::shutdown::nothing_is_left;

/// The connections that are to be dealt in turns.
const ROUNDS: u64 = 12;

/// By worker.
type Counts = BTreeMap<String, u64>;

/// What the client of a family meets.
#[derive(Debug, PartialEq, Eq)]
enum Meeting {
    Refused,
    /// What accept gave the server, if it has called that.
    Served(Option<Sighting>),
    /// Accepted, but not answered as others are.
    Broken(String),
}

/// Proves it all.
#[track_caller]
pub(super) fn prove(server: &Server) {
    if !server.is_wanted() {
        return;
    }
    let witness = Witness::new();
    let natively = natively(server, &witness);
    let cluster = server.cluster(&witness);
    let ip = natively.iter().find(|(_, met)| *met != Meeting::Refused).expect("one family is served").0;
    let address = (ip, cluster.address().port()).into();
    takes_turns(&cluster, address, server.dialogue);
    let here: Vec<_> = natively
        .iter()
        .map(|&(ip, _)| (ip, meet(server, &witness, (ip, cluster.address().port()).into())))
        .collect();
    loses_nothing_by_a_reload(&cluster, address, server.dialogue);
    leaves_nothing(cluster);
    assert_eq!(here, natively, "clients meet (left: under clusterd) what they meet without clusterd (right)");
}

/// Proves it of workers that accept by themselves.
#[track_caller]
pub(super) fn prove_accepting(server: &Server) {
    if server.is_wanted_accepting() {
        prove_with(server, "--accept workers");
    }
}

/// Proves it of workers whose calls are intercepted.
#[track_caller]
pub(super) fn prove_intercepted(server: &Server) {
    if server.is_wanted_intercepted() {
        prove_with(server, "--attach seccomp");
    }
}

#[track_caller]
fn prove_with(server: &Server, options: &str) {
    let witness = Witness::new();
    let natively = natively(server, &witness);
    let cluster = server.accepting_cluster(&witness, options);
    let ip = natively.iter().find(|(_, met)| *met != Meeting::Refused).expect("one family is served").0;
    let address = (ip, cluster.address().port()).into();
    all_accept(&cluster, address, server.dialogue);
    let here: Vec<_> = natively
        .iter()
        .map(|&(ip, _)| (ip, meet(server, &witness, (ip, cluster.address().port()).into())))
        .collect();
    loses_nothing_by_a_reload(&cluster, address, server.dialogue);
    assert_eq!(
        cluster.metrics().count("clusterd_connections_accepted_total", &[]),
        0,
        "clusterd accepts none"
    );
    leaves_nothing(cluster);
    assert_eq!(here, natively, "clients meet (left: under clusterd) what they meet without clusterd (right)");
}

/// Each worker answers, by what the answers say where they name it, or has a connection that a client keeps open.
#[track_caller]
fn all_accept(cluster: &Cluster, address: SocketAddr, dialogue: Dialogue) {
    let (mut named, mut kept) = (BTreeSet::new(), Vec::new());
    until("each worker has accepted", || {
        let answer = dialogue.hold(http::connect(address).ok()?).ok()?;
        let Some(worker) = answer else {
            kept.push(dialogue.begin(http::connect(address).ok()?).ok()?);
            return cluster.workers().iter().all(has_client).then_some(());
        };
        named.insert(worker);
        (named.len() == 3).then_some(())
    });
}

fn has_client(worker: &Process) -> bool {
    let family = worker.descendants().into_iter();
    !worker.clients().is_empty() || family.into_iter().any(|process| !process.clients().is_empty())
}

/// What clients meet without clusterd, by family.
#[track_caller]
fn natively(server: &Server, witness: &Witness) -> Vec<(IpAddr, Meeting)> {
    let mut native = server.native(witness);
    let families = families();
    until("the server answers without clusterd", || {
        native.must_live();
        answers(&native, &families, server.dialogue)
    });
    families.into_iter().map(|ip| (ip, meet(server, witness, native.at(ip)))).collect()
}

fn answers(native: &Native, families: &[IpAddr], dialogue: Dialogue) -> Option<()> {
    let mut connections = families.iter().filter_map(|&ip| http::connect(native.at(ip)).ok());
    dialogue.hold(connections.next()?).ok().map(drop)
}

fn families() -> Vec<IpAddr> {
    let v6 = needs::ipv6().then_some(Ipv6Addr::LOCALHOST.into());
    [Ipv4Addr::LOCALHOST.into()].into_iter().chain(v6).collect()
}

#[track_caller]
fn meet(server: &Server, witness: &Witness, address: SocketAddr) -> Meeting {
    witness.forget();
    let connection = match http::connect(address) {
        Ok(connection) => connection,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Meeting::Refused,
        Err(error) => panic!("a client of {address}: {error}"),
    };
    let client = connection.local_addr().expect("it is connected");
    match server.dialogue.hold(connection) {
        Ok(_) => Meeting::Served(server.accepts.then(|| witness.saw(client, address))),
        Err(error) => Meeting::Broken(error.to_string()),
    }
}

/// By what clusterd counts, and by what the answers say where they name the worker. A server that has just started may
/// connect to itself, and takes a turn with that: then it is asked again.
#[track_caller]
fn takes_turns(cluster: &Cluster, address: SocketAddr, dialogue: Dialogue) {
    all_serve(cluster, address, dialogue);
    let (mut handed, mut answers) = a_round(cluster, address, dialogue);
    for _ in 0..3 {
        if handed.values().sum::<u64>() > ROUNDS {
            (handed, answers) = a_round(cluster, address, dialogue);
        }
    }
    took_turns(&handed, ROUNDS);
    assert!(answers.is_empty() || answers == handed, "answers of {answers:?}, connections to {handed:?}");
}

/// A worker is online once one of its listeners listens, which need not be the one for this address.
#[track_caller]
fn all_serve(cluster: &Cluster, address: SocketAddr, dialogue: Dialogue) {
    let before = cluster.metrics().handed();
    until("each worker serves this address", || {
        dialogue.hold(http::connect(address).ok()?).ok()?;
        let mut served = cluster.metrics().handed().into_iter();
        served.all(|(worker, count)| count > *before.get(&worker).unwrap_or(&0)).then_some(())
    });
}

/// The connections that each worker was handed meanwhile, and the answers that each gave.
#[track_caller]
fn a_round(cluster: &Cluster, address: SocketAddr, dialogue: Dialogue) -> (Counts, Counts) {
    let before = cluster.metrics().handed();
    let mut answers = Counts::new();
    for _ in 0..ROUNDS {
        let connection = http::connect(address).expect("the cluster listens");
        let answer =
            dialogue.hold(connection).unwrap_or_else(|error| panic!("a client of {address}: {error}"));
        if let Some(worker) = answer {
            *answers.entry(worker).or_default() += 1;
        }
    }
    let mut handed = cluster.handed(before.values().sum::<u64>() + ROUNDS);
    handed.iter_mut().for_each(|(worker, count)| *count -= before.get(worker).unwrap_or(&0));
    (handed, answers)
}

#[track_caller]
fn loses_nothing_by_a_reload(cluster: &Cluster, address: SocketAddr, dialogue: Dialogue) {
    let load = Load::of_exchanges(address, move |connection| dialogue.hold(connection).map(drop));
    load.loses_nothing_by_a_reload(cluster);
}

#[track_caller]
fn leaves_nothing(mut cluster: Cluster) {
    let (processes, folder) = (cluster.processes(), cluster.runtime_folder());
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
    nothing_is_left(&cluster, &processes);
    assert!(!folder.exists(), "{} is left", folder.display());
}
