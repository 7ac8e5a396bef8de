//! What clusterd and its service manager say to each other, if it has one that speaks sd_notify(3): systemd, or
//! whoever else sets `NOTIFY_SOCKET` and `LISTEN_FDS`.
//!
//! - [`messages`]: what it is told, and when: pure.
//! - [`socket`]: how it is told.
//! - [`watchdog`]: that clusterd is alive, as long as it is.
//! - [`inherit`]: the ports, opened by it.
//! - [`worker_notify`]: what workers say to clusterd in the same language.

pub(crate) mod inherit;
mod messages;
mod socket;
mod watchdog;
pub(crate) mod worker_notify;

use std::sync::Arc;
use std::time::Duration;

use rustix::time::ClockId;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;

pub(crate) use self::messages::Patience;
use self::messages::{Change, Now, Told};
use self::socket::ManagerSocket;
use crate::admin::Readiness;
use crate::front;
use crate::supervisor::events::{Event, EventKind};
use crate::supervisor::{self, Overview};
use crate::tasks;

/// How long there is nothing new about the workers after something was said of them.
const PAUSE: Duration = Duration::from_millis(200);

/// The service manager, if there is one, as those see it who have something to tell it.
#[derive(Clone, Debug)]
pub(crate) struct Systemd {
    no_reload: mpsc::Sender<()>,
}

impl Systemd {
    /// Says that there is no reload to wait for, after one was asked for: it was refused.
    pub(crate) fn no_reload(&self) {
        // What is full will be said anyway.
        let _ = self.no_reload.try_send(());
    }
}

/// What is told of.
#[derive(Debug)]
pub(crate) struct Sources {
    /// Whether every port has a worker, and whether the stop has begun.
    pub readiness: watch::Receiver<Readiness>,
    /// How long it may take.
    pub patience: Patience,
    /// The workers; asked whether it lives.
    pub supervisor: supervisor::Handle,
    /// Asked whether it lives.
    pub front: front::handle::Handle,
}

/// Keeps the service manager informed for as long as the program runs; without one it does nothing.
pub(crate) fn start(sources: Sources) -> Systemd {
    let (no_reload, refused) = mpsc::channel(1);
    if let Some(socket) = ManagerSocket::from_environment() {
        if let Some(timeout) = watchdog::timeout() {
            let supervisor = sources.supervisor.clone();
            let ask_supervisor = move || {
                let supervisor = supervisor.clone();
                async move { supervisor.ping().await }
            };
            let front = sources.front;
            let ask_front = move || {
                let front = front.clone();
                async move { front.ping().await }
            };
            tasks::spawn(watchdog::feed(socket.clone(), timeout, ask_front, ask_supervisor));
        }
        let follower = Follower {
            status: sources.supervisor.status(),
            events: sources.supervisor.events(),
            readiness: sources.readiness,
            refused,
            socket,
            told: Told::new(sources.patience),
            pause_until: Instant::now(),
        };
        tasks::spawn(follower.run());
    }
    Systemd { no_reload }
}

/// The service manager as several apps together see it, which one process stands for.
#[derive(Debug)]
pub(crate) struct ManagerOfAll {
    socket: ManagerSocket,
    told: Told,
}

impl ManagerOfAll {
    /// The one that this process was started by, which hears that it is alive from now on; `None` without one.
    pub(crate) fn from_environment() -> Option<Self> {
        let socket = ManagerSocket::from_environment()?;
        if let Some(timeout) = watchdog::timeout() {
            // There is one task, and this is in its thread.
            tasks::spawn(watchdog::feed(
                socket.clone(),
                timeout,
                || std::future::ready(()),
                || std::future::ready(()),
            ));
        }
        Some(Self { socket, told: Told::default() })
    }

    /// Tells how things stand.
    pub(crate) async fn tell(&mut self, ready: bool, stopping: bool, sentence: String) {
        self.say(Change::Now(Now { ready, stopping, sentence })).await;
    }

    /// A reload was asked for. The apps carry it out on their own, and nobody waits for it.
    pub(crate) async fn reloads(&mut self) {
        self.say(Change::NoReload).await;
    }

    async fn say(&mut self, change: Change) {
        for message in self.told.messages(change, monotonic()) {
            self.socket.say(&message).await;
        }
    }
}

struct Follower {
    socket: ManagerSocket,
    readiness: watch::Receiver<Readiness>,
    status: watch::Receiver<Arc<Overview>>,
    events: broadcast::Receiver<Event>,
    refused: mpsc::Receiver<()>,
    told: Told,
    pause_until: Instant,
}

impl Follower {
    async fn run(mut self) {
        let mut change = self.now();
        loop {
            for message in self.told.messages(change, monotonic()) {
                self.socket.say(&message).await;
            }
            change = self.next().await;
        }
    }

    async fn next(&mut self) -> Change {
        let pause = self.pause_until;
        loop {
            tokio::select! {
                Ok(()) = self.readiness.changed() => return self.now(),
                Ok(()) = async { tokio::time::sleep_until(pause).await; self.status.changed().await } => {
                    self.pause_until = Instant::now() + PAUSE;
                    return self.now();
                }
                Some(()) = self.refused.recv() => return Change::NoReload,
                event = self.events.recv() => match event.map(|event| event.kind) {
                    Ok(EventKind::ReloadStarted { .. }) => return Change::ReloadBegins,
                    Ok(EventKind::ReloadDone { .. } | EventKind::ReloadFailed { .. }) => return Change::ReloadEnds,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) if self.status.borrow().reload.is_none() => return Change::ReloadEnds,
                    Err(RecvError::Lagged(_)) => return Change::ReloadBegins,
                    Err(RecvError::Closed) => std::future::pending().await,
                },
            }
        }
    }

    fn now(&mut self) -> Change {
        Change::Now(Now::of(&self.readiness.borrow_and_update(), &self.status.borrow_and_update()))
    }
}

/// The clock by which systemd tells whether a reload began after it was asked for.
fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    Duration::try_from(now).unwrap_or_default()
}
