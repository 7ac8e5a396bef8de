//! `clusterd describe`: everything about one app.

use std::process::ExitCode;

use super::VerbError;
use super::app::AppArgument;
use super::choose::{Many, choose};
use super::print::{self, Output, Shape};
use crate::control::api::{App, Worker};
use crate::control::client;
use crate::control::home::Home;
use crate::controls;

/// Show everything about one app [alias: show]
#[derive(Debug, clap::Args)]
#[command(alias = "show")]
pub(super) struct Describe {
    #[command(flatten)]
    app: AppArgument,

    #[command(flatten)]
    shape: Shape,
}

impl Describe {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let found = client::find(&Home::of_this_process()).await;
        for (clusterd, app) in choose(&found, self.app.wanted(), Many::One)? {
            let app = clusterd.app(&app.name).await?;
            match self.shape.output {
                Output::Json => print::json(&app)?,
                Output::Text => print::line(&text(&app))?,
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn text(app: &App) -> String {
    let mut facts = vec![
        ("name", app.name.clone()),
        ("command", command(app)),
        ("clusterd", format!("{}, pid {}, up {}", app.version, app.pid, print::duration(app.uptime_ms))),
    ];
    facts.extend(app.addresses.iter().map(|address| {
        let (public, worker_port) = (address.address, address.worker_port);
        ("address", format!("{public}, for workers that listen on {worker_port}"))
    }));
    facts.push(("workers", wanted(app)));
    if !app.asks_to_leave {
        let fact = "HTTP clients are not asked to leave (--drain-http off, --attach node, or no shim)";
        facts.push(("drain", fact.to_owned()));
    }
    facts.extend(app.workers.iter().filter(|worker| !worker.without_shim.is_empty()).map(|worker| {
        let (number, processes) = (worker.worker, worker.without_shim.join(", "));
        (
            "drain",
            format!("worker {number} does not ask HTTP clients of {processes} to leave: no shim is loaded"),
        )
    }));
    facts.extend(app.reload.iter().map(|by| ("reload", format!("in progress, started by {by}"))));
    let mut text: String =
        facts.iter().map(|(name, fact)| format!("{name:<9} {}\n", controls::blanked(fact))).collect();
    text += "\n";
    text += &print::workers([(app.name.clone(), app)].into_iter());
    text.extend(app.workers.iter().filter_map(past));
    text
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
