use std::num::NonZeroU32;
use std::path::Path;

use insta::assert_snapshot;
use proptest::prelude::*;

use super::super::file::{self, Format};
use super::super::{Apps, toml};
use super::*;

fn read(name: &str, text: &str) -> Result<Apps, Invalid> {
    let path = Path::new(name);
    file::read(path, text, file::format(path).expect("a format"))
}

/// As `clusterd import` prints it.
fn imported(name: &str, text: &str) -> String {
    match read(name, text) {
        Ok(apps) => {
            let wrong: Vec<_> = apps.apps.iter().flat_map(|app| app.check(NonZeroU32::MIN)).collect();
            assert!(wrong.is_empty(), "{wrong:?}");
            let text = toml::write(&apps);
            let again = toml::read(Path::new("clusterd.toml"), &text).expect("our own file");
            assert_eq!(again.apps.len(), apps.apps.len());
            text
        }
        Err(invalid) => invalid.to_string(),
    }
}

/// Without what is said of it.
fn bare(name: &str, text: &str) -> String {
    let text = imported(name, text);
    text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_ecosystem_file_has_many_shapes() {
    let app = "[app.web]\nscript = \"app.js\"\nworkers = 1";
    let cases = [
        ("eco.json", r#"{ "apps": [{ "name": "web", "script": "app.js" }] }"#),
        (
            "eco.json",
            r#"// mine
            { apps: [{ name: 'web', script: 'app.js', }, ], }"#,
        ),
        ("eco.json", r#"{ "apps": { "name": "web", "script": "app.js" } }"#),
        ("eco.json", r#"[{ "name": "web", "exec": "app.js" }]"#),
        ("eco.json", r#"{ "name": "web", "cmd": "app.js" }"#),
        ("package.json", r#"{ "name": "x", "pm2": [{ "name": "web", "script": "app.js" }] }"#),
        ("package.json", r#"{ "pm2": { "apps": [{ "name": "web", "script": "app.js" }] } }"#),
        ("package.json", r#"{ "pm2": { "name": "web", "command": "app.js" } }"#),
        ("eco.yaml", "apps:\n  - name: web\n    script: app.js\n"),
        ("eco.yml", "- name: web\n  script: app.js\n"),
    ];
    for (name, text) in cases {
        assert_eq!(bare(name, text), app, "{name}: {text}");
    }
}

#[test]
fn what_is_no_ecosystem_file_says_so() {
    let cases = [
        ("package.json", r#"{ "name": "x" }"#),
        ("eco.json", r#"{ "app": [{ "script": "a.js" }] }"#),
        ("eco.json", "5"),
        ("eco.json", r#"{ "apps": [] }"#),
        ("eco.json", r#"{ "apps": [ 5, [] ] }"#),
        ("eco.json", "{ \"apps\": [\n { ] }"),
        ("eco.yaml", "apps:\n - [a\nb: 1"),
        ("eco.json", ""),
    ];
    let said: Vec<_> = cases.iter().map(|(name, text)| imported(name, text)).collect();
    assert_snapshot!(said.join("\n"), @r#"
    package.json: has no key pm2
    hint: add "pm2": { "apps": [...] }, or name the file that has the apps
    eco.json:1: app: no such key
    hint: did you mean apps?
    eco.json: a number is no list of apps
    hint: use a list of apps: { "apps": [{ "name": "web", "script": "app.js" }] }
    eco.json: names no app
    hint: use a list of apps: { "apps": [{ "name": "web", "script": "app.js" }] }
    eco.json:1: apps[0]: a number is no app
    hint: use an object, such as { "name": "web", "script": "app.js" }
    eco.json:1: apps[1]: a list is no app
    hint: use an object, such as { "name": "web", "script": "app.js" }
    eco.json:2: not valid JSON: Unexpected token in object
    eco.yaml:3: not valid YAML: illegal placement of ':' indicator
    eco.json: not valid JSON: it is empty
    "#);
}

/// Every key of PM2's schema, once.
const EVERY_KEY: &str = include_str!("every_key.yaml");

#[test]
fn every_key_is_honoured_or_named() {
    assert_snapshot!(imported("eco.yaml", EVERY_KEY), @r#"
    # eco.yaml:18: web: listen_timeout = 8000: in PM2 a worker that is not ready by then counts as ready; here its start has failed, and a reload keeps the old workers
    # hint: make it as long as the slowest start takes
    # eco.yaml:30: web: watch = ["src","views/*.ejs"]: views/*.ejs is a pattern: views is watched with all below
    # hint: use ignore_watch for what does not matter
    # eco.yaml:31: web: watch_delay = 1000: has no effect
    # hint: a reload comes when nothing has changed for 200 ms
    # eco.yaml:33: web: watch_options = {"followSymlinks":false}: has no effect
    # hint: use ignore_watch for what does not matter
    # eco.yaml:36: web: filter_env = ["AWS"]: PM2 drops every variable that has such a word in its name; here it is the whole name
    # hint: list the names
    # eco.yaml:39: web: username = "me": has no effect
    # hint: use user for the user that workers run as
    # eco.yaml:48: web: force = true: has no effect
    # hint: give the second app a name of its own
    # eco.yaml:49: web: name_prefix = "x-": has no effect
    # hint: write the prefix into the name
    # eco.yaml:50: web: kill_retry_time = 50: has no effect
    # hint: clusterd is told when a process ends, and polls for nothing
    # eco.yaml:51: web: source_map_support = true: has no effect
    # hint: use node_args: "--enable-source-maps"
    # eco.yaml:53: web: execute_command = true: has no effect
    # hint: a script with a space in it is a line for a shell
    # eco.yaml:54: web: write = true: has no effect
    # hint: `clusterd import` writes a file
    # eco.yaml:56: web: vizion = true: has no effect
    # hint: what a release is, its own metrics and logs can tell
    # eco.yaml:57: web: post_update = ["npm ci"]: has no effect
    # hint: run such commands where the release is made, and `clusterd reload` after them
    # eco.yaml:58: web: install_url = "http://example.com": has no effect
    # hint: run such commands where the release is made, and `clusterd reload` after them
    # eco.yaml:59: web: pmx = true: has no effect
    # hint: it is of PM2's monitoring; clusterd serves metrics with `metrics`, and each worker's own with `scrape`
    # eco.yaml:60: web: automation = true: has no effect
    # hint: it is of PM2's monitoring; clusterd serves metrics with `metrics`, and each worker's own with `scrape`
    # eco.yaml:61: web: trace = true: has no effect
    # hint: it is of PM2's monitoring; clusterd serves metrics with `metrics`, and each worker's own with `scrape`
    # eco.yaml:63: web: v8 = true: has no effect
    # hint: it is of PM2's monitoring; clusterd serves metrics with `metrics`, and each worker's own with `scrape`
    # eco.yaml:64: web: event_loop_inspector = true: has no effect
    # hint: it is of PM2's monitoring; clusterd serves metrics with `metrics`, and each worker's own with `scrape`
    # eco.yaml:65: web: deep_monitoring = true: has no effect
    # hint: it is of PM2's monitoring; clusterd serves metrics with `metrics`, and each worker's own with `scrape`
    # eco.yaml:66: web: io = {"apm":{}}: has no effect
    # hint: it is of PM2's monitoring; clusterd serves metrics with `metrics`, and each worker's own with `scrape`
    [app.web]
    script = "server.js"
    interpreter = "/usr/bin/node"
    interpreter-args = ["--max-old-space-size=200"]
    args = ["--verbose", "a b"]
    depends-on = ["jobs"]
    append-env-to-name = true
    autostart = false
    port = [3000]
    workers = 4
    namespace = "shop"
    cwd = "./web"
    env-file = [".env"]
    filter-env = ["AWS"]
    instance-var = "INSTANCE"
    pid-file = "web.pid"
    user = "www-data"
    group = 33
    wait-ready = true
    ready-timeout = "8s"
    autorestart = false
    min-uptime = "5s"
    max-restarts = 10
    restart-delay = "2s"
    restart-backoff = "100ms"
    stop-exit-codes = [0, 3]
    shutdown-with-message = true
    kill-timeout = "3s"
    treekill = false
    cron = "0 3 * * *"
    watch = ["./web/src", "./web/views"]
    ignore = ["node_modules", "*.md"]
    max-memory = "300M"
    out-file = "out.log"
    error-file = "/dev/null"
    log-file = "both.log"
    merge-logs = true
    log-date-format = "YYYY-MM-DD"
    log-type = "json"
    disable-logs = true

    [app.web.env]
    LIST = "[1,2]"
    NODE_ENV = "development"
    NOTHING = "null"
    YES = "true"

    [app.web.env.production]
    NODE_ENV = "production"
    PORT = "8080"

    # eco.yaml:74: jobs: cron = "5/15 * * * *": 5/15 is written 5-59/15
    # hint: every so many from the first is a range with a step in crontab(5)
    # eco.yaml:74: jobs: cron = "5/15 * * * *": clusterd reloads where PM2 restarts: for a moment the old worker and the new one run side by side
    # hint: make sure that two of them do no harm
    [app.jobs]
    script = "worker.py"
    workers = 3
    increment-var = "NUMBER"
    cron = "5-59/15 * * * *"
    max-memory = "1G"
    merge-logs = true
    log-date-format = "YYYY-MM-DDTHH:mm:ss"
    "#);
    let tree = super::super::tree::yaml(EVERY_KEY).expect("YAML");
    let Some(Data::List(apps)) = tree.get("apps").map(|apps| &apps.data) else { panic!("no list") };
    let unused: Vec<_> = keys::KEYS
        .iter()
        .filter(|key| !apps.iter().any(|app| keys::names(key).any(|name| app.get(&name).is_some())))
        .collect();
    assert!(unused.is_empty(), "{unused:?}");
}

/// No key may be dropped without a word: it is in the file that is written, or it is named.
#[test]
fn nothing_is_dropped_in_silence() {
    let tree = super::super::tree::yaml(EVERY_KEY).expect("YAML");
    let Some(Data::List(apps)) = tree.get("apps").map(|apps| &apps.data) else { panic!("no list") };
    for app in apps {
        let Data::Map(entries) = &app.data else { panic!("no app") };
        for (key, value) in entries {
            let becomes = keys::named(key).map(|key| (key.name, key.becomes));
            match becomes {
                // Every app has them, and each is a cluster.
                Some(("script" | "name" | "exec_mode", _)) => continue,
                Some((_, keys::Becomes::Nothing { harmless, .. }))
                    if harmless.contains(&value.json().as_str()) =>
                {
                    continue;
                }
                _ => {}
            }
            let script = ("script".to_owned(), Tree { data: Data::Text("app.js".to_owned()), line: None });
            // What only counts together with it.
            let watch = ("watch".to_owned(), Tree { data: Data::Truth(true), line: None });
            let needs = if key == "ignore_watch" { vec![watch] } else { Vec::new() };
            let with = |entries: Vec<(String, Tree)>| {
                let tree = Tree { data: Data::Map(entries), line: None };
                let apps =
                    ecosystem(Path::new("eco.yaml"), &Tree { data: Data::List(vec![tree]), line: None })
                        .expect("valid");
                (toml::write(&Apps { warnings: Vec::new(), apps: apps.apps }), apps.warnings.len())
            };
            let without = with([vec![script.clone()], needs.clone()].concat());
            let given = with([vec![script], needs, vec![(key.clone(), value.clone())]].concat());
            assert!(given != without, "{key}: {}", value.json());
        }
    }
}

#[test]
fn wrong_types_name_app_key_value_and_what_is_right() {
    let text = r#"{ "apps": [
      { "name": "a", "script": 5, "max_restart": 3,
        "autorestart": "false", "kill_timeout": "3s", "args": {} },
      { "name": "b", "instances": "two", "env": "A=1", "script": "x", "exec_mode": "foo" },
      { "script": "c.js", "interpreter": "node@18", "port": "http", "depends_on": 5, "time": 1, "cwd": [] },
      { "name": "d" },
      { "script": " " }
    ]}"#;
    assert_snapshot!(imported("eco.json", text), @r#"
    eco.json:2: a: max_restart = 3: no such key
    hint: did you mean max_restarts?
    eco.json:3: a: autorestart = "false": a text is not accepted
    hint: use false without quotes
    eco.json:3: a: kill_timeout = "3s": a text is not accepted
    hint: use a number of milliseconds, such as 3000
    eco.json:2: a: script = 5: a number is not accepted
    hint: use a text
    eco.json:4: b: instances = "two": a text is not accepted
    hint: use a whole number or "max"
    eco.json:4: b: env = "A=1": a text is not accepted
    hint: use an object, such as { "NODE_ENV": "production" }
    eco.json:4: b: exec_mode = "foo": a text is not accepted
    hint: use "fork" or "cluster"
    eco.json:5: c.js: time = 1: a number is not accepted
    hint: use true or false
    eco.json:5: c.js: cwd = []: a list is not accepted
    hint: use a text
    eco.json:5: c.js: port = "http": a text is not accepted
    hint: use a number, such as 3000
    eco.json:5: c.js: interpreter = "node@18": clusterd does not ask nvm for a version
    hint: use the path of that Node, which ends in .nvm/versions/node/v18/bin/node
    eco.json:5: c.js: depends_on = 5: a number is not accepted
    hint: use a text or a list of texts
    eco.json:6: d: no script
    hint: add what the app runs, such as script: "app.js"
    eco.json:7:  : script = " ": an empty text is not accepted
    hint: name what the app runs
    "#);
}

#[test]
fn a_key_with_a_line_end_is_named_on_one_line() {
    let apps = read("eco.json", r#"{ "script": "a.js", "x\nhint: y": 1 }"#).expect("valid");
    let said = apps.warnings[0].problem.to_string();
    assert_eq!(said, r"eco.json:1: a.js: x\nhint: y = 1: is no key of PM2, and has no effect");
}

#[test]
fn names_are_made_such_as_may_be() {
    let name = |name: &str| {
        let apps = read("eco.json", &format!("[{{ {name}, script: './src/a.b.js' }}]")).expect("valid");
        (apps.apps[0].name.text.clone(), apps.warnings.len())
    };
    assert_eq!(name("args: []"), ("a.b".to_owned(), 0));
    assert_eq!(name("name: 'web'"), ("web".to_owned(), 0));
    assert_eq!(name("name: 'we ird/na:me é'"), ("we ird/na:me é".to_owned(), 0));
    assert_eq!(name("name: '/web/'"), ("app".to_owned(), 1));
    assert_eq!(name("name: '7'"), ("app".to_owned(), 1));
    assert_eq!(name("name: 'all'"), ("app".to_owned(), 1));
    let script = |script: &str| {
        read("eco.json", &format!("{{ script: {script:?} }}")).expect("valid").apps[0].name.text.clone()
    };
    assert_eq!(script("npm run start"), "npm");
    assert_eq!(script("server"), "server");
}

#[test]
fn the_port_is_what_the_app_is_told() {
    let cases = [
        ("port: 3000", "port = [3000]", ""),
        ("env: { PORT: 3000 }", "port = [3000]", ""),
        ("port: 1, env: { PORT: 2 }", "port = [1]", ""),
        ("env: { PORT: 2, A: 1 }", "port = [2]", "A = \"1\""),
        ("env: { PORT: '/run/a' }", "", "PORT = \"/run/a\""),
        ("env: { PORT: 7000 }, increment_var: 'PORT'", "", "PORT = \"7000\""),
    ];
    for (keys, port, env) in cases {
        let text = bare("eco.json", &format!("{{ script: 'a.js', {keys} }}"));
        assert_eq!(text.lines().find(|line| line.starts_with("port")).unwrap_or_default(), port, "{keys}");
        let (_, table) = text.split_once("[app.a.env]\n").unwrap_or_default();
        assert_eq!(table.trim(), env, "{keys}");
    }
}

#[test]
fn paths_that_are_watched_start_from_the_apps_folder() {
    let watch = |keys: &str| {
        let text = bare("eco.json", &format!("{{ script: 'a.js', {keys} }}"));
        text.lines().find(|line| line.starts_with("watch")).unwrap_or_default().to_owned()
    };
    assert_eq!(watch("watch: true"), r#"watch = ["."]"#);
    assert_eq!(watch("watch: true, cwd: '/srv/app'"), r#"watch = ["/srv/app"]"#);
    assert_eq!(watch("watch: ['src', '/etc/x'], cwd: 'app'"), r#"watch = ["app/src", "/etc/x"]"#);
    assert_eq!(watch("watch: false, ignore_watch: ['x']"), "");
}

#[test]
fn a_dump_is_made_a_file_again() {
    let text = include_str!("dump.json");
    assert_snapshot!(imported("dump.pm2", text), @r#"
[app.web]
script = "/srv/web/server.js"
args = ["--x"]
port = [3000]
workers = 2
cwd = "/srv/web"
kill-timeout = "3s"
max-memory = "300M"
error-file = "/var/log/web.err"

[app.web.env]
SECRET = "s"

# dump.pm2: jobs: was stopped when it was saved
[app.jobs]
script = "/srv/jobs/run"
interpreter = "none"
workers = 1
namespace = "night"
cwd = "/srv/jobs"

[app.jobs.env]
A = "1"
"#);
    assert_eq!(file::format(Path::new("dump.pm2")), Some(Format::Dump));
    assert_snapshot!(imported("dump.pm2", "{}"), @"
    dump.pm2: an object is no list of processes
    hint: name the file that `pm2 save` has written
    ");
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(
        key in prop::sample::select(keys::KEYS.iter().map(|key| key.name).collect::<Vec<_>>()),
        value in prop::sample::select(vec!["0", "-1", "1e300", "true", "\"\"", "\" \"", "\"a=b\"", "[]", "[null]", "{}", "{\"\":\"\"}", "null", "\"* * * * * *\"", "\"/\"", "\"\\u0000\""]),
        script in prop::sample::select(vec!["a.js", "a b", "/", "."]),
    ) {
        let text = format!("[{{ \"{key}\": {value}, \"exec\": {script:?} }}]");
        if let Ok(apps) = read("eco.json", &text) {
            let _ = apps.apps.iter().flat_map(|app| app.check(NonZeroU32::MIN)).count();
            let written = toml::write(&apps);
            prop_assert!(toml::read(Path::new("clusterd.toml"), &written).is_ok(), "{}", written);
        }
    }
}
