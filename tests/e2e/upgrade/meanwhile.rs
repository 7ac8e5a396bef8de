//! What comes in the middle of an upgrade: signals, commands, ends of workers, and another upgrade.

use std::thread;
use std::time::{Duration, Instant};

use super::next::script;
use super::upgrade;
use crate::harness::needs::needs;
use crate::harness::said::Said;
use crate::harness::{Cluster, Signal, until};

/// Waits until clusterd has said this so many times.
#[track_caller]
fn said(cluster: &Cluster, words: &str, count: usize) {
    until(&format!("it says {words:?} {count} times"), || {
        (cluster.stderr.messages(words).len() + cluster.stderr.said(&[words]).len() >= count).then_some(())
    });
}

/// A clusterd that takes over, and is asked for as long as the file `asks` is there.
fn slow(cluster: &Cluster) -> std::path::PathBuf {
    let text = "#!/bin/sh
if [ \"$1\" = restore-check ]; then : > {folder}/asked; while [ -e {folder}/asks ]; do sleep 0.02; done; fi
exec {clusterd} \"$@\"
";
    cluster.write("asks", "");
    script(cluster.folder(), "slow", text)
}

fn in_the_background(cluster: &Cluster, words: &str) -> thread::JoinHandle<Said> {
    let (home, words) = (cluster.home(), words.to_owned());
    thread::spawn(move || Said::of(&home, &[], &words))
}

/// Begins an upgrade that is in the middle of its check until `asks` is removed.
fn begun(cluster: &Cluster) -> thread::JoinHandle<Said> {
    let program = slow(cluster);
    let said = in_the_background(cluster, &format!("upgrade --binary {}", program.display()));
    until("the next image is asked", || cluster.folder().join("asked").exists().then_some(()));
    said
}

fn let_on(cluster: &Cluster) {
    std::fs::remove_file(cluster.folder().join("asks")).expect("it is there");
}

/// Each at another moment of an upgrade: the number of signals that it obeys is that which was sent.
#[test]
fn no_signal_is_lost() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).start();
    let count = 24;
    let upgrades = {
        let home = cluster.home();
        thread::spawn(move || (0..10).map(|_| Said::of(&home, &[], "upgrade")).collect::<Vec<_>>())
    };
    let primary = cluster.primary();
    for number in 1..=count {
        primary.signal(Signal::USR1);
        said(&cluster, "SIGUSR1: no log files to reopen", number);
        // At another point of what goes on there each time.
        let until = Instant::now() + Duration::from_millis(fastrand::u64(0..60));
        while Instant::now() < until {
            thread::yield_now();
        }
    }
    for said in upgrades.join().unwrap() {
        assert_eq!(said.code, 0, "{said:?}");
    }
}

#[test]
fn no_scaling_by_signals_is_lost() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(1).start();
    let primary = cluster.primary();
    for round in 0..4 {
        let said = in_the_background(&cluster, "upgrade");
        let until_then = Instant::now() + Duration::from_millis(fastrand::u64(0..400));
        while Instant::now() < until_then {
            thread::yield_now();
        }
        primary.signal(Signal::TTIN);
        // It ends what asks for metrics meanwhile.
        assert_eq!(said.join().unwrap().code, 0);
        cluster.wait_for(round + 2, "online");
    }
}

/// HUP reloads, and an upgrade waits for that, or it comes after.
#[test]
fn a_reload_by_a_signal_is_neither_lost_nor_disturbed() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).start();
    for round in 0..3 {
        let before = cluster.pids();
        let said = in_the_background(&cluster, "upgrade");
        let until_then = Instant::now() + Duration::from_millis(fastrand::u64(0..400));
        while Instant::now() < until_then {
            thread::yield_now();
        }
        assert_eq!(cluster.reload(), Ok(()), "round {round}");
        assert_eq!(said.join().unwrap().code, 0);
        until("all were replaced", || cluster.pids().is_disjoint(&before).then_some(()));
    }
}

#[test]
fn term_at_any_moment_stops_it() {
    needs!("python3");
    for _ in 0..5 {
        let mut cluster = Cluster::of_servers().workers(2).start();
        let said = in_the_background(&cluster, "upgrade");
        let until_then = Instant::now() + Duration::from_millis(fastrand::u64(0..500));
        while Instant::now() < until_then {
            thread::yield_now();
        }
        cluster.primary().signal(Signal::TERM);
        cluster.wait_success();
        let _ = said.join().unwrap();
    }
}

/// USR2 twice is once or twice, and never its default, which ends a process.
#[test]
fn usr2_upgrades_also_when_it_comes_again() {
    let cluster = Cluster::demo().workers(2).start();
    let (primary, workers) = (cluster.primary(), cluster.pids());
    for round in 1..=3 {
        primary.signal(Signal::USR2);
        primary.signal(Signal::USR2);
        said(&cluster, "upgraded from clusterd", round);
        primary.signal(Signal::USR2);
        assert!(!cluster.get("/").is_empty());
    }
    assert!(primary.is_alive());
    assert_eq!(cluster.pids(), workers);
}

/// One is carried out, one waits, and others are told.
#[test]
fn two_upgrades_at_once_are_one_after_the_other() {
    let cluster = Cluster::demo().workers(2).start();
    let first = begun(&cluster);
    let mut others: Vec<_> = (0..2).map(|_| in_the_background(&cluster, "upgrade")).collect();
    let refused = until("one is refused", || others.iter().position(thread::JoinHandle::is_finished));
    let refused = others.remove(refused).join().unwrap();
    assert!(
        refused.code != 0 && refused.stderr.contains("an upgrade of clusterd is under way"),
        "{refused:?}"
    );
    let_on(&cluster);
    assert_eq!(first.join().unwrap().code, 0);
    // What it wants is done.
    let waited = others.remove(0).join().unwrap();
    assert!(waited.code == 1 && waited.stderr.contains("takes over, by a command"), "{waited:?}");
    assert!(!cluster.get("/").is_empty());
    upgrade(&cluster);
}

#[test]
fn a_worker_that_ends_meanwhile_is_started_again() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).options("--restart-delay 50ms").start();
    for _ in 0..3 {
        let worker = cluster.worker(1);
        let said = begun(&cluster);
        worker.signal(Signal::KILL);
        let_on(&cluster);
        assert_eq!(said.join().unwrap().code, 0);
        std::fs::remove_file(cluster.folder().join("asked")).unwrap();
        until("another one is in its place", || (cluster.worker(1).pid() != worker.pid()).then_some(()));
        cluster.wait_online();
    }
}

/// Commands are carried out while the next image is asked, and the upgrade waits for their end.
#[test]
fn commands_that_come_meanwhile_are_carried_out() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).start();
    let asked = cluster.folder().join("asked");
    // Each in an upgrade of its own: the next image is waited for no longer than ten seconds.
    for (command, workers) in
        [("scale 3", 3), ("reload", 3), ("restart", 3), ("stop", 0), ("start", 3), ("scale 1", 1)]
    {
        let said = begun(&cluster);
        let done = cluster.say(command);
        assert_eq!(done.code, 0, "{command}: {done:?}");
        let_on(&cluster);
        assert_eq!(said.join().unwrap().code, 0, "{command}");
        std::fs::remove_file(&asked).unwrap();
        cluster.wait_for(workers, "online");
    }
    let said = begun(&cluster);
    let reload = in_the_background(&cluster, "reload");
    let_on(&cluster);
    assert_eq!(said.join().unwrap().code, 0);
    let reload = reload.join().unwrap();
    assert_eq!(reload.code, 0, "{reload:?}");
    assert!(!cluster.get("/").is_empty());
}

/// Each of them has its answer, from the one image or the other.
#[test]
fn no_command_is_left_without_an_answer() {
    let cluster = Cluster::demo().workers(2).start();
    let upgrades = {
        let home = cluster.home();
        thread::spawn(move || (0..10).map(|_| Said::of(&home, &[], "upgrade")).collect::<Vec<_>>())
    };
    while !upgrades.is_finished() {
        for command in ["list", "scale 2", "describe", "reset"] {
            let said = cluster.say(command);
            assert_eq!(said.code, 0, "{command}: {said:?}");
        }
    }
    for said in upgrades.join().unwrap() {
        assert_eq!(said.code, 0, "{said:?}");
    }
}

#[test]
fn an_upgrade_waits_for_a_reload_and_a_stop_does_not_wait_for_it() {
    needs!("python3");
    let mut cluster = Cluster::of_servers().env("SERVER_GATE", "gate").file("gate", "").workers(1).start();
    std::fs::remove_file(cluster.folder().join("gate")).unwrap();
    cluster.primary().signal(Signal::HUP);
    said(&cluster, "reload started", 1);
    let upgrade = in_the_background(&cluster, "upgrade");
    cluster.open_gate("gate");
    assert_eq!(upgrade.join().unwrap().code, 0);
    said(&cluster, "reload done", 1);

    std::fs::remove_file(cluster.folder().join("gate")).unwrap();
    cluster.primary().signal(Signal::HUP);
    said(&cluster, "reload started", 2);
    let upgrade = in_the_background(&cluster, "upgrade");
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
    assert_ne!(upgrade.join().unwrap().code, 0);
}

#[test]
fn an_app_in_any_state_is_upgraded() {
    needs!("python3");
    // Stopped.
    let cluster = Cluster::of_servers().workers(2).start();
    assert_eq!(cluster.say("stop").code, 0);
    let done = cluster.say("upgrade");
    assert_eq!(done.code, 0, "{done:?}");
    assert!(cluster.connect().is_err(), "clients are refused as before");
    assert_eq!(cluster.say("start").code, 0);
    assert!(!cluster.get("/").is_empty());

    // Errored in one slot, or about to be started again.
    let script = "[ $CLUSTERD_WORKER_ID = 1 ] && exit 3; exec python3 {fixtures}/server.py";
    let options = "--restart-delay 60s --max-restarts 3";
    let cluster = Cluster::of("sh -c").arg(script).workers(2).options(options).launch();
    cluster.wait_for(1, "online");
    let done = cluster.say("upgrade");
    assert_eq!(done.code, 0, "{done:?}");
    assert!(!cluster.get("/").is_empty());

    // With no port.
    let cluster = Cluster::of("sleep 600").no_port().workers(2).launch_with(0);
    until("both run", || (cluster.pids().len() == 2).then_some(()));
    let pids = cluster.pids();
    until("it is upgraded", || (cluster.say("upgrade").code == 0).then_some(()));
    assert_eq!(cluster.pids(), pids);
}

/// It has not said that it is ready, and does so to the next image.
#[test]
fn a_worker_that_is_not_ready_yet_says_so_to_the_next_image() {
    needs!("python3");
    let script = "while [ ! -e {folder}/ready ]; do sleep 0.05; done; exec python3 {fixtures}/server.py";
    let cluster = Cluster::of("sh -c").arg(script).workers(1).launch();
    until("it runs", || (cluster.pids().len() == 1).then_some(()));
    let done = cluster.say("upgrade");
    assert_eq!(done.code, 0, "{done:?}");
    cluster.open_gate("ready");
    cluster.wait_online();
    assert!(!cluster.get("/").is_empty());
}
