//! The served ports, as every way of attaching needs them.
//!
//! It decides nothing: who may attach is `admission`'s to say.

use std::sync::Arc;

use super::admission::Rules;
use super::bound::BoundChannels;
use crate::front;
use crate::front::Accepts;
use crate::front::links::ChannelPermits;
use crate::ids::WorkerPort;

/// Where channels and listening sockets come from, and where they go.
#[derive(Clone, Debug)]
pub(crate) struct ServedPorts {
    /// Gets the channels, and makes the listening sockets.
    pub front: front::handle::Handle,
    /// Room for them.
    pub permits: ChannelPermits,
    /// The ports that are always served.
    pub ports: Arc<[WorkerPort]>,
    /// What workers have bound.
    pub bound: BoundChannels,
}

impl ServedPorts {
    /// What admission depends on.
    pub(super) fn rules(&self) -> Rules<'_> {
        Rules { ports: &self.ports, accepts: Accepts::of(&self.front) }
    }
}
