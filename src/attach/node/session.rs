//! The session with one Node worker, from its first word to the end of its channel.
//!
//! What the words look like on the wire is in `protocol::node`; this is what they lead to.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use rustix::process::Pid;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, warn};

use super::channel::Ends;
use super::closed::{self, ClosedServers};
use super::exchange::Mailbox;
use super::idle::Idle;
use super::listeners::{Joined, Left};
use super::offers::Offers;
use super::relay::{Answer, Offer, Recipient, Relay};
use super::servers::{Begin, Passing, Relaying, Server, ServerTable, Supply};
use super::snapshot::{ClosedSnapshot, RelaySnapshot, SessionSnapshot};
use super::transport::{NodeTransport, Reading, Sent, TransportError};
use super::{Exit, NodeContext, Word, shortened};
use crate::attach::admission::{self, Applicant, Grant, Refusal, Request, Takes};
use crate::attach::bound::{Bound, Place};
use crate::carry::{CarriedFds, StandStill, Still};
use crate::front::Accepts;
use crate::front::links::{Attachment, ChannelPermit, Holder};
use crate::front::steering::Given;
use crate::ids::{LinkId, ServiceId, WorkerId, WorkerPort};
use crate::protocol::node::{Errno, FromNode, HandleType, Query, ToNode};
use crate::protocol::wire::Binding;
use crate::supervisor::lifecycle::OnChannel;
use crate::supervisor::{NodeChannel, process_table};
use crate::sys::closer::{self, ForeignFd};

/// The message by which PM2 has an app end (`shutdown_with_message`), as JSON.
const SHUTDOWN: &str = "\"shutdown\"";

/// How many reads follow each other before others get their turn.
const READS: usize = 2;

/// What one worker and clusterd say to each other.
#[derive(Debug)]
pub(super) struct NodeSession {
    worker: WorkerId,
    transport: NodeTransport,
    servers: ServerTable,
    closed: ClosedServers,
    offers: Offers,
    relays: (mpsc::Sender<Offer>, mpsc::Receiver<Offer>),
    /// What other workers have sent, once this one is online.
    mailbox: Mailbox,
    context: NodeContext,
    signals: SessionSignals,
    idle: Idle,
    /// It does not speak as Node does: what it says is dropped.
    is_ignored: bool,
}

/// What a session learns from the rest of clusterd, and what it tells it.
#[derive(Debug)]
pub(super) struct SessionSignals {
    /// Whether the worker is to go.
    pub exit: watch::Receiver<Exit>,
    /// The worker is gone.
    pub gone: oneshot::Receiver<()>,
    /// It is to stand still.
    pub asked: mpsc::Receiver<StandStill<SessionSnapshot>>,
    /// What the worker says.
    pub words: mpsc::Sender<Word>,
}

impl NodeSession {
    /// A session over `channel`, which is in non-blocking mode.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(super) fn new(
        worker: WorkerId,
        channel: NodeChannel,
        context: NodeContext,
        signals: SessionSignals,
    ) -> io::Result<Self> {
        Ok(Self {
            worker,
            transport: NodeTransport::new(channel)?,
            servers: ServerTable::default(),
            closed: ClosedServers::default(),
            offers: Offers::default(),
            // A relay offers one connection, and waits for what becomes of it.
            relays: mpsc::channel(1),
            mailbox: Mailbox::default(),
            context,
            signals,
            idle: Idle::default(),
            is_ignored: false,
        })
    }

    /// The session that this was written down of. What its worker's process did meanwhile it sees on the channel.
    ///
    /// # Errors
    /// What was written down cannot be, or a descriptor was not carried; and those of epoll_ctl(2).
    pub(super) fn restore(
        snapshot: SessionSnapshot,
        context: NodeContext,
        signals: SessionSignals,
        fds: &CarriedFds,
    ) -> io::Result<Self> {
        let (worker, relays) = (snapshot.worker, mpsc::channel(1));
        let (mut offers, told) = Offers::restore(snapshot.offers)?;
        let offered = relays.0.clone();
        let mut relaying = Relaying { worker, offers: &mut offers, told, offered };
        let mut servers = ServerTable::default();
        for server in snapshot.servers {
            servers.rejoin(Server::restore(server, &mut relaying, fds)?)?;
        }
        let mut closed = ClosedServers::default();
        for ClosedSnapshot { server, look_at, pause } in snapshot.closed {
            closed.add_again(Server::restore(server, &mut relaying, fds)?, look_at, pause)?;
        }
        Ok(Self {
            worker,
            transport: NodeTransport::restore(snapshot.transport, fds)?,
            servers,
            closed,
            offers,
            relays,
            mailbox: if snapshot.has_mailbox { context.messages.join(worker) } else { Mailbox::default() },
            context,
            signals,
            idle: Idle::restore(snapshot.idle),
            is_ignored: snapshot.is_ignored,
        })
    }

    /// Tells what it has, and does nothing until it may go on.
    async fn stand_still(&self, asked: StandStill<SessionSnapshot>) {
        let relays = self.servers.stand_still().await;
        asked.with(self.snapshot(&relays)).await;
    }

    fn snapshot(&self, relays: &BTreeMap<LinkId, Still<RelaySnapshot>>) -> SessionSnapshot {
        SessionSnapshot {
            worker: self.worker,
            is_ignored: self.is_ignored,
            exit: *self.signals.exit.borrow(),
            exit_is_news: self.signals.exit.has_changed().unwrap_or(false),
            transport: self.transport.snapshot(),
            servers: self.servers.snapshot(relays, &self.offers),
            closed: self.closed.snapshot(),
            offers: self.offers.snapshot(),
            has_mailbox: self.mailbox.is_open(),
            idle: self.idle.snapshot(),
        }
    }

    /// Goes on until the channel ends.
    pub(super) async fn run(mut self) {
        if !self.is_ignored {
            self.speak().await;
        }
        if self.is_ignored {
            self.stand_aside().await;
        }
        for (key, server) in self.servers.clear().chain(self.closed.clear()) {
            self.end(key, server).await;
        }
    }

    async fn speak(&mut self) {
        let ended = self.session().await;
        self.tell(Word::Speaks(self.worker, OnChannel::Nobody)).await;
        match ended {
            Ok(()) => debug!(worker = %self.worker, "the Node channel is closed"),
            Err(TransportError::Channel(error)) => {
                warn!(worker = %self.worker, %error, "closed the Node channel, which failed");
            }
            Err(ended) => {
                warn!(
                    worker = %self.worker,
                    "ignoring the worker's Node channel from now on: {ended}\n\
                     hint: a program that is not Node needs no such channel: --attach preload"
                );
                self.is_ignored = true;
            }
        }
    }

    async fn session(&mut self) -> Result<(), TransportError> {
        let channel = self.transport.channel();
        loop {
            self.transport.flush()?;
            let (take_back_at, look_at) = (self.offers.deadline(), self.closed.deadline());
            let idle_look_at = self.idle.deadline();
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
                    if !self.transport.flush()? || self.offers.is_stuck() {
                        ready.clear_ready();
                        self.look_whether_it_moves()?;
                    }
                }
                Some(offer) = self.relays.1.recv() => self.offer(offer)?,
                message = self.mailbox.next(), if !self.transport.has_to_write() => {
                    self.transport.push(ToNode::User(&message))?;
                }
                () = sleep_until(take_back_at), if take_back_at.is_some() => self.take_back().await?,
                () = sleep_until(look_at), if look_at.is_some() => self.look_at_closed(Instant::now()).await,
                () = sleep_until(idle_look_at), if idle_look_at.is_some() => self.look_whether_idle().await?,
                Ok(()) = self.signals.exit.changed() => self.go_on_leaving().await?,
                Some(asked) = self.signals.asked.recv() => self.stand_still(asked).await,
                _ = &mut self.signals.gone => return self.read_rest().await,
            }
        }
    }

    /// The worker does not speak as Node does. It keeps its channel, for without it some programs end; what it goes on to
    /// say is dropped. Servers that accept by themselves go on, and the others get no more connections.
    async fn stand_aside(&mut self) {
        self.mailbox = Mailbox::default();
        for (key, server) in self.servers.clear_relayed() {
            self.end(key, server).await;
        }
        let channel = self.transport.channel();
        loop {
            tokio::select! {
                ready = channel.readable() => {
                    let Ok(mut ready) = ready else { return };
                    match self.transport.discard().await {
                        Ok(Reading::More) => tokio::task::yield_now().await,
                        Ok(Reading::Empty) => ready.clear_ready(),
                        Ok(Reading::End) | Err(_) => return,
                    }
                }
                Some(asked) = self.signals.asked.recv() => self.stand_still(asked).await,
                _ = &mut self.signals.gone => return,
            }
        }
    }

    /// Says what the worker is to be told by now on its way out.
    async fn go_on_leaving(&mut self) -> Result<(), TransportError> {
        let exit = *self.signals.exit.borrow_and_update();
        match exit {
            Exit::No | Exit::Draining => Ok(()),
            Exit::WhenIdle => {
                self.idle.begin(Instant::now());
                Ok(())
            }
            Exit::Shutdown => {
                self.idle.begin(Instant::now());
                self.transport.push(ToNode::User(SHUTDOWN))
            }
            Exit::Disconnect => {
                self.idle.end();
                let seq = self.transport.next_seq();
                self.transport.push(ToNode::Disconnect { seq })
            }
        }
    }

    /// Whether it is known what the app on the channel catches: the shim tells that of Node alone. Deno catches signals for
    /// itself as well, and they look the same.
    async fn who_is_there(&self) -> OnChannel {
        if self.takes_channels().await { OnChannel::Known } else { OnChannel::Unknown }
    }

    /// A cluster worker does not end as long as it has its channel. An app that has closed all else expects it to.
    async fn look_whether_idle(&mut self) -> Result<(), TransportError> {
        let is_idle = match self.transport.speaker() {
            Some(speaker) => process_table::only_socket_keeps(speaker, self.transport.workers_inode()?).await,
            None => false,
        };
        if !self.idle.see(is_idle, Instant::now()) {
            return Ok(());
        }
        let seq = self.transport.next_seq();
        self.transport.push(ToNode::Disconnect { seq })
    }

    fn is_to_go(&self) -> bool {
        *self.signals.exit.borrow() != Exit::No
    }

    fn wants_to_write(&self) -> bool {
        self.transport.has_to_write() || self.offers.is_stuck()
    }

    /// The worker is gone: reads what it said before.
    async fn read_rest(&mut self) -> Result<(), TransportError> {
        while self.read().await? == Reading::More {}
        Ok(())
    }

    async fn read(&mut self) -> Result<Reading, TransportError> {
        for _ in 0..READS {
            let mut messages = Vec::new();
            poll_fn(closer::poll_room_for_sent).await;
            let read = self.transport.read(&mut messages).await;
            for message in messages {
                self.hear(message).await?;
            }
            match read? {
                Reading::More => {}
                over => return Ok(over),
            }
        }
        Ok(Reading::More)
    }

    async fn hear(&mut self, message: FromNode) -> Result<(), TransportError> {
        let worker = self.worker;
        match message {
            FromNode::Online => {
                debug!(%worker, "Node is online");
                self.tell(Word::Speaks(worker, self.who_is_there().await)).await;
                // The old one leaves before the new one joins.
                self.mailbox = Mailbox::default();
                self.mailbox = self.context.messages.join(worker);
            }
            FromNode::QueryServer(query) => self.answer(query).await?,
            FromNode::Listening(query) => self.listens(&query).await,
            FromNode::Accepted { ack, accepted } => {
                self.offers.told(ack, if accepted { Answer::Accepted } else { Answer::Refused });
            }
            FromNode::Close { key, .. } => self.close(key).await,
            FromNode::ExitedAfterDisconnect { seq: ack } => {
                debug!(%worker, "worker disconnects by itself");
                let seq = self.transport.next_seq();
                self.transport.push(ToNode::Ack { seq, ack })?;
            }
            FromNode::HandleAck => drop(self.transport.acknowledged()),
            FromNode::HandleNack => self.did_not_arrive().await?,
            FromNode::Handle { kind, message } => {
                if let Some(message) = message {
                    debug!(%worker, message = shortened(&message), "worker says");
                }
                let kind = kind.as_deref().unwrap_or("unknown");
                warn!(%worker, kind, "worker sent a handle, which clusterd cannot use; closing it");
                self.transport.push(ToNode::HandleAck)?;
            }
            // A handle that was sent to the primary is closed at once.
            FromNode::SentSockets { question, key } => {
                self.transport.push(ToNode::NoSockets { question, key: &key })?;
            }
            FromNode::Unknown(message) => debug!(%worker, message = shortened(&message), "Node says"),
            FromNode::User(message) => {
                debug!(%worker, message = shortened(&message), "worker says");
                if message.get() == "\"ready\"" {
                    self.tell(Word::Ready(worker)).await;
                } else {
                    self.context.messages.post(worker, &message);
                }
                self.tell(Word::Says(worker, message)).await;
            }
        }
        Ok(())
    }

    /// At the end of clusterd nobody hears it.
    async fn tell(&self, word: Word) {
        let _ = self.signals.words.send(word).await;
    }

    /// Answers a server that wants to listen. A worker that was asked to leave gets no answer: it disconnects without, but
    /// one that came behind the request would either crash it, for Node acknowledges a listener on a channel that is
    /// closed by then, or keep it alive.
    async fn answer(&mut self, query: Query) -> Result<(), TransportError> {
        if self.is_to_go() {
            return Ok(());
        }
        if !self.closed.is_empty() {
            // What the worker has closed is not in the way of what it opens.
            self.look_at_closed(Instant::now() + closed::LAST_PAUSE).await;
        }
        if !self.servers.may_join(&query) {
            return self.refuse(&query, Errno::ADDRESS_IN_USE);
        }
        match self.admit(&query).await {
            Ok(granted) => self.answer_admitted(query, granted).await,
            Err(refusal) => {
                warn!(worker = %self.worker, %refusal, "refused a server of a Node worker");
                self.refuse(&query, errno(&refusal))
            }
        }
    }

    /// Whether a server may listen on a TCP port, and how; `None` for one that asks for something else.
    async fn admit(&self, query: &Query) -> Result<Option<(Grant, ChannelPermit)>, Refusal> {
        let Some(port) = query.tcp_port() else { return Ok(None) };
        let takes = match Accepts::of(&self.context.served.front) {
            Accepts::Workers if self.is_deno().await => Takes::ChannelOnAnyPort,
            Accepts::Workers | Accepts::Primary => Takes::AnyPort,
        };
        let request = Request { applicant: Applicant::Started(self.worker), port: WorkerPort(port), takes };
        let permit = self.context.served.permits.take();
        let admission = admission::admit(request, permit.as_ref(), self.context.served.rules())?;
        Ok(permit.map(|permit| (admission.grant, permit)))
    }

    async fn answer_admitted(
        &mut self,
        query: Query,
        granted: Option<(Grant, ChannelPermit)>,
    ) -> Result<(), TransportError> {
        let (key, context) = (query.key(), self.context.clone());
        // Held until the front knows of the service: others may join it from then on.
        let mut listeners = context.listeners.lock().await;
        let joined = listeners.join(self.worker, &query, &context.served.ports);
        let data = listeners.data(&key).map(ToOwned::to_owned);
        let (service, address, open) = match joined {
            Err(errno) => return self.refuse(&query, errno),
            Ok(Joined::Shared(socket, handle)) => {
                return self.share(query, data.as_deref(), handle, socket, Supply::Other);
            }
            Ok(Joined::Service { id, address, open }) => (id, address, open),
        };
        if let Some(bound) = open {
            context.served.front.open(service, bound).await;
        }
        drop(listeners);
        match granted {
            Some((Grant::Channel, permit)) => {
                self.answer_served((query, permit), service, address, data.as_deref()).await
            }
            Some((Grant::Socket, permit)) => {
                self.answer_shared((query, permit), service, address, data.as_deref()).await
            }
            None => {
                self.leave(&key).await;
                self.refuse(&query, Errno::UNKNOWN)
            }
        }
    }

    /// Gives a server a channel to the front: as a shared handle, of which the shim makes a listener; or, to a worker
    /// without the shim, connection by connection, as Node's own primary does.
    async fn answer_served(
        &mut self,
        (query, permit): (Query, ChannelPermit),
        service: ServiceId,
        address: SocketAddr,
        data: Option<&RawValue>,
    ) -> Result<(), TransportError> {
        let relayed = !self.takes_channels().await;
        let key = query.key();
        let (link, holder, worker_end) = match self
            .open_channel(permit, service, binding(&query, address), relayed)
            .await
        {
            Ok(opened) => opened,
            Err(ChannelError::Refused(refusal)) => {
                warn!(worker = %self.worker, %refusal, "refused a server of a Node worker");
                self.leave(&key).await;
                return self.refuse(&query, errno(&refusal));
            }
            Err(ChannelError::Io(error)) => {
                warn!(worker = %self.worker, %address, %error, "cannot create a channel for a Node worker");
                self.leave(&key).await;
                return self.refuse(&query, Errno::ADDRESS_IN_USE);
            }
        };
        if !relayed {
            let supply = Supply::Channel(link, holder);
            return self.share(query, data, HandleType::Net, worker_end, supply);
        }
        let (seq, ack, sockname) = (self.transport.next_seq(), query.seq, Some(address));
        let zone = query.zone();
        self.transport.push(ToNode::Sockname { seq, ack, key: &key, data, sockname, zone })?;
        let passing = Passing::NotBegun(worker_end);
        self.servers.join(query, Supply::Relay { link, port: address.port(), passing });
        Ok(())
    }

    /// Gives a server the listening socket itself, as Node's own primary does with SCHED_NONE.
    async fn answer_shared(
        &mut self,
        (query, permit): (Query, ChannelPermit),
        service: ServiceId,
        address: SocketAddr,
        data: Option<&RawValue>,
    ) -> Result<(), TransportError> {
        let (link, port, binding) = (permit.link(), address.port(), binding(&query, address));
        // Node calls listen(2) before it says so: clients are to be steered to it in the order that the front knows.
        let (given, pid) = (Given::Listening, self.transport.speaker().map_or(0, Pid::as_raw_pid));
        match self.context.served.front.share((self.worker, pid), service, binding, given, permit).await {
            Ok(socket) => {
                let supply = Supply::Shared { link, port };
                self.share(query, data, HandleType::Net, socket.into(), supply)
            }
            Err(error) => {
                self.leave(&query.key()).await;
                self.refuse(&query, Errno::from(&error))
            }
        }
    }

    /// Whether the process that asks can make a listener of a channel. It has to be known beforehand: a handle that
    /// libuv does not know stays at the head of what it has received, and no other arrives any more.
    async fn takes_channels(&self) -> bool {
        match (self.transport.speaker(), &self.context.shim) {
            (Some(speaker), Some(shim)) => process_table::is_node_with(speaker, shim.to_path_buf()).await,
            _ => false,
        }
    }

    async fn is_deno(&self) -> bool {
        match self.transport.speaker() {
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
        fd: ForeignFd,
        supply: Supply,
    ) -> Result<(), TransportError> {
        let (seq, ack, key) = (self.transport.next_seq(), query.seq, query.key());
        let message = ToNode::Shared { seq, ack, key: &key, data, handle, fd };
        self.transport.push_descriptor(message, Sent::Listener(key.clone()))?;
        self.servers.join(query, supply);
        Ok(())
    }

    fn refuse(&mut self, query: &Query, errno: Errno) -> Result<(), TransportError> {
        let (seq, key) = (self.transport.next_seq(), query.key());
        let data = query.data.as_deref();
        self.transport.push(ToNode::Refused { seq, ack: query.seq, key: &key, data, errno })
    }

    /// A new channel to the front for a server; what is returned is the worker's end.
    async fn open_channel(
        &self,
        permit: ChannelPermit,
        service: ServiceId,
        binding: Binding,
        relayed: bool,
    ) -> Result<(LinkId, Holder, ForeignFd), ChannelError> {
        let link = permit.link();
        let ends = Ends::new(binding.address, link)?;
        let pid = self.transport.speaker().map_or(0, Pid::as_raw_pid);
        let place = Place { link, holder: Holder { inode: ends.inode, pid }, nonce: ends.nonce, given: true };
        // Whose it is matters to none that share a port: Node's do not.
        let bound = Bound { worker: self.worker, uid: 0, binding };
        let claim = self.context.served.bound.claim(bound, &self.context.served.front).await?;
        let registration = claim.register(place, None);
        let attachment = Attachment {
            worker: self.worker,
            service,
            binding,
            options: Vec::new(),
            registration: Some(registration),
            channel: ends.ours,
            worker_end: ends.kept,
            holder: place.holder,
            wants_drain: false,
            relayed,
            permit,
        };
        self.context.served.front.attach(attachment).await;
        Ok((link, place.holder, ends.workers))
    }

    /// The handle that was sent first did not arrive: the worker is without free descriptors.
    async fn did_not_arrive(&mut self) -> Result<(), TransportError> {
        match self.transport.acknowledged() {
            Some(Sent::Listener(key)) => {
                let Some(server) = self.servers.leave(&key) else { return Ok(()) };
                self.refuse(&server.query, Errno::from(&io::Error::from_raw_os_error(libc::EMFILE)))?;
                self.end(key, server).await;
            }
            Some(Sent::Connection(seq)) => self.offers.told(seq, Answer::Refused),
            None => {}
        }
        Ok(())
    }

    /// A server listens: where the shim does not say so by itself, the front is told, or connections begin to be passed
    /// on.
    async fn listens(&mut self, query: &Query) {
        debug!(worker = %self.worker, key = query.key(), "Node listens");
        for begin in self.servers.listens(query) {
            match begin {
                Begin::Share(link) => {
                    // Its socket listens already.
                    let _ = self.context.served.front.listens(link).await;
                }
                Begin::Relay { key, link, worker_end } => {
                    let recipient = Recipient { worker: self.worker, key: key.clone(), link };
                    let relay = Relay::begin(recipient, worker_end, self.relays.0.clone());
                    self.servers.relayed_by(&key, relay);
                }
            }
        }
    }

    /// Offers a connection to the worker.
    fn offer(&mut self, offer: Offer) -> Result<(), TransportError> {
        let Some(answer) = self.offers.unless_stuck(offer.answer) else { return Ok(()) };
        let seq = self.transport.next_seq();
        let message = ToNode::NewConn { seq, key: &offer.key, fd: offer.connection };
        self.transport.push_descriptor(message, Sent::Connection(seq))?;
        self.offers.made(seq, (offer.link, answer), Instant::now() + self.context.handoff_timeout);
        Ok(())
    }

    /// Takes what the worker has not read in time out of its end of the channel: connections go to other workers, all
    /// else is sent again. A worker that has read everything is busy with it, and is waited for.
    async fn take_back(&mut self) -> Result<(), TransportError> {
        let connections = self.transport.take_back().await?;
        if self.offers.taken_back(&connections) {
            self.transport.push(ToNode::Nudge)?;
        }
        Ok(())
    }

    /// A stuck worker that has read all there was moves again.
    fn look_whether_it_moves(&mut self) -> Result<(), TransportError> {
        if self.transport.is_read()? {
            self.offers.moves();
        }
        Ok(())
    }

    /// A server of the worker is closed. The child process that it was sent to, if there is one, serves on.
    async fn close(&mut self, key: String) {
        match self.servers.leave(&key) {
            Some(server @ Server { supply: Supply::Channel(_, holder), .. }) => {
                self.closed.add(key, server, holder, Instant::now());
            }
            Some(server) => self.end(key, server).await,
            None => {}
        }
    }

    /// Ends closed servers that nobody holds any more; but none of a worker that is to leave, for to end one would tell
    /// those who hold it that clusterd is gone.
    async fn look_at_closed(&mut self, now: Instant) {
        for closed in self.closed.due(now) {
            if self.is_to_go() || process_table::is_passed_on(closed.holder).await {
                self.closed.is_held(closed, Instant::now());
            } else {
                self.end(closed.key, closed.server).await;
            }
        }
    }

    async fn end(&self, key: String, mut server: Server) {
        server.supply.stop_relay();
        if let Some(link) = server.supply.link() {
            self.context.served.front.detach(link).await;
        }
        // The worker may listen there again by now.
        if !self.servers.has(&key) {
            self.leave(&key).await;
        }
    }

    async fn leave(&self, key: &str) {
        let mut listeners = self.context.listeners.lock().await;
        match listeners.leave(self.worker, key) {
            Left::Open => return,
            Left::Closed => {}
            Left::Unwanted(service) => self.context.served.front.close(service).await,
        }
        // The copies that workers were sent, too: until then the address is not free, and whoever opens it next waits here.
        closer::catch_up().await;
    }
}

/// What Node tells its server.
fn errno(refusal: &Refusal) -> Errno {
    match refusal {
        Refusal::Shared { .. } => Errno::NOT_SUPPORTED,
        Refusal::UnknownToken
        | Refusal::UnknownChannel
        | Refusal::NotServed(_)
        | Refusal::InUse { .. }
        | Refusal::NoAddress { .. }
        | Refusal::Full => Errno::ADDRESS_IN_USE,
    }
}

/// Why a server gets no channel.
#[derive(Debug, thiserror::Error)]
enum ChannelError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What the primary of Node would have bound for a server that listens on `address`.
fn binding(query: &Query, address: SocketAddr) -> Binding {
    let only_v6 = query.flags & Query::IPV6_ONLY != 0;
    Binding { only_v6, reuses_address: true, ..Binding::new(address.into()) }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
