//! Opens the public ports, and explains why one cannot be opened.

use std::io;
use std::net::SocketAddr;

use crate::front::Accepts;
use crate::front::bound::{Bound, BoundAddress, ListeningSocket};
use crate::home::apps::{AppFolder, Apps};
use crate::home::lock::Lock;
use crate::ids::WorkerPort;
use crate::protocol::wire::Binding;
use crate::settings::{Bind, Config, Listen};
use crate::supervisor::process_table;
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

/// What a server would bind that takes every client of each port.
pub(super) fn bindings(ports: &Ports) -> Vec<(WorkerPort, Binding)> {
    let of = |(port, sockets): &(WorkerPort, Vec<Bound>)| {
        sockets.first().map(|bound| (*port, Binding::new(bound.address().into())))
    };
    ports.iter().filter_map(of).collect()
}

fn refused(bind: Bind, source: io::Error) -> ListenError {
    let address = bind.address();
    let holder = || process_table::listener_of(address.port()).map(|process| (app_of(process.pid), process));
    let advice = advice(source.kind(), address, holder);
    ListenError::Refused { address, source, advice }
}

/// What the app is called whose primary this process is.
fn app_of(pid: i32) -> Option<String> {
    let is_said =
        |app: &AppFolder| Lock::holder(app).is_some_and(|holder| i64::from(holder.pid) == i64::from(pid));
    let apps = Apps::of_this_process().ok()?;
    apps.folders().find(|app| is_said(app) && Lock::is_held(app)).map(|app| app.name().to_owned())
}

/// `holder` finds out who has the port, and of which app that is the primary.
fn advice(
    kind: io::ErrorKind,
    address: SocketAddr,
    holder: impl Fn() -> Option<(Option<String>, process_table::Named)>,
) -> String {
    match kind {
        io::ErrorKind::AddrInUse => match holder() {
            Some((Some(app), process)) => {
                format!(
                    ": app {app} (pid {}) listens there; choose another port, or clusterd delete {app}",
                    process.pid
                )
            }
            Some((None, process)) => format!(": {process} listens there; stop it, or choose another port"),
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
        let advice_of = |kind, port, app: Option<&str>| {
            let process = || process_table::Named { pid: 12, name: "nginx".to_owned() };
            let holder = || Some((app.map(str::to_owned), process()));
            super::advice(kind, SocketAddr::from(([127, 0, 0, 1], port)), holder)
        };
        let advice = |kind, port| advice_of(kind, port, None);
        let of_app = advice_of(io::ErrorKind::AddrInUse, 3000, Some("web"));
        assert_eq!(of_app, ": app web (pid 12) listens there; choose another port, or clusterd delete web");
        let in_use = advice(io::ErrorKind::AddrInUse, 3000);
        assert_eq!(in_use, ": nginx (pid 12) listens there; stop it, or choose another port");
        assert!(advice(io::ErrorKind::PermissionDenied, 80).contains("CAP_NET_BIND_SERVICE"));
        assert_eq!(advice(io::ErrorKind::PermissionDenied, 3000), "");
    }
}
