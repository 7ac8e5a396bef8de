//! Socket addresses: the bytes of a `struct sockaddr` to an [`Endpoint`] and back, and a client's address as a
//! server expects it.
//!
//! Pure: it makes no system call and touches no memory of the program.

use super::abi::{AF_INET, AF_INET6};
use super::wire::Endpoint;

/// The length of a `struct sockaddr_in`.
const IN_LEN: usize = 16;
/// The length of a `struct sockaddr_in6`.
pub(crate) const IN6_LEN: usize = 28;
/// The shortest `struct sockaddr_in6` that the kernel takes: without the scope (RFC 2133).
const IN6_LEN_WITHOUT_SCOPE: usize = 24;

/// A `struct sockaddr_in` or `struct sockaddr_in6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sockaddr {
    bytes: [u8; IN6_LEN],
    len: usize,
}

impl Sockaddr {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }
}

/// Reads an IP address; `None` if the bytes are another family's, or too short for their family.
pub(crate) fn read(sockaddr: &[u8]) -> Option<Endpoint> {
    let port = u16::from_be_bytes(array(sockaddr, 2)?);
    match u16::from_ne_bytes(array(sockaddr, 0)?) {
        AF_INET if sockaddr.len() >= IN_LEN => Some(Endpoint::V4 { address: array(sockaddr, 4)?, port }),
        AF_INET6 if sockaddr.len() >= IN6_LEN_WITHOUT_SCOPE => Some(Endpoint::V6 {
            address: array(sockaddr, 8)?,
            port,
            scope: u32::from_ne_bytes(array(sockaddr, 24).unwrap_or_default()),
        }),
        _ => None,
    }
}

/// The opposite of [`read`].
pub(crate) fn write(endpoint: &Endpoint) -> Sockaddr {
    let mut bytes = [0; IN6_LEN];
    let mut put = |at: usize, part: &[u8]| {
        for (to, from) in bytes.iter_mut().skip(at).zip(part) {
            *to = *from;
        }
    };
    put(0, &family(endpoint).to_ne_bytes());
    put(2, &endpoint.port().to_be_bytes());
    let len = match endpoint {
        Endpoint::V4 { address, .. } => {
            put(4, address);
            IN_LEN
        }
        Endpoint::V6 { address, scope, .. } => {
            put(8, address);
            put(24, &scope.to_ne_bytes());
            IN6_LEN
        }
    };
    Sockaddr { bytes, len }
}

/// `AF_INET` or `AF_INET6`.
pub(crate) fn family(endpoint: &Endpoint) -> u16 {
    match endpoint {
        Endpoint::V4 { .. } => AF_INET,
        Endpoint::V6 { .. } => AF_INET6,
    }
}

/// The same address with another port.
pub(crate) fn with_port(endpoint: &Endpoint, port: u16) -> Endpoint {
    match *endpoint {
        Endpoint::V4 { address, .. } => Endpoint::V4 { address, port },
        Endpoint::V6 { address, scope, .. } => Endpoint::V6 { address, port, scope },
    }
}

/// The client's address as accept(2) would give it on a listener bound to `listener`: always in the listener's
/// family. A dual-stack listener sees IPv4 clients as v4-mapped, an IPv4 listener sees them plain. IPv6 clients come to
/// no IPv4 listener.
pub(crate) fn as_seen_by(listener: &Endpoint, client: Endpoint) -> Endpoint {
    match (listener, client) {
        (Endpoint::V6 { .. }, Endpoint::V4 { address: [a, b, c, d], port }) => {
            Endpoint::V6 { address: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d], port, scope: 0 }
        }
        (
            Endpoint::V4 { .. },
            Endpoint::V6 { address: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d], port, .. },
        ) => Endpoint::V4 { address: [a, b, c, d], port },
        (_, client) => client,
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn endpoint(ip: IpAddr, port: u16) -> Endpoint {
        match ip {
            IpAddr::V4(ip) => Endpoint::V4 { address: ip.octets(), port },
            IpAddr::V6(ip) => Endpoint::V6 { address: ip.octets(), port, scope: 0 },
        }
    }

    #[test]
    fn a_client_is_seen_in_the_family_of_the_listener() {
        let v4 = endpoint(Ipv4Addr::LOCALHOST.into(), 1234);
        let mapped = endpoint(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), 1234);
        let v6 = endpoint(Ipv6Addr::LOCALHOST.into(), 1234);
        for (listener, client, seen) in
            [(v4, v4, v4), (v4, mapped, v4), (v6, v4, mapped), (v6, mapped, mapped), (v6, v6, v6)]
        {
            assert_eq!(as_seen_by(&listener, client), seen, "{client:?} on {listener:?}");
        }
    }

    #[test]
    fn the_bytes_are_those_of_a_struct_sockaddr() {
        let v4 = write(&endpoint(Ipv4Addr::new(10, 1, 2, 3).into(), 0x1f90));
        assert_eq!(v4.bytes(), [2, 0, 0x1f, 0x90, 10, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0]);
        let v6 = write(&endpoint(Ipv6Addr::LOCALHOST.into(), 0x1f90));
        assert_eq!(v6.bytes().len(), size_of::<libc::sockaddr_in6>());
        assert_eq!(&v6.bytes()[..8], [10, 0, 0x1f, 0x90, 0, 0, 0, 0]);
    }

    #[test]
    fn a_short_or_foreign_address_is_none() {
        let v4 = write(&endpoint(Ipv4Addr::LOCALHOST.into(), 1));
        let v6 = write(&endpoint(Ipv6Addr::LOCALHOST.into(), 1));
        for len in 0..16 {
            assert_eq!(read(&v4.bytes()[..len]), None);
        }
        for len in 0..24 {
            assert_eq!(read(&v6.bytes()[..len]), None);
        }
        assert!(read(&v6.bytes()[..24]).is_some());
        assert_eq!(read(b"\x01\0/run/socket........................"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(address: [u8; 16], port: u16, scope: u32) {
            let v6 = Endpoint::V6 { address, port, scope };
            prop_assert_eq!(read(write(&v6).bytes()), Some(v6));
            let [a, b, c, d, ..] = address;
            let v4 = Endpoint::V4 { address: [a, b, c, d], port };
            prop_assert_eq!(read(write(&v4).bytes()), Some(v4));
            for endpoint in [v4, v6] {
                prop_assert_eq!(with_port(&with_port(&endpoint, 0), port), endpoint);
            }
        }
    }
}
