//! Apps without a port: what a worker listens on is opened then, for all of them.

use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream};

use crate::harness::home::Home;
use crate::harness::needs::needs;
use crate::harness::ports::free_port;
use crate::harness::{build, until};

/// Listens on the address of its arguments, and answers with its process.
const SERVER: &str = "
import os, socket, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        says = str(os.getpid()).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(says)))
        self.send_header('Connection', 'close')
        self.end_headers()
        self.wfile.write(says)

    def log_message(self, *_):
        pass

HTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
";

fn home() -> (Home, u16) {
    let home = Home::new();
    home.write("server.py", SERVER);
    (home, free_port())
}

/// How many processes answer on this port before long.
fn who_answers(home: &Home, port: u16) -> usize {
    let mut pids: Vec<_> = (0..12).filter_map(|_| home.get(port)).collect();
    pids.sort();
    pids.dedup();
    pids.len()
}

#[test]
fn all_workers_share_what_one_listens_on() {
    needs!("python3");
    for accept in ["primary", "workers"] {
        let (home, port) = home();
        home.say(&format!("start -w 3 --name web --accept {accept} -- python3 server.py 127.0.0.1 {port}"))
            .done();
        until("all three serve", || (who_answers(&home, port) == 3).then_some(()));
        // It is the address that they asked for, and no other.
        assert!(TcpStream::connect(("127.0.0.2", port)).is_err(), "{accept}");
        home.say("reload web").done();
        assert!(home.get(port).is_some(), "{accept}");
        home.say("stop web").done();
        until("clients are refused", || TcpStream::connect(("127.0.0.1", port)).err());
        home.say("start web").done();
        until("it serves again", || home.get(port));
        home.say("delete web").done();
        assert!(TcpListener::bind(("127.0.0.1", port)).is_ok(), "{accept}");
    }
}

#[test]
fn a_go_server_needs_no_port_either() {
    needs!("go");
    let (home, port) = home();
    let server = build::go("go-pages", "pages.go");
    home.say(&format!("start -w 2 --name web --env PORT={port} -- {server}")).done();
    let mut workers = BTreeSet::new();
    until("both serve", || {
        workers.extend(home.get(port).and_then(|text| text.split_whitespace().next().map(str::to_owned)));
        (workers.len() == 2).then_some(())
    });
    home.say("reload web").done();
    assert!(home.get(port).is_some());
}

#[test]
fn no_client_is_refused_while_workers_are_replaced() {
    needs!("python3");
    let (home, port) = home();
    home.say(&format!("start -w 2 --name web -- python3 server.py 127.0.0.1 {port}")).done();
    until("it serves", || home.get(port));
    let refused = std::thread::scope(|scope| {
        let reloads = scope.spawn(|| {
            for verb in ["reload", "restart", "scale web 1 ", "reload"] {
                let verb = if verb.contains("web") { verb.to_owned() } else { format!("{verb} web") };
                home.say(&verb).done();
            }
        });
        let mut refused = 0;
        while !reloads.is_finished() {
            // An answer may be cut short by `restart`, which ends workers at once.
            refused += usize::from(TcpStream::connect(("127.0.0.1", port)).is_err());
        }
        refused
    });
    assert_eq!(refused, 0);
}

/// It connects to somebody else's port, tries which port of its own is free, as some do by connect(2) and some by bind(2), and
/// listens there.
const LOOKS: &str = "
import socket, sys, os
own, others = int(sys.argv[1]), int(sys.argv[2])
with socket.create_connection(('127.0.0.1', others), 5) as other:
    assert other.recv(5) == b'hello'
with socket.socket() as probe:
    assert probe.connect_ex(('127.0.0.1', own)) != 0, 'somebody listens'
with socket.socket() as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(('127.0.0.1', own))
with socket.socket() as tried:
    tried.bind(('127.0.0.1', int(sys.argv[3])))
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(('127.0.0.1', own))
listener.listen()
while True:
    connection, _ = listener.accept()
    connection.recv(1000)
    says = str(os.getpid()).encode()
    connection.sendall(b'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n%s' % (len(says), says))
    connection.close()
";

#[test]
fn a_server_that_looks_around_first_sees_what_it_would_see_alone() {
    needs!("python3");
    let (home, port) = home();
    home.write("looks.py", LOOKS);
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let others = other.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        use std::io::Write as _;
        for client in other.incoming() {
            let _ = client.and_then(|mut client| client.write_all(b"hello"));
        }
    });
    let tried = free_port();
    home.say(&format!("start -w 3 --name web -- python3 looks.py {port} {others} {tried}")).done();
    until("all three serve", || (who_answers(&home, port) == 3).then_some(()));
    // What was only tried belongs to nobody before long.
    until("it is free", || TcpListener::bind(("127.0.0.1", tried)).ok());
}

/// A server of Node's cluster module; the one in Python comes by the shim.
const NODE: &str = "require('http').createServer((_, answer) => answer.end('hi')).listen(Number(process.argv[2]), '127.0.0.1')";

#[test]
fn an_app_that_asks_for_the_port_of_another_says_which_has_it() {
    needs!("python3", "node");
    let (home, port) = home();
    home.write("server.js", NODE);
    home.say(&format!("start -w 1 --name web -- python3 server.py 127.0.0.1 {port}")).done();
    let pid = home.primary("web").pid();
    let why = format!(
        "a worker cannot listen on 127.0.0.1:{port}, for which bind fails with EADDRINUSE: app web (pid {pid}) "
    );
    for (name, command) in [("py", "python3 server.py 127.0.0.1"), ("js", "node server.js")] {
        let said = home.say(&format!("start -w 1 --name {name} -- {command} {port}"));
        assert_eq!(said.code, 1, "{name}: {said:?}");
        until("the log names the app", || home.file(name, "logs/clusterd.log").contains(&why).then_some(()));
        home.say(&format!("delete {name}")).done();
    }
    assert!(home.get(port).is_some());
}
