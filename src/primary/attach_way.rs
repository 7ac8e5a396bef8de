//! How workers get their connections: from the settings, from what the command is, and from what this system allows.
//!
//! It is decided once, before anything is opened.

use std::ffi::OsStr;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tracing::info;

use crate::front::Accepts;
use crate::settings::{Accept, Attach, Config, check};
use crate::supervisor::diagnose::program::{self, Kind};
use crate::sys::seccomp::{self, Privilege, Unsupported};

/// The way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// Who accepts.
    pub accepts: Accepts,
    /// Whether the shim is preloaded.
    pub shim: bool,
    /// Whether workers have a channel on which Node's cluster module speaks with its primary.
    pub node_channel: bool,
    /// Whether they inherit their listening sockets.
    pub inherits: bool,
    /// What it takes to have their calls of bind(2) and listen(2) told, if they are.
    pub filter: Option<Privilege>,
    /// Whether workers may accept by themselves if one turns out to need it.
    pub may_turn: bool,
}

/// The way as it is written down for the next image of clusterd.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaySnapshot {
    accepts: Accepts,
    shim: bool,
    node_channel: bool,
    inherits: bool,
    filter: Option<CarriedPrivilege>,
    may_turn: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CarriedPrivilege {
    Capability,
    NoNewPrivileges,
}

/// There is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WayError {
    /// It was asked for.
    #[error("cannot serve workers by --attach seccomp: {0}")]
    Unsupported(#[source] Unsupported),
    /// Nothing else would do.
    #[error("cannot serve {program}: it is {what}, which clusterd serves by --attach seccomp, and {source}")]
    OnlySo {
        /// The program.
        program: String,
        /// What kind of program it is.
        what: &'static str,
        /// Why not.
        source: Unsupported,
    },
    /// A setting would be without effect.
    #[error(
        "{program} is {what}, which accepts by itself, so --{setting} cannot be used with it\nhint: leave it out; \
         `docs/guide.md` tells what holds for such programs (--accept)"
    )]
    InVain {
        /// The program.
        program: String,
        /// What kind of program it is.
        what: &'static str,
        /// The setting.
        setting: &'static str,
    },
}

impl Way {
    /// Decides. It reads the program's file, and tries what it needs.
    ///
    /// # Errors
    /// [`WayError`].
    pub(super) fn of(config: &Config) -> Result<Self, WayError> {
        let asked = match config.attach {
            Attach::Auto if config.accept != Accept::Primary => by_program(config)?,
            Attach::Seccomp => Some(seccomp::supported().map_err(WayError::Unsupported)?),
            Attach::Auto | Attach::Preload | Attach::Node | Attach::ListenFds => None,
        };
        let way = match asked {
            Some(privilege) => Self::by_seccomp(privilege),
            None => Self {
                accepts: if config.accept == Accept::Workers { Accepts::Workers } else { Accepts::Primary },
                shim: config.attach.has_shim(),
                node_channel: config.attach.has_node_channel(),
                inherits: config.attach == Attach::ListenFds,
                filter: None,
                may_turn: config.attach == Attach::Auto
                    && config.accept == Accept::Auto
                    && check::in_vain_if_workers_accept(config).is_empty(),
            },
        };
        if way.filter == Some(Privilege::NoNewPrivileges) {
            info!(
                "workers run with no_new_privs, for clusterd has no CAP_SYS_ADMIN: sudo, ping and other setuid programs do not work in them"
            );
        }
        Ok(way)
    }

    /// The same, where workers may only turn to another way if this is so: clusterd may have no right to look into them.
    pub(super) fn turning_if(self, may_turn: bool) -> Self {
        Self { may_turn: self.may_turn && may_turn, ..self }
    }

    /// Whether calls of the workers are to be intercepted, as far as the command tells. It reads the program's file.
    pub(super) fn intercepts(config: &Config) -> bool {
        match config.attach {
            Attach::Seccomp => true,
            Attach::Auto => config.accept != Accept::Primary && only_by_seccomp(config).is_some(),
            Attach::Preload | Attach::Node | Attach::ListenFds => false,
        }
    }

    /// As it is written down, where somebody may have begun to accept since.
    pub(super) fn snapshot(self, accepts: Accepts) -> WaySnapshot {
        let Self { accepts: _, shim, node_channel, inherits, filter, may_turn } = self;
        let filter = filter.map(|privilege| match privilege {
            Privilege::Capability => CarriedPrivilege::Capability,
            Privilege::NoNewPrivileges => CarriedPrivilege::NoNewPrivileges,
        });
        WaySnapshot { accepts, shim, node_channel, inherits, filter, may_turn }
    }

    /// As it was written down: it was decided when clusterd was started.
    pub(super) fn restore(written: WaySnapshot) -> Self {
        let WaySnapshot { accepts, shim, node_channel, inherits, filter, may_turn } = written;
        let filter = filter.map(|privilege| match privilege {
            CarriedPrivilege::Capability => Privilege::Capability,
            CarriedPrivilege::NoNewPrivileges => Privilege::NoNewPrivileges,
        });
        Self { accepts, shim, node_channel, inherits, filter, may_turn }
    }

    fn by_seccomp(privilege: Privilege) -> Self {
        Self {
            accepts: Accepts::Workers,
            shim: false,
            node_channel: false,
            inherits: false,
            filter: Some(privilege),
            may_turn: false,
        }
    }
}

/// What it takes to serve the command, if nothing can be preloaded into it.
fn by_program(config: &Config) -> Result<Option<Privilege>, WayError> {
    let Some((program, what)) = only_by_seccomp(config) else { return Ok(None) };
    if let Some(setting) = check::in_vain_if_workers_accept(config).into_iter().next() {
        return Err(WayError::InVain { program, what, setting });
    }
    let privilege = seccomp::supported().map_err(|source| WayError::OnlySo { program, what, source })?;
    Ok(Some(privilege))
}

/// The program of the command, and what it is, if nothing can be preloaded into it.
fn only_by_seccomp(config: &Config) -> Option<(String, &'static str)> {
    // That it is not there is told when it is started.
    let (workplace, path) = (config.workplace(), std::env::var_os("PATH"));
    let found = workplace.find(&config.command, path.clone()).ok()??;
    let file_of = |word: &OsStr| workplace.file_of(word, path.clone());
    let server = program::server_of(&found, &config.command, file_of);
    let what = match server.kind {
        Kind::Go => "a Go program",
        Kind::Static => "a statically linked program",
        Kind::Dynamic | Kind::Attaching | Kind::Unknown => return None,
    };
    Some((name_of(&server.file), what))
}

fn name_of(file: &Path) -> String {
    file.file_name().unwrap_or(file.as_os_str()).display().to_string()
}
