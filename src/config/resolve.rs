//! Where flags, environment, file and defaults meet: strings from every source into one [`Config`].
//!
//! The highest source that names a setting wins: flag, `CLUSTERD_*`, the platform's variable, file, default. Ports and
//! addresses are one matter, *where to listen*: the highest source that names `port` or `bind` decides both, and
//! what lower ones say of either is left aside. Only values that count are judged; the file is judged whole.
//!
//! Pure: what it is given was read before, by [`super::load`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;

use super::error::{Invalid, Problem};
use super::keys::{self, Key, Setting};
use super::origin::{Layer, Origin, Value};
use super::{Config, Listen, WorkerCommand, check};

/// Everything that was said, by source.
#[derive(Debug, Default)]
pub struct Sources {
    /// On the command line.
    pub flags: Layer,
    /// In `CLUSTERD_*`.
    pub environment: Layer,
    /// In `PORT` and `WEB_CONCURRENCY`.
    pub platform: Layer,
    /// In the file.
    pub file: Layer,
    /// The program and its arguments, of the highest source that names any.
    pub command: Option<(Vec<OsString>, Origin)>,
    /// The file itself, if there is one, and who named it.
    pub config: Option<(PathBuf, Origin)>,
    /// What was found wrong in reading the above.
    pub problems: Vec<Problem>,
}

/// The configuration, and where each value comes from.
#[derive(Debug)]
pub struct Resolved {
    /// What counts from now on.
    pub config: Config,
    /// The values that won, by key. A key without one has no value.
    pub values: BTreeMap<&'static str, Value>,
    /// Who named the command; the default is the demo.
    pub command: Origin,
    /// The file, and who named it.
    pub file: Option<(PathBuf, Origin)>,
}

/// Reads every setting. `cpus` is how many workers `max` stands for.
///
/// # Errors
/// Everything that is wrong, in one.
pub fn resolve(sources: Sources, cpus: NonZeroU32) -> Result<Resolved, Invalid> {
    let mut reading = Reading {
        layers: [sources.flags, sources.environment, sources.platform, sources.file, defaults()],
        values: BTreeMap::new(),
        problems: sources.problems,
    };
    let (command, command_origin) = command(sources.command);
    let config = reading.config(command, cpus);
    match config {
        Some(config) if reading.problems.is_empty() => {
            Ok(Resolved { config, values: reading.values, command: command_origin, file: sources.config })
        }
        _ => Err(Invalid::new(reading.problems)),
    }
}

const FILE: usize = 3;

struct Reading {
    layers: [Layer; 5],
    values: BTreeMap<&'static str, Value>,
    problems: Vec<Problem>,
}

impl Reading {
    /// `None` if there are problems. Every setting is read before the first `?`, so that all are reported.
    fn config(&mut self, command: WorkerCommand, cpus: NonZeroU32) -> Option<Config> {
        let listen = self.listen();
        let workers = self.one(&keys::WORKERS);
        let backlog = self.one(&keys::BACKLOG);
        let queue = self.one(&keys::QUEUE);
        let queue_timeout = self.one(&keys::QUEUE_TIMEOUT);
        let handoff_timeout = self.one(&keys::HANDOFF_TIMEOUT);
        let grace = self.one(&keys::GRACE);
        let metrics = self.one(&keys::METRICS);
        let log_format = self.one(&keys::LOG_FORMAT);
        let log_level = self.one(&keys::LOG_LEVEL);
        let attach = self.one(&keys::ATTACH);
        let wait_ready = self.one(&keys::WAIT_READY);

        let metrics_named = metrics.flatten().zip(self.values.get(keys::METRICS.key.name));
        self.problems.extend(check::addresses(&listen, metrics_named));
        Some(Config {
            command,
            workers: workers?.number(cpus),
            listen: listen.into_iter().map(|(listen, _)| listen).collect(),
            backlog: backlog?,
            queue: queue?,
            queue_timeout: queue_timeout?,
            handoff_timeout: handoff_timeout?,
            grace: grace?,
            metrics: metrics?,
            log_format: log_format?,
            log_level: log_level?,
            attach: attach?,
            wait_ready: wait_ready?,
        })
    }

    fn one<T>(&mut self, setting: &Setting<T>) -> Option<T> {
        let winner = self.layers.iter().position(|layer| !layer.of(&setting.key).is_empty())?;
        if winner < FILE {
            self.all_of(FILE, setting);
        }
        let (read, value) = self.all_of(winner, setting).pop()?;
        self.values.insert(setting.key.name, value);
        Some(read)
    }

    fn listen(&mut self) -> Vec<(Listen, Value)> {
        let names_either = |layer: &Layer| {
            let keys = [&keys::PORT.key, &keys::BIND.key];
            keys.into_iter().any(|key| !layer.of(key).is_empty())
        };
        let winner = self.layers.iter().position(names_either).unwrap_or_default();
        if winner < FILE {
            self.all_of(FILE, &keys::PORT);
            self.all_of(FILE, &keys::BIND);
        }
        let mut listen = self.all_of(winner, &keys::PORT);
        listen.extend(self.all_of(winner, &keys::BIND));
        for (_, value) in &listen {
            self.values.entry(value.name).or_insert_with(|| value.clone());
        }
        listen
    }

    /// Reads the values of one layer, and keeps what is wrong with them.
    fn all_of<T>(&mut self, layer: usize, setting: &Setting<T>) -> Vec<(T, Value)> {
        let mut read = Vec::new();
        for value in self.layers[layer].of(&setting.key) {
            match (setting.parse)(&value.text) {
                Ok(parsed) => read.push((parsed, value.clone())),
                Err(reason) => self.problems.push(Problem::with(value, reason)),
            }
        }
        read
    }
}

fn defaults() -> Layer {
    let mut layer = Layer::default();
    for Key { name, default, .. } in keys::ALL {
        if let Some(default) = default {
            layer.add(Value::new(name, *default, Origin::Default));
        }
    }
    layer
}

fn command(given: Option<(Vec<OsString>, Origin)>) -> (WorkerCommand, Origin) {
    let Some((words, origin)) = given else {
        return (WorkerCommand::Demo, Origin::Default);
    };
    let mut words = words.into_iter();
    match words.next() {
        Some(program) => {
            let arguments = words.collect();
            (WorkerCommand::Program { program, arguments }, origin)
        }
        None => (WorkerCommand::Demo, Origin::Default),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::Path;
    use std::time::Duration;

    use insta::assert_snapshot;

    use super::super::{Attach, LogFormat, environment, file, parse};
    use super::*;

    /// What each source says, in short: flags and environment as pairs, the file as text.
    #[derive(Default)]
    struct Said<'a> {
        flags: &'a [(&'static str, &'a str)],
        environment: &'a [(&'a str, &'a str)],
        file: &'a str,
    }

    impl Said<'_> {
        fn resolve(&self) -> Result<Resolved, Invalid> {
            let mut flags = Layer::default();
            for (name, text) in self.flags {
                flags.add(Value::new(name, *text, Origin::Flag(name)));
            }
            let environment = environment::read(&|wanted| {
                let (_, text) = self.environment.iter().find(|(name, _)| *name == wanted)?;
                Some(text.into())
            });
            let file = file::read(Path::new("clusterd.toml"), self.file);
            let sources = Sources {
                flags,
                environment: environment.own,
                platform: environment.platform,
                file: file.layer,
                command: file.command,
                config: None,
                problems: file.problems,
            };
            resolve(sources, NonZeroU32::new(3).expect("not zero"))
        }

        fn config(&self) -> Config {
            self.resolve().expect("valid").config
        }

        fn invalid(&self) -> Invalid {
            self.resolve().expect_err("invalid")
        }
    }

    fn listen(config: &Config) -> Vec<String> {
        config.listen.iter().map(Listen::to_string).collect()
    }

    #[test]
    fn without_a_word_everything_has_its_default() {
        let expected = Config {
            command: WorkerCommand::Demo,
            workers: NonZeroU32::new(3).expect("not zero"),
            listen: vec![parse::port("3000").expect("a port")],
            backlog: NonZeroU32::new(4096).expect("not zero"),
            queue: 1024.try_into().expect("not zero"),
            queue_timeout: Duration::from_secs(60),
            handoff_timeout: Duration::from_secs(1),
            grace: Duration::from_secs(8),
            metrics: None,
            log_format: LogFormat::Text,
            log_level: tracing::level_filters::LevelFilter::INFO,
            attach: Attach::Auto,
            wait_ready: false,
        };
        assert_eq!(Said::default().config(), expected);
    }

    #[test]
    fn a_higher_source_goes_before_a_lower_one() {
        let flag: &[(&str, &str)] = &[("workers", "1")];
        let own: &[(&str, &str)] = &[("CLUSTERD_WORKERS", "2"), ("WEB_CONCURRENCY", "4")];
        let platform: &[(&str, &str)] = &[("WEB_CONCURRENCY", "4")];
        let file = "workers = 5";
        let cases = [
            (flag, own, file, 1),
            (&[], own, file, 2),
            (&[], platform, file, 4),
            (&[], &[], file, 5),
            (&[], &[], "", 3),
            (&[], &[("CLUSTERD_WORKERS", "")], file, 5),
        ];
        for (flags, environment, file, expected) in cases {
            let said = Said { flags, environment, file };
            assert_eq!(said.config().workers.get(), expected);
        }
    }

    #[test]
    fn the_highest_source_that_names_a_port_or_an_address_decides_both() {
        let port: &[(&str, &str)] = &[("port", "1"), ("port", "2:3")];
        let bind: &[(&str, &str)] = &[("bind", "127.0.0.1:1")];
        let both: &[(&str, &str)] = &[("bind", "127.0.0.1:1"), ("port", "2")];
        let own_bind: &[(&str, &str)] = &[("CLUSTERD_BIND", "[::1]:4"), ("PORT", "5")];
        let platform: &[(&str, &str)] = &[("PORT", "5")];
        let file = "port = [6, 7]\nbind = \"127.0.0.1:8\"";
        let cases: [(&[_], &[_], &str, &[&str]); 8] = [
            (port, own_bind, file, &["1", "2:3"]),
            (bind, own_bind, file, &["127.0.0.1:1"]),
            (both, own_bind, file, &["2", "127.0.0.1:1"]),
            (&[], own_bind, file, &["[::1]:4"]),
            (&[], platform, file, &["5"]),
            (&[], &[], file, &["6", "7", "127.0.0.1:8"]),
            (&[], &[], "bind = []", &["3000"]),
            (bind, &[], "", &["127.0.0.1:1"]),
        ];
        for (flags, environment, file, expected) in cases {
            let said = Said { flags, environment, file };
            assert_eq!(listen(&said.config()), expected);
        }
    }

    #[test]
    fn a_lower_source_can_be_switched_off() {
        let said = Said { flags: &[("metrics", "off")], file: "metrics = 9090", ..Said::default() };
        assert_eq!(said.config().metrics, None);
        let said = Said { file: "metrics = 9090", ..Said::default() };
        assert_eq!(said.config().metrics, Some(SocketAddr::from(([127, 0, 0, 1], 9090))));
    }

    #[test]
    fn only_a_file_is_judged_where_it_does_not_count() {
        let said = Said {
            flags: &[("workers", "1"), ("port", "80")],
            environment: &[("CLUSTERD_WORKERS", "fuor"), ("PORT", "tcp://10.0.0.1:80")],
            file: "",
        };
        assert_eq!(said.config().workers.get(), 1);
        let said = Said { file: "workers = \"fuor\"", ..said };
        assert_eq!(said.invalid().problems().len(), 1);
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let said = Said {
            flags: &[("workers", "fuor"), ("port", "0"), ("port", "80"), ("bind", "[::]:80")],
            environment: &[("CLUSTERD_GRACE", "8"), ("CLUSTERD_QUEUE", "0")],
            file: "attahc = \"auto\"\nlog-level = \"loud\"\nlog-format = false\nbacklog = 1.5\nhandoff-timeout = \"2d\"",
        };
        let invalid = said.invalid();
        assert_eq!(invalid.exit_code(), 2);
        assert_snapshot!(invalid, @r#"
        clusterd.toml:1: attahc: no such key: did you mean attach?
        --port 0: port 0 stands for any free port, so the workers' port must be named: use 0:3000
        --workers fuor: not a number of workers: use a number from 1 to 1024, or "max"
        clusterd.toml:4: backlog = 1.5: not a number of connections: use a number from 1 to 2147483647
        CLUSTERD_QUEUE=0: not a number of connections: use a number from 1 to 65536
        clusterd.toml:5: handoff-timeout = "2d": too short or too long: use a duration from 1ms to 24h
        CLUSTERD_GRACE=8: a duration needs a unit: use 8s for seconds, 8ms for milliseconds
        clusterd.toml:3: log-format = false: not one of its values: use text or json
        clusterd.toml:2: log-level = "loud": not one of its values: use error, warn, info, debug or trace
        --bind [::]:80: the same address as --port 80: name each address once
        "#);
    }

    #[test]
    fn the_exit_code_tells_flags_from_the_rest() {
        let in_file = Said { file: "\n\n\nworkers = \"fuor\"", ..Said::default() };
        assert_eq!(in_file.invalid().exit_code(), 78);
        assert_snapshot!(in_file.invalid(), @r#"clusterd.toml:4: workers = "fuor": not a number of workers: use a number from 1 to 1024, or "max""#);
        let in_environment = Said { environment: &[("CLUSTERD_WORKERS", "fuor")], ..Said::default() };
        assert_eq!(in_environment.invalid().exit_code(), 78);
        assert_snapshot!(in_environment.invalid(), @r#"CLUSTERD_WORKERS=fuor: not a number of workers: use a number from 1 to 1024, or "max""#);
        let in_flag = Said { flags: &[("workers", "fuor")], ..Said::default() };
        assert_eq!(in_flag.invalid().exit_code(), 2);
        assert_snapshot!(in_flag.invalid(), @r#"--workers fuor: not a number of workers: use a number from 1 to 1024, or "max""#);
    }

    #[test]
    fn the_reference_file_shows_every_key_with_its_default() {
        let text = include_str!("../../config/clusterd.toml");
        let path = Path::new("config/clusterd.toml");
        let as_it_is = file::read(path, text);
        assert!(as_it_is.problems.is_empty() && as_it_is.layer == Layer::default());

        // Prose has a space behind its `#`, a setting has none.
        let setting = |line: &str| line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
        let uncommented: String = text
            .lines()
            .map(|line| if setting(line) { &line[1..] } else { line })
            .flat_map(|line| [line, "\n"])
            .collect();
        let shown = file::read(path, &uncommented);
        assert!(shown.problems.is_empty(), "{:?}", shown.problems);
        assert!(shown.command.is_some());
        for key in keys::ALL {
            let values: Vec<_> = shown.layer.of(key).iter().map(|value| value.text.as_str()).collect();
            assert_eq!(values, Vec::from_iter(key.default), "{}", key.name);
            assert!(uncommented.contains(&format!("\n{} = ", key.name)), "{}", key.name);
        }
    }
}
