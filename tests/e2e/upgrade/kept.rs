//! What the process is, it stays, and so are those that it starts later.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::next::{CLUSTERD, script};
use super::upgrade;
use crate::harness::home::Home;
use crate::harness::needs::needs;
use crate::harness::ports::free_port;
use crate::harness::process::Process;
use crate::harness::up::Up;
use crate::harness::{Cluster, Signal, until};

/// What the kernel tells of a process that no upgrade changes.
fn traits(process: &Process) -> BTreeMap<String, String> {
    let proc = PathBuf::from(format!("/proc/{}", process.pid()));
    let read = |name: &str| std::fs::read_to_string(proc.join(name)).expect("it lives");
    let mut traits = BTreeMap::new();
    for name in ["comm", "cmdline", "oom_score_adj", "cgroup", "timerslack_ns"] {
        traits.insert(name.to_owned(), read(name));
    }
    // The timeout of realtime tasks counts in units of its own on some kernels.
    let limits = read("limits");
    let limits: Vec<_> = limits.lines().filter(|line| !line.starts_with("Max realtime timeout")).collect();
    traits.insert("limits".to_owned(), limits.join("\n"));
    for link in ["cwd", "root", "exe"] {
        let target = std::fs::read_link(proc.join(link)).expect("it lives");
        traits.insert(link.to_owned(), target.to_string_lossy().into_owned());
    }
    // Parent, group, session, terminal and its group; priority and niceness; policy.
    let stat = read("stat");
    let fields: Vec<_> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    for (name, at) in
        [("ppid", 1), ("pgrp", 2), ("session", 3), ("tty", 4), ("tpgid", 5), ("nice", 16), ("policy", 38)]
    {
        traits.insert(name.to_owned(), fields[at].to_owned());
    }
    for line in read("status").lines() {
        let (name, value) = line.split_once(':').expect("a field");
        let kept = [
            "Umask",
            "Uid",
            "Gid",
            "Groups",
            "SigBlk",
            "SigIgn",
            "CapEff",
            "NoNewPrivs",
            "Seccomp",
            "Cpus_allowed",
        ];
        if kept.contains(&name) {
            traits.insert(name.to_owned(), value.trim().to_owned());
        }
    }
    traits
}

/// The same of a worker, of which each has another number and environment.
fn of_worker(cluster: &Cluster, slot: u32) -> (BTreeMap<String, String>, Vec<String>) {
    let worker = cluster.worker(slot);
    let environment = std::fs::read(format!("/proc/{}/environ", worker.pid())).expect("it lives");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let names = environment.split('\0').filter_map(|variable| Some(variable.split_once('=')?.0.to_owned()));
    let mut traits = traits(&worker);
    traits.remove("pgrp");
    let mut names: Vec<_> = names.collect();
    names.sort();
    (traits, names)
}

#[test]
fn the_process_is_what_it_was_and_so_is_a_worker_that_is_started_later() {
    needs!("python3", "nice", "prlimit", "chrt");
    let under =
        ["nice", "-n", "3", "chrt", "--batch", "0", "prlimit", "--core=1000:2000", "--nofile=500:900"];
    let cluster = Cluster::of_servers().workers(2).under(&under).start();
    let primary = cluster.primary();
    let (before, worker) = (traits(&primary), of_worker(&cluster, 1));
    upgrade(&cluster);
    upgrade(&cluster);
    assert_eq!(traits(&primary), before);
    let old = cluster.worker(1);
    old.signal(Signal::KILL);
    until("another one is in its place", || (cluster.worker(1).pid() != old.pid()).then_some(()));
    cluster.wait_online();
    let later = of_worker(&cluster, 1);
    assert_eq!(later.0, worker.0);
    assert_eq!(later.1, worker.1);
    assert!(!later.1.iter().any(|name| name == "CLUSTERD_CARRIED"));
}

#[test]
fn the_terminal_is_still_its_own() {
    needs!("script");
    let mut cluster = Cluster::demo().workers(1).on_a_terminal();
    let output = cluster.stdout.clone();
    until("it is ready", || output.text().contains("ready; try").then_some(()));
    let primary = cluster.primary();
    let before = traits(&primary);
    assert_ne!(before["tty"], "0");
    let said = cluster.say("upgrade");
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(traits(&primary), before);
    cluster.close_terminal();
    until("it ends with its terminal", || (!primary.is_alive()).then_some(()));
}

#[test]
fn workers_and_what_has_left_them_end_with_a_primary_that_is_killed() {
    needs!("python3", "setsid");
    let script = "setsid sleep 600 & exec python3 {fixtures}/server.py";
    let mut cluster = Cluster::of("sh -c").arg(script).workers(2).start();
    let guardian = |cluster: &Cluster| {
        let children = cluster.primary().children();
        until("there is one guardian", || {
            let mut guardians =
                children.iter().filter(|child| child.name() == "clusterd-guard" && child.is_alive());
            guardians.next().map(Process::pid)
        })
    };
    let before = guardian(&cluster);
    upgrade(&cluster);
    until("the guardian before is gone", || Process::find(before).is_none().then_some(()));
    let all = cluster.processes();
    assert!(all.iter().filter(|process| process.name() == "sleep").count() >= 2);
    cluster.primary().signal(Signal::KILL);
    cluster.wait_exit();
    until("nothing is left", || all.iter().all(|process| !process.is_alive()).then_some(()));
}

/// Orphans of workers come to clusterd, and are waited for.
#[test]
fn it_still_takes_in_orphans_and_waits_for_whom_the_image_before_has_started() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).start();
    upgrade(&cluster);
    let primary = cluster.primary();
    let worker = cluster.worker(2);
    worker.signal(Signal::KILL);
    until("another one is in its place", || (cluster.worker(2).pid() != worker.pid()).then_some(()));
    cluster.wait_online();
    until("no zombie stays", || (primary.zombies() == 0).then_some(()));
    let restarts = cluster.metrics().count("clusterd_worker_restarts_total", &[("worker", "2")]);
    assert_eq!(restarts, 1);
}

/// The folder of the program that runs is that which a guardian and the demo's workers start.
#[test]
fn the_guardian_runs_the_program_that_took_over() {
    let cluster = Cluster::demo().workers(1).start();
    let copy = cluster.folder().join("clusterd");
    std::fs::copy(CLUSTERD, &copy).expect("a copy");
    let said = cluster.say(&format!("upgrade --binary {}", copy.display()));
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(cluster.primary().program(), Some(copy.clone()));
    until("so does the guardian", || {
        let children = cluster.primary().children();
        let mut guardians = children.iter().filter(|child| child.name() == "clusterd-guard");
        guardians.any(|guardian| guardian.program().as_ref() == Some(&copy)).then_some(())
    });
}

#[test]
fn hooks_go_on_and_see_nothing_of_it() {
    let setup = Cluster::demo().workers(1);
    let folder = setup.folder.path().to_owned();
    let text =
        "#!/bin/sh\ncd {folder} && env > of.$CLUSTERD_EVENT && mv of.$CLUSTERD_EVENT seen.$CLUSTERD_EVENT\n";
    let hook = script(&folder, "hook", text);
    let cluster = setup.options(&format!("--on-event {}", hook.display())).start();
    upgrade(&cluster);
    let files = || {
        let entries = std::fs::read_dir(cluster.folder()).expect("a folder").flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("seen.")).collect::<Vec<_>>()
    };
    let upgraded = until("the hook is told of the upgrade", || {
        files().into_iter().find(|name| name.contains("upgraded"))
    });
    let environment = std::fs::read_to_string(cluster.folder().join(upgraded)).unwrap();
    assert!(!environment.contains("CLUSTERD_CARRIED"), "{environment}");
}

/// `up` itself has no workers and no clients, and stays what it is.
#[test]
fn apps_of_up_are_upgraded_each_by_itself() {
    needs!("python3");
    let home = Home::new();
    let [one, other] = [free_port(), free_port()];
    let app = |name: &str, port: u16| {
        let server = crate::harness::folder::fixtures().join("server.py");
        format!("[app.{name}]\ncommand = ['python3', '{}']\nport = {port}\nworkers = 1\n", server.display())
    };
    home.write("clusterd.toml", &(app("one", one) + &app("other", other)));
    let up = Up::start(&home, "");
    until("both serve", || home.get(one).and(home.get(other)));
    let pids = || ["one", "other"].map(|app| home.app(app).map(|app| app["pid"].clone()));
    let before = pids();
    let said = home.say("upgrade --all");
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(pids(), before);
    assert!(home.get(one).and(home.get(other)).is_some());
    up.signal(Signal::TERM);
    up.leaves_no_process();
}
