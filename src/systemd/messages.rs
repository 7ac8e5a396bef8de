//! What the service manager is told, and when: sd_notify(3), and systemd.service(5) under `Type=notify-reload`.
//!
//! Pure: it sends nothing and reads no clock.
//!
//! ```text
//!            every port has a worker          a reload begins
//!  (silent) ───────── READY=1 ───────► ready ── RELOADING=1 ──► reloading
//!                                        ▲ ◄──── READY=1 ───────── its end
//!                                        │ stop: STOPPING=1, and nothing but STATUS= after it
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use crate::admin::Readiness;
use crate::supervisor::Overview;
use crate::supervisor::lifecycle::Phase;

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Things stand so now.
    Now(Now),
    /// A reload has begun.
    ReloadBegins,
    /// A reload has ended, well or not.
    ReloadEnds,
    /// A reload was asked for and refused.
    NoReload,
}

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Now {
    /// Every port has a worker, or none is wanted: there is nothing to wait for.
    pub ready: bool,
    /// The stop has begun.
    pub stopping: bool,
    /// A sentence for `systemctl status`.
    pub sentence: String,
}

impl Now {
    /// As these two tell it.
    pub(super) fn of(readiness: &Readiness, app: &Overview) -> Self {
        let stopping = *readiness == Readiness::Stopping;
        let is_at_rest = app.plan.is_some() && app.is_stopped;
        Self { ready: readiness.is_ready() || is_at_rest, stopping, sentence: sentence(app, stopping) }
    }
}

fn sentence(app: &Overview, stopping: bool) -> String {
    let slots = |phase| {
        let there = app.workers.iter().filter(move |worker| worker.phase == phase);
        there.map(|worker| worker.slot).collect::<BTreeSet<_>>().len()
    };
    let workers = if app.wanted == 1 { "worker" } else { "workers" };
    let mut sentence = format!("{} of {} {workers} online", slots(Phase::Online), app.wanted);
    if let Some(by) = &app.reload {
        sentence += &format!(", reload by {by} under way");
    }
    if app.is_stopped {
        sentence += ", stopped by command";
    }
    if stopping {
        sentence += ", stopping";
    }
    sentence
}

/// How long clusterd may take, whatever the unit says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Patience {
    /// Until its first worker is ready.
    pub start: Duration,
    /// To stop.
    pub stop: Duration,
}

/// What was told so far.
#[derive(Debug, Default)]
pub(super) struct Told {
    patience: Patience,
    ready: bool,
    stopping: bool,
    sentence: String,
}

impl Told {
    /// Nothing so far.
    pub(super) fn new(patience: Patience) -> Self {
        Self { patience, ..Self::default() }
    }

    /// The messages that follow from a change, in their order; `monotonic` is the time of CLOCK_MONOTONIC.
    pub(super) fn messages(&mut self, change: Change, monotonic: Duration) -> Vec<String> {
        let may_reload = self.ready && !self.stopping;
        let reloading = || format!("RELOADING=1\nMONOTONIC_USEC={}\n", monotonic.as_micros());
        let ready = || "READY=1\n".to_owned();
        match change {
            Change::Now(now) => self.state(now).into_iter().collect(),
            Change::ReloadBegins if may_reload => vec![reloading()],
            Change::ReloadEnds if may_reload => vec![ready()],
            Change::NoReload if may_reload => vec![reloading(), ready()],
            Change::ReloadBegins | Change::ReloadEnds | Change::NoReload => vec![],
        }
    }

    fn state(&mut self, now: Now) -> Option<String> {
        let mut message = String::new();
        if self.sentence.is_empty() && !now.ready && !now.stopping {
            message += &extension(self.patience.start);
        }
        if now.ready && !self.ready && !self.stopping {
            self.ready = true;
            message += &format!("READY=1\n{}", main_pid(std::process::id()));
        }
        if now.stopping && !self.stopping {
            self.stopping = true;
            message += &format!("STOPPING=1\n{}", extension(self.patience.stop));
        }
        if now.sentence != self.sentence {
            message += &format!("STATUS={}\n", now.sentence);
            self.sentence = now.sentence;
        }
        (!message.is_empty()).then_some(message)
    }
}

/// Only beyond what the unit allows it counts (EXTEND_TIMEOUT_USEC=, sd_notify(3)).
fn extension(time: Duration) -> String {
    if time.is_zero() { String::new() } else { format!("EXTEND_TIMEOUT_USEC={}\n", time.as_micros()) }
}

/// As PID 1 the number is that of a namespace which is not the service manager's.
fn main_pid(own: u32) -> String {
    if own == 1 { String::new() } else { format!("MAINPID={own}\n") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Slot;
    use crate::supervisor::Status;
    use crate::supervisor::events::Asker;

    const CLOCK: Duration = Duration::from_micros(1_234_567);
    const RELOADING: &str = "RELOADING=1\nMONOTONIC_USEC=1234567\n";

    fn now(ready: bool, stopping: bool, sentence: &str) -> Change {
        Change::Now(Now { ready, stopping, sentence: sentence.to_owned() })
    }

    #[test]
    fn a_slow_start_and_a_slow_stop_are_given_the_time_that_they_may_take() {
        let mut told =
            Told::new(Patience { start: Duration::from_secs(2), stop: Duration::from_millis(7600) });
        let mut say = |change| told.messages(change, CLOCK).concat();
        assert_eq!(say(now(false, false, "none")), "EXTEND_TIMEOUT_USEC=2000000\nSTATUS=none\n");
        assert_eq!(say(now(false, false, "one")), "STATUS=one\n");
        let ready = format!("READY=1\n{}", main_pid(std::process::id()));
        assert_eq!(say(now(true, false, "one")), ready);
        assert_eq!(say(now(true, true, "one")), "STOPPING=1\nEXTEND_TIMEOUT_USEC=7600000\n");
    }

    /// What is told after each of these changes.
    fn told(changes: Vec<Change>) -> Vec<Vec<String>> {
        let mut told = Told::default();
        let own = main_pid(std::process::id());
        let messages = changes.into_iter().map(|change| told.messages(change, CLOCK));
        messages.map(|each| each.into_iter().map(|message| message.replace(&own, "")).collect()).collect()
    }

    #[test]
    fn ready_is_said_once_and_each_sentence_once() {
        let changes = vec![
            now(false, false, "0 of 1"),
            now(false, false, "0 of 1"),
            now(true, false, "1 of 1"),
            now(false, false, "0 of 1"),
            now(true, false, "1 of 1"),
        ];
        let expected = [
            vec!["STATUS=0 of 1\n"],
            vec![],
            vec!["READY=1\nSTATUS=1 of 1\n"],
            vec!["STATUS=0 of 1\n"],
            vec!["STATUS=1 of 1\n"],
        ];
        assert_eq!(told(changes), expected);
    }

    #[test]
    fn a_reload_is_said_with_its_time_and_its_end_is_ready_again() {
        let changes = vec![now(true, false, ""), Change::ReloadBegins, Change::ReloadEnds, Change::NoReload];
        let expected = [vec!["READY=1\n"], vec![RELOADING], vec!["READY=1\n"], vec![RELOADING, "READY=1\n"]];
        assert_eq!(told(changes), expected);
    }

    #[test]
    fn before_it_is_ready_and_once_it_stops_no_reload_is_spoken_of() {
        let changes = vec![
            Change::ReloadBegins,
            Change::ReloadEnds,
            Change::NoReload,
            now(true, false, ""),
            now(false, true, "stopping"),
            Change::ReloadEnds,
            now(true, true, "stopping"),
        ];
        let expected = [
            vec![],
            vec![],
            vec![],
            vec!["READY=1\n"],
            vec!["STOPPING=1\nSTATUS=stopping\n"],
            vec![],
            vec![],
        ];
        assert_eq!(told(changes), expected);
    }

    #[test]
    fn a_stop_before_it_was_ready_is_not_taken_for_readiness() {
        let expected = [vec!["STOPPING=1\nSTATUS=s\n"], vec![]];
        assert_eq!(told(vec![now(false, true, "s"), now(true, true, "s")]), expected);
    }

    fn worker(slot: u32, phase: Phase) -> Status {
        Status {
            slot: Slot(slot),
            phase,
            running: None,
            listening: Vec::new(),
            since: None,
            restarts: 0,
            last_end: None,
            last_lines: Vec::new(),
            environment: None,
        }
    }

    #[test]
    fn the_sentence_counts_places_not_processes() {
        let replaced = [(1, Phase::Online), (1, Phase::Online), (2, Phase::Launching)];
        let workers = replaced.map(|(slot, phase)| worker(slot, phase)).to_vec();
        let app = Overview { wanted: 2, workers, reload: Some(Asker::Cron), ..Overview::default() };
        assert_eq!(sentence(&app, false), "1 of 2 workers online, reload by cron under way");
        let app = Overview { wanted: 1, is_stopped: true, ..Overview::default() };
        assert_eq!(sentence(&app, false), "0 of 1 worker online, stopped by command");
        assert_eq!(sentence(&Overview::default(), true), "0 of 0 workers online, stopping");
    }

    #[test]
    fn in_a_namespace_of_its_own_it_names_no_process() {
        assert_eq!(main_pid(1), "");
        assert_eq!(main_pid(12), "MAINPID=12\n");
    }
}
