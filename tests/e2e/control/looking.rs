//! `list`, `describe` and `events`.

use serde_json::Value;

use crate::harness::needs::needs;
use crate::harness::said::Saying;
use crate::harness::{Cluster, Said, Signal, until};

#[test]
fn an_app_is_listed_with_its_workers() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).start();
    cluster.get("/");
    cluster.handed(1);
    let apps = cluster.say("list -o json").json();
    let [app] = apps.as_array().expect("a list").as_slice() else { panic!("one app: {apps}") };
    assert_eq!(
        (&app["name"], &app["wanted"], &app["stopped"]),
        (&"python3".into(), &2.into(), &false.into())
    );
    assert_eq!(app["pid"], cluster.primary().pid());
    assert_eq!(app["command"][0], "python3");
    assert_eq!(app["addresses"][0]["worker_port"], 8080);
    for (index, worker) in app["workers"].as_array().expect("a list").iter().enumerate() {
        let slot = u32::try_from(index + 1).expect("few");
        assert_eq!((&worker["worker"], &worker["state"]), (&slot.into(), &"online".into()));
        assert_eq!(worker["pid"], cluster.worker(slot).pid());
        assert_eq!(worker["listening"], serde_json::json!([8080]));
        assert!(worker["memory_bytes"].as_u64() > Some(1_000_000), "{worker}");
    }
    let taken = app["workers"].as_array().expect("a list").iter().map(|worker| &worker["connections_taken"]);
    assert_eq!(taken.filter_map(Value::as_u64).sum::<u64>(), 1);
}

#[test]
fn the_list_is_a_table_that_other_programs_can_read() {
    let cluster = Cluster::demo().workers(2).options("--name web").start();
    let said = until("workers have numbers", || {
        Some(cluster.say("ls"))
            .filter(|said| said.done().lines().skip(1).all(|row| !row.trim_start().starts_with('-')))
    });
    let rows: Vec<Vec<_>> = said.done().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..5], ["id", "name", "worker", "state", "pid"]);
    assert_eq!(rows[1][..4], ["0", "web", "1", "online"]);
    assert_eq!(rows[2][..4], ["1", "web", "2", "online"]);
    assert_eq!(rows[1].len(), rows[0].len());
    assert_eq!(said.stderr, "");
}

/// As in CVE-2021-42574, where text is shown in another order than it is stored in.
#[test]
fn what_a_worker_wrote_cannot_steer_the_terminal_of_who_looks() {
    const SAID: &str = "\u{202e}dlrow\u{2069} \u{1b}[2J\u{200b}\u{9b}m end";
    let script = format!("echo '{SAID}' >&2; exit 3");
    // It is there for as long as somebody looks.
    let cluster = Cluster::of("sh -c").arg(&script).options("--name web --restart-delay 1h").launch();
    let hidden = |text: &str| {
        text.chars().any(|one| (one.is_control() && one != '\n') || "\u{202e}\u{2069}\u{200b}".contains(one))
    };
    let said = until("its line is shown", || {
        // It may not be found yet.
        Some(cluster.say("describe web")).filter(|said| said.code == 0 && said.stdout.contains("\n  | "))
    });
    assert!(said.done().contains("  |  dlrow   [2J  m end"), "{said:?}");
    assert!(!hidden(said.done()), "{said:?}");
    let said = cluster.say("describe web -o json");
    assert_eq!(said.json()["workers"][0]["last_lines"][0], SAID);
    assert!(!hidden(said.done()), "{said:?}");
}

#[test]
fn without_a_clusterd_the_list_is_empty_and_a_command_fails() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let said = |words| Said::of(home.path(), &[], words);
    assert_eq!(said("list").done(), "no running clusterd found for this user\n");
    assert_eq!(said("list -o json").json(), serde_json::json!([]));
    for words in ["reload", "describe", "events", "stop all", "scale 3"] {
        let said = said(words);
        assert_eq!((said.code, said.stdout.as_str()), (1, ""), "{words}");
        assert_eq!(said.stderr, "clusterd: no running clusterd found for this user\n");
    }
}

#[test]
fn an_app_is_described_with_how_its_worker_ended() {
    needs!("sh");
    let cluster = Cluster::of("sh -c")
        .arg("echo first; echo second >&2; exit 7")
        .options("--name web --restart-delay 1h")
        .launch();
    let app = until("its end is known", || {
        // It may not be found yet.
        let app = Some(cluster.say("describe web -o json")).filter(|said| said.code == 0)?.json();
        (!app["workers"][0]["last_end"].is_null()).then_some(app)
    });
    let worker = &app["workers"][0];
    assert!(worker["last_end"].as_str().is_some_and(|end| end.contains("code 7")), "{worker}");
    let text = cluster.say("show").done().to_owned();
    assert!(text.contains("name      web\n") && text.contains("exited with code 7"), "{text}");
}

#[test]
fn what_happens_can_be_followed() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(1).start();
    let mut following = Saying::start(&cluster.home(), "events -o json");
    let told = following.stdout();
    until("an event comes", || {
        cluster.say("restart --worker 1").done();
        (!told.lines().is_empty()).then_some(())
    });
    let pid = cluster.worker(1).pid();
    until("the new worker is told of", || {
        let events = told.lines().into_iter().map(|line| serde_json::from_str::<Value>(&line).expect("JSON"));
        let mut online = events.filter(|event| event["event"] == "worker-online");
        online
            .any(|event| event["pid"] == pid && event["worker"] == 1 && event["app"] == "python3")
            .then_some(())
    });
    let mut cluster = cluster;
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
    assert_eq!(following.ended().code, 0, "its end is the end of the stream");
}

#[test]
fn several_clusterds_are_told_apart() {
    // Without a name that was given, several may be called the same.
    let first = Cluster::demo().start();
    let home = first.home();
    let other =
        |options: &str| Cluster::demo().options(options).env("CLUSTERD_HOME", home.as_os_str()).start();
    let second = other("--name api");
    let names = |said: &Said| -> Vec<String> {
        let apps = said.json();
        let apps = apps.as_array().expect("a list").iter();
        apps.map(|app| app["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(&first.say("list -o json")), ["api", "demo"]);
    let unclear = first.say("reload");
    assert_eq!((unclear.code, unclear.stdout.as_str()), (2, ""));
    assert!(unclear.stderr.contains("several apps are running: api (pid "), "{}", unclear.stderr);
    assert_eq!(first.say("describe api -o json").json()["pid"], second.primary().pid());
    assert_eq!(first.say("reload demo").done(), "demo: 1 worker replaced\n");
    assert_eq!(first.say("reload all").done(), "api: 1 worker replaced\ndemo: 1 worker replaced\n");
    let same = other("");
    let unclear = first.say("stop demo");
    assert!(unclear.code == 2 && unclear.stderr.contains("name one by its pid"), "{}", unclear.stderr);
    let by_pid = format!("stop {}", same.primary().pid());
    assert!(first.say(&by_pid).done().starts_with("demo: stopped"));
    let unknown = first.say("stop dmeo");
    assert!(unknown.code == 1 && unknown.stderr.contains("no app dmeo is running"), "{}", unknown.stderr);
}

#[test]
fn an_app_can_be_named_by_a_flag_as_well() {
    let web = Cluster::demo().options("--name web").start();
    let home = web.home();
    let _api = Cluster::demo().options("--name api").env("CLUSTERD_HOME", home.as_os_str()).start();
    let cases = [
        ("describe --name web", "name      web\n"),
        ("reload --name web", "web: 1 worker replaced\n"),
        ("restart --name web", "web: "),
        ("scale --name web 1", "web: "),
        ("stop --name web", "web: stopped"),
        ("start --name web", "web: "),
        ("curl --name web --worker 1 /", ""),
    ];
    for (verb, start) in cases {
        let said = web.say(verb);
        assert!(said.done().starts_with(start), "{verb}: {}", said.stdout);
    }
    for twice in ["reload web --name web", "scale web 1 --name web", "curl web / --worker 1 --name web"] {
        assert_eq!(web.say(twice).code, 2, "{twice}");
    }
}

#[test]
fn a_program_that_is_called_as_a_verb_can_still_be_run() {
    let setup = Cluster::of("list").file("list", "#!/bin/sh\nexec sleep 1000\n");
    let program = setup.folder.path().join("list");
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
    let path =
        format!("{}:{}", setup.folder.path().display(), std::env::var("PATH").expect("there is a PATH"));
    let cluster = setup.env("PATH", path).launch();
    until("its worker is there", || {
        let app = cluster.say("describe list -o json");
        (app.code == 0).then_some(())
    });
}
