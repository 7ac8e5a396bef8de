//! What the front needs to begin, as plain values.
//!
//! Where they come from is not known here.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bound::Bound;
use super::handle::Handle;
use super::launches::RecycleLimits;
use super::links::Timeouts;
use super::snapshot::Restored;
use crate::connections::notes::Notes;
use crate::ids::ServiceId;
use crate::metrics::Metrics;
use crate::policy::Choice;

/// A hand-off that takes longer than this may have gone to a listener that its server has closed, or to a worker that is
/// busy for long: what was given to it ahead is taken back.
pub(crate) const SLOW: Duration = Duration::from_millis(20);

/// Who accepts connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Accepts {
    /// The front, which chooses a worker for each.
    Primary,
    /// Workers, each from a listening socket that the front makes; the kernel chooses among them.
    Workers,
}

impl Accepts {
    /// Who does now.
    pub(crate) fn of(front: &Handle) -> Self {
        if front.workers_accept() { Accepts::Workers } else { Accepts::Primary }
    }
}

/// Each service with its public sockets.
pub(crate) type PublicSockets = Vec<(ServiceId, Vec<Bound>)>;

/// What the front needs to begin.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The public sockets of each service; a single one for each if workers accept.
    pub services: PublicSockets,
    /// Who accepts, unless another image has left it.
    pub accepts: Accepts,
    /// What bounds each service.
    pub limits: ServiceLimits,
    /// Whether clients are kept from a worker that listens until it is released.
    pub holds: bool,
    /// When a launch of a worker is to be looked after.
    pub recycle: RecycleLimits,
    /// Where it counts.
    pub metrics: Metrics,
    /// Where it notes who gets which connection.
    pub notes: Notes,
    /// What another image of clusterd has left of these services; `None` at a start.
    pub restored: Option<Restored>,
}

/// How each service chooses workers, and what it is bounded by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServiceLimits {
    /// Whom to choose.
    pub choice: Choice,
    /// How many connections each worker may have.
    pub concurrency: Option<NonZeroUsize>,
    /// How many connections may wait.
    pub queue: NonZeroUsize,
    /// How long each may wait.
    pub queue_timeout: Duration,
    /// How many connections may be on their way to one listener of a worker that takes them quickly.
    pub window: NonZeroUsize,
    /// How long a worker may leave a connection untaken: [`SLOW`], and two settings.
    pub timeouts: Timeouts,
}
