//! The arguments that clusterd takes, and their help: a flag for each setting of the table, and a few of its own.
//!
//! Values stay the strings that they are: every source's values are read in [`crate::settings`].

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::verbs;
use crate::settings::kind::Arity;
use crate::settings::load::CommandLine;
use crate::settings::origin::{Layer, Origin, Value};
use crate::settings::setting::{Key, Section};
use crate::settings::{reference, table};

const EXAMPLES: &str = "\
Examples:
  clusterd                                           the built-in demo on port 3000
  clusterd --port 3000 --workers 4 -- ./my-server    four workers behind one port
  clusterd --port 80:8080 -- node app.js             clients use port 80, the server listens on 8080
  clusterd --bind 127.0.0.1:3000 -i max node app.js  this machine only, a worker for each CPU
  clusterd --config clusterd.toml --check            look for errors only

A flag overrides its variable, a variable the file, and the file the default.
Ports and addresses come from the same source: the highest of these that has any.";

const ABOUT: &str = "\
Turns any TCP server into a cluster of worker processes behind one port.

clusterd starts COMMAND several times, accepts connections on the public port and passes each one to the next idle \
worker. The server needs no change: it listens on its port as usual. Without a COMMAND, a small \
built-in demo runs.";

/// What was asked for, every value still a string.
#[derive(Debug)]
pub(crate) struct Arguments {
    /// What was said, for the configuration to read.
    pub(super) command_line: CommandLine,
    /// Only look for errors.
    pub(super) check: bool,
    /// Only print the settings.
    pub(super) show_config: bool,
}

impl Arguments {
    /// Reads the arguments; the first is the program's name.
    ///
    /// # Errors
    /// They are wrong, or ask for the help or the version.
    pub(crate) fn parse(
        arguments: impl Iterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        let mut matches = command().try_get_matches_from(joined(arguments.map(Into::into)))?;
        Ok(Self {
            check: matches.get_flag("check"),
            show_config: matches.get_flag("show-config"),
            command_line: CommandLine {
                command: matches.remove_many(table::COMMAND).map(Iterator::collect).unwrap_or_default(),
                ..read_settings(&mut matches)
            },
        })
    }
}

/// The arguments, with `--flag -5s` as `--flag=-5s`: what is wrong with a value is for its parser to say, and clap takes what begins
/// with a dash for another flag, unless it is a bare number.
fn joined(mut arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::new();
    for argument in arguments.by_ref() {
        let is_negative = matches!(argument.as_encoded_bytes(), [b'-', b'0'..=b'9', ..]);
        match joined.last_mut().filter(|flag| is_negative && takes_a_value(flag)) {
            Some(flag) => {
                flag.push("=");
                flag.push(argument);
            }
            None => joined.push(argument),
        }
        if joined.last().is_some_and(|last| last == "--") {
            break;
        }
    }
    joined.extend(arguments);
    joined
}

fn takes_a_value(flag: &OsStr) -> bool {
    let name = flag.to_str().and_then(|flag| flag.strip_prefix("--"));
    let mut keys = table::SECTIONS.iter().flat_map(|section| section.keys);
    name.is_some_and(|name| {
        keys.any(|key| {
            (key.name == name || key.alias == Some(name)) && !matches!(key.values.arity(), Arity::Switch)
        })
    })
}

/// The flags of all settings, and the one that names a file of them.
pub(super) fn settings() -> impl Iterator<Item = Arg> {
    let [config, ..] = others();
    table::SECTIONS.iter().flat_map(|section| flags_of(section, flag)).chain([config])
}

/// What these flags say.
pub(super) fn read_settings(matches: &mut ArgMatches) -> CommandLine {
    CommandLine { flags: flags(matches), config: matches.remove_one("config"), ..CommandLine::default() }
}

fn flags(matches: &mut ArgMatches) -> Layer {
    let mut flags = Layer::default();
    for key in table::all() {
        for text in matches.remove_many::<String>(key.name).into_iter().flatten() {
            flags.add(Value::new(key.name, text, Origin::Flag(key.name)));
        }
        if let Some(negation) = key.negation.filter(|negation| matches.get_flag(negation)) {
            flags.add(Value::new(key.name, "false", Origin::Flag(negation)));
        }
    }
    flags
}

/// The declaration, for clap.
fn command() -> Command {
    declare(flag).after_help(format!("{}\n\n{EXAMPLES}", verbs::summary()))
}

/// The same with all that is known of each setting, and with the verbs: for the man page and the shells' completion,
/// not to be parsed with.
pub fn everything() -> Command {
    let detailed =
        |key: &'static Key| flag(key).long_help(reference::long_help(key)).value_parser(words(key));
    declare(detailed).subcommands(verbs::declared()).disable_help_subcommand(true).after_help(EXAMPLES)
}

fn declare(flag: fn(&'static Key) -> Arg) -> Command {
    Command::new("clusterd")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .max_term_width(110)
        .next_line_help(true)
        .override_usage("clusterd [OPTIONS] [-- COMMAND [ARGS]...]")
        .args(table::SECTIONS.iter().flat_map(|section| flags_of(section, flag)))
        .args(others())
}

fn flags_of(section: &'static Section, flag: fn(&'static Key) -> Arg) -> impl Iterator<Item = Arg> {
    let flags = section
        .keys
        .iter()
        .flat_map(move |key| [Some(flag(key)), key.negation.map(|name| negation(key, name))]);
    flags.flatten().map(|flag| flag.help_heading(section.title))
}

fn flag(key: &'static Key) -> Arg {
    let flag = Arg::new(key.name)
        .long(key.name)
        .value_name(key.placeholder())
        .help(reference::help(key))
        // That a number may not be negative is for its parser to say.
        .allow_negative_numbers(true);
    let flag = [key.short].into_iter().flatten().fold(flag, Arg::short);
    let flag = [key.short_alias].into_iter().flatten().fold(flag, Arg::visible_short_alias);
    let flag = [key.alias].into_iter().flatten().fold(flag, Arg::visible_alias);
    match key.values.arity() {
        Arity::One => flag.action(ArgAction::Set),
        Arity::Switch => flag.num_args(0..=1).require_equals(true).default_missing_value("true"),
        Arity::List { .. } | Arity::Map { .. } => flag.action(ArgAction::Append),
    }
}

fn negation(key: &'static Key, name: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .conflicts_with(key.name)
        .help(format!("The same as --{}=false", key.name))
}

/// What a shell may complete: the words, where only a few are accepted.
fn words(key: &Key) -> ValueParser {
    match key.values.words() {
        words if words.is_empty() => ValueParser::string(),
        words => PossibleValuesParser::new(words).into(),
    }
}

/// What is no setting.
fn others() -> [Arg; 4] {
    let config = format!(
        "Read settings from this TOML file; its keys have the names of the flags\n[env: {}]",
        table::CONFIG_VARIABLE
    );
    [
        Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help(config),
        Arg::new("check")
            .long("check")
            .action(ArgAction::SetTrue)
            .help("Check flags, environment, file, command, users and watched files, and exit"),
        Arg::new("show-config")
            .long("show-config")
            .action(ArgAction::SetTrue)
            .conflicts_with("check")
            .help("Print every setting and where its value comes from, and exit"),
        Arg::new(table::COMMAND)
            .value_name("COMMAND")
            .num_args(0..)
            .trailing_var_arg(true)
            .value_parser(value_parser!(OsString))
            .help("What each worker runs: a program, looked up in PATH, and its arguments"),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::settings::table::keys;

    fn parse(arguments: &[&str]) -> Result<CommandLine, clap::error::ErrorKind> {
        let program = std::iter::once(&"clusterd");
        Arguments::parse(program.chain(arguments))
            .map(|arguments| arguments.command_line)
            .map_err(|error| error.kind())
    }

    fn values(line: &CommandLine, key: &Key) -> Vec<String> {
        line.flags.of(key).iter().map(Value::to_string).collect()
    }

    #[test]
    fn the_declaration_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_setting_has_its_flag_and_no_other() {
        let command = command();
        let beside = ["config", "check", "show-config"];
        let negations = table::all().filter_map(|key| key.negation);
        let flags: BTreeSet<_> = command.get_arguments().filter_map(|flag| flag.get_long()).collect();
        let keys: BTreeSet<_> = table::all().map(|key| key.name).chain(negations).chain(beside).collect();
        assert_eq!(flags, keys);
    }

    #[test]
    fn every_flag_reaches_its_setting() {
        for key in table::all() {
            let line = parse(&[&format!("--{}=x", key.name)]).expect("accepted");
            assert_eq!(values(&line, key), [format!("--{} x", key.name)]);
        }
    }

    #[test]
    fn flags_may_be_repeated_only_where_a_list_is_meant() {
        for key in table::all() {
            let flag = |value| format!("--{}={value}", key.name);
            assert_eq!(parse(&[&flag(1), &flag(2)]).is_ok(), key.is_list(), "--{}", key.name);
        }
    }

    #[test]
    fn a_flag_for_yes_or_no_needs_no_value() {
        let line = parse(&["--wait-ready", "node", "app.js"]).expect("accepted");
        assert_eq!(values(&line, &keys::wait_ready.key), ["--wait-ready true"]);
        assert_eq!(line.command, ["node", "app.js"]);
        assert_eq!(parse(&["--wait-ready", "--wait-ready"]), Err(clap::error::ErrorKind::ArgumentConflict));
    }

    #[test]
    fn autorestart_is_switched_off_in_two_ways() {
        for (flag, origin) in
            [("--autorestart=false", "--autorestart"), ("--no-autorestart", "--no-autorestart")]
        {
            let line = parse(&[flag, "node"]).expect("accepted");
            let value = &line.flags.of(&keys::autorestart.key)[0];
            assert_eq!((value.text.as_str(), value.origin.to_string().as_str()), ("false", origin));
        }
        assert_eq!(
            parse(&["--autorestart", "--no-autorestart"]),
            Err(clap::error::ErrorKind::ArgumentConflict)
        );
    }

    #[test]
    fn a_value_may_begin_with_a_dash_if_it_is_a_number() {
        let line = parse(&["--oom-score-adj", "-500", "node"]).expect("accepted");
        assert_eq!(values(&line, &keys::oom_score_adj.key), ["--oom-score-adj -500"]);
    }

    #[test]
    fn the_number_of_workers_has_the_names_that_people_know() {
        for flag in ["-w", "--workers", "-i", "--instances"] {
            let line = parse(&[flag, "max"]).expect("accepted");
            assert_eq!(values(&line, &keys::workers.key), ["--workers max"]);
        }
    }

    #[test]
    fn everything_behind_the_command_is_its_own() {
        let cases: [(&[&str], &[&str]); 6] = [
            (&["--", "node", "--port", "1"], &["node", "--port", "1"]),
            (&["node", "--port", "1", "-h"], &["node", "--port", "1", "-h"]),
            (&["--port", "3000", "sh", "-c", "x", "--", "y"], &["sh", "-c", "x", "--", "y"]),
            (&["--", "--odd"], &["--odd"]),
            (&["-i", "2"], &[]),
            (&["--"], &[]),
        ];
        for (arguments, command) in cases {
            assert_eq!(parse(arguments).expect("accepted").command, command, "{arguments:?}");
        }
    }

    #[test]
    fn a_mistyped_flag_is_not_taken_for_a_command() {
        assert_eq!(parse(&["--prot", "3000"]), Err(clap::error::ErrorKind::UnknownArgument));
        assert_eq!(parse(&["--check", "--show-config"]), Err(clap::error::ErrorKind::ArgumentConflict));
    }

    #[test]
    fn the_help_names_every_setting_in_its_section() {
        let help = command().term_width(100).render_help().to_string();
        let mut rest = help.as_str();
        for section in table::SECTIONS {
            let (_, behind) = rest.split_once(&format!("\n{}:\n", section.title)).expect("the section");
            rest = behind;
            for key in section.keys {
                let (_, behind) = rest.split_once(&format!("--{}", key.name)).expect(key.name);
                rest = behind;
            }
        }
    }

    #[test]
    fn the_help_is_plain() {
        let all = command().term_width(100).render_help().to_string();
        // The settings are for the table to say; one of each sort shows how.
        let shown = [
            "\n      --port",
            "\n  -w, --workers",
            "\n      --attach",
            "\n      --autorestart",
            "\n      --no-auto",
        ];
        let entries = shown.map(|start| {
            let (_, rest) = all.split_once(start).expect(start);
            format!("{start}{}", rest.split("\n      -").next().unwrap_or_default())
        });
        let (head, _) = all.split_once("Listening:\n").expect("the first section");
        let (_, tail) = all.split_once("\nControl a running").expect("the verbs");
        insta::assert_snapshot!(format!("{head}{}\n\nControl a running{tail}", entries.concat()), @"
        Turns any TCP server into a cluster of worker processes behind one port.

        clusterd starts COMMAND several times, accepts connections on the public port and passes each one to
        the next idle worker. The server needs no change: it listens on its port as usual. Without a
        COMMAND, a small built-in demo runs.

        Usage: clusterd [OPTIONS] [-- COMMAND [ARGS]...]

        Arguments:
          [COMMAND]...
                  What each worker runs: a program, looked up in PATH, and its arguments

        Options:
              --config <FILE>
                  Read settings from this TOML file; its keys have the names of the flags
                  [env: CLUSTERD_CONFIG]
              --check
                  Check flags, environment, file, command, users and watched files, and exit
              --show-config
                  Print every setting and where its value comes from, and exit
          -h, --help
                  Print help
          -V, --version
                  Print version


              --port <PUBLIC[:WORKER]>
                  Serve this port on every address, for workers that listen on it or on WORKER
                  [default: 3000] [repeatable] [env: CLUSTERD_PORT, PORT]
          -w, --workers <N|max>
                  Number of workers; max is one for each CPU that clusterd may use
                  [default: max] [range: 1 to 1024] [env: CLUSTERD_WORKERS, WEB_CONCURRENCY] [aliases: -i,
                  --instances]
              --attach <auto|preload|node|listen-fds|seccomp>
                  How workers get connections
                  - auto: Whatever fits: the preloaded shim or the library; Node is also given its cluster
                  channel
                  - preload: The preloaded shim or the library, and nothing else
                  - node: Node's cluster channel or the library, and nothing else
                  - listen-fds: Listening sockets that the server inherits, as from systemd (LISTEN_FDS);
                  implies `--accept workers`
                  - seccomp: Intercepted calls of bind and listen, for Go, static programs and others that
                  bypass the C library; implies `--accept workers`
                  [default: auto] [env: CLUSTERD_ATTACH]
              --autorestart[=<true|false>]
                  Start a worker again when it exits
                  [default: true] [env: CLUSTERD_AUTORESTART]
              --no-autorestart
                  The same as --autorestart=false

        Control a running clusterd (details: clusterd list --help; a program named list: clusterd -- list):
          list            Show every app and its workers [aliases: ls, l, ps, status]
          jlist           Print every worker as JSON, with the names of PM2; environments may hold secrets
          prettylist      Print the same as text, as Node's util.inspect
          describe        Show everything about one app [aliases: desc, show, info]
          env             Print the environment that a worker was given, which may hold secrets
          pid             Print the process ids of workers, one a line
          id              Print the ids of an app's workers, one a line
          ping            Tell how many clusterds of this user answer; fails if none does
          reload          Replace every worker; each new worker is ready before the old one is drained
          restart         Stop every worker, or one, and start it again
          scale           Set the number of workers, or add or remove some
          sendSignal      Send a signal to the process of each worker [aliases: signal, send-signal]
          reset           Count the restarts of workers from 0 again; metrics count on
          upgrade         Replace the clusterd that runs an app, while it serves [alias: update]
          send            Send a line to the standard input of a worker, or of each worker of an app
          stop            Stop all workers; clusterd keeps its ports, which refuse clients
          start           Start an app in the background, or one that was stopped
          serve           Serve the files of a folder, as an app in the background [alias: expose]
          up              Run the apps of a file in the foreground, until all have ended
          startOrRestart  Start the apps of a file, and restart those that run
          startOrReload   Start the apps of a file, and reload those that run [alias: startOrGracefulReload]
          delete          End apps and forget them; their logs stay [alias: del]
          kill            End every app that was started in the background; `resurrect` starts them again
          save            Keep which apps run, and with how many workers, for `resurrect` [alias: dump]
          resurrect       Start the apps that `save` has kept, or else all that were not stopped
          cleardump       Forget what `save` has kept
          startup         Have systemd start the saved apps at boot
          unstartup       Take back what `startup` has installed; apps go on
          connections     Show the open connections of every app, or of one, with their workers and traffic
          events          Follow the events of every app, or of one, until interrupted
          logs            Show the logs of all apps in the background, or of some, and follow [alias: log]
          monit           Watch every app on one screen, live, and reload, restart, scale and stop by a key
          web             Show every app on one page, live, in a browser; with orders if they are allowed
          flush           Empty the logs of all apps in the background, or of some; rotated files go, too
          reloadLogs      Have the log files of every running app, or of some, opened again
          curl            Send an HTTP request to one worker, over a connection of its own
          init            Write a clusterd.toml to begin with, unless there is one [alias: ecosystem]
          import          Print the apps of a PM2 file as clusterd.toml
          completions     Print a completion script for a shell
          doctor          Tell what this machine allows, and what follows; fails if no server can run here

        Examples:
          clusterd                                           the built-in demo on port 3000
          clusterd --port 3000 --workers 4 -- ./my-server    four workers behind one port
          clusterd --port 80:8080 -- node app.js             clients use port 80, the server listens on 8080
          clusterd --bind 127.0.0.1:3000 -i max node app.js  this machine only, a worker for each CPU
          clusterd --config clusterd.toml --check            look for errors only

        A flag overrides its variable, a variable the file, and the file the default.
        Ports and addresses come from the same source: the highest of these that has any.
        ");
    }
}
