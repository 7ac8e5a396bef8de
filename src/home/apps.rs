//! Where the folders of the apps are.
//!
//! It makes folders and reads none of their files.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::owner::by_owner;
use crate::control::app_name::{decoded, encoded};
use crate::control::home::Home;

/// The folder of all apps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Apps {
    home: PathBuf,
}

/// The folder of one app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AppFolder {
    home: PathBuf,
    name: String,
}

/// There is no folder for apps.
#[derive(Debug, thiserror::Error)]
#[error("this user has no home folder to keep apps in\nhint: name one: CLUSTERD_HOME=/var/lib/clusterd")]
pub(crate) struct NoHome;

impl Apps {
    /// Those of this user.
    ///
    /// # Errors
    /// The user has no home, and `CLUSTERD_HOME` names none.
    pub(crate) fn of_this_process() -> Result<Self, NoHome> {
        let home = Home::of_this_process().lasting().ok_or(NoHome)?;
        // A relative one is another folder for a process that is started elsewhere.
        let home = std::path::absolute(&home).unwrap_or(home);
        Ok(Self { home })
    }

    /// Those of a user with this home.
    ///
    /// # Errors
    /// The user has no home, and `CLUSTERD_HOME` names none.
    pub(crate) fn of_user(home: &Path, is_root: bool) -> Result<Self, NoHome> {
        let home = Home::of_user(home, is_root).lasting().ok_or(NoHome)?;
        Ok(Self { home: std::path::absolute(&home).unwrap_or(home) })
    }

    #[cfg(test)]
    pub(super) fn in_folder(home: &Path) -> Self {
        Self { home: home.to_owned() }
    }

    /// The folder of this app, whether it is there or not. The name is one that `--name` accepts.
    pub(crate) fn app(&self, name: &str) -> AppFolder {
        AppFolder { home: self.home.clone(), name: name.to_owned() }
    }

    /// The folder that they share.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// The folder in which each has its own.
    pub(crate) fn path(&self) -> PathBuf {
        self.home.join(APPS)
    }

    /// What `clusterd save` has written.
    pub(crate) fn saved(&self) -> PathBuf {
        self.home.join("saved.json")
    }

    /// Every app that was started once and not deleted, by name.
    pub(crate) fn all(&self) -> Vec<AppFolder> {
        let mut apps: Vec<_> = self.folders().filter(AppFolder::is_defined).collect();
        apps.sort_by(|one, other| one.name.cmp(&other.name));
        apps
    }

    /// Every app that has a folder: those that run in the foreground have one, too.
    pub(crate) fn folders(&self) -> impl Iterator<Item = AppFolder> {
        let entries = fs::read_dir(self.home.join(APPS)).into_iter().flatten().filter_map(Result::ok);
        let names = entries.filter_map(|entry| decoded(entry.file_name().to_str()?));
        names.map(|name| self.app(&name))
    }
}

const APPS: &str = "apps";

/// How the names of files end that are not whole yet.
const NEW: &str = "new";

impl AppFolder {
    /// The folder at this path, as [`AppFolder::path`] gives it; `None` if it is no such path.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        let name = decoded(path.file_name()?.to_str()?)?;
        let apps = path.parent().filter(|apps| apps.file_name().is_some_and(|name| name == APPS))?;
        Some(Self { home: apps.parent()?.to_owned(), name })
    }

    /// What the app is called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The folder that all apps share.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> PathBuf {
        self.home.join(APPS).join(encoded(&self.name))
    }

    /// Its settings.
    pub(crate) fn definition(&self) -> PathBuf {
        self.path().join("app.toml")
    }

    /// Its variables.
    pub(crate) fn environment(&self) -> PathBuf {
        self.path().join("environment")
    }

    /// What is wanted of it.
    pub(crate) fn record(&self) -> PathBuf {
        self.path().join("state.json")
    }

    /// What its primary holds.
    pub(crate) fn lock(&self) -> PathBuf {
        self.path().join("lock")
    }

    /// Where its logs are.
    pub(crate) fn logs(&self) -> PathBuf {
        self.path().join("logs")
    }

    /// Whether it was started once: `clusterd --name` makes only a lock.
    pub(crate) fn is_defined(&self) -> bool {
        self.definition().is_file()
    }

    /// Makes the folder, for its user alone.
    ///
    /// # Errors
    /// Those of mkdir(2).
    pub(crate) fn create(&self) -> io::Result<()> {
        by_owner(&self.home, || DirBuilder::new().recursive(true).mode(0o700).create(self.path()))
    }

    /// Opens a log of this name to write at its end, and makes it if there is none.
    ///
    /// # Errors
    /// Those of mkdir(2) and open(2).
    pub(crate) fn log(&self, name: &str) -> io::Result<File> {
        by_owner(&self.home, || {
            DirBuilder::new().recursive(true).mode(0o700).create(self.logs())?;
            OpenOptions::new().append(true).create(true).mode(0o600).open(self.logs().join(name))
        })
    }

    /// Removes what makes it an app. Its logs stay, unless `logs` says otherwise.
    ///
    /// # Errors
    /// Those of unlink(2) and rmdir(2).
    pub(crate) fn remove(&self, logs: bool) -> io::Result<()> {
        by_owner(&self.home, || self.remove_here(logs))
    }

    fn remove_here(&self, logs: bool) -> io::Result<()> {
        for file in [self.definition(), self.environment(), self.record(), self.lock()] {
            gone(fs::remove_file(file))?;
        }
        if logs {
            gone(fs::remove_dir_all(self.logs()))?;
            self.remove_links();
        }
        self.remove_unfinished();
        match fs::remove_dir(self.path()) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            outcome => gone(outcome),
        }
    }

    /// Removes what a command has left that was interrupted while it wrote, variables among it. Whoever holds the lock does so.
    pub(crate) fn remove_unfinished(&self) {
        let files = fs::read_dir(self.path()).into_iter().flatten().filter_map(Result::ok);
        for file in
            files.map(|entry| entry.path()).filter(|file| file.extension().is_some_and(|end| end == NEW))
        {
            let _ = fs::remove_file(file);
        }
    }

    /// Links by PM2's names that lead to the app's logs lead nowhere now.
    fn remove_links(&self) {
        let links = fs::read_dir(self.home.join("logs")).into_iter().flatten().filter_map(Result::ok);
        for link in links.map(|entry| entry.path()) {
            if fs::read_link(&link).is_ok_and(|file| file.starts_with(self.logs())) {
                let _ = fs::remove_file(link);
            }
        }
    }
}

pub(super) fn gone(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Puts a whole file in the place of another, for its user alone: nobody ever sees half of it, also not after a crash of the
/// machine.
///
/// # Errors
/// Those of open(2), write(2), fsync(2) and rename(2).
pub(super) fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    replace_all(&[(file, content)])
}

/// The same for several, of which none is replaced before there is room for all.
///
/// # Errors
/// Those of open(2), write(2), fsync(2) and rename(2).
pub(super) fn replace_all(files: &[(&Path, &[u8])]) -> io::Result<()> {
    let new = |file: &Path| file.with_extension(format!("{}.{NEW}", std::process::id()));
    let write = || {
        files.iter().try_for_each(|(file, content)| write_whole(&new(file), content))?;
        files.iter().try_for_each(|(file, _)| fs::rename(new(file), file))
    };
    write().inspect_err(|_| files.iter().for_each(|(file, _)| drop(fs::remove_file(new(file)))))
}

fn write_whole(file: &Path, content: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    let mut to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    to.write_all(content)?;
    to.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn an_app_is_a_folder_for_its_user_alone() {
        let home = tempfile::tempdir().unwrap();
        let apps = Apps::in_folder(&home.path().join("home"));
        assert_eq!(apps.all(), []);
        let web = apps.app("web");
        web.create().unwrap();
        assert_eq!(apps.all(), [], "a lock alone makes no app");
        replace(&web.definition(), b"name = \"web\"\n").unwrap();
        assert_eq!(apps.all(), std::slice::from_ref(&web));
        assert_eq!((mode(&web.path()), mode(&web.definition())), (0o700, 0o600));
        assert_eq!(AppFolder::at(&web.path()), Some(web));
        assert_eq!(AppFolder::at(Path::new("/srv/web")), None);
        let odd = apps.app("we ird/na:me \u{e9}");
        assert_eq!(odd.path().file_name().unwrap(), "we%20ird%2Fna%3Ame%20%C3%A9");
        assert_eq!(AppFolder::at(&odd.path()), Some(odd));
    }

    #[test]
    fn what_is_replaced_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        for content in ["one", "another"] {
            replace(&file, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), content);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn of_several_files_all_are_replaced_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("none/other"));
        fs::write(&one, "before").unwrap();
        assert!(replace_all(&[(&one, b"after"), (&other, b"after")]).is_err());
        assert_eq!(fs::read_to_string(&one).unwrap(), "before");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn logs_outlive_an_app_unless_they_are_to_go_too() {
        use std::io::Write as _;
        let home = tempfile::tempdir().unwrap();
        let web = Apps::in_folder(home.path()).app("web");
        web.create().unwrap();
        replace(&web.definition(), b"").unwrap();
        web.log("out.log").unwrap().write_all(b"line\n").unwrap();
        assert_eq!(mode(&web.logs().join("out.log")), 0o600);
        web.remove(false).unwrap();
        assert!(!web.is_defined() && web.logs().join("out.log").exists());
        fs::write(web.path().join("environment.4711.new"), b"SECRET=1").unwrap();
        web.remove(true).unwrap();
        assert!(!web.path().exists());
        web.remove(true).unwrap();
    }
}
