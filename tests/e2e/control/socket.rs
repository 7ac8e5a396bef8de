//! The control socket itself: where it is, whom it serves, and what it stands.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::harness::needs::{self, needs};
use crate::harness::wait::PATIENCE;
use crate::harness::{Cluster, NOBODY, Said, Signal, until};

fn sockets(home: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(home).into_iter().flatten();
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("it is there").permissions().mode() & 0o7777
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

/// The file of the one socket in the home of this cluster.
fn socket(cluster: &Cluster) -> PathBuf {
    until("there is a socket", || <[PathBuf; 1]>::try_from(sockets(&cluster.home())).ok())[0].clone()
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    stream
}

#[test]
fn the_socket_is_for_its_user_alone_and_ends_with_clusterd() {
    let mut cluster = Cluster::demo().start();
    let socket = socket(&cluster);
    assert_eq!((mode(&cluster.home()), mode(&socket)), (0o700, 0o600));
    let name = format!("demo-{}.sock", cluster.primary().pid());
    assert_eq!(socket.file_name().expect("a name"), name.as_str());
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
    assert_eq!(sockets(&cluster.home()), [] as [PathBuf; 0]);
}

#[test]
fn what_a_killed_clusterd_leaves_is_removed_by_the_next_who_looks() {
    let mut cluster = Cluster::demo().start();
    let socket = socket(&cluster);
    cluster.primary().signal(Signal::KILL);
    cluster.wait_exit();
    assert!(socket.exists());
    assert_eq!(cluster.say("list").done(), "no running clusterd found for this user\n");
    assert!(!socket.exists());
}

#[test]
fn another_user_is_refused() {
    needs!("setpriv");
    if !needs::root() {
        return;
    }
    let setup = Cluster::demo();
    let program = setup.folder.copy_program(Path::new(env!("CARGO_BIN_EXE_clusterd")));
    let cluster = setup.start();
    let home = cluster.home();
    let by_nobody = |words| Said::by(&program, &home, &NOBODY, words);
    assert_eq!(by_nobody("list").done(), "no running clusterd found for this user\n");
    // As if the folder were shared.
    allow(&home, 0o755);
    allow(&socket(&cluster), 0o666);
    for words in ["list", "describe", "stop"] {
        let said = by_nobody(words);
        let reason = "user 65534 is not trusted; only user 0 and root are";
        assert!(said.stderr.contains(reason), "{words}: {said:?}");
    }
    cluster.get("/");
    assert_eq!(cluster.say("list -o json").json()[0]["stopped"], false);
}

#[test]
fn a_socket_that_another_user_put_into_a_shared_folder_is_not_believed() {
    needs!("setpriv");
    if !needs::root() {
        return;
    }
    let impostor = Cluster::demo().owned_by_nobody().start();
    allow(&impostor.home(), 0o777);
    let said = impostor.say("list");
    assert_eq!(said.done(), "no running clusterd found for this user\n");
    assert!(said.stderr.contains("not using the clusterd at "), "{}", said.stderr);
    assert!(said.stderr.contains(": user 65534 is not trusted"), "{}", said.stderr);
}

#[test]
fn the_owner_of_a_cluster_commands_it_and_so_does_root() {
    needs!("setpriv");
    if !needs::root() {
        return;
    }
    let setup = Cluster::demo().owned_by_nobody();
    let program = setup.folder.copy_program(Path::new(env!("CARGO_BIN_EXE_clusterd")));
    let cluster = setup.start();
    assert_eq!(mode(&socket(&cluster)), 0o600);
    let home = cluster.home();
    assert_eq!(Said::by(&program, &home, &NOBODY, "reload").done(), "demo: 1 worker replaced\n");
    assert_eq!(cluster.say("reload").done(), "demo: 1 worker replaced\n");
}

#[test]
fn on_a_read_only_root_the_socket_has_an_abstract_name() {
    needs!("unshare");
    if !needs::root() {
        return;
    }
    let read_only = "mount -o remount,bind,ro / && exec \"$@\"";
    let name = format!("test-{:x}", std::process::id());
    let cluster = Cluster::demo()
        .options(&format!("--name {name}"))
        .under(&["unshare", "--mount", "--propagation", "private", "sh", "-c", read_only, "sh"])
        .start();
    assert!(!cluster.home().exists());
    let app = cluster.say(&format!("describe {name} -o json")).json();
    assert_eq!(app["pid"], cluster.primary().pid());
    assert_eq!(cluster.say(&format!("reload {name}")).done(), format!("{name}: 1 worker replaced\n"));
}

#[test]
fn a_deep_folder_is_no_obstacle() {
    let setup = Cluster::demo();
    let home = setup.folder.path().join("x".repeat(100)).join("y".repeat(100));
    let cluster = setup.env("CLUSTERD_HOME", home.as_os_str()).start();
    assert_eq!(Said::of(&home, &[], "list -o json").json()[0]["pid"], cluster.primary().pid());
}

#[test]
fn garbage_and_silence_at_the_socket_hurt_nobody() {
    let cluster = Cluster::demo().start();
    let path = socket(&cluster);
    let silent: Vec<_> = (0..60).map(|_| connect(&path)).collect();
    for garbage in [b"\x16\x03\x01 hello\r\n\r\n".as_slice(), b"GET / HTTP/1.1\r\n\r\n", &[0; 100_000]] {
        let mut stream = connect(&path);
        let _ = stream.write_all(garbage);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let status = String::from_utf8_lossy(answer.get(9..12).unwrap_or_default()).into_owned();
        assert!(["", "400", "404", "431"].contains(&status.as_str()), "{status}");
    }
    cluster.say("list").done();
    cluster.get("/");
    drop(silent);
    assert_eq!(cluster.say("reload").done(), "demo: 1 worker replaced\n");
}

#[test]
fn beside_64_slow_clients_a_command_hears_why_it_is_refused_and_soon_is_not() {
    let cluster = Cluster::demo().start();
    let path = socket(&cluster);
    let begin = |beginning: &[u8]| {
        let mut client = connect(&path);
        client.write_all(beginning).expect("sent");
        client
    };
    let slow: Vec<_> = (0..64).map(|_| begin(b"GET /v1/apps HTTP/1.1\r\nHo")).collect();
    let refused: Vec<_> = (0..64).map(|_| begin(b"")).collect();
    let mut next = begin(b"GET /v1/apps HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut answer = String::new();
    next.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains(r#""code":"overloaded""#), "{answer}");
    let said = cluster.say("list");
    assert!(said.code == 1 && said.stdout.contains(" demo       -  no answer"), "{said:?}");
    assert!(said.stderr.contains("64 clients are connected already"), "{said:?}");
    cluster.get("/");
    until("slow clients have to leave", || (cluster.say("list").code == 0).then_some(()));
    assert_eq!(cluster.say("reload").done(), "demo: 1 worker replaced\n");
    drop((slow, refused));
}

#[test]
fn those_who_follow_events_without_reading_leave_room_for_commands() {
    let cluster = Cluster::demo().start();
    let path = socket(&cluster);
    let follow = || {
        let mut client = connect(&path);
        client.write_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        client
    };
    let followers: Vec<_> = (0..48).map(|_| follow()).collect();
    let mut refused = String::new();
    until("there is no place for a further one", || {
        let mut head = [0; 12];
        let mut client = follow();
        client.read_exact(&mut head).expect("an answer");
        (&head == b"HTTP/1.1 503").then(|| client.read_to_string(&mut refused).expect("a reason"))
    });
    assert!(refused.contains("48 clients follow events or answers of workers already"), "{refused}");
    cluster.say("list").done();
    assert_eq!(cluster.say("reload").done(), "demo: 1 worker replaced\n");
    drop(followers);
    until("there is a place again", || {
        let mut head = [0; 12];
        follow().read_exact(&mut head).expect("an answer");
        (&head == b"HTTP/1.1 200").then_some(())
    });
}

/// As `printf 'POST ...\r\n\r\n' | nc -N -U` does.
#[test]
fn a_client_that_closes_its_sending_side_follows_its_command_to_the_end() {
    let cluster = Cluster::demo().start();
    let mut client = connect(&socket(&cluster));
    client.write_all(b"POST /v1/apps/demo/reload HTTP/1.0\r\n\r\n").expect("sent");
    client.shutdown(Shutdown::Write).expect("it is open");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains(r#""event":"reload-started""#), "{answer}");
    assert!(answer.ends_with("{\"done\":\"1 worker replaced\"}\n"), "{answer}");
}

#[test]
fn events_can_be_followed_as_server_sent_events() {
    let cluster = Cluster::demo().start();
    let mut client = connect(&socket(&cluster));
    client.write_all(b"GET /v1/events HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n").expect("sent");
    let mut lines = BufReader::new(client).lines().map(|line| line.expect("a line"));
    let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    assert!(head.iter().any(|line| line == "content-type: text/event-stream"), "{head:?}");
    cluster.say("restart").done();
    let event = lines.next().expect("an event");
    let event: serde_json::Value =
        serde_json::from_str(event.strip_prefix("data: ").expect("data")).expect("JSON");
    assert_eq!(event["app"], "demo");
}

#[test]
fn a_follower_who_does_not_read_holds_up_nothing() {
    let cluster = Cluster::demo().start();
    let mut slow = connect(&socket(&cluster));
    slow.write_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    for _ in 0..20 {
        cluster.say("restart").done();
    }
    let mut answer = [0; 15];
    slow.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}

#[test]
fn a_clusterd_that_stands_still_is_told_of_and_the_others_are_shown() {
    let cluster = Cluster::demo().options("--name web").start();
    let still =
        Cluster::demo().options("--name still").env("CLUSTERD_HOME", cluster.home().as_os_str()).start();
    let primary = still.primary();
    primary.signal(Signal::STOP);
    until("it stands still", || primary.is_stopped().then_some(()));
    let (said, reload) = (cluster.say("list -o json"), cluster.say("reload still"));
    primary.signal(Signal::CONT);
    assert_eq!(said.code, 1, "one is missing");
    assert!(said.stderr.contains("does not answer"), "{}", said.stderr);
    let apps: serde_json::Value = serde_json::from_str(&said.stdout).expect("a list");
    assert_eq!((&apps[0]["name"], &apps[0]["pid"]), (&"web".into(), &cluster.primary().pid().into()));
    assert_eq!((&apps[1]["name"], &apps[1]["state"]), (&"still".into(), &"no answer".into()));
    assert_eq!(reload.code, 1);
    assert!(reload.stderr.contains("does not answer"), "{}", reload.stderr);
}
