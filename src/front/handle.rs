//! The two ways between the front and the rest: commands in, notices out.

use tokio::sync::{mpsc, oneshot, watch};

use crate::front::listener::Bound;
use crate::ids::{LinkId, ServiceId, WorkerId, WorkerPort};
use crate::protocol::native::{Attachment, Holder};

/// What the front is asked to do.
#[derive(Debug)]
pub enum Command {
    /// A worker's process has a listener: connections may be given to it once it says that it listens.
    Attach(Attachment),
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
    /// Nobody holds the worker's end of this channel any more: take back what is in it and drop it.
    Detach(LinkId),
    /// The worker has said that it is ready.
    Ready(WorkerId),
    /// The worker is gone: take back what is in its channels and drop them.
    Forget {
        /// Which launch of which worker.
        worker: WorkerId,
        /// Told when it is done.
        done: oneshot::Sender<()>,
    },
    /// Tell the workers that understand it that no further connection will come.
    Drain,
    /// Stop accepting without losing a connection, and serve what was accepted.
    Stop {
        /// Told when every accepted connection has been taken by a worker.
        done: oneshot::Sender<()>,
    },
}

/// What the front tells the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The worker listens, and is ready if that is waited for.
    Listening {
        /// Which worker.
        worker: WorkerId,
        /// On what.
        service: ServiceId,
    },
    /// A connection waits in this channel for longer than a hand-off usually takes: does anyone still hold it?
    Slow {
        /// Which channel.
        link: LinkId,
        /// Where to look.
        holder: Holder,
    },
    /// The worker left a connection untaken for the hand-off timeout; it gets no more until it moves.
    Stalled {
        /// Which worker.
        worker: WorkerId,
    },
    /// A stalled worker moves again.
    Moving {
        /// Which worker.
        worker: WorkerId,
    },
}

/// A port that is always served, as `/readyz` sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortStatus {
    /// The port that workers ask for.
    pub port: WorkerPort,
    /// How many listeners the workers have on it.
    pub listening: usize,
}

/// The front as the rest of the program sees it. Clones speak to the same front.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
}

/// What the front says, for whoever wires the rooms together.
#[derive(Debug)]
pub struct Reports {
    /// What happens, one thing after the other.
    pub notices: mpsc::Receiver<Notice>,
    /// How each port stands.
    pub status: watch::Receiver<Vec<PortStatus>>,
}

/// The front's own ends of both ways.
#[derive(Debug)]
pub struct FrontEnds {
    /// What it is asked to do.
    pub commands: mpsc::Receiver<Command>,
    /// What it tells.
    pub notices: mpsc::Sender<Notice>,
    /// How each port stands.
    pub status: watch::Sender<Vec<PortStatus>>,
}

/// The two ways between the rest and a front that serves `ports`.
pub fn channels(ports: &[WorkerPort]) -> (Handle, Reports, FrontEnds) {
    let (commands, inbox) = mpsc::channel(64);
    let (outbox, notices) = mpsc::channel(256);
    let status = ports.iter().map(|&port| PortStatus { port, listening: 0 }).collect();
    let (status, watched) = watch::channel(status);
    let ends = FrontEnds { commands: inbox, notices: outbox, status };
    (Handle { commands }, Reports { notices, status: watched }, ends)
}

impl Handle {
    /// Gives the front a channel to a worker's listener.
    pub async fn attach(&self, attachment: Attachment) {
        self.send(Command::Attach(attachment)).await;
    }

    /// Serves an address that a worker asked for, from before whatever this handle is told next.
    pub async fn open(&self, service: ServiceId, bound: Bound) {
        self.send(Command::Open { service, bound }).await;
    }

    /// Closes an address that no worker wants any more. Returns when it is free to be opened again.
    pub async fn close(&self, service: ServiceId) {
        let (done, told) = oneshot::channel();
        self.send(Command::Close { service, done }).await;
        let _ = told.await;
    }

    /// Says that a worker is ready.
    pub async fn ready(&self, worker: WorkerId) {
        self.send(Command::Ready(worker)).await;
    }

    /// Says that nobody holds the worker's end of this channel any more.
    pub async fn detach(&self, link: LinkId) {
        self.send(Command::Detach(link)).await;
    }

    /// Takes back every connection that this worker has not taken. Returns when they are in the queue again.
    pub async fn forget(&self, worker: WorkerId) {
        let (done, told) = oneshot::channel();
        self.send(Command::Forget { worker, done }).await;
        let _ = told.await;
    }

    /// Stops accepting. Returns when every accepted connection has been taken by a worker.
    pub async fn stop(&self) {
        let (done, told) = oneshot::channel();
        self.send(Command::Stop { done }).await;
        let _ = told.await;
    }

    /// Tells the workers that understand it that no further connection will come.
    pub async fn drain(&self) {
        self.send(Command::Drain).await;
    }

    /// A front that is gone has nothing left to be told: the primary notices its end by itself.
    async fn send(&self, command: Command) {
        let _ = self.commands.send(command).await;
    }
}
