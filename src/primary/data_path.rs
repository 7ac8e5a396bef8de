//! The data path's thread: started with what the configuration and the system allow.
//!
//! What it does is the front's.

use std::io;
use std::num::NonZeroU64;
use std::sync::mpsc;

use tracing::warn;

use super::descriptor_limits::{self, DescriptorLimits};
use super::error::PrimaryError;
use super::public_sockets::Ports;
use crate::connections::notes::Notes;
use crate::front::bound::Bound;
use crate::front::handle::FrontEnds;
use crate::front::launches::RecycleLimits;
use crate::front::links::Timeouts;
use crate::front::snapshot::Restored;
use crate::front::{self, Accepts, Front, ServiceLimits, Setup};
use crate::ids::ServiceId;
use crate::metrics::Metrics;
use crate::policy::Choice;
use crate::settings::{Config, Policy};
use crate::sys::event_loop;

/// The sockets of addresses that were opened for workers, and what else another image of clusterd has left.
pub(super) type CarriedFront = (Vec<(ServiceId, Vec<Bound>)>, Restored);

/// Starts it on a thread of its own, which ends with the program. It does not wait for the caller's runtime: whoever begins
/// with what another image has left does nothing meanwhile.
///
/// # Errors
/// No thread, or the sockets cannot be watched.
pub(super) fn start(setup: Setup, ends: FrontEnds) -> Result<(), PrimaryError> {
    let (started, outcome) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("front".to_owned());
    thread.spawn(move || run_front(setup, ends, &started)).map_err(PrimaryError::Front)?;
    outcome.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())).map_err(PrimaryError::Front)
}

/// What it begins with: these public sockets, and what another image of clusterd has left of them.
pub(super) fn setup(
    config: &Config,
    (ports, accepts, carried): (Ports, Accepts, Option<CarriedFront>),
    limits: DescriptorLimits,
    (metrics, notes): (&Metrics, Notes),
) -> Setup {
    let workers = config.workers.get();
    let queue = descriptor_limits::affordable_queue(config.queue, limits.primary, workers, ports.len());
    if queue < config.queue {
        warn!(
            "the open file limit allows a queue of {queue}, not {}; further connections wait in the \
             kernel's backlog: raise the limit (ulimit -n) or lower --queue",
            config.queue
        );
    }
    let (opened, restored) = carried.unzip();
    let services = ports.into_iter().map(|(port, bound)| (ServiceId::Port(port), bound));
    Setup {
        services: services.chain(opened.into_iter().flatten()).collect(),
        accepts,
        limits: ServiceLimits {
            choice: choice(config.policy),
            concurrency: config.concurrency,
            queue,
            queue_timeout: config.queue_timeout,
            window: config.window,
            timeouts: Timeouts {
                slow: front::SLOW,
                late: config.redispatch_after,
                timeout: config.handoff_timeout,
            },
        },
        holds: config.wait_ready || config.ready_http.is_some(),
        recycle: RecycleLimits {
            max_connections: config.max_connections.map(NonZeroU64::from),
            stuck_timeout: config.stuck_timeout,
        },
        metrics: metrics.clone(),
        notes,
        restored,
    }
}

/// Whom to choose, as `--policy` names it.
pub(super) fn choice(policy: Policy) -> Choice {
    match policy {
        Policy::RoundRobin => Choice::RoundRobin,
        Policy::LeastConnections => Choice::LeastConnections,
        Policy::SourceIp => Choice::SourceIp,
        Policy::RandomTwo => Choice::RandomTwo,
    }
}

fn run_front(setup: Setup, ends: FrontEnds, started: &mpsc::SyncSender<io::Result<()>>) {
    let event_loop = event_loop::on_this_thread();
    let runtime = match event_loop.and_then(|mut built| built.on_thread_park(front::about_to_sleep).build()) {
        Ok(runtime) => runtime,
        Err(error) => return drop(started.send(Err(error))),
    };
    runtime.block_on(async {
        match Front::new(setup, ends) {
            Ok(front) => {
                let _ = started.send(Ok(()));
                front.run().await;
            }
            Err(error) => drop(started.send(Err(error))),
        }
    });
}
