//! `--primary-user`: clusterd gives up root before it has opened or started anything, and keeps what it needs later.
//!
//! Everything is then made by that user: sockets, files and threads. Once there are threads nothing of this can be changed:
//! on Linux credentials are a thread's.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};
use rustix::process::{Resource, Uid};
use rustix::thread::CapabilitySet;
use tracing::info;

use super::attach_way::Way;
use super::control::Claimed;
use super::public_sockets;
use crate::control::home::{self, Home};
use crate::home::Held;
use crate::logs::plan::LogPlan;
use crate::settings::Config;
use crate::settings::load::Told;
use crate::settings::workplace::WorkplaceError;
use crate::supervisor::identity::{Account, Identity, IdentityError};
use crate::sys::{privileges, reuseport};

/// Why clusterd cannot become that user, or not go on as that user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrimaryUserError {
    /// There is no such user, or group.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// It was not started as root.
    #[error(
        "cannot become {who} (--primary-user): clusterd lacks {lacking}\nhint: start it as root, or grant it that; or start it as \
         that user in the first place, and leave --primary-user out"
    )]
    NotPermitted {
        /// Whom.
        who: String,
        /// The capabilities.
        lacking: String,
    },
    /// The system refused a step.
    #[error("cannot become {who} (--primary-user): {source}")]
    Become {
        /// Whom.
        who: String,
        /// What the system said.
        source: io::Error,
    },
    /// Root would start it from what is that user's to change.
    #[error(
        "cannot become {who} (--primary-user) for an app that clusterd keeps: root would start it again from files that this user \
         can change\nhint: have that user start it (`sudo -u USER clusterd start`), or run clusterd in the foreground"
    )]
    KeptApp {
        /// Whom.
        who: String,
    },
    /// A kernel setting is root's.
    #[error(transparent)]
    TcpMigrate(io::Error),
    /// That user cannot run the program.
    #[error("{source}\nhint: clusterd and its workers run as {who} (--primary-user)")]
    Program {
        /// Whom.
        who: String,
        /// Why not.
        source: WorkplaceError,
    },
    /// That user cannot use a file or folder.
    #[error(
        "{who} (--primary-user) cannot {what} {}: {source}\nhint: {advice}", .path.display()
    )]
    Path {
        /// Whom.
        who: String,
        /// What is to be done with it.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
        /// What would help.
        advice: String,
    },
}

/// What clusterd has kept of root's capabilities when it became another user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeptPrivileges(CapabilitySet);

impl KeptPrivileges {
    /// As they are written down for the next image of clusterd.
    pub(super) fn number(self) -> u64 {
        self.0.bits()
    }

    /// As they were written down.
    pub(super) fn of_number(number: u64) -> Self {
        Self(CapabilitySet::from_bits_retain(number))
    }

    /// None were.
    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The next image that is executed in this process has them.
    ///
    /// # Errors
    /// Those of capset(2) and prctl(2).
    pub(super) fn hand_on(self) -> io::Result<()> {
        privileges::hand_on(self.0)
    }

    /// Programs that are started have none of them.
    ///
    /// # Errors
    /// Those of capset(2): this image does not have them.
    pub(super) fn keep(self) -> io::Result<()> {
        privileges::keep_only(self.0)
    }
}

impl fmt::Display for KeptPrivileges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_empty() {
            true => f.write_str("no capability"),
            false => f.write_str(&privileges::names(self.0)),
        }
    }
}

/// clusterd is another user.
#[derive(Debug)]
pub(super) struct GivenUp {
    who: String,
    kept: KeptPrivileges,
    /// A control socket that root trusts, where no folder is named for it.
    pub(super) control: Option<Claimed>,
}

impl GivenUp {
    /// What is kept.
    pub(super) fn kept(&self) -> KeptPrivileges {
        self.kept
    }

    /// Says so, to whoever has started clusterd.
    pub(super) fn tell(&self) {
        info!("clusterd runs as {} and has kept {}", self.who, self.kept);
    }
}

/// Becomes the user that the settings name, if it is another one, and finds out whether clusterd can go on so. It is done
/// before there is another thread.
///
/// # Errors
/// [`PrimaryUserError`]. Nothing was opened or started, and the process must end.
pub(super) fn give_up(told: &Told, held: Option<&Held>) -> Result<Option<GivenUp>, PrimaryUserError> {
    let config = &told.config;
    let Some(text) = config.primary_user.as_deref() else { return Ok(None) };
    let primary = Identity::of_primary(text)?;
    if primary.account() == Account::of_this_process() {
        return Ok(None);
    }
    let who = primary.to_string();
    if held.is_some_and(|held| held.starter.keeps_app()) {
        return Err(PrimaryUserError::KeptApp { who });
    }
    let kept = kept(needs(config, &primary)?);
    check_privilege(&primary, kept)?;
    if config.tcp_migrate {
        reuseport::migrate().map_err(PrimaryUserError::TcpMigrate)?;
    }
    let control = claim_control(config);
    privileges::become_user(&primary.credentials, kept)
        .map_err(|source| PrimaryUserError::Become { who: who.clone(), source })?;
    look_around(told, held, &who)?;
    Ok(Some(GivenUp { who, kept: KeptPrivileges(kept), control }))
}

/// Root's commands look for a socket of root's; that user could not make one in root's folder again. An abstract name needs no
/// folder.
fn claim_control(config: &Config) -> Option<Claimed> {
    let has_folder = home::named_folder().is_some();
    let claimed = (!has_folder).then(|| Home::without_folder().listen(&config.name)).transpose();
    // Without one clusterd serves all the same, and says so when it tries again.
    claimed.ok().flatten().map(|(listener, guard)| (listener, guard.address().clone()))
}

/// What clusterd will do that takes a privilege.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Needs {
    /// It opens a port that is not everybody's, or may for a worker.
    low_ports: bool,
    /// Workers have another group.
    other_group: bool,
    /// They have another user.
    other_user: bool,
    /// Their calls are intercepted.
    intercepts: bool,
    /// They get more of something than clusterd has.
    more_resources: bool,
}

fn needs(config: &Config, primary: &Identity) -> Result<Needs, PrimaryUserError> {
    let workers = Identity::beside(primary.account(), config.user.as_deref(), config.group.as_deref())?;
    let other_user = workers.as_ref().is_some_and(|workers| workers.is_other_user);
    let intercepts = Way::intercepts(config);
    // For another user's workers, ports are opened with their rights.
    let opens_later =
        !other_user && (config.listen().is_empty() || (config.attach.has_node_channel() && !intercepts));
    let first = first_port_of_everybody();
    let low_ports = public_sockets::wanted(config).iter().any(|port| *port < first);
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
    let more_files = config.nofile.zip(hard).is_some_and(|(wanted, hard)| wanted > hard);
    let lower_score = config.oom_score_adj.is_some_and(|score| score < own_oom_score_adj());
    Ok(Needs {
        low_ports: low_ports || (opens_later && first > 0),
        other_group: workers.is_some(),
        other_user,
        intercepts,
        more_resources: more_files || lower_score,
    })
}

/// The first port that everybody may open (ip(7)).
fn first_port_of_everybody() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

fn own_oom_score_adj() -> i16 {
    let text = std::fs::read_to_string("/proc/self/oom_score_adj");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// What it takes, and no more.
fn kept(needs: Needs) -> CapabilitySet {
    let Needs { low_ports, other_group, other_user, intercepts, more_resources } = needs;
    let table = [
        (low_ports, CapabilitySet::NET_BIND_SERVICE),
        (other_group, CapabilitySet::SETGID),
        (other_user, CapabilitySet::SETUID | CapabilitySet::KILL),
        // Descriptors and memory of a process in the middle of a call are another user's.
        (other_user && intercepts, CapabilitySet::SYS_PTRACE),
        (more_resources, CapabilitySet::SYS_RESOURCE),
    ];
    let needed = table.into_iter().filter(|(is_needed, _)| *is_needed);
    needed.fold(CapabilitySet::empty(), |all, (_, capabilities)| all | capabilities)
}

fn check_privilege(primary: &Identity, kept: CapabilitySet) -> Result<(), PrimaryUserError> {
    let who = || primary.to_string();
    let own = privileges::effective().map_err(|source| PrimaryUserError::Become { who: who(), source })?;
    let is_other_user = primary.credentials.uid != Account::of_this_process().uid;
    let user = if is_other_user { CapabilitySet::SETUID } else { CapabilitySet::empty() };
    let lacking = (user | CapabilitySet::SETGID | kept) - own;
    match lacking.is_empty() {
        true => Ok(()),
        false => Err(PrimaryUserError::NotPermitted { who: who(), lacking: privileges::names(lacking) }),
    }
}

/// As that user: whether everything can be used that is needed now or later.
fn look_around(told: &Told, held: Option<&Held>, who: &str) -> Result<(), PrimaryUserError> {
    let config = &told.config;
    let found = config.workplace().find(&config.command, std::env::var_os("PATH"));
    found.map_err(|source| PrimaryUserError::Program { who: who.to_owned(), source })?;
    let needed = files(config).into_iter().chain(settings_file(told)).chain(home_folder(held));
    for Needed { what, path, advice } in needed {
        let outcome = match what {
            READ => may(&path, Access::READ_OK),
            _ => may_write(&path),
        };
        let who = who.to_owned();
        outcome.map_err(|source| PrimaryUserError::Path { who, what, path, source, advice })?;
    }
    Ok(())
}

/// A file or folder that clusterd uses.
struct Needed {
    /// What it does with it: [`READ`], or else it is written.
    what: &'static str,
    path: PathBuf,
    /// What helps if it cannot.
    advice: String,
}

const READ: &str = "read";

fn settings_file(told: &Told) -> Option<Needed> {
    let path = told.config.in_start_folder(&told.command_line.config_file()?);
    let advice = "a reload reads it again: let that user read it, and pass the folders above it".to_owned();
    Some(Needed { what: READ, path, advice })
}

fn home_folder(held: Option<&Held>) -> Option<Needed> {
    let named = home::named_folder();
    let advice = match &named {
        Some(_) => format!("give it to that user (chown), or name another folder: {}", home::HOME_VARIABLE),
        None => format!("name a folder of that user's: {}=/var/lib/NAME", home::HOME_VARIABLE),
    };
    let path = held.map(|held| held.folder.home().to_owned()).or(named)?;
    Some(Needed { what: "write in", path, advice })
}

fn files(config: &Config) -> Vec<Needed> {
    let mut logs = LogPlan::of(config, None).files();
    let is_set_aside = config.log_max_size.is_some() || config.log_max_age.is_some();
    let folders: Vec<_> = logs.iter().filter_map(|log| log.parent()).map(Path::to_owned).collect();
    logs.extend(config.pid_file.iter().map(|file| config.in_start_folder(file)));
    let files = logs.into_iter().map(|path| {
        let advice = "make its folder, and give both to that user (chown)".to_owned();
        Needed { what: "write", path, advice }
    });
    let folders = folders.into_iter().filter(|_| is_set_aside).map(|path| {
        let advice = "log files are set aside in it: give it to that user (chown)".to_owned();
        Needed { what: "write in", path, advice }
    });
    files.chain(folders).collect()
}

fn may(path: &Path, access: Access) -> io::Result<()> {
    Ok(rustix::fs::accessat(CWD, path, access, AtFlags::EACCESS)?)
}

/// What is there can be written, or what is not be made.
fn may_write(path: &Path) -> io::Result<()> {
    for place in path.ancestors() {
        let rights = if place.is_dir() { Access::WRITE_OK | Access::EXEC_OK } else { Access::WRITE_OK };
        match may(place, rights) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            outcome => return outcome,
        }
    }
    Ok(())
}

/// Whether this process may be told by this user to run a program of that user's choice.
pub(super) fn may_choose_program(kept: Option<KeptPrivileges>, user: u32) -> bool {
    kept.is_none_or(KeptPrivileges::is_empty) || Uid::from_raw(user).is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_is_kept() {
        let none = Needs::default();
        let (port, group) = (CapabilitySet::NET_BIND_SERVICE, CapabilitySet::SETGID);
        let user = group | CapabilitySet::SETUID | CapabilitySet::KILL;
        let other = Needs { other_group: true, other_user: true, ..none };
        let table = [
            (none, CapabilitySet::empty()),
            (Needs { low_ports: true, ..none }, port),
            (Needs { other_group: true, ..none }, group),
            (other, user),
            (Needs { intercepts: true, ..none }, CapabilitySet::empty()),
            (Needs { intercepts: true, ..other }, user | CapabilitySet::SYS_PTRACE),
            (Needs { more_resources: true, ..none }, CapabilitySet::SYS_RESOURCE),
        ];
        for (needs, expected) in table {
            assert_eq!(kept(needs), expected, "{needs:?}");
        }
    }

    #[test]
    fn what_was_kept_is_the_same_in_the_next_image() {
        let kept = KeptPrivileges(CapabilitySet::SETUID | CapabilitySet::KILL);
        assert_eq!(KeptPrivileges::of_number(kept.number()), kept);
        assert_eq!(kept.to_string(), "CAP_KILL, CAP_SETUID");
        assert_eq!(KeptPrivileges::of_number(0).to_string(), "no capability");
    }

    #[test]
    fn with_capabilities_only_root_chooses_a_program() {
        let (some, none) = (KeptPrivileges(CapabilitySet::SETUID), KeptPrivileges(CapabilitySet::empty()));
        assert!(may_choose_program(None, 1000));
        assert!(may_choose_program(Some(none), 1000));
        assert!(may_choose_program(Some(some), 0));
        assert!(!may_choose_program(Some(some), 1000));
    }

    #[test]
    fn what_is_not_there_can_be_made_in_the_folder_that_is() {
        let folder = tempfile::tempdir().unwrap();
        may_write(&folder.path().join("a/b.log")).unwrap();
        std::fs::write(folder.path().join("a"), "").unwrap();
        assert!(may_write(&folder.path().join("a/b.log")).is_err());
    }
}
