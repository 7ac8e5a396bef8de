//! How a connection arrives, which its server can tell: by what it connected to, and so by what accept(2), getpeername(2)
//! and getsockname(2) say of it.
//!
//! Pure. A connection is given to listeners alone that could have accepted it if there were no clusterd.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::protocol::wire::{Binding, Endpoint};

/// The kinds of connections. Each comes through a public socket of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Arrival {
    /// IPv4, at an IPv4 socket.
    V4,
    /// IPv4, at an IPv6 socket, with addresses such as `::ffff:192.0.2.1` (ipv6(7)).
    Mapped,
    /// IPv6.
    V6,
}

impl Arrival {
    /// All of them. Where a client may arrive in two ways, the kernel prefers the first.
    pub(crate) const ALL: [Arrival; 3] = [Arrival::V4, Arrival::Mapped, Arrival::V6];

    /// What it is called where it is written down.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Arrival::V4 => "v4",
            Arrival::Mapped => "mapped",
            Arrival::V6 => "v6",
        }
    }

    /// The one that is called so.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Arrival::ALL.into_iter().find(|arrival| arrival.name() == name)
    }

    /// The other way in which the same client can arrive.
    pub(crate) fn twin(self) -> Option<Arrival> {
        match self {
            Arrival::V4 => Some(Arrival::Mapped),
            Arrival::Mapped => Some(Arrival::V4),
            Arrival::V6 => None,
        }
    }

    /// Of a connection from `peer`, at a socket that serves both families.
    pub(crate) fn at_dual_stack(peer: SocketAddr) -> Arrival {
        match peer.ip() {
            IpAddr::V6(ip) if ip.to_ipv4_mapped().is_none() => Arrival::V6,
            IpAddr::V4(_) | IpAddr::V6(_) => Arrival::Mapped,
        }
    }
}

/// A set of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<Arrival>", into = "Vec<Arrival>")]
pub(crate) struct Arrivals(u8);

impl Arrivals {
    /// What a listener takes that was bound so.
    pub(crate) fn of(binding: &Binding) -> Self {
        match IpAddr::from(binding.address) {
            IpAddr::V4(_) => Arrival::V4.into(),
            IpAddr::V6(ip) if ip.is_unspecified() && binding.only_v6 => Arrival::V6.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Self::from(Arrival::Mapped).with(Arrival::V6),
            IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => Arrival::Mapped.into(),
            IpAddr::V6(_) => Arrival::V6.into(),
        }
    }

    /// These and this one.
    pub(crate) fn with(self, arrival: Arrival) -> Self {
        Self(self.0 | Self::from(arrival).0)
    }

    /// These and those.
    pub(crate) fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// These, and the other ways in which the same clients can arrive.
    pub(crate) fn with_twins(self) -> Self {
        let these = Arrival::ALL.into_iter().filter(|&arrival| self.has(arrival));
        self.and(these.filter_map(Arrival::twin).collect())
    }

    /// Each of them.
    pub(crate) fn each(self) -> impl Iterator<Item = Arrival> {
        Arrival::ALL.into_iter().filter(move |&arrival| self.has(arrival))
    }

    /// Whether this is one of them.
    pub(crate) fn has(self, arrival: Arrival) -> bool {
        self.0 & Self::from(arrival).0 != 0
    }

    /// Whether any of these is one of those.
    pub(crate) fn has_any(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// Whether there are none.
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl From<Arrival> for Arrivals {
    fn from(arrival: Arrival) -> Self {
        Self(1 << arrival as u8)
    }
}

impl From<Vec<Arrival>> for Arrivals {
    fn from(arrivals: Vec<Arrival>) -> Self {
        arrivals.into_iter().collect()
    }
}

impl From<Arrivals> for Vec<Arrival> {
    fn from(arrivals: Arrivals) -> Self {
        arrivals.each().collect()
    }
}

impl FromIterator<Arrival> for Arrivals {
    fn from_iter<T: IntoIterator<Item = Arrival>>(arrivals: T) -> Self {
        arrivals.into_iter().fold(Self::default(), Self::with)
    }
}

impl From<Endpoint> for IpAddr {
    fn from(endpoint: Endpoint) -> Self {
        SocketAddr::from(endpoint).ip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_takes_what_it_could_accept_without_clusterd() {
        use Arrival::{Mapped, V4, V6};
        let cases: [(&str, bool, &[Arrival]); 9] = [
            ("0.0.0.0:80", false, &[V4]),
            ("127.0.0.1:80", false, &[V4]),
            ("[::]:80", false, &[Mapped, V6]),
            ("[::]:80", true, &[V6]),
            ("[::1]:80", false, &[V6]),
            ("[::1]:80", true, &[V6]),
            ("[fe80::1%2]:80", false, &[V6]),
            ("[::ffff:127.0.0.1]:80", false, &[Mapped]),
            ("[::ffff:0.0.0.0]:80", false, &[Mapped]),
        ];
        for (address, only_v6, taken) in cases {
            let address: SocketAddr = address.parse().unwrap();
            let binding = Binding { only_v6, ..Binding::new(address.into()) };
            let arrivals = Arrivals::of(&binding);
            assert_eq!(arrivals, taken.iter().copied().collect(), "{binding:?}");
            let listed: Vec<_> = Arrival::ALL.into_iter().filter(|&one| arrivals.has(one)).collect();
            assert_eq!(listed, taken);
        }
    }

    #[test]
    fn at_a_socket_of_both_families_the_client_tells_how_it_arrived() {
        for (peer, arrival) in [
            ("[::ffff:192.0.2.1]:7", Arrival::Mapped),
            ("[::1]:7", Arrival::V6),
            ("[2001:db8::1]:7", Arrival::V6),
        ] {
            assert_eq!(Arrival::at_dual_stack(peer.parse().unwrap()), arrival, "{peer}");
        }
    }
}
