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

use super::carried::CarriedSettings;
use super::dotenv::Assignment;
use super::error::{Invalid, Problem};
use super::kind::{Arity, Automatic, OFF};
use super::origin::{Layer, Origin, Value};
use super::setting::{Key, Setting};
use super::table::{self, keys};
use super::{Bind, Config, WorkerCommand, check, parse};

/// Everything that was said, by source.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// On the command line.
    pub flags: Layer,
    /// In `CLUSTERD_*`.
    pub environment: Layer,
    /// In `PORT` and `WEB_CONCURRENCY`.
    pub platform: Layer,
    /// In the file.
    pub file: Layer,
    /// What goes before the defaults.
    pub fallback: Layer,
    /// The program and its arguments, of the highest source that names any.
    pub command: Option<(Vec<OsString>, Origin)>,
    /// The file itself, if there is one, and who named it.
    pub config: Option<(PathBuf, Origin)>,
    /// What was found wrong in reading the above.
    pub problems: Vec<Problem>,
}

/// For apps that are started in the background or from a file: without a port nothing is opened before a worker asks for
/// it.
pub(crate) fn no_port() -> Layer {
    let mut layer = Layer::default();
    layer.add(Value::new(keys::port.key.name, OFF, Origin::CommandLine));
    layer
}

/// The values that won, by key, in the order in which they were given; a key without any is not there.
pub(crate) type WinningValues = BTreeMap<&'static str, Vec<Value>>;

/// The configuration, and where each value comes from.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// What counts from now on.
    pub config: Config,
    /// The values that won.
    pub values: WinningValues,
    /// Who named the command; the default is the demo.
    pub command: Origin,
    /// The file, and who named it.
    pub file: Option<(PathBuf, Origin)>,
    /// What the environment files say by now, each with its place: of one name, the last counts.
    pub env_files: Vec<(Assignment, Origin)>,
    /// What the file asks for in vain.
    pub warnings: Vec<Problem>,
    /// All that was said, for another image of clusterd.
    pub carried: CarriedSettings,
}

/// Reads every setting. `cpus` is how many workers `max` stands for. The start folder, what environment files say, and
/// warnings are for the caller to fill in.
///
/// # Errors
/// Everything that is wrong, in one.
pub(crate) fn resolve(sources: Sources, cpus: NonZeroU32) -> Result<Resolved, Invalid> {
    let carried = CarriedSettings::of(&sources, cpus);
    let (command, command_origin) = command(sources.command);
    let mut reading = Reading {
        layers: [
            sources.flags,
            sources.environment,
            sources.platform,
            sources.file,
            sources.fallback,
            defaults(),
        ],
        automatic: Automatic { workers: cpus, name: name_of(&command) },
        values: WinningValues::new(),
        problems: sources.problems,
    };
    let mut config = Config::read(command, &mut reading);
    let Reading { mut values, mut problems, .. } = reading;
    problems.extend(check::imply(&mut config, &mut values));
    let listens = [&keys::port.key, &keys::bind.key].into_iter().filter_map(|key| values.get(key.name));
    config.listen_is_default = listens.flatten().all(|value| value.origin == Origin::Default);
    problems.extend(check::addresses(&addresses(&config, &values)));
    // What is wrong by itself would be blamed for what it does to others, too.
    if problems.is_empty() {
        problems.extend(check::together(&config, &values));
    }
    if problems.is_empty() {
        let (env_files, warnings) = (Vec::new(), Vec::new());
        let (command, file) = (command_origin, sources.config);
        Ok(Resolved { config, values, command, file, env_files, warnings, carried })
    } else {
        Err(Invalid::new(problems))
    }
}

/// Each address that something listens on, with the value that named it.
fn addresses(config: &Config, values: &WinningValues) -> Vec<(Bind, Value)> {
    let named_by = |key: &Key| values.get(key.name).cloned().unwrap_or_default();
    let ports = config.port.iter().map(|listen| listen.bind).zip(named_by(&keys::port.key));
    let binds = config.bind.iter().map(|listen| listen.bind).zip(named_by(&keys::bind.key));
    let metrics = config.metrics.into_iter().map(Bind::Address).zip(named_by(&keys::metrics.key));
    ports.chain(binds).chain(metrics).collect()
}

const FILE: usize = 3;

/// What the table's settings are read from, one after the other.
#[derive(Debug)]
pub(super) struct Reading {
    layers: [Layer; 6],
    automatic: Automatic,
    values: WinningValues,
    problems: Vec<Problem>,
}

impl Reading {
    /// The value of the highest source that names one; the file's are judged even where they do not count. Where there
    /// is a problem, the default stands in, so that everything is read and all problems are found.
    pub(super) fn value<T>(&mut self, setting: &Setting<T>) -> T {
        let key = &setting.key;
        if matches!(key.values.arity(), Arity::Map { .. }) {
            return self.of_every_source(setting);
        }
        let partner = key.decided_with.and_then(table::named);
        let names_it = |layer: &Layer| {
            !layer.of(key).is_empty() || partner.is_some_and(|partner| !layer.of(partner).is_empty())
        };
        let winner = self.layers.iter().position(names_it);
        if winner.is_some_and(|winner| winner < FILE) {
            self.all_of(FILE, setting);
        }
        let read = winner.map(|winner| self.all_of(winner, setting)).unwrap_or_default();
        let (read, values): (Vec<T>, Vec<Value>) = read.into_iter().unzip();
        if !values.is_empty() {
            self.values.insert(key.name, values);
        }
        setting.kind.join(read).unwrap_or_else(|| self.default(setting))
    }

    /// The values of every source, those of the highest last: of one name, the last counts.
    fn of_every_source<T>(&mut self, setting: &Setting<T>) -> T {
        let layers = (0..self.layers.len()).rev();
        let read: Vec<_> = layers.flat_map(|layer| self.all_of(layer, setting)).collect();
        let (read, values): (Vec<T>, Vec<Value>) = read.into_iter().unzip();
        if !values.is_empty() {
            self.values.insert(setting.key.name, values);
        }
        setting.kind.join(read).expect("there may be none")
    }

    /// Reads the values of one layer, and keeps what is wrong with them.
    fn all_of<T>(&mut self, layer: usize, setting: &Setting<T>) -> Vec<(T, Value)> {
        let mut read = Vec::new();
        for value in self.layers[layer].of(&setting.key) {
            match setting.read(&value.text, &self.automatic) {
                Ok(parsed) => read.push((parsed, value.clone())),
                Err(reason) => self.problems.push(Problem::with(value, reason)),
            }
        }
        read
    }

    fn default<T>(&self, setting: &Setting<T>) -> T {
        let text = setting.key.default.expect("what has one value has a default");
        let read = setting.read(text, &self.automatic);
        read.unwrap_or_else(|reason| panic!("the default of {}: {reason}", setting.key.name))
    }
}

fn defaults() -> Layer {
    let mut layer = Layer::default();
    for key in table::all() {
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

    use insta::assert_snapshot;

    use super::super::{Accept, Listen, Policy, environment, file};
    use super::*;

    /// What each source says, in short: flags and environment as pairs, the file as text.
    #[derive(Default)]
    struct Told<'a> {
        flags: &'a [(&'static str, &'a str)],
        environment: &'a [(&'a str, &'a str)],
        file: &'a str,
    }

    impl Told<'_> {
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
                fallback: Layer::default(),
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
        config.listen().iter().map(Listen::to_string).collect()
    }

    #[test]
    fn without_a_word_everything_has_its_default() {
        let Resolved { config, values, .. } = Told::default().resolve().expect("valid");
        assert_eq!(config.command, WorkerCommand::Demo);
        assert!(config.listen_is_default);
        assert!(values.values().flatten().all(|value| value.origin == Origin::Default));
        assert_eq!(
            (config.name.as_str(), config.workers.get(), config.kill_timeout.as_millis()),
            ("demo", 3, 1600)
        );
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
            let told = Told { flags, environment, file };
            assert_eq!(told.config().workers.get(), expected);
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
            let told = Told { flags, environment, file };
            assert_eq!(listen(&told.config()), expected);
        }
    }

    #[test]
    fn a_lower_source_can_be_switched_off() {
        let told = Told { flags: &[("metrics", "off")], file: "metrics = 9090", ..Told::default() };
        assert_eq!(told.config().metrics, None);
        let told = Told { file: "metrics = 9090", ..Told::default() };
        assert_eq!(told.config().metrics, Some(SocketAddr::from(([127, 0, 0, 1], 9090))));
    }

    #[test]
    fn a_list_is_that_of_the_highest_source_alone() {
        let told = Told {
            flags: &[("watch", "src"), ("watch", "lib")],
            environment: &[("CLUSTERD_STOP_EXIT_CODES", "0, 3")],
            file: "watch = \"all\"\nignore = [\"*.log\", \"*.{tmp,swp}\"]\nstop-exit-codes = 7",
        };
        let config = told.config();
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
        assert_eq!(Told { file: program, ..Told::default() }.config().name, "my-server");
        let named = Told { file: program, flags: &[("name", "web")], ..Told::default() };
        assert_eq!(named.config().name, "web");
    }

    #[test]
    fn nodes_variable_says_who_accepts() {
        let node: &[(&str, &str)] = &[("NODE_CLUSTER_SCHED_POLICY", "none")];
        let told = Told { environment: node, file: "command = [\"node\", \"app.js\"]", ..Told::default() };
        assert_eq!(told.config().accept, Accept::Workers);
        let both = Told { flags: &[("accept", "primary")], ..told };
        assert_eq!(both.config().accept, Accept::Primary);
        let node: &[(&str, &str)] = &[("NODE_CLUSTER_SCHED_POLICY", "rr")];
        let told = Told { environment: node, file: "accept = \"workers\"", ..Told::default() };
        assert_eq!(told.config().accept, Accept::Primary, "the environment goes before the file");
    }

    #[test]
    fn a_policy_needs_the_primary_to_accept() {
        let command = "command = [\"node\", \"app.js\"]\n";
        for policy in ["round-robin", "least-connections", "random-two"] {
            let file = format!("{command}policy = {policy:?}\naccept = \"workers\"");
            let invalid = Told { file: &file, ..Told::default() }.invalid();
            let said = format!(
                "clusterd.toml:2: policy = {policy:?}: cannot be used with clusterd.toml:3: accept = \"workers\"\n\
                 hint: leave this out, or use --accept auto or primary"
            );
            assert_eq!((invalid.to_string(), invalid.exit_code()), (said, 78));
        }
        let node: &[(&str, &str)] = &[("NODE_CLUSTER_SCHED_POLICY", "none")];
        let file = format!("{command}policy = \"random-two\"");
        let invalid = Told { environment: node, file: &file, ..Told::default() }.invalid();
        assert_snapshot!(invalid, @r#"
        clusterd.toml:2: policy = "random-two": cannot be used with NODE_CLUSTER_SCHED_POLICY=none
        hint: leave this out, or use --accept auto or primary
        "#);
        assert_eq!(Told { file: "policy = \"rr\"", ..Told::default() }.config().policy, Policy::RoundRobin);
        let file = format!("{command}policy = \"source-ip\"\naccept = \"workers\"");
        assert_eq!(Told { file: &file, ..Told::default() }.config().policy, Policy::SourceIp);
    }

    #[test]
    fn a_policy_that_says_who_accepts_is_told_the_setting_for_that() {
        let invalid = Told { file: "policy = \"shared\"", ..Told::default() }.invalid();
        assert_snapshot!(invalid, @r#"
        clusterd.toml:1: policy = "shared": not a policy
        hint: to let workers accept by themselves, use --accept workers
        "#);
    }

    #[test]
    fn every_setting_is_read_and_none_takes_a_zero_byte() {
        for key in table::all() {
            let told = Told { flags: &[(key.name, "a\0b")], ..Told::default() };
            let places: Vec<_> = told.invalid().problems().iter().map(Problem::to_string).collect();
            let expected = format!("--{} \"a\\0b\": ", key.name);
            assert!(places.len() == 1 && places[0].starts_with(&expected), "{places:?}");
        }
    }

    #[test]
    fn what_is_wrong_only_together_is_said_once_all_is_right_by_itself() {
        let told = Told { file: "ignore = \"*.log\"\nstuck-timeout = \"500ms\"", ..Told::default() };
        assert_eq!(told.invalid().problems().len(), 2);
        let told = Told { flags: &[("handoff-timeout", "1")], ..told };
        assert_eq!(told.invalid().problems().len(), 1);
    }

    #[test]
    fn workers_accept_on_a_port_as_it_is_and_any_program_may() {
        let problems = |flags: &[(&'static str, &'static str)], file| {
            let flags = [&[("accept", "workers")], flags].concat();
            let told = Told { flags: &flags, file, ..Told::default() };
            let problems = told
                .resolve()
                .err()
                .map(|invalid| invalid.problems().iter().map(ToString::to_string).collect::<Vec<_>>());
            problems.unwrap_or_default()
        };
        let node = "command = [\"node\", \"app.js\"]";
        for good in [
            &[][..],
            &[("port", "80"), ("bind", "127.0.0.1:81")],
            &[("attach", "node")],
            &[("attach", "preload"), ("port", "80:8080")],
        ] {
            assert_eq!(problems(good, node), Vec::<String>::new(), "{good:?}");
        }
        for (bad, place) in [
            (&[("port", "80:8080")][..], "--accept"),
            (&[("port", "0:80")], "--accept"),
            (&[("bind", "127.0.0.1:80"), ("bind", "127.0.0.2:80")], "--accept"),
            (&[("attach", "seccomp"), ("policy", "round-robin")], "--policy"),
            (&[("ready-http", "/")], "--ready-http"),
            (&[("health-http", "/")], "--health-http"),
            (&[("max-connections", "10")], "--max-connections"),
            (&[("concurrency", "1")], "--concurrency"),
            (&[("policy", "round-robin")], "--policy"),
        ] {
            let said = problems(bad, node);
            assert!(said.len() == 1 && said[0].starts_with(place), "{bad:?}: {said:?}");
        }
        let said = problems(&[], "");
        assert!(said.len() == 1 && said[0].contains("name a command, or"), "{said:?}");
    }

    #[test]
    fn servers_that_inherit_sockets_accept_by_themselves() {
        let resolve = |flags: &[(&'static str, &'static str)]| {
            let flags = [&[("attach", "listen-fds")], flags].concat();
            let file = "command = [\"server\"]";
            let resolved = Told { flags: &flags, file, ..Told::default() }.resolve();
            resolved.map(|resolved| resolved.config.accept).map_err(|invalid| invalid.to_string())
        };
        for implied in [&[][..], &[("accept", "workers")]] {
            assert_eq!(resolve(implied), Ok(Accept::Workers));
        }
        for (refused, said) in [
            (("accept", "primary"), "--attach listen-fds: cannot be used with --accept primary"),
            (("relay-messages", "true"), "--relay-messages true: cannot be used with --attach listen-fds"),
            (("concurrency", "1"), "--concurrency 1: cannot be used with --attach listen-fds"),
            (("policy", "round-robin"), "--policy round-robin: cannot be used with --attach listen-fds"),
        ] {
            let told = resolve(&[refused]).unwrap_err();
            assert!(told.contains(said), "{told}");
        }
    }

    #[test]
    fn only_a_file_is_judged_where_it_does_not_count() {
        let told = Told {
            flags: &[("workers", "1"), ("port", "80")],
            environment: &[("CLUSTERD_WORKERS", "fuor"), ("PORT", "tcp://10.0.0.1:80")],
            file: "",
        };
        assert_eq!(told.config().workers.get(), 1);
        let told = Told { file: "workers = \"fuor\"", ..told };
        assert_eq!(told.invalid().problems().len(), 1);
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let told = Told {
            flags: &[("workers", "fuor"), ("port", "0"), ("port", "80"), ("bind", "[::]:80")],
            environment: &[("CLUSTERD_KILL_TIMEOUT", "8"), ("CLUSTERD_QUEUE", "0")],
            file: "attahc = \"auto\"\nlog-level = \"loud\"\nlog-format = false\nbacklog = 1.5\nhandoff-timeout = \"2d\"",
        };
        let invalid = told.invalid();
        assert_eq!(invalid.exit_code(), 2);
        assert_snapshot!(invalid, @r#"
        clusterd.toml:1: attahc: no such key
        hint: did you mean attach?
        --port 0: port 0 means any free port, so the workers' port must be named
        hint: use 0:3000
        clusterd.toml:4: backlog = 1.5: not a whole number
        hint: use a number from 1 to 2147483647
        CLUSTERD_QUEUE=0: out of range
        hint: use a number from 1 to 65536
        clusterd.toml:5: handoff-timeout = "2d": out of range
        hint: use a duration from 1ms to 24h, such as 500ms, 8s or 2m
        --workers fuor: not a whole number
        hint: use a number from 1 to 1024, or "max"
        CLUSTERD_KILL_TIMEOUT=8: a duration needs a unit
        hint: use 8s for seconds, 8ms for milliseconds
        clusterd.toml:3: log-format = false: not a known word
        hint: use text or json
        clusterd.toml:2: log-level = "loud": not a known word
        hint: use error, warn, info, debug or trace
        --bind [::]:80: the same address as --port 80
        hint: name each address once
        "#);
    }

    #[test]
    fn the_exit_code_tells_flags_from_the_rest() {
        let in_file = Told { file: "\n\n\nworkers = \"fuor\"", ..Told::default() };
        assert_eq!(in_file.invalid().exit_code(), 78);
        assert_snapshot!(in_file.invalid(), @r#"
        clusterd.toml:4: workers = "fuor": not a whole number
        hint: use a number from 1 to 1024, or "max"
        "#);
        let in_environment = Told { environment: &[("CLUSTERD_WORKERS", "fuor")], ..Told::default() };
        assert_eq!(in_environment.invalid().exit_code(), 78);
        assert_snapshot!(in_environment.invalid(), @r#"
        CLUSTERD_WORKERS=fuor: not a whole number
        hint: use a number from 1 to 1024, or "max"
        "#);
        let together = Told {
            flags: &[("accept", "workers"), ("concurrency", "1")],
            file: "command = [\"node\"]",
            ..Told::default()
        };
        assert_eq!(together.invalid().exit_code(), 78, "each can be read");
        let in_flag = Told { flags: &[("workers", "fuor")], ..Told::default() };
        assert_eq!(in_flag.invalid().exit_code(), 2);
        assert_snapshot!(in_flag.invalid(), @r#"
        --workers fuor: not a whole number
        hint: use a number from 1 to 1024, or "max"
        "#);
    }
}
