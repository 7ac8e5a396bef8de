//! Looks at workers that left a connection untaken, once per launch, and says so if the process that has their listener
//! cannot take any.
//!
//! What is seen and said is in [`diagnose`](crate::supervisor::diagnose).

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;
use tokio::time::sleep;
use tracing::warn;

use crate::front::links::Holder;
use crate::ids::WorkerId;
use crate::supervisor;
use crate::supervisor::diagnose::{
    Obstacle, ServerBelow, advice_on_holder, advice_on_server_below, server_below, unfit_holder,
};
use crate::sys::blocking;
use crate::tasks;

/// How many channels are remembered: one that stalls was slow moments before.
const CHANNELS: usize = 64;

/// How many launches are remembered. Those before were replaced long ago.
const LAUNCHES: usize = 1024;

/// How often a worker is looked at: the process that is to accept may still be starting.
const LOOKS: usize = 5;

/// How long is waited between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// What was slow, and who was looked at.
#[derive(Debug)]
pub(super) struct Stalls {
    shim: Option<Arc<PathBuf>>,
    inherits: bool,
    slow: VecDeque<u64>,
    looked_at: BTreeSet<WorkerId>,
}

/// What was seen of a worker that takes nothing.
#[derive(Debug)]
enum Seen {
    /// The process that was told of the listeners waits for its server.
    Below(ServerBelow),
    /// The process that has the channel cannot take connections from it.
    Unfit(Obstacle),
}

impl Stalls {
    /// Nothing yet, of workers that load this shim, or that inherit their listeners.
    pub(super) fn new(shim: Option<PathBuf>, inherits: bool) -> Self {
        Self { shim: shim.map(Arc::new), inherits, slow: VecDeque::new(), looked_at: BTreeSet::new() }
    }

    /// A connection waits in this channel.
    pub(super) fn slow(&mut self, channel: Holder) {
        self.slow.retain(|known| *known != channel.inode);
        self.slow.truncate(CHANNELS - 1);
        self.slow.push_front(channel.inode);
    }

    /// A worker, whose processes are this group, has left a connection untaken.
    pub(super) fn stalled(&mut self, worker: WorkerId, group: Pid, supervisor: &supervisor::Handle) {
        if !self.looked_at.insert(worker) {
            return;
        }
        if self.looked_at.len() > LAUNCHES {
            self.looked_at.pop_first();
        }
        let channels: Arc<[u64]> = self.slow.iter().copied().collect();
        let (shim, inherits, supervisor) = (self.shim.clone(), self.inherits, supervisor.clone());
        tasks::spawn(async move {
            for _ in 0..LOOKS {
                let (channels, shim) = (Arc::clone(&channels), shim.clone());
                let look = move || match inherits {
                    true => server_below(group).map(Seen::Below),
                    false => unfit_holder(group, &channels, shim.as_ref().map(|path| path.as_path()))
                        .map(Seen::Unfit),
                };
                match blocking::run(look).await {
                    Some(Seen::Below(server)) => {
                        return warn!(%worker, "{}", advice_on_server_below(&server));
                    }
                    Some(Seen::Unfit(unfit)) => {
                        if !supervisor.turns(worker.slot, unfit.clone()).await {
                            warn!(%worker, "{}", advice_on_holder(&unfit));
                        }
                        return;
                    }
                    None => {}
                }
                sleep(PAUSE).await;
            }
        });
    }
}
