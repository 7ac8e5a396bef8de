//! What the front has, as it is written down for the next image of clusterd, and how that begins with it.
//!
//! Each part of the front writes down what is its own and takes it over, in its own file; here is the form. Counters are
//! carried by whoever has all metrics.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::arrival::{Arrival, Arrivals};
use super::bound::{Bound, BoundAddress, ListeningSocket};
use super::connection::Connection;
use super::handle::Notice;
use super::links::snapshot::LinkSnapshot;
use super::links::{ChannelPermit, ChannelPermits};
use super::public_socket::PublicSocket;
use super::setup::{Accepts, PublicSockets};
use super::steering::snapshot::SteeringSnapshot;
use crate::carry::{CarriedFd, CarriedFds, LAST_COUNT, Moment};
use crate::ids::{LinkId, ServiceId, WorkerId};
use crate::protocol::wire::{Endpoint, SocketOption};

/// All that the front has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FrontSnapshot {
    /// Who accepts, which may have changed since the start.
    pub(super) accepts: Accepts,
    pub(super) services: Vec<ServiceSnapshot>,
    pub(super) steering: SteeringSnapshot,
    pub(super) launches: LaunchesSnapshot,
    /// The ports of what is open, as they are noted.
    pub(super) ports: Vec<(ServiceId, u16)>,
}

/// A service that the front accepts for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServiceSnapshot {
    pub(super) id: ServiceId,
    pub(super) intake: IntakeSnapshot,
    pub(super) openness: OpennessSnapshot,
    pub(super) groups: Vec<GroupSnapshot>,
    pub(super) turn: usize,
    pub(super) parked: Vec<ConnectionSnapshot>,
}

/// Its public sockets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IntakeSnapshot {
    pub(super) addresses: Vec<AddressSnapshot>,
    pub(super) next: usize,
    pub(super) paused_until: Option<Moment>,
    pub(super) retry_at: Option<Moment>,
}

/// A public address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum AddressSnapshot {
    /// Its sockets listen when workers do.
    Switched { address: SocketAddr, sockets: Vec<PublicSocketSnapshot> },
    /// Its socket listens from the start to the end.
    Listening { listener: ListenerSnapshot, is_inherited: bool },
}

/// A public socket of one arrival.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PublicSocketSnapshot {
    pub(super) address: SocketAddr,
    pub(super) arrival: Arrival,
    pub(super) wanted_for: Arrivals,
    pub(super) backlog: i32,
    pub(super) options: Vec<SocketOption>,
    pub(super) state: PublicStateSnapshot,
}

/// How it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum PublicStateSnapshot {
    Unbound,
    Refusing { socket: CarriedFd },
    Accepting { listener: ListenerSnapshot },
    Closing { listener: ListenerSnapshot, until: Moment },
}

/// A socket that listens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenerSnapshot {
    pub(super) socket: CarriedFd,
    pub(super) options: Vec<SocketOption>,
    pub(super) without_options: usize,
    pub(super) is_kept_out: bool,
}

/// In which ways clients may arrive, and what was seen of listeners.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OpennessSnapshot {
    /// In the order of [`Arrival::ALL`].
    pub(super) states: [OpenSnapshot; 3],
    pub(super) listened_on: Arrivals,
    pub(super) served: Arrivals,
    pub(super) is_stopped: bool,
}

/// How one arrival stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum OpenSnapshot {
    Refused,
    Open,
    Left { until: Moment },
}

/// The listeners that were bound alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupSnapshot {
    pub(super) address: IpAddr,
    pub(super) takes: Arrivals,
    pub(super) queue: Vec<ConnectionSnapshot>,
    /// Worker after worker, in the order in which they would be chosen.
    pub(super) links: Vec<LinkSnapshot>,
    /// Those who are gone, and in whose channels connections still lie.
    pub(super) gone: Vec<LinkSnapshot>,
}

/// A connection that waits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConnectionSnapshot {
    pub(super) socket: CarriedFd,
    pub(super) peer: Endpoint,
    pub(super) arrival: Arrival,
    pub(super) accepted: Moment,
}

/// What is known of launches, and was not told yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LaunchesSnapshot {
    pub(super) launches: Vec<LaunchSnapshot>,
    pub(super) occupied: Vec<OccupiedSnapshot>,
    pub(super) last_given: Option<WorkerId>,
    pub(super) notices: Vec<Notice>,
}

/// A launch that has a listener, or has had one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LaunchSnapshot {
    pub(super) worker: WorkerId,
    pub(super) is_released: bool,
    pub(super) is_retired: bool,
    pub(super) taken: u64,
    pub(super) limit: Option<(u64, u64)>,
    pub(super) stall: Option<StallSnapshot>,
}

/// It has left a connection untaken.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StallSnapshot {
    pub(super) listeners: NonZeroUsize,
    pub(super) since: Moment,
    pub(super) stuck_at: Option<Moment>,
}

/// How many connections a launch has.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OccupiedSnapshot {
    pub(super) worker: WorkerId,
    pub(super) connections: usize,
}

/// What keeps a channel's registration.
pub(crate) type Registration = Arc<dyn fmt::Debug + Send + Sync>;

/// What a front begins with that another image has left, beside its public sockets.
#[derive(Debug)]
pub(crate) struct Restored {
    /// From which channels get their permits again.
    pub permits: ChannelPermits,
    /// What is kept as long as a channel is. Those of other channels are dropped.
    pub registrations: HashMap<LinkId, Registration>,
    pub(super) snapshot: FrontSnapshot,
    fds: Descriptors,
}

/// Descriptors that were carried over, until whoever has written them down takes each.
#[derive(Debug)]
struct Descriptors(BTreeMap<CarriedFd, OwnedFd>);

/// What the parts of a front take over, by the names that they have written down.
#[derive(Debug)]
pub(super) struct Legacy {
    fds: Descriptors,
    permits: ChannelPermits,
    registrations: HashMap<LinkId, Registration>,
}

impl FrontSnapshot {
    /// That it can have been so, where so many channels were given numbers.
    ///
    /// # Errors
    /// What cannot have been.
    pub(crate) fn check(&self, channels: u64) -> io::Result<()> {
        let mut known = BTreeSet::new();
        let mut services = self.services.iter().map(|service| service.id).chain(self.steering.services());
        if !services.all(|service| known.insert(service)) {
            return Err(wrong("a service is there twice"));
        }
        let mut known = BTreeSet::new();
        let groups = self.services.iter().flat_map(|service| &service.groups);
        let links = groups.flat_map(|group| group.links.iter().chain(&group.gone)).map(LinkSnapshot::id);
        if !links.chain(self.steering.links()).all(|link| link.0 < channels && known.insert(link)) {
            return Err(wrong("a channel is there twice, or was never given a number"));
        }
        match channels.max(self.steering.count()) < LAST_COUNT {
            true => Ok(()),
            false => Err(wrong("a number after which there is none")),
        }
    }

    /// The public sockets as they are before they are watched: each service with its sockets, in their states.
    ///
    /// Both are for [`Setup`](super::Setup). Where workers accept, a socket that listens for all of them is a copy, to be
    /// looked at.
    ///
    /// # Errors
    /// A descriptor was not carried over, or has two owners; a public address has no socket.
    pub(crate) fn into_parts(self, fds: &CarriedFds) -> io::Result<(PublicSockets, Restored)> {
        let mut bound = Vec::new();
        for service in &self.services {
            let addresses = service.intake.addresses.iter().map(|address| address.bound(fds));
            bound.push((service.id, addresses.collect::<io::Result<_>>()?));
        }
        let others = Descriptors::take_over(self.others(), fds)?;
        bound.extend(self.steering.bound(fds, |number| others.look_at(number))?);
        let (permits, registrations) = (ChannelPermits::new(0), HashMap::new());
        Ok((bound, Restored { permits, registrations, snapshot: self, fds: others }))
    }

    /// The descriptors beside those of public sockets.
    fn others(&self) -> impl Iterator<Item = CarriedFd> {
        let groups = self.services.iter().flat_map(|service| &service.groups);
        let links = groups.clone().flat_map(|group| group.links.iter().chain(&group.gone));
        let parked = self.services.iter().flat_map(|service| &service.parked);
        let connections = groups.flat_map(|group| &group.queue).chain(parked);
        let waiting = connections.map(|connection| connection.socket);
        waiting.chain(links.flat_map(LinkSnapshot::descriptors)).chain(self.steering.descriptors())
    }
}

impl AddressSnapshot {
    /// The address before it is watched.
    fn bound(&self, fds: &CarriedFds) -> io::Result<Bound> {
        match self {
            AddressSnapshot::Switched { address, sockets } => {
                address_of(*address, sockets, fds).map(Bound::Address)
            }
            AddressSnapshot::Listening { listener, is_inherited } => {
                let socket = ListeningSocket::again(fds.take(listener.socket)?, *is_inherited);
                Ok(Bound::Socket(socket.ok_or_else(|| wrong("a public socket is none of TCP"))?))
            }
        }
    }
}

/// A public address with these sockets.
pub(super) fn address_of(
    address: SocketAddr,
    sockets: &[PublicSocketSnapshot],
    fds: &CarriedFds,
) -> io::Result<BoundAddress> {
    let sockets: io::Result<_> = sockets.iter().map(|socket| PublicSocket::carried(socket, fds)).collect();
    BoundAddress::with(address, sockets?).ok_or_else(|| wrong("a public address has no socket"))
}

impl PublicStateSnapshot {
    /// The socket, if it is bound.
    pub(super) fn socket(&self) -> Option<CarriedFd> {
        match self {
            PublicStateSnapshot::Unbound => None,
            PublicStateSnapshot::Refusing { socket } => Some(*socket),
            PublicStateSnapshot::Accepting { listener } | PublicStateSnapshot::Closing { listener, .. } => {
                Some(listener.socket)
            }
        }
    }
}

impl ConnectionSnapshot {
    /// As it is written down.
    pub(super) fn of(connection: &Connection) -> Self {
        let &Connection { ref socket, peer, arrival, accepted } = connection;
        Self { socket: CarriedFd::of(socket), peer, arrival, accepted: accepted.into() }
    }
}

impl Restored {
    /// Who accepts.
    pub(crate) fn accepts(&self) -> Accepts {
        self.snapshot.accepts
    }

    /// What is written down, and what that stands for.
    pub(super) fn open(self) -> (FrontSnapshot, Legacy) {
        let Self { permits, registrations, snapshot, fds } = self;
        (snapshot, Legacy { fds, permits, registrations })
    }
}

impl Descriptors {
    fn take_over(numbers: impl Iterator<Item = CarriedFd>, fds: &CarriedFds) -> io::Result<Self> {
        numbers.map(|number| Ok((number, fds.take(number)?))).collect::<io::Result<_>>().map(Self)
    }

    fn look_at(&self, number: CarriedFd) -> io::Result<OwnedFd> {
        self.0.get(&number).ok_or_else(|| wrong("a descriptor has two owners"))?.try_clone()
    }
}

impl Legacy {
    /// The descriptor of this number.
    ///
    /// # Errors
    /// It was taken before.
    pub(super) fn descriptor(&mut self, number: CarriedFd) -> io::Result<OwnedFd> {
        self.fds.0.remove(&number).ok_or_else(|| wrong("a descriptor has two owners"))
    }

    /// The connection that this is.
    ///
    /// # Errors
    /// Its descriptor was taken before.
    pub(super) fn connection(&mut self, snapshot: &ConnectionSnapshot) -> io::Result<Connection> {
        let &ConnectionSnapshot { socket, peer, arrival, accepted } = snapshot;
        Ok(Connection { socket: self.descriptor(socket)?.into(), peer, arrival, accepted: accepted.into() })
    }

    /// The permit of this channel, and what is kept as long as the channel is.
    ///
    /// # Errors
    /// No permit is left, or its number was never given out.
    pub(super) fn channel(&mut self, link: LinkId) -> io::Result<(ChannelPermit, Option<Registration>)> {
        let permit = self.permits.again(link).ok_or_else(|| wrong("more channels than there can be"))?;
        Ok((permit, self.registrations.remove(&link)))
    }
}

/// What was written down cannot be.
pub(super) fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::carry::testing::everything;

    #[test]
    fn what_cannot_have_been_is_refused() {
        let check = |changes: &[(&str, Value)], channels| {
            everything::<FrontSnapshot>("front", changes).check(channels).map_err(|error| error.to_string())
        };
        let (twice, endless) = ("a channel is there twice, or was never given a number", 1 << 53);
        assert_eq!(check(&[], 23), Ok(()));
        let cases = [
            ("/services/1/id", json!({ "Port": 3000 }), 23, "a service is there twice"),
            ("/steering/ports/0/id", json!({ "Opened": 0 }), 23, "a service is there twice"),
            ("/services/0/groups/0/links/1/id", json!(0), 23, twice),
            ("/services/0/groups/0/gone/0/id", json!(23), 23, twice),
            ("/steering/ports/0/groups/0/bound/0/servers/0/link", json!(9), 23, twice),
            ("/steering/members", json!(u64::MAX), 23, "a number after which there is none"),
            ("/services/0/turn", json!(0), endless, "a number after which there is none"),
        ];
        for (place, value, channels, wrong) in cases {
            assert_eq!(check(&[(place, value)], channels), Err(wrong.to_owned()), "{place}");
        }
    }
}
