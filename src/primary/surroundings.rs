//! What happens around the workers as they come and go: their output is captured, and what they leave is taken back.
//!
//! When they come and go is the supervisor's to decide.

use tracing::warn;

use super::node::Nodes;
use crate::front;
use crate::ids::{Slot, WorkerId};
use crate::logs::{Output, Stream};
use crate::supervisor::{Launched, Pipes, Surroundings, TakingBack};

/// Those whom a worker's launch and end concern.
#[derive(Debug)]
pub struct Neighbours {
    /// Reads what workers write.
    pub output: Output,
    /// Has handed connections to them.
    pub front: front::handle::Handle,
    /// Speaks with those that are Node.
    pub nodes: Nodes,
}

impl Surroundings for Neighbours {
    fn launched(&mut self, launched: Launched) {
        let Launched { worker, pipes, channel, .. } = launched;
        self.capture(worker.slot, pipes);
        if let Some(channel) = channel {
            self.nodes.greet(worker, channel);
        }
    }

    fn gone(&mut self, worker: WorkerId) -> TakingBack {
        let (front, heard) = (self.front.clone(), self.nodes.gone(worker));
        Box::pin(async move {
            heard.await;
            front.forget(worker).await;
        })
    }
}

impl Neighbours {
    fn capture(&self, worker: Slot, pipes: Pipes) {
        for (stream, pipe) in [(Stream::Stdout, pipes.stdout), (Stream::Stderr, pipes.stderr)] {
            if let Err(error) = self.output.capture(worker, stream, pipe) {
                warn!(%worker, %error, "cannot read a worker's output");
            }
        }
    }
}
