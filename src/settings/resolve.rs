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
use super::keys;
use super::origin::{Layer, Origin, Value};
use super::setting::Setting;
use super::{Config, Listen, WorkerCommand, check, parse};

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

/// The values that won, by key. A list has its first; a key without one has no value.
pub type Values = BTreeMap<&'static str, Value>;

/// The configuration, and where each value comes from.
#[derive(Debug)]
pub struct Resolved {
    /// What counts from now on.
    pub config: Config,
    /// The values that won.
    pub values: Values,
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
        values: Values::new(),
        problems: sources.problems,
    };
    let (command, command_origin) = command(sources.command);
    let config = reading.config(command, cpus);
    let Reading { values, mut problems, .. } = reading;
    // What is wrong by itself would be blamed for what it does to others, too.
    if problems.is_empty() {
        problems.extend(check::together(&config, &values));
    }
    if problems.is_empty() {
        Ok(Resolved { config, values, command: command_origin, file: sources.config })
    } else {
        Err(Invalid::new(problems))
    }
}

const FILE: usize = 3;

struct Reading {
    layers: [Layer; 5],
    values: Values,
    problems: Vec<Problem>,
}

impl Reading {
    /// Where there is a problem, the default stands in, so that everything is read and all problems are found.
    fn config(&mut self, command: WorkerCommand, cpus: NonZeroU32) -> Config {
        let listen = self.listen();
        let config = Config {
            listen: listen.iter().map(|(listen, _)| *listen).collect(),
            listen_is_default: listen.iter().all(|(_, value)| value.origin == Origin::Default),
            backlog: self.one(&keys::BACKLOG),
            queue: self.one(&keys::QUEUE),
            queue_timeout: self.one(&keys::QUEUE_TIMEOUT),
            window: self.one(&keys::WINDOW),
            handoff_timeout: self.one(&keys::HANDOFF_TIMEOUT),
            policy: self.one(&keys::POLICY),
            workers: self.one(&keys::WORKERS).number(cpus),
            name: self.one(&keys::NAME).unwrap_or_else(|| name_of(&command)),
            attach: self.one(&keys::ATTACH),
            user: self.one(&keys::USER),
            group: self.one(&keys::GROUP),
            nofile: self.one(&keys::NOFILE),
            oom_score_adj: self.one(&keys::OOM_SCORE_ADJ),
            cpu_affinity: self.one(&keys::CPU_AFFINITY),
            cpu_scheduling: self.one(&keys::CPU_SCHEDULING),
            wait_ready: self.one(&keys::WAIT_READY),
            ready_http: self.one(&keys::READY_HTTP),
            ready_timeout: self.one(&keys::READY_TIMEOUT),
            autorestart: self.one(&keys::AUTORESTART),
            min_uptime: self.one(&keys::MIN_UPTIME),
            max_restarts: self.one(&keys::MAX_RESTARTS),
            stop_exit_codes: self.several(&keys::STOP_EXIT_CODES),
            drain_timeout: self.one(&keys::DRAIN_TIMEOUT),
            stop_signal: self.one(&keys::STOP_SIGNAL),
            kill_timeout: self.one(&keys::KILL_TIMEOUT),
            reload_parallel: self.one(&keys::RELOAD_PARALLEL),
            cron: self.one(&keys::CRON),
            watch: self.several(&keys::WATCH),
            ignore: self.several(&keys::IGNORE),
            health_http: self.one(&keys::HEALTH_HTTP),
            health_interval: self.one(&keys::HEALTH_INTERVAL),
            health_failures: self.one(&keys::HEALTH_FAILURES),
            stuck_timeout: self.one(&keys::STUCK_TIMEOUT),
            max_memory: self.one(&keys::MAX_MEMORY),
            max_age: self.one(&keys::MAX_AGE),
            max_connections: self.one(&keys::MAX_CONNECTIONS),
            metrics: self.one(&keys::METRICS),
            scrape: self.one(&keys::SCRAPE),
            log_format: self.one(&keys::LOG_FORMAT),
            log_level: self.one(&keys::LOG_LEVEL),
            on_event: self.one(&keys::ON_EVENT),
            command,
        };
        let metrics = config.metrics.zip(self.values.get(keys::METRICS.key.name));
        self.problems.extend(check::addresses(&listen, metrics));
        config
    }

    fn one<T>(&mut self, setting: &Setting<T>) -> T {
        self.several(setting).pop().unwrap_or_else(|| default(setting))
    }

    /// The values of the highest source that names any. The file's are judged even where they do not count.
    fn several<T>(&mut self, setting: &Setting<T>) -> Vec<T> {
        let names_it = |layer: &Layer| !layer.of(&setting.key).is_empty();
        let Some(winner) = self.layers.iter().position(names_it) else {
            return Vec::new();
        };
        if winner < FILE {
            self.all_of(FILE, setting);
        }
        let (read, values): (Vec<T>, Vec<Value>) = self.all_of(winner, setting).into_iter().unzip();
        self.values.extend(values.into_iter().next().map(|value| (value.name, value)));
        read
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

fn default<T>(setting: &Setting<T>) -> T {
    let text = setting.key.default.expect("what has one value has a default");
    (setting.parse)(text).unwrap_or_else(|reason| panic!("the default of {}: {reason}", setting.key.name))
}

fn defaults() -> Layer {
    let mut layer = Layer::default();
    for key in keys::all() {
        if let Some(default) = key.default {
            layer.add(Value::new(key.name, default, Origin::Default));
        }
    }
    layer
}

/// What an application is called that was given no name.
fn name_of(command: &WorkerCommand) -> String {
    match command {
        WorkerCommand::Demo => "demo".to_owned(),
        WorkerCommand::Program { program, .. } => parse::name_of(program),
    }
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

    use super::super::{Attach, CpuScheduling, LogFormat, Policy, environment, file};
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
            listen: vec![parse::port("3000").expect("a port")],
            listen_is_default: true,
            backlog: NonZeroU32::new(4096).expect("not zero"),
            queue: 1024.try_into().expect("not zero"),
            queue_timeout: Duration::from_secs(60),
            window: 16.try_into().expect("not zero"),
            handoff_timeout: Duration::from_secs(1),
            policy: Policy::RoundRobin,
            workers: NonZeroU32::new(3).expect("not zero"),
            name: "demo".to_owned(),
            attach: Attach::Auto,
            user: None,
            group: None,
            nofile: None,
            oom_score_adj: None,
            cpu_affinity: false,
            cpu_scheduling: CpuScheduling::Batch,
            wait_ready: false,
            ready_http: None,
            ready_timeout: Duration::from_secs(30),
            autorestart: true,
            min_uptime: Duration::from_secs(1),
            max_restarts: 16,
            stop_exit_codes: Vec::new(),
            drain_timeout: Duration::from_secs(6),
            stop_signal: parse::stop_signal("TERM").expect("a signal"),
            kill_timeout: Duration::from_millis(1600),
            reload_parallel: NonZeroU32::MIN,
            cron: None,
            watch: Vec::new(),
            ignore: Vec::new(),
            health_http: None,
            health_interval: Duration::from_secs(10),
            health_failures: NonZeroU32::new(3).expect("not zero"),
            stuck_timeout: None,
            max_memory: None,
            max_age: None,
            max_connections: None,
            metrics: None,
            scrape: None,
            log_format: LogFormat::Text,
            log_level: tracing::level_filters::LevelFilter::INFO,
            on_event: None,
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
    fn a_list_is_that_of_the_highest_source_alone() {
        let said = Said {
            flags: &[("watch", "src"), ("watch", "lib")],
            environment: &[("CLUSTERD_STOP_EXIT_CODES", "0, 3")],
            file: "watch = \"all\"\nignore = [\"*.log\", \"*.{tmp,swp}\"]\nstop-exit-codes = 7",
        };
        let config = said.config();
        assert_eq!(config.watch, [Path::new("src"), Path::new("lib")]);
        assert_eq!(config.stop_exit_codes, [0, 3]);
        assert_eq!(
            config.ignore.iter().map(|glob| glob.glob()).collect::<Vec<_>>(),
            ["*.log", "*.{tmp,swp}"]
        );
    }

    #[test]
    fn an_application_is_called_as_its_program_unless_it_has_a_name() {
        let program = "command = [\"/opt/my-server\", \"--x\"]";
        assert_eq!(Said { file: program, ..Said::default() }.config().name, "my-server");
        let named = Said { file: program, flags: &[("name", "web")], ..Said::default() };
        assert_eq!(named.config().name, "web");
    }

    #[test]
    fn nodes_variable_chooses_the_policy() {
        let node: &[(&str, &str)] = &[("NODE_CLUSTER_SCHED_POLICY", "none")];
        let said = Said { environment: node, file: "command = [\"node\", \"app.js\"]", ..Said::default() };
        assert_eq!(said.config().policy, Policy::Shared);
        let both = Said { flags: &[("policy", "round-robin")], ..said };
        assert_eq!(both.config().policy, Policy::RoundRobin);
    }

    #[test]
    fn every_setting_is_read_and_none_takes_a_zero_byte() {
        for key in keys::all() {
            let said = Said { flags: &[(key.name, "a\0b")], ..Said::default() };
            let places: Vec<_> = said.invalid().problems().iter().map(Problem::to_string).collect();
            let expected = format!("--{} \"a\\0b\": ", key.name);
            assert!(places.len() == 1 && places[0].starts_with(&expected), "{places:?}");
        }
    }

    #[test]
    fn what_is_wrong_only_together_is_said_once_all_is_right_by_itself() {
        let said = Said { file: "ignore = \"*.log\"\nstuck-timeout = \"500ms\"", ..Said::default() };
        assert_eq!(said.invalid().problems().len(), 2);
        let said = Said { flags: &[("handoff-timeout", "1")], ..said };
        assert_eq!(said.invalid().problems().len(), 1);
    }

    #[test]
    fn workers_share_a_port_as_it_is_and_only_node_does() {
        let problems = |flags: &[(&'static str, &'static str)], file| {
            let flags = [&[("policy", "shared")], flags].concat();
            let said = Said { flags: &flags, file, ..Said::default() };
            let problems = said
                .resolve()
                .err()
                .map(|invalid| invalid.problems().iter().map(ToString::to_string).collect::<Vec<_>>());
            problems.unwrap_or_default()
        };
        let node = "command = [\"node\", \"app.js\"]";
        for good in [&[][..], &[("port", "80"), ("bind", "127.0.0.1:81")], &[("attach", "node")]] {
            assert_eq!(problems(good, node), Vec::<String>::new(), "{good:?}");
        }
        for (bad, place) in [
            (&[("port", "80:8080")][..], "--policy"),
            (&[("port", "0:80")], "--policy"),
            (&[("bind", "127.0.0.1:80"), ("bind", "127.0.0.2:80")], "--policy"),
            (&[("attach", "preload")], "--attach"),
            (&[("ready-http", "/")], "--ready-http"),
            (&[("health-http", "/")], "--health-http"),
            (&[("stuck-timeout", "10s")], "--stuck-timeout"),
            (&[("max-connections", "10")], "--max-connections"),
        ] {
            let said = problems(bad, node);
            assert!(said.len() == 1 && said[0].starts_with(place), "{bad:?}: {said:?}");
        }
        let said = problems(&[], "");
        assert!(said.len() == 1 && said[0].contains("name a command that runs Node"), "{said:?}");
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
            environment: &[("CLUSTERD_KILL_TIMEOUT", "8"), ("CLUSTERD_QUEUE", "0")],
            file: "attahc = \"auto\"\nlog-level = \"loud\"\nlog-format = false\nbacklog = 1.5\nhandoff-timeout = \"2d\"",
        };
        let invalid = said.invalid();
        assert_eq!(invalid.exit_code(), 2);
        assert_snapshot!(invalid, @r#"
        clusterd.toml:1: attahc: no such key: did you mean attach?
        --port 0: port 0 stands for any free port, so the workers' port must be named: use 0:3000
        clusterd.toml:4: backlog = 1.5: not a number of connections: use a number from 1 to 2147483647
        CLUSTERD_QUEUE=0: not a number of connections: use a number from 1 to 65536
        clusterd.toml:5: handoff-timeout = "2d": too short or too long: use a duration from 1ms to 24h
        --workers fuor: not a number of workers: use a number from 1 to 1024, or "max"
        CLUSTERD_KILL_TIMEOUT=8: a duration needs a unit: use 8s for seconds, 8ms for milliseconds
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
        for key in keys::all() {
            let values: Vec<_> = shown.layer.of(key).iter().map(|value| value.text.as_str()).collect();
            assert_eq!(values, Vec::from_iter(key.default), "{}", key.name);
            assert!(uncommented.contains(&format!("\n{} = ", key.name)), "{}", key.name);
        }
    }
}
