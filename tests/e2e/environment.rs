//! What workers find in their environment: what clusterd was started with, files, settings, and what a command brings.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::harness::folder::fixtures;
use crate::harness::needs::{self, needs};
use crate::harness::said::Said;
use crate::harness::{Cluster, Signal, until};

/// What the two workers answer when they are asked for this variable, if it is the same.
#[track_caller]
fn has(cluster: &Cluster, name: &str) -> String {
    let said = [(); 4].map(|()| cluster.get(&format!("/env/{name}")));
    assert!(said.iter().all(|other| *other == said[0]), "{name}: {said:?}");
    said[0].clone()
}

#[test]
fn a_reload_takes_what_file_and_settings_say_by_then() {
    needs!("python3");
    let cluster = Cluster::of_servers()
        .workers(2)
        .env("A", "inherited")
        .env("B", "inherited")
        .env("C", "inherited")
        .env("D", "inherited")
        .file(".env", "B=dotenv\nC=dotenv\nD=dotenv\nE='# dotenv'\nPORT=1\n")
        .file("clusterd.toml", "[env]\nC = 'file'\nD = 'file'\nF = 1\n")
        .options("--config clusterd.toml --env-file .env --env D=flag --min-uptime 100ms")
        .start();
    let all = |cluster: &Cluster| ["A", "B", "C", "D", "E", "F", "PORT"].map(|name| has(cluster, name));
    assert_eq!(all(&cluster), ["inherited", "dotenv", "file", "flag", "# dotenv", "1", "8080"]);

    cluster.write(".env", "B=changed\n");
    cluster.write("clusterd.toml", "[env]\nC = 'changed'\n");
    cluster.reload().expect("it works");
    assert_eq!(all(&cluster), ["inherited", "changed", "changed", "flag", "", "", "8080"]);

    cluster.write(".env", "B=not\nlost\n");
    let failed = cluster.reload().expect_err("the file is wrong");
    assert!(failed.contains(".env:2: not an assignment"), "{failed}");
    assert_eq!(has(&cluster, "B"), "changed");
    std::fs::remove_file(cluster.folder().join(".env")).expect("it was there");
    let failed = cluster.reload().expect_err("the file is gone");
    assert!(failed.contains("cannot read the environment file"), "{failed}");
    assert_eq!(has(&cluster, "B"), "changed");

    // A worker that has to be started again waits for the file.
    cluster.worker(1).signal(Signal::KILL);
    until("describe says what is missing", || {
        cluster.say("describe").done().contains("cannot read the environment file").then_some(())
    });
    cluster.write(".env", "B=back\n");
    cluster.wait_online();
    until("the new worker has what is there now", || (cluster.get("/env/B") == "back").then_some(()));
}

/// Runs `clusterd` with these words in an environment that has these variables, and of the cluster's own none.
#[track_caller]
fn say_with(cluster: &Cluster, variables: &[&str], words: &str) -> Said {
    let under = [&["env"], variables].concat();
    Said::of(&cluster.home(), &under, words)
}

#[test]
fn update_env_brings_the_environment_of_the_command() {
    needs!("python3");
    let cluster = Cluster::of_servers()
        .workers(2)
        .env("OLD", "1")
        .env("BOTH", "old")
        .options("--env GIVEN=1 --min-uptime 100ms")
        .start();
    let all = |cluster: &Cluster| {
        ["OLD", "BOTH", "NEW", "GIVEN", "PORT", "CLUSTERD_WORKERS", "CLUSTERD_HOME"]
            .map(|name| has(cluster, name))
    };
    assert_eq!(all(&cluster), ["1", "old", "", "1", "8080", "2", ""]);
    cluster.say("reload").done();
    assert_eq!(all(&cluster), ["1", "old", "", "1", "8080", "2", ""]);

    let variables = ["BOTH=new", "NEW=x=y", "GIVEN=2", "PORT=1", "CLUSTERD_WORKERS=9"];
    say_with(&cluster, &variables, "reload --update-env").done();
    let new = ["", "new", "x=y", "1", "8080", "2", ""];
    assert_eq!(all(&cluster), new);
    assert_ne!(cluster.get("/env/LD_PRELOAD"), "");
    cluster.reload().expect("it works");
    cluster.worker(1).signal(Signal::KILL);
    cluster.wait_online();
    assert_eq!(all(&cluster), new, "it stays, whoever starts workers next");

    let said = say_with(&cluster, &["PATH=/nowhere"], "reload --update-env");
    assert_ne!(said.code, 0, "{said:?}");
    assert_eq!(all(&cluster), new, "a reload that fails changes nothing");

    say_with(&cluster, &["NEW=restarted"], "restart --update-env").done();
    assert_eq!(all(&cluster), ["", "", "restarted", "1", "8080", "2", ""]);
    let wrong = cluster.say("restart --update-env --worker 1");
    assert_eq!(wrong.code, 2, "{wrong:?}");
}

#[test]
fn describe_shows_the_environment_to_those_who_ask() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).env("SECRET", "a\nb").options("--env GIVEN=1").start();
    for words in ["describe", "list", "describe -o json"] {
        assert!(!cluster.say(words).done().contains("SECRET"), "{words}");
    }
    let text = cluster.say("describe --env").done().to_owned();
    for line in
        ["environment of all workers", "  SECRET=a\\nb", "  GIVEN=1", "  PORT=8080", "  CLUSTERD_WORKER_ID=2"]
    {
        assert!(text.lines().any(|other| other == line), "{line}: {text}");
    }
    let app = cluster.say("describe --env -o json").json();
    let workers = app["workers"].as_array().expect("workers");
    let of = |worker: &Value, name: &str| worker["environment"][name].as_str().map(str::to_owned);
    for (index, worker) in workers.iter().enumerate() {
        assert_eq!(of(worker, "SECRET").as_deref(), Some("a\nb"));
        assert_eq!(of(worker, "NODE_APP_INSTANCE"), Some(index.to_string()));
        let process = cluster.worker(index as u32 + 1);
        assert!(process.environment("CLUSTERD_ATTACH_TOKEN").is_some());
        assert_eq!(of(worker, "CLUSTERD_ATTACH_TOKEN"), None, "that is a secret");
    }
}

#[test]
fn dotenv_itself_reads_the_table_so() {
    if !needs::package("dotenv") {
        return;
    }
    const READ: &str = "
        const { parse } = require('dotenv')
        const rows = JSON.parse(require('fs').readFileSync(process.argv[1], 'utf8'))
        console.log(JSON.stringify(rows.map(row => parse(row.text))))";
    let table = fixtures().join("environment/dotenv.json");
    let output = Command::new("node").args(["-e", READ]).arg(&table).output().expect("node can be started");
    assert!(output.status.success(), "{output:?}");
    let read: Vec<BTreeMap<String, String>> = serde_json::from_slice(&output.stdout).expect("JSON");
    let rows: Vec<Value> =
        serde_json::from_str(&std::fs::read_to_string(table).expect("the table")).expect("JSON");
    assert_eq!(read.len(), rows.len());
    for (row, read) in rows.iter().zip(read) {
        assert_eq!(row["dotenv"], serde_json::json!(read), "{}", row["text"]);
    }
}

#[test]
fn a_variable_is_counted_up_named_anew_or_kept_back() {
    needs!("python3");
    let cluster = Cluster::of_servers()
        .workers(2)
        .env("SECRET", "s")
        .options("--env N=7000 --increment-var N --instance-var INSTANCE --filter-env SECRET")
        .start();
    let of = |cluster: &Cluster, worker: u32, name: &str| {
        let described = cluster.say("describe --env -o json").json();
        let workers = described["workers"].as_array().expect("a list").clone();
        let environment = workers[worker as usize - 1]["environment"].clone();
        environment[name].as_str().map(str::to_owned)
    };
    let text = |text: &str| Some(text.to_owned());
    for worker in [1, 2] {
        let number = worker - 1;
        assert_eq!(of(&cluster, worker, "N"), text(&format!("700{number}")));
        assert_eq!(of(&cluster, worker, "INSTANCE"), text(&number.to_string()));
        assert_eq!(of(&cluster, worker, "NODE_APP_INSTANCE"), None);
        assert_eq!(of(&cluster, worker, "SECRET"), None);
    }
    cluster.say("scale 3").done();
    cluster.reload().expect("it works");
    let all: Vec<_> = (1..=3).map(|worker| of(&cluster, worker, "N").expect("it has it")).collect();
    assert_eq!(all, ["7000", "7001", "7002"]);
}
