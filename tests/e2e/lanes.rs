//! What each launch of a server needs for itself beside the port of its clients: a second port, files, Unix sockets. The
//! new launch of a reload lives beside the old, so they are named by `CLUSTERD_LANE`: the recipes of the guide.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use crate::harness::needs::needs;
use crate::harness::ports::{free_port, free_ports};
use crate::harness::setup::Setup;
use crate::harness::{Cluster, Signal, until};

const WORKERS: u32 = 2;

const APP: &str = "
def app(environment, start_response):
    start_response('200 OK', [('Content-Length', '8')])
    return [b'gunicorn']
";

/// gunicorn with all that it can have of its own, named by this variable.
fn gunicorn(variable: &str, base: u16) -> Setup {
    let script = format!(
        "exec gunicorn -b 127.0.0.1:{{port}} -b 127.0.0.1:$(({base} + {variable})) -b unix:{{folder}}/${variable}.sock \
         --pid {{folder}}/${variable}.pid --control-socket {{folder}}/${variable}.ctl --chdir {{folder}} app:app"
    );
    Cluster::of("sh -c").arg(&script).file("app.py", APP).workers(WORKERS).options("--ready-timeout 20s")
}

/// The lanes of the workers that there are now; no two have the same.
#[track_caller]
fn lanes(cluster: &Cluster) -> BTreeSet<u16> {
    let workers = cluster.workers();
    let lane = |worker: &crate::harness::process::Process| {
        worker.environment("CLUSTERD_LANE").expect("each has one").parse().expect("a number")
    };
    let lanes: BTreeSet<u16> = workers.iter().map(lane).collect();
    assert_eq!(lanes.len(), workers.len(), "{lanes:?}");
    lanes
}

#[test]
fn each_launch_has_its_own_port_pid_file_control_socket_and_unix_socket() {
    needs!("gunicorn");
    let base = free_ports(2 * WORKERS as u16) - 1;
    let cluster = gunicorn("CLUSTERD_LANE", base).start();
    assert_eq!(lanes(&cluster), BTreeSet::from([1, 2]));
    for _ in 0..2 {
        cluster.reload().expect("old and new have nothing in common");
        cluster.wait_for(u64::from(WORKERS), "online");
        until("the old ones are gone", || (cluster.workers().len() == WORKERS as usize).then_some(()));
        let lanes = lanes(&cluster);
        assert!(lanes.last() <= Some(&4), "at most two more than workers: {lanes:?}");
        for lane in lanes {
            let file = |kind: &str| cluster.folder().join(format!("{lane}.{kind}"));
            TcpStream::connect(("127.0.0.1", base + lane)).expect("its port");
            UnixStream::connect(file("sock")).expect("its Unix socket");
            UnixStream::connect(file("ctl")).expect("its control socket");
            let pid = std::fs::read_to_string(file("pid")).expect("its pid file");
            assert!(cluster.pids().contains(&pid.trim().parse().expect("a number")), "{pid} is a worker");
        }
        cluster.get("/");
    }
}

/// The control: what the number of a worker is for.
#[test]
fn the_number_of_a_worker_is_for_the_old_and_the_new_launch() {
    needs!("gunicorn");
    let cluster = gunicorn("CLUSTERD_WORKER_ID", free_ports(WORKERS as u16)).start();
    cluster.reload().expect_err("both want the same port");
    cluster.get("/");
}

#[test]
fn a_second_port_of_all_workers_is_named_with_what_helps() {
    needs!("gunicorn");
    let base = free_port();
    let script = format!(
        "exec gunicorn -b 127.0.0.1:{base} -b 127.0.0.1:{{port}} --no-control-socket --chdir {{folder}} app:app"
    );
    let cluster = Cluster::of("sh -c").arg(&script).file("app.py", APP).start();
    cluster.primary().signal(Signal::TTIN);
    let hint = format!("or have clusterd serve it too, to every client: --port {base}");
    until("the hint is given", || cluster.stderr.text().contains(&hint).then_some(()));
}
