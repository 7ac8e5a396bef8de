//! What `pm2 save` has written: each process as it runs, with the whole environment of the shell that started it.
//!
//! It is made an ecosystem file again: processes of one name are one app, and what PM2 itself has put there is left out.

use std::path::Path;

use super::super::super::error::{Invalid, Problem, Reason};
use super::super::tree::{Data, Tree};
use super::super::{Apps, Warning};
use super::{convert, keys};

/// Keys of the record that are of the app, with the value that PM2 gives where nobody said one.
const KEPT: [(&str, Option<&str>); 30] = [
    ("name", None),
    ("namespace", Some("\"default\"")),
    ("args", Some("[]")),
    ("node_args", Some("[]")),
    ("exec_interpreter", None),
    ("exec_mode", None),
    ("autorestart", Some("true")),
    ("autostart", Some("true")),
    ("cron_restart", None),
    ("exp_backoff_restart_delay", None),
    ("filter_env", Some("[]")),
    ("ignore_watch", None),
    ("increment_var", None),
    ("instance_var", Some("\"NODE_APP_INSTANCE\"")),
    ("kill_timeout", Some("1600")),
    ("listen_timeout", None),
    ("log_date_format", None),
    ("log_type", None),
    ("max_memory_restart", None),
    ("max_restarts", Some("16")),
    ("min_uptime", Some("1000")),
    ("restart_delay", Some("0")),
    ("shutdown_with_message", Some("false")),
    ("stop_exit_codes", None),
    ("treekill", Some("true")),
    ("uid", None),
    ("gid", None),
    ("wait_ready", Some("false")),
    ("watch", Some("false")),
    ("disable_logs", Some("false")),
];

/// Keys with another name in an ecosystem file.
const RENAMED: [(&str, &str); 4] = [
    ("pm_exec_path", "script"),
    ("pm_cwd", "cwd"),
    ("pm_out_log_path", "out_file"),
    ("pm_err_log_path", "error_file"),
];

/// Variables that PM2 gives, and what a login shell has for itself.
const NOT_THE_APPS: [&str; 58] = [
    "PM2_HOME",
    "PM2_USAGE",
    "PM2_INTERACTOR_PROCESSING",
    "PM2_JSON_PROCESSING",
    "PM2_PROGRAMMATIC",
    "NODE_APP_INSTANCE",
    "NODE_CHANNEL_FD",
    "NODE_CHANNEL_SERIALIZATION_MODE",
    "NODE_UNIQUE_ID",
    "unique_id",
    "pm_id",
    "status",
    "pm_uptime",
    "created_at",
    "restart_time",
    "unstable_restarts",
    "axm_actions",
    "axm_monitor",
    "axm_options",
    "axm_dynamic",
    "_pm2_version",
    "version",
    "versioning",
    "vizion_running",
    "km_link",
    "pm_pid_path",
    "pm_log_path",
    "pm_out_log_path",
    "pm_err_log_path",
    "pm_exec_path",
    "pm_cwd",
    "prev_restart_delay",
    "exit_code",
    "node_version",
    "SILENT",
    "windowsHide",
    "command",
    "_",
    "SHLVL",
    "PWD",
    "OLDPWD",
    "TERM",
    "COLORTERM",
    "LS_COLORS",
    "SSH_CLIENT",
    "SSH_CONNECTION",
    "SSH_TTY",
    "SSH_AUTH_SOCK",
    "DISPLAY",
    "XDG_SESSION_ID",
    "XDG_RUNTIME_DIR",
    "XDG_SESSION_TYPE",
    "XDG_SESSION_CLASS",
    "DBUS_SESSION_BUS_ADDRESS",
    "PS1",
    "HISTFILE",
    "LINES",
    "COLUMNS",
];

/// Reads the list of processes.
///
/// # Errors
/// It is none, or something in it cannot be read.
pub(in super::super) fn dump(path: &Path, tree: &Tree) -> Result<Apps, Invalid> {
    let Data::List(processes) = &tree.data else {
        let reason = Reason::new(format!("{} is no list of processes", tree.what()));
        return Err(Invalid::new(vec![Problem::at(
            path.display(),
            reason.hint("name the file that `pm2 save` has written"),
        )]));
    };
    let mut apps = Apps::default();
    let mut problems = Vec::new();
    let mut records: Vec<(&Tree, usize)> = Vec::new();
    for process in processes {
        let same = |(other, _): &&mut (&Tree, usize)| {
            ["name", "pm_exec_path"]
                .iter()
                .all(|key| other.get(key).map(Tree::json) == process.get(key).map(Tree::json))
        };
        match records.iter_mut().find(same) {
            Some((_, count)) => *count += 1,
            None => records.push((process, 1)),
        }
    }
    for (index, (record, count)) in records.into_iter().enumerate() {
        let converted = convert::convert(path, &as_written(record, count), index);
        let name = converted.app.as_ref().map(|app| app.name.text.clone());
        if matches!(record.get("status").map(|status| &status.data), Some(Data::Text(status)) if status == "stopped")
        {
            let reason = Reason::new("was stopped when it was saved");
            let problem =
                Problem::at(format!("{}: {}", path.display(), name.clone().unwrap_or_default()), reason);
            apps.warnings.push(Warning { app: name.clone(), problem });
        }
        apps.apps.extend(converted.app);
        // What was never written by anybody needs no advice on how to write it.
        apps.warnings.extend(converted.warnings);
        problems.extend(converted.problems);
    }
    if apps.apps.is_empty() && problems.is_empty() {
        problems.push(Problem::at(path.display(), Reason::new("names no app")));
    }
    if problems.is_empty() { Ok(apps) } else { Err(Invalid::new(problems)) }
}

/// The record as its author may have written it.
fn as_written(record: &Tree, count: usize) -> Tree {
    let made = |data: Data| Tree { data, line: record.line };
    let mut entries = Vec::new();
    for (key, default) in KEPT {
        let Some(value) = record.get(key) else { continue };
        let is_said =
            default.is_none_or(|default| value.json() != default) && !is_of_extension(record, key, value);
        if is_said && !is_overwritten(record, key) {
            entries.push((key.to_owned(), value.clone()));
        }
    }
    for (key, name) in RENAMED {
        let Some(value) = record.get(key) else { continue };
        let is_default = matches!(&value.data, Data::Text(path) if path.contains("/.pm2/logs/"));
        if !is_default {
            entries.push((name.to_owned(), value.clone()));
        }
    }
    let is_cluster = record.get("exec_mode").is_some_and(|mode| mode.json().contains("cluster"));
    if is_cluster || count > 1 {
        entries.push(("instances".to_owned(), made(Data::Number(count.to_string()))));
    }
    let mode = entries.iter().position(|(key, _)| key == "exec_mode");
    // Nobody has to say it.
    mode.filter(|_| !is_cluster && count == 1).into_iter().for_each(|at| drop(entries.remove(at)));
    if let Some(Data::Map(variables)) = record.get(keys::ENV).map(|env| &env.data) {
        let own = |name: &str| {
            !NOT_THE_APPS.contains(&name)
                && keys::named(name).is_none()
                && record.get("name").map(Tree::json) != Some(format!("{name:?}"))
        };
        let kept: Vec<_> = variables.iter().filter(|(name, _)| own(name)).cloned().collect();
        if !kept.is_empty() {
            entries.push((keys::ENV.to_owned(), made(Data::Map(kept))));
        }
    }
    made(Data::Map(entries))
}

/// The interpreter that the script would have anyway, maybe by a path of a version that is gone one day.
fn is_of_extension(record: &Tree, key: &str, value: &Tree) -> bool {
    let (Data::Text(interpreter), "exec_interpreter") = (&value.data, key) else { return false };
    let Some(Data::Text(script)) = record.get("pm_exec_path").map(|path| &path.data) else { return false };
    let name = interpreter.rsplit('/').next().unwrap_or_default();
    let extension = script.rsplit_once('.').map_or("", |(_, extension)| extension);
    matches!(
        (extension, name),
        ("js" | "cjs" | "mjs", "node")
            | ("py", "python" | "python3")
            | ("sh", "bash")
            | ("rb", "ruby")
            | ("php", "php")
            | ("pl", "perl")
    )
}

/// A variable of the shell that has the name of a key stands in its place.
fn is_overwritten(record: &Tree, key: &str) -> bool {
    let variable = record.get(keys::ENV).and_then(|env| env.get(key));
    variable.is_some_and(|variable| {
        Some(variable.json()) == record.get(key).map(Tree::json) && key == "namespace"
    })
}
