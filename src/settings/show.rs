//! The configuration as a table for people: `--show-config`.
//!
//! It decides nothing and prints nothing.

use std::fmt::Write as _;
use std::time::Duration;

use super::WorkerCommand;
use super::keys;
use super::origin::Origin;
use super::resolve::Resolved;
use super::setting::Key;

const NONE: &str = "none";

/// One aligned line a value: its key, the value that counts, and where it comes from.
pub fn table(resolved: &Resolved) -> String {
    let rows = rows(resolved);
    let width = |column: fn(&[String; 3]) -> &String| {
        let widths = rows.iter().map(|row| column(row).chars().count());
        widths.max().unwrap_or_default()
    };
    let (names, values) = (width(|row| &row[0]), width(|row| &row[1]));
    let mut table = String::new();
    for [name, value, origin] in &rows {
        writeln!(table, "{name:names$}  {value:values$}  ({origin})").expect("a string takes everything");
    }
    table
}

fn rows(resolved: &Resolved) -> Vec<[String; 3]> {
    let file = match &resolved.file {
        Some((path, origin)) => [path.display().to_string(), from(origin)],
        None => [NONE.to_owned(), from(&Origin::Default)],
    };
    let command = [command(&resolved.config.command), from(&resolved.command)];
    let settings = keys::all().map(|key| {
        let value = (key.show)(&resolved.config);
        let origin = origin(resolved, key, &value);
        [key.name.to_owned(), value, origin]
    });
    let mut rows = Vec::from_iter(settings);
    for (name, [value, origin]) in [(keys::COMMAND, command), ("config", file)] {
        rows.push([name.to_owned(), value, origin]);
    }
    rows
}

/// A duration, with its units.
pub(super) fn duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// A value that may be switched off.
pub(super) fn or_off(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "off".to_owned(), |value| value.to_string())
}

/// Values with commas between them.
pub(super) fn list(values: impl IntoIterator<Item = impl ToString>) -> String {
    let all: Vec<_> = values.into_iter().map(|value| value.to_string()).collect();
    if all.is_empty() { NONE.to_owned() } else { all.join(", ") }
}

/// As the file has it, so that it can be copied there.
fn command(command: &WorkerCommand) -> String {
    match command {
        WorkerCommand::Demo => "the built-in demo".to_owned(),
        WorkerCommand::Program { program, arguments } => {
            let words: Vec<_> = std::iter::once(program).chain(arguments).collect();
            format!("{words:?}")
        }
    }
}

/// With the default's own spelling where that is another: `max` stands for a number.
fn origin(resolved: &Resolved, key: &Key, shown: &str) -> String {
    match resolved.values.get(key.name) {
        Some(value) if value.origin == Origin::Default && value.text != shown => {
            format!("default: {}", value.text)
        }
        Some(value) => from(&value.origin),
        None => match other_of_listen(resolved, key) {
            Some(other) if *other != Origin::Default => format!("{other} decides"),
            _ => from(&Origin::Default),
        },
    }
}

/// Who decided where to listen, for whichever of `port` and `bind` was not named.
fn other_of_listen<'a>(resolved: &'a Resolved, key: &Key) -> Option<&'a Origin> {
    let (port, bind) = (keys::PORT.key.name, keys::BIND.key.name);
    let other = [(port, bind), (bind, port)].into_iter().find(|(name, _)| *name == key.name)?.1;
    resolved.values.get(other).map(|value| &value.origin)
}

fn from(origin: &Origin) -> String {
    match origin {
        Origin::Default => "default".to_owned(),
        named => format!("from {named}"),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::path::Path;

    use insta::assert_snapshot;

    use super::super::origin::{Layer, Value};
    use super::super::resolve::{Sources, resolve};
    use super::super::{environment, file};
    use super::*;

    fn shown(sources: Sources) -> String {
        table(&resolve(sources, NonZeroU32::new(3).expect("not zero")).expect("valid"))
    }

    #[test]
    fn every_key_has_a_row_in_the_order_of_the_table() {
        let table = shown(Sources::default());
        let names = table.lines().map(|line| line.split(' ').next().unwrap_or_default());
        let keys = keys::all().map(|key| key.name).chain([keys::COMMAND, "config"]);
        assert!(names.eq(keys), "{table}");
    }

    #[test]
    fn defaults() {
        assert_snapshot!(shown(Sources::default()), @"
        port             3000               (default)
        bind             none               (default)
        backlog          4096               (default)
        queue            1024               (default)
        queue-timeout    1m                 (default)
        window           16                 (default)
        handoff-timeout  1s                 (default)
        policy           round-robin        (default)
        workers          3                  (default: max)
        name             demo               (default: auto)
        attach           auto               (default)
        user             off                (default)
        group            off                (default)
        nofile           off                (default)
        oom-score-adj    off                (default)
        cpu-affinity     false              (default)
        cpu-scheduling   batch              (default)
        wait-ready       false              (default)
        ready-http       off                (default)
        ready-timeout    30s                (default)
        autorestart      true               (default)
        min-uptime       1s                 (default)
        max-restarts     16                 (default)
        stop-exit-codes  none               (default)
        drain-timeout    6s                 (default)
        stop-signal      TERM               (default)
        kill-timeout     1s 600ms           (default: 1600ms)
        reload-parallel  1                  (default)
        cron             off                (default)
        watch            none               (default)
        ignore           none               (default)
        health-http      off                (default)
        health-interval  10s                (default)
        health-failures  3                  (default)
        stuck-timeout    off                (default)
        max-memory       off                (default)
        max-age          off                (default)
        max-connections  off                (default)
        metrics          off                (default)
        scrape           off                (default)
        log-format       text               (default)
        log-level        info               (default)
        on-event         off                (default)
        command          the built-in demo  (default)
        config           none               (default)
        ");
    }

    #[test]
    fn each_value_says_where_it_comes_from() {
        let mut flags = Layer::default();
        for (name, text) in [("bind", "[::1]:80:8080"), ("bind", "127.0.0.1:80:8080"), ("metrics", ":9090")] {
            flags.add(Value::new(name, text, Origin::Flag(name)));
        }
        let environment = environment::read(&|variable| match variable {
            "WEB_CONCURRENCY" => Some("2".into()),
            "CLUSTERD_KILL_TIMEOUT" => Some("1500ms".into()),
            _ => None,
        });
        let path = Path::new("clusterd.toml");
        let file = file::read(path, "port = 5000\nqueue = 16\ncommand = [\"./my-server\", \"a b\"]");
        let sources = Sources {
            flags,
            environment: environment.own,
            platform: environment.platform,
            file: file.layer,
            command: file.command,
            config: Some((path.to_owned(), Origin::Flag("config"))),
            problems: Vec::new(),
        };
        assert_snapshot!(shown(sources), @r#"
        port             none                              (--bind decides)
        bind             [::1]:80:8080, 127.0.0.1:80:8080  (from --bind)
        backlog          4096                              (default)
        queue            16                                (from clusterd.toml:2)
        queue-timeout    1m                                (default)
        window           16                                (default)
        handoff-timeout  1s                                (default)
        policy           round-robin                       (default)
        workers          2                                 (from WEB_CONCURRENCY)
        name             my-server                         (default: auto)
        attach           auto                              (default)
        user             off                               (default)
        group            off                               (default)
        nofile           off                               (default)
        oom-score-adj    off                               (default)
        cpu-affinity     false                             (default)
        cpu-scheduling   batch                             (default)
        wait-ready       false                             (default)
        ready-http       off                               (default)
        ready-timeout    30s                               (default)
        autorestart      true                              (default)
        min-uptime       1s                                (default)
        max-restarts     16                                (default)
        stop-exit-codes  none                              (default)
        drain-timeout    6s                                (default)
        stop-signal      TERM                              (default)
        kill-timeout     1s 500ms                          (from CLUSTERD_KILL_TIMEOUT)
        reload-parallel  1                                 (default)
        cron             off                               (default)
        watch            none                              (default)
        ignore           none                              (default)
        health-http      off                               (default)
        health-interval  10s                               (default)
        health-failures  3                                 (default)
        stuck-timeout    off                               (default)
        max-memory       off                               (default)
        max-age          off                               (default)
        max-connections  off                               (default)
        metrics          127.0.0.1:9090                    (from --metrics)
        scrape           off                               (default)
        log-format       text                              (default)
        log-level        info                              (default)
        on-event         off                               (default)
        command          ["./my-server", "a b"]            (from clusterd.toml:3)
        config           clusterd.toml                     (from --config)
        "#);
    }
}
