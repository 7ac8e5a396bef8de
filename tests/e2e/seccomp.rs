//! Programs into which nothing can be preloaded: their bind and listen are intercepted, and they accept by themselves.

use std::path::Path;

use rustix::process::Signal;

use crate::harness::load::Load;
use crate::harness::needs::{needs, root};
use crate::harness::ports::free_port;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, build, until};

/// The server in Go that tells which worker has answered.
fn pages() -> String {
    build::go("go-pages", "pages.go")
}

fn of_pages() -> Setup {
    Cluster::of(&pages()).workers(3)
}

fn all_answer(cluster: &Cluster, workers: usize) {
    cluster.all_answer(workers, |answer| answer.split_whitespace().next().expect("a word").to_owned());
}

#[test]
fn a_go_server_is_served_without_a_setting() {
    needs!("go");
    let mut cluster = of_pages().start();
    all_answer(&cluster, 3);
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
}

#[test]
fn a_static_server_is_served_whichever_c_library_it_has() {
    for (name, compiler) in [
        ("static-server", &["gcc", "-static"] as &[&str]),
        ("static-pie-server", &["gcc", "-static-pie"]),
        ("static-musl-server", &["musl-gcc", "-static"]),
    ] {
        needs!(compiler[0]);
        let cluster = Cluster::of(&build::c(name, compiler)).workers(2).start();
        assert_eq!(cluster.get("/"), "c", "{name}");
    }
}

#[test]
fn scripts_and_wrappers_that_give_way_to_it_are_seen_through() {
    needs!("go", "sh", "nice");
    let script = format!("cd / && exec {}", pages());
    for setup in [Cluster::of("sh -c").arg(&script), Cluster::of(&format!("nice {}", pages()))] {
        let cluster = setup.workers(2).start();
        all_answer(&cluster, 2);
    }
}

#[test]
fn one_that_is_seen_only_as_it_fails_is_served_from_its_next_start_on() {
    needs!("go", "sh");
    // With the same number for all, no worker can bind it natively, and none is there to be looked at.
    let port = free_port();
    let setup = Cluster::of("sh -c").arg(&format!("X=1 {}; exit 1", pages())).workers(3);
    let cluster = setup.port(&port.to_string()).worker_port(port).start();
    all_answer(&cluster, 3);
    let said = cluster.stderr.text();
    assert!(
        said.contains("is a Go program, which bypasses the C library; workers accept by themselves"),
        "{said}"
    );
    assert!(!said.contains("use --attach seccomp"), "{said}");
}

#[test]
fn whoever_asks_for_it_gets_it_and_any_program_is_served_so() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).options("--attach seccomp").start();
    cluster.get("/");
    assert_eq!(cluster.worker(1).environment("LD_PRELOAD"), None, "nothing is preloaded");
}

#[test]
fn a_reload_loses_nothing() {
    needs!("go");
    let cluster = of_pages().start();
    Load::of_requests(&cluster).loses_nothing_by_a_reload(&cluster);
}

#[test]
fn what_a_stopped_worker_has_not_accepted_is_served_when_it_is_killed() {
    needs!("go");
    let cluster = of_pages().start();
    let load = Load::of_requests(&cluster);
    let worker = cluster.worker(2);
    worker.signal(Signal::STOP);
    // Until then all clients may have come to it.
    until("the others get its share", || {
        cluster.stderr.text().contains("took no connection in time").then_some(())
    });
    // What it had accepted when it was stopped ends with it.
    let accepted = worker.clients();
    worker.signal(Signal::KILL);
    cluster.wait_for(3, "online");
    load.goes_on();
    let lost = load.lost();
    assert!(lost.is_subset(&accepted), "{lost:?} were lost, and {accepted:?} were accepted");
}

#[test]
fn a_socket_that_epoll_watches_already_is_watched_on() {
    needs!("gcc");
    let program = build::program("early-epoll", "early_epoll.c", &["gcc", "-static"]);
    let cluster = Cluster::of(&program).workers(2).start();
    for _ in 0..6 {
        assert_eq!(cluster.get("/"), "e");
    }
}

#[test]
fn what_is_no_listener_on_a_served_port_is_left_alone() {
    needs!("gcc");
    let program = build::program("both-protocols", "both_protocols.c", &["gcc", "-static"]);
    let port = free_port();
    let cluster = Cluster::of(&program).port(&port.to_string()).worker_port(port).workers(2).start();
    assert_eq!(cluster.get("/"), format!("1 {port} 1"));
}

#[test]
fn a_setting_that_would_be_without_effect_is_an_error() {
    needs!("go");
    let ended = of_pages().options("--concurrency 1").run();
    assert_eq!(ended.status.code(), Some(78));
    assert!(
        ended.stderr.contains("is a Go program, which accepts by itself, so --concurrency"),
        "{}",
        ended.stderr
    );
}

#[test]
fn where_another_program_intercepts_it_is_said_at_the_start() {
    needs!("go", "python3");
    let clusterd = env!("CARGO_BIN_EXE_clusterd");
    let inner = format!("{clusterd} --port {} -- {}", free_port(), pages());
    let cluster = Cluster::of(&inner).options("--attach seccomp --max-restarts 1 --min-uptime 30s").launch();
    until("the inner one says why it cannot", || {
        let said = cluster.stderr.text() + &cluster.stdout.text();
        said.contains("another program intercepts system calls of this process already").then_some(())
    });
}

#[test]
fn without_privileges_workers_have_no_new_ones() {
    needs!("go", "setpriv");
    if !root() {
        return;
    }
    let cluster = of_pages().owned_by_nobody().start();
    all_answer(&cluster, 3);
    let status =
        std::fs::read_to_string(Path::new("/proc").join(cluster.worker(1).pid().to_string()).join("status"));
    assert!(status.expect("it runs").contains("NoNewPrivs:\t1"));
    assert!(cluster.stderr.text().contains("no_new_privs"));
}

#[test]
fn a_number_above_the_limit_is_said_to_be_so() {
    needs!("python3");
    let server = "
import os, resource, socket
listener = socket.socket()
number = os.dup2(listener.fileno(), 700)
resource.setrlimit(resource.RLIMIT_NOFILE, (600, 600))
try:
    socket.socket(fileno=number).bind(('', int(os.environ['PORT'])))
except OSError as error:
    print(error.strerror, flush=True)
";
    let cluster = Cluster::of("python3 {folder}/server.py").file("server.py", server);
    let cluster = cluster.options("--attach seccomp --nofile 1000").launch();
    let said = until("clusterd says why", || {
        let mut lines = cluster.stderr.lines().into_iter();
        lines.find(|line| line.contains("not below its limit of open files (RLIMIT_NOFILE)"))
    });
    assert!(said.contains(r#""number":700"#) && said.contains(r#""limit":600"#), "{said}");
    until("the server is told", || cluster.stdout.text().contains("Bad file descriptor").then_some(()));
}

#[test]
fn who_binds_memory_that_never_comes_holds_up_nobody_else() {
    needs!("gcc");
    let program = build::program("never-comes", "never_comes.c", &["gcc", "-static"]);
    let mut cluster =
        Cluster::of(&program).workers(2).options("--drain-timeout 1s --kill-timeout 1s").launch();
    until("the first has begun", || {
        let said = cluster.stdout.text();
        (said.contains("binds") || said.contains("no userfaultfd")).then_some(())
    });
    cluster.wait_for(1, "online");
    for _ in 0..4 {
        assert_eq!(cluster.get("/"), "ok");
    }
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
}

/// As root of a container: without privileges over the machine, and under the seccomp profile of this runtime.
pub(crate) fn in_container(setup: Setup, runtime: &str) -> Setup {
    let confined = build::program("confined", "confined.c", &["gcc"]);
    setup.under(&["setpriv", "--bounding-set=-sys_admin,-sys_ptrace,-bpf", &confined, runtime])
}

#[test]
fn under_the_profiles_of_container_runtimes_it_is_served() {
    needs!("gcc", "go", "setpriv");
    if !root() {
        return;
    }
    for runtime in ["docker", "containerd"] {
        let cluster = in_container(of_pages(), runtime).start();
        all_answer(&cluster, 3);
        let before = cluster.pids();
        let load = Load::of_requests(&cluster);
        cluster.reload().expect("the new workers start as the old ones did");
        load.goes_on();
        load.lost_nothing();
        assert!(before.is_disjoint(&cluster.pids()));
        assert!(!cluster.stderr.text().contains("ptrace access"), "{}", cluster.stderr.text());
    }
}
