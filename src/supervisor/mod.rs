//! Keeps the workers running: starts them, notices their ends, starts them again, and stops them.
//!
//! One task with one inbox owns every worker. What follows from what is decided in [`lifecycle`] and
//! [`restart`], which are pure; the task carries it out. It passes no connection and reads no worker's output.
//!
//! In reading order:
//!
//! - [`lifecycle`]: the states of a worker, and what follows from what; [`ends`]: how a process can end.
//! - [`restart`]: whether and when a worker that has ended is started again.
//! - [`rollout`]: how all of them are replaced, so that there are always enough.
//! - [`events`]: what is told of all this.
//! - `task` carries out what those decide, with `orders` for what users ask, `replacing` for reloads and the like,
//!   `instance` for what is remembered of a worker and `telling` for the messages.
//! - [`exec_context`], with [`identity`]: as whom workers run, and with what.
//! - [`spawn`] and [`reaper`]: the first and the last of a process; [`notify`]: where it says that it is ready.
//! - [`oom`]: whether the kernel has killed for want of memory.
//! - [`limits`]: who is replaced for its memory or its age.
//! - [`cron`] and [`changes`]: when to reload without being asked, which is done by `unattended`.
//! - [`guardian`]: the process that cleans up if this one is killed.
//! - [`diagnose`], with [`elf`]: why a worker does not listen.
//! - [`processes`]: the process table, for whoever has a question.

mod advisor;
pub mod changes;
pub mod cron;
pub mod diagnose;
pub mod elf;
pub mod ends;
pub mod events;
pub mod exec_context;
pub mod guardian;
pub mod identity;
mod instance;
pub mod lifecycle;
pub mod limits;
pub mod notify;
pub mod oom;
mod orders;
pub mod processes;
pub mod reaper;
mod replacing;
pub mod restart;
pub mod rollout;
pub mod spawn;
mod task;
mod telling;
mod unattended;

use std::fmt;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

pub use self::guardian::Orders;
pub use self::reaper::Scope;
pub use self::spawn::{AttachEnv, CommandSpec, NodeChannel, Pipes, StartError};
use self::task::Ends;
pub use self::task::Supervisor;
use crate::ids::{Slot, WorkerId, WorkerPort};
use crate::logs::LastLines;
use crate::metrics::Metrics;
use crate::protocol::wire::Token;
use events::{Asker, Event, EventKind, ReplaceReason};
use lifecycle::{Phase, Rules};

/// How long a worker may take to end when the stop is a fast one.
pub const FAST: Duration = Duration::from_secs(1);

/// How many events are kept for those who are slow to follow.
const EVENTS: usize = 256;

/// What a worker is started with, and how it is treated. It keeps that for life; a reload brings another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What it is started with.
    pub spec: CommandSpec,
    /// What holds for its life.
    pub rules: Rules,
    /// How long it may take, once it gets no further connection, to finish those that it has.
    pub drain_timeout: Duration,
    /// What asks it to end.
    pub stop_signal: Signal,
}

/// What is wanted by now, at the start and again at each reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// How workers are started and treated.
    pub plan: Arc<Plan>,
    /// How many there are, unless another number was asked for meanwhile.
    pub workers: NonZeroU32,
    /// How many are replaced at a time.
    pub reload_parallel: usize,
}

/// Reads the configuration again. It may block. An error is for the user to read.
pub type Reread = Arc<dyn Fn() -> Result<Wanted, String> + Send + Sync>;

/// What is to be supervised.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The workers.
    pub wanted: Wanted,
    /// Which children are waited for.
    pub scope: Scope,
    /// What the app is called.
    pub app: String,
    /// What a guardian does if this process is killed; `None` for no guardian. PID 1 needs none: when it dies,
    /// the kernel kills the whole namespace.
    pub guardian: Option<Orders>,
}

/// What the rest of the program does as workers come and go. All of it is called on the supervisor's own task, and
/// must not block; what is returned is waited for beside it.
pub trait WorkerHooks: Send + 'static {
    /// A worker's process was started: its pipes are to be read to their ends, and its Node channel to be spoken on.
    /// What it writes to standard error is kept for those who ask.
    fn launched(&mut self, launched: Launched) -> Option<LastLines>;

    /// A worker is ready: it may be given connections, if it was kept from them.
    fn release(&mut self, worker: WorkerId) -> Doing<()>;

    /// Done when the worker has answered a probe.
    fn probe(&mut self, worker: WorkerId) -> Doing<()>;

    /// Gives a worker no further connection; done when it has none any more.
    fn drain(&mut self, worker: WorkerId, group: Pid) -> Doing<()>;

    /// A worker is gone: done when every connection that it has not taken is in the queue again. How many it has
    /// taken.
    fn gone(&mut self, worker: WorkerId) -> Doing<u64>;
}

/// Something that is done beside the supervisor's task.
pub type Doing<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A worker that was just started, and what leads to it.
#[derive(Debug)]
pub struct Launched {
    /// Which launch of which worker.
    pub worker: WorkerId,
    /// What its processes attach with.
    pub token: Token,
    /// What it writes.
    pub pipes: Pipes,
    /// Its Node channel; `None` if the spec has none.
    pub channel: Option<NodeChannel>,
}

/// How the workers are stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// They get no further connection. Each is asked to end when it has none any more, or at `until`; what still
    /// runs [`Rules::kill_timeout`] later is killed.
    Graceful {
        /// When.
        until: Instant,
    },
    /// Ask them to end, and kill after [`FAST`] what still runs.
    Fast,
}

/// A worker as the rest of the program sees it. While a worker is replaced, its slot has two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its place.
    pub slot: Slot,
    /// Where it stands.
    pub phase: Phase,
    /// The process of this launch, while there is one.
    pub running: Option<(WorkerId, Pid)>,
    /// It has said that it listens on these ports.
    pub listening: Vec<WorkerPort>,
    /// When the process was started.
    pub since: Option<SystemTime>,
    /// How many times the worker was started again.
    pub restarts: u64,
    /// How its last process ended, in words, if one has.
    pub last_end: Option<String>,
    /// The last lines that it has written to standard error.
    pub last_lines: Vec<String>,
}

/// The app as the rest of the program sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// How many workers are wanted.
    pub wanted: u32,
    /// What a worker that is started now is started with; `None` before the first is.
    pub plan: Option<Arc<Plan>>,
    /// It was stopped by a command.
    pub is_stopped: bool,
    /// Who has asked for the reload that is under way.
    pub reload: Option<Asker>,
    /// The workers, in the order of their slots.
    pub workers: Vec<Status>,
}

/// How many workers are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// So many.
    To(u32),
    /// So many more or fewer.
    By(i32),
}

/// Why a command is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another one is under way.
    #[error("a reload by {by} is under way; wait for it, or stop it with `stop`")]
    Busy {
        /// Who has begun it.
        by: Asker,
    },
    /// clusterd stops.
    #[error("clusterd is stopping")]
    Stopping,
    /// There is nothing to reload or scale.
    #[error("the app is stopped: start it first")]
    Stopped,
    /// A number of workers that cannot be.
    #[error("{asked} workers cannot be: from 1 to {MOST_WORKERS} can")]
    OutOfRange {
        /// What was asked for.
        asked: i64,
    },
    /// The configuration was changed, and is wrong now.
    #[error("the configuration is wrong, and the old one stays in force: {0}")]
    Configuration(String),
    /// There is no worker with this number.
    #[error("there is no worker {0}")]
    NoWorker(Slot),
}

/// The most workers that an app can have.
pub const MOST_WORKERS: u32 = 1024;

/// Why a command that was begun did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Failed {
    /// What went wrong.
    pub reason: String,
    /// The last lines that the worker which failed has written to standard error.
    pub last_lines: Vec<String>,
}

/// A command under way: what happens meanwhile is told by [`Handle::events`]. Dropping it does not stop it.
#[derive(Debug)]
pub struct Underway(oneshot::Receiver<Result<String, Failed>>);

impl Underway {
    /// Waits for the end; a sentence about what was done.
    ///
    /// # Errors
    /// What went wrong, and what the worker said last.
    pub async fn done(self) -> Result<String, Failed> {
        let ended = Failed { reason: "clusterd has ended".to_owned(), last_lines: Vec::new() };
        self.0.await.unwrap_or(Err(ended))
    }
}

/// What can be asked of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Replace every worker, each by a new one that is ready before the old one drains.
    Reload,
    /// End every worker, or this one, and start it again.
    Restart(Option<Slot>),
    /// Have more or fewer workers.
    Scale(Scale),
    /// End all workers; the ports stay open.
    Stop,
    /// Start them again after that, or those that are errored or stopped.
    Start,
}

/// A command, with what was read for it.
#[derive(Debug)]
enum Order {
    Reload(Wanted),
    Restart(Option<Slot>),
    Scale(Scale),
    Stop,
    Start,
}

/// What the supervisor is asked.
#[derive(Debug)]
enum Request {
    Admit { token: Token, uid: u32, reply: oneshot::Sender<Option<WorkerId>> },
    Listening { worker: WorkerId, port: WorkerPort },
    Stop { stop: Stop, done: oneshot::Sender<()> },
    Ready { worker: WorkerId },
    Do { order: Order, by: Asker, reply: oneshot::Sender<Result<Underway, Refused>> },
    Replace { worker: WorkerId, why: ReplaceReason },
    Tell(EventKind),
    Close { done: oneshot::Sender<()> },
    Ping { done: oneshot::Sender<()> },
}

/// The supervisor as the rest of the program sees it. Clones speak to the same supervisor.
#[derive(Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<Arc<Overview>>,
    events: broadcast::Sender<Event>,
    reread: Reread,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

/// A supervisor that has started nothing yet, and the handle to it.
pub fn new(
    spec: Spec,
    reread: Reread,
    surroundings: impl WorkerHooks,
    metrics: Metrics,
) -> (Handle, Supervisor) {
    let (requests, inbox) = mpsc::channel(64);
    let (publish, status) = watch::channel(Arc::default());
    let (events, _) = broadcast::channel(EVENTS);
    let ends = Ends { inbox, publish, events: events.clone() };
    let handle = Handle { requests, status, events, reread };
    (handle, Supervisor::new(spec, Box::new(surroundings), metrics, ends))
}

impl Status {
    /// A slot with nobody in it.
    fn empty(slot: Slot, restarts: u64) -> Self {
        Self {
            slot,
            phase: Phase::Stopped,
            running: None,
            listening: Vec::new(),
            since: None,
            restarts,
            last_end: None,
            last_lines: Vec::new(),
        }
    }
}

impl Handle {
    /// The living worker that holds this token, if a process of the user `uid` may speak for it.
    pub async fn admit(&self, token: Token, uid: u32) -> Option<WorkerId> {
        self.ask(|reply| Request::Admit { token, uid, reply }).await.flatten()
    }

    /// Says that a worker listens on a port.
    pub async fn listening(&self, worker: WorkerId, port: WorkerPort) {
        self.send(Request::Listening { worker, port }).await;
    }

    /// Takes no command any more, and goes on as before: the stop has begun. Returns when that holds.
    pub async fn close(&self) {
        self.ask(|done| Request::Close { done }).await;
    }

    /// Returns when the supervisor has answered: it is alive.
    pub async fn ping(&self) {
        self.ask(|done| Request::Ping { done }).await;
    }

    /// Stops every worker for good. A stronger stop may follow a weaker one. Returns when it has begun: the
    /// supervisor's task ends when it is done.
    pub async fn stop(&self, stop: Stop) {
        self.ask(|done| Request::Stop { stop, done }).await;
    }

    /// Says that a worker is ready: it has said so itself (`process.send('ready')`, `READY=1`).
    pub async fn ready(&self, worker: WorkerId) {
        self.send(Request::Ready { worker }).await;
    }

    /// Begins a command.
    ///
    /// # Errors
    /// Why it is not carried out.
    pub async fn begin(&self, command: Command, by: Asker) -> Result<Underway, Refused> {
        let order = match command {
            Command::Reload => Order::Reload(self.read_again().await?),
            Command::Restart(slot) => Order::Restart(slot),
            Command::Scale(scale) => Order::Scale(scale),
            Command::Stop => Order::Stop,
            Command::Start => Order::Start,
        };
        self.ask(|reply| Request::Do { order, by, reply }).await.unwrap_or(Err(Refused::Stopping))
    }

    /// What a reload is to put in force. That the configuration is wrong now is told as the end of a reload: whoever
    /// watches over these wants to know.
    async fn read_again(&self) -> Result<Wanted, Refused> {
        let reread = Arc::clone(&self.reread);
        let read = tokio::task::spawn_blocking(move || reread()).await;
        let wanted = read.unwrap_or_else(|error| Err(error.to_string())).map_err(Refused::Configuration);
        if let Err(refused) = &wanted {
            self.tell(EventKind::ReloadFailed { reason: refused.to_string(), last_lines: Vec::new() }).await;
        }
        wanted
    }

    /// Has a worker replaced while it runs: a new one is ready before the old one drains. Asked again while that is
    /// under way, it changes nothing.
    pub async fn replace(&self, worker: WorkerId, why: ReplaceReason) {
        self.send(Request::Replace { worker, why }).await;
    }

    /// Tells whoever follows what happened.
    pub async fn tell(&self, what: EventKind) {
        self.send(Request::Tell(what)).await;
    }

    /// The app and its workers as they are now and as they change.
    pub fn status(&self) -> watch::Receiver<Arc<Overview>> {
        self.status.clone()
    }

    /// What happens from now on. Who is too slow misses some of it, and is told how much.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// The answer to a request; `None` if the supervisor is gone.
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.send(request(reply)).await;
        answer.await.ok()
    }

    /// A supervisor that is gone has no workers left to be spoken of.
    async fn send(&self, request: Request) {
        let _ = self.requests.send(request).await;
    }
}

#[cfg(test)]
mod tests;
