//! The channel of one Node worker: what was read of it in part, what waits to be written, and which descriptors that were
//! sent are not acknowledged yet.
//!
//! What the messages mean is the session's.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;

use super::offers::Unread;
use super::snapshot::{PieceSnapshot, TransportSnapshot, countable, wrong};
use crate::carry::{CarriedFd, CarriedFds, Raw};
use crate::protocol::node::{Decoder, Fault, FromNode, Full, Outgoing, Seq, ToNode, offered};
use crate::supervisor::NodeChannel;
use crate::sys::closer::{self, ForeignFd};
use crate::sys::watched::Watched;
use crate::sys::{guarded, seqpacket};

/// How much is read at once, in bytes: many of the short messages that Node's cluster sends. Longer ones take several reads.
const READ: usize = 16 * 1024;

/// Both directions of the channel.
#[derive(Debug)]
pub(super) struct NodeTransport {
    channel: Arc<Watched<ForeignFd>>,
    worker_end: ForeignFd,
    speaker: Option<Pid>,
    decoder: Decoder,
    /// Made for the first message: most workers that are given a channel are no Node, and never say anything.
    buffer: Vec<u8>,
    outgoing: Outgoing<ForeignFd>,
    seq: Seq,
    /// Acknowledgements carry no name, and come in order.
    unacknowledged: VecDeque<Sent>,
}

/// Something that was sent with a descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Sent {
    /// What the server with this key listens on.
    Listener(String),
    /// A connection.
    Connection(Seq),
}

/// How far the worker's messages have been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// There may be more.
    More,
    /// There is nothing now.
    Empty,
    /// There will be nothing.
    End,
}

/// Why the channel cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    /// The system refuses.
    #[error("channel failed: {0}")]
    Channel(#[from] io::Error),
    /// What came is no message of it.
    #[error("worker does not speak Node's protocol: {0}")]
    Fault(#[from] Fault),
    /// The worker reads too little of what is written to it.
    #[error(transparent)]
    Full(#[from] Full),
}

impl NodeTransport {
    /// The channel, which is in non-blocking mode.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(super) fn new(channel: NodeChannel) -> io::Result<Self> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        Ok(Self {
            channel: Arc::new(Watched::new(channel.primary_end.into(), interest)?),
            worker_end: channel.worker_end.into(),
            speaker: None,
            decoder: Decoder::default(),
            buffer: Vec::new(),
            outgoing: Outgoing::default(),
            seq: Seq::default(),
            unacknowledged: VecDeque::new(),
        })
    }

    /// What it is now. Nothing of it is lost as long as nothing is read or written.
    pub(super) fn snapshot(&self) -> TransportSnapshot {
        let pieces = self
            .outgoing
            .pieces()
            .map(|(bytes, fd)| PieceSnapshot { bytes: Raw(bytes.to_owned()), fd: fd.map(CarriedFd::of) });
        TransportSnapshot {
            channel: CarriedFd::of(&*self.channel),
            worker_end: CarriedFd::of(&self.worker_end),
            speaker: self.speaker.map(Pid::as_raw_pid),
            partial: Raw(self.decoder.partial().to_owned()),
            outgoing: pieces.collect(),
            seq: self.seq,
            unacknowledged: self.unacknowledged.iter().cloned().collect(),
        }
    }

    /// Goes on where it was.
    ///
    /// # Errors
    /// What was written down cannot be, or a descriptor was not carried; and those of epoll_ctl(2).
    pub(super) fn restore(snapshot: TransportSnapshot, fds: &CarriedFds) -> io::Result<Self> {
        let TransportSnapshot { channel, worker_end, speaker, partial, outgoing, seq, unacknowledged } =
            snapshot;
        let (primary_end, worker_end) = (fds.take(channel)?, fds.take(worker_end)?);
        let mut transport = Self::new(NodeChannel { primary_end, worker_end })?;
        transport.speaker = speaker.filter(|&speaker| speaker > 0).and_then(Pid::from_raw);
        let mut whole = Vec::new();
        transport.decoder.feed(&partial.0, &mut whole).map_err(io::Error::other)?;
        if !whole.is_empty() {
            return Err(wrong("a message of a worker was left unheard"));
        }
        transport.outgoing.put_back(pieces(outgoing, fds)?.into_iter());
        transport.seq = countable(seq)?;
        transport.unacknowledged = unacknowledged.into();
        Ok(transport)
    }

    /// What to wait on.
    pub(super) fn channel(&self) -> Arc<Watched<ForeignFd>> {
        Arc::clone(&self.channel)
    }

    /// The process that wrote last: Node, which may be a child of the worker's first process.
    pub(super) fn speaker(&self) -> Option<Pid> {
        self.speaker
    }

    /// The number of the next message.
    pub(super) fn next_seq(&mut self) -> Seq {
        self.seq.take()
    }

    /// Reads once. What is whole by then is in `messages`, also if there is an error.
    ///
    /// # Errors
    /// Those of recvmsg(2), or what came is no message.
    pub(super) async fn read(&mut self, messages: &mut Vec<FromNode>) -> Result<Reading, TransportError> {
        let (reading, len) = self.receive().await?;
        self.decoder.feed(&self.buffer[..len], messages)?;
        Ok(reading)
    }

    /// Reads once, and keeps nothing.
    ///
    /// # Errors
    /// Those of recvmsg(2).
    pub(super) async fn discard(&mut self) -> io::Result<Reading> {
        Ok(self.receive().await?.0)
    }

    /// Receives into the buffer; returns how much. Descriptors are of no use to clusterd, and how long it takes to close
    /// them is for the worker to decide: that is done elsewhere.
    async fn receive(&mut self) -> io::Result<(Reading, usize)> {
        self.buffer.resize(READ, 0);
        let seen = match guarded::look(&*self.channel, &mut self.buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok((Reading::Empty, 0)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok((Reading::End, 0)),
            seen => seen?,
        };
        if seen.len == 0 {
            return Ok((Reading::End, 0));
        }
        // No more than was seen, for descriptors may lie behind it.
        let sender = if seen.has_descriptors {
            let (channel, len) = (Arc::clone(&self.channel), seen.len);
            closer::elsewhere(move || Ok(seqpacket::receive(&*channel, &mut vec![0; len])?.sender)).await?
        } else {
            seqpacket::receive(&*self.channel, &mut self.buffer[..seen.len])?.sender
        };
        self.speaker = sender.or(self.speaker);
        Ok((Reading::More, seen.len))
    }

    /// Queues a message.
    ///
    /// # Errors
    /// Too much waits to be written already.
    pub(super) fn push(&mut self, message: ToNode<'_, ForeignFd>) -> Result<(), TransportError> {
        Ok(self.outgoing.push(message)?)
    }

    /// Queues a message with a descriptor, which is acknowledged when it has arrived.
    ///
    /// # Errors
    /// Too much waits to be written already.
    pub(super) fn push_descriptor(
        &mut self,
        message: ToNode<'_, ForeignFd>,
        sent: Sent,
    ) -> Result<(), TransportError> {
        self.push(message)?;
        self.unacknowledged.push_back(sent);
        Ok(())
    }

    /// Whether something waits to be written.
    pub(super) fn has_to_write(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Writes what there is room for; whether that was everything.
    ///
    /// # Errors
    /// Those of sendmsg(2).
    pub(super) fn flush(&mut self) -> Result<bool, TransportError> {
        while let Some((bytes, fd)) = self.outgoing.front() {
            match seqpacket::send_part(&*self.channel, bytes, fd.map(AsFd::as_fd)) {
                Ok(len) => self.outgoing.sent(len),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                // The worker is gone; what it wrote before can still be read.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.outgoing = Outgoing::default();
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// The descriptor that was sent first has arrived, or has not: what it was.
    pub(super) fn acknowledged(&mut self) -> Option<Sent> {
        self.unacknowledged.pop_front()
    }

    /// The inode of the worker's end.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub(super) fn workers_inode(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&self.worker_end)?.st_ino)
    }

    /// Whether the worker has read all that there was for it.
    ///
    /// # Errors
    /// Those of ioctl(2).
    pub(super) fn is_read(&self) -> io::Result<bool> {
        Ok(self.outgoing.is_empty() && seqpacket::waiting_bytes(&self.worker_end)? == 0)
    }

    /// Reads what the worker has not read, in its place, and queues whatever is no connection again. The connections among
    /// it are closed hereby; these are their numbers.
    ///
    /// # Errors
    /// Those of recvmsg(2).
    pub(super) async fn take_back(&mut self) -> io::Result<Vec<Seq>> {
        // Nothing may have been read yet since it was written down.
        self.buffer.resize(READ, 0);
        let Unread { mut connections, rest } = Unread::take(&self.worker_end, &mut self.buffer).await?;
        // Behind a long message, some may not even have been sent.
        connections.extend(self.outgoing.take_unsent(offered));
        let is_back = |sent: &Sent| matches!(sent, Sent::Connection(seq) if connections.contains(seq));
        self.unacknowledged.retain(|sent| !is_back(sent));
        self.outgoing.put_back(rest.into_iter());
        Ok(connections)
    }
}

fn pieces(outgoing: Vec<PieceSnapshot>, fds: &CarriedFds) -> io::Result<Vec<(Vec<u8>, Option<ForeignFd>)>> {
    let piece = |PieceSnapshot { bytes: Raw(bytes), fd }: PieceSnapshot| {
        // It would never be sent.
        if bytes.is_empty() {
            return Err(wrong("a message to a worker has no bytes"));
        }
        let fd = fd.map(|fd| fds.take(fd)).transpose()?;
        Ok((bytes, fd.map(ForeignFd::from)))
    };
    outgoing.into_iter().map(piece).collect()
}
