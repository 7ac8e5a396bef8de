//! clusterd as the cluster primary of Node workers: answers on the channel that each worker has from its start.
//!
//! Words go over that channel; connections do not, where it can be helped. A server that asks to listen on a TCP
//! port gets, as a *shared handle*, a channel of the attach protocol, which the shim in the worker turns into a
//! listener: from then on Node is a worker like any other. For a worker without the shim, a [`relay`] passes
//! connections on as Node's own primary does.
//!
//! - [`worker`]: what is said to one worker, and heard from it.
//! - [`relay`], [`offers`]: connections for a worker without the shim.
//! - [`listeners`]: what all of them listen on, and who wants it.

mod listeners;
mod offers;
mod relay;
mod worker;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::warn;

pub use self::listeners::Listeners;
use crate::front;
use crate::ids::{WorkerId, WorkerPort};
use crate::protocol::native::Places;
use crate::supervisor::NodeChannel;

/// How long the last words of a worker that is gone may take to be read.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Those whom the words of a worker concern.
#[derive(Clone, Debug)]
pub struct Rooms {
    /// Gets the channels that connections go through.
    pub front: front::handle::Handle,
    /// Room for those.
    pub places: Places,
    /// The ports that are served.
    pub ports: Arc<[WorkerPort]>,
    /// The shim that workers may have loaded.
    pub shim: Option<Arc<Path>>,
    /// How long a worker may leave a connection unread.
    pub handoff_timeout: Duration,
    /// What all Node workers listen on.
    pub listeners: Arc<Mutex<Listeners>>,
}

/// The channels to all Node workers.
#[derive(Debug)]
pub struct Nodes {
    rooms: Rooms,
    talks: HashMap<WorkerId, Talking>,
    disconnect: watch::Receiver<bool>,
}

/// A talk under way.
#[derive(Debug)]
struct Talking {
    gone: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Asks every worker to leave when it has finished what it has: `worker.disconnect()`, as Node's primary has it.
#[derive(Debug)]
pub struct Disconnect {
    ask: watch::Sender<bool>,
    listeners: Arc<Mutex<Listeners>>,
}

impl Disconnect {
    /// Asks all of them. Returns the ports on which they served beside the ones that are always served.
    pub async fn all(&self) -> Vec<u16> {
        let ports = self.listeners.lock().await.opened_ports();
        self.ask.send_replace(true);
        ports
    }
}

impl Nodes {
    /// No worker yet.
    pub fn new(rooms: Rooms) -> (Self, Disconnect) {
        let (ask, disconnect) = watch::channel(false);
        let listeners = Arc::clone(&rooms.listeners);
        let nodes = Self { rooms, talks: HashMap::new(), disconnect };
        (nodes, Disconnect { ask, listeners })
    }

    /// Speaks with a worker until it is gone.
    pub fn greet(&mut self, worker: WorkerId, channel: NodeChannel) {
        let (gone, told) = oneshot::channel();
        let talk = worker::Talk::new(worker, channel, self.rooms.clone(), self.disconnect.clone(), told);
        match talk {
            Ok(talk) => {
                let task = tokio::spawn(talk.run());
                self.talks.insert(worker, Talking { gone, task });
            }
            Err(error) => warn!(%worker, %error, "cannot watch a worker's Node channel"),
        }
    }

    /// Done when everything was read that a worker said before it was gone: what it has taken must not be taken for
    /// untaken.
    pub fn gone(&mut self, worker: WorkerId) -> impl Future<Output = ()> + Send + use<> {
        let talking = self.talks.remove(&worker);
        async move {
            let Some(Talking { gone, mut task }) = talking else { return };
            // A talk that has ended already does not hear it.
            let _ = gone.send(());
            if tokio::time::timeout(LAST_WORDS, &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}
