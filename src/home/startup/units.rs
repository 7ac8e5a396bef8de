//! The units of a user: where they are, which apps are enabled, and what systemctl is told.
//!
//! It decides nothing about apps. An instance counts as enabled if its link is there: to look asks nobody.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use super::StartupError;
use super::unit::{self, Manager};
use crate::home::apps::{AppFolder, Apps};
use crate::home::record::Wanted;
use crate::home::saved;
use crate::settings::parse::is_plain_name;
use crate::sys::users;

/// Where the system's administrator has units.
const SYSTEM: &str = "/etc/systemd/system";

/// The units of one user.
#[derive(Clone, Debug)]
pub(crate) struct Units {
    manager: Manager,
    folder: PathBuf,
}

/// Whose apps are meant.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    /// What the user is called.
    pub name: String,
    /// The folder of the apps.
    pub apps: Apps,
}

impl Account {
    /// This user, or the one of that name.
    ///
    /// # Errors
    /// There is no such user, or none with a home.
    pub(crate) fn of(name: Option<&str>) -> Result<Self, StartupError> {
        let own = rustix::process::geteuid();
        let found = match name {
            Some(name) => users::named(name),
            None => users::numbered(own),
        };
        let found = found.map_err(StartupError::Users)?;
        Ok(match (name, found) {
            (Some(_), Some(user)) if user.uid != own => {
                Self { apps: Apps::of_user(&user.home, user.uid.is_root())?, name: user.name }
            }
            (_, Some(user)) => Self { name: user.name, apps: Apps::of_this_process()? },
            // A user without a name.
            (None, None) => Self { name: own.as_raw().to_string(), apps: Apps::of_this_process()? },
            (Some(name), None) => return Err(StartupError::NoUser(name.to_owned())),
        })
    }
}

/// What boots with systemd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Apps to be enabled.
    pub enable: Vec<String>,
    /// Apps to be disabled.
    pub disable: Vec<String>,
}

impl Changes {
    /// From what is enabled to what is wanted.
    fn between(enabled: &BTreeSet<String>, wanted: &BTreeSet<String>) -> Self {
        Self {
            enable: wanted.difference(enabled).cloned().collect(),
            disable: enabled.difference(wanted).cloned().collect(),
        }
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.enable.is_empty() && self.disable.is_empty()
    }
}

/// One app's unit.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    units: Units,
    app: String,
}

/// Whether systemd is the init here (sd_booted(3)).
pub(crate) fn is_booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

impl Units {
    /// Those that the system runs for this user.
    pub(crate) fn of_system(user: &str) -> Self {
        Self { manager: Manager::System(user.to_owned()), folder: SYSTEM.into() }
    }

    /// Those that the user's own systemd runs; `None` for a user without a home.
    pub(crate) fn of_user() -> Option<Self> {
        let named = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let config = named.or_else(|| Some(users::home()?.join(".config")))?;
        Some(Self { manager: Manager::User, folder: config.join("systemd/user") })
    }

    /// Who runs them.
    pub(crate) fn manager(&self) -> &Manager {
        &self.manager
    }

    /// The template.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join(self.manager.unit(""))
    }

    /// What the template says, if it is there.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn text(&self) -> Result<Option<String>, StartupError> {
        match fs::read(self.file()) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed("read", self.file(), source)),
        }
    }

    /// Whether the template runs the apps of this home folder.
    pub(crate) fn are_for(&self, home: &Path) -> bool {
        self.text()
            .is_ok_and(|text| text.is_some_and(|text| unit::is_ours(&text) && unit::is_for(&text, home)))
    }

    /// Puts the template in place, for all to read.
    ///
    /// # Errors
    /// There is another one, or the folder cannot be written.
    pub(crate) fn install(&self, text: &str) -> Result<(), StartupError> {
        self.check_ours()?;
        let new = self.folder.join(format!(".{}.new", self.manager.unit("")));
        let write = || {
            fs::create_dir_all(&self.folder)?;
            fs::write(&new, text)?;
            fs::set_permissions(&new, fs::Permissions::from_mode(0o644))?;
            fs::rename(&new, self.file())
        };
        write().map_err(|source| {
            let _ = fs::remove_file(&new);
            failed("write", self.file(), source)
        })
    }

    /// Whether the template is there.
    ///
    /// # Errors
    /// It is somebody else's, or cannot be read.
    pub(crate) fn check_ours(&self) -> Result<bool, StartupError> {
        match self.text()? {
            None => Ok(false),
            Some(text) if unit::is_ours(&text) => Ok(true),
            Some(_) => Err(StartupError::Foreign(self.file())),
        }
    }

    /// Removes the template. Whether it was there.
    ///
    /// # Errors
    /// It is somebody else's, or the folder cannot be written.
    pub(crate) fn remove(&self) -> Result<bool, StartupError> {
        let is_there = self.check_ours()?;
        if is_there {
            fs::remove_file(self.file()).map_err(|source| failed("remove", self.file(), source))?;
        }
        Ok(is_there)
    }

    /// The apps that are started at boot.
    pub(crate) fn enabled(&self) -> BTreeSet<String> {
        let wants = self.folder.join(format!("{}.wants", self.manager.target()));
        names_in(&wants).filter_map(|name| self.app_of(&name, ".service")).collect()
    }

    /// The folders of what somebody has added to the template or to an instance.
    pub(crate) fn drop_ins(&self) -> Vec<PathBuf> {
        let is_one = |name: &String| {
            *name == self.manager.unit("") + ".d" || self.app_of(name, ".service.d").is_some()
        };
        let mut folders: Vec<_> =
            names_in(&self.folder).filter(is_one).map(|name| self.folder.join(name)).collect();
        folders.sort();
        folders
    }

    fn app_of(&self, name: &str, end: &str) -> Option<String> {
        let app = name.strip_prefix(&self.manager.prefix())?.strip_suffix(end)?;
        (!app.is_empty()).then(|| app.to_owned())
    }

    /// What has to change so that just those apps are started at boot that were saved to run, or else are wanted.
    ///
    /// # Errors
    /// What was saved cannot be read.
    pub(crate) fn changes(&self, apps: &Apps) -> Result<Changes, StartupError> {
        let saved = saved::saved(apps).map_err(|source| failed("read", apps.saved(), source))?;
        // Who reads may be root, and who has written it may be anybody.
        let is_wanted = |app: &saved::SavedApp| {
            app.wanted == Wanted::Running && is_plain_name(&app.name) && apps.app(&app.name).is_defined()
        };
        let wanted = saved.into_iter().filter(is_wanted).map(|app| app.name).collect();
        Ok(Changes::between(&self.enabled(), &wanted))
    }

    /// Those that are to run and that no unit can be called after.
    pub(crate) fn impossible(apps: &Apps) -> Vec<String> {
        let saved = saved::saved(apps).unwrap_or_default().into_iter();
        let odd = saved.filter(|app| app.wanted == Wanted::Running && !is_plain_name(&app.name));
        odd.map(|app| app.name).collect()
    }

    /// Has systemd read the units again.
    ///
    /// # Errors
    /// What systemctl could not do.
    pub(crate) fn reread(&self) -> Result<(), StartupError> {
        self.systemctl(&["daemon-reload"])
    }

    /// Enables and disables.
    ///
    /// # Errors
    /// What systemctl could not do.
    pub(crate) fn carry_out(&self, changes: &Changes) -> Result<(), StartupError> {
        for (verb, apps) in [("enable", &changes.enable), ("disable", &changes.disable)] {
            let units: Vec<_> = apps.iter().map(|app| self.manager.unit(app)).collect();
            if !units.is_empty() {
                let words = ["--quiet", verb].into_iter().chain(units.iter().map(String::as_str));
                self.systemctl(&words.collect::<Vec<_>>())?;
            }
        }
        Ok(())
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("systemctl");
        if self.manager == Manager::User {
            command.arg("--user");
        }
        command.args(words);
        command
    }

    /// What systemctl says goes where this process writes.
    fn systemctl(&self, words: &[&str]) -> Result<(), StartupError> {
        let mut command = self.command(words);
        let how = match command.status() {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => format!("failed ({status})"),
            Err(error) => format!("cannot be started: {error}"),
        };
        Err(StartupError::Systemctl { call: shown(&command), how })
    }
}

impl Instance {
    /// The unit that starts this app at boot, if one does.
    pub(crate) fn of(folder: &AppFolder) -> Option<Self> {
        let account = Account::of(None).ok()?;
        let all = [Some(Units::of_system(&account.name)), Units::of_user()];
        let units = all
            .into_iter()
            .flatten()
            .find(|units| units.enabled().contains(folder.name()) && units.are_for(folder.home()))?;
        Some(Self { units, app: folder.name().to_owned() })
    }

    /// Its name.
    pub(crate) fn name(&self) -> String {
        self.units.manager.unit(&self.app)
    }

    /// How somebody says it who has to say it himself.
    pub(crate) fn by_hand(&self, verb: &str) -> String {
        let sudo = if self.units.manager == Manager::User { "" } else { "sudo " };
        format!("{sudo}{}", shown(&self.units.command(&[verb, &self.name()])))
    }

    /// Has systemd start it. The process ends when it is ready, or has failed.
    ///
    /// # Errors
    /// There is no systemctl.
    pub(crate) fn start(&self) -> io::Result<Child> {
        self.units.command(&["start", &self.name()]).spawn()
    }

    /// Has systemd end it, and start it at boot no more.
    ///
    /// # Errors
    /// What systemctl could not do.
    pub(crate) fn disable(&self) -> Result<(), StartupError> {
        let stop: &[&str] = if is_booted() { &["--now"] } else { &[] };
        let done = self.units.systemctl(&[&["--quiet", "disable"], stop, &[&self.name()]].concat());
        done.map_err(|error| match error {
            StartupError::Systemctl { call, how } => StartupError::Systemctl {
                how: format!("{how}\nhint: with the rights that it needs: {}", self.by_hand("disable --now")),
                call,
            },
            other => other,
        })
    }
}

fn names_in(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

fn failed(what: &'static str, path: PathBuf, source: io::Error) -> StartupError {
    StartupError::File { what, path, source }
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn what_is_enabled_becomes_what_is_wanted() {
        let changes = Changes::between(&set(&["api", "old"]), &set(&["api", "web"]));
        assert_eq!(changes, Changes { enable: vec!["web".to_owned()], disable: vec!["old".to_owned()] });
        assert!(Changes::between(&set(&["api"]), &set(&["api"])).is_empty());
    }

    #[test]
    fn links_and_additions_are_found_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let units = Units { manager: Manager::System("ann".to_owned()), folder: folder.path().to_owned() };
        let wants = folder.path().join("multi-user.target.wants");
        for dir in [
            "multi-user.target.wants",
            "clusterd-ann@.service.d",
            "clusterd-ann@web.service.d",
            "clusterd-bob@.service.d",
        ] {
            fs::create_dir(folder.path().join(dir)).unwrap();
        }
        for link in
            ["clusterd-ann@web.service", "clusterd-ann@a.b.service", "clusterd-bob@x.service", "ssh.service"]
        {
            std::os::unix::fs::symlink("/nowhere", wants.join(link)).unwrap();
        }
        assert_eq!(units.enabled(), set(&["a.b", "web"]));
        let folders = ["clusterd-ann@.service.d", "clusterd-ann@web.service.d"];
        assert_eq!(units.drop_ins(), folders.map(|name| folder.path().join(name)));
    }

    #[test]
    fn a_unit_of_somebody_else_is_neither_replaced_nor_removed() {
        let folder = tempfile::tempdir().unwrap();
        let units = Units { manager: Manager::User, folder: folder.path().join("systemd/user") };
        assert!(!units.remove().unwrap());
        let text = |home: &str| {
            let (program, home) = (Path::new("/usr/bin/clusterd"), Path::new(home));
            unit::Unit { manager: &Manager::User, program, home }.text().unwrap()
        };
        units.install(&text("/one")).unwrap();
        units.install(&text("/other")).unwrap();
        assert!(units.are_for(Path::new("/other")) && !units.are_for(Path::new("/one")));
        assert_eq!(units.file().metadata().unwrap().permissions().mode() & 0o777, 0o644);
        let own = text("/one").split_once('\n').unwrap().1.to_owned();
        fs::write(units.file(), &own).unwrap();
        assert!(matches!(units.install(&text("/one")), Err(StartupError::Foreign(_))));
        assert!(matches!(units.remove(), Err(StartupError::Foreign(_))));
        assert_eq!(fs::read_to_string(units.file()).unwrap(), own);
        fs::write(units.file(), text("/one")).unwrap();
        assert!(units.remove().unwrap());
        assert_eq!(names_in(&folder.path().join("systemd/user")).count(), 0);
    }
}
