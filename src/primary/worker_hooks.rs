//! What happens around the workers as they come and go: their output is captured, and what they leave is taken back.
//!
//! When they come and go is the supervisor's to decide.

use std::os::fd::OwnedFd;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tracing::warn;

use super::leaving::LeavingNotes;
use super::probes::ReadinessProbe;
use super::runtime_folder::FolderKeeper;
use crate::attach::bound::BoundChannels;
use crate::attach::node::{Exit, NodeSessions, NodeSnapshot};
use crate::attach::on_demand::OnDemand;
use crate::attach::seccomp::InterceptedCalls;
use crate::attach::snapshot::CallsSnapshot;
use crate::carry::{NotCarried, Still};
use crate::connections;
use crate::front;
use crate::ids::WorkerId;
use crate::logs::LastLines;
use crate::logs::{Output, Stream};
use crate::preload::DrainPageSnapshot;
use crate::supervisor::{Launched, Pipes, WorkerHooks};
use crate::systemd::worker_notify::{NotifySnapshot, WorkerNotifications};

/// Those whom a worker's launch and end concern.
#[derive(Debug)]
pub(super) struct PrimaryHooks {
    /// Keeps what workers look for, where there is a runtime folder.
    pub folder: Option<FolderKeeper>,
    /// Has their clients leave, where workers have the shim.
    pub leaving: Option<LeavingNotes>,
    /// Reads what workers write.
    pub output: Output,
    /// Hands connections to them.
    pub front: front::handle::Handle,
    /// Knows who has which connection.
    pub connections: connections::Handle,
    /// Speaks with those that are Node.
    pub nodes: NodeSessions,
    /// Hears those that say that they are ready.
    pub notices: WorkerNotifications,
    /// The public ports that are always served.
    pub ports: Vec<u16>,
    /// Those that are opened for whoever asks, if any is.
    pub on_demand: Option<OnDemand>,
    /// What workers have bound.
    pub bound: BoundChannels,
    /// What a worker has to answer before it is ready, if anything.
    pub ready_http: Option<ReadinessProbe>,
    /// Answers what those bind and listen to that have their calls told.
    pub calls: InterceptedCalls,
}

/// What is around the workers, as it is written down for the next image of clusterd.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HooksSnapshot {
    pub nodes: NodeSnapshot,
    pub calls: Vec<CallsSnapshot>,
    pub notices: Vec<NotifySnapshot>,
    pub leaving: Option<DrainPageSnapshot>,
}

impl WorkerHooks for PrimaryHooks {
    fn launching(&mut self) {
        if let Some(folder) = &mut self.folder {
            folder.make_whole(self.leaving.as_mut());
        }
    }

    fn launched(&mut self, launched: Launched) -> Option<LastLines> {
        let Launched { worker, group, pipes, channel, calls, .. } = launched;
        self.connections.began(worker, group);
        if let Some(channel) = channel {
            self.nodes.greet(worker, channel);
        }
        if let Some(calls) = calls {
            self.calls.answer(worker, calls);
        }
        let Pipes { stdout, stderr, notify } = pipes;
        if let Some(socket) = notify {
            self.notices.listen(worker, group, socket);
        }
        self.capture(worker, stdout, stderr)
    }

    fn app_stopped(&mut self, is_stopped: bool) -> BoxFuture<'static, ()> {
        let front = self.front.clone();
        Box::pin(async move { front.app_stopped(is_stopped).await })
    }

    fn accept_by_workers(&mut self) -> BoxFuture<'static, ()> {
        let (front, connections) = (self.front.clone(), self.connections.clone());
        Box::pin(async move {
            connections.not_noted();
            if let Err(error) = front.accept_by_workers().await {
                warn!(%error, "cannot let workers accept by themselves");
            }
        })
    }

    fn release(&mut self, worker: WorkerId) -> BoxFuture<'static, ()> {
        let front = self.front.clone();
        Box::pin(async move { front.release(worker).await })
    }

    fn probe(&mut self, worker: WorkerId) -> BoxFuture<'static, ()> {
        let probing = self.ready_http.clone();
        Box::pin(async move {
            if let Some(probing) = probing {
                probing.answered(worker).await;
            }
        })
    }

    fn leaving(&mut self, worker: WorkerId) {
        if let Some(leaving) = &self.leaving {
            leaving.begin(worker, &[self.nodes.opened_ports(), self.opened_ports()].concat());
        }
    }

    /// What a worker has not accepted when it closes its listener would be lost with that.
    fn retire(&mut self, worker: WorkerId) -> BoxFuture<'static, ()> {
        self.leaving(worker);
        let (front, node) = (self.front.clone(), self.nodes.exit_of(worker));
        Box::pin(async move {
            front.retire(worker).await;
            node.retire();
        })
    }

    fn drained(&mut self, worker: WorkerId) -> BoxFuture<'static, ()> {
        let (connections, node) = (self.connections.clone(), self.nodes.exit_of(worker));
        let ports = [self.ports.clone(), self.opened_ports()].concat();
        Box::pin(async move {
            let opened = node.opened_ports().await;
            connections.drained(worker, [ports, opened].concat()).await;
        })
    }

    fn send_shutdown(&mut self, worker: WorkerId) {
        self.nodes.exit_of(worker).ask(Exit::Shutdown);
    }

    fn disconnect_when_idle(&mut self, worker: WorkerId) {
        self.nodes.exit_of(worker).ask(Exit::WhenIdle);
    }

    fn disconnect(&mut self, worker: WorkerId) {
        self.nodes.exit_of(worker).ask(Exit::Disconnect);
    }

    fn stand_still(&mut self) -> BoxFuture<'static, Result<Still<Box<RawValue>>, NotCarried>> {
        let (nodes, calls, notices) =
            (self.nodes.stand_still(), self.calls.stand_still(), self.notices.stand_still());
        let leaving = self.leaving.as_ref().and_then(LeavingNotes::snapshot);
        Box::pin(async move {
            let (nodes, calls, notices) = (nodes.await?, calls.await?, notices.await?);
            let snapshot = HooksSnapshot {
                nodes: nodes.state.clone(),
                calls: calls.state.clone(),
                notices: notices.state.clone(),
                leaving,
            };
            let written = to_raw_value(&snapshot).map_err(|error| NotCarried(error.to_string()))?;
            Ok(Still::new(written, (nodes, calls, notices)))
        })
    }

    fn gone(&mut self, worker: WorkerId) -> BoxFuture<'static, u64> {
        self.notices.gone(worker);
        self.calls.gone(worker);
        self.bound.forget(worker);
        self.connections.gone(worker);
        if let Some(leaving) = &self.leaving {
            leaving.end(worker);
        }
        let (front, last_words) = (self.front.clone(), self.nodes.gone(worker));
        Box::pin(async move {
            last_words.await;
            front.forget(worker).await
        })
    }
}

impl PrimaryHooks {
    /// The ports that were opened for servers other than Node's.
    fn opened_ports(&self) -> Vec<u16> {
        self.on_demand.as_ref().map(OnDemand::ports).unwrap_or_default()
    }

    fn capture(&self, worker: WorkerId, stdout: OwnedFd, stderr: OwnedFd) -> Option<LastLines> {
        let captured = |stream, pipe| match self.output.capture(worker, stream, pipe) {
            Ok(last) => Some(last),
            Err(error) => {
                warn!(%worker, %error, "cannot read a worker's output");
                None
            }
        };
        captured(Stream::Stdout, stdout);
        captured(Stream::Stderr, stderr)
    }
}
