//! PM2's words and files: what scripts that were written for PM2 read, the same from both where PM2 is installed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::{Value, json};

use crate::harness::home::Home;
use crate::harness::needs::needs;
use crate::harness::ports::free_port;
use crate::harness::said::Said;
use crate::harness::until;

const APP: &str = "
console.log('started');
require('http').createServer((_, to) => to.end(process.env.SAYS + ' ' + process.argv.slice(2))).listen(Number(process.env.PORT));
";

const JOB: &str = "#!/bin/sh\necho working\nexec sleep 1000\n";

/// A home with `app.js` and `job.sh`.
fn home() -> Home {
    let home = Home::new();
    home.write("app.js", APP);
    home.write("job.sh", JOB);
    home
}

fn shared(home: &Home) -> PathBuf {
    home.path("web").parent().and_then(|apps| apps.parent()).expect("the home folder").to_owned()
}

/// What a link to clusterd says that is called `pm2`.
fn pm2(home: &Home, words: &[&str], variables: &[(&str, &str)]) -> Said {
    let link = home.folder().join("pm2");
    if !link.exists() {
        symlink(env!("CARGO_BIN_EXE_clusterd"), &link).expect("a link");
    }
    let mut command = Command::new(link);
    command.args(words).current_dir(home.folder()).env("PWD", home.folder()).stdin(Stdio::null());
    command.env("CLUSTERD_HOME", shared(home)).envs(variables.iter().copied());
    command.output().expect("clusterd can be started").into()
}

fn said(home: &Home, line: &str) -> Said {
    pm2(home, &line.split_whitespace().collect::<Vec<_>>(), &[])
}

/// The list as scripts read it, once every worker has its number and runs.
fn jlist(home: &Home) -> Vec<Value> {
    until("all have numbers and run", || {
        let list = said(home, "jlist").json();
        let list = list.as_array().expect("a list").clone();
        let is_settled = |one: &Value| one["pm_id"].is_u64() && one["pm2_env"]["status"] != "launching";
        list.iter().all(is_settled).then_some(list)
    })
}

#[test]
fn an_app_is_started_with_pm2s_options() {
    needs!("node");
    let home = home();
    let port = free_port().to_string();
    let words = [
        "start",
        "app.js",
        "-i",
        "2",
        "--name",
        "web",
        "-o",
        "o.log",
        "-e",
        "e.log",
        "--time",
        "--namespace",
        "shop",
        "--max-memory-restart",
        "300M",
        "--node-args=--no-warnings",
        "-k",
        "3000",
        "--",
        "--arg",
        "x",
    ];
    let told = pm2(&home, &words, &[("PORT", &port), ("SAYS", "hello")]);
    assert!(told.done().starts_with("web: started with 2 workers "), "{told:?}");
    let answer = until("it serves", || home.get(port.parse().expect("a port")));
    assert_eq!(answer, "hello --arg,x");
    let list = jlist(&home);
    assert_eq!(list.len(), 2);
    let (one, env) = (&list[1], &list[1]["pm2_env"]);
    assert_eq!((&one["name"], &one["pm_id"]), (&json!("web"), &json!(1)));
    assert_eq!(
        (&env["status"], &env["namespace"], &env["NODE_APP_INSTANCE"]),
        (&json!("online"), &json!("shop"), &json!(1))
    );
    assert_eq!((&env["args"], &env["node_args"]), (&json!(["--arg", "x"]), &json!(["--no-warnings"])));
    let script = home.folder().join("app.js");
    assert_eq!((&env["pm_exec_path"], &env["exec_interpreter"]), (&json!(script), &json!("node")));
    assert_eq!((&env["kill_timeout"], &env["max_memory_restart"]), (&json!(3000), &json!(300 << 20)));
    assert_eq!((&env["SAYS"], &env["env"]["SAYS"]), (&json!("hello"), &json!("hello")));
    let out = PathBuf::from(env["pm_out_log_path"].as_str().expect("a path"));
    assert_eq!(out, home.folder().join("o.log"));
    let log = until("they have written", || {
        let log = fs::read_to_string(&out).ok()?;
        (log.lines().count() == 2).then_some(log)
    });
    // `--time` is a time before each line.
    assert!(log.lines().all(|line| line.ends_with(" started") && line.starts_with("20")), "{log}");
    let pid_file = env["pm_pid_path"].as_str().expect("a path");
    assert_eq!(pid_file, shared(&home).join("pids/web-1.pid").to_str().expect("text"));
    assert_eq!(fs::read_to_string(pid_file).expect("the file"), one["pid"].to_string());
    // What counts words.
    let pretty = said(&home, "prettylist");
    assert_eq!(pretty.done().matches("online").count(), 2);
    assert!(pretty.done().contains("    pm_id: 0,\n"), "{}", pretty.stdout);
    let table = said(&home, "ls");
    assert!(
        table.done().lines().any(|line| {
            let cells: Vec<_> = line.split('│').map(str::trim).collect();
            cells.get(1..5) == Some(&["0", "web", "shop", "N/A"]) && cells.contains(&"online")
        }),
        "{}",
        table.stdout
    );
    assert_eq!(said(&home, "id web").done(), "[ 0, 1 ]\n");
    assert_eq!(said(&home, "pid web").done().lines().nth(1), Some(&*one["pid"].to_string()));
    assert_eq!((said(&home, "id nobody").done(), said(&home, "pid nobody").done()), ("[]\n", ""));
    assert_eq!(said(&home, "ping").done(), "{ msg: 'pong' }\n");
}

#[test]
fn files_have_pm2s_names_and_go_with_their_processes() {
    let home = home();
    said(&home, "start job.sh -n web -f").done();
    let pid = jlist(&home)[0]["pid"].to_string();
    let file = shared(&home).join("pids/web-0.pid");
    until("the pid file is there", || (fs::read_to_string(&file).ok()? == pid).then_some(()));
    let log = shared(&home).join("logs/web-out.log");
    until("the log is there", || (fs::read_to_string(&log).ok()? == "working\n").then_some(()));
    said(&home, "restart web").done();
    until("it is that of the new process", || {
        let pid: i64 = fs::read_to_string(&file).ok()?.parse().ok()?;
        (jlist(&home)[0]["pid"] == pid).then_some(())
    });
    said(&home, "stop web").done();
    until("it is gone", || (!file.exists()).then_some(()));
    // What a primary that was killed has left goes with the next look.
    said(&home, "kill").done();
    fs::write(&file, "1").expect("the folder is there");
    said(&home, "start web").done();
    let pid = jlist(&home)[0]["pid"].to_string();
    until("it is that of the worker", || (fs::read_to_string(&file).ok()? == pid).then_some(()));
    fs::write(shared(&home).join("pids/web-1.pid"), "1").expect("the folder is there");
    said(&home, "scale web 2").done();
    said(&home, "stop 1").done();
    until("nobody is there", || (!shared(&home).join("pids/web-1.pid").exists()).then_some(()));
    said(&home, "stop web").done();
    until("it is gone again", || (!file.exists()).then_some(()));
    assert_eq!(jlist(&home)[0]["pm2_env"]["status"], "stopped");
    said(&home, "start web").done();
    until("it is there again", || file.exists().then_some(()));
    said(&home, "kill").done();
    assert!(!file.exists() && log.exists());
    let list = jlist(&home);
    assert_eq!((&list[0]["pid"], &list[0]["pm2_env"]["status"]), (&json!(0), &json!("stopped")));
    home.say("delete web --logs").done();
    assert!(fs::symlink_metadata(&log).is_err(), "it leads nowhere");
    // Where one is asked for, with the number in its name.
    home.say("start job.sh --name api --pid-file run/my.pid").done();
    let named = home.folder().join("run/my-0.pid");
    until("the named one is there", || named.exists().then_some(()));
    home.say("delete api").done();
    assert!(!named.exists());
}

#[test]
fn who_has_scaled_can_name_the_new_worker_by_its_number() {
    let home = home();
    said(&home, "start job.sh -n web").done();
    let held = fs::File::open(shared(&home).join("ids.lock")).expect("numbers were given");
    held.lock().expect("nobody holds it for long");
    let scaling = thread::spawn({
        let home = shared(&home);
        move || Said::of(&home, &[], "scale web 2")
    });
    // Another clusterd may take its time for its own numbers.
    until("the worker is there", || {
        let workers = home.say("describe web -o json").json()["workers"].as_array()?.clone();
        (workers.len() == 2 && workers.iter().all(|worker| worker["state"] == "online")).then_some(())
    });
    assert!(!scaling.is_finished(), "its number is waited for");
    held.unlock().expect("it was held");
    scaling.join().expect("it has run").done();
    assert_eq!(said(&home, "pid web").done().lines().count(), 2);
    said(&home, "stop 1").done();
    let states = jlist(&home).iter().map(|one| one["pm2_env"]["status"].clone()).collect::<Vec<_>>();
    assert_eq!(states, ["online", "stopped"]);
}

#[test]
fn what_pm2_has_and_clusterd_has_not_is_named() {
    let home = home();
    for (line, code, why) in [
        ("start job.sh --prot 1", 2, "unknown option --prot\nhint: "),
        ("start nowhere.js", 78, "pm2 start:1: nowhere.js: script = \"nowhere.js\": no such file in "),
        ("start job.sh --no-daemon", 2, "there is no daemon"),
        ("set a b", 2, "clusterd has no command set\nhint: "),
        ("nosuch", 2, "unrecognized subcommand 'nosuch'"),
        ("", 1, "usage: pm2 COMMAND"),
    ] {
        let told = said(&home, line);
        assert_eq!((told.code, told.stdout.as_str()), (code, ""), "{line}: {told:?}");
        assert!(told.stderr.starts_with(&format!("clusterd: {why}")), "{line}: {}", told.stderr);
    }
    let told = said(&home, "start job.sh -n web --trace --ext js");
    assert!(told.code == 0 && told.stderr.contains("warning: --ext has no effect"), "{told:?}");
    assert!(told.stderr.contains("trace") && told.stderr.contains("hint: "), "{told:?}");
    let silent = said(&home, "-s restart web");
    assert_eq!((silent.code, silent.stdout.as_str()), (0, ""));
    assert_eq!(said(&home, "restart nobody").code, 1);
    assert!(said(&home, "-v").done().trim().split('.').count() == 3);
}

#[test]
fn a_file_is_begun_anew_whether_it_has_changed_or_not() {
    let home = home();
    home.write("eco.json", r#"{ "apps": [ { "name": "web", "script": "./job.sh" } ] }"#);
    let first = said(&home, "start eco.json");
    assert!(first.done().starts_with("web: started with 1 worker"), "{first:?}");
    let pid = |home: &Home| jlist(home)[0]["pid"].clone();
    let mut before = pid(&home);
    assert_eq!(said(&home, "start eco.json").done(), "web: it runs, and nothing has changed\n");
    assert_eq!(pid(&home), before);
    for line in
        ["restart eco.json", "reload eco.json", "startOrRestart eco.json", "startOrGracefulReload eco.json"]
    {
        said(&home, line).done();
        assert_ne!(pid(&home), before, "{line}");
        before = pid(&home);
    }
    home.write(
        "eco.json",
        r#"{ "apps": [ { "name": "web", "script": "./job.sh" }, { "name": "new", "script": "x.sh" } ] }"#,
    );
    assert!(said(&home, "stop eco.json").done().starts_with("web: stopped"));
    assert_eq!(said(&home, "delete eco.json").done(), "web: deleted; its logs stay\n");
    assert_eq!(said(&home, "delete eco.json").code, 1);
    let told = home.say("startOrReload job.sh");
    assert!(told.code == 2 && told.stderr.contains("job.sh is no file of apps"), "{told:?}");
}

#[test]
fn a_file_to_begin_with_is_written_once() {
    let home = home();
    for (line, file, begin) in [
        ("init", "clusterd.toml", "# The apps of this folder."),
        ("ecosystem --pm2", "ecosystem.config.js", "// The apps of this folder"),
    ] {
        home.say(line).done();
        assert!(fs::read_to_string(home.folder().join(file)).expect("it is written").starts_with(begin));
        home.write(file, "mine");
        let told = home.say(line);
        assert!(
            told.code == 1 && told.stderr.starts_with(&format!("clusterd: cannot make {file}: ")),
            "{told:?}"
        );
        assert_eq!(fs::read_to_string(home.folder().join(file)).expect("it is kept"), "mine");
    }
}

/// The keys of an object with the types of their values.
fn types(of: &Value) -> Vec<(String, &'static str)> {
    let kind = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "truth",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    };
    of.as_object().expect("an object").iter().map(|(key, value)| (key.clone(), kind(value))).collect()
}

#[test]
fn scripts_read_the_same_keys_and_types_from_pm2_and_from_clusterd() {
    needs!("node", "pm2");
    let home = home();
    let port = free_port().to_string();
    pm2(&home, &["start", "app.js", "--name", "web", "-i", "1"], &[("PORT", &port)]).done();
    let ours = jlist(&home)[0].clone();
    home.say("delete web").done();
    let theirs_home = home.folder().join("theirs");
    let theirs = |words: &[&str]| {
        let mut command = Command::new("pm2");
        command.args(words).current_dir(home.folder()).env("PM2_HOME", &theirs_home).env("PORT", &port);
        command.stdin(Stdio::null()).output().expect("pm2 can be started")
    };
    theirs(&["start", "app.js", "--name", "web", "-i", "1"]);
    let list: Value = serde_json::from_slice(&theirs(&["jlist"]).stdout).expect("JSON");
    theirs(&["kill"]);
    let theirs = &list[0];
    // Scripts read these; what they read of PM2 they find here, of the same type.
    assert_eq!(types(&ours), types(theirs));
    assert_eq!(types(&ours["monit"]), types(&theirs["monit"]));
    let known = types(&ours["pm2_env"]);
    let variables = theirs["pm2_env"]["env"].as_object().expect("variables");
    // Its own, its monitoring's, and how it was called.
    let own = [
        "_pm2_version",
        "unique_id",
        "node_version",
        "windowsHide",
        "kill_retry_time",
        "versioning",
        "prev_restart_delay",
    ];
    let lacking: Vec<_> = types(&theirs["pm2_env"])
        .into_iter()
        .filter(|(key, _)| !own.contains(&key.as_str()) && !variables.contains_key(key))
        .filter(|one| !known.contains(one))
        .collect();
    assert_eq!(lacking, []);
}

#[test]
fn the_files_of_a_folder_are_served_as_by_pm2() {
    let home = home();
    home.write("site.txt", "text");
    let port = crate::harness::ports::free_port();
    let served = said(&home, &format!("serve . {port} -n files --spa"));
    assert!(served.done().starts_with("files: started"), "{served:?}");
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let answer = crate::harness::http::request(address, "GET", "/site.txt").expect("it serves");
    assert_eq!((answer.status, answer.text()), (200, "text".to_owned()));
    assert_eq!(said(&home, "delete files").code, 0);
}
