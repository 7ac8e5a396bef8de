//! Apps in the background: started, stopped, ended, forgotten; after a crash and a boot; and what is kept of them.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::harness::home::Home;
use crate::harness::needs::needs;
use crate::harness::ports::free_port;
use crate::harness::said::Said;
use crate::harness::up::Up;
use crate::harness::{Signal, until};

const SERVER: &str = "
import os, signal
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        says = f\"{os.environ.get('SAYS', '')} {os.getcwd()} {os.getpid()}\".encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(says)))
        self.end_headers()
        self.wfile.write(says)

    def log_message(self, *_):
        pass

HTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()
";

/// A home with a server that answers with `SAYS`, its folder and its process, and a port for it.
fn home() -> (Home, u16) {
    let home = Home::new();
    home.write("web.py", SERVER);
    (home, free_port())
}

fn state(home: &Home, app: &str) -> Value {
    serde_json::from_str(&home.file(app, "state.json")).expect("JSON")
}

#[test]
fn an_app_goes_on_when_its_starter_has_ended() {
    needs!("python3");
    let (home, port) = home();
    let said = home.say_with(&format!("start web.py --port {port} -w 2"), &[("SAYS", "hello")]);
    let primary = home.primary("web");
    let told = said.done();
    assert_eq!(told.trim(), format!("web: started with 2 workers on [::]:{port} (pid {})", primary.pid()));
    let answer = home.get(port).expect("an answer");
    assert!(answer.starts_with(&format!("hello {} ", home.folder().display())), "{answer}");
    assert!(primary.leads_its_session() && primary.is_alive());
    let app = home.app("web").expect("it is listed");
    assert_eq!((&app["ready"], app["workers"].as_array().map(Vec::len)), (&json!(true), Some(2)));
    // Secrets are nobody else's business.
    for name in ["", "app.toml", "environment", "state.json", "lock", "logs", "logs/error.log"] {
        let file = home.path("web").join(name);
        assert_eq!(file.metadata().expect(name).permissions().mode() & 0o077, 0, "{name}");
    }
    assert_eq!(state(&home, "web")["wanted"], "running");
}

#[test]
fn an_app_that_runs_is_not_started_twice() {
    needs!("python3");
    let (home, port) = home();
    let start = format!("start --name web --port {port} -- python3 web.py");
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..4).map(|_| scope.spawn(|| home.say(&start))).collect();
        started.into_iter().map(|started| started.join().expect("no panic")).collect()
    });
    assert_eq!(outcomes.iter().filter(|said| said.code == 0).count(), 1, "{outcomes:?}");
    let pid = home.primary("web").pid();
    let again = home.say(&start);
    assert_eq!(
        (again.code, again.stderr.trim()),
        (1, &*format!("clusterd: app web is running already (pid {pid})"))
    );
    // In the foreground, too.
    let foreground = home.say(&format!("--name web --port {} -- python3 web.py", free_port()));
    assert_eq!(foreground.code, 1);
    assert!(
        foreground.stderr.starts_with(&format!("clusterd: app web is running already (pid {pid})\nhint: "))
    );
}

#[test]
fn an_app_is_stopped_started_and_scaled_and_that_is_kept() {
    needs!("python3");
    let (home, port) = home();
    home.say(&format!("start web.py --port {port} -w 1")).done();
    home.say("scale web 2").done();
    until("the number is kept", || (state(&home, "web")["workers"] == 2).then_some(()));
    home.say("stop web").done();
    until("the stop is kept", || (state(&home, "web")["wanted"] == "stopped").then_some(()));
    // Crash: it comes back as it was wanted.
    let before = home.primary("web");
    before.signal(Signal::KILL);
    let app = until("it is back", || {
        home.app("web").filter(|app| app["pid"].as_i64().is_some_and(|pid| pid != i64::from(before.pid())))
    });
    assert_eq!((&app["stopped"], &app["wanted"]), (&json!(true), &json!(2)));
    // A signal that ends clusterd changes nothing about it.
    let primary = home.primary("web");
    primary.signal(Signal::TERM);
    until("it has ended", || (!primary.is_alive()).then_some(()));
    assert_eq!(state(&home, "web")["wanted"], "stopped");
    home.say("start web").done();
    assert!(home.get(port).is_some());
    until("the start is kept", || (state(&home, "web")["wanted"] == "running").then_some(()));
}

#[test]
fn a_primary_that_is_killed_is_started_again_with_its_workers() {
    needs!("python3");
    let (home, port) = home();
    home.say_with(&format!("start web.py --port {port} -w 2"), &[("SAYS", "same")]).done();
    let first = home.primary("web");
    let old = first.children();
    first.signal(Signal::KILL);
    let answer =
        until("it serves again", || home.get(port).filter(|_| home.primary("web").pid() != first.pid()));
    assert!(answer.starts_with("same "), "{answer}");
    until("the old workers have ended", || old.iter().all(|process| !process.is_alive()).then_some(()));
    assert_eq!(state(&home, "web")["crashes"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_primary_that_crashes_again_and_again_is_given_up() {
    needs!("python3");
    let (home, port) = home();
    home.say(&format!("start web.py --port {port} -w 1")).done();
    let mut killed = Vec::new();
    for _ in 0..6 {
        let primary = until("a primary runs", || {
            let pid = serde_json::from_str::<Value>(&home.file("web", "lock")).ok()?["pid"].as_i64()?;
            (!killed.contains(&pid)).then(|| home.primary("web"))
        });
        until("it has a guardian", || home.app("web").filter(|app| app["ready"] == true));
        killed.push(i64::from(primary.pid()));
        primary.signal(Signal::KILL);
        until("it is gone", || (!primary.is_alive()).then_some(()));
    }
    let app = until("it is given up", || home.app("web").filter(|app| app["state"] == "errored"));
    assert_eq!(app["workers"], json!([]));
    let list = home.say("list");
    assert!(
        list.done().lines().any(|line| line.split_whitespace().eq(["-", "web", "-", "errored"])),
        "{list:?}"
    );
    home.say("start web").done();
    assert!(home.get(port).is_some());
}

#[test]
fn an_app_that_does_not_come_up_says_why() {
    needs!("python3");
    let (home, port) = home();
    home.write("bad.py", "import sys\nprint('no such database', file=sys.stderr)\nsys.exit(3)\n");
    let said = home.say(&format!("start bad.py --port {port} -w 1"));
    assert_eq!((said.code, said.stdout.as_str()), (1, ""));
    let why = "clusterd: app bad does not come up: its worker exited with code 3 after ";
    assert!(
        said.stderr.starts_with(why) && said.stderr.contains("\n  | no such database\n"),
        "{}",
        said.stderr
    );
    home.say("delete bad").done();
    // It has not even begun.
    let taken = std::net::TcpListener::bind("[::]:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let said = home.say(&format!("start web.py --port {port}"));
    assert_eq!(said.code, 1, "{said:?}");
    let why = format!(
        "clusterd: app web has ended with code 1\nits last lines:\n  | clusterd: cannot listen on [::]:{port}: "
    );
    assert!(said.stderr.starts_with(&why), "{}", said.stderr);
    assert_eq!(home.app("web").expect("it is kept")["state"], "errored");
}

#[test]
fn what_is_wrong_is_told_before_anything_is_kept() {
    let (home, _) = home();
    for (words, code, why) in [
        ("start web.py --workers 0", 2, "--workers 0: "),
        ("start nowhere.py", 1, "there is neither an app nor a file nowhere.py"),
        ("start -- no-such-program", 127, "cannot start no-such-program: "),
        ("start node app.js -- x", 2, "the whole command stands behind `--`"),
        ("start web", 1, "there is no app web to start\nhint: "),
        ("start", 1, "there is no app to start\nhint: "),
        ("delete web", 1, "there is no app web: no running clusterd found"),
        ("start web --watch .", 2, "--watch is for a new app"),
        (
            "start -w 2",
            2,
            "--workers is for a new app: one that is there keeps its settings\nhint: clusterd scale APP N changes",
        ),
    ] {
        let said = home.say(words);
        assert_eq!(said.code, code, "{words}: {said:?}");
        assert!(said.stderr.starts_with(&format!("clusterd: {why}")), "{words}: {}", said.stderr);
    }
    assert!(!home.path("web").join("app.toml").exists() && home.say("list -o json").json() == json!([]));
}

#[test]
fn to_look_starts_nothing() {
    let (home, _) = home();
    for words in ["list", "describe web", "save", "kill", "resurrect", "help"] {
        home.say(words);
    }
    assert_eq!(home.say("list -o json").json(), json!([]));
    let left: Vec<_> =
        std::fs::read_dir(home.path("web").parent().expect("apps")).into_iter().flatten().collect();
    assert!(left.is_empty());
}

#[test]
fn two_apps_on_one_port_are_told_apart_and_one_at_rest_is_described() {
    needs!("python3");
    let (home, port) = home();
    home.say(&format!("start web.py --port {port} -w 1")).done();
    let pid = home.primary("web").pid();
    let said = home.say(&format!("start web.py --name api --port {port}"));
    let why = format!(": app web (pid {pid}) listens there; choose another port, or clusterd delete web\n");
    assert!(said.code == 1 && said.stderr.contains(&why), "{said:?}");
    let said = home.say("describe api");
    let facts = said.done();
    assert!(
        facts.starts_with(
            "name       api\nnamespace  default\nstate      errored\nended      with code 1 at "
        ),
        "{facts}"
    );
    assert!(facts.contains("/apps/api/app.toml\n"), "{facts}");
    assert_eq!(home.say("describe api -o json").json()["ended"]["code"], 1);
}

#[test]
fn clients_of_an_app_that_is_held_wait_through_a_crash() {
    needs!("python3");
    let (home, port) = home();
    home.say(&format!("start web.py --port {port} -w 1")).done();
    home.say("stop web --hold").done();
    until("it is kept", || state(&home, "web")["held"][port.to_string()].is_array().then_some(()));
    let before = home.primary("web");
    before.signal(Signal::KILL);
    until("another one is there", || {
        home.app("web").filter(|app| app["pid"].as_i64().is_some_and(|pid| pid != i64::from(before.pid())))
    });
    assert_eq!(home.app("web").expect("it is there")["stopped"], true);
    let client = std::thread::spawn(move || {
        crate::harness::http::request(([127, 0, 0, 1], port).into(), "GET", "/").map(|answer| answer.text())
    });
    until("the client waits", || {
        let connected = std::net::TcpStream::connect(("127.0.0.1", port));
        (connected.is_ok() && !client.is_finished()).then_some(())
    });
    home.say("start web").done();
    let answer = client.join().expect("no panic").expect("an answer");
    assert!(answer.contains(&home.folder().display().to_string()), "{answer}");
    assert_eq!(state(&home, "web")["held"], Value::Null);
    // Stopped without it, it refuses through a crash, too.
    home.say("stop web").done();
    let before = home.primary("web");
    before.signal(Signal::KILL);
    until("another one is there", || {
        home.app("web").filter(|app| app["pid"].as_i64().is_some_and(|pid| pid != i64::from(before.pid())))
    });
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn what_is_not_there_is_named() {
    let home = Home::new();
    let none = "no running clusterd found for this user";
    for words in ["stop web", "describe web", "scale web 3", "reload web", "delete web", "pid web"] {
        let said = home.say(words);
        let expected = format!("clusterd: there is no app web: {none}\n");
        assert!(said.code == 1 && said.stderr == expected, "{words}: {said:?}");
    }
    assert_eq!(home.say("resurrect").done(), "clusterd: nothing to start: every app that is wanted runs\n");
    home.write("a.env", "SAYS=hello\n");
    home.say("start --name job --env-file a.env -w 1 -- sleep 1000").done();
    home.say("kill").done();
    let said = home.say("stop web");
    assert!(said.stderr.ends_with(&format!("{none}\nhint: apps that do not run: job\n")), "{said:?}");
    assert!(!home.say("describe job").done().contains("problem"));
    // Its relative paths start from where it was started first.
    home.say_under(&["sh", "-c", "cd / && exec \"$@\"", "sh"], "start job", &[]).done();
    home.say("kill").done();
    std::fs::write(home.path("job").join("app.toml"), "name = 'job'\nworkers = 'many'\n").expect("written");
    let described = home.say("describe job");
    let problem = described.done().lines().find(|line| line.starts_with("problem")).expect("it is told");
    assert!(problem.contains("/apps/job/app.toml:2: workers = 'many': "), "{problem}");
    let json = home.say("describe job -o json").json();
    let first = json["problem"].as_str().and_then(|text| text.lines().next());
    assert!(first.is_some_and(|text| problem.contains(text)), "{json}");
}

#[test]
fn a_folder_that_is_gone_is_named_and_leaves_no_app() {
    let home = Home::new();
    home.write("web.py", SERVER);
    let gone = "mkdir gone && cd gone && rmdir ../gone && exec \"$@\"";
    for words in [
        "start app.js",
        "start app.config.js",
        "start --name web -- sleep 9",
        "up",
        "import",
        "init",
        "serve . 8080",
    ] {
        let said = home.say_under(&["sh", "-c", gone, "sh"], words, &[]);
        assert_eq!(said.code, 1, "{words}: {said:?}");
        assert!(
            said.stderr.starts_with("clusterd: the current folder was removed\nhint: "),
            "{words}: {said:?}"
        );
    }
    home.write("clusterd.toml", "[app.web]\ncommand = ['sleep', '9']\ncwd = 'nowhere'\n");
    home.write(
        "web.config.js",
        "module.exports = { apps: [{ name: 'web', script: 'web.py', cwd: 'nowhere' }] }",
    );
    let none =
        format!("cannot run workers in {}/nowhere: No such file or directory", home.folder().display());
    let mut all = vec![
        "start web.py --cwd nowhere",
        "start --cwd nowhere -- sleep 9",
        "start clusterd.toml",
        "serve . 8080 --cwd nowhere",
    ];
    all.extend(crate::harness::needs::program("node").then_some("start web.config.js"));
    for words in all {
        let said = home.say(words);
        assert!(said.code == 1 && said.stderr.contains(&none), "{words}: {said:?}");
    }
    assert_eq!(home.say("list -o json").json(), json!([]));
    assert!(!home.home().join("apps").exists());
}

#[test]
fn folders_that_are_made_for_logs_are_named() {
    let home = Home::new();
    home.write("logs/here", "");
    let folder = home.folder().display().to_string();
    let said =
        home.say("start --name job -w 1 --out-file a/b/out.log --error-file logs/error.log -- sleep 1000");
    said.done();
    assert_eq!(said.stderr, format!("clusterd: job: the folder {folder}/a/b is made for logs\n"));
    until("it is there", || home.folder().join("a/b/out.log").exists().then_some(()));
}

#[test]
fn an_app_that_does_not_listen_yet_is_named_as_whoever_has_the_port() {
    let (home, port) = home();
    // It has the port, and none of its workers ever listens.
    let said = home.say(&format!("start --name web --port {port} -w 1 --ready-timeout 1s -- sleep 1000"));
    assert_eq!(said.code, 1, "{said:?}");
    let pid = home.primary("web").pid();
    for own in [format!("--port {port}"), format!("--metrics {port}")] {
        let said = home.say(&format!("start --name api {own} -w 1 -- sleep 1000"));
        let why =
            format!(": app web (pid {pid}) has this port; choose another port, or clusterd delete web\n");
        assert!(said.code == 1 && said.stderr.contains(&why), "{said:?}");
    }
}

/// A shell that is no terminal's has what it puts into the background ignore SIGINT, and so do tests there.
const HEARS: [&str; 2] = ["env", "--default-signal=INT"];

#[test]
fn what_goes_on_after_ctrl_c_is_said() {
    let home = Home::new();
    let program = env!("CARGO_BIN_EXE_clusterd");
    home.write(
        "clusterd.toml",
        "[app.web]\ncommand = ['sleep', '1000']\nworkers = 1\nwait-ready = true\nready-timeout = '1h'\n\
         [app.api]\ncommand = ['sleep', '1000']\ndepends-on = ['web']\n",
    );
    let mut start = Up::by(&home, &[HEARS[0], HEARS[1], program, "start", "clusterd.toml"], &[]);
    until("it waits for the app", || home.file("web", "lock").contains("pid").then_some(()));
    start.signal(Signal::INT);
    assert_eq!(start.code(), 130);
    let said = start.stderr.text();
    assert!(said.contains("clusterd: web goes on starting; `clusterd logs web` shows how"), "{said}");
    assert!(home.primary("web").is_alive() && home.app("api").is_none());
}

/// It is slow if there is a file `slow`, and in any case does not end by SIGTERM.
const STUBBORN: &str = "
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.path.exists('slow'):
    time.sleep(1000)
";

#[test]
fn a_reload_and_an_end_go_on_after_ctrl_c_and_that_is_said() {
    needs!("python3");
    let (home, port) = home();
    let program = env!("CARGO_BIN_EXE_clusterd");
    home.write("stubborn.py", &format!("{STUBBORN}{SERVER}"));
    let patience = "--ready-timeout 1h --kill-timeout 1h";
    home.say(&format!("start stubborn.py --port {port} -w 1 {patience}")).done();
    home.write("slow", "");
    let mut reload = Up::by(&home, &[HEARS[0], HEARS[1], program, "reload", "stubborn"], &[]);
    until("it reloads", || home.app("stubborn").filter(|app| !app["reload"].is_null()));
    reload.signal(Signal::INT);
    assert_eq!(reload.code(), 130);
    let said = reload.stderr.text();
    assert!(said.starts_with("clusterd: stubborn: clusterd goes on with it; "), "{said}");
    assert!(home.app("stubborn").is_some_and(|app| !app["reload"].is_null()));
    let mut delete = Up::by(&home, &[HEARS[0], HEARS[1], program, "delete", "stubborn"], &[]);
    until("it ends the app", || home.file("stubborn", "logs/clusterd.log").contains("SIGTERM").then_some(()));
    delete.signal(Signal::INT);
    assert_eq!(delete.code(), 130);
    let said = delete.stderr.text();
    assert!(said.starts_with("clusterd: stubborn goes on ending; "), "{said}");
    assert!(home.path("stubborn").join("app.toml").is_file());
}

#[test]
fn what_was_saved_is_resurrected_after_everything_was_ended() {
    needs!("python3");
    let (home, port) = home();
    let other = free_port();
    home.say_with(&format!("start web.py --port {port} -w 1"), &[("SAYS", "kept")]).done();
    home.say(&format!("start web.py --name api --port {other} -w 1")).done();
    home.say("scale web 2").done();
    home.say("stop api").done();
    until("all is kept", || {
        (state(&home, "web")["workers"] == 2 && state(&home, "api")["wanted"] == "stopped").then_some(())
    });
    home.say("save").done();
    let said = home.say("kill");
    assert_eq!(said.done(), "api: ended\nweb: ended\n");
    assert_eq!(
        (home.get(port), home.app("web").expect("it is kept")["state"].clone()),
        (None, json!("stopped"))
    );
    let said = home.say("resurrect");
    assert!(said.done().starts_with("web: started with 2 workers on "), "{said:?}");
    assert!(home.get(port).expect("an answer").starts_with("kept "));
    assert_eq!(home.app("api").expect("it is kept")["state"], "stopped");
    assert_eq!(home.say("resurrect").done(), "clusterd: nothing to start: every app that is wanted runs\n");
}

#[test]
fn a_deleted_app_leaves_its_logs_alone() {
    needs!("python3");
    let (home, port) = home();
    home.say(&format!("start web.py --port {port} -w 1")).done();
    let primary = home.primary("web");
    assert_eq!(home.say("delete web").done(), "web: deleted; its logs stay\n");
    assert!(!primary.is_alive() && home.get(port).is_none());
    assert!(home.path("web").join("logs/error.log").exists());
    assert!(home.app("web").is_none());
    home.say(&format!("start web.py --port {port} -w 1")).done();
    assert_eq!(home.say("delete all --logs").done(), "web: deleted\n");
    assert!(!home.path("web").exists());
}

#[test]
fn an_app_at_rest_is_started_by_reload_and_restart_and_kept_down_by_stop() {
    needs!("python3");
    let (home, port) = home();
    home.say(&format!("start web.py --port {port} -w 1")).done();
    for verb in ["restart", "reload", "start"] {
        home.say("kill").done();
        let said = home.say(&format!("{verb} web"));
        assert!(said.done().starts_with("web: started with 1 worker on "), "{verb}: {said:?}");
    }
    home.say("kill").done();
    home.say("stop web").done();
    assert!(home.say("resurrect").done().starts_with("clusterd: nothing to start"));
    let said = home.say("scale web 3");
    assert_eq!((said.code, said.stderr.lines().next()), (1, Some("clusterd: web: the app is not running")));
}

#[test]
fn another_environment_is_for_all_workers_and_is_kept() {
    needs!("python3");
    let (home, port) = home();
    let says = |words: &str| home.get(port).is_some_and(|answer| answer.starts_with(words));
    let with = |verb: &str, text: &str| home.say_with(&format!("{verb} web --update-env"), &[("SAYS", text)]);
    home.say_with(&format!("start web.py --port {port} -w 1"), &[("SAYS", "one")]).done();
    // One that runs is reloaded, one that is stopped started.
    with("start", "two").done();
    assert!(says("two "));
    home.say("stop web").done();
    with("start", "three").done();
    assert!(says("three "));
    let is_kept = |text: &str| home.file("web", "environment").split('\0').any(|kept| kept == text);
    until("it is kept", || is_kept("SAYS=three").then_some(()));
    // The folder of the app is where it was, whoever starts it again.
    home.say("kill").done();
    assert!(is_kept(&format!("PWD={}", home.folder().display())));
    home.say("start web").done();
    assert!(says("three "));
    home.say("kill").done();
    with("restart", "four").done();
    assert!(says("four "));
    let said = home.say("restart 0 --update-env");
    assert!(said.code == 2 && said.stderr.contains("the same environment"), "{said:?}");
}

#[test]
fn an_app_that_is_not_to_be_started_is_written_down() {
    needs!("python3");
    let (home, port) = home();
    let file = format!(
        "[app.web]\nscript = 'web.py'\nport = {port}\nautostart = false\n[app.other]\ncommand = ['sleep', '1000']\n"
    );
    home.write("clusterd.toml", &file);
    let said = home.say("start clusterd.toml");
    assert!(said.done().contains("web: not started (autostart = false)\n"), "{said:?}");
    assert!(said.done().contains("other: started"), "{said:?}");
    let listed = home.say("list -o json").json();
    let web = listed.as_array().and_then(|apps| apps.iter().find(|app| app["name"] == "web").cloned());
    assert_eq!(web.expect("it is listed")["state"], "stopped");
    assert_eq!(home.get(port), None);
    assert!(home.say("start web").done().starts_with("web: started"));
    assert!(home.get(port).is_some());
    // It runs, and goes on running.
    let said = home.say("start clusterd.toml");
    assert!(said.done().contains("web: it runs, and nothing has changed\n"), "{said:?}");
    home.say("delete web").done();
    assert!(home.say("start clusterd.toml --only web").done().starts_with("web: started"));
}

/// The numbers of an app's workers, and how each stands.
fn workers(home: &Home, app: &str) -> Vec<(u64, String)> {
    let app = home.app(app).expect("it is listed");
    let workers = app["workers"].as_array().expect("a list").iter();
    let of = |worker: &Value| {
        (worker["id"].as_u64().expect("a number"), worker["state"].as_str().expect("a text").to_owned())
    };
    workers.map(of).collect()
}

#[test]
fn a_worker_is_known_by_a_number_that_no_other_app_has() {
    needs!("python3");
    let (home, port) = home();
    let online = |ids: &[u64]| ids.iter().map(|&id| (id, "online".to_owned())).collect::<Vec<_>>();
    home.say(&format!("start web.py --port {port} -w 2")).done();
    home.say(&format!("start web.py --name api --port {} -w 1", free_port())).done();
    until("all have one", || (workers(&home, "api") == online(&[2])).then_some(()));
    assert_eq!(workers(&home, "web"), online(&[0, 1]));
    home.say("reload web").done();
    home.say("scale web 3").done();
    until("the third has one", || (workers(&home, "web") == online(&[0, 1, 3])).then_some(()));
    // One alone, which stays down over all that follows, until it is started.
    assert_eq!(home.say("stop 1").done(), "web: worker 2 stopped\n");
    home.say("reload web").done();
    home.say("scale web 4").done();
    let states = |home: &Home| workers(home, "web").into_iter().map(|(_, state)| state).collect::<Vec<_>>();
    assert_eq!(states(&home), ["online", "stopped", "online", "online"]);
    assert_eq!(home.say("start 1").done(), "web: worker 2 online\n");
    assert_eq!(states(&home), ["online"; 4]);
    // A pattern, several at once, and nothing of what is wrong.
    let said = home.say("restart /^a/ 3");
    assert_eq!(said.done(), "api: 1 worker online again\nweb: worker 3 is online again\n");
    let said = home.say("stop web nobody");
    assert_eq!((said.code, said.stdout.as_str()), (1, ""));
    assert_eq!(states(&home), ["online"; 4]);
    assert_eq!(home.say("stop all").done().lines().count(), 2);
}

const NODE: &str = "
require('http').createServer((_, to) => to.end(process.env.SAYS + ' ' + process.pid)).listen(Number(process.argv[2]));
";

#[test]
fn the_apps_of_a_file_are_started_and_follow_what_the_file_says() {
    needs!("node");
    let home = Home::new();
    let port = free_port();
    home.write("app.js", NODE);
    home.write("job.sh", "#!/bin/sh\necho working\nexec sleep 1000\n");
    let write = |instances: u32, env: &str| {
        let file = format!(
            "console.log('noise'); module.exports = {{ apps: [
               {{ name: 'web', script: 'app.js', args: '{port}', instances: {instances}, env: {env},
                  env_production: {{ SAYS: 'in production' }} }},
               {{ name: 'job', script: './job.sh' }} ] }};"
        );
        home.write("ecosystem.config.js", &file);
    };
    let start = |more: &str| home.say(&format!("start ecosystem.config.js{more}"));
    // They are started side by side: whichever is the first is told of first.
    let lines = |said: &Said| {
        let mut lines: Vec<_> = said.done().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    write(2, "{ SAYS: 'one', GONE: '1' }");
    let said = start("");
    let first = lines(&said);
    assert!(first[0].starts_with("job: started with 1 worker (pid "), "{said:?}");
    assert!(first[1].starts_with("web: started with 2 workers (pid "), "{said:?}");
    // Nothing was opened before a worker has asked for it: it is now, for all of them.
    let answer = until("it serves", || home.get(port));
    assert!(answer.starts_with("one "), "{answer}");
    let job = home.primary("job").pid();
    let unchanged = ["job: it runs, and nothing has changed", "web: it runs, and nothing has changed"];
    assert_eq!(lines(&start("")), unchanged);
    // What was changed is in force without a restart, and what was removed is gone.
    write(3, "{ SAYS: 'two' }");
    let primary = home.primary("web").pid();
    assert_eq!(lines(&start("")), [unchanged[0], "web: 2 workers replaced"]);
    until("the third is there", || (workers(&home, "web").len() == 3).then_some(()));
    until("the new ones serve", || home.get(port).filter(|answer| answer.starts_with("two ")));
    assert_eq!((home.primary("web").pid(), home.primary("job").pid()), (primary, job));
    assert!(!home.file("web", "app.toml").contains("GONE"));
    // Profiles, one of several, and names that are none.
    assert_eq!(start(" --env production --only web").done(), "web: 3 workers replaced\n");
    until("the profile is in force", || home.get(port).filter(|answer| answer.starts_with("in production ")));
    let said = start(" --env nosuch");
    assert_eq!(said.code, 78, "{said:?}");
    let said = start(" --only nobody");
    assert!(said.code == 78 && said.stderr.contains("no such app in this file"), "{said:?}");
}

#[test]
fn a_file_that_is_wrong_starts_nothing() {
    needs!("node");
    let home = Home::new();
    home.write("app.js", NODE);
    let file = r#"{ "apps": [ { "name": "web", "script": "app.js" }, { "name": "api", "script": "app.js", "instances": -7000000000 } ] }"#;
    home.write("ecosystem.json", file);
    let said = home.say("start ecosystem.json");
    assert!(said.code != 0 && said.stderr.contains("ecosystem.json:1: api: instances"), "{said:?}");
    assert_eq!(home.say("list -o json").json(), json!([]));
}

#[test]
fn an_app_without_a_port_that_ends_at_once_is_told_of() {
    let home = Home::new();
    home.write("job.sh", "#!/bin/sh\necho 'no work' >&2\nexit 4\n");
    let said = home.say("start job.sh");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.stderr.starts_with("clusterd: app job does not come up: its worker exited with code 4 after "),
        "{said:?}"
    );
    assert!(said.stderr.contains("\n  | no work\n"), "{said:?}");
}

#[test]
fn what_is_damaged_in_the_home_folder_is_named() {
    needs!("python3");
    let (home, port) = home();
    home.say(&format!("start web.py --port {port} -w 1")).done();
    // What is stopped is started by whatever would replace it.
    home.say("stop web").done();
    home.say("restart web").done();
    assert!(home.get(port).is_some());
    home.say("kill").done();
    let definition = home.path("web").join("app.toml");
    let whole = std::fs::read_to_string(&definition).expect("it is defined");
    for (text, why) in [("", "names no command"), ("name = 'api'\ncommand = ['sleep', '9']\n", "another app")]
    {
        std::fs::write(&definition, text).expect("it is its user's");
        let said = home.say("start web");
        assert!(
            said.code == 1 && said.stderr.contains("app.toml: ") && said.stderr.contains(why),
            "{said:?}"
        );
        assert_eq!(home.say("list -o json").json()[0]["name"], "web");
    }
    std::fs::write(&definition, whole).expect("it is its user's");
    std::fs::write(home.home().join("saved.json"), "garbage").expect("it is its user's");
    let said = home.say("resurrect");
    assert!(said.code == 1 && said.stderr.contains("saved.json: "), "{said:?}");
    home.say("cleardump").done();
    assert!(home.say("resurrect").done().starts_with("web: started"));
}

/// As a package manager does it: a new file takes the name.
#[test]
fn an_app_whose_clusterd_was_replaced_on_disk_is_named() {
    needs!("python3");
    let home = Home::new();
    let program = home.folder().join("clusterd");
    let install = || {
        let new = home.folder().join("clusterd.new");
        std::fs::copy(env!("CARGO_BIN_EXE_clusterd"), &new).expect("there is room");
        std::fs::rename(&new, &program).expect("it is the same folder");
    };
    let say = |words: &str| Said::by(&program, &home.home(), &[], words);
    install();
    say("start --name web --port 0:8000 -i 1 -- python3 -m http.server").done();
    let list = || (say("list").stderr, say("list -o json").json()[0]["outdated"].as_bool());
    assert_eq!(list(), (String::new(), None));
    install();
    let (complaint, outdated) = list();
    let expected = format!(
        "clusterd: web is run by clusterd {}, whose file was replaced since\n",
        env!("CARGO_PKG_VERSION")
    );
    assert!(complaint.starts_with(&expected), "{complaint}");
    assert_eq!(outdated, Some(true));
    say("restart web").done();
    assert_eq!(list().1, Some(true), "its workers are new, and it is not");
    say("kill").done();
    say("start web").done();
    assert_eq!(list(), (String::new(), None));
}
