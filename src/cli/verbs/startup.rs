//! `clusterd startup` and `clusterd unstartup`: systemd starts a user's apps at boot, or no more.
//!
//! What a unit says, and what systemctl is told, is known in [`crate::home::startup`].

use std::path::Path;
use std::process::ExitCode;

use super::VerbError;
use super::print::{self, Shape};
use crate::cli::complain;
use crate::home::apps::Apps;
use crate::home::lock::Lock;
use crate::home::startup::StartupError;
use crate::home::startup::program;
use crate::home::startup::unit::{Manager, Unit};
use crate::home::startup::units::{Account, Changes, Units, is_booted};

/// Have systemd start the saved apps at boot
///
/// As root it installs one unit for the user, and enables an instance for each app that `clusterd save` has kept as running, or else
/// for each that is wanted. Otherwise it prints the unit, and the command for root. With --user the unit is the user's own, and
/// needs no root.
#[derive(Debug, clap::Args)]
pub(super) struct Startup {
    #[command(flatten)]
    whose: Whose,

    /// Print the unit, and do nothing
    #[arg(long)]
    print: bool,

    #[command(flatten)]
    shape: Shape,
}

/// Take back what `startup` has installed; apps go on
#[derive(Debug, clap::Args)]
pub(super) struct Unstartup {
    #[command(flatten)]
    whose: Whose,

    #[command(flatten)]
    shape: Shape,
}

/// Whose apps are meant, and which systemd.
#[derive(Debug, clap::Args)]
struct Whose {
    /// The systemd of the user, which needs no root
    #[arg(long, conflicts_with = "for_user")]
    user: bool,

    /// For this user; by default the one who calls
    #[arg(id = "for_user", short = 'u', value_name = "USER")]
    name: Option<String>,
}

impl Whose {
    fn units(&self, account: &Account) -> Result<Units, VerbError> {
        if !self.user {
            return Ok(Units::of_system(&account.name));
        }
        Ok(Units::of_user().ok_or(crate::home::apps::NoHome)?)
    }

    /// Fails if the units are the system's, and this user is not root.
    fn may(&self, done: &'static str, verb: &str, account: &Account) -> Result<(), VerbError> {
        if self.user || rustix::process::geteuid().is_root() {
            return Ok(());
        }
        Err(StartupError::NotRoot { done, command: as_root(verb, account) }.into())
    }
}

impl Startup {
    pub(super) fn run(self) -> Result<ExitCode, VerbError> {
        let account = Account::of(self.whose.name.as_deref())?;
        let units = self.whose.units(&account)?;
        let program = program::path()?;
        let unit = Unit { manager: units.manager(), program: &program, home: account.apps.home() };
        let text = unit.text()?;
        if program::moves_with_an_upgrade(&program) {
            complain(&format!(
                "warning: {} belongs to one version, and will be elsewhere after an upgrade\n\
                 hint: run `clusterd startup` again then, or install clusterd in a folder such as /usr/local/bin",
                program.display()
            ));
        }
        if self.print {
            print::line(text.trim_end())?;
            return Ok(ExitCode::SUCCESS);
        }
        if !is_booted() {
            return Err(StartupError::NoSystemd.into());
        }
        if let Err(refused) = self.whose.may("installed", "startup", &account) {
            print::line(text.trim_end())?;
            return Err(refused);
        }
        units.install(&text)?;
        units.reread()?;
        print::done(
            &units.manager().unit(""),
            &format!("installed as {}", units.file().display()),
            self.shape,
        )?;
        let changes = units.changes(&account.apps)?;
        units.carry_out(&changes)?;
        tell(&units, &changes, self.shape)?;
        self.advise(&account, &units);
        Ok(ExitCode::SUCCESS)
    }

    /// What else is to be done, or known.
    fn advise(&self, account: &Account, units: &Units) {
        tell_of_impossible(&account.apps);
        let enabled = units.enabled();
        if enabled.is_empty() {
            complain(
                "no app is started at boot yet\nhint: start apps, run `clusterd save`, and then this command again",
            );
        }
        let sudo = std::env::var("SUDO_USER").ok().filter(|user| *user != account.name);
        if let Some(user) = sudo.filter(|_| self.whose.name.is_none() && account.apps.all().is_empty()) {
            complain(&format!(
                "{} has no apps\nhint: for those of {user}: clusterd startup -u {user}",
                account.name
            ));
        }
        let running = enabled.iter().filter(|app| Lock::is_held(&account.apps.app(app)));
        let running: Vec<_> = running.map(String::as_str).collect();
        if !running.is_empty() {
            complain(&format!(
                "already running, and systemd's from the next boot or start: {}\n\
                 hint: at once: clusterd kill, then clusterd resurrect",
                running.join(", ")
            ));
        }
        if self.whose.user && !Path::new("/var/lib/systemd/linger").join(&account.name).exists() {
            complain(&format!(
                "the apps of {0} end when {0} logs out, and start when {0} logs in\n\
                 hint: from boot on, and for good: loginctl enable-linger {0}",
                account.name
            ));
        }
    }
}

impl Unstartup {
    pub(super) fn run(self) -> Result<ExitCode, VerbError> {
        let account = Account::of(self.whose.name.as_deref())?;
        let units = self.whose.units(&account)?;
        let template = units.manager().unit("");
        if units.text()?.is_none() && units.enabled().is_empty() {
            print::done(&template, "was not installed", self.shape)?;
            return Ok(ExitCode::SUCCESS);
        }
        self.whose.may("taken back", "unstartup", &account)?;
        units.check_ours()?;
        let disable = units.enabled().into_iter().collect();
        let changes = Changes { enable: Vec::new(), disable };
        units.carry_out(&changes)?;
        tell(&units, &changes, self.shape)?;
        if units.remove()? {
            print::done(&template, "removed", self.shape)?;
        }
        if is_booted() {
            units.reread()?;
        }
        for folder in units.drop_ins() {
            complain(&format!("{}: left as it is, with what somebody has added", folder.display()));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Units have names of their own kind.
fn tell_of_impossible(apps: &Apps) {
    let odd = Units::impossible(apps);
    if !odd.is_empty() {
        complain(&format!(
            "warning: not started at boot, because no unit of systemd can have its name: {}\n\
             hint: call it by letters, digits, dots, dashes and underscores, or run `clusterd resurrect` at boot",
            odd.join(", ")
        ));
    }
}

/// Has systemd start the apps at boot that were just saved, if `startup` was called before.
///
/// # Errors
/// What systemctl could not do.
pub(super) fn follow_saved(apps: &Apps, shape: Shape) -> Result<(), VerbError> {
    let Ok(account) = Account::of(None) else { return Ok(()) };
    let all = [Some(Units::of_system(&account.name)), Units::of_user()];
    for units in all.into_iter().flatten().filter(|units| units.are_for(apps.home())) {
        tell_of_impossible(apps);
        let changes = units.changes(apps)?;
        if changes.is_empty() {
            continue;
        }
        if matches!(units.manager(), Manager::System(_)) && !rustix::process::geteuid().is_root() {
            complain(&format!(
                "warning: what systemd starts at boot is not what was saved{}{}\nhint: run: {}",
                list("; missing: ", &changes.enable),
                list("; too many: ", &changes.disable),
                as_root("startup", &account)
            ));
        } else {
            units.carry_out(&changes)?;
            tell(&units, &changes, shape)?;
        }
    }
    Ok(())
}

fn list(title: &str, apps: &[String]) -> String {
    if apps.is_empty() { String::new() } else { format!("{title}{}", apps.join(", ")) }
}

fn tell(units: &Units, changes: &Changes, shape: Shape) -> Result<(), VerbError> {
    for app in &changes.enable {
        print::done(app, &format!("starts at boot ({})", units.manager().unit(app)), shape)?;
    }
    for app in &changes.disable {
        print::done(app, &format!("starts at boot no more ({})", units.manager().unit(app)), shape)?;
    }
    Ok(())
}

/// The command for root, to be copied.
fn as_root(verb: &str, account: &Account) -> String {
    let program = program::path().map_or_else(|_| "clusterd".into(), |path| path.display().to_string());
    let variable = crate::control::home::HOME_VARIABLE;
    let home = match std::env::var_os(variable) {
        Some(_) => format!("env {} ", quoted(&format!("{variable}={}", account.apps.home().display()))),
        None => String::new(),
    };
    format!("sudo {home}{} {verb} -u {}", quoted(&program), quoted(&account.name))
}

/// As a word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/._-+@:=,".contains(character);
    match word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("/usr/local/bin/clusterd"), "/usr/local/bin/clusterd");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
    }
}
