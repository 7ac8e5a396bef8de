//! Tells the service manager that clusterd is alive, for as long as it is: `WatchdogSec=` of systemd.service(5).
//!
//! Alive means that the supervisor's task and the front's thread answer. Workers do not matter here: they are
//! watched by clusterd itself.

use std::env;
use std::time::Duration;

use tracing::warn;

use super::socket::ManagerSocket;

/// How long the service manager waits for a sign of life; `None` if it does not (sd_watchdog_enabled(3)).
pub fn timeout() -> Option<Duration> {
    let variable = |name| env::var(name).ok();
    asked_for(variable("WATCHDOG_USEC").as_deref(), variable("WATCHDOG_PID").as_deref(), std::process::id())
}

fn asked_for(microseconds: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let microseconds = microseconds?.parse().ok().filter(|&microseconds: &u64| microseconds > 0)?;
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
    is_ours.then_some(Duration::from_micros(microseconds))
}

/// Gives a sign of life after each half of `timeout`, as long as both answer within a quarter.
pub async fn feed<F: Future, S: Future>(
    socket: ManagerSocket,
    timeout: Duration,
    front: impl Fn() -> F,
    supervisor: impl Fn() -> S,
) {
    loop {
        tokio::time::sleep(timeout / 2).await;
        let front = tokio::time::timeout(timeout / 4, front());
        let supervisor = tokio::time::timeout(timeout / 4, supervisor());
        match tokio::join!(front, supervisor) {
            (Ok(_), Ok(_)) => socket.say("WATCHDOG=1\n").await,
            (Err(_), _) => warn!("the data path does not answer: the service manager gets no sign of life"),
            (_, Err(_)) => warn!("the supervisor does not answer: the service manager gets no sign of life"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::socket::tests::manager;
    use super::*;

    /// An answer while there are some left, and silence then.
    async fn answer(left: &AtomicU32) {
        if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
            pending().await
        }
    }

    #[tokio::test]
    async fn there_are_signs_of_life_while_both_answer() {
        const TIMEOUT: Duration = Duration::from_millis(40);
        for (front, supervisor) in [(3, 3), (3, 100), (100, 3)] {
            let (manager, socket) = manager();
            let (front, supervisor) = (AtomicU32::new(front), AtomicU32::new(supervisor));
            let feeding = feed(socket, TIMEOUT, || answer(&front), || answer(&supervisor));
            assert!(tokio::time::timeout(10 * TIMEOUT, feeding).await.is_err(), "it never ends");
            let mut buffer = [0; 64];
            let signs =
                std::iter::from_fn(|| manager.recv(&mut buffer).ok().map(|len| buffer[..len].to_vec()));
            assert_eq!(signs.collect::<Vec<_>>(), vec![b"WATCHDOG=1\n"; 3]);
        }
        let (manager, socket) = manager();
        let feeding = feed(socket, TIMEOUT, || ready(()), || ready(()));
        assert!(tokio::time::timeout(20 * TIMEOUT, feeding).await.is_err(), "it never ends");
        assert!(manager.recv(&mut [0; 64]).is_ok());
    }

    #[test]
    fn the_watchdog_is_for_whom_it_names() {
        let second = Some(Duration::from_secs(1));
        let cases = [
            (None, None, None),
            (Some("1000000"), None, second),
            (Some("1000000"), Some("7"), second),
            (Some("1000000"), Some("8"), None),
            (Some("1000000"), Some("x"), None),
            (Some("0"), None, None),
            (Some("soon"), None, None),
        ];
        for (microseconds, pid, expected) in cases {
            assert_eq!(asked_for(microseconds, pid, 7), expected, "{microseconds:?} {pid:?}");
        }
    }
}
