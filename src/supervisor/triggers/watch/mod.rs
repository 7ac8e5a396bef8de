//! `--watch`: reloads when files change.
//!
//! `tree` knows what is watched, and `ignore` what of it does not matter. Here changes that come together become
//! one reload, and `feedback` tells whether the app itself brings them about. Whether what has changed works is not known
//! here: a new worker that fails leaves the old ones.

mod feedback;
mod ignore;
mod tree;

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use globset::Glob;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use self::feedback::{Feedback, Recurrence, Round};
use self::ignore::{Ignored, Unmatchable};
use self::tree::Tree;
use super::reload;
use crate::supervisor::events::Asker;
use crate::supervisor::lifecycle::Phase;
use crate::supervisor::{Handle, Overview};

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
    Ignore(#[from] Unmatchable),
    /// There is no thread for it.
    #[error("cannot start a thread that watches files: {0}")]
    Thread(#[source] io::Error),
}

/// Whether these patterns can be matched.
///
/// # Errors
/// [`WatchError::Ignore`].
pub(crate) fn check_patterns(ignore: &[Glob]) -> Result<(), WatchError> {
    Ok(Ignored::new(ignore).map(drop)?)
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
    pub(crate) async fn reload(self, supervisor: Handle) {
        let mut news = News::of(self, supervisor.status());
        let mut recurrence = Recurrence::default();
        let mut round = Round::default();
        loop {
            if round.any().is_none() && !news.one(&mut round).await {
                return;
            }
            news.settle(&mut round).await;
            if let Some(feedback) = recurrence.note(&round) {
                warn_of(&feedback);
                news.wait(feedback.delay, &recurrence, &mut round).await;
            }
            let changed = std::mem::take(&mut round);
            let asker = Asker::Watch(changed.any().map(shown).unwrap_or_default());
            news.meanwhile(&mut round, reload::reload(&supervisor, asker)).await;
        }
    }
}

fn warn_of(feedback: &Feedback) {
    let (path, delay) = (feedback.path.display(), humantime::format_duration(feedback.delay));
    tracing::warn!(
        "{path} changes after each reload; waiting {delay} before the next reload\nhint: if the app writes it, leave \
         it out with --ignore"
    );
}

/// What has changed, and how long workers had been ready then.
struct News {
    changes: mpsc::Receiver<PathBuf>,
    app: watch::Receiver<Arc<Overview>>,
    workers: Readiness,
}

/// Since when all workers are ready.
#[derive(Debug)]
struct Readiness {
    /// Some were not ready yet when that was last seen.
    are_launching: bool,
    since: Instant,
}

impl Readiness {
    fn see(&mut self, app: &Overview, now: Instant) {
        let are_launching = app.workers.iter().any(|worker| worker.phase == Phase::Launching);
        if are_launching || self.are_launching {
            self.since = now;
        }
        self.are_launching = are_launching;
    }
}

impl News {
    fn of(changes: Changes, app: watch::Receiver<Arc<Overview>>) -> Self {
        let workers = Readiness { are_launching: true, since: Instant::now() };
        Self { changes: changes.0, app, workers }
    }

    /// Waits for a change; whether there will ever be one.
    async fn one(&mut self, round: &mut Round) -> bool {
        let Some(path) = self.next().await else { return false };
        self.note(path, round);
        true
    }

    async fn next(&mut self) -> Option<PathBuf> {
        loop {
            let path = tokio::select! {
                biased;
                Ok(()) = self.app.changed() => None,
                path = self.changes.recv() => Some(path),
            };
            self.workers.see(&self.app.borrow_and_update(), Instant::now());
            if let Some(path) = path {
                return path;
            }
        }
    }

    fn note(&mut self, path: PathBuf, round: &mut Round) {
        round.add(path, self.workers.since.elapsed());
    }

    /// Waits until nothing changes any more, as during a checkout or a copy; but not for ever, as where something is
    /// written all the time.
    async fn settle(&mut self, round: &mut Round) {
        let latest = Instant::now() + LONGEST_WAIT;
        while let Ok(Some(path)) = timeout_at(latest.min(Instant::now() + QUIET), self.next()).await {
            self.note(path, round);
        }
    }

    /// Waits for so long, or until something changes that is not the app's own.
    async fn wait(&mut self, delay: Duration, own: &Recurrence, round: &mut Round) {
        let end = Instant::now() + delay;
        while let Ok(Some(path)) = timeout_at(end, self.next()).await {
            let is_own = own.explains(&path);
            self.note(path, round);
            if !is_own {
                return self.settle(round).await;
            }
        }
    }

    /// Hears of changes while something else is done.
    async fn meanwhile(&mut self, round: &mut Round, done: impl Future<Output = ()>) {
        let mut done = pin!(done);
        loop {
            let path = tokio::select! {
                biased;
                () = &mut done => return,
                Some(path) = self.next() => path,
            };
            self.note(path, round);
        }
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
    use crate::ids::Slot;
    use crate::supervisor::Status;

    fn overview(phases: &[Phase]) -> Arc<Overview> {
        let status = |(slot, &phase)| Status { phase, ..Status::empty(Slot(slot), 0) };
        Arc::new(Overview { workers: (1..).zip(phases).map(status).collect(), ..Overview::default() })
    }

    /// What is told of, and of whom.
    fn news() -> (mpsc::Sender<PathBuf>, watch::Sender<Arc<Overview>>, News) {
        let (tell, changes) = mpsc::channel(CHANGES);
        let (publish, app) = watch::channel(overview(&[Phase::Online]));
        (tell, publish, News::of(Changes(changes), app))
    }

    #[tokio::test]
    async fn changes_that_come_together_are_one() {
        let (tell, _app, mut news) = news();
        for number in 0..CHANGES {
            tell.try_send(number.to_string().into()).unwrap();
        }
        news.settle(&mut Round::default()).await;
        assert!(news.changes.try_recv().is_err());
    }

    #[tokio::test]
    async fn changes_without_end_are_not_waited_for() {
        let (tell, _app, mut news) = news();
        let writing = tokio::spawn(async move { while tell.send("log".into()).await.is_ok() {} });
        let settled = tokio::time::timeout(LONGEST_WAIT * 10, news.settle(&mut Round::default())).await;
        assert!(settled.is_ok());
        writing.abort();
    }

    #[test]
    fn workers_are_ready_since_the_last_of_them_is() {
        let start = Instant::now();
        let mut workers = Readiness { are_launching: true, since: start };
        let (one_launches, all_are_ready) =
            ([Phase::Online, Phase::Launching], [Phase::Draining, Phase::Online]);
        let cases = [
            // When they are seen, how they are then, and since when they are ready.
            (0, &all_are_ready, 0),
            (1, &all_are_ready, 0),
            (10, &one_launches, 10),
            (30, &one_launches, 30),
            (40, &all_are_ready, 40),
            (41, &all_are_ready, 40),
        ];
        for (seen, phases, since) in cases {
            let after = |seconds| start + Duration::from_secs(seconds);
            workers.see(&overview(phases), after(seen));
            assert_eq!(workers.since, after(since), "seen after {seen} s");
        }
    }

    /// What has changed in the same place for so many reloads.
    fn recurring(path: &str) -> Recurrence {
        let mut recurrence = Recurrence::default();
        for _ in 0..10 {
            let mut round = Round::default();
            round.add(path.into(), Duration::ZERO);
            recurrence.note(&round);
        }
        recurrence
    }

    #[tokio::test]
    async fn what_is_the_apps_own_waits_and_what_is_not_ends_the_wait() {
        let own = recurring("/app/tmp/state");
        let (shortly, for_ever) = (Duration::from_millis(100), Duration::from_secs(3600));
        let cases = [
            ("/app/tmp/state", shortly, true),
            ("/app/tmp/other", shortly, true),
            ("/app/server.js", for_ever, false),
        ];
        for (path, delay, waits) in cases {
            let (tell, _app, mut news) = news();
            tell.try_send(path.into()).unwrap();
            let (start, mut round) = (Instant::now(), Round::default());
            let waiting = news.wait(delay, &own, &mut round);
            assert!(tokio::time::timeout(Duration::from_secs(60), waiting).await.is_ok(), "{path}");
            assert_eq!(start.elapsed() >= delay, waits, "{path}");
            assert_eq!(round.any(), Some(Path::new(path)), "it is reloaded all the same");
        }
    }

    #[tokio::test]
    async fn what_changes_during_a_reload_is_for_the_next() {
        let (tell, _app, mut news) = news();
        let mut round = Round::default();
        news.meanwhile(&mut round, async {
            tell.send("a".into()).await.unwrap();
            while tell.capacity() < CHANGES {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(round.any(), Some(Path::new("a")));
    }
}
