//! Files by which others find workers and logs: the pid files of workers, and links by the names that PM2 gives to logs.
//!
//! Nothing here reads them again. What stands in for a primary that was killed writes them anew.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::home::Held;
use crate::home::apps::AppFolder;
use crate::home::ids::Ids;
use crate::home::pm2_names;
use crate::ids::Slot;
use crate::logs::plan::LogPlan;
use crate::settings::Config;
use crate::supervisor::Overview;
use crate::sys::blocking;
use crate::tasks;

/// How often it is looked whether workers have been given their numbers.
const LOOK: Duration = Duration::from_millis(100);

/// Where the files are.
#[derive(Clone, Debug)]
struct Places {
    app: String,
    /// The app's folder, if it has one, and whether its logs are there.
    folder: Option<AppFolder>,
    logs: Option<LogPlan>,
    /// What `--pid-file` names.
    named: Option<PathBuf>,
}

/// The pid files that there are, with what is in them; `None` once they are to be no more.
type Written = Arc<Mutex<Option<BTreeMap<PathBuf, i32>>>>;

/// Dropping this removes the pid files.
#[derive(Debug)]
pub(super) struct PidFiles(Written);

impl Drop for PidFiles {
    fn drop(&mut self) {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        written.into_iter().flatten().for_each(|(file, _)| drop(fs::remove_file(file)));
    }
}

/// Writes them from now on, until what is returned is dropped; anew where they were removed when `again` is told.
pub(super) fn keep(
    config: &Config,
    held: Option<&Held>,
    status: watch::Receiver<Arc<Overview>>,
    again: watch::Receiver<()>,
) -> Option<PidFiles> {
    let folder = held.map(|held| held.folder.clone());
    let named = config.pid_file.as_ref().map(|file| config.in_start_folder(file));
    if folder.is_none() && named.is_none() {
        return None;
    }
    let logs = held
        .filter(|held| held.starter.keeps_app())
        .map(|held| LogPlan::of(config, Some(&held.folder.logs())));
    let places = Arc::new(Places { app: config.name.clone(), folder, logs, named });
    let written: Written = Arc::new(Mutex::new(Some(BTreeMap::new())));
    tasks::spawn(follow(places, Arc::clone(&written), status, again));
    Some(PidFiles(written))
}

/// A disk may take its time.
async fn follow(
    places: Arc<Places>,
    written: Written,
    mut status: watch::Receiver<Arc<Overview>>,
    mut again: watch::Receiver<()>,
) {
    loop {
        let now = Arc::clone(&status.borrow_and_update());
        let (places, written) = (Arc::clone(&places), Arc::clone(&written));
        let write = move || places.write(&now, &written);
        let is_numbered = blocking::run(write).await;
        let changed = async {
            tokio::select! {
                changed = status.changed() => changed,
                Ok(()) = again.changed() => Ok(()),
            }
        };
        let changed = match is_numbered {
            true => changed.await,
            false => timeout(LOOK, changed).await.unwrap_or(Ok(())),
        };
        if changed.is_err() {
            return;
        }
    }
}

impl Places {
    /// Brings all files up to date. Whether every worker has its number by now.
    fn write(&self, now: &Overview, written: &Written) -> bool {
        let numbers =
            self.folder.as_ref().map(|folder| Ids::of(folder.home()).of_app(folder.name()).to_vec());
        let number = |slot: Slot| match &numbers {
            Some(numbers) => numbers.get(slot.0.saturating_sub(1) as usize).copied(),
            None => Some(slot.0.saturating_sub(1)),
        };
        let running = || now.workers.iter().filter_map(|worker| Some((worker.slot, worker.running?.1)));
        // While a worker is replaced it has two processes: the later one stays.
        let wanted: BTreeMap<_, _> = running()
            .filter_map(|(slot, pid)| Some((self.pid_file(number(slot)?)?, pid.as_raw_pid())))
            .collect();
        if let Some(files) = written.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            bring_up_to_date(files, wanted);
        }
        for slot in now.workers.iter().map(|worker| worker.slot) {
            self.link_logs(slot, number(slot));
            if running().all(|(other, _)| other != slot) {
                // A primary that was killed has left it.
                let _ = number(slot).and_then(|id| self.pid_file(id)).map(fs::remove_file);
            }
        }
        now.workers.iter().all(|worker| number(worker.slot).is_some())
    }

    fn pid_file(&self, id: u32) -> Option<PathBuf> {
        match (&self.named, &self.folder) {
            (Some(file), _) => Some(pm2_names::numbered(file, id)),
            (None, Some(folder)) => Some(pm2_names::pid_file(folder.home(), &self.app, id)),
            (None, None) => None,
        }
    }

    fn link_logs(&self, slot: Slot, id: Option<u32>) {
        let (Some(folder), Some(logs)) = (&self.folder, &self.logs) else { return };
        let id = logs.is_by_worker.then_some(id);
        // A worker with files of its own has them by its number.
        if id == Some(None) {
            return;
        }
        for (stream, file) in [("out", logs.out_of(slot)), ("error", logs.error_of(slot))] {
            let link = pm2_names::log(folder.home(), &self.app, stream, id.flatten());
            let Some(file) = file else { continue };
            if let Err(error) = link_to(&file, &link) {
                debug!(%error, link = %link.display(), "cannot link a log");
            }
        }
    }
}

fn bring_up_to_date(files: &mut BTreeMap<PathBuf, i32>, wanted: BTreeMap<PathBuf, i32>) {
    for file in files.keys().filter(|file| !wanted.contains_key(*file)) {
        let _ = fs::remove_file(file);
    }
    files.retain(|file, _| wanted.contains_key(file));
    for (file, pid) in wanted {
        if files.get(&file) == Some(&pid) && file.exists() {
            continue;
        }
        match write_pid(&file, pid) {
            Ok(()) => drop(files.insert(file, pid)),
            Err(error) => warn!("cannot write the pid file {}: {error}", file.display()),
        }
    }
}

/// Nobody sees half of it.
fn write_pid(file: &Path, pid: i32) -> io::Result<()> {
    make_folder(file)?;
    let new = file.with_extension("pid.new");
    let _ = fs::remove_file(&new);
    let write = || {
        let mut to = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&new)?;
        write!(to, "{pid}")?;
        fs::rename(&new, file)
    };
    write().inspect_err(|_| drop(fs::remove_file(&new)))
}

/// What is there and is no link is left alone.
fn link_to(file: &Path, link: &Path) -> io::Result<()> {
    match fs::read_link(link) {
        Ok(there) if there == file => return Ok(()),
        Ok(_) => fs::remove_file(link)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_folder(link)?,
        Err(error) => return Err(error),
    }
    symlink(file, link)
}

fn make_folder(file: &Path) -> io::Result<()> {
    let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    DirBuilder::new().recursive(true).mode(0o755).create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_files_come_and_go_with_processes() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join("pids").join(name);
        let mut files = BTreeMap::new();
        let wanted = |of: &[(&str, i32)]| of.iter().map(|(name, pid)| (file(name), *pid)).collect();
        bring_up_to_date(&mut files, wanted(&[("web-0.pid", 7), ("web-1.pid", 8)]));
        assert_eq!(fs::read_to_string(file("web-1.pid")).unwrap(), "8");
        bring_up_to_date(&mut files, wanted(&[("web-1.pid", 9)]));
        assert_eq!(fs::read_to_string(file("web-1.pid")).unwrap(), "9");
        let left = fs::read_dir(folder.path().join("pids")).unwrap().count();
        assert_eq!(left, 1);
        drop(PidFiles(Arc::new(Mutex::new(Some(files)))));
        assert!(!file("web-1.pid").exists());
    }

    #[test]
    fn a_link_is_replaced_and_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("logs/web-out.log");
        for file in ["/a/out.log", "/b/out.log", "/b/out.log"] {
            link_to(Path::new(file), &link).unwrap();
            assert_eq!(fs::read_link(&link).unwrap(), Path::new(file));
        }
        fs::remove_file(&link).unwrap();
        fs::write(&link, "a log").unwrap();
        assert!(link_to(Path::new("/a/out.log"), &link).is_err());
        assert_eq!(fs::read_to_string(&link).unwrap(), "a log");
    }
}
