//! The lines that clusterd says at its start, for the person who typed the command.

use std::net::{IpAddr, SocketAddr};

use tracing::{info, warn};

use super::public_sockets::Ports;
use crate::admin::Admin;
use crate::settings::{Config, WorkerCommand};
use crate::sys::process::has_proc;

/// What runs where.
pub(super) fn listening(config: &Config, ports: &Ports, admin: Option<&Admin>) {
    let command = match &config.command {
        WorkerCommand::Demo => "the built-in demo".to_owned(),
        WorkerCommand::Program { program, .. } => program.display().to_string(),
    };
    let workers = match config.workers.get() {
        1 => "1 worker".to_owned(),
        many => format!("{many} workers"),
    };
    info!("clusterd {} runs {workers} of {command}", env!("CARGO_PKG_VERSION"));
    for (worker_port, sockets) in ports {
        for socket in sockets {
            let inherited = socket.is_inherited().then_some(true);
            info!(address = %socket.address(), %worker_port, inherited, "listening");
        }
    }
    if let Some(admin) = admin {
        info!(address = %admin.address(), "metrics");
    }
    if !has_proc() {
        warn!(
            "/proc is not mounted: clusterd starts, serves and stops workers, but sees neither what they use nor whose \
             connections are open\nhint: mount -t proc proc /proc"
        );
    }
}

/// That all ports are served, and what to try.
pub(super) fn ready(addresses: &[SocketAddr]) {
    if let Some(&address) = addresses.first() {
        info!("ready; try: curl http://{}/", reachable(address));
    }
}

/// An address that a client on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => ([127, 0, 0, 1], address.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => ([127, 0, 0, 1], address.port()).into(),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curl_line_names_an_address_that_can_be_reached() {
        let cases = [
            ("[::]:3000", "127.0.0.1:3000"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("10.1.2.3:80", "10.1.2.3:80"),
            ("[::1]:80", "[::1]:80"),
        ];
        for (bound, reached) in cases {
            assert_eq!(reachable(bound.parse().unwrap()).to_string(), reached);
        }
    }
}
