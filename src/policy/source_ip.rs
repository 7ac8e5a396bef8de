//! The same worker for the same client address, as long as that worker serves.
//!
//! Rendezvous hashing (highest random weight, Thaler and Ravishankar 1998): a client's workers are ranked by a hash of its
//! address and each worker's slot. So one slot more or fewer moves its own share of the clients and no others, and the
//! worker that takes a slot over takes its clients over. While two launches of a slot serve, the older one keeps them.
//! It keeps no table of clients.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Availability, Balancer, Seat};
use crate::ids::Slot;
use crate::protocol::wire::Endpoint;

/// The workers that serve.
#[derive(Debug, Default)]
pub(crate) struct SourceIp {
    /// By seat.
    workers: Vec<Worker>,
    /// The seats of those that serve.
    serving: Vec<Seat>,
    has_changed: bool,
    launches: u64,
}

#[derive(Clone, Copy, Debug)]
struct Worker {
    slot: Slot,
    /// Of two launches of one slot, the older one has the lower number.
    launch: u64,
    availability: Availability,
}

impl SourceIp {
    fn worker(&mut self, seat: Seat) -> &mut Worker {
        if seat.0 >= self.workers.len() {
            let nobody = Worker { slot: Slot(0), launch: 0, availability: Availability::Away };
            self.workers.resize(seat.0 + 1, nobody);
        }
        &mut self.workers[seat.0]
    }
}

impl Balancer for SourceIp {
    fn seated(&mut self, seat: Seat, slot: Slot) {
        self.stands(seat, Availability::Away);
        self.launches += 1;
        let launch = self.launches;
        *self.worker(seat) = Worker { slot, launch, availability: Availability::Away };
    }

    fn stands(&mut self, seat: Seat, availability: Availability) {
        let was = std::mem::replace(&mut self.worker(seat).availability, availability);
        match (was == Availability::Away, availability == Availability::Away) {
            (true, false) => self.serving.push(seat),
            (false, true) => self.serving.retain(|&other| other != seat),
            (true, true) | (false, false) => return,
        }
        self.has_changed = true;
    }

    /// The client's own worker, if it can be given a connection now.
    fn next(&mut self, client: &Endpoint) -> Option<Seat> {
        self.home(client).filter(|home| self.workers[home.0].availability >= Availability::Ahead)
    }

    fn home_unless(&self, client: &Endpoint, shunned: &dyn Fn(Seat) -> bool) -> Option<Seat> {
        let client = hash(network(client));
        self.serving.iter().copied().max_by_key(|seat| {
            let Worker { slot, launch, .. } = self.workers[seat.0];
            (!shunned(*seat), mix(client ^ u64::from(slot.0)), slot, std::cmp::Reverse(launch))
        })
    }

    /// The older of two launches comes first.
    fn order(&self) -> Vec<Seat> {
        let mut order: Vec<_> = (0..self.workers.len()).map(Seat).collect();
        order.sort_by_key(|seat| self.workers[seat.0].launch);
        order
    }

    fn homes_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }
}

/// What clients that belong together have in common: the IPv4 address, which may be mapped, or the first half of the
/// IPv6 address, of which a client can have as many as it likes. Link-local addresses all have the same first half.
fn network(client: &Endpoint) -> u128 {
    match IpAddr::from(*client).to_canonical() {
        IpAddr::V4(ip) => Ipv4Addr::to_ipv6_mapped(&ip).to_bits(),
        IpAddr::V6(ip) if ip.is_unicast_link_local() => ip.to_bits(),
        IpAddr::V6(ip) => {
            ip.to_bits() & u128::from(Ipv6Addr::from([0xffff, 0xffff, 0xffff, 0xffff, 0, 0, 0, 0]))
        }
    }
}

fn hash(network: u128) -> u64 {
    #[allow(clippy::cast_possible_truncation)]
    let (high, low) = ((network >> 64) as u64, network as u64);
    mix(mix(high) ^ low)
}

/// The finalizer of SplitMix64: each bit of the result depends on each bit of the input. It never changes, so that a
/// restarted primary sends clients where its predecessor did.
fn mix(input: u64) -> u64 {
    let mut bits = input.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::super::model::{Model, seats, steps};
    use super::*;
    use Availability::{Ahead, Away, Full, Idle};

    fn client(address: &str) -> Endpoint {
        address.parse::<SocketAddr>().unwrap().into()
    }

    fn clients() -> Vec<Endpoint> {
        (0..4000)
            .map(|n: u32| Endpoint::V4 { address: (0x0a00_0000 + n * 7).to_be_bytes(), port: 1 })
            .collect()
    }

    fn of(workers: usize) -> SourceIp {
        let mut balancer = SourceIp::default();
        seats(&mut balancer, &vec![(0, Idle); workers]);
        balancer
    }

    #[test]
    fn clients_that_belong_together_have_one_worker() {
        let same = [
            ("192.0.2.7:1", "192.0.2.7:2", true),
            ("192.0.2.7:1", "[::ffff:192.0.2.7]:2", true),
            ("192.0.2.7:1", "192.0.2.8:1", false),
            ("[2001:db8:1:2::3]:1", "[2001:db8:1:2:ffff:ffff:ffff:ffff]:9", true),
            ("[2001:db8:1:2::3]:1", "[2001:db8:1:3::3]:1", false),
            ("[fe80::1]:1", "[fe80::2]:1", false),
            ("[fe80::1]:1", "[fe80::1%7]:2", true),
            ("[::1]:1", "[::1]:2", true),
            ("[::1]:1", "127.0.0.1:1", false),
            ("0.0.0.0:1", "[::]:1", false),
        ];
        for (one, other, is_same) in same {
            assert_eq!(network(&client(one)) == network(&client(other)), is_same, "{one} {other}");
        }
    }

    #[test]
    fn a_clients_worker_is_the_same_in_each_version() {
        let mut balancer = of(4);
        let clients = ["127.0.0.1:1", "127.0.0.2:1", "127.0.0.9:1", "192.0.2.8:1", "[2001:db8:5::1]:1"];
        let seats = clients.map(|address| balancer.next(&client(address)).unwrap().0);
        assert_eq!(seats, [0, 3, 1, 0, 2]);
    }

    #[test]
    fn each_worker_has_its_share() {
        for workers in [2, 4, 7, 16] {
            let mut balancer = of(workers);
            let mut shares = vec![0; workers];
            let clients = clients();
            clients.iter().for_each(|client| shares[balancer.next(client).unwrap().0] += 1);
            let fair = clients.len() / workers;
            let is_fair = |share: &usize| (fair * 4 / 5..=fair * 6 / 5).contains(share);
            assert!(shares.iter().all(is_fair), "{shares:?}");
        }
    }

    #[test]
    fn one_worker_more_moves_its_own_share_to_it_and_nobody_else() {
        let (four, five) = (of(4), of(5));
        let clients = clients();
        let moved: Vec<_> = clients.iter().filter(|client| four.home(client) != five.home(client)).collect();
        assert!(moved.iter().all(|client| five.home(client) == Some(Seat(4))));
        assert!((700..900).contains(&moved.len()), "about a fifth: {}", moved.len());
    }

    #[test]
    fn a_client_waits_for_its_worker_if_that_is_busy_and_goes_on_if_it_is_away() {
        let mut balancer = of(4);
        let client = clients()[0];
        let home = balancer.next(&client).unwrap();
        assert!(balancer.homes_changed());
        balancer.stands(home, Ahead);
        assert_eq!(balancer.next(&client), Some(home));
        balancer.stands(home, Full);
        assert_eq!((balancer.next(&client), balancer.home(&client)), (None, Some(home)));
        assert!(!balancer.homes_changed());
        balancer.stands(home, Away);
        assert!(balancer.homes_changed());
        let second = balancer.next(&client).unwrap();
        assert_ne!(second, home);
        balancer.stands(home, Idle);
        assert_eq!(balancer.next(&client), Some(home), "it comes back to it");
        (0..4).for_each(|seat| balancer.stands(Seat(seat), Away));
        assert_eq!((balancer.next(&client), balancer.home(&client)), (None, None));
    }

    #[test]
    fn a_client_goes_to_its_next_choice_where_a_worker_is_shunned_but_not_if_all_are() {
        let balancer = of(4);
        for client in clients().iter().take(64) {
            let mut shunned = Vec::new();
            for _ in 0..4 {
                let home = balancer.home_unless(client, &|seat| shunned.contains(&seat)).unwrap();
                assert!(!shunned.contains(&home));
                shunned.push(home);
            }
            assert_eq!(shunned.first(), balancer.home(client).as_ref());
            assert_eq!(balancer.home_unless(client, &|seat| shunned.contains(&seat)), balancer.home(client));
        }
    }

    #[test]
    fn a_launch_keeps_its_clients_until_it_ends_and_its_successor_has_them_then() {
        let mut balancer = of(3);
        let clients = clients();
        let before: Vec<_> = clients.iter().map(|client| balancer.home(client)).collect();
        balancer.seated(Seat(3), Slot(2));
        balancer.stands(Seat(3), Idle);
        let during: Vec<_> = clients.iter().map(|client| balancer.home(client)).collect();
        assert_eq!(before, during);
        balancer.stands(Seat(1), Away);
        for (client, before) in clients.iter().zip(before) {
            let after = if before == Some(Seat(1)) { Some(Seat(3)) } else { before };
            assert_eq!(balancer.home(client), after);
        }
    }

    proptest! {
        /// A client's worker depends on which slots are served and on nothing else.
        #[test]
        fn whom_a_client_has_depends_on_who_serves_alone(steps in steps(), number in 0_usize..4000) {
            let client = clients()[number];
            let mut balancer = SourceIp::default();
            let mut model = Model::default();
            let mut known = BTreeMap::new();
            for step in steps {
                model.go(step, &mut balancer);
                let home = balancer.home(&client).map(|seat| model.workers[seat.0]);
                let slot = *known.entry(model.serving()).or_insert(home.map(|home| home.slot));
                prop_assert_eq!(home.map(|home| home.slot), slot);
                if let Some(home) = home {
                    prop_assert!(home.availability > Away);
                    let launches = model.workers.iter().filter(|other| other.slot == home.slot && other.availability > Away);
                    prop_assert_eq!(launches.map(|other| other.launch).min(), Some(home.launch));
                }
                let is_able = home.is_some_and(|home| home.availability >= Ahead);
                prop_assert_eq!(balancer.next(&client).is_some(), is_able);
            }
        }
    }
}
