//! Upgrades below whoever has started clusterd: a service manager, or nobody but the guardian.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;

use rustix::process::Signal;

use super::{go_on, in_a_row, upgrade};
use crate::harness::home::Home;
use crate::harness::http;
use crate::harness::load::Load;
use crate::harness::needs::needs;
use crate::harness::ports::free_port;
use crate::harness::{Cluster, until};

/// A server that answers who it is.
const SERVER: &str = "
import http.server, os, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'worker ' + os.environ['CLUSTERD_WORKER_ID'].encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(('0.0.0.0', int(os.environ['PORT'])), Answer).serve_forever()
";

#[test]
fn a_service_manager_sees_the_process_that_it_has_started() {
    let cluster = Cluster::demo().workers(2);
    let path = cluster.folder.path().join("manager");
    let manager = UnixDatagram::bind(&path).expect("a socket in a temporary folder");
    manager.set_nonblocking(true).expect("a mode");
    let mut cluster = cluster.env("NOTIFY_SOCKET", &path).start();
    let mut told = Vec::new();
    let mut hears = |line: &str| {
        until(&format!("the service manager is told {line:?}"), || {
            let mut buffer = [0; 4096];
            while let Ok(len) = manager.recv(&mut buffer) {
                told.push(String::from_utf8_lossy(&buffer[..len]).into_owned());
            }
            told.iter().any(|message| message.lines().any(|said| said == line)).then_some(())
        });
    };
    hears("READY=1");
    let load = Load::of_requests(&cluster);
    for _ in 0..in_a_row() {
        go_on(&load);
        upgrade(&cluster);
    }
    go_on(&load);
    load.lost_nothing();
    cluster.primary().signal(Signal::TERM);
    hears("STOPPING=1");
    cluster.wait_success();
    let main = format!(
        "MAINPID={}",
        told.iter().find_map(|told| told.split("MAINPID=").nth(1)).expect("it was told")
    );
    let others = told
        .iter()
        .flat_map(|told| told.lines())
        .filter(|line| line.starts_with("MAINPID=") && !main.starts_with(line));
    assert_eq!(others.count(), 0, "{told:?}");
}

#[test]
fn an_app_in_the_background_keeps_a_guardian_that_starts_it_again() {
    needs!("python3");
    let (home, port) = (Home::new(), free_port());
    home.write("web.py", SERVER);
    home.say(&format!("start web.py --port {port} -w 2")).done();
    until("the app is ready", || home.app("web").filter(|app| app["ready"] == true));
    let primary = home.primary("web");
    let workers = |home: &Home| -> Vec<i64> {
        let app = home.app("web").expect("it is there");
        app["workers"]
            .as_array()
            .expect("workers")
            .iter()
            .filter_map(|worker| worker["pid"].as_i64())
            .collect()
    };
    let (before, load) = (workers(&home), load(port));
    let guardians = || -> Vec<i32> {
        let children = primary.children().into_iter().filter(|child| child.name() == "clusterd-guard");
        children.map(|guardian| guardian.pid()).collect()
    };
    let first = guardians();
    for _ in 0..in_a_row() {
        go_on(&load);
        home.say("upgrade web").done();
    }
    go_on(&load);
    load.lost_nothing();
    assert_eq!((home.primary("web").pid(), workers(&home)), (primary.pid(), before));
    let now = until("one guardian is there", || Some(guardians()).filter(|now| now.len() == 1));
    assert_ne!(now, first, "the guardian of the first image is replaced");
    primary.signal(Signal::KILL);
    until("the guardian has started the app again", || {
        let lock = home.app("web").filter(|app| app["ready"] == true)?;
        (lock["pid"].as_i64() != Some(i64::from(primary.pid()))).then_some(())
    });
    assert!(home.get(port).expect("it serves").starts_with("worker "));
}

fn load(port: u16) -> Load {
    Load::of_exchanges(SocketAddr::from(([127, 0, 0, 1], port)), |stream| {
        let answer = http::send_on(stream, "GET", "/")?.response()?;
        match answer.text().starts_with("worker ") {
            true => Ok(()),
            false => Err(std::io::Error::other(answer.text())),
        }
    })
}
