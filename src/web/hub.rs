//! Follows every app of a home, once for however many pages, and only while there is one.
//!
//! What comes within a tenth of a second goes to the pages together. It waits for none of them: one that reads too slowly
//! learns everything anew.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Bytes;
use futures_util::StreamExt;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{self, Instant, MissedTickBehavior, sleep_until, timeout};

use super::feed;
use super::home_state::{HomeState, Told};
use crate::control::client::{self, Clusterd, Error};
use crate::control::home::Home;
use crate::home::at_rest;
use crate::sys::blocking;
use crate::tasks;

/// How often it is looked whether apps have come.
const LOOK: Duration = Duration::from_secs(1);

/// How long what has come waits for more.
const GATHER: Duration = Duration::from_millis(100);

/// A clusterd tells something about once a second.
const SILENCE: Duration = Duration::from_secs(5);

/// How many pieces wait for a page that reads slowly: some seconds' worth.
const PIECES: usize = 64;

/// How many lines of all apps wait for their turn.
const LINES: usize = 1024;

/// The way to the task that follows the apps. It ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub(super) struct Hub(mpsc::Sender<oneshot::Sender<Joined>>);

/// What a page gets that has joined.
#[derive(Debug)]
pub(super) struct Joined {
    /// All that is known, as server-sent events.
    pub all: Bytes,
    /// What comes from now on, in the same form.
    pub news: broadcast::Receiver<Bytes>,
}

impl Hub {
    /// Of this home.
    pub(super) fn start(home: Home) -> Self {
        let (joins, joining) = mpsc::channel(16);
        tasks::spawn(Task::new(home).run(joining));
        Self(joins)
    }

    /// A page joins. `None` while the runtime shuts down.
    pub(super) async fn join(&self) -> Option<Joined> {
        let (reply, joined) = oneshot::channel();
        self.0.send(reply).await.ok()?;
        joined.await.ok()
    }
}

/// The task, which owns what is known.
struct Task {
    home: Home,
    state: HomeState,
    followed: BTreeMap<Clusterd, JoinHandle<()>>,
    tell: mpsc::Sender<Told>,
    told: mpsc::Receiver<Told>,
    news: broadcast::Sender<Bytes>,
    gathered: Vec<u8>,
    due: Instant,
}

impl Task {
    fn new(home: Home) -> Self {
        let (tell, told) = mpsc::channel(LINES);
        Self {
            home,
            state: HomeState::default(),
            followed: BTreeMap::new(),
            tell,
            told,
            news: broadcast::channel(PIECES).0,
            gathered: Vec::new(),
            due: Instant::now(),
        }
    }

    async fn run(mut self, mut joining: mpsc::Receiver<oneshot::Sender<Joined>>) {
        let mut looks = time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                join = joining.recv() => match join {
                    Some(reply) => {
                        if self.followed.is_empty() {
                            looks.reset_immediately();
                        }
                        self.join(reply);
                    }
                    None => return self.rest(),
                },
                Some(told) = self.told.recv() => self.hear(told),
                () = sleep_until(self.due), if !self.gathered.is_empty() => self.pass_on(),
                _ = looks.tick() => match self.news.receiver_count() {
                    0 => self.rest(),
                    _ => self.look().await,
                },
            }
        }
    }

    fn join(&mut self, reply: oneshot::Sender<Joined>) {
        // What waits is part of what is known.
        self.pass_on();
        let mut all = Vec::new();
        self.state.all().iter().for_each(|object| feed::write(&mut all, object));
        // A page that is gone already is no loss.
        let _ = reply.send(Joined { all: all.into(), news: self.news.subscribe() });
    }

    fn hear(&mut self, told: Told) {
        let Some(object) = self.state.hear(told) else { return };
        if self.gathered.is_empty() {
            self.due = Instant::now() + GATHER;
        }
        feed::write(&mut self.gathered, &object);
    }

    fn pass_on(&mut self) {
        if !self.gathered.is_empty() {
            // Nobody may be there.
            let _ = self.news.send(std::mem::take(&mut self.gathered).into());
        }
    }

    /// Follows the apps that have come, and looks for those that do not run.
    async fn look(&mut self) {
        self.followed.retain(|_, following| !following.is_finished());
        let there = client::all(&self.home);
        // One that did not answer may have gone since.
        for gone in self.state.clusterds() {
            if !there.contains(&gone) && !self.followed.contains_key(&gone) {
                self.hear(Told::Gone(gone));
            }
        }
        for clusterd in there {
            let follow = || tasks::spawn(follow(clusterd.clone(), self.tell.clone()));
            self.followed.entry(clusterd.clone()).or_insert_with(follow);
        }
        let names = self.state.names();
        let states = blocking::run(move || at_rest::states(|name| names.contains(name))).await;
        self.hear(Told::AtRest(states));
    }

    /// Nobody watches.
    fn rest(&mut self) {
        let followed = std::mem::take(&mut self.followed);
        if followed.is_empty() {
            return;
        }
        followed.into_values().for_each(|following| following.abort());
        // What they have told before they were aborted is outdated, too.
        (self.tell, self.told) = mpsc::channel(LINES);
        self.state = HomeState::default();
        self.gathered.clear();
    }
}

/// Tells what this clusterd tells, until it has exited or nobody hears it.
async fn follow(clusterd: Clusterd, tell: mpsc::Sender<Told>) {
    let told = match follow_until(&clusterd, &tell).await {
        Ok(()) => Told::Gone(clusterd),
        // It has exited, or is somebody else's.
        Err(Error::Ended { .. } | Error::Stranger { .. }) => Told::Gone(clusterd),
        Err(error) if error.is_of_nobody() => Told::Gone(clusterd),
        Err(error) => Told::Silent(clusterd, error.to_string()),
    };
    let _ = tell.send(told).await;
}

async fn follow_until(clusterd: &Clusterd, tell: &mpsc::Sender<Told>) -> Result<(), Error> {
    let apps = clusterd.apps().await?;
    // One clusterd runs one app.
    let Some(app) = apps.first() else { return Ok(()) };
    let mut lines = clusterd.live(&app.name).await?;
    loop {
        let told = match timeout(SILENCE, lines.next()).await {
            Ok(Some(line)) => Told::Line(clusterd.clone(), line?),
            Ok(None) => return Ok(()),
            Err(_) => Told::Silent(clusterd.clone(), clusterd.silent().to_string()),
        };
        if tell.send(told).await.is_err() {
            return Ok(());
        }
    }
}
