//! The table of settings: each is told here, once, for flags, environment, file, help and `--show-config`.
//!
//! It does not read any of these sources; what counts in the end, [`super::resolve`] puts together. A new setting has
//! three places: an entry and its section here, and a field of [`Config`](super::Config) that is filled there.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use croner::Cron;
use globset::Glob;
use hyper::Uri;
use tracing::level_filters::LevelFilter;

use super::setting::{Key, Kind, Section, Setting};
use super::show::{duration, list, or_off};
use super::stop_signal::StopSignal;
use super::{Attach, Bind, CpuScheduling, Listen, LogFormat, Policy, parse};

/// What most settings have in common: one value, and no variable of a platform.
const ONE: Key = Key {
    name: "",
    platform_variable: None,
    kind: Kind::One,
    value_name: "",
    default: None,
    help: "",
    show: |_| String::new(),
};
const TRUTH: Key = Key { kind: Kind::Truth, value_name: "true|false", ..ONE };

/// `--port`
pub static PORT: Setting<Listen> = Setting {
    key: Key {
        name: "port",
        platform_variable: Some("PORT"),
        kind: Kind::List { example: "[3000, \"80:8080\"]" },
        value_name: "PUBLIC[:WORKER]",
        default: Some("3000"),
        help: "Serve this port on every address, for workers that listen on it or on WORKER",
        show: |config| list(config.listen.iter().filter(|listen| is_everywhere(listen))),
    },
    parse: parse::port,
};

/// `--bind`
pub static BIND: Setting<Listen> = Setting {
    key: Key {
        name: "bind",
        kind: Kind::List { example: "[\"127.0.0.1:3000\", \"[::1]:80:8080\"]" },
        value_name: "ADDR:PORT[:WORKER]",
        help: "Serve this address only; there is then no default port",
        show: |config| list(config.listen.iter().filter(|listen| !is_everywhere(listen))),
        ..ONE
    },
    parse: parse::bind,
};

fn is_everywhere(listen: &Listen) -> bool {
    matches!(listen.bind, Bind::Everywhere { .. })
}

/// `--backlog`
pub static BACKLOG: Setting<NonZeroU32> = Setting {
    key: Key {
        name: "backlog",
        value_name: "CONNECTIONS",
        default: Some("4096"),
        help: "How many connections the kernel may hold for each public address (see listen(2))",
        show: |config| config.backlog.to_string(),
        ..ONE
    },
    parse: parse::backlog,
};

/// `--queue`
pub static QUEUE: Setting<NonZeroUsize> = Setting {
    key: Key {
        name: "queue",
        value_name: "CONNECTIONS",
        default: Some("1024"),
        help: "How many accepted connections may wait for an idle worker; the backlog holds the rest",
        show: |config| config.queue.to_string(),
        ..ONE
    },
    parse: parse::queue,
};

/// `--queue-timeout`
pub static QUEUE_TIMEOUT: Setting<Duration> = Setting {
    key: Key {
        name: "queue-timeout",
        value_name: "DURATION",
        default: Some("1m"),
        help: "How long a connection may wait for a worker before it is closed",
        show: |config| duration(config.queue_timeout),
        ..ONE
    },
    parse: parse::duration,
};

/// `--window`
pub static WINDOW: Setting<NonZeroUsize> = Setting {
    key: Key {
        name: "window",
        value_name: "CONNECTIONS",
        default: Some("16"),
        help: "How many may be on their way to a worker that takes them quickly; 1: only to an idle one",
        show: |config| config.window.to_string(),
        ..ONE
    },
    parse: parse::window,
};

/// `--handoff-timeout`
pub static HANDOFF_TIMEOUT: Setting<Duration> = Setting {
    key: Key {
        name: "handoff-timeout",
        value_name: "DURATION",
        default: Some("1s"),
        help: "How long a worker may leave a connection untaken before another worker gets it",
        show: |config| duration(config.handoff_timeout),
        ..ONE
    },
    parse: parse::duration,
};

/// `--policy`
pub static POLICY: Setting<Policy> = Setting {
    key: Key {
        name: "policy",
        platform_variable: Some("NODE_CLUSTER_SCHED_POLICY"),
        value_name: "round-robin|shared",
        default: Some("round-robin"),
        help: "Who chooses the worker: clusterd, in turn, or the kernel (workers share the listener)",
        show: |config| config.policy.to_string(),
        ..ONE
    },
    parse: parse::policy,
};

/// `--workers`
pub static WORKERS: Setting<parse::Workers> = Setting {
    key: Key {
        name: "workers",
        platform_variable: Some("WEB_CONCURRENCY"),
        value_name: "N|max",
        default: Some("max"),
        help: "How many workers run; max is one for each CPU that clusterd may use",
        show: |config| config.workers.to_string(),
        ..ONE
    },
    parse: parse::workers,
};

/// `--name`
pub static NAME: Setting<Option<String>> = Setting {
    key: Key {
        name: "name",
        value_name: "NAME",
        default: Some("auto"),
        help: "What the application is called; auto is the name of the command's program",
        show: |config| config.name.clone(),
        ..ONE
    },
    parse: parse::name,
};

/// `--attach`
pub static ATTACH: Setting<Attach> = Setting {
    key: Key {
        // `CLUSTERD_ATTACH_SOCKET` is what workers get: the attach socket.
        name: "attach",
        value_name: "auto|preload|node",
        default: Some("auto"),
        help: "How workers get connections: by the preloaded shim, Node's cluster channel, or (auto) both",
        show: |config| config.attach.to_string(),
        ..ONE
    },
    parse: parse::attach,
};

/// `--user`
pub static USER: Setting<Option<String>> = Setting {
    key: Key {
        name: "user",
        value_name: "USER",
        default: Some("off"),
        help: "Run workers as this user, by name or number",
        show: |config| or_off(config.user.as_ref()),
        ..ONE
    },
    parse: parse::account,
};

/// `--group`
pub static GROUP: Setting<Option<String>> = Setting {
    key: Key {
        name: "group",
        value_name: "GROUP",
        default: Some("off"),
        help: "Run workers with this group, by name or number; off is the user's own",
        show: |config| or_off(config.group.as_ref()),
        ..ONE
    },
    parse: parse::account,
};

/// `--nofile`
pub static NOFILE: Setting<Option<u64>> = Setting {
    key: Key {
        name: "nofile",
        value_name: "FILES",
        default: Some("off"),
        help: "How many files a worker may have open; off leaves it clusterd's own limit",
        show: |config| or_off(config.nofile),
        ..ONE
    },
    parse: parse::nofile,
};

/// `--oom-score-adj`
pub static OOM_SCORE_ADJ: Setting<Option<i16>> = Setting {
    key: Key {
        name: "oom-score-adj",
        value_name: "SCORE",
        default: Some("off"),
        help: "How readily the kernel kills a worker for lack of memory: -1000 never, 1000 first",
        show: |config| or_off(config.oom_score_adj),
        ..ONE
    },
    parse: parse::oom_score_adj,
};

/// `--cpu-affinity`
pub static CPU_AFFINITY: Setting<bool> = Setting {
    key: Key {
        name: "cpu-affinity",
        default: Some("false"),
        help: "Run worker 1 on the first CPU only, worker 2 on the second, and so on",
        show: |config| config.cpu_affinity.to_string(),
        ..TRUTH
    },
    parse: parse::truth,
};

/// `--cpu-scheduling`
pub static CPU_SCHEDULING: Setting<CpuScheduling> = Setting {
    key: Key {
        name: "cpu-scheduling",
        value_name: "batch|inherit",
        default: Some("batch"),
        help: "How workers are scheduled: not interrupting each other (SCHED_BATCH), or as clusterd is",
        show: |config| config.cpu_scheduling.to_string(),
        ..ONE
    },
    parse: parse::cpu_scheduling,
};

/// `--wait-ready`
pub static WAIT_READY: Setting<bool> = Setting {
    key: Key {
        name: "wait-ready",
        default: Some("false"),
        help: "A worker gets no connections before it says that it is ready: process.send('ready'), READY=1, or the library",
        show: |config| config.wait_ready.to_string(),
        ..TRUTH
    },
    parse: parse::truth,
};

/// `--ready-http`
pub static READY_HTTP: Setting<Option<Uri>> = Setting {
    key: Key {
        name: "ready-http",
        value_name: "PATH",
        default: Some("off"),
        help: "A worker gets no connections before it answers GET PATH with a 2xx status",
        show: |config| or_off(config.ready_http.as_ref()),
        ..ONE
    },
    parse: parse::http_path,
};

/// `--ready-timeout`
pub static READY_TIMEOUT: Setting<Duration> = Setting {
    key: Key {
        name: "ready-timeout",
        value_name: "DURATION",
        default: Some("30s"),
        help: "How long a worker may take to become ready; after that, its start has failed",
        show: |config| duration(config.ready_timeout),
        ..ONE
    },
    parse: parse::duration,
};

/// `--autorestart`
pub static AUTORESTART: Setting<bool> = Setting {
    key: Key {
        name: "autorestart",
        default: Some("true"),
        help: "Start a worker again when it ends",
        show: |config| config.autorestart.to_string(),
        ..TRUTH
    },
    parse: parse::truth,
};

/// `--min-uptime`
pub static MIN_UPTIME: Setting<Duration> = Setting {
    key: Key {
        name: "min-uptime",
        value_name: "DURATION",
        default: Some("1s"),
        help: "A worker that ran for less has failed; its next start waits, ever longer",
        show: |config| duration(config.min_uptime),
        ..ONE
    },
    parse: parse::duration,
};

/// `--max-restarts`
pub static MAX_RESTARTS: Setting<u32> = Setting {
    key: Key {
        name: "max-restarts",
        value_name: "TIMES",
        default: Some("16"),
        help: "How many times in a row a failing worker is started again before it is given up",
        show: |config| config.max_restarts.to_string(),
        ..ONE
    },
    parse: parse::max_restarts,
};

/// `--stop-exit-codes`
pub static STOP_EXIT_CODES: Setting<u8> = Setting {
    key: Key {
        name: "stop-exit-codes",
        kind: Kind::List { example: "[0, 3]" },
        value_name: "CODE",
        help: "A worker that ends with this code has stopped, and is not started again",
        show: |config| list(&config.stop_exit_codes),
        ..ONE
    },
    parse: parse::exit_code,
};

/// `--drain-timeout`
pub static DRAIN_TIMEOUT: Setting<Duration> = Setting {
    key: Key {
        name: "drain-timeout",
        value_name: "DURATION",
        default: Some("6s"),
        help: "How long a worker may go on with open connections once it gets no further one",
        show: |config| duration(config.drain_timeout),
        ..ONE
    },
    parse: parse::duration,
};

/// `--stop-signal`
pub static STOP_SIGNAL: Setting<StopSignal> = Setting {
    key: Key {
        name: "stop-signal",
        value_name: "SIGNAL",
        default: Some("TERM"),
        help: "What then asks the worker to stop: a signal's name or number",
        show: |config| config.stop_signal.to_string(),
        ..ONE
    },
    parse: parse::stop_signal,
};

/// `--kill-timeout`
pub static KILL_TIMEOUT: Setting<Duration> = Setting {
    key: Key {
        name: "kill-timeout",
        value_name: "DURATION",
        default: Some("1600ms"),
        help: "How long the worker may take to end after that signal before it is killed",
        show: |config| duration(config.kill_timeout),
        ..ONE
    },
    parse: parse::duration,
};

/// `--reload-parallel`
pub static RELOAD_PARALLEL: Setting<NonZeroU32> = Setting {
    key: Key {
        name: "reload-parallel",
        value_name: "WORKERS",
        default: Some("1"),
        help: "How many workers a reload replaces at a time",
        show: |config| config.reload_parallel.to_string(),
        ..ONE
    },
    parse: parse::reload_parallel,
};

/// `--cron`
pub static CRON: Setting<Option<Cron>> = Setting {
    key: Key {
        name: "cron",
        value_name: "EXPRESSION",
        default: Some("off"),
        help: "Reload at these times: minute, hour, day, month and weekday, such as \"0 3 * * *\"",
        show: |config| or_off(config.cron.as_ref()),
        ..ONE
    },
    parse: parse::cron,
};

/// `--watch`
pub static WATCH: Setting<PathBuf> = Setting {
    key: Key {
        name: "watch",
        kind: Kind::List { example: "[\"src\", \"app.js\"]" },
        value_name: "PATH",
        help: "Reload when this file, or one in this folder, changes",
        show: |config| list(config.watch.iter().map(|path| path.display())),
        ..ONE
    },
    parse: parse::path,
};

/// `--ignore`
pub static IGNORE: Setting<Glob> = Setting {
    key: Key {
        name: "ignore",
        kind: Kind::List { example: "[\"**/*.log\", \"node_modules/**\"]" },
        value_name: "PATTERN",
        help: "Do not reload for what matches this pattern, such as \"**/*.log\"",
        show: |config| list(&config.ignore),
        ..ONE
    },
    parse: parse::pattern,
};

/// `--health-http`
pub static HEALTH_HTTP: Setting<Option<Uri>> = Setting {
    key: Key {
        name: "health-http",
        value_name: "PATH",
        default: Some("off"),
        help: "Replace a worker that does not answer GET PATH with a 2xx status",
        show: |config| or_off(config.health_http.as_ref()),
        ..ONE
    },
    parse: parse::http_path,
};

/// `--health-interval`
pub static HEALTH_INTERVAL: Setting<Duration> = Setting {
    key: Key {
        name: "health-interval",
        value_name: "DURATION",
        default: Some("10s"),
        help: "How often each worker is asked",
        show: |config| duration(config.health_interval),
        ..ONE
    },
    parse: parse::duration,
};

/// `--health-failures`
pub static HEALTH_FAILURES: Setting<NonZeroU32> = Setting {
    key: Key {
        name: "health-failures",
        value_name: "TIMES",
        default: Some("3"),
        help: "How many times in a row a worker may fail to answer",
        show: |config| config.health_failures.to_string(),
        ..ONE
    },
    parse: parse::health_failures,
};

/// `--stuck-timeout`
pub static STUCK_TIMEOUT: Setting<Option<Duration>> = Setting {
    key: Key {
        name: "stuck-timeout",
        value_name: "DURATION",
        default: Some("off"),
        help: "Replace a worker that takes no connection for so long while one waits for it",
        show: |config| or_off(config.stuck_timeout.map(duration)),
        ..ONE
    },
    parse: parse::duration_or_off,
};

/// `--max-memory`
pub static MAX_MEMORY: Setting<Option<ByteSize>> = Setting {
    key: Key {
        name: "max-memory",
        value_name: "SIZE",
        default: Some("off"),
        help: "Replace a worker that uses more memory, with its children, such as 512M or 1.5G",
        show: |config| or_off(config.max_memory),
        ..ONE
    },
    parse: parse::max_memory,
};

/// `--max-age`
pub static MAX_AGE: Setting<Option<Duration>> = Setting {
    key: Key {
        name: "max-age",
        value_name: "DURATION",
        default: Some("off"),
        help: "Replace a worker that has run for so long",
        show: |config| or_off(config.max_age.map(duration)),
        ..ONE
    },
    parse: parse::max_age,
};

/// `--max-connections`
pub static MAX_CONNECTIONS: Setting<Option<NonZeroU32>> = Setting {
    key: Key {
        name: "max-connections",
        value_name: "CONNECTIONS",
        default: Some("off"),
        help: "Replace a worker that has been given so many connections",
        show: |config| or_off(config.max_connections),
        ..ONE
    },
    parse: parse::max_connections,
};

/// `--metrics`
pub static METRICS: Setting<Option<SocketAddr>> = Setting {
    key: Key {
        name: "metrics",
        value_name: "ADDR|off",
        default: Some("off"),
        help: "Serve /metrics, /livez and /readyz at ADDR:PORT; a bare port means 127.0.0.1",
        show: |config| or_off(config.metrics),
        ..ONE
    },
    parse: parse::metrics,
};

/// `--scrape`
pub static SCRAPE: Setting<Option<Uri>> = Setting {
    key: Key {
        name: "scrape",
        value_name: "PATH",
        default: Some("off"),
        help: "Add to /metrics what each worker serves at this path, labelled with its number",
        show: |config| or_off(config.scrape.as_ref()),
        ..ONE
    },
    parse: parse::http_path,
};

/// `--log-format`
pub static LOG_FORMAT: Setting<LogFormat> = Setting {
    key: Key {
        name: "log-format",
        value_name: "text|json",
        default: Some("text"),
        help: "The shape of clusterd's own messages, which go to stderr",
        show: |config| config.log_format.to_string(),
        ..ONE
    },
    parse: parse::log_format,
};

/// `--log-level`
pub static LOG_LEVEL: Setting<LevelFilter> = Setting {
    key: Key {
        name: "log-level",
        value_name: "error|warn|info|debug|trace",
        default: Some("info"),
        help: "Which of clusterd's own messages are written",
        show: |config| config.log_level.to_string(),
        ..ONE
    },
    parse: parse::log_level,
};

/// `--on-event`
pub static ON_EVENT: Setting<Option<String>> = Setting {
    key: Key {
        name: "on-event",
        value_name: "COMMAND",
        default: Some("off"),
        help: "Run this shell command for each event in a worker's life, with JSON on its input",
        show: |config| or_off(config.on_event.as_ref()),
        ..ONE
    },
    parse: parse::shell_line,
};

/// Every setting, in the order in which people see them.
pub static SECTIONS: [Section; 8] = [
    Section {
        title: "Listening",
        keys: &[
            &PORT.key,
            &BIND.key,
            &BACKLOG.key,
            &QUEUE.key,
            &QUEUE_TIMEOUT.key,
            &WINDOW.key,
            &HANDOFF_TIMEOUT.key,
            &POLICY.key,
        ],
    },
    Section {
        title: "Workers",
        keys: &[
            &WORKERS.key,
            &NAME.key,
            &ATTACH.key,
            &USER.key,
            &GROUP.key,
            &NOFILE.key,
            &OOM_SCORE_ADJ.key,
            &CPU_AFFINITY.key,
            &CPU_SCHEDULING.key,
        ],
    },
    Section { title: "Readiness", keys: &[&WAIT_READY.key, &READY_HTTP.key, &READY_TIMEOUT.key] },
    Section {
        title: "Restarts",
        keys: &[&AUTORESTART.key, &MIN_UPTIME.key, &MAX_RESTARTS.key, &STOP_EXIT_CODES.key],
    },
    Section {
        title: "Stop and reload",
        keys: &[
            &DRAIN_TIMEOUT.key,
            &STOP_SIGNAL.key,
            &KILL_TIMEOUT.key,
            &RELOAD_PARALLEL.key,
            &CRON.key,
            &WATCH.key,
            &IGNORE.key,
        ],
    },
    Section {
        title: "Health",
        keys: &[&HEALTH_HTTP.key, &HEALTH_INTERVAL.key, &HEALTH_FAILURES.key, &STUCK_TIMEOUT.key],
    },
    Section { title: "Limits", keys: &[&MAX_MEMORY.key, &MAX_AGE.key, &MAX_CONNECTIONS.key] },
    Section {
        title: "Metrics, messages and events",
        keys: &[&METRICS.key, &SCRAPE.key, &LOG_FORMAT.key, &LOG_LEVEL.key, &ON_EVENT.key],
    },
];

/// Every setting, section by section.
pub fn all() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys).copied()
}

/// The file's one key that is no setting of the table: what the workers run, a list of strings.
pub const COMMAND: &str = "command";

/// The environment variable that names the file, as `--config` does.
pub const CONFIG_VARIABLE: &str = "CLUSTERD_CONFIG";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_variable_is_one_that_has_another_meaning() {
        use crate::protocol::wire::{ENV_PORTS, ENV_SOCKET, ENV_TOKEN};
        for key in all() {
            let taken = [ENV_PORTS, ENV_SOCKET, ENV_TOKEN, CONFIG_VARIABLE];
            assert!(!taken.contains(&key.variable().as_str()), "{}", key.name);
        }
    }

    #[test]
    fn no_name_is_used_twice() {
        let names: BTreeSet<_> = all().map(|key| key.name).collect();
        assert_eq!(names.len(), all().count());
    }

    #[test]
    fn each_says_what_it_is_for() {
        for key in all() {
            assert!(!key.name.is_empty() && !key.value_name.is_empty(), "{}", key.name);
            assert!(!key.help.is_empty() && !key.help.ends_with('.'), "{}", key.name);
            assert!(key.default.is_some() || key.is_list(), "{}", key.name);
        }
    }
}
