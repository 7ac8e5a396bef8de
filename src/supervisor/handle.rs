//! The supervisor as the rest of the program speaks to it: one handle, whose methods are the verbs.
//!
//! It only passes requests on to the task's inbox, and hands out what the task publishes.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::accept::Order;
use super::command::{Command, Refused, Stop, Underway, UpgradeOrder};
use super::diagnose;
use super::event_bus::EventBus;
use super::events::{Asker, Event, EventKind, ReplaceReason, on_one_line};
use super::lifecycle::{OnChannel, Signals};
use super::plan::{DesiredState, Reread, Spec};
use super::snapshot::{AskedSupervisor, SupervisorSnapshot};
use super::status::Overview;
use super::task::{Ends, Supervisor};
use super::worker_hooks::{HooksStanding, WorkerHooks};
use super::workers::Deeds;
use super::{Environment, StartError};
use crate::carry::{self, NoSteps, NotCarried, Step, Steps, Still};
use crate::ids::{Slot, WorkerId, WorkerPort};
use crate::metrics::Metrics;
use crate::protocol::wire::Token;
use crate::sys::blocking;

/// The supervisor as the rest of the program sees it. Clones speak to the same supervisor.
#[derive(Clone)]
pub(crate) struct Handle {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<Arc<Overview>>,
    events: EventBus,
    reread: Reread,
    /// Where orders to replace clusterd go.
    upgrades: mpsc::Sender<UpgradeOrder>,
    /// Between what is asked for and its beginning, nobody stands still.
    orders: Steps,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

/// A supervisor that has started nothing yet, and the handle to it.
///
/// # Errors
/// What another image of clusterd has left cannot be gone on with, or the ends of children would not be noticed.
pub(crate) fn new(
    spec: Spec,
    reread: Reread,
    hooks: impl WorkerHooks,
    metrics: Metrics,
) -> Result<(Handle, Supervisor, mpsc::Receiver<UpgradeOrder>), StartError> {
    let (requests, inbox) = mpsc::channel(64);
    let (overview, status) = watch::channel(Arc::default());
    let events = EventBus::new();
    let ends = Ends { inbox, overview, events: events.clone() };
    let (upgrades, ordered) = mpsc::channel(1);
    let handle = Handle { requests, status, events, reread, upgrades, orders: Steps::default() };
    Ok((handle, Supervisor::new(spec, Box::new(hooks), metrics, ends)?, ordered))
}

impl Handle {
    /// The living worker that holds this token.
    pub(crate) async fn admit(&self, token: Token) -> Option<WorkerId> {
        self.ask(|reply| Request::Admit { token, reply }).await.flatten()
    }

    /// Says that a worker listens on a port.
    pub(crate) async fn listening(&self, worker: WorkerId, port: WorkerPort) {
        self.send(Request::Listening { worker, port }).await;
    }

    /// Says that a process of a worker has an io_uring, if it has one: by it, connections of clusterd's cannot be accepted.
    /// To be asked while the process waits for an answer, for it may end soon after.
    pub(crate) async fn binds(&self, process: i32) {
        if let Some(ring) = diagnose::ring_of(process) {
            self.send(Request::HasRing(ring)).await;
        }
    }

    /// Has all workers accept by themselves from their next start on, if that helps against what keeps this one from taking
    /// connections; whether it is so.
    pub(crate) async fn turns(&self, worker: Slot, obstacle: diagnose::Obstacle) -> bool {
        self.ask(|reply| Request::Turns { worker, obstacle, reply }).await.unwrap_or(false)
    }

    /// Takes no command any more, and goes on as before: the stop has begun. Returns when that holds.
    pub(crate) async fn close(&self) {
        self.ask(|done| Request::Close { done }).await;
    }

    /// Returns when the supervisor has answered: it is alive.
    pub(crate) async fn ping(&self) {
        self.ask(|done| Request::Ping { done }).await;
    }

    /// Stops every worker for good. A stronger stop may follow a weaker one. Returns when it has begun: the
    /// supervisor's task ends when it is done.
    pub(crate) async fn stop(&self, stop: Stop) {
        self.ask(|done| Request::Stop { stop, done }).await;
    }

    /// Says that a worker is ready: it has said so itself (`process.send('ready')`, `READY=1`).
    pub(crate) async fn ready(&self, worker: WorkerId) {
        self.send(Request::Ready { worker }).await;
    }

    /// Says who speaks on a worker's Node channel.
    pub(crate) async fn speaks(&self, worker: WorkerId, on_channel: OnChannel) {
        self.send(Request::Speaks { worker, on_channel }).await;
    }

    /// Says which signals the process on the Node channel of this token's worker catches. That worker, if it runs.
    pub(crate) async fn catches(&self, token: Token, signals: Signals) -> Option<WorkerId> {
        self.ask(|reply| Request::Catches { token, signals, reply }).await.flatten()
    }

    /// Begins a command.
    ///
    /// # Errors
    /// Why it is not carried out.
    pub(crate) async fn begin(&self, command: Command, by: Asker) -> Result<Underway, Refused> {
        let step = self.order_step().await;
        self.begin_in(&step, command, by).await
    }

    /// The same for whoever has taken the order in this step.
    ///
    /// # Errors
    /// Why it is not carried out.
    pub(crate) async fn begin_in(&self, _: &Step, command: Command, by: Asker) -> Result<Underway, Refused> {
        let order = match command {
            Command::Reload => Order::Reload(self.read_for_reload(None).await?),
            Command::ReloadWith(environment) => Order::Reload(self.read_for_reload(Some(environment)).await?),
            Command::Restart(Some(slot)) => Order::RestartOne(slot),
            Command::Restart(None) => Order::Restart(self.read_again(None).await?),
            Command::RestartWith(environment) => Order::Restart(self.read_again(Some(environment)).await?),
            Command::Scale(scale) => Order::Scale(scale),
            Command::Signal(slot, signal) => Order::Signal(slot, signal),
            Command::Reset(slot) => Order::Reset(slot),
            Command::Stop(None) => Order::Stop,
            Command::Stop(Some(slot)) => Order::StopOne(slot),
            Command::Hold => Order::Hold,
            Command::Start(None) => Order::Start,
            Command::Start(Some(slot)) => Order::StartOne(slot),
            Command::Upgrade(program) => return self.upgrade(program, by),
            Command::StartWith(environment) => {
                Order::StartWith(self.read_for_reload(Some(environment)).await?)
            }
        };
        self.ask(|reply| Request::Do { order, by, reply }).await.unwrap_or(Err(Refused::Stopping))
    }

    /// Begins to take an order: until this is dropped, clusterd is not replaced.
    pub(crate) async fn order_step(&self) -> Step {
        self.orders.step().await
    }

    /// Has no order taken until this is dropped, and those that were taken begin before; `None` if one takes longer than this.
    pub(crate) async fn no_orders(&self, within: Duration) -> Option<NoSteps> {
        self.orders.stop(within).await
    }

    /// Whether nobody has told it anything that it has not heard.
    pub(crate) fn has_heard_all(&self) -> bool {
        self.requests.capacity() == self.requests.max_capacity()
    }

    /// While one is carried out, one waits.
    fn upgrade(&self, program: Option<PathBuf>, by: Asker) -> Result<Underway, Refused> {
        let (reply, answer) = oneshot::channel();
        let order = UpgradeOrder { program, by, reply };
        match self.upgrades.try_send(order) {
            Ok(()) => Ok(Underway(answer)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Refused::Upgrading),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Refused::Stopping),
        }
    }

    /// What is to be put in force, for workers that inherit this, or the same as before.
    async fn read_again(&self, inherited: Option<Environment>) -> Result<DesiredState, Refused> {
        let before = || self.status.borrow().plan.as_ref().map(|plan| plan.spec.inherited.clone());
        let inherited = inherited.or_else(before).unwrap_or_else(Environment::of_this_process);
        let reread = Arc::clone(&self.reread);
        let read = blocking::run(move || reread(inherited)).await;
        read.map_err(|error| Refused::Configuration(on_one_line(&error)))
    }

    /// The same for a reload. That the configuration is wrong now is told as its end: whoever watches over reloads wants to
    /// know.
    async fn read_for_reload(&self, inherited: Option<Environment>) -> Result<DesiredState, Refused> {
        let wanted = self.read_again(inherited).await;
        if let Err(refused) = &wanted {
            self.tell(EventKind::ReloadFailed { reason: refused.to_string(), last_lines: Vec::new() }).await;
        }
        wanted
    }

    /// Has a worker replaced while it runs: a new one is ready before the old one drains. Asked again while that is
    /// under way, it changes nothing.
    pub(crate) async fn replace(&self, worker: WorkerId, reason: ReplaceReason) {
        self.send(Request::Replace { worker, reason }).await;
    }

    /// Tells whoever follows what happened.
    pub(crate) async fn tell(&self, kind: EventKind) {
        self.send(Request::Tell(kind)).await;
    }

    /// The app and its workers as they are now and as they change.
    pub(crate) fn status(&self) -> watch::Receiver<Arc<Overview>> {
        self.status.clone()
    }

    /// What happens from now on. Who is too slow misses some of it, and is told how much.
    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        self.events.follow()
    }

    /// The last things that happened, the oldest first, and what happens from then on.
    pub(crate) fn events_with_past(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        self.events.follow_with_past()
    }

    /// Whether nothing is under way.
    ///
    /// # Errors
    /// What is.
    pub(crate) async fn is_quiet(&self) -> Result<(), NotCarried> {
        self.ask(|reply| Request::IsQuiet { reply }).await.ok_or_else(ended)?
    }

    /// Has what is around the workers stand still, and tells what it has. The supervisor goes on meanwhile.
    ///
    /// # Errors
    /// What cannot go to the next image.
    pub(crate) async fn hooks_stand_still(&self) -> Result<(HooksStill, Still<Box<RawValue>>), NotCarried> {
        let asked = self.ask(|reply| Request::HooksStandStill { reply }).await;
        let (since, standing) = asked.ok_or_else(ended)?;
        Ok((HooksStill(since), standing.await?))
    }

    /// Stands still, and tells how the workers stand, if nothing was done since their hooks stand still.
    ///
    /// # Errors
    /// Something is under way: that passes, and it goes on.
    pub(crate) async fn stand_still(
        &self,
        HooksStill(since): HooksStill,
    ) -> Result<Still<SupervisorSnapshot>, NotCarried> {
        let (asked, mut frozen) = carry::stand_still();
        self.send(Request::StandStill { since, asked }).await;
        let snapshot = frozen.state().await.ok_or_else(ended)??;
        Ok(Still::new(*snapshot, frozen))
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

/// Since when the hooks of workers stand still.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HooksStill(Deeds);

fn ended() -> NotCarried {
    NotCarried("the supervisor has ended".to_owned())
}

/// What the supervisor is asked.
pub(super) enum Request {
    Admit {
        token: Token,
        reply: oneshot::Sender<Option<WorkerId>>,
    },
    Listening {
        worker: WorkerId,
        port: WorkerPort,
    },
    /// A worker's program has an io_uring.
    HasRing(diagnose::Obstacle),
    /// This keeps a worker from taking connections.
    Turns {
        worker: Slot,
        obstacle: diagnose::Obstacle,
        reply: oneshot::Sender<bool>,
    },
    Stop {
        stop: Stop,
        done: oneshot::Sender<()>,
    },
    Ready {
        worker: WorkerId,
    },
    Speaks {
        worker: WorkerId,
        on_channel: OnChannel,
    },
    Catches {
        token: Token,
        signals: Signals,
        reply: oneshot::Sender<Option<WorkerId>>,
    },
    Do {
        order: Order<DesiredState>,
        by: Asker,
        reply: oneshot::Sender<Result<Underway, Refused>>,
    },
    Replace {
        worker: WorkerId,
        reason: ReplaceReason,
    },
    Tell(EventKind),
    IsQuiet {
        reply: oneshot::Sender<Result<(), NotCarried>>,
    },
    HooksStandStill {
        reply: oneshot::Sender<(Deeds, HooksStanding)>,
    },
    StandStill {
        since: Deeds,
        asked: AskedSupervisor,
    },
    Close {
        done: oneshot::Sender<()>,
    },
    Ping {
        done: oneshot::Sender<()>,
    },
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// One that admits this worker by this token, and has nothing else to say.
    pub(crate) fn admitting(token: Token, worker: WorkerId) -> Handle {
        let (requests, mut inbox) = mpsc::channel(64);
        let (_, status) = watch::channel(Arc::default());
        let reread: Reread = Arc::new(|_| Err("there is no configuration".to_owned()));
        tokio::spawn(async move {
            while let Some(request) = inbox.recv().await {
                if let Request::Admit { token: shown, reply } = request {
                    let _ = reply.send((shown == token).then_some(worker));
                }
            }
        });
        let (upgrades, _) = mpsc::channel(1);
        Handle { requests, status, events: EventBus::new(), reread, upgrades, orders: Steps::default() }
    }
}
