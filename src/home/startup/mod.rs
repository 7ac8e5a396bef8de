//! Apps that systemd starts at boot: one templated unit for a user, and an instance of it for each app.
//!
//! It starts no app by itself. In reading order: [`mod@unit`] (what the unit says), [`units`] (where units are, and systemctl),
//! [`program`] (by which path clusterd is found at boot), [`short_lived`] (who would end an app that `start` has started).

pub(crate) mod program;
pub(crate) mod short_lived;
pub(crate) mod unit;
pub(crate) mod units;

use std::io;
use std::path::PathBuf;

use super::apps::NoHome;

/// Why something was not installed, not taken back, or not done by systemd.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartupError {
    /// There is nobody to install a unit for.
    #[error(
        "systemd does not run here, so nothing was installed\n\
         hint: in a container, let `clusterd up FILE` be the entrypoint; under OpenRC, runit or any other init, have a service run \
         `clusterd resurrect` at boot as this user"
    )]
    NoSystemd,
    /// The unit is the system's.
    #[error("nothing was {done}: that needs root\nhint: run: {command}")]
    NotRoot {
        /// What was to be done.
        done: &'static str,
        /// What does it, for a shell.
        command: String,
    },
    /// There is no such user.
    #[error("there is no user {0}\nhint: `getent passwd` lists all")]
    NoUser(String),
    /// The user has no place for apps.
    #[error(transparent)]
    NoHome(#[from] NoHome),
    /// The database of users cannot be read.
    #[error("cannot look up the user: {0}")]
    Users(io::Error),
    /// A unit takes only text.
    #[error("cannot write {0:?} into a unit: it is not valid UTF-8")]
    NoText(PathBuf),
    /// It is not known how clusterd is called.
    #[error("cannot tell by which path clusterd is started: {0}")]
    NoProgram(String),
    /// A file cannot be read, written or removed.
    #[error("cannot {what} {}: {source}", .path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The unit is somebody else's.
    #[error(
        "{} was not written by startup, or was made somebody's own since; it is left alone\n\
         hint: move it away first",
        .0.display()
    )]
    Foreign(PathBuf),
    /// systemctl has said why.
    #[error("`{call}` {how}")]
    Systemctl {
        /// How it was called.
        call: String,
        /// How it ended.
        how: String,
    },
}
