//! Connections for a Node worker without the shim: taken from a channel in the worker's place, and offered to it.
//!
//! The front sees a channel like any other. A connection stays in it, only looked at, until the worker has said that
//! it accepted it: so that it is given to another worker if this one refuses or dies.

use std::io;
use std::os::fd::AsFd;

use tokio::io::Interest;
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use crate::attach::room_for_a_descriptor;
use crate::ids::WorkerId;
use crate::protocol::wire::{Endpoint, FromWorker, MAX_MESSAGE, ToWorker};
use crate::sys::closer::ForeignFd;
use crate::sys::seqpacket::{self, Record};
use crate::sys::watched::Watched;

/// A connection to be passed on.
#[derive(Debug)]
pub(super) struct Offer {
    /// The listener that it came to.
    pub key: String,
    /// A duplicate of the connection.
    pub connection: ForeignFd,
    /// What becomes of it; dropped if the worker cannot say any more.
    pub answer: oneshot::Sender<Answer>,
}

/// What became of an offered connection.
#[derive(Debug)]
pub(super) enum Answer {
    /// The worker has it.
    Accepted,
    /// The worker does not want it.
    Refused,
    /// The worker has not looked at it in time. It was taken back, and what is in here is told when the worker moves.
    Stuck(oneshot::Receiver<()>),
}

/// Passes connections on until the channel ends, or nobody takes offers any more.
pub(super) async fn run(worker: WorkerId, key: String, channel: ForeignFd, offers: mpsc::Sender<Offer>) {
    if let Err(error) = pass_on(&key, channel, &offers).await {
        debug!(%worker, key, %error, "no more connections are passed on");
    }
}

async fn pass_on(key: &str, channel: ForeignFd, offers: &mpsc::Sender<Offer>) -> io::Result<()> {
    let channel = Watched::new(channel, Interest::READABLE)?;
    say(&channel, FromWorker::Listening, None)?;
    loop {
        let Some((_, connection)) = look(&channel).await? else { continue };
        let (answer, told) = oneshot::channel();
        let offer = Offer { key: key.to_owned(), connection, answer };
        if offers.send(offer).await.is_err() {
            return Ok(());
        }
        let moving = match told.await {
            Ok(Answer::Accepted) => None,
            Ok(Answer::Refused) => {
                decline(&channel, false).await?;
                None
            }
            Ok(Answer::Stuck(moving)) => {
                decline(&channel, true).await?;
                Some(moving)
            }
            // The worker is gone: the front takes the connection back.
            Err(_) => return Ok(()),
        };
        drop(seqpacket::receive(&channel, &mut [0; MAX_MESSAGE])?.fd.map(ForeignFd::from));
        if let Some(moving) = moving {
            if moving.await.is_err() {
                return Ok(());
            }
            say(&channel, FromWorker::Listening, None)?;
        }
    }
}

/// Gives back the connection that lies in the channel.
async fn decline(channel: &Watched<ForeignFd>, pause: bool) -> io::Result<()> {
    let (peer, connection) = loop {
        if let Some(seen) = look(channel).await? {
            break seen;
        }
    };
    say(channel, FromWorker::Decline { peer, pause }, Some(&connection))
}

/// Waits for the next connection, and leaves it where it is. Anything else is taken and means nothing here.
async fn look(channel: &Watched<ForeignFd>) -> io::Result<Option<(Endpoint, ForeignFd)>> {
    let mut buffer = [0; MAX_MESSAGE];
    let record = peek(channel, &mut buffer).await?;
    match (ToWorker::decode(&buffer[..record.len]), record.fd) {
        (Ok(ToWorker::Connection { peer, .. }), Some(connection)) => Ok(Some((peer, connection.into()))),
        _ if record.len == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => {
            drop(seqpacket::receive(channel, &mut buffer)?);
            Ok(None)
        }
    }
}

/// Waits for the next record, and until there is a descriptor for the one that is beside it.
async fn peek(channel: &Watched<ForeignFd>, buffer: &mut [u8]) -> io::Result<Record> {
    loop {
        room_for_a_descriptor(channel).await;
        let record = channel.when_readable(|channel| seqpacket::peek(channel, &mut *buffer)).await?;
        // Somebody else may have taken the last descriptor meanwhile.
        if !record.truncated {
            return Ok(record);
        }
    }
}

fn say(channel: &Watched<ForeignFd>, message: FromWorker, fd: Option<&ForeignFd>) -> io::Result<()> {
    seqpacket::send(channel, message.encode(&mut [0; MAX_MESSAGE]), fd.map(AsFd::as_fd))
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use super::*;
    use crate::ids::Slot;
    use crate::sys::scarcity::{no_descriptor_left, run_alone};

    const PEER: Endpoint = Endpoint::V4 { address: [192, 0, 2, 7], port: 4321 };
    const DEADLINE: Duration = Duration::from_secs(20);

    /// Hears what the relay says to the front.
    async fn heard(front: &Watched) -> (FromWorker, Option<OwnedFd>) {
        let mut buffer = [0; MAX_MESSAGE];
        let received = front.when_readable(|front| seqpacket::receive(front, &mut buffer));
        let record = tokio::time::timeout(DEADLINE, received).await.unwrap().unwrap();
        (FromWorker::decode(&buffer[..record.len]).unwrap(), record.fd)
    }

    #[test]
    fn without_a_free_descriptor_a_connection_waits_and_is_not_lost() {
        run_alone("attach::node::relay::tests::alone_without_a_free_descriptor");
    }

    #[tokio::test]
    #[ignore = "lowers the limits of its process; run by without_a_free_descriptor_a_connection_waits_and_is_not_lost"]
    async fn alone_without_a_free_descriptor() {
        let (front, channel) = seqpacket::pair().unwrap();
        let worker_end = channel.try_clone().unwrap();
        let front = Watched::new(front, Interest::READABLE).unwrap();
        let (offers, mut offered) = mpsc::channel(1);
        let worker = WorkerId { slot: Slot(1), launch: 1 };
        tokio::spawn(run(worker, "a".to_owned(), channel.into(), offers));
        assert_eq!(heard(&front).await.0, FromWorker::Listening);

        let connection = seqpacket::pair().unwrap().0;
        let filling = no_descriptor_left(&connection);
        let record = ToWorker::Connection { peer: PEER, linger: None };
        seqpacket::send(&front, record.encode(&mut [0; MAX_MESSAGE]), Some(connection.as_fd())).unwrap();
        let early = tokio::time::timeout(Duration::from_millis(200), offered.recv()).await;
        early.expect_err("there is no descriptor to offer");
        drop(filling);
        let offer = tokio::time::timeout(DEADLINE, offered.recv()).await.unwrap().unwrap();
        assert_ne!(seqpacket::waiting_bytes(&worker_end).unwrap(), 0, "it is only looked at");

        let filling = no_descriptor_left(&connection);
        offer.answer.send(Answer::Refused).unwrap();
        let mut buffer = [0; MAX_MESSAGE];
        let declined = front.when_readable(|front| seqpacket::receive(front, &mut buffer));
        let early = tokio::time::timeout(Duration::from_millis(200), declined).await;
        early.expect_err("there is no descriptor to give back");
        drop(filling);
        let (message, fd) = heard(&front).await;
        assert_eq!(message, FromWorker::Decline { peer: PEER, pause: false });
        assert!(fd.is_some());
    }
}
