//! Looks from time to time whether commands still find this app: whether its control socket and its folder are there.
//!
//! What was removed is made again; how, is known to those who have made it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::control::ControlSocket;
use crate::admin::Readiness;
use crate::home::whole::{Keeper, Seen};
use crate::supervisor::Overview;
use crate::sys::blocking;

/// How often. Nobody removes these files but people.
const LOOK: Duration = Duration::from_secs(15);

/// How long after a command, which may have changed a file: it is kept in mind as it is then.
const SETTLED: Duration = Duration::from_secs(1);

/// Looks until clusterd begins to stop: what is removed then is not to come back. `again` is told of each mending.
pub(super) async fn keep(
    control: ControlSocket,
    keeper: Option<Keeper>,
    (mut status, readiness): (watch::Receiver<Arc<Overview>>, watch::Receiver<Readiness>),
    again: watch::Sender<()>,
) {
    let mut place = Place { control, keeper, said: None };
    while *readiness.borrow() != Readiness::Stopping {
        // A disk may take its time.
        let look = move || {
            let is_mended = place.look();
            (place, is_mended)
        };
        let is_mended;
        (place, is_mended) = blocking::run(look).await;
        if is_mended {
            again.send_replace(());
        }
        match timeout(LOOK, status.changed()).await {
            Ok(Err(_)) => return,
            Ok(Ok(())) => sleep(SETTLED).await,
            Err(_) => {}
        }
        status.mark_unchanged();
    }
}

/// Where commands look for the app.
struct Place {
    control: ControlSocket,
    keeper: Option<Keeper>,
    /// What was said last of what cannot be mended: once is enough.
    said: Option<String>,
}

impl Place {
    /// Whether something was made again.
    fn look(&mut self) -> bool {
        let looks = [self.look_at_folder(), self.look_at_socket()];
        let is_mended = looks.contains(&Ok(true));
        let problem = looks.into_iter().find_map(Result::err);
        if let Some(problem) = problem.as_ref().filter(|problem| self.said.as_ref() != Some(problem)) {
            warn!("{problem}");
        }
        self.said = problem;
        is_mended
    }

    fn look_at_folder(&mut self) -> Result<bool, String> {
        let Some(keeper) = &mut self.keeper else { return Ok(false) };
        let seen = keeper.look();
        let path = keeper.folder().path();
        let (path, name) = (path.display(), keeper.folder().name());
        match seen {
            Ok(Seen::Whole) => Ok(false),
            Ok(Seen::Mended) => {
                warn!(
                    "{path} or files in it were removed; they are made again\n\
                     hint: clusterd delete {name} ends an app and removes its folder"
                );
                Ok(true)
            }
            Ok(Seen::Taken(taken)) => Err(format!(
                "{path} was removed, and its name is taken since: {taken}; what commands change here is not kept\n\
                 hint: end this one: kill {}",
                std::process::id()
            )),
            Err(error) => {
                Err(format!("{path} or files in it were removed, and cannot be made again: {error}"))
            }
        }
    }

    fn look_at_socket(&self) -> Result<bool, String> {
        let is_made = self.control.make_whole().map_err(|error| {
            format!("the control socket was removed, and cannot be made again: {error}; commands cannot reach this clusterd")
        })?;
        if is_made {
            warn!("the control socket was removed; it is made again");
        }
        Ok(is_made)
    }
}
