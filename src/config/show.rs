//! The configuration as a table for people: `--show-config`.
//!
//! It decides nothing and prints nothing.

use std::fmt::Write as _;

use humantime::format_duration;

use super::keys::{self, Key};
use super::origin::Origin;
use super::resolve::Resolved;
use super::{Bind, Config, Listen, WorkerCommand};

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
    let settings = settings(&resolved.config).map(|(key, value)| {
        let origin = origin(resolved, key);
        [key.name.to_owned(), value, origin]
    });
    let mut rows = Vec::from(settings);
    for (name, [value, origin]) in [(keys::COMMAND, command), ("config", file)] {
        rows.push([name.to_owned(), value, origin]);
    }
    rows
}

fn settings(config: &Config) -> [(&'static Key, String); 13] {
    let is_port = |listen: &&Listen| matches!(listen.bind, Bind::Everywhere { .. });
    let metrics = config.metrics.map(|address| address.to_string());
    let duration = |duration| format_duration(duration).to_string();
    [
        (&keys::PORT.key, list(config.listen.iter().filter(is_port))),
        (&keys::BIND.key, list(config.listen.iter().filter(|listen| !is_port(listen)))),
        (&keys::WORKERS.key, config.workers.to_string()),
        (&keys::BACKLOG.key, config.backlog.to_string()),
        (&keys::QUEUE.key, config.queue.to_string()),
        (&keys::QUEUE_TIMEOUT.key, duration(config.queue_timeout)),
        (&keys::HANDOFF_TIMEOUT.key, duration(config.handoff_timeout)),
        (&keys::GRACE.key, duration(config.grace)),
        (&keys::METRICS.key, metrics.unwrap_or_else(|| "off".to_owned())),
        (&keys::LOG_FORMAT.key, config.log_format.to_string()),
        (&keys::LOG_LEVEL.key, config.log_level.to_string()),
        (&keys::ATTACH.key, config.attach.to_string()),
        (&keys::WAIT_READY.key, config.wait_ready.to_string()),
    ]
}

fn list<'a>(listen: impl Iterator<Item = &'a Listen>) -> String {
    let all: Vec<_> = listen.map(Listen::to_string).collect();
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

fn origin(resolved: &Resolved, key: &Key) -> String {
    match resolved.values.get(key.name) {
        Some(value) if value.origin == Origin::Default && value.text == "max" => "default: max".to_owned(),
        Some(value) => from(&value.origin),
        None => match other_of_listen(resolved, key) {
            Some(other) if *other != Origin::Default => format!("{other} decides"),
            _ => from(&Origin::Default),
        },
    }
}

/// Who decided where to listen, for whichever of `port` and `bind` was not named.
fn other_of_listen<'a>(resolved: &'a Resolved, key: &Key) -> Option<&'a Origin> {
    let other = if *key == keys::PORT.key { &keys::BIND } else { &keys::PORT };
    resolved.values.get(other.key.name).map(|value| &value.origin)
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
        let keys = keys::ALL.iter().map(|key| key.name).chain([keys::COMMAND, "config"]);
        assert!(names.eq(keys), "{table}");
    }

    #[test]
    fn defaults() {
        assert_snapshot!(shown(Sources::default()), @"
        port             3000               (default)
        bind             none               (default)
        workers          3                  (default: max)
        backlog          4096               (default)
        queue            1024               (default)
        queue-timeout    1m                 (default)
        handoff-timeout  1s                 (default)
        grace            8s                 (default)
        metrics          off                (default)
        log-format       text               (default)
        log-level        info               (default)
        attach           auto               (default)
        wait-ready       false              (default)
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
            "CLUSTERD_GRACE" => Some("1500ms".into()),
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
        workers          2                                 (from WEB_CONCURRENCY)
        backlog          4096                              (default)
        queue            16                                (from clusterd.toml:2)
        queue-timeout    1m                                (default)
        handoff-timeout  1s                                (default)
        grace            1s 500ms                          (from CLUSTERD_GRACE)
        metrics          127.0.0.1:9090                    (from --metrics)
        log-format       text                              (default)
        log-level        info                              (default)
        attach           auto                              (default)
        wait-ready       false                             (default)
        command          ["./my-server", "a b"]            (from clusterd.toml:3)
        config           clusterd.toml                     (from --config)
        "#);
    }
}
