//! Which queries of one worker exclude each other, as bind(2) would have it on one machine.
//!
//! Between workers nothing excludes: the same query of two workers is one listener.

use std::net::IpAddr;

use super::message::{AddressType, Query};

impl Query {
    /// Whether a worker that has this may not have `other` too: it is the same again, or the same TCP port where one
    /// is for every address and the other for one of them.
    pub fn excludes(&self, other: &Query) -> bool {
        let is_tcp = |query: &Query| matches!(query.address_type, AddressType::V4 | AddressType::V6);
        let same_port = is_tcp(self) && is_tcp(other) && self.port == other.port && other.port > 0;
        let (mine, theirs) = (Reach::of(self), Reach::of(other));
        self.key() == other.key() || (same_port && (mine.covers(theirs) || theirs.covers(mine)))
    }
}

/// The addresses that a TCP listener is reached at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    All,
    AllV4,
    AllV6,
    One(IpAddr),
}

impl Reach {
    fn of(query: &Query) -> Self {
        let all = if query.flags & Query::IPV6_ONLY == 0 { Reach::All } else { Reach::AllV6 };
        // With a zone (`fe80::1%eth0`), the interface is a part of the address; two of them on one port are rare enough.
        let address = query.address.as_deref().map(|address| address.split('%').next().unwrap_or(address));
        match address.map(str::parse::<IpAddr>) {
            Some(Ok(IpAddr::V4(ip))) if ip.is_unspecified() => Reach::AllV4,
            Some(Ok(ip)) if !ip.is_unspecified() => Reach::One(ip),
            _ => all,
        }
    }

    fn covers(self, other: Reach) -> bool {
        match (self, other) {
            (Reach::All, _) => true,
            (Reach::AllV4, other) => matches!(other, Reach::AllV4 | Reach::One(IpAddr::V4(_))),
            (Reach::AllV6, other) => matches!(other, Reach::AllV6 | Reach::One(IpAddr::V6(_))),
            (Reach::One(_), other) => self == other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(address: &str, port: u16, kind: &str, flags: i64) -> Query {
        let text = format!(
            r#"{{"seq":0,"address":{address},"port":{port},"addressType":{kind},"flags":{flags},"index":{port}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_port_on_every_address_excludes_it_on_one_and_the_other_way_round() {
        let everywhere = query("null", 80, "4", 0);
        let only_ipv6 = query(r#""::""#, 80, "6", Query::IPV6_ONLY);
        let only_ipv4 = query(r#""0.0.0.0""#, 80, "4", 0);
        let one = query(r#""127.0.0.1""#, 80, "4", 0);
        let other = query(r#""127.0.0.2""#, 80, "4", 0);
        let loopback6 = query(r#""::1""#, 80, "6", 0);
        let cases = [
            (&everywhere, &everywhere, true),
            (&everywhere, &one, true),
            (&everywhere, &loopback6, true),
            (&only_ipv4, &only_ipv6, false),
            (&only_ipv4, &one, true),
            (&only_ipv4, &loopback6, false),
            (&only_ipv6, &loopback6, true),
            (&only_ipv6, &one, false),
            (&one, &other, false),
            (&one, &one, true),
        ];
        for (first, second, excludes) in cases {
            assert_eq!(first.excludes(second), excludes, "{first:?} and {second:?}");
            assert_eq!(second.excludes(first), excludes, "{second:?} and {first:?}");
        }
    }

    #[test]
    fn other_ports_any_port_and_other_kinds_do_not_exclude() {
        let everywhere = query("null", 80, "4", 0);
        assert!(!everywhere.excludes(&query("null", 81, "4", 0)));
        assert!(!everywhere.excludes(&query("null", 80, r#""udp4""#, 0)));
        let (mut first, mut second) = (query("null", 0, "4", 0), query("null", 0, "4", 0));
        (first.index, second.index) = (0, 1);
        assert!(!first.excludes(&second));
    }
}
