//! `clusterd describe`: everything about one app.

use std::collections::BTreeMap;
use std::process::ExitCode;

use super::app::AppArgument;
use super::choose::{Many, choose};
use super::print::{self, Output, Shape, View};
use super::{VerbError, rest};
use crate::control::api::{Accept, App, Worker};
use crate::control::client;
use crate::control::home::Home;
use crate::controls;
use crate::home::apps::{AppFolder, Apps};
use crate::home::definition;
use crate::home::lock::Lock;
use crate::home::record::Record;

/// Show everything about one app [aliases: desc, show, info]
#[derive(Debug, clap::Args)]
#[command(aliases = ["desc", "show", "info"])]
pub(super) struct Describe {
    #[command(flatten)]
    app: AppArgument,

    /// Show the environment that the processes of workers were given, which may hold secrets
    #[arg(long)]
    env: bool,

    #[command(flatten)]
    shape: Shape,
}

impl Describe {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let found = client::find_for(&Home::of_this_process(), self.app.wanted().as_slice()).await;
        let at_rest = rest::meant(&found, &rest::ids(), self.app.wanted())?;
        if let [folder] = &at_rest[..] {
            match self.shape.output {
                Output::Json => print::json(&rest::shown(folder))?,
                Output::Text => print::line(&text_at_rest(folder))?,
            }
            return Ok(ExitCode::SUCCESS);
        }
        for (clusterd, app) in choose(&found, &rest::ids(), self.app.wanted(), Many::One)
            .map_err(|error| error.beside(rest::all().iter().map(|app| app.name().to_owned())))?
        {
            let app = match self.env {
                true => clusterd.app_with_environment(&app.name).await?,
                false => clusterd.app(&app.name).await?,
            };
            match self.shape.output {
                Output::Json => print::json(&app)?,
                Output::Text => print::line(&text(&app, problem(&app)))?,
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What is wrong with the settings with which an app in the background would be started again.
fn problem(app: &App) -> Option<String> {
    let folder = Apps::of_this_process().ok()?.app(&app.name);
    Lock::holder(&folder).filter(|holder| holder.pid == app.pid)?;
    // A clusterd in the foreground has a lock there, and no settings.
    if folder.definition().exists() { rest::problem(&folder) } else { None }
}

/// What there is to tell of an app that does not run.
fn text_at_rest(folder: &AppFolder) -> String {
    let record = Record::of(folder);
    let ended = record.ended.as_ref().map(|ended| format!("with code {} at {}", ended.code, ended.at));
    let facts = [
        ("name", Some(folder.name().to_owned())),
        ("namespace", Some(definition::namespace(folder))),
        ("state", Some(record.state().to_owned())),
        ("ended", ended),
        ("problem", rest::problem(folder)),
        ("settings", Some(folder.definition().display().to_string())),
        ("logs", Some(folder.logs().display().to_string())),
    ];
    let lines = facts
        .into_iter()
        .filter_map(|(name, fact)| Some(format!("{name:<9}  {}", controls::blanked(&fact?))));
    lines.collect::<Vec<_>>().join("\n")
}

fn text(app: &App, problem: Option<String>) -> String {
    let mut facts = vec![
        ("name", app.name.clone()),
        ("namespace", app.namespace.clone()),
        ("command", command(app)),
        ("clusterd", format!("{}, pid {}, up {}", app.version, app.pid, print::duration(app.uptime_ms))),
    ];
    facts.extend(app.addresses.iter().map(|address| {
        let (public, worker_port) = (address.address, address.worker_port);
        ("address", format!("{public}, for workers that listen on {worker_port}"))
    }));
    if app.accept == Accept::Workers {
        facts.push(("accept", "workers, among which the kernel chooses (--accept workers)".to_owned()));
    }
    facts.push(("workers", wanted(app)));
    if !app.asks_to_leave {
        let fact =
            "HTTP clients are not asked to leave (--drain-http off, --attach node or listen-fds, or no shim)";
        facts.push(("drain", fact.to_owned()));
    }
    facts.extend(app.workers.iter().filter(|worker| !worker.without_shim.is_empty()).map(|worker| {
        let (number, processes) = (worker.worker, worker.without_shim.join(", "));
        (
            "drain",
            format!("worker {number} does not ask HTTP clients of {processes} to leave: no shim is loaded"),
        )
    }));
    facts.extend(problem.map(|problem| ("problem", problem)));
    facts.extend(app.reload.iter().map(|by| ("reload", format!("in progress, started by {by}"))));
    let mut text: String =
        facts.iter().map(|(name, fact)| format!("{name:<9} {}\n", controls::blanked(fact))).collect();
    text += "\n";
    text += &print::workers(
        [(app.name.clone(), app)].into_iter(),
        std::iter::empty(),
        &rest::ids(),
        View::of_stdout(),
    );
    text.extend(app.workers.iter().filter_map(past));
    text + &environments(&app.workers)
}

/// What all workers were given, and what each has for itself.
fn environments(workers: &[Worker]) -> String {
    let known = || workers.iter().filter_map(|worker| Some((worker, worker.environment.as_ref()?)));
    let Some((_, first)) = known().next() else { return String::new() };
    let is_common = |name: &String, value: &String| known().all(|(_, other)| other.get(name) == Some(value));
    let section = |title: String, of: &BTreeMap<String, String>, common: bool| {
        let lines = of.iter().filter(|(name, value)| is_common(name, value) == common);
        let lines: String = lines
            .map(|(name, value)| format!("\n  {}={}", print::escaped(name), print::escaped(value)))
            .collect();
        if lines.is_empty() { String::new() } else { format!("\n\n{title}{lines}") }
    };
    let all = section("environment of all workers".to_owned(), first, true);
    let pid = |worker: &Worker| worker.pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
    let title = |worker: &Worker| format!("environment of worker {}{} alone", worker.worker, pid(worker));
    let each: String = known().map(|(worker, of)| section(title(worker), of, false)).collect();
    all + &each
}

fn command(app: &App) -> String {
    if app.command.is_empty() { "the built-in demo".to_owned() } else { app.command.join(" ") }
}

fn wanted(app: &App) -> String {
    let online = app.workers.iter().filter(|worker| worker.state == "online").count();
    match app.stopped {
        true => "stopped by a command; `clusterd start` starts them again".to_owned(),
        false => format!("{online} of {} online", app.wanted),
    }
}

/// How the worker's last process ended, and what was written last.
fn past(worker: &Worker) -> Option<String> {
    if worker.last_end.is_none() && worker.last_lines.is_empty() {
        return None;
    }
    let end = worker.last_end.as_deref().map(|end| format!(" before: {}", controls::blanked(end)));
    let lines = print::quoted(&worker.last_lines);
    Some(format!("\n\nworker {}{}{lines}", worker.worker, end.unwrap_or_else(|| " wrote:".to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environments_are_told_once_and_escaped() {
        let worker = |number: u32, variables: &[(&str, &str)]| -> Worker {
            let text = |text: &str| text.to_owned();
            let json = serde_json::json!({
                "worker": number, "state": "online", "pid": 7, "restarts": 0, "connections_taken": 0, "listening": [],
            });
            let variables = variables.iter().map(|(name, value)| (text(name), text(value)));
            Worker { environment: Some(variables.collect()), ..serde_json::from_value(json).unwrap() }
        };
        let workers = [
            worker(1, &[("A", "1"), ("B", "x\n\u{1b}[2J"), ("CLUSTERD_WORKER_ID", "1"), ("OLD", "")]),
            worker(2, &[("A", "1"), ("B", "x\n\u{1b}[2J"), ("CLUSTERD_WORKER_ID", "2")]),
            Worker { environment: None, ..worker(3, &[]) },
        ];
        insta::assert_snapshot!(environments(&workers).trim_start(), @r"
        environment of all workers
          A=1
          B=x\n\u{1b}[2J

        environment of worker 1, pid 7 alone
          CLUSTERD_WORKER_ID=1
          OLD=

        environment of worker 2, pid 7 alone
          CLUSTERD_WORKER_ID=2
        ");
        assert_eq!(environments(&workers[2..]), "");
    }
}
