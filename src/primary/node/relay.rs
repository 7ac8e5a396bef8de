//! Connections for a Node worker without the shim: taken from a channel in the worker's place, and offered to it.
//!
//! The front sees a channel like any other. A connection stays in it, only looked at, until the worker has said that
//! it accepted it: so that it is given to another worker if this one refuses or dies.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use crate::ids::WorkerId;
use crate::protocol::wire::{Endpoint, FromWorker, MAX_MESSAGE, ToWorker};
use crate::sys::seqpacket;
use crate::sys::watched::Watched;

/// A connection to be passed on.
#[derive(Debug)]
pub struct Offer {
    /// The listener that it came to.
    pub key: String,
    /// A duplicate of the connection.
    pub connection: OwnedFd,
    /// What becomes of it; dropped if the worker cannot say any more.
    pub answer: oneshot::Sender<Answer>,
}

/// What became of an offered connection.
#[derive(Debug)]
pub enum Answer {
    /// The worker has it.
    Accepted,
    /// The worker does not want it.
    Refused,
    /// The worker has not looked at it in time. It was taken back, and what is in here is told when the worker moves.
    Stuck(oneshot::Receiver<()>),
}

/// Passes connections on until the channel ends, or nobody takes offers any more.
pub async fn run(worker: WorkerId, key: String, channel: OwnedFd, offers: mpsc::Sender<Offer>) {
    if let Err(error) = pass_on(&key, channel, &offers).await {
        debug!(%worker, key, %error, "no more connections are passed on");
    }
}

async fn pass_on(key: &str, channel: OwnedFd, offers: &mpsc::Sender<Offer>) -> io::Result<()> {
    let channel = Watched::new(channel, Interest::READABLE)?;
    say(&channel, FromWorker::Listening, None)?;
    loop {
        let Some((peer, connection)) = look(&channel).await? else { continue };
        let (answer, told) = oneshot::channel();
        let kept = connection.try_clone()?;
        let offer = Offer { key: key.to_owned(), connection, answer };
        if offers.send(offer).await.is_err() {
            return Ok(());
        }
        let moving = match told.await {
            Ok(Answer::Accepted) => None,
            Ok(Answer::Refused) => {
                say(&channel, FromWorker::Decline { peer, pause: false }, Some(&kept))?;
                None
            }
            Ok(Answer::Stuck(moving)) => {
                say(&channel, FromWorker::Decline { peer, pause: true }, Some(&kept))?;
                Some(moving)
            }
            // The worker is gone: the front takes the connection back.
            Err(_) => return Ok(()),
        };
        drop(seqpacket::receive(&channel, &mut [0; MAX_MESSAGE])?);
        if let Some(moving) = moving {
            drop(kept);
            if moving.await.is_err() {
                return Ok(());
            }
            say(&channel, FromWorker::Listening, None)?;
        }
    }
}

/// Waits for the next connection, and leaves it where it is. Anything else is taken and means nothing here.
async fn look(channel: &Watched) -> io::Result<Option<(Endpoint, OwnedFd)>> {
    let mut buffer = [0; MAX_MESSAGE];
    let record = channel.when_readable(|channel| seqpacket::peek(channel, &mut buffer)).await?;
    match (ToWorker::decode(&buffer[..record.len]), record.fd) {
        (Ok(ToWorker::Connection { peer }), Some(connection)) => Ok(Some((peer, connection))),
        _ if record.len == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => {
            drop(seqpacket::receive(channel, &mut buffer)?);
            Ok(None)
        }
    }
}

fn say(channel: &Watched, message: FromWorker, fd: Option<&OwnedFd>) -> io::Result<()> {
    seqpacket::send(channel, message.encode(&mut [0; MAX_MESSAGE]), fd.map(AsFd::as_fd))
}
