//! The arguments that clusterd takes, and their help: a flag for each setting of the table, and a few of its own.
//!
//! Values stay the strings that they are: every source's values are read in [`crate::settings`].

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::verbs;
use crate::settings::keys;
use crate::settings::load::CommandLine;
use crate::settings::origin::{Layer, Origin, Value};
use crate::settings::setting::{Key, Kind, Section};

const EXAMPLES: &str = "\
Examples:
  clusterd                                           the built-in demo on port 3000
  clusterd --port 3000 --workers 4 -- ./my-server    four workers behind one port
  clusterd --port 80:8080 -- node app.js             clients use port 80, the server listens on 8080
  clusterd --bind 127.0.0.1:3000 -i max node app.js  this machine only, a worker for each CPU
  clusterd --config clusterd.toml --check            is everything right?

A flag goes before its variable, a variable before the file, the file before the default.
The highest of these that names a port or an address decides where to listen.";

const ABOUT: &str = "\
Turns any TCP server into a cluster of worker processes behind one port.

clusterd starts COMMAND several times, accepts connections on the public port and passes each one to the next idle \
worker. The server needs no change: it listens on its port as ever. Without a COMMAND a small built-in demo runs.";

/// `--autorestart=false`, as PM2 has it.
const NO_AUTORESTART: &str = "no-autorestart";

/// What was asked for, every value still a string.
#[derive(Debug)]
pub struct Arguments {
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
    /// If they are wrong, or ask for the help or the version.
    pub fn parse(arguments: impl Iterator<Item = impl Into<OsString> + Clone>) -> Result<Self, clap::Error> {
        let mut matches = command().try_get_matches_from(arguments)?;
        Ok(Self {
            check: matches.get_flag("check"),
            show_config: matches.get_flag("show-config"),
            command_line: CommandLine {
                flags: flags(&mut matches),
                config: matches.remove_one("config"),
                command: matches.remove_many(keys::COMMAND).map(Iterator::collect).unwrap_or_default(),
            },
        })
    }
}

fn flags(matches: &mut ArgMatches) -> Layer {
    let mut flags = Layer::default();
    for key in keys::all() {
        for text in matches.remove_many::<String>(key.name).into_iter().flatten() {
            flags.add(Value::new(key.name, text, Origin::Flag(key.name)));
        }
    }
    if matches.get_flag(NO_AUTORESTART) {
        flags.add(Value::new(keys::AUTORESTART.key.name, "false", Origin::Flag(NO_AUTORESTART)));
    }
    flags
}

/// The declaration, for clap.
fn command() -> Command {
    let settings = keys::SECTIONS.iter().flat_map(section);
    Command::new("clusterd")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(format!("{}\n\n{EXAMPLES}", verbs::summary()))
        .max_term_width(110)
        .next_line_help(true)
        .override_usage("clusterd [OPTIONS] [-- COMMAND [ARGS]...]")
        .args(settings)
        .mut_arg(keys::WORKERS.key.name, |workers| {
            workers.short('w').visible_alias("instances").visible_short_alias('i')
        })
        .args(others())
}

fn section(section: &'static Section) -> impl Iterator<Item = Arg> {
    section.keys.iter().flat_map(|key| {
        let negation = (key.name == keys::AUTORESTART.key.name).then(no_autorestart);
        [Some(flag(key)), negation].into_iter().flatten().map(|flag| flag.help_heading(section.title))
    })
}

fn flag(key: &'static Key) -> Arg {
    let flag = Arg::new(key.name)
        .long(key.name)
        .value_name(key.value_name)
        .help(help(key))
        // That a number may not be negative is for its parser to say.
        .allow_negative_numbers(true);
    match key.kind {
        Kind::One => flag.action(ArgAction::Set),
        Kind::Truth => flag.num_args(0..=1).require_equals(true).default_missing_value("true"),
        Kind::List { .. } => flag.action(ArgAction::Append),
    }
}

fn no_autorestart() -> Arg {
    Arg::new(NO_AUTORESTART)
        .long(NO_AUTORESTART)
        .action(ArgAction::SetTrue)
        .conflicts_with(keys::AUTORESTART.key.name)
        .help("The same as --autorestart=false")
}

/// What is no setting.
fn others() -> [Arg; 4] {
    let config = format!(
        "Read settings from this TOML file; its keys are called as the flags are\n[env: {}]",
        keys::CONFIG_VARIABLE
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
            .help("Look for errors in flags, environment and file, and for the command; print nothing else"),
        Arg::new("show-config")
            .long("show-config")
            .action(ArgAction::SetTrue)
            .conflicts_with("check")
            .help("Print every setting and where its value comes from"),
        Arg::new(keys::COMMAND)
            .value_name("COMMAND")
            .num_args(0..)
            .trailing_var_arg(true)
            .value_parser(value_parser!(OsString))
            .help("What each worker runs: a program, looked up in PATH, and its arguments"),
    ]
}

/// The table's line, with default and variables as clap would write them.
fn help(key: &Key) -> String {
    let repeatable = if key.is_list() { "; repeatable" } else { "" };
    let default = key.default.unwrap_or("none");
    let own = key.variable();
    let variables = match key.platform_variable {
        Some(platform) => format!("{own}, {platform}"),
        None => own,
    };
    format!("{}{repeatable}\n[default: {default}] [env: {variables}]", key.help)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

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
        let beside = [NO_AUTORESTART, "config", "check", "show-config"];
        let flags: BTreeSet<_> = command.get_arguments().filter_map(|flag| flag.get_long()).collect();
        let keys: BTreeSet<_> = keys::all().map(|key| key.name).chain(beside).collect();
        assert_eq!(flags, keys);
    }

    #[test]
    fn every_flag_reaches_its_setting() {
        for key in keys::all() {
            let line = parse(&[&format!("--{}=x", key.name)]).expect("accepted");
            assert_eq!(values(&line, key), [format!("--{} x", key.name)]);
        }
    }

    #[test]
    fn flags_may_be_repeated_only_where_a_list_is_meant() {
        for key in keys::all() {
            let flag = |value| format!("--{}={value}", key.name);
            assert_eq!(parse(&[&flag(1), &flag(2)]).is_ok(), key.is_list(), "--{}", key.name);
        }
    }

    #[test]
    fn a_flag_for_yes_or_no_needs_no_value() {
        let line = parse(&["--wait-ready", "node", "app.js"]).expect("accepted");
        assert_eq!(values(&line, &keys::WAIT_READY.key), ["--wait-ready true"]);
        assert_eq!(line.command, ["node", "app.js"]);
        assert_eq!(parse(&["--wait-ready", "--wait-ready"]), Err(clap::error::ErrorKind::ArgumentConflict));
    }

    #[test]
    fn autorestart_is_switched_off_in_two_ways() {
        for (flag, origin) in
            [("--autorestart=false", "--autorestart"), ("--no-autorestart", "--no-autorestart")]
        {
            let line = parse(&[flag, "node"]).expect("accepted");
            let value = &line.flags.of(&keys::AUTORESTART.key)[0];
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
        assert_eq!(values(&line, &keys::OOM_SCORE_ADJ.key), ["--oom-score-adj -500"]);
    }

    #[test]
    fn the_number_of_workers_has_the_names_that_people_know() {
        for flag in ["-w", "--workers", "-i", "--instances"] {
            let line = parse(&[flag, "max"]).expect("accepted");
            assert_eq!(values(&line, &keys::WORKERS.key), ["--workers max"]);
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
    fn the_help_is_plain() {
        let help = command().term_width(100).render_help();
        insta::assert_snapshot!(help, @r#"
        Turns any TCP server into a cluster of worker processes behind one port.

        clusterd starts COMMAND several times, accepts connections on the public port and passes each one to
        the next idle worker. The server needs no change: it listens on its port as ever. Without a COMMAND
        a small built-in demo runs.

        Usage: clusterd [OPTIONS] [-- COMMAND [ARGS]...]

        Arguments:
          [COMMAND]...
                  What each worker runs: a program, looked up in PATH, and its arguments

        Options:
              --config <FILE>
                  Read settings from this TOML file; its keys are called as the flags are
                  [env: CLUSTERD_CONFIG]
              --check
                  Look for errors in flags, environment and file, and for the command; print nothing else
              --show-config
                  Print every setting and where its value comes from
          -h, --help
                  Print help
          -V, --version
                  Print version

        Listening:
              --port <PUBLIC[:WORKER]>
                  Serve this port on every address, for workers that listen on it or on WORKER; repeatable
                  [default: 3000] [env: CLUSTERD_PORT, PORT]
              --bind <ADDR:PORT[:WORKER]>
                  Serve this address only; there is then no default port; repeatable
                  [default: none] [env: CLUSTERD_BIND]
              --backlog <CONNECTIONS>
                  How many connections the kernel may hold for each public address (see listen(2))
                  [default: 4096] [env: CLUSTERD_BACKLOG]
              --queue <CONNECTIONS>
                  How many accepted connections may wait for an idle worker; the backlog holds the rest
                  [default: 1024] [env: CLUSTERD_QUEUE]
              --queue-timeout <DURATION>
                  How long a connection may wait for a worker before it is closed
                  [default: 1m] [env: CLUSTERD_QUEUE_TIMEOUT]
              --window <CONNECTIONS>
                  How many may be on their way to a worker that takes them quickly; 1: only to an idle one
                  [default: 16] [env: CLUSTERD_WINDOW]
              --handoff-timeout <DURATION>
                  How long a worker may leave a connection untaken before another worker gets it
                  [default: 1s] [env: CLUSTERD_HANDOFF_TIMEOUT]
              --policy <round-robin|shared>
                  Who chooses the worker: clusterd, in turn, or the kernel (workers share the listener)
                  [default: round-robin] [env: CLUSTERD_POLICY, NODE_CLUSTER_SCHED_POLICY]

        Workers:
          -w, --workers <N|max>
                  How many workers run; max is one for each CPU that clusterd may use
                  [default: max] [env: CLUSTERD_WORKERS, WEB_CONCURRENCY] [aliases: -i, --instances]
              --name <NAME>
                  What the application is called; auto is the name of the command's program
                  [default: auto] [env: CLUSTERD_NAME]
              --attach <auto|preload|node>
                  How workers get connections: by the preloaded shim, Node's cluster channel, or (auto) both
                  [default: auto] [env: CLUSTERD_ATTACH]
              --user <USER>
                  Run workers as this user, by name or number
                  [default: off] [env: CLUSTERD_USER]
              --group <GROUP>
                  Run workers with this group, by name or number; off is the user's own
                  [default: off] [env: CLUSTERD_GROUP]
              --nofile <FILES>
                  How many files a worker may have open; off leaves it clusterd's own limit
                  [default: off] [env: CLUSTERD_NOFILE]
              --oom-score-adj <SCORE>
                  How readily the kernel kills a worker for lack of memory: -1000 never, 1000 first
                  [default: off] [env: CLUSTERD_OOM_SCORE_ADJ]
              --cpu-affinity[=<true|false>]
                  Run worker 1 on the first CPU only, worker 2 on the second, and so on
                  [default: false] [env: CLUSTERD_CPU_AFFINITY]
              --cpu-scheduling <batch|inherit>
                  How workers are scheduled: not interrupting each other (SCHED_BATCH), or as clusterd is
                  [default: batch] [env: CLUSTERD_CPU_SCHEDULING]

        Readiness:
              --wait-ready[=<true|false>]
                  A worker gets no connections before it says that it is ready: process.send('ready'),
                  READY=1, or the library
                  [default: false] [env: CLUSTERD_WAIT_READY]
              --ready-http <PATH>
                  A worker gets no connections before it answers GET PATH with a 2xx status
                  [default: off] [env: CLUSTERD_READY_HTTP]
              --ready-timeout <DURATION>
                  How long a worker may take to become ready; after that, its start has failed
                  [default: 30s] [env: CLUSTERD_READY_TIMEOUT]

        Restarts:
              --autorestart[=<true|false>]
                  Start a worker again when it ends
                  [default: true] [env: CLUSTERD_AUTORESTART]
              --no-autorestart
                  The same as --autorestart=false
              --min-uptime <DURATION>
                  A worker that ran for less has failed; its next start waits, ever longer
                  [default: 1s] [env: CLUSTERD_MIN_UPTIME]
              --max-restarts <TIMES>
                  How many times in a row a failing worker is started again before it is given up
                  [default: 16] [env: CLUSTERD_MAX_RESTARTS]
              --stop-exit-codes <CODE>
                  A worker that ends with this code has stopped, and is not started again; repeatable
                  [default: none] [env: CLUSTERD_STOP_EXIT_CODES]

        Stop and reload:
              --drain-timeout <DURATION>
                  How long a worker may go on with open connections once it gets no further one
                  [default: 6s] [env: CLUSTERD_DRAIN_TIMEOUT]
              --stop-signal <SIGNAL>
                  What then asks the worker to stop: a signal's name or number
                  [default: TERM] [env: CLUSTERD_STOP_SIGNAL]
              --kill-timeout <DURATION>
                  How long the worker may take to end after that signal before it is killed
                  [default: 1600ms] [env: CLUSTERD_KILL_TIMEOUT]
              --reload-parallel <WORKERS>
                  How many workers a reload replaces at a time
                  [default: 1] [env: CLUSTERD_RELOAD_PARALLEL]
              --cron <EXPRESSION>
                  Reload at these times: minute, hour, day, month and weekday, such as "0 3 * * *"
                  [default: off] [env: CLUSTERD_CRON]
              --watch <PATH>
                  Reload when this file, or one in this folder, changes; repeatable
                  [default: none] [env: CLUSTERD_WATCH]
              --ignore <PATTERN>
                  Do not reload for what matches this pattern, such as "**/*.log"; repeatable
                  [default: none] [env: CLUSTERD_IGNORE]

        Health:
              --health-http <PATH>
                  Replace a worker that does not answer GET PATH with a 2xx status
                  [default: off] [env: CLUSTERD_HEALTH_HTTP]
              --health-interval <DURATION>
                  How often each worker is asked
                  [default: 10s] [env: CLUSTERD_HEALTH_INTERVAL]
              --health-failures <TIMES>
                  How many times in a row a worker may fail to answer
                  [default: 3] [env: CLUSTERD_HEALTH_FAILURES]
              --stuck-timeout <DURATION>
                  Replace a worker that takes no connection for so long while one waits for it
                  [default: off] [env: CLUSTERD_STUCK_TIMEOUT]

        Limits:
              --max-memory <SIZE>
                  Replace a worker that uses more memory, with its children, such as 512M or 1.5G
                  [default: off] [env: CLUSTERD_MAX_MEMORY]
              --max-age <DURATION>
                  Replace a worker that has run for so long
                  [default: off] [env: CLUSTERD_MAX_AGE]
              --max-connections <CONNECTIONS>
                  Replace a worker that has been given so many connections
                  [default: off] [env: CLUSTERD_MAX_CONNECTIONS]

        Metrics, messages and events:
              --metrics <ADDR|off>
                  Serve /metrics, /livez and /readyz at ADDR:PORT; a bare port means 127.0.0.1
                  [default: off] [env: CLUSTERD_METRICS]
              --scrape <PATH>
                  Add to /metrics what each worker serves at this path, labelled with its number
                  [default: off] [env: CLUSTERD_SCRAPE]
              --log-format <text|json>
                  The shape of clusterd's own messages, which go to stderr
                  [default: text] [env: CLUSTERD_LOG_FORMAT]
              --log-level <error|warn|info|debug|trace>
                  Which of clusterd's own messages are written
                  [default: info] [env: CLUSTERD_LOG_LEVEL]
              --on-event <COMMAND>
                  Run this shell command for each event in a worker's life, with JSON on its input
                  [default: off] [env: CLUSTERD_ON_EVENT]

        To a clusterd that runs (clusterd list --help tells more; a program of that name: clusterd -- list):
          list      Show every app and its workers [aliases: ls, status]
          describe  Show everything about one app [alias: show]
          reload    Replace every worker by a new one, which is ready first
          restart   End every worker, or one, and start it again
          scale     Have N workers, or N more or fewer
          stop      End all workers; clusterd runs on, and clients wait
          start     Start workers that were stopped, or given up
          events    Follow what happens, of every app or of one, until it is interrupted
          curl      Ask one worker by HTTP, by a connection of its own

        Examples:
          clusterd                                           the built-in demo on port 3000
          clusterd --port 3000 --workers 4 -- ./my-server    four workers behind one port
          clusterd --port 80:8080 -- node app.js             clients use port 80, the server listens on 8080
          clusterd --bind 127.0.0.1:3000 -i max node app.js  this machine only, a worker for each CPU
          clusterd --config clusterd.toml --check            is everything right?

        A flag goes before its variable, a variable before the file, the file before the default.
        The highest of these that names a port or an address decides where to listen.
        "#);
    }
}
