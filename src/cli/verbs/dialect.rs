//! What was said in the words of PM2, carried out: by the verb that does the same, and printed as PM2 does where scripts read it.
//!
//! Its options for an app are the keys of its ecosystem file, and are read as such.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::order::UpdateEnv;
use super::print::{Output, Shape};
use super::start_file::{self, Chosen, IfItRuns};
use super::{VerbError, jlist, print};
use crate::cli::complain;
use crate::cli::pm2::line::Line;
use crate::cli::pm2::table;
use crate::control::client;
use crate::control::home::Home;
use crate::settings::apps::file::{self, Format};
use crate::settings::load::CommandLine;

/// What PM2 has and clusterd has not, and what to use instead.
const LACKING: [(&str, &str); 19] = [
    ("install", "clusterd has no modules: its logs rotate by themselves, and `metrics` serves Prometheus"),
    ("uninstall", "clusterd has no modules"),
    ("module:install", "clusterd has no modules"),
    ("set", "clusterd has no modules to configure"),
    ("get", "clusterd has no modules to configure"),
    ("unset", "clusterd has no modules to configure"),
    ("conf", "clusterd has no modules to configure"),
    ("config", "clusterd has no modules to configure"),
    ("link", "`metrics` serves Prometheus; nothing is sent anywhere"),
    ("unlink", "`metrics` serves Prometheus; nothing is sent anywhere"),
    ("plus", "`metrics` serves Prometheus; nothing is sent anywhere"),
    ("monitor", "`metrics` serves Prometheus; nothing is sent anywhere"),
    ("deploy", "run such commands where the release is made, and `reload` after them"),
    ("pull", "run such commands where the release is made, and `reload` after them"),
    ("attach", "`logs` follows what workers write"),
    ("trigger", "actions are of PM2's monitoring; use a port, or `sendSignal`"),
    ("inspect", "start with --node-args=--inspect"),
    ("report", "`describe APP` has everything about an app"),
    ("logrotate", "logs rotate by themselves: --log-max-size, --log-keep"),
];

/// Options that are of no app.
const NO_KEYS: [(&str, Option<&str>); 12] = [
    ("silent", None),
    ("color", None),
    ("force", None),
    ("update-env", None),
    ("only", None),
    ("env", None),
    ("daemon", None),
    ("attach", Some("use `logs` to follow it")),
    ("ext", Some("use --ignore-watch for what does not matter")),
    ("parallel", Some("it is a setting of the app: reload-parallel")),
    ("sort", Some("it is for list")),
    ("mini-list", Some("it is for list")),
];

/// A command line of PM2.
#[derive(Debug)]
pub(super) struct Dialect {
    arguments: Vec<String>,
}

impl Dialect {
    /// The first is the program's name.
    pub(super) fn of(arguments: &[OsString]) -> Self {
        let text = |word: &OsString| word.to_string_lossy().into_owned();
        Self { arguments: arguments.iter().skip(1).map(text).collect() }
    }

    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let line = Line::read(&self.arguments).map_err(|error| VerbError::Usage(error.to_string()))?;
        let Some(verb) = line.verb.clone() else { return without_verb(&line) };
        if line.has("silent") && !matches!(verb.as_str(), "jlist" | "prettylist" | "pid" | "id") {
            let nowhere = std::fs::File::options().write(true).open("/dev/null")?;
            rustix::stdio::dup2_stdout(nowhere).map_err(std::io::Error::from)?;
        }
        if let Some((_, instead)) = LACKING.iter().find(|(name, _)| *name == verb) {
            let what = format!("clusterd has no command {verb}\nhint: {instead}");
            return Err(VerbError::Usage(what));
        }
        match verb.as_str() {
            "list" | "ls" | "l" | "ps" | "status" => list(&line).await,
            "start" => start(line).await,
            "restart" | "reload" => begin_anew(&verb, line).await,
            "id" | "pid" => numbers(&verb, &line).await,
            "ping" => ping().await,
            // Its daemon is what is renewed there. Each app has its own here.
            "update" | "updatePM2" | "deepUpdate" => say("upgrade", vec!["--all".to_owned()]).await,
            "version" => {
                print::line(env!("CARGO_PKG_VERSION"))?;
                Ok(ExitCode::SUCCESS)
            }
            "init" | "ecosystem" => say("init", vec!["--pm2".to_owned()]).await,
            // Each has a screen of its own there.
            "monit" | "imonit" | "dash" | "dashboard" => say("monit", Vec::new()).await,
            "desc" | "info" => say("describe", line.words).await,
            "scale" => say("scale", line.words).await,
            "startup" | "unstartup" => boot(&verb, line).await,
            "serve" | "expose" => {
                let long = |word: String| if word == "-n" { "--name".to_owned() } else { word };
                say("serve", plain(line.raw).into_iter().map(long).collect()).await
            }
            verb => say(verb, plain(line.raw)).await,
        }
    }
}

fn without_verb(line: &Line) -> Result<ExitCode, VerbError> {
    if line.has("version") {
        print::line(env!("CARGO_PKG_VERSION"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let verbs = "start, stop, restart, reload, delete, scale, list, jlist, prettylist, monit, web, describe, env, id, pid, logs, flush, \
                 reloadLogs, sendSignal, reset, save, resurrect, startup, kill, ping, init";
    let usage =
        format!("usage: pm2 COMMAND [OPTIONS]\n\nclusterd in the words of PM2. Its commands: {verbs}");
    if line.has("help") {
        print::line(&usage)?;
        return Ok(ExitCode::SUCCESS);
    }
    complain(&usage);
    Ok(ExitCode::FAILURE)
}

/// Without the options that are for all of PM2's verbs and mean nothing to others.
fn plain(words: Vec<String>) -> Vec<String> {
    let is_general =
        |word: &String| matches!(word.as_str(), "-s" | "--silent" | "--no-color" | "-f" | "--force");
    words.into_iter().filter(|word| !is_general(word)).collect()
}

/// Says it in our own words.
async fn say(verb: &str, words: Vec<String>) -> Result<ExitCode, VerbError> {
    let words = ["pm2".to_owned(), verb.to_owned()].into_iter().chain(words).map(OsString::from);
    match super::parse(words) {
        Ok(super::Asked(verb)) => Box::pin(super::carry_out(verb)).await,
        Err(explained) if !explained.use_stderr() => {
            explained.print()?;
            Ok(ExitCode::SUCCESS)
        }
        Err(wrong) => {
            let text = wrong.to_string();
            Err(VerbError::Usage(text.strip_prefix("error: ").unwrap_or(&text).trim_end().to_owned()))
        }
    }
}

async fn list(line: &Line) -> Result<ExitCode, VerbError> {
    let (records, code) = jlist::records().await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let shown = if line.has("mini-list") { table::mini(&records, now) } else { table::table(&records, now) };
    print::line(&shown)?;
    Ok(code)
}

/// What is not known has no number and no process, and PM2 calls that a success.
async fn numbers(verb: &str, line: &Line) -> Result<ExitCode, VerbError> {
    let (records, code) = jlist::records().await;
    let is_meant =
        |record: &&Value| line.words.is_empty() || line.words.iter().any(|name| record["name"] == **name);
    let meant = records.iter().filter(is_meant);
    if verb == "pid" {
        let pids = meant.filter_map(|record| record["pid"].as_i64().filter(|pid| *pid != 0));
        pids.map(|pid| pid.to_string()).try_for_each(|pid| print::line(&pid))?;
    } else {
        let ids: Vec<_> = meant.filter_map(|record| Some(record["pm_id"].as_u64()?.to_string())).collect();
        print::line(&if ids.is_empty() { "[]".to_owned() } else { format!("[ {} ]", ids.join(", ")) })?;
    }
    Ok(code)
}

/// PM2's starts its daemon for that, so it never fails.
async fn ping() -> Result<ExitCode, VerbError> {
    let found = client::find(&Home::of_this_process()).await;
    print::line("{ msg: 'pong' }")?;
    Ok(if found.is_certain() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `restart` and `reload` of a file are of its apps, and take what the file says by now.
async fn begin_anew(verb: &str, mut line: Line) -> Result<ExitCode, VerbError> {
    let environment = line.take("update-env").map(|_| "--update-env".to_owned());
    let mut said: Vec<String> = environment.into_iter().collect();
    if let [file] = &line.words.clone()[..]
        && file::format(Path::new(file)).is_some()
    {
        for name in ["env", "only"] {
            said.extend(line.take(name).into_iter().flatten().map(|text| format!("--{name}={text}")));
        }
        said.push(file.clone());
        warn_of(&line);
        return say(if verb == "restart" { "startOrRestart" } else { "startOrReload" }, said).await;
    }
    said.extend(line.words.iter().cloned());
    warn_of(&line);
    say(verb, said).await
}

/// PM2 is told which service manager there is, and where the user's home is.
async fn boot(verb: &str, mut line: Line) -> Result<ExitCode, VerbError> {
    if let Some(platform) = line.words.iter().find(|word| *word != "systemd") {
        return Err(VerbError::Usage(format!("clusterd is started at boot by systemd, not by {platform}")));
    }
    let user = line.take("user").into_iter().flatten().flat_map(|user| ["-u".to_owned(), user]).collect();
    for name in ["hp", "wait-ip", "service-name"].into_iter().filter(|name| line.has(name)) {
        complain(&format!(
            "warning: --{name} has no effect\nhint: the unit is clusterd's own, one instance an app"
        ));
    }
    say(verb, user).await
}

/// Options change nothing about an app that is there.
fn warn_of(line: &Line) {
    let general = ["silent", "color", "force"];
    for name in line.options.keys().filter(|name| !general.contains(&name.as_str())) {
        complain(&format!(
            "warning: --{name} has no effect here\nhint: start the app again with it: pm2 start app.js --{name} ..."
        ));
    }
}

async fn start(mut line: Line) -> Result<ExitCode, VerbError> {
    if line.options.contains_key("daemon") {
        let instead =
            "`clusterd up FILE` runs the apps of a file in the foreground, `clusterd -- COMMAND` runs one";
        return Err(VerbError::Usage(format!(
            "there is no daemon, in the foreground or not\nhint: {instead}"
        )));
    }
    let folder = super::start_folder()?;
    if line.words.is_empty() && line.behind.is_empty() {
        let usual = file::usual_ecosystem(&folder);
        line.words.extend(usual.map(|file| file.display().to_string()));
    }
    let known = known().await;
    let mut code = ExitCode::SUCCESS;
    let mut names = Vec::new();
    for word in line.words.clone() {
        let is_file = folder.join(&word).is_file();
        let done = match file::format(Path::new(&word)) {
            _ if known.is_meant(&word) => {
                names.push(word);
                continue;
            }
            Some(_) if is_file => start_file(&word, line.clone()).await?,
            _ => start_script(&word, line.clone(), &folder).await?,
        };
        if done != ExitCode::SUCCESS {
            code = done;
        }
    }
    if !names.is_empty() || line.words.is_empty() {
        if line.has("update-env") {
            names.push("--update-env".to_owned());
        }
        let done = say("start", names).await?;
        if done != ExitCode::SUCCESS {
            code = done;
        }
    }
    Ok(code)
}

/// The apps that there are, by name and namespace.
struct KnownApps(Vec<(String, String)>, Vec<u64>);

impl KnownApps {
    fn is_meant(&self, word: &str) -> bool {
        let is_number = word.parse().is_ok_and(|number: u64| self.1.contains(&number));
        let is_pattern = word.len() > 2 && word.starts_with('/') && word.ends_with('/');
        word == "all"
            || is_number
            || is_pattern
            || self.0.iter().any(|(name, namespace)| name == word || namespace == word)
    }
}

async fn known() -> KnownApps {
    let (records, _) = jlist::records().await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let names = records.iter().map(|record| (text(&record["name"]), text(&record["pm2_env"]["namespace"])));
    KnownApps(names.collect(), records.iter().filter_map(|record| record["pm_id"].as_u64()).collect())
}

async fn start_file(file: &str, mut line: Line) -> Result<ExitCode, VerbError> {
    let mut said = vec![file.to_owned()];
    said.extend(line.take("update-env").map(|_| "--update-env".to_owned()));
    for name in ["env", "only"] {
        said.extend(line.take(name).into_iter().flatten().map(|text| format!("--{name}={text}")));
    }
    for (option, flag) in [("instances", "--workers"), ("namespace", "--namespace"), ("cwd", "--cwd")] {
        said.extend(line.take(option).into_iter().flatten().map(|text| format!("{flag}={text}")));
    }
    warn_of(&line);
    say("start", said).await
}

/// The options are the keys of an app.
async fn start_script(script: &str, mut line: Line, folder: &Path) -> Result<ExitCode, VerbError> {
    let environment = UpdateEnv::of(line.has("update-env"));
    for (name, instead) in NO_KEYS {
        if line.take(name).is_some()
            && let Some(instead) = instead
        {
            complain(&format!("warning: --{name} has no effect\nhint: {instead}"));
        }
    }
    let (path, mut app) = (PathBuf::from("pm2 start"), line.keys());
    app.insert("script".to_owned(), script.into());
    if !line.behind.is_empty() {
        app.insert("args".to_owned(), line.behind.clone().into());
    }
    // `--log` alone is a file with the name of the app.
    if app.get("log") == Some(&Value::Bool(true)) {
        let name = app.get("name").and_then(Value::as_str).map(str::to_owned);
        let name = name.unwrap_or_else(|| crate::settings::script::name_of(script.as_ref()));
        app.insert("log".to_owned(), format!("{name}.log").into());
    }
    let apps = file::read(&path, &json!({ "apps": [app] }).to_string(), Format::Json)?;
    let chosen = Chosen {
        line: CommandLine::default(),
        only: Vec::new(),
        environment,
        running: IfItRuns::ReloadIfChanged,
        shape: Shape { output: Output::Text },
    };
    start_file::start_all(apps, folder, chosen).await
}
