//! SIGKILL at any moment of an upgrade: nobody is left over, nothing has two owners, and where somebody starts clusterd again it
//! serves soon.
//!
//! A few times by default. `CLUSTERD_TEST_KILLS=500` is as often as that.

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use super::next::CLUSTERD;
use crate::harness::home::Home;
use crate::harness::needs::needs;
use crate::harness::ports::free_port;
use crate::harness::process::{Process, with_environment};
use crate::harness::said::Said;
use crate::harness::{Cluster, Signal, until};

/// How long a port may be taken, or an app not serve.
const SOON: Duration = Duration::from_secs(2);

/// On a loaded machine processes start later than that, which says nothing of clusterd.
const LOADED: Duration = Duration::from_secs(8);

fn kills() -> usize {
    let asked = std::env::var("CLUSTERD_TEST_KILLS").ok();
    asked.map_or(5, |asked| asked.parse().expect("a number of kills"))
}

fn is_thorough() -> bool {
    std::env::var_os("CLUSTERD_TEST_KILLS").is_some()
}

fn within() -> Duration {
    if is_thorough() { SOON } else { LOADED }
}

/// Lets a random part of the time pass that an upgrade takes.
fn at_a_random_moment(begun: Instant) {
    let until = begun + Duration::from_micros(fastrand::u64(0..450_000));
    while Instant::now() < until {
        thread::yield_now();
    }
}

#[track_caller]
fn all_end(processes: &[Process]) {
    until("nobody is left", || processes.iter().all(|process| !process.is_alive()).then_some(()));
}

#[test]
fn nobody_is_left_and_the_port_is_free() {
    needs!("python3");
    for _ in 0..kills() {
        let mut cluster = Cluster::of_servers().workers(2).start();
        let (primary, workers) = (cluster.primary(), cluster.workers());
        let home = cluster.home();
        let upgrade = thread::spawn(move || Said::of(&home, &[], "upgrade"));
        at_a_random_moment(Instant::now());
        let family = cluster.processes();
        primary.signal(Signal::KILL);
        let since = Instant::now();
        cluster.wait_exit();
        all_end(&workers);
        all_end(&family);
        let address = cluster.address();
        until("the port is free", || TcpListener::bind(address).ok());
        assert!(since.elapsed() < within(), "{:?}", since.elapsed());
        let _ = upgrade.join().unwrap();
    }
}

/// How many crashes a guardian mends within a minute.
const MENDED: usize = 5;

/// The guardian of one image or the other, and never both, starts it again.
#[test]
fn an_app_in_the_background_serves_again() {
    needs!("python3");
    let mut left = kills();
    while left > 0 {
        let count = left.min(MENDED);
        left -= count;
        let home = Home::new();
        let port = free_port();
        home.say(&format!("start {{fixtures}}/server.py --name web --port {port} -w 2")).done();
        until("it serves", || home.get(port));
        (0..count).for_each(|_| is_killed_and_serves_again(&home, port));
    }
}

fn is_killed_and_serves_again(home: &Home, port: u16) {
    let primary = home.primary("web");
    let family = primary.descendants().into_iter();
    let workers: Vec<_> =
        family.filter(|process| process.environment("CLUSTERD_WORKER_ID").is_some()).collect();
    let folder = home.home();
    let upgrade = thread::spawn(move || Said::of(&folder, &[], "upgrade web"));
    at_a_random_moment(Instant::now());
    primary.signal(Signal::KILL);
    let since = Instant::now();
    let next = until("another primary serves", || {
        let lock: serde_json::Value = serde_json::from_str(&home.file("web", "lock")).ok()?;
        let next = Process::find(i32::try_from(lock["pid"].as_i64()?).ok()?)?;
        (next.pid() != primary.pid()).then_some(())?;
        home.get(port).map(|_| next)
    });
    assert!(since.elapsed() < within(), "{:?}", since.elapsed());
    all_end(&workers);
    let _ = upgrade.join().unwrap();
    until("both workers are online, of one primary", || {
        let app = home.app("web")?;
        let workers = app["workers"].as_array()?;
        let are_online = workers.iter().all(|worker| worker["state"] == "online");
        (app["pid"] == next.pid() && are_online).then_some(())
    });
    until("there is one primary", || (primaries(home) == 1).then_some(()));
}

fn primaries(home: &Home) -> usize {
    let all = with_environment("CLUSTERD_HOME", home.home().to_str().expect("a path in UTF-8"));
    let is_primary = |process: &Process| {
        process.program().is_some_and(|program| program.to_str() == Some(CLUSTERD))
            && process.name() == "clusterd"
            && process.environment("CLUSTERD_WORKER_ID").is_none()
    };
    all.into_iter().filter(is_primary).count()
}
