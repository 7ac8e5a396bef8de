//! Tells the service manager that clusterd is alive, for as long as it is: `WatchdogSec=` of systemd.service(5).
//!
//! Alive means that the supervisor's task and the front's thread answer. Workers do not matter here: they are
//! watched by clusterd itself.

use std::env;
use std::time::Duration;

use tracing::warn;

use super::socket::ManagerSocket;

/// How long the service manager waits for a sign of life; `None` if it does not (sd_watchdog_enabled(3)).
pub(super) fn timeout() -> Option<Duration> {
    let variable = |name| env::var(name).ok();
    asked_for(variable("WATCHDOG_USEC").as_deref(), variable("WATCHDOG_PID").as_deref(), std::process::id())
}

fn asked_for(microseconds: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let microseconds = microseconds?.parse().ok().filter(|&microseconds: &u64| microseconds > 0)?;
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
    is_ours.then_some(Duration::from_micros(microseconds))
}

/// Gives a sign of life at once and after each half of `timeout`, as long as both answer within a quarter. At once, since the image
/// of before may have given its last one half of the time ago, or be replaced again before the next.
pub(super) async fn feed<F: Future, S: Future>(
    socket: ManagerSocket,
    timeout: Duration,
    front: impl Fn() -> F,
    supervisor: impl Fn() -> S,
) {
    loop {
        let front = tokio::time::timeout(timeout / 4, front());
        let supervisor = tokio::time::timeout(timeout / 4, supervisor());
        match tokio::join!(front, supervisor) {
            (Ok(_), Ok(_)) => socket.say("WATCHDOG=1\n").await,
            (Err(_), _) => warn!("the data path does not answer: not notifying the watchdog"),
            (_, Err(_)) => warn!("the supervisor does not answer: not notifying the watchdog"),
        }
        tokio::time::sleep(timeout / 2).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Instant;

    use super::super::socket::tests::manager;
    use super::*;

    /// An answer while there are some left, and silence then.
    async fn answer(left: &AtomicU32) {
        if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
            pending().await
        }
    }

    /// How many signs of life come, up to `most`, and then none for a while.
    async fn signs(front: u32, supervisor: u32, most: usize) -> usize {
        const TIMEOUT: Duration = Duration::from_millis(40);
        let (manager, socket) = manager();
        let (front, supervisor) = (AtomicU32::new(front), AtomicU32::new(supervisor));
        let feeding = feed(socket, TIMEOUT, || answer(&front), || answer(&supervisor));
        let mut signs = 0;
        let counting = async {
            let mut buffer = [0; 64];
            let mut quiet_since = Instant::now();
            while signs < most && quiet_since.elapsed() < 20 * TIMEOUT {
                tokio::time::sleep(TIMEOUT / 8).await;
                while let Ok(len) = manager.recv(&mut buffer) {
                    assert_eq!(&buffer[..len], b"WATCHDOG=1\n");
                    (signs, quiet_since) = (signs + 1, Instant::now());
                }
            }
        };
        tokio::select! {
            () = feeding => unreachable!("it never ends"),
            () = counting => signs,
        }
    }

    #[tokio::test]
    async fn there_are_signs_of_life_while_both_answer() {
        for (front, supervisor) in [(3, 3), (3, u32::MAX), (u32::MAX, 3)] {
            assert_eq!(signs(front, supervisor, usize::MAX).await, 3, "{front} {supervisor}");
        }
        assert_eq!(signs(u32::MAX, u32::MAX, 5).await, 5);
    }
}
