//! What workers that accept by themselves have, as it is written down for the next image of clusterd.
//!
//! The kernel keeps the sockets, their order and whom it steers to; that is only told anew.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use super::MemberId;
use crate::carry::{CarriedFd, CarriedFds, Moment};
use crate::front::arrival::Arrivals;
use crate::front::bound::{Bound, ListeningSocket};
use crate::front::links::Gate;
use crate::front::setup::PublicSockets;
use crate::front::snapshot::{PublicSocketSnapshot, address_of};
use crate::ids::{LinkId, ServiceId, WorkerId};

/// The ports. When it is looked at them next is at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::front) struct SteeringSnapshot {
    pub(super) ports: Vec<PortSnapshot>,
    pub(super) members: u64,
}

/// A port with its sockets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PortSnapshot {
    pub(super) id: ServiceId,
    pub(super) reserved: Option<ReservedSnapshot>,
    pub(super) groups: Vec<GroupSnapshot>,
    pub(super) told_of_stranger: bool,
}

/// What keeps the port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::front) struct ReservedSnapshot {
    pub(in crate::front) address: SocketAddr,
    pub(in crate::front) sockets: Vec<PublicSocketSnapshot>,
}

/// The sockets for workers that take the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupSnapshot {
    pub(super) takes: Option<Arrivals>,
    /// Those that listen, as the kernel keeps them.
    pub(super) members: Vec<MemberSnapshot>,
    /// Those that do not yet.
    pub(super) bound: Vec<MemberSnapshot>,
    pub(super) is_shared: bool,
    pub(super) waits: Vec<WaitSnapshot>,
}

/// A socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MemberSnapshot {
    pub(super) id: MemberId,
    pub(super) socket: ListeningSnapshot,
    pub(super) servers: Vec<ServerSnapshot>,
    pub(super) left: Option<LeftSnapshot>,
    pub(super) closing: Option<Moment>,
}

/// The primary's copy of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::front) struct ListeningSnapshot {
    pub(in crate::front) socket: CarriedFd,
    pub(in crate::front) address: SocketAddr,
    pub(in crate::front) backlog: i32,
    pub(in crate::front) is_inherited: bool,
}

/// A server that has it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerSnapshot {
    pub(super) worker: WorkerId,
    pub(super) link: LinkId,
    pub(super) pid: i32,
    pub(super) gate: Gate,
    pub(super) listens: bool,
}

/// What a server has left.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LeftSnapshot {
    pub(super) since: Moment,
    pub(super) worker: WorkerId,
    pub(super) was_retired: bool,
}

/// What was seen of a backlog.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitSnapshot {
    pub(super) member: MemberId,
    pub(super) backlog: usize,
    pub(super) since: Moment,
    pub(super) told: Moment,
    pub(super) is_left_out: bool,
    pub(super) is_stalled: bool,
}

impl SteeringSnapshot {
    /// What keeps each port, or a copy of the socket that it began with, whose descriptor `look_at` finds.
    ///
    /// # Errors
    /// A descriptor was not carried over, or has two owners; and those of `look_at`.
    pub(in crate::front) fn bound(
        &self,
        fds: &CarriedFds,
        look_at: impl Fn(CarriedFd) -> io::Result<OwnedFd>,
    ) -> io::Result<PublicSockets> {
        let bound = |port: &PortSnapshot| Ok((port.id, port.bound(fds, &look_at)?.into_iter().collect()));
        self.ports.iter().map(bound).collect()
    }

    /// The descriptors of its sockets.
    pub(in crate::front) fn descriptors(&self) -> impl Iterator<Item = CarriedFd> {
        self.all().map(|member| member.socket.socket)
    }

    /// What the ports are for.
    pub(in crate::front) fn services(&self) -> impl Iterator<Item = ServiceId> {
        self.ports.iter().map(|port| port.id)
    }

    /// The name of each server.
    pub(in crate::front) fn links(&self) -> impl Iterator<Item = LinkId> {
        self.all().flat_map(|member| &member.servers).map(|server| server.link)
    }

    /// How many sockets there were.
    pub(in crate::front) fn count(&self) -> u64 {
        self.members
    }

    fn all(&self) -> impl Iterator<Item = &MemberSnapshot> {
        let groups = self.ports.iter().flat_map(|port| &port.groups);
        groups.flat_map(|group| group.members.iter().chain(&group.bound))
    }
}

impl PortSnapshot {
    fn bound(
        &self,
        fds: &CarriedFds,
        look_at: impl Fn(CarriedFd) -> io::Result<OwnedFd>,
    ) -> io::Result<Option<Bound>> {
        if let Some(ReservedSnapshot { address, sockets }) = &self.reserved {
            return Ok(Some(Bound::Address(address_of(*address, sockets, fds)?)));
        }
        let Some(first) = self.groups.first().and_then(|group| group.members.first()) else {
            return Ok(None);
        };
        let socket = look_at(first.socket.socket)?;
        Ok(Some(Bound::Socket(ListeningSocket::carried(&first.socket, socket))))
    }
}
