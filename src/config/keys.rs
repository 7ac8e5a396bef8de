//! The table of settings: each is described here, once, for flags, environment, file, help and `--show-config`.
//!
//! It does not read any of these sources; it says what they are called and how a value is read.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::error::Reason;
use super::{Attach, Listen, LogFormat, parse};

/// What a setting is called, and what it is for.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// In the file, and after `--` as a flag.
    pub name: &'static str,
    /// Its own environment variable, `CLUSTERD_*`.
    pub variable: &'static str,
    /// The variable that hosting platforms set for it, if there is one; its own goes before.
    pub platform_variable: Option<&'static str>,
    /// It may have several values: a repeated flag, a list in the file, commas in the environment.
    pub is_list: bool,
    /// Its value where no source names one; `None` stands for an empty list.
    pub default: Option<&'static str>,
    /// One line for people.
    pub help: &'static str,
}

/// A setting whose values are `T`.
#[derive(Debug)]
pub struct Setting<T> {
    /// What it is called.
    pub key: Key,
    /// Reads one value.
    pub parse: fn(&str) -> Result<T, Reason>,
}

/// `--port`
pub static PORT: Setting<Listen> = Setting {
    key: Key {
        name: "port",
        variable: "CLUSTERD_PORT",
        platform_variable: Some("PORT"),
        is_list: true,
        default: Some("3000"),
        help: "Serve this port on every address, for workers that listen on it or on WORKER",
    },
    parse: parse::port,
};

/// `--bind`
pub static BIND: Setting<Listen> = Setting {
    key: Key {
        name: "bind",
        variable: "CLUSTERD_BIND",
        platform_variable: None,
        is_list: true,
        default: None,
        help: "Serve this address only; there is then no default port",
    },
    parse: parse::bind,
};

/// `--workers`
pub static WORKERS: Setting<parse::Workers> = Setting {
    key: Key {
        name: "workers",
        variable: "CLUSTERD_WORKERS",
        platform_variable: Some("WEB_CONCURRENCY"),
        is_list: false,
        default: Some("max"),
        help: "How many workers run; max is one for each CPU that clusterd may use",
    },
    parse: parse::workers,
};

/// `--backlog`
pub static BACKLOG: Setting<NonZeroU32> = Setting {
    key: Key {
        name: "backlog",
        variable: "CLUSTERD_BACKLOG",
        platform_variable: None,
        is_list: false,
        default: Some("4096"),
        help: "How many connections the kernel may hold for each public address (see listen(2))",
    },
    parse: parse::backlog,
};

/// `--queue`
pub static QUEUE: Setting<NonZeroUsize> = Setting {
    key: Key {
        name: "queue",
        variable: "CLUSTERD_QUEUE",
        platform_variable: None,
        is_list: false,
        default: Some("1024"),
        help: "How many accepted connections may wait for an idle worker; the backlog holds the rest",
    },
    parse: parse::queue,
};

/// `--queue-timeout`
pub static QUEUE_TIMEOUT: Setting<Duration> = Setting {
    key: Key {
        name: "queue-timeout",
        variable: "CLUSTERD_QUEUE_TIMEOUT",
        platform_variable: None,
        is_list: false,
        default: Some("60s"),
        help: "How long a connection may wait for a worker before it is closed",
    },
    parse: parse::duration,
};

/// `--handoff-timeout`
pub static HANDOFF_TIMEOUT: Setting<Duration> = Setting {
    key: Key {
        name: "handoff-timeout",
        variable: "CLUSTERD_HANDOFF_TIMEOUT",
        platform_variable: None,
        is_list: false,
        default: Some("1s"),
        help: "How long a worker may leave a connection untaken before another worker gets it",
    },
    parse: parse::duration,
};

/// `--grace`
pub static GRACE: Setting<Duration> = Setting {
    key: Key {
        name: "grace",
        variable: "CLUSTERD_GRACE",
        platform_variable: None,
        is_list: false,
        default: Some("8s"),
        help: "How long a graceful stop may take before what is left is killed",
    },
    parse: parse::duration,
};

/// `--metrics`
pub static METRICS: Setting<Option<SocketAddr>> = Setting {
    key: Key {
        name: "metrics",
        variable: "CLUSTERD_METRICS",
        platform_variable: None,
        is_list: false,
        default: Some("off"),
        help: "Serve /metrics, /livez and /readyz at ADDR:PORT; a bare port means 127.0.0.1",
    },
    parse: parse::metrics,
};

/// `--log-format`
pub static LOG_FORMAT: Setting<LogFormat> = Setting {
    key: Key {
        name: "log-format",
        variable: "CLUSTERD_LOG_FORMAT",
        platform_variable: None,
        is_list: false,
        default: Some("text"),
        help: "The shape of clusterd's own messages, which go to stderr",
    },
    parse: parse::log_format,
};

/// `--log-level`
pub static LOG_LEVEL: Setting<LevelFilter> = Setting {
    key: Key {
        name: "log-level",
        variable: "CLUSTERD_LOG_LEVEL",
        platform_variable: None,
        is_list: false,
        default: Some("info"),
        help: "Which of clusterd's own messages are written",
    },
    parse: parse::log_level,
};

/// `--attach`
pub static ATTACH: Setting<Attach> = Setting {
    key: Key {
        name: "attach",
        // `CLUSTERD_ATTACH_SOCKET` is what workers get: the attach socket.
        variable: "CLUSTERD_ATTACH",
        platform_variable: None,
        is_list: false,
        default: Some("auto"),
        help: "How workers get connections: by the preloaded shim, over Node's cluster channel, or auto, which is \
               both",
    },
    parse: parse::attach,
};

/// `--wait-ready`
pub static WAIT_READY: Setting<bool> = Setting {
    key: Key {
        name: "wait-ready",
        variable: "CLUSTERD_WAIT_READY",
        platform_variable: None,
        is_list: false,
        default: Some("false"),
        help: "A worker gets no connections before it says that it is ready: process.send('ready'), or the library",
    },
    parse: parse::truth,
};

/// Every setting, in the order in which people see them.
pub static ALL: [&Key; 13] = [
    &PORT.key,
    &BIND.key,
    &WORKERS.key,
    &BACKLOG.key,
    &QUEUE.key,
    &QUEUE_TIMEOUT.key,
    &HANDOFF_TIMEOUT.key,
    &GRACE.key,
    &METRICS.key,
    &LOG_FORMAT.key,
    &LOG_LEVEL.key,
    &ATTACH.key,
    &WAIT_READY.key,
];

/// The file's one key that is no setting of the table: what the workers run, a list of strings.
pub const COMMAND: &str = "command";

/// The environment variable that names the file, as `--config` does.
pub const CONFIG_VARIABLE: &str = "CLUSTERD_CONFIG";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_variable_is_named_as_its_key() {
        for key in ALL.iter().filter(|key| key.name != "attach") {
            let expected = format!("CLUSTERD_{}", key.name.replace('-', "_").to_uppercase());
            assert_eq!(key.variable, expected);
        }
    }

    #[test]
    fn no_variable_is_one_that_workers_find_the_primary_by() {
        use crate::protocol::wire::{ENV_PORTS, ENV_SOCKET, ENV_TOKEN};
        for key in ALL {
            assert!(![ENV_PORTS, ENV_SOCKET, ENV_TOKEN].contains(&key.variable), "{}", key.name);
        }
    }

    #[test]
    fn no_name_is_used_twice() {
        let names: BTreeSet<_> = ALL.iter().flat_map(|key| [key.name, key.variable]).collect();
        assert_eq!(names.len(), 2 * ALL.len());
    }

    #[test]
    fn every_default_is_a_value() {
        fn assert_parses<T>(setting: &Setting<T>) {
            if let Some(default) = setting.key.default {
                assert!((setting.parse)(default).is_ok(), "{}", setting.key.name);
            }
        }
        assert_parses(&PORT);
        assert_parses(&BIND);
        assert_parses(&WORKERS);
        assert_parses(&BACKLOG);
        assert_parses(&QUEUE);
        assert_parses(&QUEUE_TIMEOUT);
        assert_parses(&HANDOFF_TIMEOUT);
        assert_parses(&GRACE);
        assert_parses(&METRICS);
        assert_parses(&LOG_FORMAT);
        assert_parses(&LOG_LEVEL);
        assert_parses(&ATTACH);
    }
}
