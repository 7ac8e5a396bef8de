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

/// RLIMIT_NOFILE, as getrlimit(2) tells it; `None` is no limit.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
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
pub fn prepare() -> io::Result<Limits> {
    sys::process::close_on_exec_above(3)?;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(Limits { primary: limit.maximum, workers: limit })
}

/// The longest queue of each port, up to the wanted one, that the limit has room for, even when all that is on its way
/// to workers comes back.
pub fn affordable_queue(
    wanted: NonZeroUsize,
    limit: Option<u64>,
    workers: u32,
    window: NonZeroUsize,
    ports: usize,
) -> NonZeroUsize {
    let Some(limit) = limit else { return wanted };
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let left = limit.saturating_sub(OWN + WORKER * u64::from(workers));
    let on_their_way = u64::from(workers).saturating_mul(number(window.get()));
    let each = (left / number(ports.max(1))).saturating_sub(on_their_way);
    let each = usize::try_from(each).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN);
    wanted.min(each)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_fits_into_the_limit() {
        let cases = [
            (1024, None, 4, 1, 1024),
            (1024, Some(20_000), 4, 1, 1024),
            (1024, Some(1024), 4, 1, 720),
            (1024, Some(1024), 4, 2, 328),
            (1024, Some(64), 4, 1, 1),
        ];
        let window = NonZeroUsize::new(16).unwrap();
        for (wanted, limit, workers, ports, expected) in cases {
            let wanted = NonZeroUsize::new(wanted).unwrap();
            let affordable = affordable_queue(wanted, limit, workers, window, ports);
            assert_eq!(affordable.get(), expected, "limit {limit:?}");
        }
    }
}
