//! The attach socket and its hostile clients, and what a worker may do with its listener.

use std::os::fd::OwnedFd;
use std::process::Command;

use clusterd::internal::protocol::wire;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
};

use crate::harness::http::Pending;
use crate::harness::needs::{self, needs};
use crate::harness::ports::free_port;
use crate::harness::process::Process;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, NOBODY, RUNTIME_PLACES, noexec, until};

/// What a worker's process was given to attach with.
struct Invitation {
    socket: String,
    token: String,
    ports: String,
    preload: String,
}

impl Invitation {
    fn of(worker: &Process) -> Self {
        let read =
            |name: &str| worker.environment(name).unwrap_or_else(|| panic!("{name} is set in a worker"));
        Self {
            socket: read(wire::ENV_SOCKET),
            token: read(wire::ENV_TOKEN),
            ports: read(wire::ENV_PORTS),
            preload: read("LD_PRELOAD"),
        }
    }

    /// The command, run by somebody who has got hold of this.
    fn apply(&self, command: &mut Command) {
        command.env(wire::ENV_SOCKET, &self.socket).env(wire::ENV_TOKEN, &self.token);
        command.env(wire::ENV_PORTS, &self.ports).env("LD_PRELOAD", &self.preload);
    }

    /// A connection to the attach socket that has said nothing yet.
    fn connect(&self) -> rustix::io::Result<OwnedFd> {
        let address = match self.socket.strip_prefix('@') {
            Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes())?,
            None => SocketAddrUnix::new(self.socket.as_str())?,
        };
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        connect(&socket, &address)?;
        Ok(socket)
    }
}

/// Whether a Perl program that binds the served port gets it, and why not.
fn bind_as_stranger(invitation: &Invitation, under: &[&str]) -> String {
    let script = "use Socket; socket(S, AF_INET, SOCK_STREAM, 0); \
                  print bind(S, pack_sockaddr_in(8080, INADDR_ANY)) ? 'bound' : qq(refused: $!)";
    let words = [under, &["perl", "-e", script]].concat();
    let mut command = Command::new(words[0]);
    invitation.apply(command.args(&words[1..]));
    String::from_utf8_lossy(&command.output().expect("perl can be started").stdout).into_owned()
}

fn workers_are_untouched(cluster: &Cluster) {
    for _ in 0..6 {
        assert!(cluster.get("/").starts_with("worker "));
    }
    assert_eq!(cluster.metrics().count("clusterd_worker_restarts_total", &[]), 0);
}

#[test]
fn a_process_with_a_wrong_token_is_refused() {
    needs!("python3", "perl");
    let cluster = Cluster::of_servers().workers(2).start();
    let mut invitation = Invitation::of(&cluster.worker(1));
    let last = if invitation.token.ends_with('0') { "1" } else { "0" };
    invitation.token.replace_range(31.., last);
    let answer = bind_as_stranger(&invitation, &[]);
    assert!(answer.starts_with("refused: "), "{answer}");
    workers_are_untouched(&cluster);
}

#[test]
fn a_worker_that_becomes_another_user_before_it_binds_is_served() {
    needs!("perl", "setpriv");
    if !needs::root() {
        return;
    }
    let script = "exec setpriv --reuid=65534 --regid=65534 --clear-groups perl {folder}/server.pl";
    let servers = Cluster::of("sh -c").arg(script).file("server.pl", include_str!("fixtures/server.pl"));
    let cluster = servers.workers(2).start();
    workers_are_untouched(&cluster);
    assert_eq!(cluster.worker(1).user(), Some(65534));
}

#[test]
fn a_user_without_the_token_is_refused_and_the_log_says_so() {
    needs!("python3", "perl", "setpriv");
    if !needs::root() {
        return;
    }
    let cluster = Cluster::of_servers().workers(2).start();
    let mut invitation = Invitation::of(&cluster.worker(1));
    invitation.token = "0".repeat(32);
    let answer = bind_as_stranger(&invitation, &NOBODY);
    assert_eq!(answer, "refused: Permission denied");
    until("the log tells it", || {
        let told = |line: &String| line.contains("token does not belong to a running worker");
        cluster.stderr.lines().iter().any(told).then_some(())
    });
    workers_are_untouched(&cluster);
}

/// Whatever a worker binds beside a listener of its own, it is told what the kernel would have told it.
#[test]
fn a_second_listener_of_a_worker_is_refused_where_the_kernel_refuses_it() {
    needs!("python3");
    binds_as_natively(Cluster::of("python3 {fixtures}/binds.py {port}"));
}

#[test]
fn it_is_so_of_workers_that_accept_by_themselves() {
    needs!("python3");
    let port = free_port();
    let setup = Cluster::of("python3 {fixtures}/binds.py {port}").port(&port.to_string()).worker_port(port);
    binds_as_natively(setup.options("--accept workers"));
}

#[track_caller]
fn binds_as_natively(setup: Setup) {
    let cluster = setup.workers(1).start();
    let done = |lines: &[String]| lines.iter().any(|line| line == "done");
    until("it has tried everything", || done(&cluster.stdout.lines()).then_some(()));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/fixtures/binds.py");
    let free = std::net::TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
    let native = Command::new("python3").args([script, &free.to_string(), "once"]).output().unwrap();
    let native = String::from_utf8(native.stdout).unwrap();
    assert_eq!(cluster.stdout.lines(), native.lines().collect::<Vec<_>>());
    let said =
        cluster.stderr.lines().iter().filter(|line| line.contains("bind fails with EADDRINUSE")).count();
    assert_eq!(said, 1, "it is said once");
}

#[test]
fn the_token_of_a_worker_that_is_gone_is_refused() {
    needs!("python3", "perl");
    let cluster = Cluster::of_servers().workers(2).start();
    let worker = cluster.worker(1);
    let invitation = Invitation::of(&worker);
    worker.signal(crate::harness::Signal::KILL);
    until("the worker is replaced", || (!worker.is_alive()).then_some(()));
    cluster.worker(1);
    cluster.wait_online();
    let answer = bind_as_stranger(&invitation, &[]);
    assert!(answer.starts_with("refused: "), "{answer}");
}

#[test]
fn garbage_on_the_attach_socket_hurts_nobody() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).start();
    let invitation = Invitation::of(&cluster.worker(1));
    let records: [&[u8]; 6] = [&[], &[0], &[1, 1], &[1, 1, 0, 0, 0, 0], &[255; 48], &[b'x'; 4000]];
    let mut open = Vec::new();
    for record in records.iter().cycle().take(60) {
        if let Ok(socket) = invitation.connect() {
            let _ = send(&socket, record, SendFlags::NOSIGNAL);
            open.push(socket);
        }
    }
    workers_are_untouched(&cluster);
    assert_a_new_worker_can_attach(&cluster);
}

#[test]
fn silent_and_half_open_attaches_keep_no_worker_out() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).start();
    let invitation = Invitation::of(&cluster.worker(1));
    let silent: Vec<_> = (0..600).map_while(|_| invitation.connect().ok()).collect();
    assert!(!silent.is_empty());
    workers_are_untouched(&cluster);
    assert_a_new_worker_can_attach(&cluster);
}

/// Replaces a worker, whose successor has to attach beside whatever else is on the attach socket.
fn assert_a_new_worker_can_attach(cluster: &Cluster) {
    let worker = cluster.worker(1);
    worker.signal(crate::harness::Signal::KILL);
    until("the worker is gone", || (!worker.is_alive()).then_some(()));
    until("its successor serves", || {
        let answer = cluster.try_get("/").ok()?.text();
        (answer.starts_with("worker 1 ") && !answer.ends_with(&format!("pid {}", worker.pid()))).then_some(())
    });
}

#[test]
fn a_grandchild_may_be_the_server() {
    needs!("python3");
    let script = "sh -c 'python3 {fixtures}/server.py; true'; true";
    let cluster = Cluster::of("sh -c").arg(script).workers(2).start();
    for _ in 0..6 {
        let answer = cluster.get("/");
        let pid: i32 = answer.rsplit(' ').next().unwrap().parse().expect("a pid");
        assert!(
            !Process::find(pid).expect("the server lives").leads_its_group(),
            "it is not the worker itself"
        );
    }
}

#[test]
fn a_worker_that_closes_its_listener_and_listens_again_is_served_again() {
    needs!("python3");
    let cluster = Cluster::of_servers().env("SERVER_SERIAL", "1").workers(2).start();
    for _ in 0..10 {
        cluster.get("/relisten");
    }
    let handed = cluster.handed(10);
    for _ in 0..10 {
        cluster.get("/");
    }
    let after = cluster.handed(20);
    assert!(
        after.iter().all(|(worker, count)| *count > handed[worker]),
        "both serve on: {handed:?}, {after:?}"
    );
    assert_eq!(cluster.metrics().count("clusterd_worker_restarts_total", &[]), 0);
}

#[test]
fn a_worker_without_free_descriptors_loses_nothing() {
    needs!("python3");
    let script = "ulimit -n 40; exec python3 {fixtures}/server.py";
    let cluster = Cluster::of("sh -c").arg(script).options("--handoff-timeout 300ms").start();
    let pending: Vec<Pending> = (0..100).map(|_| cluster.send("/hold/gate")).collect();
    until("the worker has taken what it can hold", || {
        (cluster.metrics().handed().values().sum::<u64>() >= 25).then_some(())
    });
    cluster.open_gate("gate");
    for request in pending {
        assert_eq!(request.response().expect("each is served").status, 200);
    }
}

#[test]
fn options_of_the_listener_hold_for_its_connections() {
    needs!("python3");
    let cluster = Cluster::of_servers().env("SERVER_OPTIONS", "1").start();
    assert_eq!(cluster.get("/options"), "nodelay=1 keepalive=1 idle=77");
}

#[test]
fn a_connection_has_the_usual_options_where_the_server_sets_none() {
    needs!("python3");
    let cluster = Cluster::of_servers().start();
    assert!(cluster.get("/options").starts_with("nodelay=0 keepalive=0 "));
}

#[test]
fn a_worker_inherits_standard_streams_a_node_channel_and_nothing_else() {
    needs!("python3");
    let cluster = Cluster::of_servers().start();
    assert_eq!(cluster.get("/fds"), "0 1 2 3");
    assert_eq!(cluster.worker(1).environment("NODE_CHANNEL_FD").as_deref(), Some("3"));
}

#[test]
fn without_a_node_channel_a_worker_inherits_standard_streams_and_nothing_else() {
    needs!("python3");
    let cluster = Cluster::of_servers().env("NODE_CHANNEL_FD", "7").options("--attach preload").start();
    assert_eq!(cluster.get("/fds"), "0 1 2");
    assert_eq!(cluster.worker(1).environment("NODE_CHANNEL_FD"), None);
}

#[test]
fn a_descriptor_that_clusterd_inherited_does_not_reach_its_workers() {
    needs!("python3");
    let open_nine = "exec 9</dev/null; exec \"$@\"";
    let cluster = Cluster::of_servers().under(&["sh", "-c", open_nine, "sh"]).start();
    assert_eq!(cluster.get("/fds"), "0 1 2 3");
}

#[test]
fn ports_that_are_not_served_are_bound_as_ever() {
    needs!("python3");
    let cluster = Cluster::of("sh -c").arg(
        "python3 -c 'import socket; s = socket.socket(); s.bind((\"127.0.0.1\", 0)); s.listen(); \
         c = socket.create_connection(s.getsockname()); a, peer = s.accept(); \
         print(\"own\", peer == c.getsockname(), flush=True)'; exec python3 {fixtures}/server.py",
    );
    let cluster = cluster.start();
    until("the program has used a port of its own", || {
        cluster.stdout.lines().contains(&"own True".to_owned()).then_some(())
    });
}

#[test]
fn the_name_of_the_listener_is_the_one_that_the_server_asked_for() {
    needs!("python3");
    let script = "import socket; s = socket.create_server(('0.0.0.0', 8080)); print('name', s.getsockname(), \
                  s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), flush=True); s.accept()";
    let cluster = Cluster::of("python3 -c").arg(script).start();
    until("the program says its listener's name", || {
        cluster.stdout.lines().contains(&"name ('0.0.0.0', 8080) 1".to_owned()).then_some(())
    });
}

#[test]
fn a_worker_that_ignores_term_does_not_spin_and_is_gone_after_the_primary() {
    needs!("python3");
    let mut cluster = Cluster::of_servers()
        .env("SERVER_IGNORE_TERM", "1")
        .options("--drain-timeout 500ms --kill-timeout 500ms")
        .start();
    let worker = cluster.worker(1);
    let before = worker.cpu_ticks();
    cluster.primary().signal(crate::harness::Signal::KILL);
    cluster.wait_exit();
    until("the worker is gone", || {
        let used = worker.cpu_ticks().saturating_sub(before);
        assert!(used < 200, "it has used {used} ticks of CPU since");
        (!worker.is_alive()).then_some(())
    });
}

#[test]
fn the_shim_is_loaded_where_no_program_may_run_from_the_runtime_folder() {
    needs!("perl", "unshare");
    if !needs::root() {
        return;
    }
    for (places, shim_is_below) in [("/run", "/tmp/"), (RUNTIME_PLACES, "/proc/")] {
        let cluster = Cluster::of("perl {fixtures}/server.pl").under(&noexec(places)).workers(2).start();
        let shim = cluster.worker(1).environment("LD_PRELOAD").expect("it is preloaded");
        assert!(shim.starts_with(shim_is_below), "{places}: {shim}");
        assert!(cluster.get("/").starts_with("worker "));
    }
}
