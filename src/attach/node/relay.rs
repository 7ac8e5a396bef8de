//! Connections for a Node worker without the shim: taken from a channel in the worker's place, and offered to it.
//!
//! The front sees a channel like any other. A connection stays in it, only looked at, until the worker has said that
//! it accepted it: so that it is given to another worker if this one refuses or dies.

use std::io;
use std::os::fd::AsFd;

use tokio::io::Interest;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tracing::debug;

use super::snapshot::{RelayPosition, RelaySnapshot};
use crate::attach::room_for_a_descriptor;
use crate::carry::{CarriedFd, StandStill, Still, stand_still};
use crate::ids::{LinkId, WorkerId};
use crate::protocol::wire::{Endpoint, FromWorker, MAX_MESSAGE, ToWorker};
use crate::sys::closer::ForeignFd;
use crate::sys::seqpacket::{self, Record};
use crate::sys::watched::Watched;
use crate::tasks;

/// A connection to be passed on.
#[derive(Debug)]
pub(super) struct Offer {
    /// The channel that it lies in.
    pub link: LinkId,
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

/// For whom a relay is.
#[derive(Debug)]
pub(super) struct Recipient {
    pub worker: WorkerId,
    /// The listener's.
    pub key: String,
    /// The channel's.
    pub link: LinkId,
}

/// A relay that runs, until this is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    task: AbortHandle,
    asks: mpsc::Sender<StandStill<RelaySnapshot>>,
}

/// What a relay does. The connection that it is about lies in the channel until it is done with it.
#[derive(Debug)]
pub(super) enum Doing {
    /// It looks for the next connection.
    Looking,
    /// It waits for what becomes of the one that was offered.
    Offered(oneshot::Receiver<Answer>),
    /// It gives it back to the front; and waits for a stuck worker to move afterwards.
    Declining(Option<oneshot::Receiver<()>>),
    /// It waits for the worker to move.
    Stuck(oneshot::Receiver<()>),
}

/// What runs.
struct Passing {
    recipient: Recipient,
    channel: Watched<ForeignFd>,
    offers: mpsc::Sender<Offer>,
    doing: Doing,
}

impl Relay {
    /// Tells the front that the server listens, and passes connections on until the channel ends, or nobody takes offers any
    /// more.
    pub(super) fn begin(recipient: Recipient, channel: ForeignFd, offers: mpsc::Sender<Offer>) -> Self {
        Self::run(recipient, channel, offers, None)
    }

    /// Goes on with what another was `doing` on this channel.
    pub(super) fn go_on(
        recipient: Recipient,
        channel: ForeignFd,
        offers: mpsc::Sender<Offer>,
        doing: Doing,
    ) -> Self {
        Self::run(recipient, channel, offers, Some(doing))
    }

    fn run(
        recipient: Recipient,
        channel: ForeignFd,
        offers: mpsc::Sender<Offer>,
        doing: Option<Doing>,
    ) -> Self {
        let (asks, asked) = mpsc::channel(1);
        let passing = async move {
            let (worker, key) = (recipient.worker, recipient.key.clone());
            let passed_on = async {
                let channel = Watched::new(channel, Interest::READABLE)?;
                if doing.is_none() {
                    say(&channel, FromWorker::Listening, None)?;
                }
                let doing = doing.unwrap_or(Doing::Looking);
                Passing { recipient, channel, offers, doing }.pass_on(asked).await
            };
            if let Err(error) = passed_on.await {
                debug!(%worker, key, %error, "no more connections are passed on");
            }
        };
        Self { task: tasks::spawn(passing).abort_handle(), asks }
    }

    /// It does nothing until what is returned is dropped; `None` if it has ended. What it was told before that, it knows.
    pub(super) async fn stand_still(&self) -> Option<Still<RelaySnapshot>> {
        let (asked, mut frozen) = stand_still();
        self.asks.send(asked).await.ok()?;
        Some(Still::new(frozen.state().await?, frozen))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Doing {
    fn position(&self) -> RelayPosition {
        match self {
            Doing::Looking => RelayPosition::Looking,
            Doing::Offered(_) => RelayPosition::Offered,
            Doing::Declining(None) => RelayPosition::Declining,
            Doing::Declining(Some(_)) => RelayPosition::DecliningStuck,
            Doing::Stuck(_) => RelayPosition::Stuck,
        }
    }
}

impl Passing {
    async fn pass_on(mut self, mut asked: mpsc::Receiver<StandStill<RelaySnapshot>>) -> io::Result<()> {
        loop {
            tokio::select! {
                // What it was told before it is asked to stand still comes first.
                biased;
                next = self.step() => match next? {
                    Some(next) => self.doing = next,
                    None => return Ok(()),
                },
                Some(asked) = asked.recv() => {
                    let (channel, position) = (CarriedFd::of(&self.channel), self.doing.position());
                    asked.with(RelaySnapshot { channel, position }).await;
                }
            }
        }
    }

    /// What to do next; `None` when the worker is gone: the front takes back what is in the channel. Cancel safe: whatever
    /// changes anything is done without waiting in between.
    async fn step(&mut self) -> io::Result<Option<Doing>> {
        Ok(Some(match &mut self.doing {
            Doing::Looking => {
                let Some((_, connection)) = look(&self.channel).await? else {
                    return Ok(Some(Doing::Looking));
                };
                let Recipient { link, key, .. } = &self.recipient;
                let (answer, told) = oneshot::channel();
                let offer = Offer { link: *link, key: key.clone(), connection, answer };
                if self.offers.send(offer).await.is_err() {
                    return Ok(None);
                }
                Doing::Offered(told)
            }
            Doing::Offered(told) => match told.await {
                Ok(Answer::Accepted) => {
                    take(&self.channel)?;
                    Doing::Looking
                }
                Ok(Answer::Refused) => Doing::Declining(None),
                Ok(Answer::Stuck(moving)) => Doing::Declining(Some(moving)),
                Err(_) => return Ok(None),
            },
            Doing::Declining(moving) => {
                decline(&self.channel, moving.is_some()).await?;
                moving.take().map_or(Doing::Looking, Doing::Stuck)
            }
            Doing::Stuck(moving) => {
                if moving.await.is_err() {
                    return Ok(None);
                }
                say(&self.channel, FromWorker::Listening, None)?;
                Doing::Looking
            }
        }))
    }
}

/// Gives back the connection that lies in the channel.
async fn decline(channel: &Watched<ForeignFd>, pause: bool) -> io::Result<()> {
    let (peer, connection) = loop {
        if let Some(seen) = look(channel).await? {
            break seen;
        }
    };
    say(channel, FromWorker::Decline { peer, pause }, Some(&connection))?;
    take(channel)
}

/// Takes the connection that lies in the channel, and closes this copy.
fn take(channel: &Watched<ForeignFd>) -> io::Result<()> {
    drop(seqpacket::receive(channel, &mut [0; MAX_MESSAGE])?.fd.map(ForeignFd::from));
    Ok(())
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
        let recipient = Recipient { worker, key: "a".to_owned(), link: LinkId(1) };
        let _relay = Relay::begin(recipient, channel.into(), offers);
        assert_eq!(heard(&front).await.0, FromWorker::Listening);

        let connection = seqpacket::pair().unwrap().0;
        let filling = no_descriptor_left();
        let record = ToWorker::Connection { peer: PEER, linger: None };
        seqpacket::send(&front, record.encode(&mut [0; MAX_MESSAGE]), Some(connection.as_fd())).unwrap();
        let early = tokio::time::timeout(Duration::from_millis(200), offered.recv()).await;
        early.expect_err("there is no descriptor to offer");
        drop(filling);
        let offer = tokio::time::timeout(DEADLINE, offered.recv()).await.unwrap().unwrap();
        assert_ne!(seqpacket::waiting_bytes(&worker_end).unwrap(), 0, "it is only looked at");

        let filling = no_descriptor_left();
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
