use std::num::NonZeroU32;

use insta::assert_snapshot;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::super::super::origin::{Layer, Origin};
use super::*;

fn read_text(text: &str) -> Apps {
    read(Path::new("clusterd.toml"), text).expect("valid")
}

fn problems(text: &str) -> String {
    let invalid = read(Path::new("clusterd.toml"), text).expect_err("invalid");
    invalid.to_string()
}

/// Everything but where it stands.
fn bare(app: &App) -> String {
    let texts = |values: &[Value]| values.iter().map(|value| value.text.clone()).collect::<Vec<_>>();
    let layer = |layer: &Layer| -> BTreeMap<&'static str, Vec<String>> {
        let mut all: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for value in layer.values() {
            all.entry(value.name).or_default().push(value.text.clone());
        }
        // A table has no order.
        all.entry("env").or_default().sort();
        all
    };
    let run = match &app.run {
        Run::Command { words, .. } => format!("{words:?}"),
        Run::Script(script) => format!(
            "{:?} {:?} {:?} {:?}",
            script.script.text, script.interpreter, script.interpreter_args, script.args
        ),
    };
    let profiles: BTreeMap<_, _> = app
        .profiles
        .iter()
        .map(|(name, values)| {
            let mut texts = texts(values);
            texts.sort();
            (name, texts)
        })
        .collect();
    format!(
        "{} {run} {:?} {profiles:?} {} {} {:?}",
        app.name.text,
        layer(&app.settings),
        app.autostart,
        app.appends_profile,
        texts(&app.depends_on),
    )
}

#[test]
fn a_table_is_an_app() {
    let apps = read_text(
        "
        [app.web]
        command = ['node', 'app.js']
        port = 3000
        workers = 'max'
        depends-on = 'db'
        [app.web.env]
        NODE_ENV = 'development'
        [app.web.env.production]
        NODE_ENV = 'production'
        N = 5
        [app.'db.1']
        script = 'db.py'
        interpreter-args = ['-u']
        args = \"--path 'a b'\"
        namespace = 'data'
        restart-delay = '2s'
        filter-env = ['A', 'B']
        append-env-to-name = true
        autostart = false
        pid-file = 'a.pid'
        ",
    );
    let shown: Vec<_> = apps.apps.iter().map(bare).collect();
    assert_snapshot!(shown.join("\n"), @r#"
    web ["node", "app.js"] {"env": ["NODE_ENV=development"], "port": ["3000"], "workers": ["max"]} {"production": ["N=5", "NODE_ENV=production"]} true false ["db"]
    db.1 "db.py" None ["-u"] ["--path", "a b"] {"env": [], "filter-env": ["A", "B"], "namespace": ["data"], "pid-file": ["a.pid"], "restart-delay": ["2s"]} {} false true []
    "#);
    let warnings: Vec<_> = apps.warnings.iter().map(|warning| warning.problem.to_string()).collect();
    assert_eq!(warnings, [""; 0]);
    let web = &apps.apps[0];
    assert_eq!(web.settings.of(&keys::port.key)[0].origin.to_string(), "clusterd.toml:4");
    assert_eq!(web.layer().of(&keys::name.key)[0].text, "web");
    assert!(has_apps("[app.web]\ncommand = ['x']"));
    assert!(!has_apps("command = ['app']"));
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    assert_snapshot!(problems("workers = 4\n[app.web]\ncommand = ['x']\n"), @"
    clusterd.toml:1: workers: a setting of one app, in a file with tables of apps
    hint: put workers into the table of its app
    ");
    assert_snapshot!(problems("[app.a]\nwrokers = 4\ncommand = ['x']\nrestart-dealy = '1s'\nname = 'b'\n"), @"
    clusterd.toml:2: wrokers: no such key
    hint: did you mean workers?
    clusterd.toml:4: restart-dealy: no such key
    hint: did you mean restart-delay?
    clusterd.toml:5: name = 'b': a second name
    hint: leave it out: the app is called a by its table
    ");
    assert_snapshot!(problems("[app.a]\n[app.b]\ncommand = ['x']\nscript = 'y'\n[app.c]\ncommand = ['x']\nargs = 'z'\n[app.d]\ncommand = 'x'"), @r#"
    clusterd.toml:1: app.a: neither a command nor a script
    hint: add command = ["node", "app.js"], or a script
    clusterd.toml:4: script = 'y': cannot be used with command
    hint: use one of them
    clusterd.toml:7: args = 'z': has no effect without script
    hint: put all words into command, or use script instead of it
    clusterd.toml:9: command = 'x': not a command
    hint: use a list of the program and its arguments, such as ["node", "app.js"]
    "#);
    assert_snapshot!(problems("[app.a]\nscript = 5\nargs = [1]\nautostart = 5\nappend-env-to-name = 'yes'\ndepends-on = { a = 1 }"), @"
    clusterd.toml:2: script = 5: not a text
    clusterd.toml:3: args = [1]: not a list of texts
    clusterd.toml:4: autostart = 5: not true or false
    clusterd.toml:5: append-env-to-name = 'yes': not true or false
    clusterd.toml:6: depends-on = { a = 1 }: not a list of texts
    ");
    assert_snapshot!(problems("[app.a]\ncommand = ['x']\n[app.a.env]\nA = [1]\n[app.a.env.p]\nB = { C = 1 }\nworkers = 1"), @r#"
    clusterd.toml:4: env = { A = [1] }: neither a text nor a table of texts
    clusterd.toml:6: env = { B = { C = 1 } }: neither a text nor a table of texts
    clusterd.toml:7: env = { workers = 1 }: a setting of clusterd, and no variable
    hint: put workers above [env]: all that follows that line is in the table; if a variable is meant, use quotes: "workers"
    "#);
    assert_snapshot!(problems("app = 5"), @"
    clusterd.toml:1: app = 5: not a table of apps
    hint: begin an app with its name, such as [app.web], and its command
    ");
    assert_snapshot!(problems("app.a = 5"), @"
    clusterd.toml:1: app.a: not a table
    hint: begin an app with its name, such as [app.web], and its command
    ");
    assert_snapshot!(problems("[app]"), @"
    clusterd.toml: names no app
    hint: begin an app with its name, such as [app.web], and its command
    ");
    assert_snapshot!(problems("[apps.web]\ncommand = ['x']"), @"
    clusterd.toml:1: apps: no such key
    hint: did you mean app?
    ");
}

#[test]
fn values_are_judged_together() {
    let apps =
        read_text("[app.web]\ncommand = ['x']\nworkers = 0\nignore = ['*.log']\n[app.all]\ncommand = ['x']");
    let cpus = NonZeroU32::MIN;
    let said: Vec<_> =
        apps.apps.iter().flat_map(|app| app.check(cpus)).map(|problem| problem.to_string()).collect();
    assert_snapshot!(said.join("\n"), @r#"
    clusterd.toml:3: workers = 0: out of range
    hint: use a number from 1 to 1024, or "max"
    clusterd.toml:5: name = all: not a valid name
    hint: use 1 to 64 bytes of text; not digits alone, not "all", no leading dot, dash or slash, no space at an end
    "#);
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z./-]{1,8}",
        "[ -~äß\"'\\\\\n\t]{1,12}",
        Just("true".to_owned()),
        Just("007".to_owned()),
        Just("-5".to_owned()),
    ]
}

fn variables() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(
        prop_oneof![9 => "[A-Z_][A-Z0-9_.-]{0,6}", 1 => "(user|port|command)"],
        prop_oneof![word(), Just(String::new())],
        0..4,
    )
}

fn value(name: &'static str, text: impl Into<String>) -> Value {
    Value::new(name, text, Origin::CommandLine)
}

fn env(variables: BTreeMap<String, String>) -> Vec<Value> {
    variables.into_iter().map(|(name, text)| value("env", format!("{name}={text}"))).collect()
}

fn run() -> impl Strategy<Value = Run> {
    let script = (word(), proptest::option::of(word()), vec(word(), 0..3), vec(word(), 0..3));
    let script = script.prop_map(|(script, interpreter, interpreter_args, args)| {
        Run::Script(Script { script: value("script", script), interpreter, interpreter_args, args })
    });
    let command = vec(word(), 1..4).prop_map(|words| Run::Command { words, origin: Origin::CommandLine });
    prop_oneof![script, command]
}

prop_compose! {
    fn app()(
        name in "[a-z][a-z0-9._-]{0,5}",
        namespace in proptest::option::of(word()),
        run in run(),
        base in variables(),
        profiles in btree_map("[a-z'.]{1,5}", variables(), 0..3),
        workers in proptest::option::of(1..1024u32),
        codes in vec(0..256u32, 0..3),
        path in proptest::option::of(word()),
        waits in any::<bool>(),
        delay in proptest::option::of(0..100_000u32),
        depends_on in vec("[a-z]{1,3}", 0..3),
        autostart in any::<bool>(),
        appends_profile in any::<bool>(),
    ) -> App {
        let mut settings = Layer::default();
        env(base).into_iter().for_each(|value| settings.add(value));
        workers.iter().for_each(|workers| settings.add(value("workers", workers.to_string())));
        codes.iter().for_each(|code| settings.add(value("stop-exit-codes", code.to_string())));
        namespace.iter().for_each(|text| settings.add(value("namespace", text.clone())));
        path.iter().for_each(|path| settings.add(value("cwd", path.clone())));
        path.iter().for_each(|path| settings.add(value("pid-file", path.clone())));
        settings.add(value("wait-ready", waits.to_string()));
        delay.iter().for_each(|delay| settings.add(value("restart-delay", format!("{delay}ms"))));
        App {
            name: value("name", name),
            run,
            settings,
            profiles: profiles.into_iter().map(|(name, variables)| (name, env(variables))).collect(),
            autostart,
            appends_profile,
            depends_on: depends_on.into_iter().map(|text| value("depends-on", text)).collect(),
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(app in app()) {
        let text = write(&Apps { apps: vec![app.clone()], warnings: Vec::new() });
        let again = read(Path::new("clusterd.toml"), &text);
        let again = again.unwrap_or_else(|invalid| panic!("{invalid}\n{text}"));
        let shown: Vec<_> = again.apps.iter().map(bare).collect();
        prop_assert_eq!(shown, vec![bare(&app)], "{}", text);
        let once_more = write(&Apps { warnings: Vec::new(), ..again });
        prop_assert_eq!(once_more, text);
    }
}
