//! How many descriptors the primary may have, and what it can afford with them.

use std::io;
use std::num::NonZeroUsize;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::sys;

/// What the primary needs beside queue and workers: listeners, admin clients, handshakes, files.
const OWN: u64 = 192;

/// What a worker needs: two pipes, its Node channel, its notification socket, and a few channels of two descriptors
/// each.
const WORKER: u64 = 12;

/// What the primary has open by the time that it starts its first worker.
const AT_START: u64 = 28;

/// RLIMIT_NOFILE, as getrlimit(2) tells it; `None` is no limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct DescriptorLimits {
    /// The primary's limit now.
    pub primary: Option<u64>,
    /// The limits that clusterd was started with, which the workers get.
    pub workers: Rlimit,
}

/// Raises the primary's limit as far as it may, and keeps from the workers what clusterd inherited beyond its
/// standard streams.
///
/// # Errors
/// Those of setrlimit(2) and close_range(2).
pub(super) fn prepare() -> io::Result<DescriptorLimits> {
    sys::process::close_on_exec_above(3)?;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(DescriptorLimits { primary: limit.maximum, workers: limit })
}

/// The same in an image that another has begun, which has raised the limit and knows what it was: soft and hard.
pub(super) fn restore((current, maximum): (Option<u64>, Option<u64>)) -> DescriptorLimits {
    let primary = getrlimit(Resource::Nofile).maximum;
    DescriptorLimits { primary, workers: Rlimit { current, maximum } }
}

/// The longest queue of each port, up to the wanted one, that the limit has room for.
pub(crate) fn affordable_queue(
    wanted: NonZeroUsize,
    limit: Option<u64>,
    workers: u32,
    ports: usize,
) -> NonZeroUsize {
    let Some(limit) = limit else { return wanted };
    let left = limit.saturating_sub(OWN + WORKER * u64::from(workers));
    let each = left / u64::try_from(ports.max(1)).unwrap_or(u64::MAX);
    let each = usize::try_from(each).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN);
    wanted.min(each)
}

/// With how few descriptors the primary can start so many workers, and take no connection ahead.
pub(crate) fn least_to_start(workers: u32) -> u64 {
    AT_START + WORKER * u64::from(workers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_fits_into_the_limit() {
        let cases = [
            (1024, None, 4, 1, 1024),
            (1024, Some(20_000), 4, 1, 1024),
            (1024, Some(1024), 4, 1, 784),
            (1024, Some(1024), 4, 2, 392),
            (1024, Some(64), 4, 1, 1),
        ];
        for (wanted, limit, workers, ports, expected) in cases {
            let wanted = NonZeroUsize::new(wanted).unwrap();
            assert_eq!(affordable_queue(wanted, limit, workers, ports).get(), expected, "limit {limit:?}");
        }
    }
}
