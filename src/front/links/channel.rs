//! The two descriptors of a link: records out, records in, and records taken back.
//!
//! It decides nothing: which records there should be is known to the link.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::Interest;

use crate::carry::CarriedFd;
use crate::front::connection::Connection;
use crate::protocol::wire::{Endpoint, FromWorker, Linger, MAX_MESSAGE, ToWorker};
use crate::sys::closer::ForeignFd;
use crate::sys::watched::Watched;
use crate::sys::{guarded, seqpacket};

/// Both ends of a channel, of which the worker has the other in its listener's place.
#[derive(Debug)]
pub(super) struct Channel {
    ours: Watched<ForeignFd>,
    worker_end: ForeignFd,
    wake: Waker,
    /// Something was received at the other end since that was last asked about.
    has_moved: bool,
}

/// Why a link is broken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A record that is no message, or one that has no place in this state.
    Malformed,
    /// The channel was shut down, or failed in this way.
    Channel(io::ErrorKind),
}

/// A message and its descriptor, or why there is none.
pub(super) type Received = Result<(FromWorker, Option<ForeignFd>), Fault>;

/// What came of reading a worker's next message.
pub(super) enum Reading {
    /// This.
    Message(Received),
    /// There is nothing that was not read before.
    Nothing,
    /// There is something, and no descriptor is free for the one that may be beside it.
    NoRoom,
}

/// What came of taking a record back.
pub(super) enum Recovered {
    /// A connection.
    Connection { socket: ForeignFd, peer: Endpoint },
    /// Something else, which is gone now.
    Other,
    /// Nothing is left.
    Nothing,
}

impl Channel {
    /// Watches the primary's end; `wake` is used when there is something to look at.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(super) fn new(ours: ForeignFd, worker_end: ForeignFd, wake: Waker) -> io::Result<Self> {
        let ours = Watched::new(ours, Interest::READABLE)?;
        Ok(Self { ours, worker_end, wake, has_moved: false })
    }

    /// The primary's end and the duplicate of the worker's, as they are written down.
    pub(super) fn ends(&self) -> (CarriedFd, CarriedFd) {
        (CarriedFd::of(&self.ours), CarriedFd::of(&self.worker_end))
    }

    /// Sends a connection, and how it is to linger; returns the size of its record.
    ///
    /// # Errors
    /// Those of sendmsg(2).
    pub(super) fn send(&self, connection: &Connection, linger: Option<Linger>) -> io::Result<usize> {
        let message = ToWorker::Connection { peer: connection.peer, linger };
        self.send_record(message, Some(connection.socket.as_fd()))
    }

    /// Sends a message that carries no descriptor.
    ///
    /// # Errors
    /// Those of sendmsg(2).
    pub(super) fn notify(&self, message: ToWorker) -> io::Result<usize> {
        self.send_record(message, None)
    }

    fn send_record(&self, message: ToWorker, fd: Option<BorrowedFd<'_>>) -> io::Result<usize> {
        let mut buffer = [0; MAX_MESSAGE];
        let record = message.encode(&mut buffer);
        seqpacket::send(&self.ours, record, fd)?;
        Ok(record.len())
    }

    /// Where the kernel signals EPOLLOUT each time that the worker has received a record.
    pub(super) fn signals(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }

    /// That was signalled.
    pub(super) fn moved(&mut self) {
        self.has_moved = true;
    }

    /// What was signalled before this is of no interest: to be called before a record is sent into an empty channel.
    pub(super) fn expect_taking(&mut self) {
        self.has_moved = false;
    }

    /// Ready when the worker has received something that `is_news` tells of, given how many bytes lie in the channel. It is
    /// asked once for each signal.
    pub(super) fn poll_taking(&mut self, is_news: impl FnOnce(usize) -> bool) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.has_moved) && is_news(self.untaken_bytes()?) {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// How many bytes of records the worker has not received.
    ///
    /// # Errors
    /// Those of ioctl(2).
    pub(super) fn untaken_bytes(&self) -> io::Result<usize> {
        seqpacket::waiting_bytes(&self.worker_end)
    }

    /// Reads the next message, or registers the waker for it.
    pub(super) fn poll_read(&self, may_carry_descriptor: bool) -> Poll<Reading> {
        let mut cx = Context::from_waker(&self.wake);
        loop {
            let mut guard = match ready!(self.ours.poll_read_ready(&mut cx)) {
                Ok(guard) => guard,
                Err(error) => return Poll::Ready(Reading::Message(Err(Fault::Channel(error.kind())))),
            };
            match self.read(may_carry_descriptor) {
                Reading::Nothing => guard.clear_ready(),
                reading => return Poll::Ready(reading),
            }
        }
    }

    /// Reads the next message, if there is one. If it may carry a descriptor, it is left where it is until there is room
    /// for that.
    pub(super) fn read(&self, may_carry_descriptor: bool) -> Reading {
        if may_carry_descriptor && matches!(seqpacket::has_record(&self.ours), Ok(false)) {
            return Reading::Nothing;
        }
        if may_carry_descriptor && seqpacket::room_for_a_descriptor(&self.ours).is_err() {
            return Reading::NoRoom;
        }
        // One byte more than any message, so that a longer record is seen to be longer.
        let mut buffer = [0; MAX_MESSAGE + 1];
        let received = match guarded::receive(&self.ours, &mut buffer) {
            Ok(record) if record.len == 0 => Err(Fault::Channel(io::ErrorKind::UnexpectedEof)),
            Ok(record) => match FromWorker::decode(&buffer[..record.len]) {
                Ok(message) => Ok((message, record.fd)),
                Err(_) => Err(Fault::Malformed),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Reading::Nothing,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Fault::Malformed),
            Err(error) => Err(Fault::Channel(error.kind())),
        };
        Reading::Message(received)
    }

    /// Receives, in the worker's place, the next record that it has not.
    ///
    /// # Errors
    /// Those of recvmsg(2), and that there is no descriptor free.
    pub(super) fn take_back(&self) -> io::Result<Recovered> {
        seqpacket::room_for_a_descriptor(&self.worker_end)?;
        let mut buffer = [0; MAX_MESSAGE];
        let record = match seqpacket::receive(&self.worker_end, &mut buffer) {
            Ok(record) if record.len == 0 => return Ok(Recovered::Nothing),
            Ok(record) => record,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Recovered::Nothing),
            Err(error) => return Err(error),
        };
        Ok(match (ToWorker::decode(&buffer[..record.len]), record.fd.map(ForeignFd::from)) {
            (Ok(ToWorker::Connection { peer, .. }), Some(socket)) => Recovered::Connection { socket, peer },
            _ => Recovered::Other,
        })
    }
}
