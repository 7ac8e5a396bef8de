//! `connections`, and what the metrics tell of connections: the same as `ss` says of the same sockets.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::harness::needs::{self, needs};
use crate::harness::samples::Samples;
use crate::harness::{Cluster, Signal, http, until};

/// What `ss` says of a socket.
#[derive(Clone, Debug, PartialEq)]
struct Socket {
    state: String,
    received: u64,
    sent: u64,
    /// As it prints it, in milliseconds.
    rtt: f64,
    retransmitted: u64,
    pids: Vec<i32>,
}

/// The connections to this port whose sockets processes hold, by their clients.
fn sockets(port: u16) -> BTreeMap<SocketAddr, Socket> {
    let filter = format!("sport = :{port}");
    let output = Command::new("ss").args(["-tinpOH", &filter]).output().expect("ss runs");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().filter_map(socket).collect()
}

/// `ESTAB 0 0 [::ffff:127.0.0.1]:80 [::ffff:127.0.0.1]:5060 users:(("python3",pid=7,fd=5)) ... rtt:0.02/0.01 ...
/// bytes_acked:5000 bytes_received:100 ... retrans:0/1 ...`; what is zero is left out.
fn socket(line: &str) -> Option<(SocketAddr, Socket)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let fact = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix(':'));
    let number = |name: &str| fact(name).map_or(0, |text| text.parse().expect("a number"));
    let pids = fact("users")?.split("pid=").skip(1).filter_map(|rest| rest.split(',').next()?.parse().ok());
    let client: SocketAddr = words[4].parse().expect("an address");
    let socket = Socket {
        state: words[0].to_owned(),
        received: number("bytes_received"),
        sent: number("bytes_acked"),
        rtt: fact("rtt")?.split('/').next()?.parse().expect("milliseconds"),
        retransmitted: fact("retrans").map_or(0, |text| {
            text.split('/').nth(1).and_then(|total| total.parse().ok()).expect("two numbers")
        }),
        pids: pids.collect(),
    };
    Some((SocketAddr::new(client.ip().to_canonical(), client.port()), socket))
}

/// What `clusterd connections` says, by the clients.
fn connections(cluster: &Cluster, options: &str) -> BTreeMap<SocketAddr, Value> {
    let said = cluster.say(&format!("connections -o json {options}")).json();
    let all = said.as_array().expect("a list").iter();
    all.map(|connection| (client(connection), connection.clone())).collect()
}

fn client(connection: &Value) -> SocketAddr {
    connection["client"].as_str().expect("an address").parse().expect("an address")
}

fn state_of_ss(state: &Value) -> &'static str {
    match state.as_str() {
        Some("established") => "ESTAB",
        Some("close-wait") => "CLOSE-WAIT",
        other => panic!("a state that no client here brings about: {other:?}"),
    }
}

/// Both in one moment: `ss` says the same before and after.
fn at_once(cluster: &Cluster, count: usize) -> (BTreeMap<SocketAddr, Socket>, BTreeMap<SocketAddr, Value>) {
    until("nothing happens while both look", || {
        let before = sockets(cluster.address().port());
        let ours = connections(cluster, "");
        (before.len() == count && before == sockets(cluster.address().port())).then_some((before, ours))
    })
}

#[test]
fn every_open_connection_is_shown_as_ss_shows_it() {
    needs!("python3", "ss");
    let cluster = Cluster::of_servers().workers(2).env("SERVER_HOST", "::").options("--name web").start();
    let mut held = vec![cluster.send("/hold/end"), cluster.send("/hold/end")];
    let mut reading = cluster.connect().expect("it listens");
    reading.write_all(b"GET /big/30000000 HTTP/1.1\r\n").expect("sent");
    if needs::ipv6() {
        let address = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), cluster.address().port());
        held.push(http::send(address, "GET", "/hold/end").expect("it listens"));
    }
    // One that has closed its sending side, and does not wait for an answer any more.
    let mut half = cluster.connect().expect("it listens");
    half.write_all(b"GET /hold/end HTTP/1.1\r\n\r\n").expect("sent");
    half.shutdown(std::net::Shutdown::Write).expect("it is open");
    let count = held.len() + 2;
    cluster.handed(count as u64);

    let (theirs, ours) = at_once(&cluster, count);
    assert!(theirs.keys().eq(ours.keys()), "{theirs:#?} {ours:#?}");
    for (client, socket) in &theirs {
        let connection = &ours[client];
        let whole = format!("{connection} {socket:?}");
        assert_eq!(connection["app"], "web", "{whole}");
        assert_eq!(state_of_ss(&connection["state"]), socket.state, "{whole}");
        assert_eq!(connection["received_bytes"], socket.received, "{whole}");
        assert_eq!(connection["sent_bytes"], socket.sent, "{whole}");
        assert_eq!(connection["retransmitted_segments"], socket.retransmitted, "{whole}");
        let rtt = connection["rtt_seconds"].as_f64().expect("a time") * 1000.0;
        assert!((rtt - socket.rtt).abs() < 0.001, "{whole}");
        let worker = connection["worker"].as_u64().expect("a number");
        let worker = cluster.worker(u32::try_from(worker).expect("small"));
        assert!(socket.pids.contains(&worker.pid()), "{whole}");
        for time in ["age_seconds", "idle_seconds", "queued_seconds"] {
            let time = connection[time].as_f64().expect("a time");
            assert!((0.0..600.0).contains(&time), "{whole}");
        }
        let local: SocketAddr =
            connection["local"].as_str().expect("an address").parse().expect("an address");
        assert_eq!((local.port(), local.ip()), (cluster.address().port(), client.ip()), "{whole}");
    }
    assert!(ours.values().any(|connection| connection["state"] == "close-wait"), "{ours:?}");

    // More than all buffers: the worker keeps it open until everything is read.
    reading.write_all(b"\r\n").expect("sent");
    let mut answer = [0; 100_000];
    reading.read_exact(&mut answer).expect("an answer");
    let (theirs, ours) = at_once(&cluster, count);
    let client = reading.local_addr().expect("an address");
    assert_eq!(ours[&client]["sent_bytes"], theirs[&client].sent);
    assert!(theirs[&client].sent > 100_000);
    cluster.open_gate("end");
    held.into_iter().for_each(|held| drop(held.response().expect("an answer")));
}

#[test]
fn the_connections_of_one_worker_or_of_none_can_be_asked_for() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).taking_turns().start();
    assert!(connections(&cluster, "").is_empty());
    let said = cluster.say("connections");
    let head = "name  worker  client  port  state  age  idle  in  out  rtt  retrans  queued\n";
    assert_eq!(said.done(), head, "an empty table");
    let held = [cluster.send("/hold/end"), cluster.send("/hold/end"), cluster.send("/hold/end")];
    let handed = cluster.handed(3);
    for (worker, count) in handed {
        let of_it = connections(&cluster, &format!("--worker {worker}"));
        assert_eq!(of_it.len() as u64, count);
        let number: u32 = worker.parse().expect("a number");
        assert!(of_it.values().all(|connection| connection["worker"] == number), "{of_it:?}");
    }
    let unknown = cluster.say("connections --worker 9");
    assert_eq!((unknown.code, unknown.stdout.as_str()), (1, ""));
    assert!(unknown.stderr.contains("there is no worker 9"), "{}", unknown.stderr);
    let sorted = cluster.say("connections --sort age --reverse");
    let rows: Vec<Vec<&str>> = sorted.done().lines().map(|line| line.split_whitespace().collect()).collect();
    let clients: Vec<&str> = rows[1..].iter().map(|row| row[2]).collect();
    assert_eq!((rows.len(), rows[0][2], rows[1][4]), (4, "client", "established"));
    let newest_first: Vec<String> = {
        let mut all: Vec<Value> = connections(&cluster, "").into_values().collect();
        all.sort_by(|one, other| {
            one["age_seconds"].as_f64().partial_cmp(&other["age_seconds"].as_f64()).unwrap()
        });
        all.iter().map(|connection| connection["client"].as_str().expect("an address").to_owned()).collect()
    };
    assert_eq!(clients, newest_first);
    assert_eq!(cluster.say("connections --sort size").code, 2);
    cluster.open_gate("end");
    let _answers = held.map(|held| held.response().expect("an answer"));
    until("they are shown no more", || connections(&cluster, "").is_empty().then_some(()));
}

#[test]
fn a_connection_that_waits_is_nobodys_and_then_tells_how_long_it_waited() {
    needs!("python3");
    let options = "--window 1 --handoff-timeout 10m --name web";
    let cluster = Cluster::of_servers().workers(1).options(options).start();
    let worker = cluster.worker(1);
    worker.signal(Signal::STOP);
    until("it is stopped", || worker.is_stopped().then_some(()));
    let [first, second] = [cluster.send("/hold/end"), cluster.send("/hold/end")];
    let waited = until("the second waits", || {
        let all = connections(&cluster, "");
        let waiting = all.values().filter(|connection| connection["worker"].is_null());
        let waiting: Vec<_> = waiting.cloned().collect();
        (all.len() == 2 && waiting.len() == 1).then(|| waiting[0].clone())
    });
    assert_eq!(waited["queued_seconds"], Value::Null, "it is not over: {waited}");
    std::thread::sleep(Duration::from_millis(100));
    worker.signal(Signal::CONT);
    cluster.handed(2);
    let told = &connections(&cluster, "")[&client(&waited)];
    assert_eq!(told["worker"], 1);
    assert!(told["queued_seconds"].as_f64() >= Some(0.1), "{told}");
    assert!(told["age_seconds"].as_f64() >= told["queued_seconds"].as_f64(), "{told}");
    cluster.open_gate("end");
    let _answers = [first, second].map(|held| held.response().expect("an answer"));
}

#[test]
fn a_thousand_connections_are_a_thousand_rows_and_each_app_has_its_own() {
    needs!("python3");
    let web = Cluster::of_servers().workers(2).options("--name web --window 1").start();
    let home = web.home();
    let api = Cluster::of_servers().options("--name api").env("CLUSTERD_HOME", home.as_os_str()).start();
    let held = api.send("/hold/end");
    api.handed(1);
    let many: Vec<TcpStream> = (0..1000).map(|_| web.connect().expect("it listens")).collect();
    web.handed(1000);
    // Clients of two apps may have the same address.
    let rows = web.say("connections -o json").json();
    let of = |app: &str| rows.as_array().map(|rows| rows.iter().filter(|row| row["app"] == app).count());
    assert_eq!((of("web"), of("api")), (Some(1000), Some(1)));
    let all = connections(&web, "web");
    assert!(many.iter().all(|client| all.contains_key(&client.local_addr().expect("an address"))));
    assert_eq!(connections(&web, "api").len(), 1);
    assert_eq!(connections(&web, "--name web").len(), 1000);
    assert_eq!(web.say("connections").done().lines().count(), 1002);
    let metrics = web.metrics();
    assert_eq!(metrics.count("clusterd_worker_open_connections", &[]), 1000);
    drop(many);
    until("none is open", || {
        let metrics = web.metrics();
        let each = ["1", "2"].map(|worker| [("worker", worker)]);
        let is_none = |label: &[(&str, &str)]| {
            metrics.has("clusterd_worker_open_connections", label)
                && metrics.count("clusterd_worker_open_connections", label) == 0
        };
        each.iter().all(|label| is_none(label)).then_some(())
    });
    api.open_gate("end");
    held.response().expect("an answer");
}

#[test]
fn beside_an_app_that_does_not_answer_the_others_are_shown() {
    needs!("python3");
    let web = Cluster::of_servers().options("--name web").start();
    let home = web.home();
    let api = Cluster::of_servers().options("--name api").env("CLUSTERD_HOME", home.as_os_str()).start();
    let held = web.send("/hold/end");
    web.handed(1);
    api.primary().signal(Signal::STOP);
    let said = web.say("connections");
    let one = web.say("connections web");
    api.primary().signal(Signal::CONT);
    assert_eq!((said.code, said.stdout.lines().count()), (1, 2), "{}", said.stdout);
    assert!(said.stderr.contains("does not answer"), "{}", said.stderr);
    assert_eq!(one.done().lines().count(), 2);
    web.open_gate("end");
    held.response().expect("an answer");
}

#[test]
fn what_connections_move_is_counted_while_they_are_open_and_once() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).options("--connection-stats").start();
    let received = |metrics: &Samples| metrics.count("clusterd_worker_connection_received_bytes_total", &[]);
    let before = cluster.metrics();
    let name = "clusterd_worker_connection_received_bytes_total";
    assert!(before.has(name, &[("worker", "1")]) && before.has(name, &[("worker", "2")]));
    let held = cluster.send("/hold/end");
    let request = "GET /hold/end HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".len() as u64;
    until("the open connection counts", || (received(&cluster.metrics()) == request).then_some(()));
    assert_eq!(received(&cluster.metrics()), request, "it does not count again");
    assert_eq!(cluster.metrics().count("clusterd_worker_connection_duration_seconds_count", &[]), 0);
    cluster.open_gate("end");
    held.response().expect("an answer");
    for _ in 0..20 {
        assert_eq!(cluster.get("/big/10000").len(), 10_000);
    }
    let metrics = until("all have ended", || {
        let metrics = cluster.metrics();
        (metrics.count("clusterd_worker_connection_duration_seconds_count", &[]) == 21).then_some(metrics)
    });
    assert_eq!(metrics.count("clusterd_worker_connection_rtt_seconds_count", &[]), 21);
    let sent = metrics.count("clusterd_worker_connection_sent_bytes_total", &[]);
    assert!((200_000..210_000).contains(&sent), "{sent}");
    let requests =
        request + 20 * "GET /big/10000 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".len() as u64;
    // The end of what a client sends counts as a byte.
    assert!((requests..=requests + 21).contains(&received(&metrics)), "{}", received(&metrics));
    assert!(metrics.sum("clusterd_worker_connection_duration_seconds_sum", &[]) < 600.0);
    assert_eq!(
        metrics.count("clusterd_worker_connection_duration_seconds_count", &[]),
        cluster.handed(21).values().sum::<u64>()
    );
    for (worker, count) in cluster.handed(21) {
        let of_it = [("worker", worker.as_str())];
        assert_eq!(metrics.count("clusterd_worker_connection_duration_seconds_count", &of_it), count);
    }
}

#[test]
fn without_the_setting_nothing_that_connections_move_is_shown() {
    let cluster = Cluster::demo().start();
    cluster.get("/");
    let metrics = cluster.metrics();
    assert!(metrics.has("clusterd_worker_open_connections", &[("worker", "1")]));
    assert!(!metrics.has("clusterd_worker_connection_received_bytes_total", &[]));
}
