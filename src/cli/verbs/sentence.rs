//! Events in words, for people who watch.
//!
//! An event that this version does not know is told as it came.

use std::time::Duration;

use serde_json::Value;

use crate::controls;
use crate::supervisor::events::{Event, EventKind};

/// An event, as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// When it happened, as RFC 3339 has it.
    pub time: String,
    /// To which app.
    pub app: String,
    /// What happened.
    pub text: String,
}

/// An event of a stream, with its time and app.
pub(super) fn event(line: &str) -> String {
    let Told { time, app, text } = told(line);
    let parts = [time, app, text].into_iter().filter(|part| !part.is_empty());
    controls::blanked(&parts.collect::<Vec<_>>().join("  "))
}

/// An event of a stream, in words.
pub(super) fn told(line: &str) -> Told {
    match serde_json::from_str::<Event>(line) {
        Ok(event) => Told { time: event.time.to_string(), app: event.app, text: described(&event.kind) },
        Err(_) => unknown(line),
    }
}

/// An event in the course of a command; `None` for those that are not part of the story.
pub(super) fn progress(line: &str) -> Option<String> {
    let event: Event = serde_json::from_str(line).ok()?;
    let is_told = !matches!(
        event.kind,
        EventKind::WorkerListens { .. }
            | EventKind::WorkerSays { .. }
            | EventKind::WorkerStopping { .. }
            | EventKind::ReloadDone { .. }
            | EventKind::ReloadFailed { .. }
    );
    is_told.then(|| controls::blanked(&format!("{}: {}", event.app, described(&event.kind))))
}

/// `{"time":...,"app":"web","event":"worker-says","worker":1,"message":...}`, for one.
fn unknown(line: &str) -> Told {
    let Ok(Value::Object(mut fields)) = serde_json::from_str(line) else {
        return Told { time: String::new(), app: String::new(), text: line.to_owned() };
    };
    let mut take = |name| match fields.remove(name) {
        Some(Value::String(text)) => text,
        other => other.map(|value| value.to_string()).unwrap_or_default(),
    };
    let (time, app, event) = (take("time"), take("app"), take("event"));
    Told { time, app, text: format!("{event} {}", Value::Object(fields)) }
}

fn described(kind: &EventKind) -> String {
    match kind {
        EventKind::WorkerStarted { worker, pid } => format!("worker {worker} started (pid {pid})"),
        EventKind::WorkerListens { worker, port, .. } => format!("worker {worker} listens on port {port}"),
        EventKind::WorkerOnline { worker, pid } => format!("worker {worker} online (pid {pid})"),
        EventKind::WorkerFailed { worker, pid, reason } => {
            format!("worker {worker} failed (pid {pid}): {reason}")
        }
        EventKind::WorkerDraining { worker, pid } => {
            format!("worker {worker} draining (pid {pid})")
        }
        EventKind::WorkerStopping { worker, pid } => format!("worker {worker} stopping (pid {pid})"),
        EventKind::WorkerEnded { worker, pid, how, .. } => format!("worker {worker} {how} (pid {pid})"),
        EventKind::WorkerRestarts { worker, reason, in_ms } => {
            let time = humantime::format_duration(Duration::from_millis(*in_ms));
            format!("worker {worker} restarts in {time}: {reason}")
        }
        EventKind::WorkerErrored { worker, reason, .. } => format!("worker {worker} given up: {reason}"),
        EventKind::WorkerStalled { worker } => format!("worker {worker} took no connection in time"),
        EventKind::WorkerMoves { worker } => format!("worker {worker} recovered"),
        EventKind::WorkerReplaced { worker, reason } => format!("replacing worker {worker}: {reason}"),
        EventKind::WorkerSays { worker, message } => format!("worker {worker} says {message}"),
        EventKind::ReloadStarted { by } => format!("reload started by {by}"),
        EventKind::ReloadDone { workers } => format!("reload done, workers replaced: {workers}"),
        EventKind::ReloadFailed { reason, .. } => format!("reload failed: {reason}"),
        EventKind::Scaled { workers, by } => format!("scaled to {workers} by {by}"),
        EventKind::AppStarted { by } => format!("started by {by}"),
        EventKind::AppStopping { by } => format!("workers stopped by {by}; the ports stay open"),
        EventKind::Upgraded { from, to, by } => format!("clusterd upgraded from {from} to {to} by {by}"),
        EventKind::UpgradeFailed { reason, .. } => format!("clusterd not upgraded: {reason}"),
        EventKind::Stopping { by } => format!("clusterd stopping, requested by {by}"),
        EventKind::Missed { events } => format!("{events} events were missed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_sentence() {
        let line = |rest: &str| format!(r#"{{"time":"2026-11-20T13:14:40.118Z","app":"web",{rest}}}"#);
        let table = [
            (r#""event":"worker-online","worker":1,"pid":5"#, "worker 1 online (pid 5)"),
            (r#""event":"missed","events":7"#, "7 events were missed"),
            (r#""event":"worker-says","worker":1,"message":{"a":1}"#, r#"worker 1 says {"a":1}"#),
            (r#""event":"of-tomorrow","x":"\u001b[2J""#, r#"of-tomorrow {"x":"\u001b[2J"}"#),
        ];
        for (rest, expected) in table {
            assert_eq!(event(&line(rest)), format!("2026-11-20T13:14:40.118Z  web  {expected}"));
        }
        assert_eq!(event("\u{1b}garbage"), " garbage");
    }

    #[test]
    fn a_commands_story_leaves_out_the_small_steps() {
        let line =
            r#"{"time":"2026-11-20T13:14:40.118Z","app":"web","event":"worker-online","worker":1,"pid":5}"#;
        assert_eq!(progress(line).as_deref(), Some("web: worker 1 online (pid 5)"));
        assert_eq!(progress(&line.replace("worker-online", "worker-stopping")), None);
        assert_eq!(progress(r#"{"of":"tomorrow"}"#), None);
    }
}
