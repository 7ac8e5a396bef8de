//! What clusterd asks of one worker over a private connection: probes, and the worker's own metrics. And when it has a
//! worker replaced, for that and for other reasons that the front sees.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::harness::needs::{ipv6, needs};
use crate::harness::process::Process;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, Signal, until};

/// Makes a test of each function that takes a [`Setup`] for each way in which workers get their connections.
macro_rules! every_way {
    ($($check:ident),+ $(,)?) => {
        $(mod $check {
            use crate::harness::Cluster;
            use crate::harness::needs::needs;

            #[test]
            fn python() {
                needs!("python3");
                super::$check(Cluster::of("python3 {fixtures}/asked.py"));
            }

            #[test]
            fn node() {
                needs!("node");
                super::$check(Cluster::of("node {fixtures}/node/asked.js").options("--attach auto"));
            }

            #[test]
            fn node_newconn() {
                needs!("node");
                super::$check(Cluster::of("node {fixtures}/node/asked.js").options("--attach node"));
            }
        })+
    };
}

every_way!(
    private_connections_reach_their_worker_and_no_client_loses_one,
    workers_metrics_are_told_apart_by_a_label,
    a_worker_gets_no_client_before_it_answers_its_probe,
    a_worker_that_answers_badly_is_replaced_and_no_request_fails,
    a_worker_that_hangs_is_replaced,
    a_worker_that_has_taken_its_share_of_connections_is_replaced_and_no_request_fails,
    a_worker_that_is_stuck_is_replaced,
);

/// Clients that ask one after the other until they are stopped.
struct Load<'a> {
    cluster: &'a Cluster,
    over: AtomicBool,
    served: AtomicU64,
    /// How those that failed did.
    failed: Mutex<Vec<String>>,
}

impl<'a> Load<'a> {
    /// Does `what` while four clients ask, and returns how many requests were answered; none may fail.
    #[track_caller]
    fn during(cluster: &'a Cluster, what: impl FnOnce(&Load<'_>)) -> u64 {
        let load = Load {
            cluster,
            over: AtomicBool::default(),
            served: AtomicU64::default(),
            failed: Mutex::default(),
        };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| load.ask());
            }
            what(&load);
            load.over.store(true, Ordering::Relaxed);
        });
        let (served, failed) =
            (load.served.into_inner(), load.failed.into_inner().expect("no client panics"));
        assert!(failed.is_empty(), "{} of {served} requests failed: {failed:?}", failed.len());
        served
    }

    fn ask(&self) {
        while !self.over.load(Ordering::Relaxed) {
            match self.cluster.try_get("/") {
                Ok(response) if response.status == 200 => drop(self.served.fetch_add(1, Ordering::Relaxed)),
                other => self.failed.lock().expect("no client panics").push(format!("{other:?}")),
            }
        }
    }

    fn wait_for(&self, requests: u64) {
        until("clients are served", || (self.served.load(Ordering::Relaxed) >= requests).then_some(()));
    }
}

fn private_connections_reach_their_worker_and_no_client_loses_one(setup: Setup) {
    const WORKERS: u32 = 3;
    let cluster = setup.workers(WORKERS).options("--scrape /metrics").start();
    let mut scrapes = 0;
    let served = Load::during(&cluster, |load| {
        for round in 1..=50 {
            let metrics = cluster.metrics();
            scrapes += 1;
            for slot in (1..=WORKERS).map(|slot| slot.to_string()) {
                let labels = [("worker", slot.as_str()), ("id", slot.as_str())];
                assert_eq!(metrics.sum("whoami", &labels), 1.0, "round {round}");
            }
            assert_eq!(metrics.sum("whoami", &[]), f64::from(WORKERS));
        }
        load.wait_for(100);
    });
    // Clients are all that is counted.
    let handed = cluster.handed(served);
    assert_eq!(handed.values().sum::<u64>(), served, "{handed:?}");
    assert_eq!(cluster.metrics().count("clusterd_connections_accepted_total", &[]), served);
    assert_eq!(scrapes, 50);
}

fn workers_metrics_are_told_apart_by_a_label(setup: Setup) {
    let cluster = setup.workers(2).options("--scrape /metrics --redispatch-after 30s").start();
    for _ in 0..4 {
        cluster.get("/");
    }
    let text = cluster.probe("/metrics").text();
    let expected = "# TYPE app_requests_total counter\napp_requests_total{worker=\"1\"} 2\n\
                    app_requests_total{worker=\"2\"} 2\n\
                    # HELP whoami The worker.\n# TYPE whoami untyped\n\
                    whoami{worker=\"1\",id=\"1\"} 1\nwhoami{worker=\"2\",id=\"2\"} 1\n\
                    # TYPE worker_process_start_time_seconds untyped\n\
                    worker_process_start_time_seconds{worker=\"1\"} 12\n\
                    worker_process_start_time_seconds{worker=\"2\"} 12\n";
    assert!(text.ends_with(expected), "{text}");
    assert!(text.contains("\nprocess_start_time_seconds "), "{text}");
    let errors =
        |worker| cluster.metrics().count("clusterd_worker_scrape_errors_total", &[("worker", worker)]);
    assert!(errors("1") >= 2, "a line of each page is nonsense");

    cluster.worker(1).signal(Signal::STOP);
    let slow = cluster.metrics();
    cluster.worker(1).signal(Signal::CONT);
    assert!(!slow.has("whoami", &[("worker", "1")]));
    assert!(slow.has("whoami", &[("worker", "2")]), "a worker that is stopped does not hold up the others");
    until("it is there again", || cluster.metrics().has("whoami", &[("worker", "1")]).then_some(()));
}

#[test]
fn a_probe_arrives_over_ipv6_where_the_server_listens_on_that() {
    needs!("python3");
    if !ipv6() {
        return;
    }
    let server = "python3 -u -m http.server {port} --bind ::1";
    let cluster = Cluster::of(server).workers(1).bind("[::1]:0:8080").options("--ready-http /").start();
    let told = || cluster.stderr.lines().into_iter().find(|line| line.contains("\"GET / HTTP/1.1\""));
    let line = until("the server has told who asked", told);
    assert!(line.starts_with("::1 "), "{line}");
}

fn a_worker_gets_no_client_before_it_answers_its_probe(setup: Setup) {
    let cluster = setup.workers(2).options("--ready-http /ready").launch();
    let output = cluster.stderr.clone();
    until("the probe has failed", || {
        let said = output.text();
        said.contains("worker is not ready yet: /ready answered 503 Service Unavailable").then_some(())
    });
    let pending = cluster.send("/");
    assert_eq!(cluster.probe("/readyz").status, 503);
    assert_eq!(cluster.metrics().count("clusterd_workers", &[("state", "online")]), 0);
    assert_eq!(cluster.metrics().count("clusterd_connections_handed_total", &[]), 0);
    cluster.open_gate("ready");
    cluster.wait_online();
    assert!(pending.response().expect("it has waited").text().starts_with("worker "));
    until("it is ready", || (cluster.probe("/readyz").status == 200).then_some(()));
}

/// Waits until another process fills this worker's slot, and every worker is online.
fn wait_replaced(cluster: &Cluster, slot: u32, old: &Process) {
    until("the worker is replaced", || (!old.is_alive()).then_some(()));
    cluster.worker(slot);
    cluster.wait_online();
}

fn a_worker_that_answers_badly_is_replaced_and_no_request_fails(setup: Setup) {
    let options = "--health-http /healthz --health-interval 200ms --health-failures 2";
    let cluster = setup.workers(2).options(options).start();
    let sick = cluster.worker(1);
    let before = cluster.worker(2).pid();
    Load::during(&cluster, |load| {
        cluster.write("sick", &format!("1 {}", sick.pid()));
        wait_replaced(&cluster, 1, &sick);
        load.wait_for(100);
    });
    assert_eq!(cluster.worker(2).pid(), before, "the healthy one stays");
    let failures = cluster.metrics().count("clusterd_worker_health_failures_total", &[("worker", "1")]);
    assert!(failures >= 2, "{failures}");
    let said = cluster.stderr.text();
    assert!(
        said.contains("worker is unhealthy: 2 probes in a row have failed: /healthz answered 503"),
        "{said}"
    );
}

fn a_worker_that_hangs_is_replaced(setup: Setup) {
    let options = "--health-http /healthz --health-interval 200ms --health-failures 2 --drain-timeout 500ms";
    let cluster = setup.workers(2).options(options).start();
    let hung = cluster.worker(2);
    cluster.write("hung", &format!("2 {}", hung.pid()));
    wait_replaced(&cluster, 2, &hung);
    let said = cluster.stderr.text();
    assert!(said.contains("no answer to /healthz within 200ms"), "{said}");
    for _ in 0..10 {
        cluster.get("/");
    }
}

fn a_worker_that_has_taken_its_share_of_connections_is_replaced_and_no_request_fails(setup: Setup) {
    let cluster = setup.workers(2).options("--max-connections 100").start();
    let old = [cluster.worker(1), cluster.worker(2)];
    let served = Load::during(&cluster, |_| {
        old.iter().zip(1..).for_each(|(old, slot)| wait_replaced(&cluster, slot, old));
    });
    assert!(served >= 180, "each of them has taken at least nine tenths of its share: {served}");
    let said = cluster.stderr.text();
    assert!(said.contains("it has taken 9") || said.contains("it has taken 100 connections"), "{said}");
}

fn a_worker_that_is_stuck_is_replaced(setup: Setup) {
    let options = "--handoff-timeout 100ms --stuck-timeout 500ms --drain-timeout 500ms --kill-timeout 500ms";
    let cluster = setup.workers(2).options(options).start();
    let stuck = cluster.worker(1);
    stuck.signal(Signal::STOP);
    until("it is found to be stuck", || {
        cluster.get("/");
        (cluster.metrics().count("clusterd_worker_stalled_listeners", &[]) == 1).then_some(())
    });
    wait_replaced(&cluster, 1, &stuck);
    until("nothing is stalled any more", || {
        (cluster.metrics().count("clusterd_worker_stalled_listeners", &[]) == 0).then_some(())
    });
    let said = cluster.stderr.text();
    assert!(said.contains("it has taken no connection for"), "{said}");
}

#[test]
fn a_page_without_end_is_left_out() {
    needs!("python3");
    let cluster = Cluster::of("python3 {fixtures}/asked.py").options("--scrape /endless").start();
    let before = cluster.primary().resident_bytes();
    for _ in 0..5 {
        assert!(!cluster.metrics().has("endless", &[]));
    }
    let errors = cluster.metrics().count("clusterd_worker_scrape_errors_total", &[("worker", "1")]);
    assert!(errors >= 5, "{errors}");
    let grown = cluster.primary().resident_bytes().saturating_sub(before);
    assert!(grown < 20_000_000, "clusterd has grown by {grown} bytes");
}

/// Django's ALLOWED_HOSTS: whoever asks for another host is answered 400.
fn django() -> Setup {
    let command =
        "django-admin runserver --noreload --pythonpath {fixtures} --settings django_site 0.0.0.0:{port}";
    Cluster::of(command)
        .options("--ready-http /healthz --scrape /metrics --health-http /healthz --health-interval 50ms")
}

#[test]
fn a_server_that_permits_only_its_hosts_is_asked_for_one_of_them() {
    needs!("django-admin");
    let cluster = django().env("CLUSTERD_PROBE_HEADER", "Host: example.com").start();
    assert!(cluster.metrics().has("host_info", &[("host", "example.com")]));
    let before = cluster.pids();
    // Its health is asked for all the while.
    until("it has been asked more often than it may fail", || {
        let lines = cluster.stderr.text().lines().filter(|line| line.contains("GET /healthz")).count();
        (lines > 5).then_some(())
    });
    assert_eq!(cluster.pids(), before);
    // On a busy machine one may come too late, but none is refused.
    assert!(!cluster.stderr.text().contains("answered 400"));
}

#[test]
fn a_server_that_refuses_the_host_of_probes_is_told_which_header_helps() {
    needs!("django-admin");
    let cluster = django().launch();
    let said = until("the probe has failed", || {
        cluster.stderr.lines().into_iter().find(|line| line.contains("worker is not ready yet: /healthz"))
    });
    assert!(said.contains("answered 400 Bad Request") && said.contains("--probe-header"), "{said}");
}
