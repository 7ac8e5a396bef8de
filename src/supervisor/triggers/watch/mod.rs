//! `--watch`: reloads when files change.
//!
//! `tree` knows what is watched, and `ignore` what of it does not matter. Here changes that come together become
//! one reload. What has changed, and whether it works, is not known here: a new worker that fails leaves the old ones.

mod ignore;
mod tree;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use globset::Glob;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use self::ignore::Ignored;
use self::tree::Tree;
use super::reload;
use crate::supervisor::Handle;
use crate::supervisor::events::Asker;

/// How long nothing may change before the files are taken to be complete.
const QUIET: Duration = Duration::from_millis(200);
/// How long to wait for that.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// How many changes may wait to be fetched; further ones wait in the kernel.
const CHANGES: usize = 16;

/// Something cannot be watched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchError {
    /// There is nothing at this path, or nothing that may be seen.
    #[error("cannot watch {}: {source}\nhint: --watch takes files and folders that exist", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A limit of the kernel is reached.
    #[error(
        "cannot watch {}: too many watched folders ({source})\nhint: leave some out with --ignore, or raise \
         fs.inotify.max_user_watches or fs.inotify.max_user_instances (sysctl)", path.display()
    )]
    Limit {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The patterns cannot be matched together.
    #[error("cannot match the patterns of --ignore: {0}")]
    Ignore(#[from] globset::Error),
    /// There is no thread for it.
    #[error("cannot start a thread that watches files: {0}")]
    Thread(#[source] io::Error),
}

/// What has changed, as it changes.
#[derive(Debug)]
pub(crate) struct Changes(mpsc::Receiver<PathBuf>);

impl Changes {
    /// Watches these files and folders from now on, with everything below the folders; but for what is ignored.
    ///
    /// # Errors
    /// [`WatchError`].
    pub(crate) fn of(paths: &[PathBuf], ignore: &[Glob]) -> Result<Self, WatchError> {
        let mut tree = Tree::new(paths, Ignored::new(ignore)?)?;
        let (tell, changes) = mpsc::channel(CHANGES);
        // Looking through new folders may take long, and reading blocks.
        let thread = std::thread::Builder::new().name("clusterd-watch".to_owned());
        thread.spawn(move || pass_on(&mut tree, &tell)).map_err(WatchError::Thread)?;
        Ok(Self(changes))
    }

    /// Reloads when something has changed, for as long as the program runs. What changes during a reload leads to
    /// another one after it.
    pub(crate) async fn reload(mut self, supervisor: Handle) {
        while let Some(first) = self.0.recv().await {
            self.settle().await;
            reload::reload(&supervisor, Asker::Watch(shown(&first))).await;
        }
    }

    /// Waits until nothing changes any more, as during a checkout or a copy; but not for ever, as where something is
    /// written all the time.
    async fn settle(&mut self) {
        let latest = Instant::now() + LONGEST_WAIT;
        while let Ok(Some(_)) = timeout_at(latest.min(Instant::now() + QUIET), self.0.recv()).await {}
    }
}

/// Until nobody wants to know any more.
fn pass_on(tree: &mut Tree, tell: &mpsc::Sender<PathBuf>) {
    loop {
        match tree.changed() {
            Ok(changed) => {
                if !changed.into_iter().all(|path| tell.blocking_send(path).is_ok()) {
                    return;
                }
            }
            Err(error) => {
                return tracing::warn!("cannot watch for changes any more: {error}");
            }
        }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_that_come_together_are_one() {
        let (tell, changes) = mpsc::channel(CHANGES);
        let mut changes = Changes(changes);
        for number in 0..CHANGES {
            tell.try_send(number.to_string().into()).unwrap();
        }
        changes.settle().await;
        assert!(changes.0.try_recv().is_err());
    }

    #[tokio::test]
    async fn changes_without_end_are_not_waited_for() {
        let (tell, changes) = mpsc::channel(CHANGES);
        let mut changes = Changes(changes);
        let writing = tokio::spawn(async move { while tell.send("log".into()).await.is_ok() {} });
        let settled = tokio::time::timeout(LONGEST_WAIT * 10, changes.settle()).await;
        assert!(settled.is_ok());
        writing.abort();
    }
}
