//! `clusterd list`: every app that this user's clusterds run, with its workers.

use std::io;
use std::process::ExitCode;

use super::print::{self, Output, Shape};
use super::{VerbError, choose, rest};
use crate::cli::complain;
use crate::control::client;
use crate::control::home::Home;
use crate::home::record::Record;

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
        let ids = rest::ids();
        let at_rest: Vec<_> = rest::all().into_iter().filter(|folder| !found.has(folder.name())).collect();
        if self.shape.output == Output::Json {
            let running = found.apps.iter().map(|(_, app)| print::with_ids(app, &ids));
            let apps = running.chain(at_rest.iter().map(|folder| Ok(rest::shown(folder))));
            print::json(&apps.collect::<Result<Vec<_>, _>>().map_err(io::Error::from)?)?;
        } else if found.apps.is_empty() && at_rest.is_empty() && found.is_certain() {
            print::line("no running clusterd found for this user")?;
        } else if !(found.apps.is_empty() && at_rest.is_empty()) {
            let labels = choose::labels(&found.apps).into_iter();
            let running = labels.zip(found.apps.iter().map(|(_, app)| app));
            let at_rest = at_rest.iter().map(|folder| (folder.name().to_owned(), Record::of(folder).state()));
            print::line(&print::workers(running, at_rest, &ids))?;
        }
        Ok(if found.is_certain() || !found.apps.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
