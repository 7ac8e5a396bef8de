//! clusterd as the cluster primary of Node workers: answers on the channel that each worker has from its start.
//!
//! Words go over that channel; connections do not, where it can be helped. A server that asks to listen on a TCP
//! port gets, as a *shared handle*, a channel of the attach protocol, which the shim in the worker turns into a
//! listener: from then on Node is a worker like any other. For a worker without the shim, a [`relay`] passes
//! connections on as Node's own primary does. Where workers accept (`--accept workers`), each gets the listening socket itself.
//!
//! - [`session`]: what follows from what one worker says; [`transport`], how it is said, and [`servers`], what it has.
//! - [`channel`]: the ends of a server's channel; [`idle`]: whether a worker waits for nothing else.
//! - [`closed`]: servers that it has closed, and that a child of it may serve on with.
//! - [`relay`], [`offers`]: connections for a worker without the shim.
//! - [`exchange`]: messages from one worker to the others.
//! - [`listeners`]: what all of them listen on, and who wants it.

mod channel;
mod closed;
mod exchange;
mod idle;
mod listeners;
mod offers;
mod relay;
mod servers;
mod session;
mod transport;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::warn;

pub(crate) use self::exchange::MessageExchange;
pub(crate) use self::listeners::Listeners;
use super::served::ServedPorts;
use crate::front::Accepts;
use crate::ids::WorkerId;
use crate::supervisor::NodeChannel;
use crate::supervisor::lifecycle::OnChannel;

/// How long the last words of a worker that is gone may take to be read.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How many words of workers may wait to be heard.
const WORDS: usize = 64;

/// What a worker has said that is not about its listeners.
#[derive(Debug)]
pub(crate) enum Word {
    /// It is ready: `process.send('ready')`, as PM2 has it (`wait_ready`).
    Ready(WorkerId),
    /// Somebody has come on its channel, or nobody speaks there any more.
    Speaks(WorkerId, OnChannel),
    /// Anything that it has sent to its primary, be it that too.
    Says(WorkerId, Box<RawValue>),
}

/// What the sessions depend on.
#[derive(Clone, Debug)]
pub(crate) struct NodeContext {
    /// Where channels go.
    pub served: ServedPorts,
    /// The shim that workers may have loaded.
    pub shim: Option<Arc<Path>>,
    /// How long a worker may leave a connection unread.
    pub handoff_timeout: Duration,
    /// What all Node workers listen on.
    pub listeners: Arc<Mutex<Listeners>>,
    /// Where what they send to each other goes.
    pub messages: MessageExchange,
}

/// The channels to all Node workers.
#[derive(Debug)]
pub(crate) struct NodeSessions {
    context: NodeContext,
    words: mpsc::Sender<Word>,
    sessions: HashMap<WorkerId, OpenSession>,
}

/// A session under way.
#[derive(Debug)]
struct OpenSession {
    exit: watch::Sender<Exit>,
    gone: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// How far a worker is on its way out, as far as its channel is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// It serves.
    No,
    /// It gets no further connection.
    Draining,
    /// The app was asked to end, and Node is to leave once it would wait for nothing but its channel.
    WhenIdle,
    /// The same, after the message `shutdown`, as PM2 has it (`shutdown_with_message`).
    Shutdown,
    /// Node is to leave when it has finished what it has: `worker.disconnect()`, as Node's primary has it.
    Disconnect,
}

/// Tells one worker, if it has a channel, that it is to go. Clones tell the same worker.
#[derive(Clone, Debug)]
pub(crate) struct NodeExit {
    told: Option<watch::Sender<Exit>>,
    accepts: Accepts,
    listeners: Arc<Mutex<Listeners>>,
}

impl NodeExit {
    /// Tells it, once however often it is called; there is no way back.
    pub(crate) fn ask(&self, exit: Exit) {
        if let Some(told) = &self.told {
            told.send_if_modified(|told| {
                let is_further = exit > *told;
                if is_further {
                    *told = exit;
                }
                is_further
            });
        }
    }

    /// Tells it that it gets no further connection.
    pub(crate) fn retire(&self) {
        self.ask(match self.accepts {
            Accepts::Primary => Exit::Draining,
            // It would accept further ones by itself.
            Accepts::Workers => Exit::Disconnect,
        });
    }

    /// The ports on which Node workers serve beside those that are always served: who waits until the worker has no
    /// connection any more has to look at those too.
    pub(crate) async fn opened_ports(&self) -> Vec<u16> {
        self.listeners.lock().await.opened_ports()
    }
}

impl NodeSessions {
    /// No worker yet.
    pub(crate) fn new(context: NodeContext) -> (Self, mpsc::Receiver<Word>) {
        let (words, heard) = mpsc::channel(WORDS);
        (Self { context, words, sessions: HashMap::new() }, heard)
    }

    /// Speaks with a worker until it is gone.
    pub(crate) fn greet(&mut self, worker: WorkerId, channel: NodeChannel) {
        let (exit, asked) = watch::channel(Exit::No);
        let (gone, told) = oneshot::channel();
        let signals = session::SessionSignals { exit: asked, gone: told, words: self.words.clone() };
        match session::NodeSession::new(worker, channel, self.context.clone(), signals) {
            Ok(session) => {
                let task = tokio::spawn(session.run());
                self.sessions.insert(worker, OpenSession { exit, gone, task });
            }
            Err(error) => warn!(%worker, %error, "cannot watch a worker's Node channel"),
        }
    }

    /// The ports on which Node workers serve beside those that are always served, unless they change at this moment.
    pub(crate) fn opened_ports(&self) -> Vec<u16> {
        self.context.listeners.try_lock().map(|listeners| listeners.opened_ports()).unwrap_or_default()
    }

    /// What tells this worker to go.
    pub(crate) fn exit_of(&self, worker: WorkerId) -> NodeExit {
        let told = self.sessions.get(&worker).map(|session| session.exit.clone());
        NodeExit {
            told,
            accepts: Accepts::of(&self.context.served.front),
            listeners: Arc::clone(&self.context.listeners),
        }
    }

    /// Done when everything was read that a worker said before it was gone: what it has taken must not be taken for
    /// untaken.
    pub(crate) fn gone(&mut self, worker: WorkerId) -> impl Future<Output = ()> + Send + use<> {
        let session = self.sessions.remove(&worker);
        async move {
            let Some(OpenSession { gone, mut task, .. }) = session else { return };
            // A session that has ended already does not hear it.
            let _ = gone.send(());
            if tokio::time::timeout(LAST_WORDS, &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}

/// Messages may be of any length.
fn shortened(message: &RawValue) -> &str {
    const MOST: usize = 200;
    let text = message.get();
    let end = (0..=MOST.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}
