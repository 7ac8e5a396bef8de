//! Several apps in the foreground: `clusterd up FILE`, from the first line of their output to the code in the end.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::folder::fixtures;
use crate::harness::home::Home;
use crate::harness::needs::{self, needs};
use crate::harness::output::Output;
use crate::harness::ports::free_port;
use crate::harness::process::Process;
use crate::harness::said::Said;
use crate::harness::up::{MARK, Up};
use crate::harness::{Signal, until};

/// A home with this as `clusterd.toml`; `{fixtures}` is the folder of the servers.
fn home_of(toml: &str) -> Home {
    let home = Home::new();
    let fixtures = fixtures();
    home.write("clusterd.toml", &toml.replace("{fixtures}", fixtures.to_str().expect("a path in UTF-8")));
    home
}

/// A table of an app that serves this port.
fn server(name: &str, port: u16, more: &str) -> String {
    format!(
        "[app.{name}]\ncommand = ['node', '{{fixtures}}/server.js']\nport = {port}\nworkers = 1\n{more}\n"
    )
}

/// A table of an app that runs this for a shell, once.
fn job(name: &str, script: &str, more: &str) -> String {
    format!("[app.{name}]\ncommand = ['sh', '-c', '{script}']\nworkers = 1\nautorestart = false\n{more}\n")
}

#[test]
fn several_apps_serve_side_by_side_and_term_ends_them_without_a_trace() {
    needs!("node");
    let (one, two) = (free_port(), free_port());
    let chatty = job("chatty", "echo begun; echo oops >&2; printf partial; sleep 1000", "");
    let home = home_of(&(server("one", one, "") + &server("longer", two, "") + &chatty));
    let mut up = Up::start(&home, "");
    for port in [one, two] {
        until("the app answers", || home.get(port).filter(|answer| answer.starts_with("worker 1")));
    }
    up.writes("chatty 1 | begun");
    up.says(&["chatty 1 | oops"]);
    up.says(&["one      | ", " INFO ready; try: curl"]);
    let listed = home.say("list -o json").json();
    let names: Vec<_> = listed.as_array().expect("a list").iter().map(|app| app["name"].clone()).collect();
    assert_eq!(names, ["chatty", "longer", "one"]);
    assert!(home.say("list").done().contains("online"));

    up.signal(Signal::TERM);
    assert_eq!(up.code(), 0, "{}", up.stderr.text());
    assert_eq!(up.stdout.lines().last().map(String::as_str), Some("chatty 1 | partial"));
    let odd: Vec<_> = up.stderr.lines().into_iter().filter(|line| line.find(" | ") != Some(8)).collect();
    assert!(odd.is_empty(), "{odd:#?}");
    up.leaves_no_process();
    for app in ["one", "longer", "chatty"] {
        assert!(!home.path(app).exists(), "{app}");
    }
    assert_eq!(home.say("list -o json").json(), Value::Array(Vec::new()));
    assert!(home.say("resurrect").done().starts_with("clusterd: nothing to start"));
}

#[test]
fn an_app_is_started_when_those_that_it_depends_on_are_ready() {
    needs!("node");
    let port = free_port();
    let migration = job("migration", "echo migrated", "depends-on = ['db']");
    let web = job("web", "echo web; sleep 1000", "depends-on = ['db', 'migration']");
    let home = home_of(&(web + &migration + &server("db", port, "")));
    let mut up = Up::start(&home, "");
    up.writes("web 1       | web");
    let said = |app, words| up.stderr.place_of(&[&format!("{app:11} | "), words]);
    assert!(said("db", "ready; try") < said("migration", "runs 1 worker"));
    assert!(up.stderr.place_of(&["migration: the app has ended"]) < said("web", "runs 1 worker"));
    // What is needed ends last.
    up.signal(Signal::TERM);
    assert_eq!(up.code(), 0);
    assert!(
        up.stderr.place_of(&["web ", "worker ", "after"]) < up.stderr.place_of(&["db ", "SIGTERM: stopping"])
    );
}

#[test]
fn what_depends_on_an_app_that_fails_is_not_started_and_the_first_code_counts() {
    let fails = job("fails", "exit 7", "");
    let needs = job("needs", "echo never", "depends-on = ['fails']")
        + &job("more", "echo never", "depends-on = ['needs']");
    let other = job("other", "sleep 2; exit 9", "");
    let home = home_of(&(fails + &needs + &other));
    let mut up = Up::start(&home, "");
    assert_eq!(up.code(), 7, "{}", up.stderr.text());
    for words in [
        "fails: the app has failed (exited with code 7); others go on",
        "needs: the app is not started, because fails is not ready",
        "more: the app is not started, because needs is not ready",
    ] {
        up.says(&[words]);
    }
    assert_eq!(up.stdout.lines(), [""; 0]);
}

#[test]
fn what_depends_on_an_app_that_is_late_is_not_started() {
    needs!("node");
    // The port that it asks for is not the one that is served.
    let late = "[app.late]\ncommand = ['sleep', '1000']\nport = {port}\nworkers = 1\nready-timeout = '1s'\nmax-restarts = 1000\n";
    let late = late.replace("{port}", &free_port().to_string());
    let home = home_of(&(late + &job("needs", "echo never", "depends-on = ['late']")));
    let mut up = Up::start(&home, "--exit-on-failure");
    assert_eq!(up.code(), 1, "{}", up.stderr.text());
    up.says(&["late: the app is not ready yet; clusterd goes on waiting"]);
    up.says(&["needs: the app is not started, because late is not ready"]);
}

#[test]
fn with_exit_on_failure_the_first_that_fails_ends_the_others() {
    needs!("node");
    let port = free_port();
    let home =
        home_of(&(server("web", port, "") + &job("bad", "sleep 1; exit 3", "") + &job("good", "true", "")));
    let mut up = Up::start(&home, "--exit-on-failure");
    assert_eq!(up.code(), 3, "{}", up.stderr.text());
    up.says(&["good: the app has ended"]);
    up.says(&["web ", "SIGTERM: stopping"]);
    up.leaves_no_process();
}

#[test]
fn all_that_end_well_end_with_zero() {
    let home = home_of(
        &(job("one", "echo 1", "") + &job("two", "echo 2", "") + &job("three", "echo 3; exit 1", "")),
    );
    let mut up = Up::start(&home, "--only one,two");
    assert_eq!(up.code(), 0, "{}", up.stderr.text());
    let mut lines = up.stdout.lines();
    lines.sort();
    assert_eq!(lines, ["one 1    | 1", "two 1    | 2"]);
    assert!(
        up.stderr.line_with(&[" WARN "]).or(up.stderr.line_with(&["ERROR"])).is_none(),
        "{}",
        up.stderr.text()
    );
}

#[test]
fn an_app_that_crashes_again_and_again_fails_beside_one_that_serves() {
    needs!("node");
    let port = free_port();
    let bad =
        "[app.bad]\ncommand = ['sh', '-c', 'exit 5']\nworkers = 1\nmax-restarts = 2\nmin-uptime = '1s'\n";
    let home = home_of(&(server("web", port, "") + bad));
    let mut up = Up::start(&home, "");
    up.says(&["bad: the app has failed (exited with code 5); others go on"]);
    until("the other serves", || home.get(port));
    up.signal(Signal::INT);
    assert_eq!(up.code(), 5);
}

#[test]
fn commands_reach_the_apps_from_outside() {
    needs!("node");
    let port = free_port();
    let home = home_of(&(server("web", port, "") + &job("idle", "sleep 1000", "")));
    let up = Up::start(&home, "");
    until("it serves", || home.get(port));
    assert_eq!(home.say("reload web").done(), "web: 1 worker replaced\n");
    home.say("scale web 2").done();
    until("there are two", || {
        home.app("web").filter(|app| app["workers"].as_array().is_some_and(|all| all.len() == 2))
    });
    home.say("stop web").done();
    assert_eq!(home.app("web").expect("it is listed")["stopped"], true);
    home.say("start web").done();
    assert!(home.get(port).is_some());
    // Whoever runs one of them already is named, and nothing of the other is started.
    let again = home.say("up");
    let pid = home.primary("web").pid();
    let expected = format!("clusterd: app web is running already (pid {pid})\n");
    assert_eq!((again.code, again.stderr), (1, expected));
    // Deleted, it has ended.
    home.say("delete idle").done();
    up.says(&["idle: the app has ended (exited with code 0); others go on"]);
}

#[test]
fn signals_are_passed_on_to_each_app() {
    needs!("node");
    let (one, two) = (free_port(), free_port());
    let home = home_of(&(server("one", one, "") + &server("two", two, "")));
    let up = Up::start(&home, "");
    for port in [one, two] {
        until("it serves", || home.get(port));
    }
    up.signal(Signal::TTIN);
    for app in ["one", "two"] {
        up.says(&[app, "SIGTTIN: scaled to 2 workers"]);
    }
    // The file is read again.
    let with =
        |says: &str| server("one", one, "") + &server("two", two, &format!("env = {{ SAYS = '{says}' }}\n"));
    let fixtures = fixtures();
    let write = |text: &str| {
        home.write("clusterd.toml", &text.replace("{fixtures}", fixtures.to_str().expect("a path in UTF-8")));
    };
    write(&(with("new") + &job("three", "true", "")));
    up.signal(Signal::HUP);
    for app in ["one", "two"] {
        up.says(&[app, "reload done: 2 replaced"]);
    }
    up.says(&["SIGHUP: apps that the file has got or lost wait for a restart of clusterd up: three"]);
    let said = |app: &str| home.say(&format!("describe {app} --env")).done().contains("SAYS=new");
    assert!(said("two") && !said("one"));
    write("[app.one]\nport = 'x'\n");
    up.signal(Signal::HUP);
    up.says(&["SIGHUP: the apps are not reloaded: ", "clusterd.toml:1"]);
}

#[test]
fn a_second_signal_ends_all_at_once() {
    let stubborn = "[app.stubborn]\ncommand = ['sh', '-c', 'trap \"\" TERM; echo up; while :; do sleep 1; done']\nworkers = 1\nkill-timeout = '1h'\n";
    let home =
        home_of(&(stubborn.to_owned() + &job("other", "echo up; sleep 1000", "depends-on = ['stubborn']")));
    let mut up = Up::start(&home, "");
    up.writes("other 1    | up");
    let of_another = Command::new("kill").arg(up.child.id().to_string()).status();
    assert!(of_another.expect("kill can be started").success());
    up.says(&["SIGTERM: stopping all apps"]);
    // The test is the parent.
    up.signal(Signal::TERM);
    up.says(&["SIGTERM: the parent has passed on what has come here, too; it counts once"]);
    up.says(&["stubborn ", "SIGTERM: stopping"]);
    assert_eq!(up.stderr.text().matches("SIGTERM: stopping all apps").count(), 1, "{}", up.stderr.text());
    up.signal(Signal::TERM);
    assert_eq!(up.code(), 0, "{}", up.stderr.text());
    up.leaves_no_process();
}

#[test]
fn on_a_terminal_apps_have_colours_and_end_when_it_is_closed() {
    needs!("script");
    let home = home_of(&job("web", "echo up; sleep 1000", ""));
    let command = format!("{} up", env!("CARGO_BIN_EXE_clusterd"));
    let mut up = Up::by(&home, &["script", "-qec", &command, "/dev/null"], &[("TERM", "xterm")]);
    up.writes("\u{1b}[36mweb 1    |\u{1b}[0m up");
    up.child.kill().expect("script(1) is our child, and holds the terminal's other end");
    up.leaves_no_process();
    let mut plain =
        Up::by(&home, &["script", "-qec", &command, "/dev/null"], &[("TERM", "xterm"), ("NO_COLOR", "1")]);
    plain.writes("web 1    | up");
    plain.child.kill().expect("it is our child");
    plain.leaves_no_process();
}

#[test]
fn the_service_manager_hears_when_all_are_ready_and_of_the_stop() {
    needs!("node");
    let port = free_port();
    let home = home_of(&(server("web", port, "") + &job("late", "sleep 1000", "depends-on = ['web']")));
    let name = home.folder().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&name).expect("a socket");
    manager.set_read_timeout(Some(std::time::Duration::from_secs(40))).expect("a timeout");
    let receive = || {
        let mut buffer = [0; 512];
        let length = manager.recv(&mut buffer).expect("a message in time");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let name = name.to_str().expect("a path in UTF-8").to_owned();
    let mut up = Up::under(&home, &[], "", &[("NOTIFY_SOCKET", &name)]);
    let mut heard = String::new();
    while !heard.contains("READY=1") {
        heard += &receive();
    }
    let pid = format!("MAINPID={}\n", up.child.id());
    assert!(
        heard.contains("STATUS=1 of 2 apps ready\n") && heard.contains("STATUS=2 of 2 apps ready\n"),
        "{heard}"
    );
    assert!(heard.contains(&pid), "only `up` speaks: {heard}");
    up.signal(Signal::TERM);
    while !heard.contains("STOPPING=1") {
        heard += &receive();
    }
    assert_eq!((up.code(), heard.matches("READY=1").count()), (0, 1));
}

#[test]
fn a_primary_that_is_killed_is_started_again_on_its_port() {
    needs!("node");
    let port = free_port();
    // Its workers listen themselves: what they have open must not keep the port from the next.
    let home = home_of(&server("web", port, "accept = 'workers'\n"));
    let mut up = Up::start(&home, "--exit-on-failure");
    until("it serves", || home.get(port));
    let before = home.primary("web");
    let workers = before.children();
    before.signal(Signal::KILL);
    up.says(&["web: its clusterd was killed by SIGKILL; starting it again"]);
    until("another serves", || {
        let now = serde_json::from_str::<Value>(&home.file("web", "lock")).ok()?["pid"].as_i64()?;
        (now != i64::from(before.pid())).then_some(())?;
        home.get(port)
    });
    until("the old workers have ended", || workers.iter().all(|old| !old.is_alive()).then_some(()));
    up.signal(Signal::TERM);
    assert_eq!(up.code(), 0, "{}", up.stderr.text());
}

#[test]
fn when_up_is_killed_its_apps_end_as_well() {
    needs!("node");
    let port = free_port();
    let home = home_of(&(server("web", port, "") + &job("idle", "sleep 1000", "")));
    let mut up = Up::start(&home, "");
    until("it serves", || home.get(port));
    up.signal(Signal::KILL);
    assert_eq!(up.ended().signal(), Some(9));
    up.leaves_no_process();
}

#[test]
fn as_json_every_line_is_an_object_with_its_app() {
    let home =
        home_of(&(job("one", "echo text; echo {}; sleep 1", "") + &job("two", "echo error >&2; exit 2", "")));
    let mut up = Up::start(&home, "--log-format json");
    assert_eq!(up.code(), 2);
    let lines = [up.stdout.lines(), up.stderr.lines()].concat();
    let objects: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
        .collect();
    let of = |app: &str, message: &str| {
        objects.iter().any(|object| {
            object["app_name"] == app
                && object["message"].as_str().is_some_and(|text| text.starts_with(message))
        })
    };
    for (app, message) in
        [("one", "text"), ("one", "{}"), ("two", "error"), ("one", "clusterd "), ("two", "worker started")]
    {
        assert!(of(app, message), "{app}: {message}: {lines:#?}");
    }
    assert!(
        objects
            .iter()
            .any(|object| object["message"] == "two: the app has failed (exited with code 2); others go on")
    );
}

#[test]
fn long_lines_of_several_apps_stay_whole() {
    needs!("perl");
    // More than a pipe takes at once.
    let script = "$| = 1; print \"$ENV{LETTER}\" x 9000, qq(\\n) for 1..200";
    let app = |letter: &str| {
        format!(
            "[app.{letter}]\ncommand = ['perl', '-e', '''{script}''']\nworkers = 2\nautorestart = false\n[app.{letter}.env]\nLETTER = '{letter}'\n"
        )
    };
    let home = home_of(&(app("a") + &app("b") + &app("c")));
    let mut up = Up::start(&home, "");
    assert_eq!(up.code(), 0, "{}", up.stderr.text());
    let lines = up.stdout.lines();
    for line in &lines {
        let (label, text) = line.split_once(" | ").unwrap_or_default();
        let letter = label.chars().next().unwrap_or_default();
        assert!(
            text.len() == 9000 && text.chars().all(|other| other == letter),
            "{label}: {} bytes",
            text.len()
        );
    }
    assert_eq!(lines.len(), 3 * 2 * 200);
}

#[test]
fn what_was_started_before_stays_defined_as_it_was() {
    needs!("node");
    let port = free_port();
    let home = home_of(&server("web", port, ""));
    home.say("start clusterd.toml").done();
    let running = home.say("up");
    assert!(running.code == 1 && running.stderr.contains("app web is running already"), "{running:?}");
    let pid = home.primary("web").pid().to_string();
    home.say("stop web").done();
    Process::find(pid.parse().expect("a number")).expect("it runs").signal(Signal::TERM);
    until("it has ended", || Process::find(pid.parse().ok()?).is_none().then_some(()));
    let (definition, record) = (home.file("web", "app.toml"), home.file("web", "state.json"));
    let mut up = Up::start(&home, "");
    up.says(&["web was started in the background before, and stays defined as it was then"]);
    until("it serves", || home.get(port));
    up.signal(Signal::TERM);
    assert_eq!(up.code(), 0);
    assert_eq!((home.file("web", "app.toml"), home.file("web", "state.json")), (definition, record));
}

#[test]
fn without_a_reader_of_its_output_all_apps_end() {
    let home = Home::new();
    home.write("talk.sh", "while :; do echo talking; sleep 0.05; done\n");
    home.write(
        "clusterd.toml",
        "[app.web]\ncommand = ['sleep', '1000']\n[app.talk]\ncommand = ['sh', 'talk.sh']\nworkers = 1\n",
    );
    let pipe = "{ \"$0\" up; echo \"code $?\" >&2; } | head -n 3";
    let mut up = Up::by(&home, &["sh", "-c", pipe, env!("CARGO_BIN_EXE_clusterd")], &[]);
    up.says(&["nobody reads the output any more; stopping all apps"]);
    up.says(&["code 0"]);
    assert_eq!(up.code(), 0);
    up.leaves_no_process();
    // The reader of a service may come back.
    let pipe = pipe.replace("\"$0\"", "INVOCATION_ID=1 \"$0\"");
    let up = Up::by(&home, &["sh", "-c", &pipe, env!("CARGO_BIN_EXE_clusterd")], &[]);
    until("head has ended", || (up.stdout.lines().len() == 3).then_some(()));
    until("they go on", || home.app("talk").filter(|app| app["ready"] == true));
    assert!(!up.stderr.text().contains("nobody reads"), "{}", up.stderr.text());
}

#[test]
fn without_a_file_it_says_what_was_looked_for() {
    let home = Home::new();
    let said = home.say("up");
    assert_eq!(said.code, 1);
    let says =
        "clusterd: this folder has neither a clusterd.toml nor an ecosystem file of PM2\nhint: name a file: ";
    assert!(said.stderr.starts_with(says), "{said:?}");
    home.write("app.js", "");
    assert_eq!(home.say("up app.js").code, 2);
    home.write("clusterd.toml", "[app.web]\ncommand = ['no-such-server-anywhere']\n");
    assert_eq!(home.say("up").code, 127);
    home.write("clusterd.toml", "[app.web]\ncommand = ['true']\nworkers = 'x'\n");
    assert_eq!(home.say("up").code, 78);
    assert_eq!(home.say("up --only api").code, 78);
    home.write("clusterd.toml", "[app.a]\ncommand = ['true']\n[app.b]\ncommand = ['true']\n");
    let named = home.say("up --name web");
    assert!(named.stderr.contains("--name web: several apps of this file"), "{named:?}");
    assert!(!home.path("web").exists());
}

#[test]
fn an_ecosystem_file_of_pm2_is_taken_as_it_is() {
    needs!("node");
    let home = Home::new();
    let port = free_port();
    home.write("server.js", &fs::read_to_string(fixtures().join("server.js")).expect("a fixture"));
    home.write(
        "ecosystem.config.js",
        &format!(
            "module.exports = {{ apps: [\n\
             {{ name: 'web', script: 'server.js', instances: 1, env: {{ PORT: 1 }}, env_production: {{ PORT: {port} }} }},\n\
             {{ name: 'queue', script: 'queue.js', exec_mode: 'fork' }}] }}\n"
        ),
    );
    home.write("queue.js", "console.log('queued', process.env.PORT); setInterval(() => {}, 1000)");
    let mut up = Up::start(&home, "--env production");
    up.writes("queue 1  | queued undefined");
    until("it serves", || home.get(port));
    up.signal(Signal::QUIT);
    assert_eq!(up.code(), 0);
}

#[test]
fn on_a_read_only_root_it_works_without_locks() {
    needs!("node", "unshare");
    if !needs::root() {
        return;
    }
    let port = free_port();
    let home = home_of(&(server("web", port, "") + &job("other", "echo up; sleep 1000", "")));
    // Nothing is writable, not even the folder for sockets.
    let read_only = "mount -o remount,bind,ro / && for at in /tmp /run /dev/shm; do ! mountpoint -q $at || mount -o remount,bind,ro $at; done; exec \"$@\"";
    let under = ["unshare", "--mount", "--propagation", "private", "sh", "-c", read_only, "sh"];
    let mut up = Up::under(&home, &under, "", &[]);
    up.writes("other 1  | up");
    until("it serves", || home.get(port));
    assert!(!home.path("web").exists());
    // By abstract names, of which there may be others.
    let pids: Vec<_> = up.process().children().iter().map(|child| Value::from(child.pid())).collect();
    let listed = Said::of(&home.home(), &under, "list -o json").json();
    let mut names: Vec<_> =
        listed.as_array().expect("a list").iter().filter(|app| pids.contains(&app["pid"])).collect();
    names.sort_by_key(|app| app["name"].to_string());
    assert_eq!(names.iter().map(|app| &app["name"]).collect::<Vec<_>>(), ["other", "web"]);
    up.signal(Signal::TERM);
    assert_eq!(up.code(), 0, "{}", up.stderr.text());
}

#[test]
fn as_pid_1_it_reaps_orphans_and_ends_on_term() {
    needs!("node", "unshare", "python3");
    if !needs::root() {
        return;
    }
    let port = free_port();
    // The killed primary's workers and guardian become children of the first process.
    let home = home_of(
        &(server("web", port, "drain-timeout = '1s'\nkill-timeout = '1s'\n")
            + &job("idle", "sleep 1000", "")),
    );
    let mut up = Up::under(&home, &["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"], "", &[]);
    until("it serves", || home.get(port));
    let init = until("the first process", || up.process().children().pop());
    let web = init
        .children()
        .into_iter()
        .find(|child| !child.children().is_empty())
        .expect("a primary with workers");
    web.signal(Signal::KILL);
    up.says(&["its clusterd was killed by SIGKILL; starting it again"]);
    until("it serves again", || home.get(port));
    until("two primaries are its only children, and all orphans are waited for", || {
        (init.children().len() == 2 && init.zombies() == 0).then_some(())
    });
    init.signal(Signal::TERM);
    assert_eq!(up.code(), 0, "{}", up.stderr.text());
    up.leaves_no_process();
}

#[test]
fn a_stuck_output_never_keeps_an_app_from_serving() {
    needs!("python3");
    let port = free_port();
    let flood =
        "[app.noisy]\ncommand = ['sh', '-c', 'yes flood & exec python3 {fixtures}/server.py']\nworkers = 1\n";
    let home = home_of(&format!("{flood}port = {port}\n"));
    // Nobody reads.
    let (_reader, writer) = std::io::pipe().expect("a pipe");
    let mark = home.folder().display().to_string();
    let mut child = Command::new(env!("CARGO_BIN_EXE_clusterd"))
        .arg("up")
        .current_dir(home.folder())
        .env("PWD", home.folder())
        .env("CLUSTERD_HOME", home.home())
        .env(MARK, &mark)
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .expect("clusterd can be started");
    let stderr = Output::read(child.stderr.take().expect("a pipe"));
    let mut up = Up { child, stdout: Output::default(), stderr, mark };
    up.says(&["lines of workers dropped", "file=stdout"]);
    until("it serves", || home.get(port));
    up.signal(Signal::TERM);
    let status = until("it has ended", || up.child.try_wait().expect("the child is ours"));
    assert_eq!(status.code(), Some(0), "{}", up.stderr.text());
}

#[test]
fn check_looks_for_errors_in_every_app_and_runs_none() {
    let fine = job("fine", "echo ran", "");
    let wrong = "[app.gone]\ncommand = ['no-such-program']\n[app.stranger]\ncommand = ['sh']\nuser = 'no-such-user'\n";
    let check = |toml: &str| {
        let home = home_of(toml);
        let mut up = Up::start(&home, "--check");
        (up.code(), up.stderr.lines(), up.stdout.lines())
    };
    assert_eq!(check(&fine), (0, Vec::new(), Vec::new()));
    let (code, said, ran) = check(&format!("{fine}{wrong}autostart = false\n"));
    assert_eq!((code, ran), (127, Vec::new()), "{said:#?}");
    assert_eq!(said.iter().filter(|line| line.starts_with("clusterd: ")).count(), 2, "{said:#?}");
    assert!(said[0].starts_with("clusterd: gone: cannot start no-such-program: not found"), "{said:#?}");
    assert!(
        said.iter().any(|line| line.starts_with("clusterd: stranger: ") && line.contains("no-such-user"))
    );
}
