//! The connections that a worker without the shim was offered, and what becomes of those that it does not look at.
//!
//! It neither sends offers nor hears answers; that is the session's.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use tokio::sync::oneshot;

use super::relay::Answer;
use super::snapshot::{MadeSnapshot, OffersSnapshot, countable};
use crate::attach::room_for_a_descriptor;
use crate::carry::Moment;
use crate::ids::LinkId;
use crate::protocol::node::{Seq, offered};
use crate::sys::closer::ForeignFd;
use crate::sys::seqpacket;

/// What a worker was offered and has neither accepted nor refused.
#[derive(Debug, Default)]
pub(super) struct Offers {
    made: BTreeMap<Seq, Made>,
    stuck: Stuck,
}

#[derive(Debug)]
struct Made {
    /// The channel of the relay that waits for what becomes of it.
    link: LinkId,
    answer: oneshot::Sender<Answer>,
    /// When to take it back; none once the worker has looked at it.
    until: Option<Instant>,
}

/// Whether the worker reads what it is told.
#[derive(Debug, Default)]
enum Stuck {
    /// As far as is known.
    #[default]
    No,
    /// Not since a connection was taken back. Those who wait for it to move are told then.
    Yes(Vec<oneshot::Sender<()>>),
}

impl Offers {
    /// Returns `answer` if the worker may be offered a connection; otherwise tells it that the worker is stuck.
    pub(super) fn unless_stuck(
        &mut self,
        answer: oneshot::Sender<Answer>,
    ) -> Option<oneshot::Sender<Answer>> {
        if !self.is_stuck() {
            return Some(answer);
        }
        // A relay that is gone asks for nothing more.
        let _ = answer.send(Answer::Stuck(self.moving()));
        None
    }

    /// Told when the worker moves.
    pub(super) fn moving(&mut self) -> oneshot::Receiver<()> {
        let (moves, moving) = oneshot::channel();
        match &mut self.stuck {
            Stuck::Yes(waiting) => waiting.push(moves),
            Stuck::No => drop(moves.send(())),
        }
        moving
    }

    /// A connection from this channel was offered, to be taken back at `until`.
    pub(super) fn made(
        &mut self,
        seq: Seq,
        (link, answer): (LinkId, oneshot::Sender<Answer>),
        until: Instant,
    ) {
        self.made.insert(seq, Made { link, answer, until: Some(until) });
    }

    /// Whether one from this channel was offered, and it is not known what becomes of it.
    pub(super) fn has_from(&self, link: LinkId) -> bool {
        self.made.values().any(|made| made.link == link)
    }

    /// It is known what becomes of a connection.
    pub(super) fn told(&mut self, seq: Seq, answer: Answer) {
        if let Some(made) = self.made.remove(&seq) {
            let _ = made.answer.send(answer);
        }
    }

    /// When what the worker has not read is to be taken back.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.made.values().filter_map(|made| made.until).min()
    }

    /// These connections were taken back, and all others have been read by the worker. Returns whether there are any:
    /// the worker is stuck then.
    pub(super) fn taken_back(&mut self, connections: &[Seq]) -> bool {
        for made in self.made.values_mut() {
            made.until = None;
        }
        if connections.is_empty() {
            return false;
        }
        self.stuck = Stuck::Yes(Vec::new());
        for seq in connections {
            if let Some(made) = self.made.remove(seq) {
                self.unless_stuck(made.answer);
            }
        }
        true
    }

    /// Whether the worker has left a connection unread and has not moved since.
    pub(super) fn is_stuck(&self) -> bool {
        matches!(self.stuck, Stuck::Yes(_))
    }

    /// The worker reads again.
    pub(super) fn moves(&mut self) {
        if let Stuck::Yes(waiting) = std::mem::take(&mut self.stuck) {
            for relay in waiting {
                let _ = relay.send(());
            }
        }
    }
}

impl Offers {
    /// As they are written down. Who waits for the worker to move tells that by itself.
    pub(super) fn snapshot(&self) -> OffersSnapshot {
        let made = self.made.iter().map(|(&seq, made)| MadeSnapshot {
            seq,
            link: made.link,
            until: made.until.map(Moment::from),
        });
        OffersSnapshot { made: made.collect(), is_stuck: self.is_stuck() }
    }

    /// As they were; and what tells the relay of each channel what becomes of its connection.
    ///
    /// # Errors
    /// What was written down cannot be.
    pub(super) fn restore(
        OffersSnapshot { made, is_stuck }: OffersSnapshot,
    ) -> io::Result<(Self, BTreeMap<LinkId, oneshot::Receiver<Answer>>)> {
        let (mut offers, mut relays) = (Self::default(), BTreeMap::new());
        if is_stuck {
            offers.stuck = Stuck::Yes(Vec::new());
        }
        for MadeSnapshot { seq, link, until } in made {
            let (answer, told) = oneshot::channel();
            offers.made.insert(countable(seq)?, Made { link, answer, until: until.map(Instant::from) });
            relays.insert(link, told);
        }
        Ok((offers, relays))
    }
}

/// What was sent to a worker and not read by it.
#[derive(Debug)]
pub(super) struct Unread {
    /// The connections among it, which are closed hereby: the relay has its own copy.
    pub connections: Vec<Seq>,
    /// All else, in its order: bytes, and the descriptor that was beside them.
    pub rest: Vec<(Vec<u8>, Option<ForeignFd>)>,
}

impl Unread {
    /// Receives from the worker's end of the channel, in the worker's place, until there is nothing left. Waits
    /// whenever there is no descriptor free for one that may be there.
    ///
    /// # Errors
    /// Those of recvmsg(2).
    pub(super) async fn take(worker_end: impl AsFd, buffer: &mut [u8]) -> io::Result<Self> {
        let mut unread = Self { connections: Vec::new(), rest: Vec::new() };
        loop {
            room_for_a_descriptor(&worker_end).await;
            match seqpacket::receive(&worker_end, buffer) {
                Ok(record) if record.len == 0 => return Ok(unread),
                Ok(record) => {
                    let fd = record.fd.map(ForeignFd::from);
                    unread.sort(&buffer[..record.len], fd, record.truncated);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(unread),
                Err(error) => return Err(error),
            }
        }
    }

    /// A descriptor is the last thing that one recvmsg(2) returns (unix(7)), so that it belongs to the last line; also
    /// one that was `lost`, since somebody else was faster to take the last that was free.
    fn sort(&mut self, bytes: &[u8], fd: Option<ForeignFd>, lost: bool) {
        if fd.is_none() && !lost {
            self.rest.push((bytes.to_vec(), None));
            return;
        }
        let before_last = bytes.len().saturating_sub(1);
        let start = bytes[..before_last].iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let (before, line) = bytes.split_at(start);
        if !before.is_empty() {
            self.rest.push((before.to_vec(), None));
        }
        match offered(line) {
            Some(seq) => self.connections.push(seq),
            None => self.rest.push((line.to_vec(), fd)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::protocol::node::{HandleType, ToNode};
    use crate::sys::scarcity::{no_descriptor_left, run_alone};
    use std::time::Duration;

    fn send(socket: &OwnedFd, message: ToNode<'_>) {
        let (line, fd) = message.into_line();
        let sent = seqpacket::send_part(socket, &line, fd.as_ref().map(AsFd::as_fd)).unwrap();
        assert_eq!(sent, line.len());
    }

    fn a_descriptor() -> OwnedFd {
        seqpacket::pair().unwrap().0
    }

    /// The primary's end of a Node channel, and the worker's.
    fn node_channel() -> (OwnedFd, OwnedFd) {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[tokio::test]
    async fn connections_are_told_from_all_else_and_the_order_is_kept() {
        let (ours, workers) = node_channel();
        let (ack, data) = (Seq(7), None);
        send(&ours, ToNode::Ack { seq: Seq(0), ack });
        send(&ours, ToNode::Disconnect { seq: Seq(1) });
        send(&ours, ToNode::NewConn { seq: Seq(2), key: "a", fd: a_descriptor() });
        send(&ours, ToNode::NewConn { seq: Seq(3), key: "b", fd: a_descriptor() });
        let handle = HandleType::Net;
        send(&ours, ToNode::Shared { seq: Seq(4), ack, key: "c", data, handle, fd: a_descriptor() });
        send(&ours, ToNode::HandleAck);
        let unread = Unread::take(&workers, &mut [0; 4096]).await.unwrap();
        assert_eq!(unread.connections, [Seq(2), Seq(3)]);
        let text: Vec<u8> = unread.rest.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.find("disconnect") < text.find("net.Native"), "{text}");
        assert_eq!(unread.rest.iter().filter(|(_, fd)| fd.is_some()).count(), 1);
    }

    #[test]
    fn without_a_free_descriptor_what_was_not_read_stays_where_it_is() {
        run_alone("attach::node::offers::tests::alone_without_a_free_descriptor");
    }

    #[tokio::test]
    #[ignore = "lowers the limits of its process; run by without_a_free_descriptor_what_was_not_read_stays_where_it_is"]
    async fn alone_without_a_free_descriptor() {
        let (ours, workers) = node_channel();
        send(&ours, ToNode::NewConn { seq: Seq(2), key: "a", fd: a_descriptor() });
        let (handle, ack, data) = (HandleType::Net, Seq(7), None);
        send(&ours, ToNode::Shared { seq: Seq(4), ack, key: "c", data, handle, fd: a_descriptor() });
        let filling = no_descriptor_left();
        let mut taking = tokio::spawn(async move { Unread::take(&workers, &mut [0; 4096]).await });
        tokio::time::timeout(Duration::from_millis(200), &mut taking).await.expect_err("it has no room");
        drop(filling);
        let unread = taking.await.unwrap().unwrap();
        assert_eq!(unread.connections, [Seq(2)]);
        assert!(matches!(unread.rest.as_slice(), [(_, Some(_))]), "{:?}", unread.rest);
    }

    #[test]
    fn a_stuck_worker_is_offered_nothing_until_it_moves() {
        let now = Instant::now();
        let mut offers = Offers::default();
        let (answer, mut first) = oneshot::channel();
        offers.made(Seq(1), (LinkId(1), answer), now + Duration::from_secs(1));
        assert_eq!(offers.deadline(), Some(now + Duration::from_secs(1)));
        assert!(offers.taken_back(&[Seq(1)]));
        assert!(offers.is_stuck());
        let (answer, mut second) = oneshot::channel();
        assert!(offers.unless_stuck(answer).is_none());
        let mut moving = [&mut first, &mut second].map(|told| match told.try_recv().unwrap() {
            Answer::Stuck(moving) => moving,
            other => panic!("{other:?}"),
        });
        assert!(moving.iter_mut().all(|moving| moving.try_recv().is_err()));
        offers.moves();
        assert!(moving.iter_mut().all(|moving| moving.try_recv().is_ok()));
        assert!(!offers.is_stuck());
    }

    #[test]
    fn a_worker_that_has_read_everything_is_waited_for() {
        let mut offers = Offers::default();
        let (answer, _told) = oneshot::channel();
        offers.made(Seq(1), (LinkId(1), answer), Instant::now());
        assert!(!offers.taken_back(&[]));
        assert!(!offers.is_stuck());
        assert_eq!(offers.deadline(), None);
    }
}
