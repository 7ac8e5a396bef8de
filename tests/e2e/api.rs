//! The HTTP API, as its description has it.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use crate::harness::folder::Folder;
use crate::harness::needs::needs;
use crate::harness::{Cluster, until};

/// What is beyond the narrowed description is taken, of course.
const CONFIG: &str = "[parameters]
'path.app' = 'web'
[[operations]]
include-name = 'POST /v1/apps/{app}/scale'
checks.negative_data_rejection.enabled = false
[[operations]]
include-name = 'POST /v1/apps/{app}/signal'
checks.negative_data_rejection.enabled = false
";

/// The description, with commands that the app of a test can bear: a thousand workers, or KILL, are as right.
fn description() -> Value {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    let mut description: Value =
        serde_json::from_slice(&std::fs::read(file).expect("it is there")).expect("it is JSON");
    let schemas = &mut description["components"]["schemas"];
    schemas["Workers"]["anyOf"] =
        json!([{ "type": "integer", "minimum": 1, "maximum": 3 }, { "type": "string", "enum": ["2"] }]);
    schemas["SignalBody"]["properties"]["signal"] = json!({ "enum": ["CONT", "WINCH"] });
    description
}

/// Passes on what comes over TCP: clients of the web know no Unix sockets.
fn bridge(socket: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it has one");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = UnixStream::connect(&socket) else { return };
            let (client_again, server_again) =
                (client.try_clone().expect("a duplicate"), server.try_clone().expect("a duplicate"));
            thread::spawn(move || {
                let _ = io::copy(&mut &client_again, &mut &server_again);
                let _ = server_again.shutdown(Shutdown::Write);
            });
            thread::spawn(move || pass_back(&server, &client));
        }
    });
    address
}

fn pass_back(server: &UnixStream, client: &TcpStream) {
    let _ = io::copy(&mut &*server, &mut &*client);
    let _ = client.shutdown(Shutdown::Both);
}

fn socket(home: &Path) -> PathBuf {
    until("there is a control socket", || {
        let files = std::fs::read_dir(home).ok()?.flatten().map(|entry| entry.path());
        files.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "sock"))
    })
}

/// schemathesis sends what the description allows and what it forbids, and looks whether the answers are described, too.
/// What follows without an end, what workers answer, and the command whose connection ends, is left out.
#[test]
fn the_api_is_as_it_is_described() {
    needs!("schemathesis");
    let folder = Folder::new();
    let cluster = Cluster::demo().workers(2).options("--name web --min-uptime 10ms").start();
    let address = bridge(socket(&cluster.home()));
    let schema = folder.write("openapi.json", &description().to_string());
    let config = folder.write("schemathesis.toml", CONFIG);
    let output = Command::new("schemathesis")
        .args(["--no-color", "--config-file"])
        .arg(config)
        .arg("run")
        .arg(schema)
        .args(["--url", &format!("http://{address}"), "--exclude-path", "/v1/events"])
        .args(["--exclude-path", "/v1/apps/{app}/upgrade"])
        .args(["--exclude-path", "/v1/apps/{app}/live"])
        .args(["--exclude-path", "/v1/apps/{app}/workers/{worker}/http/{path}"])
        .args([
            "--generation-deterministic",
            "--no-shrink",
            "--max-examples",
            "5",
            "--phases",
            "coverage,fuzzing",
        ])
        .args(["--request-timeout", "60", "--max-time", "30", "--continue-on-failure"])
        .current_dir(folder.path())
        .output()
        .expect("it can be started");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("10 selected / 14 total"), "{said}");
    assert_eq!(cluster.say("ping").code, 0, "and it goes on");
}
