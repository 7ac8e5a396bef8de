//! What verbs mean by a word, and the verbs that look at workers or tell them something.

use serde_json::{Value, json};

use crate::harness::home::Home;
use crate::harness::needs::needs;
use crate::harness::ports::free_port;
use crate::harness::{http, until};

/// A worker that lives until it is told to end.
const JOB: &str = "#!/bin/sh\necho working\nexec sleep 1000\n";

/// A home with `job.sh`.
fn home() -> Home {
    let home = Home::new();
    home.write("job.sh", JOB);
    home
}

fn start(home: &Home, name: &str, more: &str) {
    home.say(&format!("start job.sh --name {name} {more}")).done();
}

/// The names of the apps of which a verb has said that something was done.
fn done(home: &Home, words: &str) -> Vec<String> {
    let said = home.say(words);
    said.done().lines().map(|line| line.split(':').next().unwrap_or_default().to_owned()).collect()
}

fn stopped(home: &Home) -> Vec<String> {
    let apps = home.say("list -o json").json();
    let is_stopped = |app: &&Value| app["stopped"] == true || app["state"] == "stopped";
    let stopped = apps.as_array().expect("a list").iter().filter(is_stopped);
    stopped.map(|app| app["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn a_namespace_means_every_app_in_it() {
    let home = home();
    start(&home, "web", "--namespace shop");
    start(&home, "api", "--namespace shop");
    start(&home, "shop2", "--namespace web");
    assert_eq!(home.app("api").expect("it runs")["namespace"], "shop");
    assert!(home.say("describe web").done().contains("\nnamespace shop\n"));
    assert_eq!(done(&home, "stop shop"), ["api", "web"]);
    assert_eq!(stopped(&home), ["api", "web"]);
    // A name goes before a namespace.
    assert_eq!(done(&home, "start web"), ["web"]);
    assert_eq!(stopped(&home), ["api"]);
    // Those that do not run are in it, too.
    assert_eq!(done(&home, "kill"), ["api", "shop2", "web"]);
    assert_eq!(home.say("describe api -o json").json()["namespace"], json!("shop"));
    assert_eq!(done(&home, "start shop"), ["api", "web"]);
    assert_eq!(done(&home, "flush shop"), ["api", "web"]);
    assert_eq!(done(&home, "delete shop"), ["api", "web"]);
    let said = home.say("stop shop");
    assert!(
        said.code == 1
            && said.stderr.starts_with("clusterd: there is no app shop: no running clusterd found"),
        "{said:?}"
    );
}

#[test]
fn it_is_clear_what_all_words_mean_before_anything_is_done() {
    let home = home();
    start(&home, "web", "");
    home.say("stop web").done();
    let said = home.say("start web nobody");
    assert_eq!((said.code, said.stdout.as_str()), (1, ""), "{said:?}");
    assert_eq!(stopped(&home), ["web"]);
    home.say("start web").done();
    for verb in ["delete", "reloadLogs", "restart", "flush"] {
        let said = home.say(&format!("{verb} web nobody"));
        assert_eq!((said.code, said.stdout.as_str()), (1, ""), "{said:?}");
        assert!(said.stderr.contains("no app nobody"), "{said:?}");
    }
    assert!(home.app("web").is_some());
    // Twice named is once meant.
    assert_eq!(done(&home, "restart web all"), ["web"]);
    assert_eq!(done(&home, "delete web web"), ["web"]);
}

/// What a verb prints, line by line.
fn lines(home: &Home, words: &str) -> Vec<String> {
    home.say(words).done().lines().map(str::to_owned).collect()
}

/// The pids of an app's workers, as `list` shows them.
fn pids(home: &Home, app: &str) -> Vec<i64> {
    let app = home.app(app).expect("it is listed");
    let workers = app["workers"].as_array().expect("a list").iter();
    workers.filter_map(|worker| worker["pid"].as_i64()).collect()
}

/// Starts an app whose workers are all online, with their numbers, by the end.
fn start_all(home: &Home, name: &str, workers: usize) {
    start(home, name, &format!("-w {workers}"));
    until("all run and have numbers", || {
        let app = home.app(name)?;
        let workers = app["workers"].as_array()?;
        workers.iter().all(|worker| worker["id"].is_u64() && worker["state"] == "online").then_some(())
    });
}

#[test]
fn pids_and_ids_are_a_line_each() {
    let home = home();
    assert_eq!((home.say("pid").code, home.say("pid").stdout.as_str()), (0, ""));
    start_all(&home, "web", 2);
    start_all(&home, "api", 1);
    let of = |app: &str| pids(&home, app).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(lines(&home, "pid web"), of("web"));
    assert_eq!(lines(&home, "pid"), [of("api"), of("web")].concat());
    assert_eq!(lines(&home, "pid 1"), [of("web")[1].clone()]);
    let told = home.say("pid api -o json").json();
    assert_eq!(told, json!([{ "pid": pids(&home, "api")[0], "app": "api", "worker": 1, "id": 2 }]));
    assert_eq!(
        (lines(&home, "id web"), lines(&home, "id api")),
        (vec!["0".into(), "1".into()], vec!["2".into()])
    );
    assert_eq!(home.say("id web api -o json").json(), json!([0, 1, 2]));
    // PM2 says nothing of what it does not know, and calls that a success.
    for words in ["pid nobody", "id nobody"] {
        let said = home.say(words);
        assert_eq!((said.code, said.stdout.as_str()), (1, ""));
        assert!(
            said.stderr.starts_with("clusterd: no app nobody is running\nhint: running apps: api "),
            "{said:?}"
        );
    }
    home.say("stop api").done();
    let said = home.say("pid api");
    assert_eq!(
        (said.code, said.stdout.as_str(), said.stderr.as_str()),
        (1, "", "clusterd: api: no worker is running\n")
    );
    home.say("kill").done();
    assert_eq!(home.say("pid api").code, 1);
    assert_eq!(lines(&home, "id api"), ["2"]);
}

#[test]
fn the_environment_of_a_worker_is_told() {
    let home = home();
    home.say_with("start job.sh --name web -w 2 --env OWN=a=b", &[("SHELLS", "two\nlines")]).done();
    let env = lines(&home, "env web");
    for line in ["OWN=a=b", "SHELLS=two\\nlines", "NODE_APP_INSTANCE=0"] {
        assert!(env.iter().any(|one| one == line), "{line}: {env:?}");
    }
    until("it has a number", || (lines(&home, "id web").len() == 2).then_some(()));
    assert!(lines(&home, "env 1").contains(&"NODE_APP_INSTANCE=1".to_owned()));
    assert_eq!(home.say("env 0 -o json").json()["SHELLS"], "two\nlines");
    let said = home.say("env 7");
    assert!(said.code == 1 && said.stderr.starts_with("clusterd: no app 7 is running"), "{said:?}");
    home.say("kill").done();
    let said = home.say("env web");
    assert!(said.code == 1 && said.stderr.contains("\nhint: what it is started with is in "), "{said:?}");
}

#[test]
fn ping_tells_how_many_answer_and_starts_none() {
    let home = home();
    let said = home.say("ping");
    assert_eq!((said.code, said.stdout.as_str()), (1, "0 clusterds answer\n"));
    start(&home, "web", "");
    assert_eq!(home.say("ping").done(), "1 clusterd answers\n");
    start(&home, "api", "");
    assert_eq!(home.say("ping -o json").json(), json!({ "clusterds": 2 }));
}

/// Writes down each USR2 that it gets itself; its child ends at once when it gets one.
const LISTENER: &str = "#!/bin/bash
trap 'echo $NODE_APP_INSTANCE >> got' USR2
while true; do sleep 0.05; done
";

#[test]
fn a_signal_goes_to_the_process_of_each_worker() {
    needs!("bash");
    let home = Home::new();
    home.write("job.sh", LISTENER);
    start_all(&home, "web", 2);
    let got = || {
        let mut lines: Vec<_> = std::fs::read_to_string(home.folder().join("got"))
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(home.say("sendSignal SIGUSR2 web").done(), "web: signal USR2 sent to 2 workers\n");
    until("both have it", || (got() == ["0", "1"]).then_some(()));
    assert_eq!(home.say("signal usr2 1").done(), "web: signal USR2 sent to 1 worker\n");
    until("the second has it", || (got() == ["0", "1", "1"]).then_some(()));
    assert_eq!(home.app("web").expect("it runs")["workers"][0]["restarts"], 0);
    let said = home.say("sendSignal nope web");
    assert!(said.code == 2 && said.stderr.starts_with("clusterd: nope is not a signal\nhint: "), "{said:?}");
    assert_eq!(home.say("sendSignal HUP nobody").code, 1);
    home.say("stop web").done();
    let said = home.say("sendSignal USR2 web");
    assert_eq!((said.code, said.stderr.as_str()), (1, "clusterd: web: no worker is running\n"));
    home.say("kill").done();
    assert_eq!(home.say("sendSignal USR2 web").code, 1);
}

#[test]
fn restarts_are_counted_from_0_again_and_the_metrics_go_on() {
    let home = home();
    let metrics = free_port();
    home.say(&format!("start job.sh --name web -w 2 --metrics {metrics}")).done();
    home.say("restart web").done();
    let restarts = || {
        let app = home.app("web").expect("it runs");
        let workers = app["workers"].as_array().expect("a list").clone();
        workers.iter().map(|worker| worker["restarts"].as_u64().expect("a number")).collect::<Vec<_>>()
    };
    let counted = || {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], metrics));
        let text = http::request(address, "GET", "/metrics").expect("metrics").text();
        let of_command = text.lines().filter(|line| {
            line.starts_with("clusterd_worker_restarts_total") && line.contains("\"command\"")
        });
        of_command.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    assert_eq!((restarts(), counted()), (vec![1, 1], 2));
    until("they have numbers", || (lines(&home, "id web").len() == 2).then_some(()));
    home.say("reset 0").done();
    assert_eq!(restarts(), [0, 1]);
    assert_eq!(home.say("reset web").done(), "web: restarts are counted from 0\n");
    assert_eq!((restarts(), counted()), (vec![0, 0], 2));
    home.say("restart web").done();
    assert_eq!((restarts(), counted()), (vec![1, 1], 4));
    home.say("kill").done();
    assert_eq!((home.say("reset web").code, home.say("reset nobody").code), (0, 1));
}

#[test]
fn a_line_reaches_the_standard_input_of_workers() {
    let home = home();
    home.write("reads.sh", "#!/bin/sh\nwhile read -r line; do echo \"got $line\"; done\n");
    home.say("start reads.sh --stdin open -w 2").done();
    let said = home.say("send reads hello there");
    assert_eq!(said.done(), "reads: sent to worker 1\nreads: sent to worker 2\n");
    let got = |line: &str| home.file("reads", "logs/out.log").matches(line).count();
    until("both have read it", || (got("got hello there\n") == 2).then_some(()));
    assert_eq!(home.say("send 1 again").done(), "reads: sent to worker 2\n");
    until("one has read it", || (got("got again\n") == 1).then_some(()));
    let said = home.say(&format!("send reads {}", "x".repeat(5000)));
    assert!(said.code == 1 && said.stderr.contains("at most 4096 bytes"), "{said:?}");
    // Without that there is nothing to read.
    start(&home, "deaf", "");
    let said = home.say("send deaf hello");
    assert!(said.code == 1 && said.stderr.contains("hint: start the app with --stdin open"), "{said:?}");
    home.say("stop reads").done();
    let said = home.say("send reads hello");
    assert!(said.code == 1 && said.stderr.contains("no worker is running"), "{said:?}");
}

#[test]
fn an_app_may_be_called_as_pm2_lets_it_be() {
    let home = home();
    home.write("apps.json", r#"{ "apps": [ { "name": "we ird/na:me \u00e9%41", "script": "./job.sh" } ] }"#);
    home.say("start apps.json").done();
    let name = "we ird/na:me \u{e9}%41";
    assert!(home.folder().join("home/apps/we%20ird%2Fna%3Ame%20%C3%A9%2541/app.toml").is_file());
    assert_eq!(home.app(name).expect("it is listed")["name"], name);
    let said = home.say_words(&["describe", name]);
    assert!(said.done().contains(name), "{said:?}");
    home.say_words(&["scale", name, "2"]).done();
    assert_eq!(home.say("stop 1").done(), format!("{name}: worker 2 stopped\n"));
    home.say_words(&["logs", name, "--nostream"]).done();
    home.say("save").done();
    home.say("kill").done();
    assert!(home.say("resurrect").done().starts_with(&format!("{name}: started")));
    home.say_words(&["delete", name]).done();
    assert_eq!(home.say("list -o json").json(), json!([]));
}
