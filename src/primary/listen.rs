//! Opens the public ports, and explains why one cannot be opened.

use std::io;
use std::net::SocketAddr;

use crate::config::{Bind, Config, Listen};
use crate::front::listener::Bound;
use crate::ids::WorkerPort;
use crate::supervisor::processes;

/// The public sockets of each worker port.
pub type Ports = Vec<(WorkerPort, Vec<Bound>)>;

/// A public address could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{advice}")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
    advice: String,
}

/// The ports that workers ask for, each once, in the order of the configuration.
pub fn worker_ports(config: &Config) -> Vec<WorkerPort> {
    let mut ports = Vec::new();
    for listen in &config.listen {
        if !ports.contains(&listen.worker_port) {
            ports.push(listen.worker_port);
        }
    }
    ports
}

/// Binds every public address.
///
/// # Errors
/// The first one that cannot be bound.
pub fn bind(config: &Config) -> Result<Ports, ListenError> {
    let mut ports: Ports = worker_ports(config).into_iter().map(|port| (port, Vec::new())).collect();
    for Listen { bind, worker_port } in &config.listen {
        let bound = Bound::new(*bind, config.backlog.get()).map_err(|source| refused(*bind, source))?;
        if let Some((_, sockets)) = ports.iter_mut().find(|(port, _)| port == worker_port) {
            sockets.push(bound);
        }
    }
    Ok(ports)
}

/// Every public address, with the ports that the kernel chose.
pub fn addresses(ports: &Ports) -> Vec<SocketAddr> {
    ports.iter().flat_map(|(_, sockets)| sockets).map(Bound::address).collect()
}

fn refused(bind: Bind, source: io::Error) -> ListenError {
    let address = bind.address();
    let holder = || processes::listener_of(address.port());
    let advice = advice(source.kind(), address, holder);
    ListenError { address, source, advice }
}

fn advice(kind: io::ErrorKind, address: SocketAddr, holder: impl Fn() -> Option<processes::Named>) -> String {
    match kind {
        io::ErrorKind::AddrInUse => match holder() {
            Some(process) => format!(": {process} listens there; stop it, or choose another port"),
            None => ": another process listens there; stop it, or choose another port".to_owned(),
        },
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
        let advice = |kind, port| {
            let holder = || Some(processes::Named { pid: 12, name: "nginx".to_owned() });
            super::advice(kind, SocketAddr::from(([127, 0, 0, 1], port)), holder)
        };
        let in_use = advice(io::ErrorKind::AddrInUse, 3000);
        assert_eq!(in_use, ": nginx (pid 12) listens there; stop it, or choose another port");
        assert!(advice(io::ErrorKind::PermissionDenied, 80).contains("CAP_NET_BIND_SERVICE"));
        assert_eq!(advice(io::ErrorKind::PermissionDenied, 3000), "");
    }
}
