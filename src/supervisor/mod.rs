//! Keeps the workers running: starts them, notices their ends, starts them again, and stops them.
//!
//! One task with one inbox owns every worker. What follows from what is decided in [`lifecycle`] and
//! [`restart`], which are pure; the task carries it out. It passes no connection and reads no worker's output.
//!
//! In reading order:
//!
//! - [`lifecycle`]: the states of a worker slot, and what follows from what.
//! - [`restart`]: when a worker that has ended is started again.
//! - [`spawn`] and [`reaper`]: the first and the last of a process.
//! - [`guardian`]: the process that cleans up if this one is killed.
//! - [`diagnose`], with [`elf`]: why a worker does not listen.
//! - [`processes`]: the process table, for whoever has a question.

mod advisor;
pub mod diagnose;
pub mod elf;
pub mod guardian;
pub mod lifecycle;
pub mod processes;
pub mod reaper;
pub mod restart;
pub mod spawn;
mod task;

use std::fmt;
use std::pin::Pin;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::guardian::Orders;
pub use self::reaper::Scope;
pub use self::spawn::{AttachEnv, NodeChannel, Pipes, Recipe, StartError};
pub use self::task::Supervisor;
use crate::ids::{Slot, WorkerId, WorkerPort};
use crate::metrics::Metrics;
use crate::protocol::wire::Token;
use lifecycle::Phase;

/// How long a worker may take to end when the stop is a fast one.
pub const FAST: Duration = Duration::from_secs(1);

/// What is to be supervised.
#[derive(Clone, Debug)]
pub struct Spec {
    /// How many workers, and what each is started with.
    pub recipe: Recipe,
    /// Which children are waited for.
    pub scope: Scope,
    /// What a guardian does if this process is killed; `None` for no guardian. PID 1 needs none: when it dies,
    /// the kernel kills the whole namespace.
    pub guardian: Option<Orders>,
}

/// What the rest of the program does as workers come and go. Both are called on the supervisor's own task, and must
/// not block.
pub trait Surroundings: Send + 'static {
    /// A worker's process was started: its pipes are to be read to their ends, and its Node channel to be spoken on.
    fn launched(&mut self, launched: Launched);

    /// A worker is gone: what is returned takes back every connection that it has not taken.
    fn gone(&mut self, worker: WorkerId) -> TakingBack;
}

/// Done when the connections that a worker has not taken are in the queue again.
pub type TakingBack = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A worker that was just started, and what leads to it.
#[derive(Debug)]
pub struct Launched {
    /// Which launch of which worker.
    pub worker: WorkerId,
    /// What its processes attach with.
    pub token: Token,
    /// What it writes.
    pub pipes: Pipes,
    /// Its Node channel; `None` if the recipe has none.
    pub channel: Option<NodeChannel>,
}

/// How the workers are stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// They get no further connection: let them end by themselves, start none again, and kill at `kill_at` what
    /// still runs.
    Drain {
        /// When.
        kill_at: Instant,
    },
    /// Ask them to end, and kill at `kill_at` what still runs.
    Graceful {
        /// When.
        kill_at: Instant,
    },
    /// Ask them to end, and kill after [`FAST`] what still runs.
    Fast,
}

/// A worker as the rest of the program sees it.
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
}

/// What the supervisor is asked.
#[derive(Debug)]
enum Request {
    Admit { token: Token, uid: u32, reply: oneshot::Sender<Option<WorkerId>> },
    Listening { worker: WorkerId, port: WorkerPort },
    Stop { stop: Stop, done: oneshot::Sender<()> },
}

/// The supervisor as the rest of the program sees it. Clones speak to the same supervisor.
#[derive(Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<Vec<Status>>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

/// Whether processes of this user may speak for a worker: those of the user that clusterd runs as, and of root.
pub fn is_admissible(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// A supervisor that has started nothing yet, and the handle to it.
pub fn new(spec: Spec, surroundings: impl Surroundings, metrics: Metrics) -> (Handle, Supervisor) {
    let (requests, inbox) = mpsc::channel(64);
    let (publish, status) = watch::channel(Vec::new());
    let handle = Handle { requests, status };
    (handle, Supervisor::new(spec, Box::new(surroundings), metrics, inbox, publish))
}

impl Handle {
    /// The living worker that holds this token, if a process of the user `uid` may speak for it: the user that
    /// clusterd runs as, or root.
    pub async fn admit(&self, token: Token, uid: u32) -> Option<WorkerId> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Admit { token, uid, reply }).await;
        answer.await.ok().flatten()
    }

    /// Says that a worker listens on a port.
    pub async fn listening(&self, worker: WorkerId, port: WorkerPort) {
        self.send(Request::Listening { worker, port }).await;
    }

    /// Stops every worker for good. A stronger stop may follow a weaker one. Returns when it has begun: the
    /// supervisor's task ends when it is done.
    pub async fn stop(&self, stop: Stop) {
        let (done, begun) = oneshot::channel();
        self.send(Request::Stop { stop, done }).await;
        let _ = begun.await;
    }

    /// The workers, in the order of their slots, as they are now and as they change.
    pub fn status(&self) -> watch::Receiver<Vec<Status>> {
        self.status.clone()
    }

    /// A supervisor that is gone has no workers left to be spoken of.
    async fn send(&self, request: Request) {
        let _ = self.requests.send(request).await;
    }
}

#[cfg(test)]
mod tests;
