//! When the app is ready: a worker that stays listens on every port.
//!
//! A server that turns itself into a daemon listens, and ends a moment later; several of them, started again and again,
//! must not look like one that stays. What is known is noted and decided from here; it is told elsewhere.

use std::time::Duration;

use tokio::time::Instant;

use crate::admin::Readiness;
use crate::front::handle::PortStatus;
use crate::ids::WorkerPort;

/// How long a launch must have lived on since it listened to count as one that stays.
const LASTING: Duration = Duration::from_millis(100);

/// Which launches have listened, and since when.
#[derive(Debug, Default)]
pub(super) struct Listeners(Vec<Listener>);

/// A launch that listens on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listener {
    launch: u64,
    port: WorkerPort,
    since: Instant,
}

/// What follows from what is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It can be told.
    Known(Readiness),
    /// It is not known before then whether those who listen stay.
    LookAgain(Instant),
}

/// Before any worker has listened.
pub(super) fn at_start(ports: &[PortStatus]) -> Readiness {
    let waiting_for = unserved(ports);
    if waiting_for.is_empty() { Readiness::Ready } else { Readiness::Starting { waiting_for } }
}

/// The ports that no listener serves.
fn unserved(ports: &[PortStatus]) -> Vec<WorkerPort> {
    ports.iter().filter(|port| port.listening == 0).map(|port| port.port).collect()
}

impl Listeners {
    /// Notes that a launch listens on a port.
    pub(super) fn listens(&mut self, launch: u64, port: WorkerPort, now: Instant) {
        let is_known = self.0.iter().any(|known| known.launch == launch && known.port == port);
        if !is_known {
            self.0.push(Listener { launch, port, since: now });
        }
    }

    /// Forgets the launches that are not among these, which run.
    pub(super) fn keep(&mut self, running: &[u64]) {
        self.0.retain(|known| running.contains(&known.launch));
    }

    /// How the app stands when these launches live.
    pub(super) fn verdict(&self, ports: &[PortStatus], living: &[u64], now: Instant) -> Verdict {
        let waiting_for = unserved(ports);
        if !waiting_for.is_empty() {
            return Verdict::Known(Readiness::Starting { waiting_for });
        }
        let lasts_at = |port: &PortStatus| {
            let living =
                self.0.iter().filter(|known| known.port == port.port && living.contains(&known.launch));
            // Somebody listens of whom nobody has heard, or who has ended: it is soon heard.
            living.map(|known| known.since).min().unwrap_or(now) + LASTING
        };
        match ports.iter().map(lasts_at).max() {
            Some(at) if at > now => Verdict::LookAgain(at),
            _ => Verdict::Known(Readiness::Ready),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: WorkerPort = WorkerPort(3000);
    const API: WorkerPort = WorkerPort(4000);

    #[test]
    fn ready_is_said_once_a_launch_that_lives_has_listened_for_long_enough_on_every_port() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let starting =
            |ports: &[WorkerPort]| Verdict::Known(Readiness::Starting { waiting_for: ports.to_vec() });
        let ready = || Verdict::Known(Readiness::Ready);
        let again = |at| Verdict::LookAgain(ms(at));
        // How many listen on WEB and API, who has listened where since when, who lives, and what follows at 1000.
        type Row<'a> = ((usize, usize), &'a [(u64, WorkerPort, u64)], &'a [u64], Verdict);
        let table: [Row<'_>; 12] = [
            ((0, 0), &[], &[], starting(&[WEB, API])),
            ((1, 0), &[(1, WEB, 0)], &[1], starting(&[API])),
            ((0, 1), &[(1, WEB, 0), (1, API, 0)], &[1], starting(&[WEB])),
            ((1, 1), &[(1, WEB, 900), (1, API, 900)], &[1], ready()),
            ((1, 1), &[(1, WEB, 900), (1, API, 901)], &[1], again(1001)),
            ((1, 1), &[(1, WEB, 0), (2, API, 990)], &[1, 2], again(1090)),
            ((1, 1), &[(1, WEB, 0), (2, API, 0)], &[1, 2], ready()),
            // One after the other, each for a moment.
            ((1, 1), &[(1, WEB, 0), (1, API, 0)], &[], again(1100)),
            ((2, 2), &[(1, WEB, 0), (1, API, 0), (2, WEB, 950), (2, API, 950)], &[2], again(1050)),
            ((2, 2), &[(1, WEB, 0), (1, API, 0), (2, WEB, 950), (2, API, 950)], &[1, 2], ready()),
            // What is said twice counts from the first time.
            ((1, 1), &[(1, WEB, 0), (1, API, 0), (1, WEB, 990)], &[1], ready()),
            // Nobody was heard to listen.
            ((1, 1), &[], &[1], again(1100)),
        ];
        for ((web, api), heard, living, expected) in table {
            let mut listeners = Listeners::default();
            heard.iter().for_each(|&(launch, port, at)| listeners.listens(launch, port, ms(at)));
            let ports = [PortStatus { port: WEB, listening: web }, PortStatus { port: API, listening: api }];
            let verdict = listeners.verdict(&ports, living, ms(1000));
            assert_eq!(verdict, expected, "{web} and {api} listen, {heard:?} were heard, {living:?} live");
        }
    }

    #[test]
    fn an_app_without_ports_is_ready() {
        let verdict = Listeners::default().verdict(&[], &[], Instant::now());
        assert_eq!(verdict, Verdict::Known(Readiness::Ready));
    }

    #[test]
    fn launches_that_do_not_run_are_forgotten() {
        let mut listeners = Listeners::default();
        (1..=4).for_each(|launch| listeners.listens(launch, WEB, Instant::now()));
        listeners.keep(&[1, 3]);
        assert_eq!(listeners.0.iter().map(|known| known.launch).collect::<Vec<_>>(), [1, 3]);
    }
}
