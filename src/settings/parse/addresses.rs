//! Ports and addresses, as `--port`, `--bind` and `--metrics` take them.
//!
//! Numbers only: no name is looked up.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::is_digits;
use crate::ids::WorkerPort;
use crate::settings::error::Reason;
use crate::settings::kind::Parsed;
use crate::settings::{Bind, Listen};

/// A port, for every address of the machine.
pub(crate) const PORT: Parsed<Listen> = Parsed {
    placeholder: "PUBLIC[:WORKER]",
    accepts: "a number from 1 to 65535, or PUBLIC:WORKER, such as 80:8080",
    read: port,
    show: Listen::to_string,
};

/// An address and a port.
pub(crate) const BIND: Parsed<Listen> = Parsed {
    placeholder: "ADDR:PORT[:WORKER]",
    accepts: "a numeric ADDR:PORT, or ADDR:PORT:WORKER, such as 127.0.0.1:3000 or [::1]:80:8080",
    read: bind,
    show: Listen::to_string,
};

/// An address of clusterd's own; a bare port means the loopback.
pub(crate) const METRICS: Parsed<SocketAddr> = Parsed {
    placeholder: "[ADDR:]PORT",
    accepts: "a port, or a numeric ADDR:PORT, such as 0.0.0.0:9090 or [::]:9090",
    read: metrics,
    show: SocketAddr::to_string,
};

fn not_a_port() -> Reason {
    Reason::new("not a port")
}

fn not_an_address() -> Reason {
    Reason::new("not an address")
}

/// `PUBLIC` or `PUBLIC:WORKER`, as a container's published ports are written.
///
/// # Errors
/// It is neither, or no port that workers can be served on follows from it.
pub(crate) fn port(text: &str) -> Result<Listen, Reason> {
    if text.starts_with("tcp://") {
        return Err(Reason::new(
            "not a port, but an address that Kubernetes sets for a service of this name",
        )
        .hint("rename the service, or set enableServiceLinks: false in the pod"));
    }
    let (public, worker) = match text.split_once(':') {
        Some((public, worker)) => (public, Some(worker)),
        None => (text, None),
    };
    let port = port_number(public).ok_or_else(not_a_port)?;
    let worker = worker.map(|worker| port_number(worker).ok_or_else(not_a_port)).transpose()?;
    listen(Bind::Everywhere { port }, worker)
}

/// `ADDR:PORT` or `ADDR:PORT:WORKER`, with an IPv6 address in brackets.
///
/// # Errors
/// It is neither, or no port that workers can be served on follows from it.
pub(crate) fn bind(text: &str) -> Result<Listen, Reason> {
    if let Ok(address) = text.parse() {
        return listen(Bind::Address(canonical(address)), None);
    }
    let (address, worker) = text.rsplit_once(':').ok_or_else(not_an_address)?;
    let address = address.parse().map_err(|_| not_an_address())?;
    let worker = port_number(worker).ok_or_else(not_an_address)?;
    listen(Bind::Address(canonical(address)), Some(worker))
}

fn listen(bind: Bind, worker: Option<u16>) -> Result<Listen, Reason> {
    let worker_port = match (worker, bind.address().port()) {
        (Some(0), _) => {
            return Err(
                Reason::new("workers cannot listen on port 0").hint("name the port that they listen on")
            );
        }
        (Some(worker), _) => worker,
        (None, 0) => {
            let hint = format!("use {}", free_port_mapped(bind));
            return Err(
                Reason::new("port 0 means any free port, so the workers' port must be named").hint(hint)
            );
        }
        (None, public) => public,
    };
    Ok(Listen { bind, worker_port: WorkerPort(worker_port) })
}

/// An example of what would do.
fn free_port_mapped(bind: Bind) -> String {
    let worker_port = WorkerPort(3000);
    Listen { bind, worker_port }.to_string()
}

/// `[::ffff:127.0.0.1]` is 127.0.0.1 on a socket that takes IPv6 only.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => (ip, address.port()).into(),
        IpAddr::V6(_) => address,
    }
}

/// `PORT` or `:PORT` on the loopback, or `ADDR:PORT`.
pub(crate) fn metrics(text: &str) -> Result<SocketAddr, Reason> {
    if let Some(port) = port_number(text.strip_prefix(':').unwrap_or(text)) {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse().map(canonical).map_err(|_| not_an_address())
}

fn port_number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| is_digits(text))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, SocketAddrV6};

    use proptest::prelude::*;

    use super::super::outcome;
    use super::*;

    #[test]
    fn ports() {
        const NOT: &str = "not a port";
        const ZERO: &str = "workers cannot listen on port 0";
        let cases = [
            ("3000", "3000"),
            ("80:8080", "80:8080"),
            ("080", "80"),
            ("8080:8080", "8080"),
            ("0:3000", "0:3000"),
            ("65535", "65535"),
            ("0", "port 0 means any free port, so the workers' port must be named"),
            ("80:0", ZERO),
            ("0:0", ZERO),
            ("65536", NOT),
            ("80:65536", NOT),
            ("+80", NOT),
            ("-80", NOT),
            ("", NOT),
            (":80", NOT),
            ("80:", NOT),
            ("80:81:82", NOT),
            ("http", NOT),
            ("127.0.0.1:80", NOT),
            (" 80", NOT),
            (
                "tcp://10.0.0.1:80",
                "not a port, but an address that Kubernetes sets for a service of this name",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(outcome(&PORT, text), expected, "{text}");
        }
    }

    #[test]
    fn addresses() {
        const NOT: &str = "not an address";
        let cases = [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("127.0.0.1:80:8080", "127.0.0.1:80:8080"),
            ("[::1]:80", "[::1]:80"),
            ("[::1]:80:8080", "[::1]:80:8080"),
            ("[fe80::1%2]:80", "[fe80::1%2]:80"),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
            ("0.0.0.0:0:3000", "0.0.0.0:0:3000"),
            ("[::]:0", "port 0 means any free port, so the workers' port must be named"),
            ("[::]:80:0", "workers cannot listen on port 0"),
            ("::1:80", NOT),
            ("[::1]", NOT),
            ("127.0.0.1", NOT),
            ("127.0.0.1:", NOT),
            ("127.0.0.1:80:", NOT),
            ("127.0.0.1:80:1:2", NOT),
            ("127.0.0.1:80:+1", NOT),
            ("localhost:80", NOT),
            (":80", NOT),
            ("80", NOT),
            ("", NOT),
        ];
        for (text, expected) in cases {
            assert_eq!(outcome(&BIND, text), expected, "{text}");
        }
    }

    #[test]
    fn a_free_port_without_a_worker_port_is_told_what_to_write() {
        let said = port("0").expect_err("refused").to_string();
        assert!(said.ends_with("use 0:3000"), "{said}");
        let said = bind("[::1]:0").expect_err("refused").to_string();
        assert!(said.ends_with("use [::1]:0:3000"), "{said}");
    }

    #[test]
    fn metrics_stay_on_the_loopback_unless_told_otherwise() {
        let cases = [
            ("9090", "127.0.0.1:9090"),
            (":9090", "127.0.0.1:9090"),
            ("0", "127.0.0.1:0"),
            ("0.0.0.0:9090", "0.0.0.0:9090"),
            ("[::]:9090", "[::]:9090"),
            ("", "not an address"),
            (":", "not an address"),
            ("::9090", "not an address"),
            ("localhost:9090", "not an address"),
            ("99999", "not an address"),
        ];
        for (text, expected) in cases {
            assert_eq!(outcome(&METRICS, text), expected, "{text}");
        }
    }

    fn any_public() -> impl Strategy<Value = Bind> {
        let v4 = (any::<Ipv4Addr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((ip, port)));
        let v6 = (any::<Ipv6Addr>(), any::<u16>(), any::<u32>())
            .prop_map(|(ip, port, scope)| canonical(SocketAddrV6::new(ip, port, 0, scope).into()));
        prop_oneof![
            any::<u16>().prop_map(|port| Bind::Everywhere { port }),
            v4.prop_map(Bind::Address),
            v6.prop_map(Bind::Address),
        ]
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(public in any_public(), worker in 1..=u16::MAX) {
            let listen = Listen { bind: public, worker_port: WorkerPort(worker) };
            let read = match public {
                Bind::Everywhere { .. } => port,
                Bind::Address(_) => bind,
            };
            prop_assert_eq!(read(&listen.to_string()).ok(), Some(listen));
        }
    }
}
