//! `reload`, `restart`, `scale`, `stop`, `start` and `curl`.

use std::fs;

use crate::harness::needs::needs;
use crate::harness::said::Saying;
use crate::harness::{Cluster, until};

fn pids(cluster: &Cluster) -> Vec<i32> {
    let app = cluster.say("describe -o json").json();
    let workers = app["workers"].as_array().expect("a list").iter();
    workers.filter_map(|worker| i32::try_from(worker["pid"].as_i64()?).ok()).collect()
}

#[test]
fn a_reload_replaces_every_worker_and_tells_how() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).start();
    let before = pids(&cluster);
    let said = cluster.say("reload -o json");
    let mut lines = said.lines();
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(lines.pop().expect("an outcome")["done"], "2 workers replaced");
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().expect("an event")).collect();
    assert_eq!((events.first(), events.last()), (Some(&"reload-started"), Some(&"reload-done")));
    assert_eq!(events.iter().filter(|&&event| event == "worker-online").count(), 2);
    let after = pids(&cluster);
    assert!(after.len() == 2 && !after.iter().any(|pid| before.contains(pid)), "{before:?} {after:?}");
}

#[test]
fn a_version_that_crashes_fails_the_reload_and_is_quoted() {
    needs!("python3");
    let script =
        "[ -e broken ] && { echo 'no such database' >&2; exit 3; }; exec python3 {fixtures}/server.py";
    let cluster = Cluster::of("sh -c").arg(script).options("--name web").start();
    let before = pids(&cluster);
    cluster.open_gate("broken");
    let said = cluster.say("reload");
    assert_eq!((said.code, said.stdout.as_str()), (1, ""));
    assert!(said.stderr.starts_with("clusterd: web: "), "{}", said.stderr);
    assert!(said.stderr.contains("\n  | no such database\n"), "{}", said.stderr);
    let last = cluster.say("reload -o json").lines().pop().expect("an outcome");
    assert_eq!(
        (&last["error"]["code"], &last["error"]["last_lines"][0]),
        (&"failed".into(), &"no such database".into())
    );
    assert_eq!(pids(&cluster), before, "the old ones serve on");
    cluster.get("/");
}

/// What waits for a worker that a later command takes away is told so, and does not wait for ever.
#[test]
fn a_command_that_another_one_has_undone_ends() {
    needs!("python3");
    let cluster = Cluster::of_servers().env("SERVER_GATE", "gate").file("gate", "").workers(2).start();
    fs::remove_file(cluster.folder().join("gate")).expect("the gate is there");
    let workers = || cluster.say("describe -o json").json()["workers"].as_array().map(Vec::len);
    let more = Saying::start(&cluster.home(), "scale 4");
    until("they are started", || (workers() == Some(4)).then_some(()));
    assert_eq!(cluster.say("scale 3").code, 0);
    let more = more.ended();
    assert_eq!(more.code, 1, "{more:?}");
    assert!(
        more.stderr.contains("worker 4 is not wanted any more: another command came meanwhile"),
        "{more:?}"
    );
    let restart = Saying::start(&cluster.home(), "restart");
    until("they are restarted", || (cluster.stderr.messages("worker started").len() >= 7).then_some(()));
    assert_eq!(cluster.say("stop --worker 3").code, 0);
    let restart = restart.ended();
    assert!(restart.code == 1 && restart.stderr.contains("worker 3 is not wanted any more"), "{restart:?}");
    // One that takes workers away is done when these are gone, though others are in their place.
    cluster.open_gate("gate");
    cluster.wait_for(2, "online");
    let fewer = Saying::start(&cluster.home(), "scale 1");
    let scaled = || cluster.stderr.text().matches("scaled by a command").count();
    until("it is scaled for the third time", || (scaled() == 3).then_some(()));
    assert_eq!(cluster.say("scale 3").code, 0);
    assert_eq!(fewer.ended().code, 0);
    cluster.wait_for(3, "online");
}

#[test]
fn while_a_reload_is_under_way_another_one_is_refused() {
    needs!("python3");
    let cluster = Cluster::of_servers().env("SERVER_GATE", "gate").file("gate", "").start();
    fs::remove_file(cluster.folder().join("gate")).expect("the gate is there");
    let first = Saying::start(&cluster.home(), "reload");
    until("the reload is under way", || {
        let app = cluster.say("describe -o json").json();
        app["reload"].as_str().is_some_and(|by| by.starts_with("a command (pid ")).then_some(())
    });
    for words in ["reload", "scale 3"] {
        let second = cluster.say(words);
        assert_eq!((second.code, second.stdout.as_str()), (1, ""));
        assert!(second.stderr.contains("a reload by a command (pid "), "{}", second.stderr);
    }
    cluster.open_gate("gate");
    assert_eq!(first.ended().done(), "python3: 1 worker replaced\n");
}

#[test]
fn there_can_be_more_or_fewer_workers() {
    let cluster = Cluster::demo().start();
    for (words, count) in [("scale 3", 3), ("scale demo +1", 4), ("scale -2", 2), ("scale demo 1", 1)] {
        cluster.say(words).done();
        until("so many run", || (pids(&cluster).len() == count).then_some(()));
    }
    for words in ["scale 0", "scale -1", "scale 1025"] {
        let said = cluster.say(words);
        assert!(
            said.code == 1 && said.stderr.contains("must be between 1 and 1024"),
            "{words}: {}",
            said.stderr
        );
    }
    for words in ["scale", "scale many", "scale demo 1 2", "scale --workers 2"] {
        assert_eq!(cluster.say(words).code, 2, "{words}");
    }
}

#[test]
fn one_worker_or_all_are_restarted() {
    let cluster = Cluster::demo().workers(2).start();
    let [first, second] = pids(&cluster).try_into().expect("two");
    cluster.say("restart --worker 2").done();
    let [still, third] = pids(&cluster).try_into().expect("two");
    assert!(still == first && third != second);
    cluster.say("restart").done();
    assert!(!pids(&cluster).iter().any(|pid| [first, third].contains(pid)));
    let said = cluster.say("restart --worker 9");
    assert_eq!((said.code, said.stderr.as_str()), (1, "clusterd: demo: there is no worker 9\n"));
}

#[test]
fn a_stopped_app_refuses_its_clients_until_it_is_started() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).start();
    assert!(cluster.say("stop").done().starts_with("python3: stopped"));
    assert!(pids(&cluster).is_empty());
    assert!(cluster.say("list").done().contains("stopped"));
    let said = cluster.say("scale 3");
    assert!(said.code == 1 && said.stderr.contains("start it first"), "{}", said.stderr);
    until("clients are refused", || cluster.connect().is_err().then_some(()));
    // There is nothing to replace: all of these start it.
    for verb in ["start", "restart", "reload"] {
        cluster.say(verb).done();
        cluster.get("/");
        assert_eq!(pids(&cluster).len(), 2);
        cluster.say("stop").done();
    }
}

#[test]
fn one_worker_is_asked_and_no_other() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(3).options("--name web").start();
    for _ in 0..5 {
        for worker in 1..=3 {
            let said = cluster.say(&format!("curl --worker {worker} /"));
            let expected = format!("worker {worker} pid {}", cluster.worker(worker).pid());
            assert_eq!(said.done(), expected);
        }
    }
    assert_eq!(cluster.say("curl web -w 2 -d twelve+bytes /upload").done(), "12");
    let said = cluster.say("curl -i --worker 3 --port 8080 /env/PORT");
    assert!(said.done().starts_with("HTTP/1.1 200 OK\r\n"), "{said:?}");
    assert!(said.stdout.to_lowercase().contains("\r\ncontent-length: 4\r\n"), "{said:?}");
    assert!(said.stdout.ends_with("\r\n\r\n8080"), "{said:?}");
    let answer = cluster.say("curl -o json -w 1 /big/100000").json();
    assert_eq!((&answer["status"], answer["body"].as_str().map(str::len)), (&200.into(), Some(100_000)));
    let handed = cluster.metrics().handed();
    assert_eq!(handed.values().sum::<u64>(), 0, "clients' connections are counted, and no others");
}

#[test]
fn a_worker_that_cannot_be_asked_is_told_of() {
    needs!("python3");
    let cluster = Cluster::of_servers().start();
    let table = [
        ("curl --worker 9 /", 1, "there is no worker 9"),
        ("curl --worker 1 --port 99 /", 1, "workers do not serve on that port\nhint: they serve on 8080"),
        ("curl --worker 1 /exit/0", 1, "worker 1 does not answer: "),
        ("curl --worker 1", 2, "hint: use a path that begins with /, such as /healthz"),
        ("curl --worker 1 python3 path", 2, "hint: use a path that begins with /, such as /healthz"),
        ("curl --worker 1 -H nothing /", 2, "not a header"),
        ("curl /", 2, "--worker <N>"),
    ];
    for (words, code, complaint) in table {
        let said = cluster.say(words);
        assert!(said.code == code && said.stderr.contains(complaint), "{words}: {said:?}");
        assert_eq!(said.stdout, "");
    }
}
