//! Which group of listeners gets a connection: one that could have accepted it natively, the most specific one.
//!
//! Pure. Where there is one group alone that may, nothing is looked up for a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::arrival::{Arrival, Arrivals};
use crate::protocol::wire::Binding;

/// What the listeners of one group have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bindings {
    /// The address that they bound.
    pub(super) address: IpAddr,
    /// What they take.
    pub(super) takes: Arrivals,
}

impl Bindings {
    /// Those that were bound so.
    pub(super) fn of(binding: &Binding) -> Self {
        Self { address: binding.address.into(), takes: Arrivals::of(binding) }
    }

    fn is_wildcard(&self) -> bool {
        matches!(
            self.address.to_canonical(),
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) | IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        )
    }
}

/// Where connections go, by how they arrive.
#[derive(Clone, Debug, Default)]
pub(super) struct Routes([Route; 3]);

/// Where those go that arrive in one way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Route {
    /// Nobody takes them now.
    #[default]
    Nowhere,
    /// To this group.
    To(usize),
    /// To one of these, by the address that the client connected to.
    ByAddress(Vec<(Bindings, usize)>),
}

impl Routes {
    /// To those of the groups that have a server which listens, each with its number.
    ///
    /// An IPv4 client goes where it cannot arrive natively if nobody else takes it: while workers of one version replace
    /// those of another that listened otherwise, and at a socket that was inherited.
    pub(super) fn to(groups: impl Iterator<Item = (Bindings, usize)> + Clone) -> Self {
        Self(Arrival::ALL.map(|arrival| {
            let takers = |arrival| {
                Route::to(groups.clone().filter(move |(group, _)| group.takes.has(arrival)).collect())
            };
            match (takers(arrival), arrival.twin()) {
                (Route::Nowhere, Some(twin)) => takers(twin),
                (route, _) => route,
            }
        }))
    }

    /// Where those go that arrive so.
    pub(super) fn of(&self, arrival: Arrival) -> &Route {
        &self.0[arrival as usize]
    }
}

impl Route {
    fn to(takers: Vec<(Bindings, usize)>) -> Self {
        match takers[..] {
            [] => Route::Nowhere,
            [(_, group)] => Route::To(group),
            _ => Route::ByAddress(takers),
        }
    }
}

/// Of these groups, the one for a client that connected to `local`: who bound that address comes before who bound all.
/// If there is neither, one in turn: public addresses need not be those that workers listen on.
pub(super) fn by_address(takers: &[(Bindings, usize)], local: Option<IpAddr>, turn: usize) -> Option<usize> {
    let local = local.map(|local| local.to_canonical());
    let exact = takers.iter().find(|(group, _)| Some(group.address.to_canonical()) == local);
    let wildcard = || takers.iter().find(|(group, _)| group.is_wildcard());
    let any = || takers.get(turn % takers.len().max(1));
    exact.or_else(wildcard).or_else(any).map(|&(_, group)| group)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    const BOUND: [(&str, bool); 8] = [
        ("0.0.0.0:80", false),
        ("127.0.0.1:80", false),
        ("127.0.0.2:80", false),
        ("[::]:80", false),
        ("[::]:80", true),
        ("[::1]:80", false),
        ("[::2]:80", false),
        ("[::ffff:127.0.0.1]:80", false),
    ];

    fn bindings((address, only_v6): (&str, bool)) -> Bindings {
        let address: SocketAddr = address.parse().unwrap();
        Bindings::of(&Binding { only_v6, ..Binding::new(address.into()) })
    }

    /// What was bound by the group that gets a connection which arrives so, at this address.
    fn goes(groups: &[(&'static str, bool)], arrival: Arrival, local: &str) -> Option<&'static str> {
        let numbered = groups.iter().enumerate().map(|(number, &bound)| (bindings(bound), number));
        let routes = Routes::to(numbered);
        let group = match routes.of(arrival) {
            Route::Nowhere => None,
            Route::To(group) => Some(*group),
            Route::ByAddress(takers) => by_address(takers, local.parse().ok(), 0),
        };
        group.map(|group| groups[group].0)
    }

    #[test]
    fn a_connection_goes_to_who_could_have_accepted_it_natively() {
        use Arrival::{Mapped, V4, V6};
        let debian = &[("0.0.0.0:80", false), ("[::]:80", true)];
        assert_eq!(goes(debian, V4, "127.0.0.1"), Some("0.0.0.0:80"));
        assert_eq!(goes(debian, V6, "::1"), Some("[::]:80"));
        let dual = &[("[::]:80", false)];
        assert_eq!(goes(dual, Mapped, "::ffff:127.0.0.1"), Some("[::]:80"));
        assert_eq!(goes(dual, V6, "::1"), Some("[::]:80"));
        let loopback = &[("127.0.0.1:80", false)];
        assert_eq!(goes(loopback, V4, "10.0.0.5"), Some("127.0.0.1:80"), "it serves every public address");
        assert_eq!(goes(loopback, V6, "::1"), None);
        assert_eq!(goes(&[("[::1]:80", false)], V4, "127.0.0.1"), None);
        assert_eq!(goes(&[], V4, "127.0.0.1"), None);
    }

    #[test]
    fn the_most_specific_one_gets_it() {
        use Arrival::{Mapped, V4, V6};
        let groups =
            &[("0.0.0.0:80", false), ("127.0.0.1:80", false), ("[::]:80", true), ("[::1]:80", false)];
        assert_eq!(goes(groups, V4, "127.0.0.1"), Some("127.0.0.1:80"));
        assert_eq!(goes(groups, V4, "10.0.0.5"), Some("0.0.0.0:80"));
        assert_eq!(goes(groups, V6, "::1"), Some("[::1]:80"));
        assert_eq!(goes(groups, V6, "2001:db8::1"), Some("[::]:80"));
        let mapped = &[("[::]:80", false), ("[::ffff:127.0.0.1]:80", false)];
        assert_eq!(goes(mapped, Mapped, "::ffff:127.0.0.1"), Some("[::ffff:127.0.0.1]:80"));
        assert_eq!(goes(mapped, Mapped, "::ffff:10.0.0.5"), Some("[::]:80"));
    }

    #[test]
    fn if_none_of_several_is_meant_they_take_turns() {
        let takers = [(bindings(("127.0.0.1:80", false)), 4), (bindings(("127.0.0.2:80", false)), 7)];
        let local = "10.0.0.5".parse().ok();
        assert_eq!([0, 1, 2].map(|turn| by_address(&takers, local, turn)), [Some(4), Some(7), Some(4)]);
        assert_eq!(by_address(&takers, None, 0), Some(4));
        assert_eq!(by_address(&[], local, 3), None);
    }

    #[test]
    fn while_versions_change_an_ipv4_client_goes_where_it_can() {
        assert_eq!(goes(&[("[::]:80", false)], Arrival::V4, "127.0.0.1"), Some("[::]:80"));
        assert_eq!(goes(&[("0.0.0.0:80", false)], Arrival::Mapped, "::ffff:127.0.0.1"), Some("0.0.0.0:80"));
        let both = &[("[::]:80", false), ("0.0.0.0:80", false)];
        assert_eq!(goes(both, Arrival::V4, "127.0.0.1"), Some("0.0.0.0:80"));
        assert_eq!(goes(both, Arrival::Mapped, "::ffff:127.0.0.1"), Some("[::]:80"));
    }

    proptest! {
        #[test]
        fn it_goes_somewhere_if_and_only_if_someone_takes_its_family(
            groups in proptest::sample::subsequence(BOUND.to_vec(), 0..=BOUND.len()),
            arrival in proptest::sample::select(Arrival::ALL.to_vec()),
            local in proptest::sample::select(vec!["127.0.0.1", "10.0.0.5", "::1", "2001:db8::1"]),
        ) {
            let takes = |&bound: &(&str, bool), arrival| bindings(bound).takes.has(arrival);
            let native = groups.iter().any(|group| takes(group, arrival));
            let twin = groups.iter().any(|group| arrival.twin().is_some_and(|twin| takes(group, twin)));
            let goes = goes(&groups, arrival, local);
            prop_assert_eq!(goes.is_some(), native || twin);
        }
    }
}
