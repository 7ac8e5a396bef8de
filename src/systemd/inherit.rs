//! The public ports that were opened for clusterd before it was started: socket activation, sd_listen_fds(3).
//!
//! What they are for is decided here, purely; they are listened on in `primary::public_sockets`.

use std::env;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};

use crate::ids::WorkerPort;
use crate::settings::{Bind, Listen};
use crate::sys;

/// SD_LISTEN_FDS_START: the first number after the standard streams.
const FIRST: u32 = 3;

/// A listening TCP socket that was inherited.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// The socket.
    pub socket: OwnedFd,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Why the inherited sockets cannot be the ports.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InheritError {
    /// `LISTEN_FDS` is for us, and no number.
    #[error("LISTEN_FDS={0:?} is not a number of descriptors; the service manager sets this variable")]
    Count(String),
    /// One of them is not there.
    #[error("LISTEN_FDS={count} includes descriptor {number}, which cannot be used: {source}")]
    Missing {
        /// The promise.
        count: u32,
        /// The descriptor.
        number: u32,
        /// What the system said.
        source: io::Error,
    },
    /// One of them is something else.
    #[error(
        "descriptor {number}, which was inherited to be listened on (LISTEN_FDS), is {what}; only listening TCP \
         sockets can be ports: ListenStream= with a port, and Accept=no, in the .socket unit"
    )]
    NoPort {
        /// The descriptor.
        number: u32,
        /// What it is.
        what: String,
    },
    /// Nobody has asked for it.
    #[error(
        "the inherited socket {address} (LISTEN_FDS) is not one of the configured ports: name it with {}, or take \
         it out of the .socket unit",
        flag(*address)
    )]
    Unwanted {
        /// Where it listens.
        address: SocketAddr,
    },
}

fn flag(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("--port {}", address.port()),
        false => format!("--bind {address}"),
    }
}

/// The sockets that are meant for this process; none if there are none.
///
/// # Errors
/// They cannot be ports.
pub(crate) fn inherited() -> Result<Vec<Inherited>, InheritError> {
    let variable = |name| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let count = promised(variable("LISTEN_PID"), variable("LISTEN_FDS"), std::process::id())?;
    (FIRST..FIRST.saturating_add(count)).map(|number| take(number, count)).collect()
}

/// How many descriptors are promised to the process `own`.
pub(crate) fn promised(pid: Option<String>, count: Option<String>, own: u32) -> Result<u32, InheritError> {
    match count {
        Some(count) if pid.is_some_and(|pid| pid.parse() == Ok(own)) => {
            count.parse().map_err(|_| InheritError::Count(count))
        }
        // Meant for another process: one that has started this one, and has forgotten to remove them.
        _ => Ok(0),
    }
}

/// A duplicate, so that whatever stands at this number keeps its owner. The original is closed by the next exec.
fn take(number: u32, count: u32) -> Result<Inherited, InheritError> {
    let missing = |source| InheritError::Missing { count, number, source };
    let socket = sys::process::duplicate(number).map_err(missing)?;
    match examine(&socket) {
        Ok(address) => {
            rustix::io::ioctl_fionbio(&socket, true).map_err(|error| missing(error.into()))?;
            Ok(Inherited { socket, address })
        }
        Err(what) => Err(InheritError::NoPort { number, what }),
    }
}

/// Where it listens; or what it is instead.
fn examine(socket: &OwnedFd) -> Result<SocketAddr, String> {
    let Ok(domain) = socket_domain(socket) else { return Err("no socket".to_owned()) };
    let address = rustix::net::getsockname(socket).ok().and_then(|name| SocketAddr::try_from(name).ok());
    let at = address.map(|address| format!(" at {address}")).unwrap_or_default();
    let is_ip = matches!(domain, AddressFamily::INET | AddressFamily::INET6);
    match (address, socket_type(socket), socket_acceptconn(socket)) {
        _ if domain == AddressFamily::UNIX => Err("a Unix socket".to_owned()),
        (Some(address), Ok(SocketType::STREAM), Ok(true)) if is_ip => Ok(address),
        (_, Ok(SocketType::STREAM), _) if is_ip => Err(format!("a TCP socket{at} that does not listen")),
        (_, Ok(SocketType::DGRAM), _) if is_ip => Err(format!("a UDP socket{at}")),
        _ => Err(format!("a socket of another kind{at}")),
    }
}

/// Which inherited sockets are for which of the addresses that were asked for; addresses without any are to be bound.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan<T> {
    /// In the order of the configuration; the inherited ones that stand for it.
    pub ports: Vec<(Listen, Vec<T>)>,
}

/// Gives each inherited socket to the address that asks for it: `--port` for every socket of that port, `--bind` for
/// that very address. Is nothing asked for (`is_default`), they are what is served.
///
/// # Errors
/// The first one that nobody has asked for.
pub(crate) fn plan<T>(
    listen: &[Listen],
    is_default: bool,
    inherited: impl IntoIterator<Item = (SocketAddr, T)>,
) -> Result<Plan<T>, InheritError> {
    let mut inherited = inherited.into_iter().peekable();
    let takes_all = is_default && inherited.peek().is_some();
    let asked = if takes_all { &[] } else { listen };
    let mut ports: Vec<(Listen, Vec<T>)> = asked.iter().map(|&listen| (listen, Vec::new())).collect();
    for (address, socket) in inherited {
        match ports.iter_mut().find(|(listen, _)| is_asked_for(listen.bind, address)) {
            Some((_, sockets)) => sockets.push(socket),
            None if takes_all => {
                let listen = Listen { bind: Bind::Address(address), worker_port: WorkerPort(address.port()) };
                ports.push((listen, vec![socket]));
            }
            None => return Err(InheritError::Unwanted { address }),
        }
    }
    Ok(Plan { ports })
}

/// Whether who asks for `bind` asks for the socket at this address.
pub(crate) fn is_asked_for(bind: Bind, address: SocketAddr) -> bool {
    match bind {
        Bind::Everywhere { port } => port == address.port(),
        Bind::Address(asked) => asked == address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::parse;

    fn promise(pid: Option<&str>, count: Option<&str>) -> Result<u32, String> {
        let promised = promised(pid.map(str::to_owned), count.map(str::to_owned), 7);
        promised.map_err(|error| error.to_string())
    }

    #[test]
    fn only_what_is_promised_to_this_process_is_taken() {
        let cases = [
            (None, None, 0),
            (Some("7"), None, 0),
            (None, Some("1"), 0),
            (Some("8"), Some("1"), 0),
            (Some("8"), Some("many"), 0),
            (Some("7"), Some("2"), 2),
            (Some("7"), Some("0"), 0),
        ];
        for (pid, count, expected) in cases {
            assert_eq!(promise(pid, count), Ok(expected), "{pid:?} {count:?}");
        }
        let error = promise(Some("7"), Some("-1")).unwrap_err();
        assert!(error.starts_with("LISTEN_FDS=\"-1\" is not a number"), "{error}");
    }

    /// `:80` is a port, anything else an address.
    fn listen(text: &str) -> Listen {
        match text.strip_prefix(':') {
            Some(port) => parse::port(port).expect("a port"),
            None => parse::bind(text).expect("an address"),
        }
    }

    /// What stands for what, as `asked=inherited,...`; or the error.
    fn planned(asked: &[&str], is_default: bool, inherited: &[&str]) -> String {
        let asked: Vec<Listen> = asked.iter().map(|text| listen(text)).collect();
        let inherited = inherited.iter().map(|text| (text.parse().expect("an address"), *text));
        match plan(&asked, is_default, inherited) {
            Ok(Plan { ports }) => {
                let each = |(listen, sockets): (Listen, Vec<&str>)| format!("{listen}={}", sockets.join(","));
                ports.into_iter().map(each).collect::<Vec<_>>().join(" ")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn inherited_sockets_go_to_those_who_ask_for_them() {
        let cases: [(&[&str], &[&str], &str); 7] = [
            (&[":80"], &[], "80="),
            (&[":80"], &["[::]:80"], "80=[::]:80"),
            (&[":80:8080"], &["0.0.0.0:80", "[::]:80"], "80:8080=0.0.0.0:80,[::]:80"),
            (&[":80", ":81"], &["127.0.0.1:81"], "80= 81=127.0.0.1:81"),
            (&["127.0.0.1:80", "[::1]:80"], &["[::1]:80"], "127.0.0.1:80= [::1]:80=[::1]:80"),
            (&[":0:80"], &[], "0:80="),
            (&[":80"], &["127.0.0.1:80", "127.0.0.1:80"], "80=127.0.0.1:80,127.0.0.1:80"),
        ];
        for (asked, inherited, expected) in cases {
            assert_eq!(planned(asked, false, inherited), expected);
        }
    }

    #[test]
    fn where_nothing_is_asked_for_they_are_the_ports() {
        assert_eq!(planned(&[":3000"], true, &[]), "3000=");
        assert_eq!(planned(&[":3000"], true, &["127.0.0.1:80"]), "127.0.0.1:80=127.0.0.1:80");
        let both = planned(&[":3000"], true, &["0.0.0.0:80", "[::]:80", "[::1]:81"]);
        assert_eq!(both, "0.0.0.0:80=0.0.0.0:80 [::]:80=[::]:80 [::1]:81=[::1]:81");
    }

    #[test]
    fn one_that_nobody_has_asked_for_is_named_with_what_would_ask_for_it() {
        let cases: [(&[&str], &str, &str); 4] = [
            (&[":80"], "0.0.0.0:81", "--port 81"),
            (&[":0:81"], "[::]:81", "--port 81"),
            (&["127.0.0.1:80"], "[::]:80", "--port 80"),
            (&["127.0.0.1:80"], "127.0.0.2:80", "--bind 127.0.0.2:80"),
        ];
        for (asked, inherited, flag) in cases {
            let said = planned(asked, false, &[inherited]);
            assert!(said.contains(inherited) && said.contains(&format!("name it with {flag},")), "{said}");
        }
    }
}
