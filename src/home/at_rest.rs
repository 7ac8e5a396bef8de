//! The apps of the home folder that do not run, and those of which it is not known: what there is to say of them.
//!
//! To look at them starts nothing.

use serde::Serialize;

use super::apps::{AppFolder, Apps};
use super::lock::Lock;
use super::record::Record;
use crate::control::client::Found;

/// The state of an app whose clusterd says nothing.
pub(crate) const NO_ANSWER: &str = "no answer";

/// An app that does not run, or does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Resting {
    /// Its name.
    pub name: String,
    /// Its state, in PM2's words.
    pub state: &'static str,
}

impl Resting {
    /// One that runs, as far as can be seen, and says nothing.
    pub(crate) fn unanswered(name: &str) -> Self {
        Self { name: name.to_owned(), state: NO_ANSWER }
    }
}

/// Every app that was started once and does not run; those that are known to run are not looked at.
pub(crate) fn folders(runs: impl Fn(&str) -> bool) -> Vec<AppFolder> {
    let apps = Apps::of_this_process().map(|apps| apps.all()).unwrap_or_default();
    apps.into_iter().filter(|app| !runs(app.name()) && !Lock::is_held(app)).collect()
}

/// The same, each with its state.
pub(crate) fn states(runs: impl Fn(&str) -> bool) -> Vec<Resting> {
    let resting =
        |folder: &AppFolder| Resting { name: folder.name().to_owned(), state: Record::of(folder).state() };
    folders(runs).iter().map(resting).collect()
}

/// All but those that answer.
pub(crate) fn all_but(found: &Found) -> Vec<Resting> {
    let unanswered = found.unanswered.iter().map(|name| Resting::unanswered(name));
    states(|name| found.has(name)).into_iter().chain(unanswered).collect()
}
