//! clusterd's own connections to one listener of one worker: those that wait, and the one that is under way.
//!
//! It only keeps them and tells what became of each; when one is handed over is decided in `service`.

use std::io;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::front::connection::Connection;
use crate::ids::{ServiceId, WorkerId};

/// How many may wait for one listener.
const MOST: usize = 8;

/// A connection for one worker, and for no other.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// For whom.
    pub worker: WorkerId,
    /// On what it shall come in.
    pub service: ServiceId,
    /// What is handed over.
    pub connection: Connection,
    /// How long it may wait for its turn.
    pub until: Instant,
    /// Told what became of it; who does not listen to it any more has given it up.
    pub reply: oneshot::Sender<Result<(), Undelivered>>,
}

/// Why a worker has not got a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Undelivered {
    /// It has no listener there.
    #[error("the worker does not listen on that port")]
    NotListening,
    /// Nobody can be given a connection there.
    #[error(
        "workers accept by themselves (`--accept workers`), so clusterd cannot give a connection to one of them"
    )]
    Shared,
    /// It gets no connections any more.
    #[error("the worker is being stopped")]
    Retired,
    /// It has left what it was given untaken.
    #[error("the worker takes no connections: it is stuck")]
    Stalled,
    /// It does not want it.
    #[error("the worker has declined the connection")]
    Declined,
    /// Too many wait already.
    #[error("{MOST} connections are already waiting for the worker")]
    Full,
    /// Its turn did not come in time.
    #[error("the worker was busy for too long to take the connection")]
    TooLate,
    /// The worker, its listener or the front is gone, or the worker has never had a listener.
    #[error("the worker has no listener yet, has closed it, or has ended")]
    Gone,
    /// sendmsg(2) failed.
    #[error("the connection cannot be handed over: {0}")]
    HandOff(io::ErrorKind),
}

/// Those for one listener. Whoever is left when it is dropped is told that the worker is gone.
#[derive(Debug, Default)]
pub(crate) struct Private {
    /// The oldest first.
    waiting: Vec<Delivery>,
    under_way: Option<oneshot::Sender<Result<(), Undelivered>>>,
}

impl Private {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds one that waits, if there is room.
    pub(crate) fn push(&mut self, delivery: Delivery) {
        self.drop_given_up();
        if self.waiting.len() < MOST {
            self.waiting.push(delivery);
        } else {
            let _ = delivery.reply.send(Err(Undelivered::Full));
        }
    }

    /// Takes the one that is next, if it was not given up meanwhile. What becomes of it is told with
    /// [`Private::begin`] and [`Private::end`].
    pub(crate) fn pop(&mut self) -> Option<Delivery> {
        self.drop_given_up();
        if self.waiting.is_empty() { None } else { Some(self.waiting.remove(0)) }
    }

    fn drop_given_up(&mut self) {
        self.waiting.retain(|delivery| !delivery.reply.is_closed());
    }

    /// One was handed over.
    pub(crate) fn begin(&mut self, reply: oneshot::Sender<Result<(), Undelivered>>) {
        self.under_way = Some(reply);
    }

    /// One was handed over by another image, in which whoever asked for it has ended.
    pub(crate) fn resume(&mut self) {
        let (nobody, _) = oneshot::channel();
        self.begin(nobody);
    }

    /// Whether one was handed over, and nobody knows yet what becomes of it.
    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// The connection that was handed over has been taken, or has come back for this reason. Returns whether it was one
    /// of these.
    pub(crate) fn end(&mut self, result: Result<(), Undelivered>) -> bool {
        let Some(reply) = self.under_way.take() else { return false };
        let _ = reply.send(result);
        true
    }

    /// Turns away all who wait.
    pub(crate) fn refuse(&mut self, why: Undelivered) {
        for delivery in self.waiting.drain(..) {
            let _ = delivery.reply.send(Err(why));
        }
    }

    /// When the next of them will have waited too long.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.waiting.iter().map(|delivery| delivery.until).min()
    }

    /// Turns away those who have waited too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        for late in self.waiting.extract_if(.., |delivery| delivery.until <= now) {
            let _ = late.reply.send(Err(Undelivered::TooLate));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::front::arrival::Arrival;
    use crate::ids::{Slot, WorkerPort};
    use crate::protocol::wire::Endpoint;

    type Told = oneshot::Receiver<Result<(), Undelivered>>;

    fn delivery(until: Instant) -> (Delivery, Told) {
        let (reply, told) = oneshot::channel();
        let socket = crate::sys::seqpacket::pair().unwrap().0.into();
        let peer = Endpoint::V4 { address: [127, 0, 0, 1], port: 1 };
        let connection = Connection { socket, peer, arrival: Arrival::V4, accepted: Instant::now() };
        let worker = WorkerId { slot: Slot(1), launch: 1 };
        (Delivery { worker, service: ServiceId::Port(WorkerPort(1)), connection, until, reply }, told)
    }

    #[test]
    fn each_is_told_what_became_of_it() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut private = Private::default();
        let mut told: Vec<Told> = Vec::new();
        for seconds in 0..=8 {
            let (delivery, reply) = delivery(at(10 - seconds));
            private.push(delivery);
            told.push(reply);
        }
        assert_eq!((private.len(), private.deadline()), (MOST, Some(at(3))));
        assert_eq!(told.pop().unwrap().try_recv().unwrap(), Err(Undelivered::Full));
        private.expire(at(3));
        assert_eq!(told.pop().unwrap().try_recv().unwrap(), Err(Undelivered::TooLate));

        drop(told.remove(0));
        let second = private.pop().unwrap();
        assert_eq!(second.until, at(9));
        assert!(!private.end(Ok(())));
        private.begin(second.reply);
        assert!(private.end(Ok(())));
        assert!(!private.end(Ok(())));
        assert_eq!(told.remove(0).try_recv().unwrap(), Ok(()));

        let third = private.pop().unwrap();
        private.begin(third.reply);
        private.refuse(Undelivered::Stalled);
        assert_eq!(told.pop().unwrap().try_recv().unwrap(), Err(Undelivered::Stalled));
        assert!(private.is_empty());
        drop(private);
        assert!(told.remove(0).try_recv().is_err());
    }
}
