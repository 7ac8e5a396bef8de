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
//! - [`snapshot`]: how all of this is written down for the next image of clusterd.
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
mod snapshot;
mod transport;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::warn;

pub(crate) use self::exchange::MessageExchange;
pub(crate) use self::listeners::Listeners;
use self::session::{NodeSession, SessionSignals};
pub(crate) use self::snapshot::NodeSnapshot;
use self::snapshot::SessionSnapshot;
use super::served::ServedPorts;
use crate::carry::{CarriedFds, Frozen, NotCarried, StandStill, Still, stand_still};
use crate::front::Accepts;
use crate::ids::WorkerId;
use crate::supervisor::NodeChannel;
use crate::supervisor::lifecycle::OnChannel;
use crate::tasks;

/// How long the last words of a worker that is gone may take to be read.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long the sessions may take until they stand still.
const STANDS_STILL: Duration = Duration::from_secs(1);

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
    /// Sessions of workers that are gone, whose last words are being read.
    ending: Vec<Asks>,
}

/// A session under way.
#[derive(Debug)]
struct OpenSession {
    reach: Reach,
    task: JoinHandle<()>,
}

/// What tells a session something.
#[derive(Debug)]
struct Reach {
    exit: watch::Sender<Exit>,
    gone: oneshot::Sender<()>,
    asks: Asks,
}

/// What asks a session to stand still. It is closed once the session has ended.
type Asks = mpsc::Sender<StandStill<SessionSnapshot>>;

/// How far a worker is on its way out, as far as its channel is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
        (Self { context, words, sessions: HashMap::new(), ending: Vec::new() }, heard)
    }

    /// Speaks with a worker until it is gone.
    pub(crate) fn greet(&mut self, worker: WorkerId, channel: NodeChannel) {
        let (reach, signals) = self.signals(Exit::No);
        match NodeSession::new(worker, channel, self.context.clone(), signals) {
            Ok(session) => self.begin(worker, session, reach),
            Err(error) => warn!(%worker, %error, "cannot watch a worker's Node channel"),
        }
    }

    fn begin(&mut self, worker: WorkerId, session: NodeSession, reach: Reach) {
        let task = tasks::spawn(session.run());
        self.sessions.insert(worker, OpenSession { reach, task });
    }

    /// What tells a session something, and how it learns of that. So far it was asked to go.
    fn signals(&self, exit: Exit) -> (Reach, SessionSignals) {
        let (exit, told) = watch::channel(exit);
        let (gone, is_gone) = oneshot::channel();
        let (asks, asked) = mpsc::channel(1);
        let signals = SessionSignals { exit: told, gone: is_gone, words: self.words.clone(), asked };
        (Reach { exit, gone, asks }, signals)
    }

    /// Has all sessions stand still, and the relays and the messages between workers with them: what they are in the middle
    /// of is finished first, and the worker's words are told. The front and whoever hears words have to go on until this is
    /// done; and from when this is called, no worker may be greeted or gone, or asked to go.
    ///
    /// Sessions whose channel has ended have nothing.
    ///
    /// # Errors
    /// A session that is in the middle of something does not get on with it.
    pub(crate) fn stand_still(
        &self,
    ) -> impl Future<Output = Result<Still<NodeSnapshot>, NotCarried>> + Send + use<> {
        let asks = self.sessions.iter().map(|(&worker, session)| (worker, session.reach.asks.clone()));
        let (asks, ending): (Vec<_>, _) = (asks.collect(), self.ending.clone());
        let NodeContext { listeners, messages, .. } = self.context.clone();
        async move {
            let until = tokio::time::Instant::now() + STANDS_STILL;
            let all = async {
                let (sessions, frozen) = ask_all(asks, until).await?;
                for session in ending {
                    session.closed().await;
                }
                let listeners = listeners.lock().await.snapshot();
                let messages = messages.snapshot();
                Ok(Still::new(NodeSnapshot { sessions, listeners, messages }, frozen))
            };
            let in_time = tokio::time::timeout_at(until, all).await;
            in_time.unwrap_or_else(|_| {
                Err(NotCarried(
                    "the last words of a Node worker cannot be carried over: they are still being read"
                        .to_owned(),
                ))
            })
        }
    }

    /// Sessions, and what is listened on for them, go on where they were: as soon as the caller waits for anything.
    ///
    /// # Errors
    /// What was written down cannot be, or a descriptor was not carried; and those of epoll_ctl(2). Nothing has gone on then.
    pub(crate) fn restore(
        context: NodeContext,
        snapshot: NodeSnapshot,
        fds: &CarriedFds,
    ) -> io::Result<(Self, mpsc::Receiver<Word>)> {
        let NodeSnapshot { sessions, listeners, messages } = snapshot;
        let (mut nodes, words) = Self::new(context);
        let shared = Arc::clone(&nodes.context.listeners);
        shared.try_lock().map_err(io::Error::other)?.restore(listeners, fds)?;
        let sessions: Vec<_> =
            sessions.into_iter().map(|session| nodes.reopen(session, fds)).collect::<io::Result<_>>()?;
        nodes.context.messages.restore(messages)?;
        // Not before it is sure that the other image does not go on instead.
        tasks::spawn(async move { shared.lock().await.leave_paths(false) });
        for (worker, session, reach) in sessions {
            nodes.begin(worker, session, reach);
        }
        Ok((nodes, words))
    }

    fn reopen(
        &self,
        snapshot: SessionSnapshot,
        fds: &CarriedFds,
    ) -> io::Result<(WorkerId, NodeSession, Reach)> {
        let (worker, is_news) = (snapshot.worker, snapshot.exit_is_news);
        let (reach, mut signals) = self.signals(snapshot.exit);
        if is_news {
            signals.exit.mark_changed();
        }
        Ok((worker, NodeSession::restore(snapshot, self.context.clone(), signals, fds)?, reach))
    }

    /// The ports on which Node workers serve beside those that are always served, unless they change at this moment.
    pub(crate) fn opened_ports(&self) -> Vec<u16> {
        self.context.listeners.try_lock().map(|listeners| listeners.opened_ports()).unwrap_or_default()
    }

    /// What tells this worker to go.
    pub(crate) fn exit_of(&self, worker: WorkerId) -> NodeExit {
        let told = self.sessions.get(&worker).map(|session| session.reach.exit.clone());
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
        self.ending.retain(|asks| !asks.is_closed());
        self.ending.extend(session.as_ref().map(|session| session.reach.asks.clone()));
        async move {
            let Some(OpenSession { reach, mut task }) = session else { return };
            // A session that has ended already does not hear it.
            let _ = reach.gone.send(());
            if tokio::time::timeout(LAST_WORDS, &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}

/// What each of these sessions has, once it stands still until the other is dropped.
async fn ask_all(
    asks: Vec<(WorkerId, Asks)>,
    until: tokio::time::Instant,
) -> Result<(Vec<SessionSnapshot>, Vec<Frozen<SessionSnapshot>>), NotCarried> {
    let asked = asks.into_iter().map(|(worker, asks)| async move {
        let (asked, mut frozen) = stand_still();
        // One that has ended has nothing.
        let told = async {
            asks.send(asked).await.ok()?;
            frozen.state().await
        };
        match tokio::time::timeout_at(until, told).await {
            Ok(told) => Ok(told.map(|told| (told, frozen))),
            Err(_) => Err(NotCarried(format!(
                "the channel of Node worker {worker} cannot be carried over: what is being done there does not come to an end"
            ))),
        }
    });
    Ok(try_join_all(asked).await?.into_iter().flatten().unzip())
}

/// Messages may be of any length.
fn shortened(message: &RawValue) -> &str {
    const MOST: usize = 200;
    let text = message.get();
    let end = (0..=MOST.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests;
