//! Every key that PM2 7 knows of an app, with all its names, and what becomes of it here.
//!
//! A table. How a value is read, [`super::value`] knows.

use super::value::Shape;

/// A key of an app.
#[derive(Debug)]
pub(super) struct Key {
    /// Its name in PM2's documentation.
    pub name: &'static str,
    /// Its other names, beside each of them in camel case.
    pub aliases: &'static [&'static str],
    /// What it is here.
    pub becomes: Becomes,
}

/// What a key is here.
#[derive(Clone, Copy, Debug)]
pub(super) enum Becomes {
    /// The setting of this name in the table.
    Setting(&'static str, Shape),
    /// A part of what the app is made of.
    Part,
    /// Nothing, with what to use instead. Nobody need be told of the harmless values.
    Nothing {
        /// As JSON has them.
        harmless: &'static [&'static str],
        /// What there is instead.
        instead: &'static str,
    },
}

use Becomes::{Nothing, Part, Setting};

const APM: Becomes = Nothing {
    harmless: &["false"],
    instead: "it is of PM2's monitoring; clusterd serves metrics with `metrics`, and each worker's own with `scrape`",
};
const RELEASES: Becomes = Nothing {
    harmless: &[],
    instead: "run such commands where the release is made, and `clusterd reload` after them",
};

const fn key(name: &'static str, aliases: &'static [&'static str], becomes: Becomes) -> Key {
    Key { name, aliases, becomes }
}

/// The key of an app's variables.
pub(super) const ENV: &str = "env";

/// All of them.
pub(super) static KEYS: &[Key] = &[
    key("name", &[], Part),
    key("script", &["exec", "cmd", "command"], Part),
    key("args", &[], Part),
    key("interpreter", &["exec_interpreter"], Part),
    key("node_args", &["interpreter_args"], Part),
    key("namespace", &[], Setting("namespace", Shape::Text)),
    key(ENV, &[], Part),
    key("port", &[], Part),
    key("exec_mode", &[], Part),
    key("append_env_to_name", &[], Part),
    key("autostart", &[], Part),
    // Ours: PM2 starts all at once.
    key("depends_on", &[], Part),
    key("time", &[], Part),
    key("cwd", &[], Setting("cwd", Shape::Text)),
    // Ours: PM2 takes it for the profile `file`, and drops it.
    key("env_file", &[], Setting("env-file", Shape::Texts)),
    key("instances", &[], Setting("workers", Shape::Workers)),
    key("wait_ready", &[], Setting("wait-ready", Shape::Truth)),
    key("listen_timeout", &[], Setting("ready-timeout", Shape::Milliseconds)),
    key("autorestart", &[], Setting("autorestart", Shape::Truth)),
    key("min_uptime", &[], Setting("min-uptime", Shape::Time)),
    key("max_restarts", &[], Setting("max-restarts", Shape::Count)),
    key("stop_exit_codes", &[], Setting("stop-exit-codes", Shape::Counts)),
    key("kill_timeout", &[], Setting("kill-timeout", Shape::Milliseconds)),
    key("shutdown_with_message", &[], Setting("shutdown-with-message", Shape::Truth)),
    key("treekill", &[], Setting("treekill", Shape::Truth)),
    key("max_memory_restart", &[], Setting("max-memory", Shape::Size)),
    key("cron_restart", &["cron"], Setting("cron", Shape::Cron)),
    key("watch", &[], Setting("watch", Shape::Paths)),
    key("ignore_watch", &[], Setting("ignore", Shape::Patterns)),
    key("uid", &["user"], Setting("user", Shape::Account)),
    key("gid", &[], Setting("group", Shape::Account)),
    key("restart_delay", &[], Setting("restart-delay", Shape::Milliseconds)),
    key("exp_backoff_restart_delay", &[], Setting("restart-backoff", Shape::Milliseconds)),
    key("instance_var", &[], Setting("instance-var", Shape::Text)),
    key("increment_var", &[], Setting("increment-var", Shape::Text)),
    key("pid_file", &["pid"], Setting("pid-file", Shape::Text)),
    key("filter_env", &[], Setting("filter-env", Shape::Variables)),
    key("out_file", &["out", "output", "out_log"], Setting("out-file", Shape::LogFile)),
    key("error_file", &["error", "err", "err_file", "err_log"], Setting("error-file", Shape::LogFile)),
    key("log_file", &["log"], Setting("log-file", Shape::LogFile)),
    key("merge_logs", &["combine_logs"], Setting("merge-logs", Shape::Truth)),
    key("log_date_format", &[], Setting("log-date-format", Shape::Text)),
    key("log_type", &[], Setting("log-type", Shape::Text)),
    key("disable_logs", &[], Setting("disable-logs", Shape::Truth)),
    key(
        "watch_delay",
        &[],
        Nothing { harmless: &["0"], instead: "a reload comes when nothing has changed for 200 ms" },
    ),
    key(
        "watch_options",
        &[],
        Nothing { harmless: &["{}"], instead: "use ignore_watch for what does not matter" },
    ),
    key("force", &[], Nothing { harmless: &["false"], instead: "give the second app a name of its own" }),
    key("name_prefix", &[], Nothing { harmless: &["\"\""], instead: "write the prefix into the name" }),
    key(
        "kill_retry_time",
        &[],
        Nothing {
            harmless: &["100"],
            instead: "clusterd is told when a process ends, and polls for nothing",
        },
    ),
    key(
        "source_map_support",
        &[],
        Nothing { harmless: &["false"], instead: "use node_args: \"--enable-source-maps\"" },
    ),
    key(
        "disable_source_map_support",
        &[],
        Nothing { harmless: &["true", "false"], instead: "clusterd does not switch it on" },
    ),
    key("username", &[], Nothing { harmless: &[], instead: "use user for the user that workers run as" }),
    key(
        "execute_command",
        &[],
        Nothing { harmless: &["false"], instead: "a script with a space in it is a line for a shell" },
    ),
    key("write", &[], Nothing { harmless: &["false"], instead: "`clusterd import` writes a file" }),
    key("windowsHide", &[], Nothing { harmless: &["true", "false"], instead: "clusterd runs on Linux" }),
    key(
        "vizion",
        &[],
        Nothing { harmless: &["false"], instead: "what a release is, its own metrics and logs can tell" },
    ),
    key("post_update", &[], RELEASES),
    key("install_url", &[], RELEASES),
    key("pmx", &[], APM),
    key("automation", &[], APM),
    key("trace", &[], APM),
    key("disable_trace", &[], Nothing { harmless: &["true", "false"], instead: "clusterd traces nothing" }),
    key("v8", &[], APM),
    key("event_loop_inspector", &[], APM),
    key("deep_monitoring", &[], APM),
    key("io", &[], APM),
];

/// The key of this name, in either case or by an alias.
pub(super) fn named(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| names(key).any(|known| known == name))
}

/// Every name of a key.
pub(super) fn names(key: &Key) -> impl Iterator<Item = String> {
    let plain = std::iter::once(key.name).chain(key.aliases.iter().copied());
    plain.flat_map(|name| {
        let camel = camel(name);
        let is_other = camel != name;
        std::iter::once(name.to_owned()).chain(is_other.then_some(camel))
    })
}

/// `max_memory_restart` as `maxMemoryRestart`.
fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |camel, part| {
        let (head, tail) = part.split_at(part.chars().next().map_or(0, char::len_utf8));
        camel + &head.to_uppercase() + tail
    })
}

/// The name that was probably meant by one that is unknown: near enough that it cannot well be anything else.
pub(super) fn nearest(name: &str) -> Option<String> {
    let near = |known: &String| {
        let distance = strsim::damerau_levenshtein(name, known);
        let allowed = match known.len() {
            0..=5 => 1,
            6..=9 => 2,
            _ => 3,
        };
        (distance <= allowed).then_some(distance)
    };
    let names = KEYS.iter().flat_map(names).filter_map(|known| Some((near(&known)?, known)));
    names.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::super::super::table;
    use super::*;

    #[test]
    fn a_key_has_many_names_and_each_is_of_one_key() {
        let mut all = BTreeSet::new();
        for name in KEYS.iter().flat_map(names) {
            assert!(all.insert(name.clone()), "{name}");
        }
        let cases = [
            ("maxMemoryRestart", "max_memory_restart"),
            ("combine_logs", "merge_logs"),
            ("interpreterArgs", "node_args"),
            ("nodeArgs", "node_args"),
            ("exec", "script"),
            ("err_log", "error_file"),
            ("errorFile", "error_file"),
            ("expBackoffRestartDelay", "exp_backoff_restart_delay"),
            ("user", "uid"),
            ("cron", "cron_restart"),
        ];
        for (name, expected) in cases {
            assert_eq!(named(name).map(|key| key.name), Some(expected), "{name}");
        }
        assert!(named("max-memory-restart").is_none());
    }

    #[test]
    fn what_becomes_a_setting_is_one() {
        for key in KEYS {
            let Setting(name, _) = key.becomes else { continue };
            assert!(table::named(name).is_some(), "{}: {name}", key.name);
        }
    }

    #[test]
    fn what_is_nearly_a_key_is_taken_for_a_mistake() {
        let cases = [
            ("max_restart", Some("max_restarts")),
            ("scrpt", Some("script")),
            ("max_memory_restrat", Some("max_memory_restart")),
            ("Name", Some("name")),
            ("error_log", Some("err_log")),
            ("tags", None),
            ("description", None),
            ("version", None),
            ("health_check", None),
        ];
        for (name, expected) in cases {
            assert_eq!(nearest(name).as_deref(), expected, "{name}");
        }
    }
}
