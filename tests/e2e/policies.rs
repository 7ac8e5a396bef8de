//! Which worker gets a connection, and how many it may have, with real servers and clients.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::folder::fixtures;
use crate::harness::needs::{self, needs};
use crate::harness::{Cluster, until};

/// Ends after each answer.
const ONE_SHOT: &str = "require('node:http').createServer((request, response) => {
    response.setHeader('Connection', 'close');
    response.end('worker ' + process.env.CLUSTERD_WORKER_ID, () => process.exit(1));
}).listen(process.env.PORT);";

#[test]
fn with_one_connection_at_a_time_who_ends_after_each_answer_loses_no_request() {
    needs!("node");
    let cluster = Cluster::of("node {folder}/one_shot.js")
        .file("one_shot.js", ONE_SHOT)
        .workers(3)
        .options("--concurrency 1 --max-restarts 1000000")
        .start();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for request in 0..5 {
                    let answer = cluster.try_get("/").unwrap_or_else(|error| panic!("{request}: {error}"));
                    assert_eq!(answer.status, 200);
                }
            });
        }
    });
}

#[test]
fn who_keeps_a_connection_keeps_its_place_and_who_closes_it_gives_it_to_the_next() {
    needs!("node");
    let cluster = Cluster::of("node {fixtures}/node/app.js")
        .workers(1)
        .options("--concurrency 2 --window 16 --handoff-timeout 60s")
        .start();
    let held: Vec<_> = (0..2).map(|_| cluster.connect().expect("it accepts")).collect();
    let waiting = cluster.send("/");
    until("it waits", || (cluster.metrics().count("clusterd_queue_connections", &[]) == 1).then_some(()));
    until("both are open", || {
        (cluster.metrics().count("clusterd_worker_open_connections", &[]) == 2).then_some(())
    });
    drop(held);
    assert_eq!(waiting.response().expect("an answer").status, 200);
    cluster.reload().expect("its successor has places of its own");
    assert!(cluster.get("/").starts_with("worker 1 "));
}

/// Takes all that come at once, needs a while for each, and says how many it had at most.
const EAGER: &str = "import os, socket, threading, time
had, most, lock = 0, 0, threading.Lock()
def serve(client):
    global had, most
    with lock:
        had += 1
        most = max(most, had)
    client.recv(4096)
    time.sleep(0.2)
    with lock:
        had -= 1
    try:
        client.sendall(b'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: 1\\r\\n\\r\\n%d' % most)
    except OSError:
        pass
    client.close()
with socket.create_server(('127.0.0.1', int(os.environ['PORT']))) as listener:
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],)).start()
";

#[test]
fn a_client_that_resets_its_connection_does_not_free_its_place_while_it_is_served() {
    needs!("python3");
    let cluster = Cluster::of("python3 {folder}/eager.py")
        .file("eager.py", EAGER)
        .workers(1)
        .options("--concurrency 1 --handoff-timeout 60s")
        .start();
    for given_up in 1..=4 {
        let mut client = cluster.connect().expect("it accepts");
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("it reads");
        until("the worker has it", || {
            let taken = cluster.metrics().count("clusterd_connections_handed_total", &[]);
            (taken == given_up).then_some(())
        });
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("an option");
    }
    assert_eq!(cluster.get("/"), "1");
}

fn get_from(address: SocketAddr, last: u8) -> String {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last), 0).into()).expect("a loopback address");
    socket.connect(&address.into()).expect("it accepts");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let at = answer.find("worker ").unwrap_or_else(|| panic!("{answer}"));
    answer[at..].chars().take(8).collect()
}

#[test]
fn a_client_address_stays_with_its_worker_over_a_reload() {
    needs!("node");
    let cluster = Cluster::of("node {fixtures}/node/app.js").workers(4).options("--policy source-ip").start();
    let workers = || (2..22).map(|last| get_from(cluster.address(), last)).collect::<Vec<_>>();
    let before = workers();
    assert!(before.iter().collect::<BTreeSet<_>>().len() > 1, "{before:?}");
    assert_eq!(workers(), before);
    cluster.reload().expect("it reloads");
    assert_eq!(workers(), before);
}

fn sessions(arguments: &[&str], address: SocketAddr) -> Command {
    let mut command = Command::new("node");
    command.arg(fixtures().join("packages/sessions.js")).arg(arguments[0]);
    command.arg(address.port().to_string()).args(&arguments[1..]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

#[test]
fn socket_io_clients_that_begin_with_requests_connect() {
    if !(needs::package("socket.io") && needs::package("socket.io-client")) {
        return;
    }
    let app = fixtures().join("packages/sessions.js");
    let cluster = Cluster::of(&format!("node {}", app.display()))
        .workers(4)
        .options("--policy source-ip --handoff-timeout 60s")
        .start();
    let output = sessions(&["polling", "20"], cluster.address()).output().expect("node can be started");
    let said: Value = serde_json::from_slice(&output.stdout).expect("counts in JSON");
    assert_eq!(said["connected"], json!(20), "{said}");
    assert!(said["workers"].as_u64().is_some_and(|workers| workers > 1), "{said}");
}

#[test]
fn websockets_that_come_back_during_a_reload_are_spread_evenly() {
    if !(needs::package("socket.io") && needs::package("socket.io-client")) {
        return;
    }
    let app = fixtures().join("packages/sessions.js");
    let cluster = Cluster::of(&format!("node {}", app.display()))
        .workers(4)
        .options("--policy least-connections --drain-timeout 100ms")
        .start();
    let mut clients =
        sessions(&["websockets", "40"], cluster.address()).spawn().expect("node can be started");
    let mut ask = clients.stdin.take().expect("a pipe");
    let mut answers = BufReader::new(clients.stdout.take().expect("a pipe"));
    let mut counts = || {
        writeln!(ask).expect("they listen");
        let mut line = String::new();
        answers.read_line(&mut line).expect("an answer");
        serde_json::from_str::<Vec<usize>>(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
    };
    assert_eq!(counts().iter().sum::<usize>(), 40);
    cluster.reload().expect("it reloads");
    let after = until("all are back", || {
        let counts = counts();
        (counts.iter().sum::<usize>() == 40).then_some(counts)
    });
    assert!(after.len() == 4 && after.iter().all(|&count| count <= 13), "{after:?}");
    drop(ask);
    clients.wait().expect("they end");
}
