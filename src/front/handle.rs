//! The two ways between the front and the rest: commands in, notices out.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::carry::{self, NotCarried, StandStill, Still};
use crate::front::arrival::{Arrival, Arrivals};
use crate::front::bound::Bound;
use crate::front::connection::Connection;
use crate::front::freed::Freed;
use crate::front::links::{Attachment, ChannelPermit, Holder};
use crate::front::private::{Delivery, Undelivered};
use crate::front::snapshot::FrontSnapshot;
use crate::front::steering::{Given, Sharing};
use crate::ids::{LinkId, ServiceId, WorkerId, WorkerPort};
use crate::protocol::wire::Binding;

/// What the front is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// A worker's process has a listener: connections may be given to it once it says that it listens.
    Attach(Attachment),
    /// A worker's server wants to accept by itself: give it a socket.
    Share(Sharing),
    /// Such a server listens.
    Listens {
        /// Which.
        link: LinkId,
        /// Told when its socket does so.
        reply: oneshot::Sender<io::Result<()>>,
    },
    /// Accept no more: from now on workers do.
    Steer {
        /// Told when that is so.
        reply: oneshot::Sender<io::Result<()>>,
    },
    /// Serve an address that a worker asked for.
    Open {
        /// Its name, new to the front.
        service: ServiceId,
        /// Its sockets.
        bound: Bound,
    },
    /// No worker wants this address any more: close it.
    Close {
        /// Which.
        service: ServiceId,
        /// Told when it is free to be opened again.
        done: oneshot::Sender<()>,
    },
    /// Nobody holds the worker's end of this channel any more: take back what is in it and drop it. Or a server that
    /// accepts by itself is closed.
    Detach(LinkId),
    /// Tell how a connection has to arrive that a listener of this worker would accept.
    HowToArrive {
        /// Which launch of which worker.
        worker: WorkerId,
        /// On what it listens.
        service: ServiceId,
        /// Told that; `None` if it listens on nothing there.
        reply: oneshot::Sender<Option<Arrival>>,
    },
    /// Hand a connection to this worker, once it can take one, and to no other.
    Deliver(Delivery),
    /// The worker is ready: channels that were held are open to clients.
    Release(WorkerId),
    /// The worker gets no connection any more; what it was given and has not taken goes to others.
    Retire {
        /// Which launch of which worker.
        worker: WorkerId,
        /// Told when nothing is on its way to the worker any more.
        done: oneshot::Sender<()>,
    },
    /// The worker is gone: take back what is in its channels and drop them.
    Forget {
        /// Which launch of which worker.
        worker: WorkerId,
        /// Told how many connections it has taken, when it is done.
        done: oneshot::Sender<u64>,
    },
    /// The app is stopped, and its ports refuse clients; or it is started again, and they do so until a worker listens.
    AppStopped(bool),
    /// Have clients wait at these ports, though no worker has listened yet.
    Hold(Vec<(WorkerPort, Arrivals)>),
    /// Say in which ways clients may arrive at each port.
    ShowOpen {
        /// Told at once.
        done: oneshot::Sender<Vec<(WorkerPort, Arrivals)>>,
    },
    /// Show that the front is alive.
    Ping {
        /// Told at once.
        done: oneshot::Sender<()>,
    },
    /// Stop accepting without losing a connection, and serve what was accepted.
    Stop {
        /// Told when every accepted connection has been taken by a worker.
        done: oneshot::Sender<()>,
    },
}

/// What the front tells the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum Notice {
    /// The worker listens, whether or not it is ready.
    Listening {
        /// Which worker.
        worker: WorkerId,
        /// On what.
        service: ServiceId,
        /// By which channel.
        link: LinkId,
        /// It has said by that that it is ready, as those do that use the library.
        ready: bool,
    },
    /// A connection waits in this channel for longer than a hand-off usually takes: does anyone still hold it?
    Slow {
        /// Which channel.
        link: LinkId,
        /// Where to look.
        holder: Holder,
    },
    /// The worker left a connection untaken for the hand-off timeout; that listener gets no more until it moves.
    Stalled {
        /// Which worker.
        worker: WorkerId,
    },
    /// A stalled worker moves again, on all of its listeners.
    Moving {
        /// Which worker.
        worker: WorkerId,
    },
    /// The worker has been stalled, and has taken no connection, for the stuck timeout. Said again each time that this
    /// has passed once more.
    Stuck {
        /// Which worker.
        worker: WorkerId,
        /// For how long.
        time: Duration,
    },
    /// The worker has taken as many connections as it may, or as many once more since that was said.
    ReplaceReason {
        /// Which worker.
        worker: WorkerId,
        /// How many it has taken in all.
        connections: u64,
    },
}

/// A port that is always served, as `/readyz` sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortStatus {
    /// The port that workers ask for.
    pub port: WorkerPort,
    /// How many listeners of workers have clients sent to them.
    pub listening: usize,
}

/// That the front is to stand still. It is no [`Command`]: those wait while nobody fetches notices.
pub(crate) type Stand = StandStill<Result<FrontSnapshot, NotCarried>>;

/// The front as the rest of the program sees it. Clones speak to the same front.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    commands: mpsc::Sender<Command>,
    stands: mpsc::Sender<Stand>,
    freed: Freed,
    workers_accept: Arc<AtomicBool>,
}

/// What the front says, for whoever wires the rooms together.
#[derive(Debug)]
pub(crate) struct Reports {
    /// What happens, one thing after the other.
    pub notices: mpsc::Receiver<Notice>,
    /// How each port stands.
    pub status: watch::Receiver<Vec<PortStatus>>,
    /// Whether somebody waits for a worker that has as many connections as it may have.
    pub waits_for_place: watch::Receiver<bool>,
}

/// The front's own ends of both ways.
#[derive(Debug)]
pub(crate) struct FrontEnds {
    /// What it is asked to do.
    pub commands: mpsc::Receiver<Command>,
    /// When it is to stand still.
    pub stands: mpsc::Receiver<Stand>,
    /// Connections that workers do not have any more.
    pub freed: Freed,
    /// What it tells.
    pub notices: mpsc::Sender<Notice>,
    /// How each port stands.
    pub status: watch::Sender<Vec<PortStatus>>,
    /// Whether somebody waits for a full worker.
    pub waits_for_place: watch::Sender<bool>,
    /// Whether workers accept.
    pub workers_accept: Arc<AtomicBool>,
}

/// The two ways between the rest and a front that serves `ports`.
pub(crate) fn channels(ports: &[WorkerPort]) -> (Handle, Reports, FrontEnds) {
    let (commands, inbox) = mpsc::channel(64);
    let (stands, asked) = mpsc::channel(1);
    let (outbox, notices) = mpsc::channel(256);
    let status = ports.iter().map(|&port| PortStatus { port, listening: 0 }).collect();
    let (status, watched) = watch::channel(status);
    let (waits_for_place, waiting) = watch::channel(false);
    let freed = Freed::default();
    let workers_accept = Arc::new(AtomicBool::new(false));
    let handle =
        Handle { commands, stands, freed: freed.clone(), workers_accept: Arc::clone(&workers_accept) };
    let reports = Reports { notices, status: watched, waits_for_place: waiting };
    let ends = FrontEnds {
        commands: inbox,
        stands: asked,
        freed,
        notices: outbox,
        status,
        waits_for_place,
        workers_accept,
    };
    (handle, reports, ends)
}

impl Handle {
    /// Gives the front a channel to a worker's listener.
    pub(crate) async fn attach(&self, attachment: Attachment) {
        self.send(Command::Attach(attachment)).await;
    }

    /// A listening socket for a server of this worker that would bind this, and accept by itself. No other server has it,
    /// where that is possible. `pid` is the process that asks; 0 if it is not known.
    ///
    /// # Errors
    /// `NotFound` if there is no such service, `ECANCELED` when a stop has closed it, and those of bind(2), listen(2) and
    /// fcntl(2).
    pub(crate) async fn share(
        &self,
        (worker, pid): (WorkerId, i32),
        service: ServiceId,
        binding: Binding,
        given: Given,
        permit: ChannelPermit,
    ) -> io::Result<OwnedFd> {
        let sharing = |reply| Command::Share(Sharing { worker, pid, service, binding, given, permit, reply });
        self.ask(sharing).await.unwrap_or_else(|| Err(stopped()))
    }

    /// Says that a server listens which has such a socket. Clients are steered to it when this returns, if its worker is
    /// ready. One that the front does not know has ended, and nothing is done for it.
    ///
    /// # Errors
    /// Those of listen(2).
    pub(crate) async fn listens(&self, link: LinkId) -> io::Result<()> {
        self.ask(|reply| Command::Listens { link, reply }).await.unwrap_or_else(|| Err(stopped()))
    }

    /// Has workers accept by themselves, on all that is served, where the front has accepted until now. Channels of workers
    /// are dropped, and connections that nobody has taken are closed. Nothing happens where workers do so already.
    ///
    /// # Errors
    /// `Unsupported` where a port has several public addresses; all is as before then. And those of epoll_create1(2).
    pub(crate) async fn accept_by_workers(&self) -> io::Result<()> {
        self.ask(|reply| Command::Steer { reply }).await.unwrap_or_else(|| Err(stopped()))
    }

    /// Whether workers accept by themselves, from its start or since [`Handle::accept_by_workers`].
    pub(crate) fn workers_accept(&self) -> bool {
        self.workers_accept.load(Ordering::Relaxed)
    }

    /// Serves an address that a worker asked for, from before whatever this handle is told next.
    pub(crate) async fn open(&self, service: ServiceId, bound: Bound) {
        self.send(Command::Open { service, bound }).await;
    }

    /// Closes an address that no worker wants any more. Returns when it is free to be opened again.
    pub(crate) async fn close(&self, service: ServiceId) {
        self.ask(|done| Command::Close { service, done }).await;
    }

    /// Lets clients come to a worker that was held. Only the supervisor decides that: it alone knows all that a worker
    /// has to do before it is ready.
    pub(crate) async fn release(&self, worker: WorkerId) {
        self.send(Command::Release(worker)).await;
    }

    /// Gives a worker no connection any more, on the listeners that it has and on those that it may still open. What it
    /// was given and has not taken goes to others; those that understand it are told. Returns when nothing is on its
    /// way to the worker any more. To be followed by [`Handle::forget`] when the worker is gone.
    pub(crate) async fn retire(&self, worker: WorkerId) {
        self.ask(|done| Command::Retire { worker, done }).await;
    }

    /// Hands a worker a connection of clusterd's own, as the next one on that listener, even if it is not ready yet.
    /// Returns when the worker has taken it. Dropped before that, a connection that is still here is closed.
    ///
    /// # Errors
    /// Why it has not: the connection is closed.
    pub(crate) async fn deliver(
        &self,
        worker: WorkerId,
        service: ServiceId,
        connection: Connection,
        until: Instant,
    ) -> Result<(), Undelivered> {
        let delivery = |reply| Command::Deliver(Delivery { worker, service, connection, until, reply });
        self.ask(delivery).await.unwrap_or(Err(Undelivered::Gone))
    }

    /// How a connection has to arrive that a listener of this worker would accept; `None` if it has none there.
    pub(crate) async fn how_to_arrive(&self, worker: WorkerId, service: ServiceId) -> Option<Arrival> {
        self.ask(|reply| Command::HowToArrive { worker, service, reply }).await.flatten()
    }

    /// Says that nobody holds the worker's end of this channel any more, or that a server which accepts by itself is
    /// closed.
    pub(crate) async fn detach(&self, link: LinkId) {
        self.send(Command::Detach(link)).await;
    }

    /// Says, for each of these, that the worker does not have one of the connections any more that it was given. Never
    /// waits.
    pub(crate) fn freed(&self, workers: Vec<WorkerId>) {
        self.freed.tell(workers);
    }

    /// Takes back every connection that this worker has not taken. Returns when they are in the queue again, with the
    /// number of those that it has taken in its life.
    pub(crate) async fn forget(&self, worker: WorkerId) -> u64 {
        self.ask(|done| Command::Forget { worker, done }).await.unwrap_or(0)
    }

    /// Has the ports refuse clients while the app is stopped, and after that until a worker listens.
    pub(crate) async fn app_stopped(&self, is_stopped: bool) {
        self.send(Command::AppStopped(is_stopped)).await;
    }

    /// Has clients wait who arrive in these ways, as they did at the process before this one, though no worker has listened yet.
    pub(crate) async fn hold(&self, ports: Vec<(WorkerPort, Arrivals)>) {
        self.send(Command::Hold(ports)).await;
    }

    /// In which ways clients may arrive at each port that is always served.
    pub(crate) async fn open_arrivals(&self) -> Vec<(WorkerPort, Arrivals)> {
        self.ask(|done| Command::ShowOpen { done }).await.unwrap_or_default()
    }

    /// Stops accepting. Returns when every accepted connection has been taken by a worker.
    pub(crate) async fn stop(&self) {
        self.ask(|done| Command::Stop { done }).await;
    }

    /// Has the front stand still, once it has obeyed what it was told before: until what is returned is dropped it accepts
    /// nothing, gives nothing, tells nothing and obeys nothing. Notices that nobody has fetched yet are still there to be.
    ///
    /// # Errors
    /// It is stopping, or a worker is being retired; it goes on then.
    pub(crate) async fn stand_still(&self) -> Result<Still<FrontSnapshot>, NotCarried> {
        let (stand, mut frozen) = carry::stand_still();
        // A front that is gone drops it, and so answers.
        let _ = self.stands.send(stand).await;
        match frozen.state().await {
            Some(snapshot) => Ok(Still::new(snapshot?, frozen)),
            None => Err(NotCarried("the data path has ended".to_owned())),
        }
    }

    /// Returns when the front has answered: it is alive.
    pub(crate) async fn ping(&self) {
        self.ask(|done| Command::Ping { done }).await;
    }

    /// The answer to a command; `None` if the front is gone.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await;
        answer.await.ok()
    }

    /// A front that is gone has nothing left to be told: the primary notices its end by itself.
    async fn send(&self, command: Command) {
        let _ = self.commands.send(command).await;
    }
}

fn stopped() -> io::Error {
    io::Error::from_raw_os_error(libc::ECANCELED)
}
