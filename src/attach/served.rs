//! The served ports, as every way of attaching needs them.
//!
//! It decides nothing: who may attach is `admission`'s to say.

use std::sync::Arc;

use tracing::debug;

use super::admission::{Refusal, Rules, Source};
use super::bound::BoundChannels;
use super::on_demand::OnDemand;
use crate::front;
use crate::front::Accepts;
use crate::front::links::ChannelPermits;
use crate::ids::{ServiceId, WorkerPort};
use crate::protocol::wire::Binding;

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
    /// What is opened for those that ask, where no port is always served.
    pub on_demand: Option<OnDemand>,
}

impl ServedPorts {
    /// What admission depends on for a server that accepts by itself in any case.
    pub(super) fn rules_where_workers_accept(&self) -> Rules<'_> {
        Rules { ports: &self.ports, on_demand: self.on_demand.is_some(), accepts: Accepts::Workers }
    }

    /// The service that was admitted to, for a listener that is bound so.
    ///
    /// # Errors
    /// The address cannot be opened: the server's own bind(2) will say why.
    pub(super) async fn service(&self, source: Source, binding: &Binding) -> Result<ServiceId, Refusal> {
        let port = WorkerPort(binding.address.port());
        match (source, &self.on_demand) {
            (Source::Served(port), _) => Ok(ServiceId::Port(port)),
            (Source::OnDemand, None) => Err(Refusal::NotServed(port)),
            (Source::OnDemand, Some(on_demand)) => {
                on_demand.open(binding, &self.front).await.map_err(|error| {
                    debug!(%port, %error, "cannot open an address that a worker binds; it is left to it");
                    Refusal::NotServed(port)
                })
            }
        }
    }

    /// Whether clients come to this port by clusterd alone.
    pub(super) async fn serves(&self, port: WorkerPort) -> bool {
        match &self.on_demand {
            None => self.ports.contains(&port),
            Some(on_demand) => self.ports.contains(&port) || on_demand.has(port.0).await,
        }
    }

    /// What admission depends on.
    pub(super) fn rules(&self) -> Rules<'_> {
        Rules { accepts: Accepts::of(&self.front), ..self.rules_where_workers_accept() }
    }
}
