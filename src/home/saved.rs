//! What `clusterd save` keeps: which apps there are, whether they run, and with how many workers.
//!
//! What each app is stays in its own folder.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use super::apps::{self, AppFolder, Apps};
use super::owner::by_owner;
use super::record::{Record, Wanted};

/// An app, as it was saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedApp {
    /// What it is called.
    pub name: String,
    /// Whether it was wanted.
    pub wanted: Wanted,
    /// How many workers were asked for; `None` for as many as its settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<u32>,
}

/// Writes down how all apps are wanted now, in the place of what was saved before. Those apps.
///
/// # Errors
/// Those of writing a file.
pub(crate) fn save(apps: &Apps) -> io::Result<Vec<SavedApp>> {
    let saved = now(apps);
    let text = serde_json::to_vec_pretty(&saved)?;
    by_owner(apps.home(), || apps::replace(&apps.saved(), &text))?;
    Ok(saved)
}

/// What was saved, or else all apps as they are wanted now.
///
/// # Errors
/// What was saved cannot be read.
pub(crate) fn saved(apps: &Apps) -> io::Result<Vec<SavedApp>> {
    match fs::read(apps.saved()) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(now(apps)),
        Err(error) => Err(error),
    }
}

fn now(apps: &Apps) -> Vec<SavedApp> {
    let saved = |app: &AppFolder| {
        let Record { wanted, workers, .. } = Record::of(app);
        SavedApp { name: app.name().to_owned(), wanted, workers }
    };
    apps.all().iter().map(saved).collect()
}

/// Forgets what was saved.
///
/// # Errors
/// Those of unlink(2).
pub(crate) fn clear(apps: &Apps) -> io::Result<()> {
    by_owner(apps.home(), || apps::gone(fs::remove_file(apps.saved())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_counts_until_it_is_forgotten() {
        let home = tempfile::tempdir().unwrap();
        let apps = Apps::in_folder(home.path());
        for (name, wanted) in [("api", Wanted::Stopped), ("web", Wanted::Running)] {
            apps.app(name).create().unwrap();
            apps::replace(&apps.app(name).definition(), b"").unwrap();
            Record { wanted, ..Record::default() }.write(&apps.app(name)).unwrap();
        }
        let of = |list: Vec<SavedApp>| list.into_iter().map(|app| (app.name, app.wanted)).collect::<Vec<_>>();
        let first = [("api".to_owned(), Wanted::Stopped), ("web".to_owned(), Wanted::Running)];
        assert_eq!(of(saved(&apps).unwrap()), first);
        assert_eq!(of(save(&apps).unwrap()), first);
        Record::change(&apps.app("api"), |record| record.wanted = Wanted::Running).unwrap();
        assert_eq!(of(saved(&apps).unwrap()), first);
        clear(&apps).unwrap();
        clear(&apps).unwrap();
        assert_eq!(of(saved(&apps).unwrap())[0].1, Wanted::Running);
        apps::replace(&apps.saved(), b"[{").unwrap();
        assert!(saved(&apps).is_err());
    }
}
