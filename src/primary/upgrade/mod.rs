//! clusterd is replaced by another version of itself while it serves: in the same process, with the same workers, listeners and
//! connections (`clusterd upgrade`, SIGUSR2).
//!
//! ```text
//! this image: waits until nothing is under way ─▶ writes down what there is ─▶ the next image looks whether it can go on with that
//!                     ▲                                                              │ no: told, and nothing has changed
//!                     └── the front, the supervisor ... stand still ◀────────────────┘
//!                                  │ execve(2): what they have, and their descriptors
//! next image:                      └▶ each room begins with what it had ─▶ tells that it has taken over
//!                                         │ cannot: execve(2) of the image before, with the same
//! ```
//!
//! - [`standing`]: in which order the rooms stand still.
//! - [`snapshot`]: all that they have, and which versions of that are read.
//! - [`next_image`]: the program that takes over: asked, and executed.
//! - [`opened`]: what the primary itself has.
//! - [`restoring`]: how the next image begins; `trial`: the same for whatever a snapshot may hold, in tests.

mod next_image;
mod opened;
mod restoring;
mod snapshot;
mod standing;
#[cfg(feature = "internal")]
pub(crate) mod trial;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::debug;

pub(crate) use self::next_image::{CHECK_VERB, Handed};
use self::next_image::{Image, Sealed, Unfit};
pub(super) use self::opened::{Kept, Opened};
pub(crate) use self::restoring::Restoring;
pub(super) use self::restoring::TakenOver;
pub(crate) use self::restoring::resume_main;
pub(super) use self::snapshot::SettingsSnapshot;
use self::snapshot::Snapshot;
pub(super) use self::standing::Rooms;
use super::primary_user::may_choose_program;
use crate::carry::{self, NotCarried, Still};
use crate::control::api::Upgrade;
use crate::supervisor::events::{Asker, EventKind, Time};
use crate::supervisor::{Failed, UpgradeOrder};
use crate::sys::process;

/// How long it is waited for what is under way: a reload, a drain.
const QUIET: Duration = Duration::from_secs(60);

/// How often it is looked whether something still is.
const LOOK: Duration = Duration::from_millis(50);

/// How long who has asked may take to read that the next image takes over: its connection ends with this image.
const READ: Duration = Duration::from_millis(20);

/// Why clusterd was not replaced.
#[derive(Debug, thiserror::Error)]
enum NotUpgraded {
    /// The program is not fit for it.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Who asks could run anything with what clusterd has kept.
    #[error(
        "{by} may not choose the program: clusterd has kept capabilities of root's (--primary-user), which it would have, too\n\
         hint: ask as root, or for the one that runs, once that is replaced: {}", .own.display()
    )]
    NotByUser {
        /// Who asks.
        by: String,
        /// The only one that this user may ask for.
        own: PathBuf,
    },
    /// Something has not come to an end.
    #[error("{0}\nhint: try again when it is over")]
    NotCarried(#[from] NotCarried),
    /// It cannot be written down.
    #[error("cannot write down the state of clusterd: {0}")]
    Written(#[from] serde_json::Error),
    /// The kernel has not executed it.
    #[error("cannot execute {}: {source}", .path.display())]
    NotExecuted {
        /// The program.
        path: PathBuf,
        /// What execve(2) said.
        source: std::io::Error,
    },
}

/// Replaces clusterd when it is told to, for as long as the program runs. How that went is told to `last`.
pub(super) async fn carry_out(
    mut orders: mpsc::Receiver<UpgradeOrder>,
    rooms: Rooms,
    last: watch::Sender<Option<Upgrade>>,
) {
    while let Some(UpgradeOrder { program, by, reply }) = orders.recv().await {
        let is_allowed = may_ask(&by, program.as_deref(), &rooms);
        let program = program.unwrap_or_else(process::path_of_program);
        let by = by.to_string();
        let prepared = match is_allowed {
            true => prepare(&program, &rooms, &by).await,
            false => Err(NotUpgraded::NotByUser { by: by.clone(), own: process::path_of_program() }),
        };
        let failed = match prepared {
            Ok((image, version)) => {
                let _ = reply.send(Ok(format!("clusterd {version} takes over")));
                while let Ok(other) = orders.try_recv() {
                    let reason = format!("clusterd {version} takes over, by {by}");
                    let _ = other.reply.send(Err(Failed { reason, last_lines: Vec::new() }));
                }
                sleep(READ).await;
                // It comes back only if it has failed.
                (execute(&image, &rooms, (&by, &orders)).await, Some(version))
            }
            Err(error) => {
                let reason = error.to_string();
                let _ = reply.send(Err(Failed { reason, last_lines: Vec::new() }));
                (error, None)
            }
        };
        let (error, to) = failed;
        let reason = error.to_string();
        last.send_replace(Some(Upgrade {
            time: Time(SystemTime::now()),
            from: env!("CARGO_PKG_VERSION").to_owned(),
            to,
            pause_ms: None,
            failed: Some(reason.clone()),
        }));
        rooms.supervisor.tell(EventKind::UpgradeFailed { reason, by }).await;
    }
}

fn may_ask(by: &Asker, program: Option<&Path>, rooms: &Rooms) -> bool {
    match (by, program) {
        (Asker::Command { uid, .. }, Some(program)) => {
            let is_own = program == process::path_of_program();
            is_own || may_choose_program(rooms.primary.kept.privileges, *uid)
        }
        _ => true,
    }
}

/// Finds out whether the program can take over: nothing has changed then.
async fn prepare(program: &Path, rooms: &Rooms, by: &str) -> Result<(Image, String), NotUpgraded> {
    let image = Image::open(program)?;
    if rooms.primary.kept.privileges.is_some_and(|privileges| !privileges.is_empty()) {
        image.check_privileges()?;
    }
    let standing = quiet(rooms, by, || Ok(())).await?;
    let (written, word) = (serde_json::to_vec(&standing.state)?, standing.state.word);
    drop(standing);
    let version = image.check(&Sealed::new(&written, word).map_err(Unfit::from)?).await?;
    Ok((image, version))
}

/// Has it take over. It returns only if that has failed, and all goes on then.
async fn execute(
    image: &Image,
    rooms: &Rooms,
    (by, orders): (&str, &mpsc::Receiver<UpgradeOrder>),
) -> NotUpgraded {
    // Their connections would end without an answer. Who has ordered an upgrade meanwhile would wait for this one.
    let is_answered = || match rooms.primary.control.answering() > orders.len() {
        true => Err(NotCarried("a command is answered".to_owned())),
        false => Ok(()),
    };
    let standing = match quiet(rooms, by, is_answered).await {
        Ok(standing) => standing,
        Err(error) => return error.into(),
    };
    let privileges = rooms.primary.kept.privileges;
    let taken_over = || -> Result<std::io::Error, NotUpgraded> {
        let before = Image::of_this_process()?;
        let written = serde_json::to_vec(&standing.state)?;
        let sealed = Sealed::new(&written, standing.state.word).map_err(Unfit::from)?;
        Ok(image.execute(&sealed, &carry::descriptors(&written)?, (Some(&before), privileges)))
    };
    match taken_over() {
        Ok(source) => {
            NotUpgraded::NotExecuted { path: image.path().to_owned(), source: image.explained(source) }
        }
        Err(error) => error,
    }
}

/// What there is once nothing is under way, nor anything that `may` tells. All stand still.
async fn quiet(
    rooms: &Rooms,
    by: &str,
    may: impl Fn() -> Result<(), NotCarried>,
) -> Result<Still<Snapshot>, NotCarried> {
    let until = Instant::now() + QUIET;
    loop {
        // Before, so that nobody stands still in vain, and once more when nobody is asked anything any more.
        let stood = match may() {
            Ok(()) => rooms.stand_still(by).await.and_then(|standing| may().map(|()| standing)),
            Err(why) => Err(why),
        };
        match stood {
            Err(NotCarried(why)) if Instant::now() < until => {
                debug!("the upgrade waits: {why}");
                sleep(LOOK).await;
            }
            other => return other,
        }
    }
}

/// Looks whether this image could go on with the snapshot on its standard input, and says so.
pub(crate) fn check_main() -> ExitCode {
    let read = next_image::read_input();
    let read = read.map_err(snapshot::NotRead::because).and_then(|written| restoring::check(&written));
    match read {
        Ok(word) => {
            println!("{}", next_image::can_restore(word));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
