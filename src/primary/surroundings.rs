//! What happens around the workers as they come and go: their output is captured, and what they leave is taken back.
//!
//! When they come and go is the supervisor's to decide.

use tracing::warn;

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
}

impl Surroundings for Neighbours {
    fn launched(&mut self, launched: Launched) {
        let Launched { worker, pipes, .. } = launched;
        self.capture(worker.slot, pipes);
    }

    fn gone(&mut self, worker: WorkerId) -> TakingBack {
        let front = self.front.clone();
        Box::pin(async move { front.forget(worker).await })
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
