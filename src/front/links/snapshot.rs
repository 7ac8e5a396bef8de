//! A link, as it is written down for the next image of clusterd.

use std::net::IpAddr;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::state::Due;
use super::{Attachment, Gate, Holder};
use crate::carry::{CarriedFd, Moment};
use crate::front::arrival::Arrival;
use crate::front::snapshot::Legacy;
use crate::ids::{LinkId, ServiceId, WorkerId};
use crate::protocol::wire::{Binding, Endpoint, Linger};

/// A channel with all that is known of it. The options that its server has set are the public sockets'; what it bound is its
/// group's. When its messages are read again is found out at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::front) struct LinkSnapshot {
    pub(super) id: LinkId,
    pub(super) worker: WorkerId,
    /// The primary's end.
    pub(super) channel: CarriedFd,
    /// A duplicate of the worker's.
    pub(super) worker_end: CarriedFd,
    pub(super) holder: Holder,
    pub(super) wants_drain: bool,
    pub(super) state: LinkStateSnapshot,
    pub(super) in_flight: InFlightSnapshot,
    pub(super) last_handed: Option<Moment>,
    pub(super) linger: Option<Linger>,
    pub(super) window: usize,
    /// What is on its way is a connection of clusterd's own. Those that wait end with the image whose they are.
    pub(super) gives_private: bool,
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LinkStateSnapshot {
    pub(super) phase: PhaseSnapshot,
    pub(super) gate: Gate,
    pub(super) relayed: bool,
}

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum PhaseSnapshot {
    Bound,
    Idle,
    Busy { since: Moment, due: Due, at: Moment },
    Bypassed { until: Moment },
    Resting { until: Moment },
    Paused,
    Stalled,
}

/// What lies in it, and was not told to be taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InFlightSnapshot {
    pub(super) given: Vec<GivenSnapshot>,
    /// How many of them, from the front, were taken.
    pub(super) taken: usize,
}

/// A connection that was given.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GivenSnapshot {
    pub(super) peer: Endpoint,
    pub(super) arrival: Arrival,
    pub(super) accepted: Moment,
    pub(super) since: Moment,
    pub(super) size: usize,
}

impl LinkSnapshot {
    /// Its name.
    pub(in crate::front) fn id(&self) -> LinkId {
        self.id
    }

    /// Its descriptors.
    pub(in crate::front) fn descriptors(&self) -> [CarriedFd; 2] {
        [self.channel, self.worker_end]
    }

    /// What it is made of. Its server bound this `address`.
    ///
    /// # Errors
    /// A descriptor has two owners, or there is no permit.
    pub(super) fn attachment(
        &self,
        service: ServiceId,
        address: IpAddr,
        legacy: &mut Legacy,
    ) -> std::io::Result<Attachment> {
        let (permit, registration) = legacy.channel(self.id)?;
        Ok(Attachment {
            worker: self.worker,
            service,
            binding: Binding::new(SocketAddr::new(address, 0).into()),
            options: Vec::new(),
            registration,
            channel: legacy.descriptor(self.channel)?.into(),
            worker_end: legacy.descriptor(self.worker_end)?.into(),
            holder: self.holder,
            wants_drain: self.wants_drain,
            relayed: self.state.relayed,
            permit,
        })
    }
}
