//! The two ways between the front and the rest: commands in, notices out.

use std::os::fd::OwnedFd;

use tokio::sync::{mpsc, oneshot};

use crate::ids::{LinkId, WorkerId, WorkerPort};

/// What the front is asked to do.
#[derive(Debug)]
pub enum Command {
    /// A worker's process has a listener: connections may be given to it once it says that it listens.
    Attach(Attachment),
    /// Nobody holds the worker's end of this channel any more: take back what is in it and drop it.
    Detach(LinkId),
    /// The worker is gone: take back what is in its channels and drop them.
    Forget {
        /// Which launch of which worker.
        worker: WorkerId,
        /// Told when it is done.
        done: oneshot::Sender<()>,
    },
    /// Stop accepting without losing a connection, and serve what was accepted.
    Stop {
        /// Told when every accepted connection has been taken by a worker.
        done: oneshot::Sender<()>,
    },
}

/// A channel to a worker's listener, as the attach socket delivered it.
#[derive(Debug)]
pub struct Attachment {
    /// Its name from now on.
    pub link: LinkId,
    /// Whose it is.
    pub worker: WorkerId,
    /// The port that the worker asked for.
    pub port: WorkerPort,
    /// The primary's end.
    pub channel: OwnedFd,
    /// A duplicate of the worker's end, through which untaken connections are taken back.
    pub worker_end: OwnedFd,
    /// The worker reads drain notices.
    pub wants_drain: bool,
}

/// What the front tells the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The worker listens on this port.
    Listening {
        /// Which worker.
        worker: WorkerId,
        /// On which port.
        port: WorkerPort,
    },
    /// A connection waits in this channel for longer than a hand-off usually takes: does anyone still hold it?
    Slow {
        /// Which channel.
        link: LinkId,
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

/// The front as the rest of the program sees it. Clones speak to the same front.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
}

impl Handle {
    /// A handle, and the end that the front reads.
    pub fn new() -> (Self, mpsc::Receiver<Command>) {
        let (commands, inbox) = mpsc::channel(64);
        (Self { commands }, inbox)
    }

    /// Gives the front a channel to a worker's listener.
    pub async fn attach(&self, attachment: Attachment) {
        self.send(Command::Attach(attachment)).await;
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

    /// A front that is gone has nothing left to be told: the primary notices its end by itself.
    async fn send(&self, command: Command) {
        let _ = self.commands.send(command).await;
    }
}
