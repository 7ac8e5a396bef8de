//! What of an app is shown to whom, where there is no token: no more than they could see without the page.
//!
//! Pure. What others than those on the machine see is named, one by one; what comes new is not shown.

use crate::control::api::{App, Happened, History, Live, Tick, Worker};
use crate::supervisor::events::{Event, EventKind};

/// Who sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Every user of this machine.
    OnTheMachine,
    /// Whoever reaches the address.
    Elsewhere,
}

/// What they see of it, if anything.
pub(super) fn of(live: Live, seen: Seen) -> Option<Live> {
    let event = match seen {
        Seen::OnTheMachine => without_lines,
        Seen::Elsewhere => bare,
    };
    let pid = |pid| if seen == Seen::OnTheMachine { pid } else { 0 };
    Some(match live {
        Live::History(past) => Live::History(History {
            pid: pid(past.pid),
            events: past.events.into_iter().filter_map(event).collect(),
        }),
        Live::Event(told) => Live::Event(Happened { pid: pid(told.pid), event: event(told.event)? }),
        Live::Tick(tick) => Live::Tick(Tick { pid: pid(tick.pid), ..tick }),
        Live::App(state) if seen == Seen::Elsewhere => Live::App(Box::new(app(*state))),
        Live::App(mut state) => {
            state.workers.iter_mut().for_each(|worker| worker.last_lines.clear());
            Live::App(state)
        }
    })
}

/// Without what workers have written: their logs are the user's alone.
fn without_lines(mut event: Event) -> Option<Event> {
    match &mut event.kind {
        EventKind::WorkerErrored { last_lines, .. } | EventKind::ReloadFailed { last_lines, .. } => {
            last_lines.clear()
        }
        EventKind::WorkerSays { .. } => return None,
        _ => {}
    }
    Some(event)
}

fn app(app: App) -> App {
    App {
        name: app.name,
        namespace: app.namespace,
        command: Vec::new(),
        pid: 0,
        version: app.version,
        outdated: false,
        upgrade: None,
        started: app.started,
        uptime_ms: app.uptime_ms,
        // As the label `listener` has them.
        addresses: app.addresses,
        wanted: app.wanted,
        stopped: app.stopped,
        ready: app.ready,
        accept: app.accept,
        asks_to_leave: app.asks_to_leave,
        reload: app.reload.map(|_| String::new()),
        traffic: app.traffic,
        workers: app.workers.into_iter().map(worker).collect(),
    }
}

fn worker(worker: Worker) -> Worker {
    Worker {
        worker: worker.worker,
        state: worker.state,
        pid: None,
        started: worker.started,
        uptime_ms: worker.uptime_ms,
        restarts: worker.restarts,
        cpu_percent: worker.cpu_percent,
        memory_bytes: worker.memory_bytes,
        connections_taken: worker.connections_taken,
        connections_open: worker.connections_open,
        moved: worker.moved,
        listening: worker.listening,
        without_shim: Vec::new(),
        last_end: None,
        last_lines: Vec::new(),
        environment: None,
    }
}

/// What happened, to which worker, and when; not why, and not by whom.
fn bare(event: Event) -> Option<Event> {
    let none = String::new;
    let kind = match event.kind {
        EventKind::WorkerStarted { worker, pid: _ } => EventKind::WorkerStarted { worker, pid: 0 },
        EventKind::WorkerListens { worker, pid: _, port } => {
            EventKind::WorkerListens { worker, pid: 0, port }
        }
        EventKind::WorkerOnline { worker, pid: _ } => EventKind::WorkerOnline { worker, pid: 0 },
        EventKind::WorkerFailed { worker, .. } => EventKind::WorkerFailed { worker, pid: 0, reason: none() },
        EventKind::WorkerDraining { worker, pid: _ } => EventKind::WorkerDraining { worker, pid: 0 },
        EventKind::WorkerStopping { worker, pid: _ } => EventKind::WorkerStopping { worker, pid: 0 },
        EventKind::WorkerEnded { worker, ran_ms, expected, .. } => {
            EventKind::WorkerEnded { worker, pid: 0, how: none(), ran_ms, expected }
        }
        EventKind::WorkerRestarts { worker, in_ms, .. } => {
            EventKind::WorkerRestarts { worker, reason: none(), in_ms }
        }
        EventKind::WorkerErrored { worker, .. } => {
            EventKind::WorkerErrored { worker, reason: none(), last_lines: Vec::new() }
        }
        kind @ (EventKind::WorkerStalled { .. } | EventKind::WorkerMoves { .. }) => kind,
        EventKind::WorkerReplaced { worker, .. } => EventKind::WorkerReplaced { worker, reason: none() },
        EventKind::ReloadStarted { .. } => EventKind::ReloadStarted { by: none() },
        kind @ EventKind::ReloadDone { .. } => kind,
        EventKind::ReloadFailed { .. } => EventKind::ReloadFailed { reason: none(), last_lines: Vec::new() },
        EventKind::Scaled { workers, .. } => EventKind::Scaled { workers, by: none() },
        EventKind::AppStarted { .. } => EventKind::AppStarted { by: none() },
        EventKind::AppStopping { .. } => EventKind::AppStopping { by: none() },
        EventKind::Upgraded { from, to, .. } => EventKind::Upgraded { from, to, by: none() },
        EventKind::UpgradeFailed { .. } => EventKind::UpgradeFailed { reason: none(), by: none() },
        EventKind::Stopping { .. } => EventKind::Stopping { by: none() },
        kind @ EventKind::Missed { .. } => kind,
        EventKind::WorkerSays { .. } => return None,
    };
    Some(Event { kind, ..event })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    use super::*;
    use crate::monit::testing;
    use crate::supervisor::events::Time;

    const SECRET: &str = "SECRET";

    /// What a worker has written.
    const LINE: &str = "LINE";

    fn secret() -> String {
        SECRET.to_owned()
    }

    fn line() -> String {
        LINE.to_owned()
    }

    fn events() -> Vec<Event> {
        let kinds = vec![
            EventKind::WorkerStarted { worker: 1, pid: 4711 },
            EventKind::WorkerFailed { worker: 1, pid: 4711, reason: secret() },
            EventKind::WorkerEnded { worker: 1, pid: 4711, how: secret(), ran_ms: 5, expected: false },
            EventKind::WorkerRestarts { worker: 1, reason: secret(), in_ms: 5 },
            EventKind::WorkerErrored { worker: 1, reason: secret(), last_lines: vec![line()] },
            EventKind::WorkerReplaced { worker: 1, reason: secret() },
            EventKind::WorkerSays { worker: 1, message: LINE.into() },
            EventKind::ReloadStarted { by: secret() },
            EventKind::ReloadFailed { reason: secret(), last_lines: vec![line()] },
            EventKind::Scaled { workers: 4, by: secret() },
            EventKind::AppStarted { by: secret() },
            EventKind::AppStopping { by: secret() },
            EventKind::Stopping { by: secret() },
            EventKind::Upgraded { from: "1".to_owned(), to: "2".to_owned(), by: secret() },
            EventKind::UpgradeFailed { reason: secret(), by: secret() },
        ];
        let event = |kind| Event { time: Time(SystemTime::UNIX_EPOCH), app: "web".to_owned(), kind };
        kinds.into_iter().map(event).collect()
    }

    fn everything() -> Vec<Live> {
        let mut app = testing::app("web", 1);
        (app.pid, app.command, app.reload) = (4711, vec![secret()], Some(secret()));
        let worker = &mut app.workers[0];
        worker.pid = Some(4711);
        (worker.last_end, worker.last_lines) = (Some(secret()), vec![line()]);
        worker.without_shim = vec![secret()];
        worker.environment = Some(BTreeMap::from([(secret(), secret())]));
        let mut all = vec![
            Live::History(History { pid: 4711, events: events() }),
            Live::App(Box::new(app)),
            Live::Tick(Tick { pid: 4711, ..Tick::default() }),
        ];
        all.extend(events().into_iter().map(|event| Live::Event(Happened { pid: 4711, event })));
        all
    }

    /// How much of everything is shown, and as what.
    fn shown(seen: Seen) -> (usize, String) {
        let shown: Vec<_> = everything().into_iter().filter_map(|live| of(live, seen)).collect();
        (shown.len(), serde_json::to_string(&shown).unwrap())
    }

    #[test]
    fn elsewhere_no_text_and_no_process_is_shown() {
        let (count, text) = shown(Seen::Elsewhere);
        assert_eq!(count, everything().len() - 1, "all but what a worker says");
        assert!(![SECRET, LINE, "4711"].iter().any(|hidden| text.contains(hidden)), "{text}");
        assert!(text.contains(r#""event":"worker-started""#) && text.contains(r#""name":"web""#), "{text}");
    }

    #[test]
    fn on_the_machine_all_but_what_workers_write_is_shown() {
        let (count, text) = shown(Seen::OnTheMachine);
        assert_eq!(count, everything().len() - 1);
        assert!(!text.contains(LINE), "{text}");
        assert!([SECRET, "4711"].iter().all(|told| text.contains(told)), "{text}");
    }
}
