//! What the rest of the program does as workers come and go.
//!
//! The supervisor calls it, and knows nothing of what is behind it.

use futures_util::future::BoxFuture;
use rustix::process::Pid;
use serde_json::value::RawValue;

use super::processes::spawn::{NodeChannel, Pipes};
use crate::carry::{NotCarried, Still};
use crate::ids::WorkerId;
use crate::logs::LastLines;
use crate::protocol::wire::Token;
use crate::sys::seccomp::notifications::Notifications;

/// What is around the workers stands still, or what does not come to an end.
pub(crate) type HooksStanding = BoxFuture<'static, Result<Still<Box<RawValue>>, NotCarried>>;

/// What the rest of the program does as workers come and go. All of it is called on the supervisor's own task, and
/// must not block; what is returned is waited for beside it.
pub(crate) trait WorkerHooks: Send + 'static {
    /// A worker's process is about to be started: what it will look for is to be there.
    fn launching(&mut self);

    /// A worker's process was started: its pipes are to be read to their ends, and its Node channel to be spoken on.
    /// What it writes to standard error is kept for those who ask.
    fn launched(&mut self, launched: Launched) -> Option<LastLines>;

    /// The app is stopped until it is started again; or it is started.
    fn app_stopped(&mut self, is_stopped: bool) -> BoxFuture<'static, ()>;

    /// Workers accept by themselves from now on: done when nobody is given connections any more.
    fn accept_by_workers(&mut self) -> BoxFuture<'static, ()>;

    /// A worker is ready: it may be given connections, if it was kept from them.
    fn release(&mut self, worker: WorkerId) -> BoxFuture<'static, ()>;

    /// Done when the worker has answered a probe.
    fn probe(&mut self, worker: WorkerId) -> BoxFuture<'static, ()>;

    /// A worker is to have no clients soon: those that it has are asked to leave.
    fn leaving(&mut self, worker: WorkerId);

    /// Gives a worker no further connection; done when none is on its way to it any more.
    fn retire(&mut self, worker: WorkerId) -> BoxFuture<'static, ()>;

    /// Done when a worker that gets no further connection has none any more.
    fn drained(&mut self, worker: WorkerId) -> BoxFuture<'static, ()>;

    /// Sends the message `shutdown` on a worker's Node channel, if somebody is there.
    fn send_shutdown(&mut self, worker: WorkerId);

    /// Asks whoever is on a worker's Node channel to `disconnect` once nothing else is left that it could wait for.
    fn disconnect_when_idle(&mut self, worker: WorkerId);

    /// Asks whoever is on a worker's Node channel to `disconnect`.
    fn disconnect(&mut self, worker: WorkerId);

    /// Has all that is behind this stand still, and tells what it has, for the next image of clusterd. Standing still, it hears
    /// nothing and loses nothing.
    fn stand_still(&mut self) -> HooksStanding;

    /// A worker is gone: done when every connection that it has not taken is in the queue again. How many it has
    /// taken.
    fn gone(&mut self, worker: WorkerId) -> BoxFuture<'static, u64>;
}

/// A worker that was just started, and what leads to it.
#[derive(Debug)]
pub(crate) struct Launched {
    /// Which launch of which worker.
    pub worker: WorkerId,
    /// Its process group.
    pub group: Pid,
    /// What its processes attach with.
    #[cfg_attr(not(test), expect(dead_code, reason = "for tests, which attach with it"))]
    pub token: Token,
    /// What it writes.
    pub pipes: Pipes,
    /// Its Node channel; `None` if the spec has none.
    pub channel: Option<NodeChannel>,
    /// Its calls of bind(2) and listen(2), which wait for answers, if the spec has them told.
    pub calls: Option<Notifications>,
}
