//! `clusterd import`: what PM2's users have becomes clusterd's own file, which is then served.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::Cluster;
use crate::harness::needs::{self, needs};
use crate::harness::said::Said;

/// What `clusterd import` says in this folder.
fn import(folder: &Path, words: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clusterd"));
    command.arg("import").args(words).current_dir(folder).stdin(Stdio::null());
    command.output().expect("clusterd can be started").into()
}

fn with_files(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("written");
    }
    folder
}

const ECOSYSTEM: &str = "
    console.log('noise, which is no part of the file');
    const port = require('./package.json').port;
    module.exports = {
      apps: [{
        name: 'web',
        script: 'server.js',
        exec_mode: 'cluster',
        instances: 2,
        listen_timeout: 8000,
        kill_timeout: 3000,
        env: { PORT: port, GREETING: 'hello' },
        env_production: { GREETING: 'good day' },
      }],
    };
";

const SERVER: &str = "
    require('http')
      .createServer((request, response) => response.end(process.env.GREETING + ' from ' + process.env.PORT))
      .listen(process.env.PORT);
";

#[test]
fn an_ecosystem_file_is_imported_and_served() {
    needs!("node");
    // A shell makes the file that stdout goes to before anything is run.
    let own = ("clusterd.toml", "");
    let folder =
        with_files(&[("ecosystem.config.js", ECOSYSTEM), ("package.json", r#"{ "port": 8080 }"#), own]);
    let said = import(folder.path(), &[]);
    let file = said.done().to_owned();
    assert!(!file.contains("noise"), "{file}");
    let expected = [
        "# Made of ecosystem.config.js by `clusterd import`.",
        "# ecosystem.config.js: web: listen_timeout = 8000: in PM2 a worker that is not ready by then counts as ready",
        "[app.web]\nscript = \"server.js\"\nport = [8080]\nworkers = 2\n",
        "kill-timeout = \"3s\"",
        "[app.web.env]\nGREETING = \"hello\"",
        "[app.web.env.production]\nGREETING = \"good day\"",
    ];
    for part in expected {
        assert!(file.contains(part), "{part}\n{file}");
    }
    assert!(
        said.stderr.contains("\nclusterd: warning: ecosystem.config.js: web: listen_timeout"),
        "{}",
        said.stderr
    );

    // clusterd's own checks find nothing wrong with it, and workers serve.
    let cluster = Cluster::demo()
        .file("clusterd.toml", &file)
        .file("server.js", SERVER)
        .options("--config clusterd.toml")
        .start();
    assert_eq!(cluster.get("/"), "hello from 8080");
    assert!(cluster.say("list").done().contains("web"));
}

#[test]
fn a_profile_is_put_in_force() {
    needs!("node");
    let folder = with_files(&[("ecosystem.config.js", ECOSYSTEM), ("package.json", r#"{ "port": 8080 }"#)]);
    let file = import(folder.path(), &["--env", "production"]).done().to_owned();
    assert!(file.contains("[app.web.env]\nGREETING = \"good day\""), "{file}");
    assert!(!file.contains("env.production"), "{file}");
    let unknown = import(folder.path(), &["--env", "prodution"]);
    assert_eq!((unknown.code, unknown.stdout.as_str()), (78, ""));
    assert!(
        unknown.stderr.ends_with("has no profile prodution\nhint: did you mean production?\n"),
        "{}",
        unknown.stderr
    );
}

#[test]
fn every_kind_of_file_comes_to_the_same() {
    let json = r#"{ /* mine */ "apps": [{ "name": "web", "script": "app.js", "instances": "max", }] }"#;
    let files = with_files(&[
        ("eco.json", json),
        ("package.json", r#"{ "name": "x", "pm2": { "name": "web", "script": "app.js", "instances": 0 } }"#),
        ("eco.yaml", "apps:\n  - name: web\n    script: app.js\n    instances: max\n"),
        ("eco.config.cjs", "exports.apps = [{ name: 'web', script: 'app.js', instances: 'max' }]"),
        ("eco.config.mjs", "export default { apps: [{ name: 'web', script: 'app.js', instances: 'max' }] }"),
        ("eco.js", "module.exports = async () => [{ name: 'web', script: 'app.js', instances: 'max' }]"),
        (
            "dump.pm2",
            r#"[{ "name": "web", "pm_exec_path": "app.js", "exec_mode": "cluster_mode", "instances": 0, "env": {} }]"#,
        ),
    ]);
    for name in
        ["eco.json", "package.json", "eco.yaml", "eco.config.cjs", "eco.config.mjs", "eco.js", "dump.pm2"]
    {
        if name.contains("js") && !name.contains("json") && !needs::program("node") {
            continue;
        }
        let said = import(files.path(), &[name]);
        let (_, app) = said.done().split_once("\n\n").expect("a head");
        let workers = if name == "dump.pm2" { "1" } else { "\"max\"" };
        assert_eq!(app, format!("[app.web]\nscript = \"app.js\"\nworkers = {workers}\n"), "{name}");
        assert_eq!(said.stderr, "", "{name}");
    }
}

#[test]
fn what_cannot_be_read_says_where_and_exits_with_78() {
    let folder = with_files(&[
        (
            "wrong.json",
            "{ \"apps\": [\n  { \"name\": \"web\", \"script\": \"a.js\", \"max_restart\": 3 } ] }",
        ),
        ("twice.json", r#"[{ "name": "a", "script": "x" }, { "name": "a", "script": "y" }]"#),
        (
            "one-port.json",
            r#"[{ "name": "a", "script": "x", "port": 80 }, { "name": "b", "script": "y", "port": 80 }]"#,
        ),
        ("broken.config.js", "module.exports = {\n  apps: [nosuch],\n};\n"),
        ("app.py", ""),
    ]);
    let path = folder.path();
    let said = import(path, &["wrong.json"]);
    assert_eq!((said.code, said.stdout.as_str()), (78, ""));
    let expected =
        "clusterd: wrong.json:2: web: max_restart = 3: no such key\nhint: did you mean max_restarts?\n";
    assert_eq!(said.stderr, expected);
    let said = import(path, &["twice.json"]);
    assert_eq!(said.code, 78);
    assert!(
        said.stderr.contains("twice.json:1: a: name = \"a\": the same name as the app of twice.json:1"),
        "{}",
        said.stderr
    );
    let said = import(path, &["one-port.json"]);
    assert!(
        said.stderr.contains("warning: one-port.json:1: b: port = 80: a has the same port"),
        "{}",
        said.stderr
    );
    assert_eq!(said.code, 0);
    for (words, code, what) in [
        (&["none.json"][..], 78, "none.json: cannot read the configuration file: No such file"),
        (&["app.py"], 78, "app.py: no file with apps, by its name"),
        (&[], 2, "no ecosystem file in this folder"),
    ] {
        let said = import(path, words);
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.stderr.contains(what), "{said:?}");
    }
    needs!("node");
    let said = import(path, &["broken.config.js"]);
    assert_eq!(said.code, 78);
    assert_eq!(said.stderr, "clusterd: broken.config.js:2: the file fails: nosuch is not defined\n");
}

#[test]
fn json_is_for_programs() {
    let folder = with_files(&[("eco.json", r#"[{ "name": "web", "script": "a.js", "vizion": true }]"#)]);
    let said = import(folder.path(), &["eco.json", "-o", "json"]);
    let json = said.json();
    assert_eq!(json["apps"], serde_json::json!(["web"]));
    assert_eq!(json["warnings"][0]["app"], "web");
    assert!(
        json["warnings"][0]["message"].as_str().expect("a text").contains("vizion = true: has no effect")
    );
    assert!(json["toml"].as_str().expect("a text").contains("[app.web]"));
}

#[test]
fn one_clusterd_runs_one_app_of_a_file() {
    let two = "[app.a]\ncommand = ['x']\n[app.b]\ncommand = ['y']\n";
    let ended = Cluster::demo().file("clusterd.toml", two).options("--config clusterd.toml --check").run();
    assert_eq!(ended.status.code(), Some(78));
    assert!(
        ended.stderr.contains("clusterd.toml: has 2 apps, a, b, and one clusterd runs one"),
        "{}",
        ended.stderr
    );
}
