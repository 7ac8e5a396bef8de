//! The arguments that clusterd takes, and their help.
//!
//! Values stay the strings that they are: every source's values are read in [`crate::config`].

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;

use crate::config::keys::{self, Key};
use crate::config::load::CommandLine;
use crate::config::origin::{Layer, Origin, Value};

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

/// The arguments as they were given, every value still a string.
#[derive(Debug, Parser)]
#[command(
    name = "clusterd",
    version,
    about = ABOUT,
    after_help = EXAMPLES,
    max_term_width = 110,
    override_usage = "clusterd [OPTIONS] [-- COMMAND [ARGS]...]"
)]
pub struct Arguments {
    #[arg(long, value_name = "PUBLIC[:WORKER]", help = help(&keys::PORT.key))]
    port: Vec<String>,

    #[arg(long, value_name = "ADDR:PORT[:WORKER]", help = help(&keys::BIND.key))]
    bind: Vec<String>,

    #[arg(
        long,
        short,
        visible_alias = "instances",
        visible_short_alias = 'i',
        value_name = "N|max",
        allow_negative_numbers = true,
        help = help(&keys::WORKERS.key)
    )]
    workers: Option<String>,

    #[arg(long, value_name = "CONNECTIONS", help = help(&keys::BACKLOG.key))]
    backlog: Option<String>,

    #[arg(long, value_name = "CONNECTIONS", help = help(&keys::QUEUE.key))]
    queue: Option<String>,

    #[arg(long, value_name = "DURATION", help = help(&keys::QUEUE_TIMEOUT.key))]
    queue_timeout: Option<String>,

    #[arg(long, value_name = "DURATION", help = help(&keys::HANDOFF_TIMEOUT.key))]
    handoff_timeout: Option<String>,

    #[arg(long, value_name = "DURATION", help = help(&keys::GRACE.key))]
    grace: Option<String>,

    #[arg(long, value_name = "ADDR|off", help = help(&keys::METRICS.key))]
    metrics: Option<String>,

    #[arg(long, value_name = "text|json", help = help(&keys::LOG_FORMAT.key))]
    log_format: Option<String>,

    #[arg(long, value_name = "error|warn|info|debug|trace", help = help(&keys::LOG_LEVEL.key))]
    log_level: Option<String>,

    #[arg(long, value_name = "auto|preload|node", help = help(&keys::ATTACH.key))]
    attach: Option<String>,

    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          help = help(&keys::WAIT_READY.key))]
    wait_ready: Option<String>,

    #[arg(long, value_name = "FILE", help = config_help())]
    config: Option<PathBuf>,

    /// Look for errors in flags, environment and file, and for the command; print nothing else
    #[arg(long)]
    pub(super) check: bool,

    /// Print every setting and where its value comes from
    #[arg(long, conflicts_with = "check")]
    pub(super) show_config: bool,

    /// What each worker runs: a program, looked up in PATH, and its arguments
    #[arg(trailing_var_arg = true)]
    command: Vec<OsString>,
}

impl Arguments {
    /// What was said, for the configuration to read.
    pub(super) fn into_command_line(self) -> CommandLine {
        let given: [(&'static Key, Vec<String>); 13] = [
            (&keys::PORT.key, self.port),
            (&keys::BIND.key, self.bind),
            (&keys::WORKERS.key, Vec::from_iter(self.workers)),
            (&keys::BACKLOG.key, Vec::from_iter(self.backlog)),
            (&keys::QUEUE.key, Vec::from_iter(self.queue)),
            (&keys::QUEUE_TIMEOUT.key, Vec::from_iter(self.queue_timeout)),
            (&keys::HANDOFF_TIMEOUT.key, Vec::from_iter(self.handoff_timeout)),
            (&keys::GRACE.key, Vec::from_iter(self.grace)),
            (&keys::METRICS.key, Vec::from_iter(self.metrics)),
            (&keys::LOG_FORMAT.key, Vec::from_iter(self.log_format)),
            (&keys::LOG_LEVEL.key, Vec::from_iter(self.log_level)),
            (&keys::ATTACH.key, Vec::from_iter(self.attach)),
            (&keys::WAIT_READY.key, Vec::from_iter(self.wait_ready)),
        ];
        let mut flags = Layer::default();
        for (key, texts) in given {
            for text in texts {
                flags.add(Value::new(key.name, text, Origin::Flag(key.name)));
            }
        }
        CommandLine { flags, config: self.config, command: self.command }
    }
}

fn config_help() -> String {
    let variable = keys::CONFIG_VARIABLE;
    format!("Read settings from this TOML file; its keys are called as the flags are\n[env: {variable}]")
}

/// The table's line, with default and variables as clap would write them.
fn help(key: &Key) -> String {
    let repeatable = if key.is_list { "; repeatable" } else { "" };
    let default = key.default.unwrap_or("none");
    let variables = match key.platform_variable {
        Some(platform) => format!("{}, {platform}", key.variable),
        None => key.variable.to_owned(),
    };
    format!("{}{repeatable}\n[default: {default}] [env: {variables}]", key.help)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<CommandLine, clap::error::ErrorKind> {
        let program = std::iter::once(&"clusterd");
        Arguments::try_parse_from(program.chain(arguments))
            .map(Arguments::into_command_line)
            .map_err(|error| error.kind())
    }

    fn values(line: &CommandLine, key: &Key) -> Vec<String> {
        line.flags.of(key).iter().map(Value::to_string).collect()
    }

    #[test]
    fn the_declaration_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_setting_has_its_flag_and_no_other() {
        let command = Arguments::command();
        let beside = ["config", "check", "show-config"];
        let flags: Vec<_> = command.get_arguments().filter_map(|flag| flag.get_long()).collect();
        let keys: Vec<_> = keys::ALL.iter().map(|key| key.name).chain(beside).collect();
        assert_eq!(flags, keys);
    }

    #[test]
    fn every_flag_reaches_its_setting() {
        for key in keys::ALL {
            let line = parse(&[&format!("--{}=x", key.name)]).expect("accepted");
            assert_eq!(values(&line, key), [format!("--{} x", key.name)]);
        }
    }

    #[test]
    fn flags_may_be_repeated_only_where_a_list_is_meant() {
        for key in keys::ALL {
            let flag = |value| format!("--{}={value}", key.name);
            assert_eq!(parse(&[&flag(1), &flag(2)]).is_ok(), key.is_list, "--{}", key.name);
        }
    }

    #[test]
    fn a_flag_for_yes_or_no_needs_no_value() {
        let line = parse(&["--wait-ready", "node", "app.js"]).expect("accepted");
        assert_eq!(values(&line, &keys::WAIT_READY.key), ["--wait-ready true"]);
        assert_eq!(line.command, ["node", "app.js"]);
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
        let help = Arguments::command().term_width(100).render_help();
        insta::assert_snapshot!(help, @"
        Turns any TCP server into a cluster of worker processes behind one port.

        clusterd starts COMMAND several times, accepts connections on the public port and passes each one to
        the next idle worker. The server needs no change: it listens on its port as ever. Without a COMMAND
        a small built-in demo runs.

        Usage: clusterd [OPTIONS] [-- COMMAND [ARGS]...]

        Arguments:
          [COMMAND]...  What each worker runs: a program, looked up in PATH, and its arguments

        Options:
              --port <PUBLIC[:WORKER]>
                  Serve this port on every address, for workers that listen on it or on WORKER; repeatable
                  [default: 3000] [env: CLUSTERD_PORT, PORT]
              --bind <ADDR:PORT[:WORKER]>
                  Serve this address only; there is then no default port; repeatable
                  [default: none] [env: CLUSTERD_BIND]
          -w, --workers <N|max>
                  How many workers run; max is one for each CPU that clusterd may use
                  [default: max] [env: CLUSTERD_WORKERS, WEB_CONCURRENCY] [aliases: -i, --instances]
              --backlog <CONNECTIONS>
                  How many connections the kernel may hold for each public address (see listen(2))
                  [default: 4096] [env: CLUSTERD_BACKLOG]
              --queue <CONNECTIONS>
                  How many accepted connections may wait for an idle worker; the backlog holds the rest
                  [default: 1024] [env: CLUSTERD_QUEUE]
              --queue-timeout <DURATION>
                  How long a connection may wait for a worker before it is closed
                  [default: 60s] [env: CLUSTERD_QUEUE_TIMEOUT]
              --handoff-timeout <DURATION>
                  How long a worker may leave a connection untaken before another worker gets it
                  [default: 1s] [env: CLUSTERD_HANDOFF_TIMEOUT]
              --grace <DURATION>
                  How long a graceful stop may take before what is left is killed
                  [default: 8s] [env: CLUSTERD_GRACE]
              --metrics <ADDR|off>
                  Serve /metrics, /livez and /readyz at ADDR:PORT; a bare port means 127.0.0.1
                  [default: off] [env: CLUSTERD_METRICS]
              --log-format <text|json>
                  The shape of clusterd's own messages, which go to stderr
                  [default: text] [env: CLUSTERD_LOG_FORMAT]
              --log-level <error|warn|info|debug|trace>
                  Which of clusterd's own messages are written
                  [default: info] [env: CLUSTERD_LOG_LEVEL]
              --attach <auto|preload|node>
                  How workers get connections: by the preloaded shim, over Node's cluster channel, or auto,
                  which is both
                  [default: auto] [env: CLUSTERD_ATTACH]
              --wait-ready[=<true|false>]
                  A worker gets no connections before it says that it is ready: process.send('ready'), or
                  the library
                  [default: false] [env: CLUSTERD_WAIT_READY]
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

        Examples:
          clusterd                                           the built-in demo on port 3000
          clusterd --port 3000 --workers 4 -- ./my-server    four workers behind one port
          clusterd --port 80:8080 -- node app.js             clients use port 80, the server listens on 8080
          clusterd --bind 127.0.0.1:3000 -i max node app.js  this machine only, a worker for each CPU
          clusterd --config clusterd.toml --check            is everything right?

        A flag goes before its variable, a variable before the file, the file before the default.
        The highest of these that names a port or an address decides where to listen.
        ");
    }
}
