//! The session with one Node worker, from its first word to the end of its channel.
//!
//! What the words look like on the wire is in `protocol::node`; this is what they lead to.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::process::Pid;
use serde_json::value::RawValue;
use tokio::io::Interest;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use super::listeners::Joined;
use super::offers::{Offers, Unread};
use super::relay::{self, Answer, Offer};
use super::{Rooms, Word};
use crate::front::links::{Attachment, ChannelPermit, Holder};
use crate::ids::{LinkId, ServiceId, WorkerId};
use crate::protocol::name_address;
use crate::protocol::node::{
    Decoder, Errno, Fault, FromNode, Full, HandleType, Outgoing, Query, Received, Seq, ToNode,
};
use crate::protocol::wire::{ChannelName, Endpoint};
use crate::settings::Policy;
use crate::supervisor::{NodeChannel, process_table};
use crate::sys::seqpacket;
use crate::sys::watched::Watched;

/// How much is read at once, in bytes: what libuv writes at most.
const READ: usize = 64 * 1024;

/// How many reads follow each other before others get their turn.
const READS: usize = 2;

/// How many servers one worker may have.
const MOST_SERVERS: usize = 256;

/// What one worker and clusterd say to each other.
#[derive(Debug)]
pub struct NodeSession {
    worker: WorkerId,
    /// The process that spoke last: Node, which may be a child of the worker's first process.
    speaker: Option<Pid>,
    channel: Arc<Watched>,
    worker_end: OwnedFd,
    rooms: Rooms,
    lines: Lines,
    decoder: Decoder,
    buffer: Box<[u8]>,
    outgoing: Outgoing,
    seq: Seq,
    servers: BTreeMap<String, Server>,
    /// What was sent with a descriptor and is not acknowledged yet: acknowledgements carry no name, and come in order.
    sent: VecDeque<Sent>,
    offers: Offers,
    relays: (mpsc::Sender<Offer>, mpsc::Receiver<Offer>),
}

/// What a session hears from the rest of clusterd, and tells it.
#[derive(Debug)]
pub struct Lines {
    /// The worker is to leave.
    pub disconnect: watch::Receiver<bool>,
    /// The worker is gone.
    pub gone: oneshot::Receiver<()>,
    /// What the worker says.
    pub words: mpsc::Sender<Word>,
}

/// A server of the worker.
#[derive(Debug)]
struct Server {
    query: Query,
    source: Source,
}

/// How a server gets its connections.
#[derive(Debug)]
enum Source {
    /// From a channel of the attach protocol, on which the shim says that it listens.
    Channel(LinkId),
    /// From a relay, which begins when the server listens.
    Relay { link: LinkId, port: u16, worker_end: Option<OwnedFd>, relay: Option<AbortHandle> },
    /// It accepts by itself, from a socket that the front keeps.
    Shared { link: LinkId, port: u16 },
    /// It has a socket of which the front does not know.
    Other,
}

/// Something that was sent with a descriptor.
#[derive(Debug)]
enum Sent {
    /// What the server with this key listens on.
    Listener(String),
    /// A connection.
    Connection(Seq),
}

/// How far the worker's words have been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// There may be more.
    More,
    /// There is nothing now.
    Empty,
    /// There will be nothing.
    End,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the channel failed: {0}")]
    Channel(#[from] io::Error),
    #[error("the worker does not speak Node's protocol: {0}")]
    Fault(#[from] Fault),
    #[error(transparent)]
    Full(#[from] Full),
}

impl NodeSession {
    /// A session over `channel`, which is in non-blocking mode.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn new(worker: WorkerId, channel: NodeChannel, rooms: Rooms, lines: Lines) -> io::Result<Self> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        Ok(Self {
            worker,
            speaker: None,
            channel: Arc::new(Watched::new(channel.primary_end, interest)?),
            worker_end: channel.worker_end,
            rooms,
            lines,
            decoder: Decoder::default(),
            buffer: vec![0; READ].into_boxed_slice(),
            outgoing: Outgoing::default(),
            seq: Seq::default(),
            servers: BTreeMap::new(),
            sent: VecDeque::new(),
            offers: Offers::default(),
            // A relay offers one connection, and waits for what becomes of it.
            relays: mpsc::channel(1),
        })
    }

    /// Talks until the channel ends. A worker that breaks the protocol is cut off, whereupon it exits.
    pub async fn run(mut self) {
        match self.session().await {
            Ok(()) => debug!(worker = %self.worker, "the Node channel is closed"),
            Err(ended) => warn!(worker = %self.worker, "closed the Node channel: {ended}"),
        }
        for (key, server) in std::mem::take(&mut self.servers) {
            self.end(key, server).await;
        }
    }

    async fn session(&mut self) -> Result<(), Ended> {
        let channel = Arc::clone(&self.channel);
        loop {
            self.flush()?;
            let take_back_at = self.offers.deadline();
            tokio::select! {
                ready = channel.readable() => {
                    let mut ready = ready?;
                    match self.read().await? {
                        Reading::More => tokio::task::yield_now().await,
                        Reading::Empty => ready.clear_ready(),
                        Reading::End => return Ok(()),
                    }
                }
                ready = channel.writable(), if self.wants_to_write() => {
                    let mut ready = ready?;
                    if !self.flush()? || self.offers.is_stuck() {
                        ready.clear_ready();
                        self.look_whether_it_moves()?;
                    }
                }
                Some(offer) = self.relays.1.recv() => self.offer(offer)?,
                () = sleep_until(take_back_at), if take_back_at.is_some() => self.take_back().await?,
                Ok(()) = self.lines.disconnect.changed() => self.disconnect()?,
                _ = &mut self.lines.gone => return self.read_rest().await,
            }
        }
    }

    /// Asks the worker to leave when it has finished what it has: `worker.disconnect()`, as Node's primary has it.
    fn disconnect(&mut self) -> Result<(), Ended> {
        let seq = self.seq.take();
        self.outgoing.push(ToNode::Disconnect { seq })?;
        Ok(())
    }

    fn wants_to_write(&self) -> bool {
        !self.outgoing.is_empty() || self.offers.is_stuck()
    }

    /// The worker is gone: reads what it said before.
    async fn read_rest(&mut self) -> Result<(), Ended> {
        while self.read().await? == Reading::More {}
        Ok(())
    }

    async fn read(&mut self) -> Result<Reading, Ended> {
        for _ in 0..READS {
            let mut messages = Vec::new();
            let record = match seqpacket::receive(&*self.channel, &mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Reading::Empty),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(Reading::End),
                other => other?,
            };
            if record.len == 0 {
                return Ok(Reading::End);
            }
            self.speaker = record.sender.or(self.speaker);
            let fed = self.decoder.feed(&self.buffer[..record.len], record.fd, &mut messages);
            for message in messages {
                self.hear(message).await?;
            }
            fed?;
        }
        Ok(Reading::More)
    }

    /// Sends what there is room for; whether that was everything.
    fn flush(&mut self) -> Result<bool, Ended> {
        while let Some((bytes, fd)) = self.outgoing.front() {
            match seqpacket::send_part(&*self.channel, bytes, fd.map(AsFd::as_fd)) {
                Ok(len) => self.outgoing.sent(len),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                // The worker is gone; what it said before can still be read.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.outgoing = Outgoing::default();
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    async fn hear(&mut self, Received { message, fd }: Received) -> Result<(), Ended> {
        let worker = self.worker;
        match message {
            FromNode::Online => debug!(%worker, "Node is online"),
            FromNode::QueryServer(query) => self.answer(query).await?,
            FromNode::Listening(query) => self.listens(&query).await,
            FromNode::Accepted { ack, accepted } => {
                self.offers.told(ack, if accepted { Answer::Accepted } else { Answer::Refused });
            }
            FromNode::Close { key, .. } => self.close(key).await,
            FromNode::ExitedAfterDisconnect { seq: ack } => {
                debug!(%worker, "worker leaves of its own accord");
                let seq = self.seq.take();
                self.outgoing.push(ToNode::Ack { seq, ack })?;
            }
            FromNode::HandleAck => drop(self.sent.pop_front()),
            FromNode::HandleNack => self.did_not_arrive().await?,
            FromNode::Handle { kind, message } => {
                drop(fd);
                if let Some(message) = message {
                    debug!(%worker, message = shortened(&message), "worker says");
                }
                let kind = kind.as_deref().unwrap_or("unknown");
                warn!(%worker, kind, "worker sent a handle, which clusterd has no use for; it is closed");
                self.outgoing.push(ToNode::HandleAck)?;
            }
            FromNode::Unknown(message) => debug!(%worker, message = shortened(&message), "Node says"),
            FromNode::User(message) => {
                debug!(%worker, message = shortened(&message), "worker says");
                if message.get() == "\"ready\"" {
                    self.tell(Word::Ready(worker)).await;
                }
                self.tell(Word::Says(worker, message)).await;
            }
        }
        Ok(())
    }

    /// At the end of clusterd nobody hears it.
    async fn tell(&self, word: Word) {
        let _ = self.lines.words.send(word).await;
    }

    /// Answers a server that wants to listen.
    async fn answer(&mut self, query: Query) -> Result<(), Ended> {
        if self.servers.len() >= MOST_SERVERS
            || self.servers.values().any(|server| server.query.excludes(&query))
        {
            return self.refuse(&query, Errno::ADDRESS_IN_USE);
        }
        let (key, rooms) = (query.key(), self.rooms.clone());
        // Held until the front knows of the service: others may join it from then on.
        let mut listeners = rooms.listeners.lock().await;
        let joined = listeners.join(self.worker, &query, &rooms.ports);
        let data = listeners.data(&key).map(ToOwned::to_owned);
        match joined {
            Err(errno) => self.refuse(&query, errno),
            Ok(Joined::Shared(socket, handle)) => {
                self.share(query, data.as_deref(), handle, socket, Source::Other)
            }
            Ok(Joined::Service { id, address, open }) => {
                if let Some(bound) = open {
                    rooms.front.open(id, bound).await;
                }
                drop(listeners);
                match rooms.policy {
                    Policy::RoundRobin => self.answer_served(query, id, address, data.as_deref()).await,
                    Policy::Shared => self.answer_shared(query, id, address.port(), data.as_deref()).await,
                }
            }
        }
    }

    /// Gives a server a channel to the front: as a shared handle, of which the shim makes a listener; or, to a worker
    /// without the shim, connection by connection, as Node's own primary does.
    async fn answer_served(
        &mut self,
        query: Query,
        service: ServiceId,
        address: SocketAddr,
        data: Option<&RawValue>,
    ) -> Result<(), Ended> {
        let relayed = !self.takes_channels().await;
        let key = query.key();
        let Some((link, worker_end)) = self.open_channel(service, address, relayed).await else {
            self.leave(&key).await;
            return self.refuse(&query, Errno::ADDRESS_IN_USE);
        };
        if !relayed {
            return self.share(query, data, HandleType::Net, worker_end, Source::Channel(link));
        }
        let (seq, ack, sockname) = (self.seq.take(), query.seq, Some(address));
        self.outgoing.push(ToNode::Sockname { seq, ack, key: &key, data, sockname })?;
        let source = Source::Relay { link, port: address.port(), worker_end: Some(worker_end), relay: None };
        self.servers.insert(key, Server { query, source });
        Ok(())
    }

    /// Gives a server the listening socket itself, as Node's own primary does with its shared policy.
    async fn answer_shared(
        &mut self,
        query: Query,
        service: ServiceId,
        port: u16,
        data: Option<&RawValue>,
    ) -> Result<(), Ended> {
        let errno = match self.place(port) {
            None => Errno::ADDRESS_IN_USE,
            Some(_) if self.is_deno().await => {
                warn!(
                    worker = %self.worker,
                    "`--policy shared` is for Node's cluster workers: Deno makes nothing of a socket that it is sent; \
                     `--policy round-robin` serves it"
                );
                Errno::NOT_SUPPORTED
            }
            Some(place) => {
                let link = place.link();
                match self.rooms.front.share(self.worker, service, place).await {
                    Ok(socket) => {
                        let source = Source::Shared { link, port };
                        return self.share(query, data, HandleType::Net, socket, source);
                    }
                    Err(error) => Errno::from(&error),
                }
            }
        };
        self.leave(&query.key()).await;
        self.refuse(&query, errno)
    }

    /// Whether the process that asks can make a listener of a channel. It has to be known beforehand: a handle that
    /// libuv does not know stays at the head of what it has received, and no other arrives any more.
    async fn takes_channels(&self) -> bool {
        match (self.speaker, &self.rooms.shim) {
            (Some(speaker), Some(shim)) => process_table::is_node_with(speaker, shim.to_path_buf()).await,
            _ => false,
        }
    }

    async fn is_deno(&self) -> bool {
        match self.speaker {
            Some(speaker) => process_table::is_deno(speaker).await,
            None => false,
        }
    }

    /// Sends a server what it is to listen on.
    fn share(
        &mut self,
        query: Query,
        data: Option<&RawValue>,
        handle: HandleType,
        fd: OwnedFd,
        source: Source,
    ) -> Result<(), Ended> {
        let (seq, ack, key) = (self.seq.take(), query.seq, query.key());
        self.outgoing.push(ToNode::Shared { seq, ack, key: &key, data, handle, fd })?;
        self.sent.push_back(Sent::Listener(key.clone()));
        self.servers.insert(key, Server { query, source });
        Ok(())
    }

    fn refuse(&mut self, query: &Query, errno: Errno) -> Result<(), Ended> {
        let (seq, key) = (self.seq.take(), query.key());
        let data = query.data.as_deref();
        self.outgoing.push(ToNode::Refused { seq, ack: query.seq, key: &key, data, errno })?;
        Ok(())
    }

    /// A new channel to the front for a server; what is returned is the worker's end.
    async fn open_channel(
        &mut self,
        service: ServiceId,
        address: SocketAddr,
        relayed: bool,
    ) -> Option<(LinkId, OwnedFd)> {
        let worker = self.worker;
        let place = self.place(address.port())?;
        let link = place.link();
        let ends = match channel(address, link) {
            Ok(ends) => ends,
            Err(error) => {
                warn!(%worker, %address, %error, "cannot make a channel");
                return None;
            }
        };
        let attachment = Attachment {
            worker,
            service,
            channel: ends.ours,
            worker_end: ends.kept,
            holder: Holder { inode: ends.inode, pid: self.speaker.map_or(0, Pid::as_raw_pid) },
            wants_drain: false,
            relayed,
            permit: place,
        };
        self.rooms.front.attach(attachment).await;
        Some((link, ends.workers))
    }

    /// A place among all that listen.
    fn place(&self, port: u16) -> Option<ChannelPermit> {
        let place = self.rooms.places.take();
        if place.is_none() {
            warn!(worker = %self.worker, port, "there is no room for another channel");
        }
        place
    }

    /// The handle that was sent first did not arrive: the worker is without free descriptors.
    async fn did_not_arrive(&mut self) -> Result<(), Ended> {
        match self.sent.pop_front() {
            Some(Sent::Listener(key)) => {
                let Some(server) = self.servers.remove(&key) else { return Ok(()) };
                self.refuse(&server.query, Errno::from(&io::Error::from_raw_os_error(libc::EMFILE)))?;
                self.end(key, server).await;
            }
            Some(Sent::Connection(seq)) => self.offers.told(seq, Answer::Refused),
            None => {}
        }
        Ok(())
    }

    /// A server listens: where the shim does not say so by itself, the front is told, or connections begin to be passed
    /// on. Who asked for any port tells which it got, so that the query alone would not be found.
    async fn listens(&mut self, query: &Query) {
        let asked = query.key();
        debug!(worker = %self.worker, key = asked, "Node listens");
        for (key, server) in &mut self.servers {
            let any_port = server.query.port == 0;
            let is_it = |port: u16| *key == asked || (any_port && i64::from(port) == query.port);
            match &mut server.source {
                Source::Relay { port, worker_end, relay, .. } if is_it(*port) => {
                    let Some(worker_end) = worker_end.take() else { continue };
                    let passing = relay::run(self.worker, key.clone(), worker_end, self.relays.0.clone());
                    *relay = Some(tokio::spawn(passing).abort_handle());
                }
                Source::Shared { link, port } if is_it(*port) => self.rooms.front.listens(*link).await,
                Source::Relay { .. } | Source::Shared { .. } | Source::Channel(_) | Source::Other => {}
            }
        }
    }

    /// Offers a connection to the worker.
    fn offer(&mut self, offer: Offer) -> Result<(), Ended> {
        let Some(answer) = self.offers.unless_stuck(offer.answer) else { return Ok(()) };
        let seq = self.seq.take();
        self.outgoing.push(ToNode::NewConn { seq, key: &offer.key, fd: offer.connection })?;
        self.sent.push_back(Sent::Connection(seq));
        self.offers.made(seq, answer, Instant::now() + self.rooms.handoff_timeout);
        Ok(())
    }

    /// Takes what the worker has not read in time out of its end of the channel: connections go to other workers, all
    /// else is sent again. A worker that has read everything is busy with it, and is waited for.
    async fn take_back(&mut self) -> Result<(), Ended> {
        let Unread { connections, rest } = Unread::take(&self.worker_end, &mut self.buffer).await?;
        self.sent.retain(|sent| !matches!(sent, Sent::Connection(seq) if connections.contains(seq)));
        self.outgoing.put_back(rest.into_iter());
        if self.offers.taken_back(&connections) {
            self.outgoing.push(ToNode::Nudge)?;
        }
        Ok(())
    }

    /// A stuck worker that has read all there was moves again.
    fn look_whether_it_moves(&mut self) -> Result<(), Ended> {
        if self.outgoing.is_empty() && seqpacket::waiting_bytes(&self.worker_end)? == 0 {
            self.offers.moves();
        }
        Ok(())
    }

    /// A server of the worker is closed.
    async fn close(&mut self, key: String) {
        if let Some(server) = self.servers.remove(&key) {
            self.end(key, server).await;
        }
    }

    async fn end(&self, key: String, server: Server) {
        match server.source {
            Source::Channel(link) | Source::Shared { link, .. } => self.rooms.front.detach(link).await,
            Source::Relay { link, relay, .. } => {
                if let Some(relay) = relay {
                    relay.abort();
                }
                self.rooms.front.detach(link).await;
            }
            Source::Other => {}
        }
        self.leave(&key).await;
    }

    async fn leave(&self, key: &str) {
        let mut listeners = self.rooms.listeners.lock().await;
        if let Some(unwanted) = listeners.leave(self.worker, key) {
            self.rooms.front.close(unwanted).await;
        }
    }
}

/// The ends of a new channel.
struct Ends {
    ours: OwnedFd,
    workers: OwnedFd,
    /// The worker's end again, to take connections back from.
    kept: OwnedFd,
    /// Of the worker's end.
    inode: u64,
}

/// A channel for a server that listens on `address`.
fn channel(address: SocketAddr, link: LinkId) -> io::Result<Ends> {
    let nonce = u64::from(std::process::id()) << 32 ^ link.0;
    let name = ChannelName { address: Endpoint::from(address), given: true, nonce };
    let (ours, workers) = seqpacket::named_pair(&name_address(&name)?)?;
    let kept = workers.try_clone()?;
    let inode = rustix::fs::fstat(&workers)?.st_ino;
    Ok(Ends { ours, workers, kept, inode })
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Messages may be of any length.
fn shortened(message: &RawValue) -> &str {
    const MOST: usize = 200;
    let text = message.get();
    let end = (0..=MOST.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}
