//! A worker as PM2's `jlist` has it: an object with the names and types that scripts read.
//!
//! What PM2 alone knows (its monitoring, its git data) is empty or missing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::control::api::{App, Worker};
use crate::home::apps::AppFolder;
use crate::home::ids::Ids;
use crate::home::pm2_names;
use crate::home::record::Record;
use crate::settings::Attach;
use crate::settings::Config;
use crate::sys::users;

/// An app, and what is known of it beside what it says itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    /// Its folder, if it has one.
    pub folder: Option<&'a AppFolder>,
    /// Its settings, if it was started in the background.
    pub config: Option<&'a Config>,
    /// Its words.
    pub command: &'a [String],
    /// The namespace that it is in.
    pub namespace: &'a str,
    /// The numbers of all workers.
    pub ids: &'a Ids,
}

/// How a worker stands.
struct Standing<'a> {
    id: Option<u32>,
    /// Counted from 0.
    instance: u32,
    instances: usize,
    pid: i64,
    status: &'a str,
    restarts: u64,
    created: u64,
    started: u64,
    memory: u64,
    cpu: f64,
    environment: Option<&'a BTreeMap<String, String>>,
    exit_code: Option<u8>,
}

/// The workers of an app that runs, one for each number: of two while one is replaced, the one that serves.
pub(crate) fn of_running(app: &App, known: Known<'_>) -> Vec<Value> {
    let numbers = known.ids.of_app(&app.name);
    let mut by_number: BTreeMap<u32, &Worker> = BTreeMap::new();
    for worker in &app.workers {
        let one = by_number.entry(worker.worker).or_insert(worker);
        if worker.state == "online" {
            *one = worker;
        }
    }
    let instances = by_number.len();
    let of = |worker: &Worker| {
        let instance = worker.worker.saturating_sub(1);
        let standing = Standing {
            id: numbers.get(instance as usize).copied(),
            instance,
            instances,
            pid: worker.pid.map_or(0, i64::from),
            status: status(&worker.state),
            restarts: worker.restarts,
            created: milliseconds(app.started.0),
            started: worker.started.map_or(0, |started| milliseconds(started.0)),
            memory: worker.memory_bytes.unwrap_or_default(),
            cpu: worker.cpu_percent.map(|percent| (percent * 10.0).round() / 10.0).unwrap_or_default(),
            environment: worker.environment.as_ref(),
            exit_code: None,
        };
        record(&app.name, known, &standing)
    };
    by_number.into_values().map(of).collect()
}

/// The workers that an app has when it runs, which it does not.
pub(crate) fn of_resting(folder: &AppFolder, known: Known<'_>) -> Vec<Value> {
    let (kept, numbers) = (Record::of(folder), known.ids.of_app(folder.name()));
    let numbers: Vec<_> =
        if numbers.is_empty() { vec![None] } else { numbers.iter().copied().map(Some).collect() };
    let ended = kept.ended.as_ref();
    let of = |(instance, id): (u32, Option<u32>)| {
        let standing = Standing {
            id,
            instance,
            instances: numbers.len(),
            pid: 0,
            status: kept.state(),
            restarts: 0,
            created: ended.map_or(0, |ended| milliseconds(ended.at.0)),
            started: ended.map_or(0, |ended| milliseconds(ended.at.0)),
            memory: 0,
            cpu: 0.0,
            environment: None,
            exit_code: ended.map(|ended| ended.code),
        };
        record(folder.name(), known, &standing)
    };
    (0..).zip(numbers.iter().copied()).map(of).collect()
}

fn record(name: &str, known: Known<'_>, at: &Standing<'_>) -> Value {
    let env = json!(at.environment.cloned().unwrap_or_default());
    let mut pm2_env = entries(name, known, at);
    // PM2 has each variable twice.
    for (variable, text) in at.environment.into_iter().flatten() {
        pm2_env.entry(variable.clone()).or_insert_with(|| json!(text));
    }
    pm2_env.insert("env".to_owned(), env);
    json!({
        "pid": at.pid,
        "name": name,
        "pm2_env": pm2_env,
        "pm_id": at.id,
        "monit": { "memory": at.memory, "cpu": at.cpu },
    })
}

fn entries(name: &str, known: Known<'_>, at: &Standing<'_>) -> Map<String, Value> {
    let config = known.config;
    let cwd = folder(known, at);
    let run = Run::of(known.command, &cwd);
    let home = known.folder.map(AppFolder::home);
    let pid_file =
        match (config.and_then(|config| Some(config.in_start_folder(config.pid_file.as_ref()?))), home) {
            (Some(file), _) => at.id.map(|id| pm2_names::numbered(&file, id)),
            (None, Some(home)) => at.id.map(|id| pm2_names::pid_file(home, name, id)),
            (None, None) => None,
        };
    let by_worker = config.filter(|config| !config.merge_logs).and(at.id);
    let log = |stream: &str, said: Option<PathBuf>| {
        said.or_else(|| Some(pm2_names::log(home?, name, stream, by_worker)))
    };
    let said = |file: fn(&Config) -> &Option<PathBuf>| {
        config.and_then(|config| Some(config.in_start_folder(file(config).as_ref()?)))
    };
    let millis = |time: fn(&Config) -> std::time::Duration| {
        config.map(|config| u64::try_from(time(config).as_millis()).unwrap_or(u64::MAX))
    };
    let is_cluster = run.is_node && config.is_none_or(|config| config.attach != Attach::Preload);
    let value = json!({
        "name": name,
        "namespace": known.namespace,
        "pm_id": at.id,
        "status": at.status,
        "pm_uptime": at.started,
        "created_at": at.created,
        "restart_time": at.restarts,
        "unstable_restarts": 0,
        "exec_mode": if is_cluster { "cluster_mode" } else { "fork_mode" },
        "instances": at.instances,
        "pm_exec_path": run.script,
        "pm_cwd": cwd,
        "exec_interpreter": run.interpreter,
        "node_args": run.interpreter_args,
        "args": run.args,
        "pm_out_log_path": log("out", said(|config| &config.out_file)),
        "pm_err_log_path": log("error", said(|config| &config.error_file)),
        "pm_pid_path": pid_file,
        "version": version(Path::new(&run.script)),
        "watch": config.is_some_and(|config| !config.watch.is_empty()),
        "autorestart": config.is_none_or(|config| config.autorestart),
        "autostart": true,
        "merge_logs": config.is_none_or(|config| config.merge_logs),
        "wait_ready": config.is_some_and(|config| config.wait_ready),
        "treekill": config.is_none_or(|config| config.treekill),
        "instance_var": config.map_or("NODE_APP_INSTANCE", |config| config.instance_var.as_str()),
        "filter_env": config.map(|config| config.filter_env.clone()).unwrap_or_default(),
        "NODE_APP_INSTANCE": at.instance,
        "username": user(),
        "axm_actions": [],
        "axm_monitor": {},
        "axm_options": {},
        "axm_dynamic": {},
        "pmx": false,
        "automation": false,
        "vizion": false,
        "vizion_running": false,
        "km_link": false,
    });
    let Value::Object(mut entries) = value else { return Map::new() };
    let others = [
        ("kill_timeout", millis(|config| config.kill_timeout).map(Value::from)),
        ("listen_timeout", millis(|config| config.ready_timeout).map(Value::from)),
        ("min_uptime", millis(|config| config.min_uptime).map(Value::from)),
        ("max_restarts", config.map(|config| config.max_restarts.into())),
        ("max_memory_restart", config.and_then(|config| Some(config.max_memory?.as_u64().into()))),
        ("exit_code", at.exit_code.map(Value::from)),
    ];
    entries.extend(others.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    entries
}

/// What runs what.
struct Run {
    script: String,
    interpreter: String,
    interpreter_args: Vec<String>,
    args: Vec<String>,
    is_node: bool,
}

impl Run {
    /// A program that runs scripts is the interpreter of its first argument that is no flag.
    fn of(command: &[String], cwd: &Path) -> Self {
        const INTERPRETERS: [&str; 11] =
            ["node", "bun", "deno", "python", "python3", "ruby", "php", "perl", "bash", "sh", "ts-node"];
        let program = command.first().cloned().unwrap_or_else(|| "clusterd".to_owned());
        let name = program.rsplit('/').next().unwrap_or_default().to_owned();
        let rest = command.get(1..).unwrap_or_default();
        let script = rest.iter().position(|word| !word.starts_with('-'));
        let in_cwd = |word: &str| cwd.join(word).display().to_string();
        match script.filter(|_| INTERPRETERS.contains(&name.as_str())) {
            Some(place) => Self {
                script: in_cwd(rest[place].strip_prefix("./").unwrap_or(&rest[place])),
                interpreter: name.clone(),
                interpreter_args: rest[..place].to_vec(),
                args: rest[place + 1..].to_vec(),
                is_node: matches!(name.as_str(), "node" | "bun"),
            },
            None => Self {
                script: if program.contains('/') { in_cwd(&program) } else { program },
                interpreter: "none".to_owned(),
                interpreter_args: Vec::new(),
                args: rest.to_vec(),
                is_node: false,
            },
        }
    }
}

fn folder(known: Known<'_>, at: &Standing<'_>) -> PathBuf {
    let said = known.config.and_then(|config| config.workplace().folder);
    let of_worker = || at.environment.and_then(|variables| variables.get("PWD")).map(PathBuf::from);
    said.or_else(of_worker).unwrap_or_else(|| PathBuf::from("/"))
}

/// That of the nearest package.json, as PM2 has it.
fn version(script: &Path) -> String {
    let version = |folder: &Path| {
        let package: Value =
            serde_json::from_slice(&std::fs::read(folder.join("package.json")).ok()?).ok()?;
        Some(package.get("version").and_then(Value::as_str).unwrap_or("N/A").to_owned())
    };
    let folders = script.ancestors().skip(1).filter(|folder| folder.is_absolute());
    folders.take(16).find_map(version).unwrap_or_else(|| "N/A".to_owned())
}

fn user() -> String {
    users::own().map_or_else(|| rustix::process::geteuid().as_raw().to_string(), |user| user.name)
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// In PM2's words.
fn status(state: &str) -> &str {
    match state {
        "draining" => "stopping",
        "waiting_restart" => "waiting restart",
        state => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_what_is_told_apart() {
        let run = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            let run = Run::of(&words, Path::new("/srv"));
            (run.interpreter, run.interpreter_args.join(" "), run.script, run.args.join(" "))
        };
        let cases: [(&[&str], [&str; 4]); 6] = [
            (&["node", "app.js", "--arg"], ["node", "", "/srv/app.js", "--arg"]),
            (&["/usr/bin/node", "--inspect", "./app.js"], ["node", "--inspect", "/srv/app.js", ""]),
            (&["bash", "-c", "a | b"], ["bash", "-c", "/srv/a | b", ""]),
            (&["./server", "a"], ["none", "", "/srv/./server", "a"]),
            (&["npm", "start"], ["none", "", "npm", "start"]),
            (&[], ["none", "", "clusterd", ""]),
        ];
        for (words, [interpreter, interpreter_args, script, args]) in cases {
            let expected = (interpreter.into(), interpreter_args.into(), script.into(), args.into());
            assert_eq!(run(words), expected, "{words:?}");
        }
    }

    #[test]
    fn the_version_is_that_of_the_nearest_package() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("src/web");
        std::fs::create_dir_all(&below).unwrap();
        assert_eq!(version(&below.join("app.js")), "N/A");
        std::fs::write(folder.path().join("package.json"), r#"{"version":"1.2.3"}"#).unwrap();
        assert_eq!(version(&below.join("app.js")), "1.2.3");
        std::fs::write(below.join("package.json"), "{}").unwrap();
        assert_eq!(version(&below.join("app.js")), "N/A");
        assert_eq!(version(Path::new("npm")), "N/A");
    }
}
