//! What goes from one image of clusterd to the next, with a Node worker and a front that are played here.

mod relayed;
mod wrong;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::LazyLock;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendFlags};
use serde_json::{Value, json};
use tokio::io::Interest;
use tokio::runtime::Runtime;

use super::snapshot::{
    ClosedSnapshot, EntrySnapshot, IdleSnapshot, PassingSnapshot, PieceSnapshot, RelayPosition,
    RelaySnapshot, ServerSnapshot, SourceSnapshot, SupplySnapshot,
};
use super::*;
use crate::attach::bound::BoundChannels;
use crate::attach::on_demand::Openings;
use crate::carry::testing::carried;
use crate::front::handle::{self, Command};
use crate::front::links::{Attachment, ChannelPermits};
use crate::ids::{LinkId, Slot, WorkerPort};
use crate::metrics::Metrics;
use crate::protocol::node::Query;
use crate::sys::seqpacket;
use crate::sys::watched::Watched;

const DEADLINE: Duration = Duration::from_secs(20);

/// One image of clusterd, as far as it concerns Node workers.
struct Image {
    runtime: Runtime,
    nodes: NodeSessions,
    words: mpsc::Receiver<Word>,
    front: mpsc::UnboundedReceiver<Asked>,
    terms: Terms,
}

#[derive(Clone, Copy)]
struct Terms {
    relays_messages: bool,
    handoff_timeout: Duration,
}

/// What the front was asked to do.
#[derive(Debug)]
enum Asked {
    Attach(Box<Attachment>),
    Detach(LinkId),
    Other,
}

impl Image {
    fn first(terms: Terms) -> Self {
        let runtime = runtime();
        let (context, front) = runtime.block_on(async { context(terms) });
        let (nodes, words) = NodeSessions::new(context);
        Self { runtime, nodes, words, front, terms }
    }

    fn greet(&mut self, worker: WorkerId, channel: NodeChannel) {
        let _runtime = self.runtime.enter();
        self.nodes.greet(worker, channel);
    }

    fn stand_still(&self) -> Still<NodeSnapshot> {
        self.run(self.nodes.stand_still()).unwrap()
    }

    /// Runs this image until that is done.
    fn run<T>(&self, act: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(DEADLINE, act).await }).unwrap()
    }

    /// Goes on in the next image.
    fn upgrade(self) -> Self {
        self.upgrade_with(|_| {}).unwrap()
    }

    /// The same, with something else written down than there is.
    fn upgrade_with(self, change: impl FnOnce(&mut NodeSnapshot)) -> io::Result<Self> {
        let still = self.stand_still();
        let terms = self.terms;
        let (mut snapshot, fds) = carried(&still.state);
        assert_eq!(snapshot, still.state);
        self.end(still);
        change(&mut snapshot);
        let runtime = runtime();
        let restored = runtime.block_on(async {
            let (context, front) = context(terms);
            NodeSessions::restore(context, snapshot, &fds).map(|(nodes, words)| (nodes, words, front))
        });
        let (nodes, words, front) = restored?;
        assert_eq!(fds.untaken(), [0; 0]);
        Ok(Self { runtime, nodes, words, front, terms })
    }

    /// As by execve(2): nobody goes on, and what it listens on is not dropped, but its descriptors are closed.
    fn end(self, still: Still<NodeSnapshot>) {
        drop(self.runtime);
        drop(still);
        self.nodes.context.listeners.try_lock().unwrap().leave_paths(true);
    }

    fn word(&mut self) -> Word {
        let heard = async { tokio::time::timeout(DEADLINE, self.words.recv()).await };
        self.runtime.block_on(heard).unwrap().unwrap()
    }

    fn asked_of_front(&mut self) -> Asked {
        let asked = async { tokio::time::timeout(DEADLINE, self.front.recv()).await };
        self.runtime.block_on(asked).unwrap().unwrap()
    }

    fn attachment(&mut self) -> Attachment {
        match self.asked_of_front() {
            Asked::Attach(attachment) => *attachment,
            other => panic!("{other:?}"),
        }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

const TERMS: Terms = Terms { relays_messages: false, handoff_timeout: Duration::from_secs(600) };
const PORT: u16 = 3000;

/// Channels are named after their numbers and this process, so that no two images give the same number.
static PERMITS: LazyLock<ChannelPermits> = LazyLock::new(|| ChannelPermits::new(10_000));

fn worker(launch: u64) -> WorkerId {
    WorkerId { slot: Slot(1), launch }
}

fn context(terms: Terms) -> (NodeContext, mpsc::UnboundedReceiver<Asked>) {
    let ports = [WorkerPort(PORT)];
    let (front, reports, mut ends) = handle::channels(&ports);
    let (tell, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let _reports = reports;
        while let Some(command) = ends.commands.recv().await {
            let _ = tell.send(match command {
                Command::Attach(attachment) => Asked::Attach(Box::new(attachment)),
                Command::Detach(link) => Asked::Detach(link),
                _ => Asked::Other,
            });
        }
    });
    let permits = PERMITS.clone();
    let bound = BoundChannels::new();
    let served = ServedPorts { front, permits, ports: ports.into(), bound, on_demand: None };
    let context = NodeContext {
        served,
        shim: None,
        handoff_timeout: terms.handoff_timeout,
        listeners: Arc::new(Mutex::new(Listeners::new(None, Openings::new().0))),
        messages: MessageExchange::new(terms.relays_messages, &Metrics::new()),
    };
    (context, asked)
}

/// Node at the other end of a channel.
struct FakeNode {
    channel: OwnedFd,
    /// clusterd's end, to see what it has read.
    primary_end: OwnedFd,
    heard: Vec<u8>,
    messages: VecDeque<(Value, Option<OwnedFd>)>,
}

impl FakeNode {
    fn new() -> (Self, NodeChannel) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        for end in [&ours, &theirs] {
            end.set_nonblocking(true).unwrap();
        }
        let (primary_end, channel) = (OwnedFd::from(ours), OwnedFd::from(theirs));
        let kept = (primary_end.try_clone().unwrap(), channel.try_clone().unwrap());
        let node = Self { channel, primary_end: kept.0, heard: Vec::new(), messages: VecDeque::new() };
        (node, NodeChannel { primary_end, worker_end: kept.1 })
    }

    /// One that `image` has greeted.
    fn of(image: &mut Image, worker: WorkerId) -> Self {
        let (node, channel) = Self::new();
        image.greet(worker, channel);
        node
    }

    fn say(&self, message: &Value) {
        self.write(&format!("{message}\n"));
    }

    fn write(&self, text: &str) {
        let bytes = [IoSlice::new(text.as_bytes())];
        let flags = SendFlags::NOSIGNAL;
        let sent = rustix::net::sendmsg(&self.channel, &bytes, &mut SendAncillaryBuffer::default(), flags);
        assert_eq!(sent.unwrap(), text.len());
    }

    /// Says something, which clusterd has read when this returns.
    fn write_and_be_read(&self, text: &str, image: &Image) {
        self.write(text);
        image.run(async {
            while seqpacket::waiting_bytes(&self.primary_end).unwrap() > 0 {
                tokio::task::yield_now().await;
            }
        });
    }

    fn hear(&mut self, image: &Image) -> (Value, Option<OwnedFd>) {
        image.run(self.heard())
    }

    /// The next message, and the descriptor that came with it.
    async fn heard(&mut self) -> (Value, Option<OwnedFd>) {
        while self.messages.is_empty() {
            self.receive().await;
        }
        self.messages.pop_front().unwrap()
    }

    async fn receive(&mut self) {
        let mut buffer = vec![0; 64 * 1024];
        let channel = Watched::new(self.channel.try_clone().unwrap(), Interest::READABLE).unwrap();
        let record = channel.when_readable(|channel| seqpacket::receive(channel, &mut buffer)).await.unwrap();
        assert_ne!(record.len, 0, "the channel is closed");
        self.heard.extend_from_slice(&buffer[..record.len]);
        let mut fd = record.fd;
        let ends: Vec<_> = self.heard.iter().enumerate().filter(|(_, byte)| **byte == b'\n').collect();
        let Some(&(whole, _)) = ends.last() else { return assert!(fd.is_none(), "a part of a line has one") };
        let lines: Vec<u8> = self.heard.drain(..=whole).collect();
        for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            self.messages.push_back((serde_json::from_slice(line).unwrap(), None));
        }
        // It comes last.
        self.messages.back_mut().unwrap().1 = fd.take();
    }

    fn comes_online(&self, image: &mut Image) {
        self.say(&json!({ "cmd": "NODE_CLUSTER", "act": "online", "seq": 0 }));
        assert!(matches!(image.word(), Word::Speaks(_, OnChannel::Unknown)));
    }

    fn asks_to_listen(&mut self, query: Value, image: &Image) -> (Value, Option<OwnedFd>) {
        let mut message = json!({ "cmd": "NODE_CLUSTER", "act": "queryServer", "index": 0, "data": null });
        message.as_object_mut().unwrap().extend(query.as_object().unwrap().clone());
        self.say(&message);
        self.hear(image)
    }
}

fn user(number: usize, len: usize) -> Value {
    json!({ "number": number, "text": "x".repeat(len) })
}

fn server(port: u16, supply: SupplySnapshot) -> ServerSnapshot {
    let query = json!({ "seq": 1, "port": port, "addressType": 4 }).to_string();
    let query: Query = serde_json::from_str(&query).unwrap();
    ServerSnapshot { query: (&query).into(), supply }
}

#[test]
fn halves_of_messages_and_what_others_have_sent_arrive_whole_and_in_order() {
    const MESSAGES: usize = 40;
    let mut image = Image::first(Terms { relays_messages: true, ..TERMS });
    let mut slow = FakeNode::of(&mut image, worker(1));
    let sender = FakeNode::of(&mut image, worker(2));
    slow.comes_online(&mut image);
    // What is not read of the channel is soon too much for it.
    for number in 0..MESSAGES {
        sender.write_and_be_read(&format!("{}\n", user(number, 50_000)), &image);
        assert!(matches!(image.word(), Word::Says(..)));
    }
    let (begin, end) =
        r#"{"cmd":"NODE_CLUSTER","act":"exitedAfter|Disconnect","seq":7}"#.split_once('|').unwrap();
    slow.write_and_be_read(begin, &image);
    let still = image.stand_still();
    let session = still.state.sessions.iter().find(|session| session.worker == worker(1)).unwrap();
    assert_eq!(session.transport.partial.0, begin.as_bytes());
    let [piece] = session.transport.outgoing.as_slice() else { panic!("{:?}", session.transport) };
    assert!((1..50_000).contains(&piece.bytes.0.len()), "it is half written");
    assert!(still.state.messages.letters[0].messages.len() > 10, "the others wait");
    drop(still);

    let image = image.upgrade().upgrade();
    slow.write(&format!("{end}\n"));
    sender.say(&user(MESSAGES, 1));
    let mut messages = Vec::new();
    while messages.len() < MESSAGES + 2 {
        messages.push(slow.hear(&image).0);
    }
    let (answers, messages): (Vec<_>, Vec<_>) =
        messages.into_iter().partition(|message| message["cmd"].is_string());
    assert_eq!(answers, [json!({ "cmd": "NODE_CLUSTER", "ack": 7, "seq": 0 })]);
    let numbers: Vec<_> = messages.iter().map(|message| message["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..=MESSAGES as u64).collect::<Vec<_>>());
}

#[test]
fn a_shared_socket_that_was_not_acknowledged_goes_on_to_be_waited_for() {
    let query = json!({ "address": "127.0.0.1", "port": 0, "addressType": "udp4", "seq": 5 });
    let mut image = Image::first(TERMS);
    let mut node = FakeNode::of(&mut image, worker(1));
    let (answer, first) = node.asks_to_listen(query.clone(), &image);
    assert_eq!((&answer["type"], &answer["msg"]["seq"]), (&json!("dgram.Native"), &json!(0)));
    let mut image = image.upgrade();
    node.say(&json!({ "cmd": "NODE_HANDLE_NACK" }));
    let (refused, none) = node.hear(&image);
    assert!(none.is_none());
    assert_eq!(
        [&refused["errno"], &refused["ack"], &refused["seq"], &refused["key"]],
        [&json!(-libc::EMFILE), &json!(5), &json!(1), &answer["msg"]["key"]]
    );
    // It was the only one that wanted the socket.
    let mut other = FakeNode::of(&mut image, worker(2));
    let (_, second) = other.asks_to_listen(query.clone(), &image);
    let mut image = image.upgrade();
    let mut third = FakeNode::of(&mut image, worker(3));
    let (_, third) = third.asks_to_listen(query, &image);
    let address = |socket: &Option<OwnedFd>| rustix::net::getsockname(socket.as_ref().unwrap()).unwrap();
    assert_ne!(address(&first), address(&second));
    assert_eq!(address(&second), address(&third), "all have the same");
}

#[test]
fn the_path_of_a_socket_stays_until_its_last_server_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let query = json!({ "address": path, "port": -1, "addressType": -1, "seq": 1 });
    let mut image = Image::first(TERMS);
    let mut node = FakeNode::of(&mut image, worker(1));
    let (answer, socket) = node.asks_to_listen(query, &image);
    assert!(socket.is_some());
    node.write_and_be_read("{\"cmd\":\"NODE_HANDLE_ACK\"}\n", &image);
    let image = image.upgrade();
    // One that was given up before it went on.
    drop(image);
    assert!(path.exists());

    let mut image = Image::first(TERMS);
    let mut node = FakeNode::of(&mut image, worker(1));
    std::fs::remove_file(&path).unwrap();
    let query = json!({ "address": path, "port": -1, "addressType": -1, "seq": 1 });
    let (again, _) = node.asks_to_listen(query, &image);
    assert_eq!(again["msg"]["key"], answer["msg"]["key"]);
    let image = image.upgrade();
    UnixStream::connect(&path).unwrap();
    node.say(&json!({ "cmd": "NODE_CLUSTER", "act": "close", "key": again["msg"]["key"], "seq": 2 }));
    image.run(async {
        while path.exists() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_closed_server_is_ended_once_nobody_holds_it() {
    let mut image = Image::first(TERMS);
    let _node = FakeNode::of(&mut image, worker(1));
    let server = server(PORT, SupplySnapshot::Channel { link: LinkId(7), inode: 1, pid: i32::MAX });
    let look_at = std::time::Instant::now() + Duration::from_millis(50);
    let closed = ClosedSnapshot { server, look_at: look_at.into(), pause: Duration::from_millis(40) };
    let image = image.upgrade_with(|snapshot| snapshot.sessions[0].closed.push(closed.clone())).unwrap();
    assert_eq!(image.stand_still().state.sessions[0].closed, [closed]);
    let mut image = image.upgrade();
    assert!(matches!(image.asked_of_front(), Asked::Detach(LinkId(7))));
    assert!(std::time::Instant::now() >= look_at);
}

#[test]
fn a_worker_is_asked_to_leave_once() {
    let mut image = Image::first(TERMS);
    let mut node = FakeNode::of(&mut image, worker(1));
    let image = image
        .upgrade_with(|snapshot| {
            let session = &mut snapshot.sessions[0];
            (session.exit, session.exit_is_news) = (Exit::Disconnect, true);
        })
        .unwrap();
    assert_eq!(node.hear(&image).0["act"], "disconnect");
    let mut image = image.upgrade();
    image.nodes.exit_of(worker(1)).ask(Exit::WhenIdle);
    // A worker that is to go gets no answer to the first, and one to the second.
    node.say(
        &json!({ "cmd": "NODE_CLUSTER", "act": "queryServer", "port": PORT, "addressType": 4, "seq": 1 }),
    );
    node.say(&json!({ "cmd": "NODE_CLUSTER", "act": "exitedAfterDisconnect", "seq": 2 }));
    assert_eq!(node.hear(&image).0, json!({ "cmd": "NODE_CLUSTER", "ack": 2, "seq": 1 }));
    drop(node);
    let session = image.nodes.sessions.get_mut(&worker(1)).unwrap();
    // The end of the channel is not seen as long as clusterd has the worker's end, but that the worker is gone is.
    assert!(!session.task.is_finished());
    let gone = image.nodes.gone(worker(1));
    image.run(gone);
    assert!(matches!(image.word(), Word::Speaks(_, OnChannel::Nobody)));
    assert_eq!(image.stand_still().state.sessions, []);
}

#[test]
fn who_does_not_speak_as_node_does_is_ignored_in_the_next_image_too() {
    let mut image = Image::first(TERMS);
    let node = FakeNode::of(&mut image, worker(1));
    node.write("this is no JSON\n");
    assert!(matches!(image.word(), Word::Speaks(_, OnChannel::Nobody)));
    let mut image = image.upgrade();
    assert!(image.stand_still().state.sessions[0].is_ignored);
    node.write_and_be_read("\"ready\"\nnor this\n", &image);
    assert!(image.words.try_recv().is_err(), "nobody hears it");
    assert_eq!(image.stand_still().state.sessions.len(), 1);
}

#[test]
fn what_ends_a_session_is_waited_for_before_all_stand_still() {
    let mut image = Image::first(TERMS);
    let node = FakeNode::of(&mut image, worker(1));
    node.say(&json!("last words"));
    let gone = image.nodes.gone(worker(1));
    let still = image.nodes.stand_still();
    let (_, still) = image.run(async { tokio::join!(gone, still) });
    assert_eq!(still.unwrap().state.sessions, []);
    assert!(matches!(image.word(), Word::Says(..)));
}

#[test]
fn a_session_that_cannot_tell_its_words_is_not_carried_over() {
    let mut image = Image::first(TERMS);
    let node = FakeNode::of(&mut image, worker(1));
    for _ in 0..=WORDS {
        node.say(&json!("nobody hears it"));
    }
    image.run(async {
        while image.words.len() < WORDS {
            tokio::task::yield_now().await;
        }
    });
    let refused = image.run(image.nodes.stand_still()).unwrap_err();
    assert!(refused.to_string().contains("Node worker 1"), "{refused}");
    for _ in 0..=WORDS {
        assert!(matches!(image.word(), Word::Says(..)));
    }
    assert_eq!(image.upgrade().stand_still().state.sessions.len(), 1);
}
