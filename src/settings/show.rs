//! The configuration as a table for people: `--show-config`.
//!
//! It decides nothing and prints nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::WorkerCommand;
use super::kind::{Arity, NONE};
use super::origin::{Origin, Value, legible};
use super::resolve::Resolved;
use super::setting::Key;
use super::table;

/// One aligned line a value: its key, the value that counts, and where it comes from.
pub(crate) fn table(resolved: &Resolved) -> String {
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
    let settings = table::all().flat_map(|key| match key.values.arity() {
        Arity::Map { .. } if has_variables(resolved) => variables(resolved, key),
        _ => {
            let value = (key.show)(&resolved.config);
            let origin = origin(resolved, key, &value);
            vec![[key.name.to_owned(), value, origin]]
        }
    });
    let mut rows = Vec::from_iter(settings);
    for (name, [value, origin]) in [(table::COMMAND, command), ("config", file)] {
        rows.push([name.to_owned(), value, origin]);
    }
    rows
}

fn has_variables(resolved: &Resolved) -> bool {
    !resolved.env_files.is_empty() || !resolved.config.env.is_empty()
}

/// What workers are given beside what they inherit and what clusterd gives them, each with where it comes from.
fn variables(resolved: &Resolved, key: &Key) -> Vec<[String; 3]> {
    let mut variables = BTreeMap::new();
    for (assignment, origin) in &resolved.env_files {
        variables.insert(assignment.name.as_str(), (assignment.value.as_str(), origin));
    }
    for value in resolved.values.get(key.name).into_iter().flatten() {
        variables.extend(value.text.split_once('=').map(|(name, text)| (name, (text, &value.origin))));
    }
    let row = |(name, (text, origin))| [format!("{}.{name}", key.name), legible(text), from(origin)];
    variables.into_iter().map(row).collect()
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
    match first(resolved, key) {
        Some(value) if value.origin == Origin::Default && value.text != shown => {
            format!("default: {}", value.text)
        }
        Some(value) => from(&value.origin),
        None => match key.decided_with.and_then(table::named).and_then(|other| first(resolved, other)) {
            Some(Value { origin, .. }) if *origin != Origin::Default => format!("{origin} decides"),
            _ => from(&Origin::Default),
        },
    }
}

fn first<'a>(resolved: &'a Resolved, key: &Key) -> Option<&'a Value> {
    resolved.values.get(key.name)?.first()
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
        let keys = table::all().map(|key| key.name).chain([table::COMMAND, "config"]);
        assert!(names.eq(keys), "{table}");
    }

    #[test]
    fn a_default_is_shown_as_such_in_aligned_columns() {
        let table = shown(Sources::default());
        assert!(table.contains("\nwindow                 16                 (default)\n"), "{table}");
        assert!(table.contains("\nworkers                3                  (default: max)\n"), "{table}");
        assert!(table.contains("\ncommand                the built-in demo  (default)\n"), "{table}");
        assert!(table.lines().all(|line| line.find('(') == table.find('(')), "{table}");
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
            fallback: Layer::default(),
            problems: Vec::new(),
        };
        let table = shown(sources);
        let named: Vec<_> = table.lines().filter(|line| !line.ends_with("(default)")).collect();
        assert_snapshot!(named.join("\n"), @r#"
        port                   none                              (--bind decides)
        bind                   [::1]:80:8080, 127.0.0.1:80:8080  (from --bind)
        queue                  16                                (from clusterd.toml:2)
        workers                2                                 (from WEB_CONCURRENCY)
        name                   my-server                         (default: auto)
        kill-timeout           1s 500ms                          (from CLUSTERD_KILL_TIMEOUT)
        log-max-size           10.0 MiB                          (default: 10M)
        metrics                127.0.0.1:9090                    (from --metrics)
        command                ["./my-server", "a b"]            (from clusterd.toml:3)
        config                 clusterd.toml                     (from --config)
        "#);
    }
}
