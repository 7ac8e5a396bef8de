//! The numbers of workers, as PM2 has them: counted from 0 over all apps of a home folder.
//!
//! A worker keeps its number over restarts and reloads, and while its app does not run. No number is used again until there
//! is no app left.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::apps;
use super::owner::by_owner;

/// The numbers that are given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ids {
    /// The next that is given.
    #[serde(default)]
    next: u32,
    /// By app: that of worker 1, of worker 2, and so on.
    #[serde(default)]
    apps: BTreeMap<String, Vec<u32>>,
    /// What another version has written. It is kept for that version.
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Ids {
    /// Those of a home folder. They may change at any time.
    pub(crate) fn of(home: &Path) -> Self {
        let text = fs::read(file(home)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// The numbers of an app's workers, in their order.
    pub(crate) fn of_app(&self, app: &str) -> &[u32] {
        self.apps.get(app).map_or(&[], Vec::as_slice)
    }

    /// Gives an app with so many workers their numbers: those that it had, and new ones. What it had beyond that is gone.
    ///
    /// # Errors
    /// Those of reading, locking and writing a file.
    pub(crate) fn give(home: &Path, app: &str, workers: u32) -> io::Result<Vec<u32>> {
        change(home, |ids| {
            ids.fit(app, workers as usize);
            ids.of_app(app).to_vec()
        })
    }

    /// Gives an app the numbers that it had before the file was lost.
    ///
    /// # Errors
    /// Those of reading, locking and writing a file.
    pub(crate) fn give_back(home: &Path, app: &str, numbers: &[u32]) -> io::Result<()> {
        change(home, |ids| {
            ids.apps.insert(app.to_owned(), numbers.to_vec());
            ids.next = numbers.iter().map(|number| number + 1).chain([ids.next]).max().unwrap_or(0);
        })
    }

    /// Forgets an app.
    ///
    /// # Errors
    /// Those of reading, locking and writing a file.
    pub(crate) fn forget(home: &Path, app: &str) -> io::Result<()> {
        change(home, |ids| ids.remove(app))
    }

    fn fit(&mut self, app: &str, workers: usize) {
        let had = self.apps.entry(app.to_owned()).or_default();
        had.truncate(workers);
        while had.len() < workers {
            had.push(self.next);
            self.next += 1;
        }
    }

    fn remove(&mut self, app: &str) {
        self.apps.remove(app);
        if self.apps.is_empty() {
            self.next = 0;
        }
    }
}

fn file(home: &Path) -> PathBuf {
    home.join("ids.json")
}

/// One at a time reads, changes and writes them.
fn change<T>(home: &Path, change: impl FnOnce(&mut Ids) -> T) -> io::Result<T> {
    by_owner(home, || change_here(home, change))
}

fn change_here<T>(home: &Path, change: impl FnOnce(&mut Ids) -> T) -> io::Result<T> {
    let lock: File = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(home.join("ids.lock"))?;
    lock.lock()?;
    let before = Ids::of(home);
    let mut ids = before.clone();
    let changed = change(&mut ids);
    if ids != before {
        apps::replace(&file(home), &serde_json::to_vec(&ids)?)?;
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_over_all_apps_and_not_used_twice() {
        let home = tempfile::tempdir().unwrap();
        let give = |app, workers| Ids::give(home.path(), app, workers).unwrap();
        assert_eq!(give("web", 2), [0, 1]);
        assert_eq!(give("api", 1), [2]);
        assert_eq!(give("web", 3), [0, 1, 3]);
        assert_eq!(give("web", 1), [0]);
        assert_eq!(give("web", 2), [0, 4], "1 and 3 are gone");
        assert_eq!(Ids::of(home.path()).of_app("web"), [0, 4]);
        Ids::forget(home.path(), "web").unwrap();
        assert_eq!(give("web", 1), [5]);
        Ids::forget(home.path(), "web").unwrap();
        Ids::forget(home.path(), "api").unwrap();
        assert_eq!(give("api", 1), [0], "there was no app left");
        Ids::give_back(home.path(), "web", &[4, 7]).unwrap();
        Ids::give_back(home.path(), "job", &[2]).unwrap();
        assert_eq!((give("web", 3), give("job", 1)), (vec![4, 7, 8], vec![2]));
    }

    #[test]
    fn whoever_gives_at_once_gives_no_number_twice() {
        let home = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for app in 0..8 {
                let home = home.path();
                scope.spawn(move || Ids::give(home, &format!("app{app}"), 4).unwrap());
            }
        });
        let ids = Ids::of(home.path());
        let mut all: Vec<_> = (0..8).flat_map(|app| ids.of_app(&format!("app{app}")).to_vec()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..32).collect::<Vec<_>>());
    }
}
