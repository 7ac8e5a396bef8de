//! `clusterd list`: every app that this user's clusterds run, with its workers.

use std::io;
use std::process::ExitCode;

use serde_json::json;

use super::print::{self, Output, Shape, View};
use super::{VerbError, choose, rest};
use crate::cli::complain;
use crate::control::api::App;
use crate::control::client::{self, Found};
use crate::control::home::Home;
use crate::home::at_rest::{self, NO_ANSWER, Resting};
use crate::home::ids::Ids;

/// Show every app and its workers [aliases: ls, l, ps, status]
#[derive(Debug, clap::Args)]
#[command(aliases = ["ls", "l", "ps", "status"])]
pub(super) struct List {
    #[command(flatten)]
    shape: Shape,
}

impl List {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let found = client::find(&Home::of_this_process()).await;
        found.errors.iter().for_each(|error| complain(&error.to_string()));
        found.apps.iter().filter_map(|(_, app)| of_a_newer_one(app)).for_each(|note| complain(&note));
        let outdated = found.apps.iter().map(|(_, app)| app).filter(|app| app.outdated);
        outdated.for_each(|app| complain(&of_another_file(app)));
        let ids = rest::ids();
        if self.shape.output == Output::Json {
            let running = found.apps.iter().map(|(_, app)| print::with_ids(app, &ids));
            let at_rest = rest::all_but(&found).into_iter().map(|folder| Ok(rest::shown(&folder)));
            let unanswered = found.unanswered.iter();
            let unanswered =
                unanswered.map(|name| Ok(json!({ "name": name, "state": NO_ANSWER, "workers": [] })));
            let apps = running.chain(at_rest).chain(unanswered);
            print::json(&apps.collect::<Result<Vec<_>, _>>().map_err(io::Error::from)?)?;
        } else {
            show(&found, &ids)?;
        }
        Ok(if found.is_certain() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn show(found: &Found, ids: &Ids) -> Result<(), VerbError> {
    let at_rest = at_rest::all_but(found);
    if found.apps.is_empty() && at_rest.is_empty() {
        if found.is_certain() {
            print::line("no running clusterd found for this user")?;
        }
        return Ok(());
    }
    let running = choose::labels(&found.apps).into_iter().zip(found.apps.iter().map(|(_, app)| app));
    let at_rest = at_rest.into_iter().map(|Resting { name, state }| (name, state));
    print::line(&print::workers(running, at_rest, ids, View::of_stdout()))?;
    Ok(())
}

/// What to say of an app that a newer clusterd runs: this one may not know all that there is to show.
fn of_a_newer_one(app: &App) -> Option<String> {
    let own = env!("CARGO_PKG_VERSION");
    (version(&app.version)? > version(own)?).then(|| {
        format!(
            "{} is run by clusterd {}, and this is {own}: it may not show and do all",
            app.name, app.version
        )
    })
}

/// What to say of an app whose clusterd is not what a start of it would run.
fn of_another_file(app: &App) -> String {
    format!(
        "{} is run by clusterd {}, whose file was replaced since\n\
         hint: clusterd upgrade {} has the new one take over, while it serves",
        app.name, app.version, app.name
    )
}

fn version(text: &str) -> Option<Vec<u32>> {
    let numbers = text.split(['-', '+']).next()?;
    numbers.split('.').map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (newer, older) in [("0.10.0", "0.9.9"), ("1.0.0-rc.1", "0.9.9"), ("1.0.1", "1.0.0+build")] {
            assert!(version(newer) > version(older), "{newer} {older}");
        }
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn an_app_of_a_newer_clusterd_is_read_and_told_of() {
        let app = r#"{"name":"web","command":[],"pid":7,"version":"999.0.0","started":"2026-11-20T13:14:40.118Z","uptime_ms":1,
            "addresses":[],"wanted":1,"stopped":false,"ready":true,"accept":"nobody","asks_to_leave":true,"reload":null,
            "moons":[1],"workers":[{"worker":1,"state":"hibernating","pid":8,"uptime_ms":5,"restarts":0,"cpu_percent":null,
            "memory_bytes":null,"connections_taken":0,"listening":[],"without_shim":[],"last_end":null,"last_lines":[],
            "environment":null,"mood":"good"}]}"#;
        let app: App = serde_json::from_str(app).unwrap();
        assert_eq!(app.workers[0].state, "hibernating");
        assert!(of_a_newer_one(&app).unwrap().starts_with("web is run by clusterd 999.0.0, and this is "));
        assert_eq!(of_a_newer_one(&App { version: env!("CARGO_PKG_VERSION").to_owned(), ..app }), None);
    }
}
