//! Opens the public ports, and explains why one cannot be opened.

use std::io;
use std::net::SocketAddr;

use super::owner::{self, Owner};
use crate::admin::listen_queues::PublicAddresses;
use crate::front::Accepts;
use crate::front::bound::{Bound, BoundAddress, ListeningSocket};
use crate::ids::WorkerPort;
use crate::protocol::wire::Binding;
use crate::settings::{Bind, Config, Listen};
use crate::systemd::inherit::{self, InheritError, Inherited, Plan};

/// The public sockets of each worker port.
pub(super) type Ports = Vec<(WorkerPort, Vec<Bound>)>;

/// A public address could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// It cannot be bound.
    #[error("cannot listen on {address}: {source}{advice}")]
    Refused {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
        /// What would help.
        advice: String,
    },
    /// What was inherited cannot be it.
    #[error(transparent)]
    Inherited(#[from] InheritError),
    /// What was inherited cannot be shared.
    #[error(
        "{count} sockets were inherited for port {port} (LISTEN_FDS), and with --accept workers workers share one: have one \
         ListenStream= for it in the .socket unit"
    )]
    Several {
        /// The port.
        port: WorkerPort,
        /// How many there are.
        count: usize,
    },
}

/// Listens on every public address, with the sockets that were inherited for it or with new ones. The ports that
/// workers ask for come each once, in the order of the configuration.
///
/// # Errors
/// The first one that cannot be bound, or an inherited socket that cannot be used.
pub(super) fn bind(config: &Config, accepts: Accepts) -> Result<Ports, ListenError> {
    let inherited = inherit::inherited()?.into_iter().map(|socket| (socket.address, socket));
    let Plan { ports: plan } = inherit::plan(&config.listen(), config.listen_is_default, inherited)?;
    let mut ports = Ports::new();
    for (listen, inherited) in plan {
        let bound = open(listen, inherited, config.backlog.get())?;
        match ports.iter_mut().find(|(port, _)| *port == listen.worker_port) {
            Some((_, sockets)) => sockets.extend(bound),
            None => ports.push((listen.worker_port, bound)),
        }
    }
    match ports.iter().find(|(_, sockets)| sockets.len() > 1) {
        Some((port, sockets)) if accepts == Accepts::Workers => {
            Err(ListenError::Several { port: *port, count: sockets.len() })
        }
        _ => Ok(ports),
    }
}

fn open(listen: Listen, inherited: Vec<Inherited>, backlog: u32) -> Result<Vec<Bound>, ListenError> {
    if inherited.is_empty() {
        let bound = BoundAddress::new(listen.bind, backlog).map(Bound::Address);
        return Ok(vec![bound.map_err(|source| refused(listen.bind, source))?]);
    }
    let sockets = inherited.into_iter();
    let inherited =
        |Inherited { socket, address }| Bound::Socket(ListeningSocket::inherited(socket, address));
    Ok(sockets.map(inherited).collect())
}

/// The ports that workers ask for.
pub(super) fn worker_ports(ports: &Ports) -> Vec<WorkerPort> {
    ports.iter().map(|(port, _)| *port).collect()
}

/// Every public address, with the ports that the kernel chose.
pub(super) fn addresses(ports: &Ports) -> Vec<SocketAddr> {
    ports.iter().flat_map(|(_, sockets)| sockets).map(Bound::address).collect()
}

/// Every public address, with those of its sockets.
pub(super) fn with_sockets(ports: &Ports) -> PublicAddresses {
    let bound = ports.iter().flat_map(|(_, sockets)| sockets);
    bound.map(|bound| (bound.address(), bound.socket_addresses())).collect()
}

/// What a server would bind that takes every client of each port.
pub(super) fn bindings(ports: &Ports) -> Vec<(WorkerPort, Binding)> {
    let of = |(port, sockets): &(WorkerPort, Vec<Bound>)| {
        sockets.first().map(|bound| (*port, Binding::new(bound.address().into())))
    };
    ports.iter().filter_map(of).collect()
}

/// The ports that are opened for clients, metrics and probes; not those that the kernel is to choose.
pub(super) fn wanted(config: &Config) -> Vec<u16> {
    let public = config.listen().into_iter().map(|listen| listen.bind.address().port());
    let mut ports: Vec<_> = public.chain(config.metrics.map(|address| address.port())).collect();
    ports.retain(|port| *port != 0);
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn refused(bind: Bind, source: io::Error) -> ListenError {
    let address = bind.address();
    let advice = advice(source.kind(), address, || owner::of_port(address.port()));
    ListenError::Refused { address, source, advice }
}

/// `owner` finds out who has the port.
fn advice(kind: io::ErrorKind, address: SocketAddr, owner: impl Fn() -> Owner) -> String {
    match kind {
        io::ErrorKind::AddrInUse => format!(": {}", owner()),
        io::ErrorKind::PermissionDenied if address.port() < 1024 => {
            ": ports below 1024 need root or the capability CAP_NET_BIND_SERVICE; \
             or listen on a higher port, as in --port 8080"
                .to_owned()
        }
        io::ErrorKind::AddrNotAvailable => ": this machine has no such address".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_would_help() {
        let owner = || Owner::App { name: "web".to_owned(), pid: 12, listens: true };
        let advice = |kind, port| super::advice(kind, SocketAddr::from(([127, 0, 0, 1], port)), owner);
        assert_eq!(advice(io::ErrorKind::AddrInUse, 3000), format!(": {}", owner()));
        assert!(advice(io::ErrorKind::PermissionDenied, 80).contains("CAP_NET_BIND_SERVICE"));
        assert_eq!(advice(io::ErrorKind::PermissionDenied, 3000), "");
    }
}
