//! What the front reports, passed on to those whom it concerns.

use std::net::SocketAddr;

use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::announce;
use crate::admin::Readiness;
use crate::front::handle::{Handle, Notice, PortStatus, Reports};
use crate::ids::ServiceId;
use crate::supervisor::{self, processes};

/// Follows the front until it ends.
pub async fn follow(
    mut reports: Reports,
    supervisor: supervisor::Handle,
    front: Handle,
    readiness: watch::Sender<Readiness>,
    addresses: Vec<SocketAddr>,
) {
    let mut greeted = false;
    loop {
        tokio::select! {
            // What is said of a worker comes before what follows from it.
            biased;
            Some(notice) = reports.notices.recv() => pass_on(notice, &supervisor, &front).await,
            Ok(()) = reports.status.changed() => {
                let now = self::readiness(&reports.status.borrow_and_update());
                if now == Readiness::Ready && !greeted {
                    greeted = true;
                    announce::ready(&addresses);
                }
                readiness.send_if_modified(|readiness| {
                    let changes = *readiness != Readiness::Stopping && *readiness != now;
                    if changes {
                        *readiness = now;
                    }
                    changes
                });
            }
            else => return,
        }
    }
}

async fn pass_on(notice: Notice, supervisor: &supervisor::Handle, front: &Handle) {
    match notice {
        Notice::Listening { worker, service: ServiceId::Port(port) } => {
            supervisor.listening(worker, port).await
        }
        Notice::Listening { worker, service } => info!(%worker, %service, "worker listens"),
        Notice::Slow { link, holder } => {
            if !processes::is_held(holder).await {
                debug!(?link, "a worker has closed its listener");
                front.detach(link).await;
            }
        }
        Notice::Stalled { worker } => {
            warn!(%worker, "worker took no connection in time; others get its share until it moves");
        }
        Notice::Moving { worker } => info!(%worker, "worker moves again"),
    }
}

/// Ready once every port has a worker.
pub fn readiness(status: &[PortStatus]) -> Readiness {
    let waiting_for: Vec<_> =
        status.iter().filter(|port| port.listening == 0).map(|port| port.port).collect();
    if waiting_for.is_empty() { Readiness::Ready } else { Readiness::Starting { waiting_for } }
}
