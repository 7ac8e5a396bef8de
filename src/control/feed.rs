//! Streams that go on for as long as something happens: the events of apps, and the progress of a command.
//!
//! They do not wait for the client: an item is made when the client has room for it, and a `missed` event counts what
//! happened meanwhile. A client that is gone takes its stream with it.

use std::time::SystemTime;

use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError::Lagged;

use super::api::{Outcome, Problem};
use super::backend::CommandEnd;
use crate::supervisor::Failed;
use crate::supervisor::events::{Event, EventKind, Time};

/// The events of one app.
#[derive(Debug)]
pub(super) struct EventSource {
    /// The name of the app.
    pub app: String,
    /// Its events.
    pub events: Receiver<Event>,
}

impl EventSource {
    /// They never end before the app's clusterd does.
    pub(super) fn into_stream(self) -> impl Stream<Item = Event> + Send + Unpin {
        let Self { app, events } = self;
        BroadcastStream::new(events)
            .map(move |received| received.unwrap_or_else(|Lagged(events)| missed(&app, events)))
    }
}

/// The events of these apps, for ever.
pub(super) fn events(sources: Vec<EventSource>) -> impl Stream<Item = Event> + Send {
    stream::select_all(sources.into_iter().map(EventSource::into_stream))
}

/// An item of the stream that a command is answered with.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Progress {
    /// An event of the app.
    Event(Event),
    /// The end of the command, and the last item.
    Outcome(Outcome),
}

/// The events of an app until a command has ended, and its outcome.
pub(super) fn progress(source: EventSource, end: CommandEnd) -> impl Stream<Item = Progress> + Send {
    stream::unfold(Some((source.into_stream(), end)), |underway| async move {
        let (mut events, mut end) = underway?;
        // What happened before the end comes before it.
        tokio::select! {
            biased;
            Some(event) = events.next() => Some((Progress::Event(event), Some((events, end)))),
            ended = &mut end => Some((Progress::Outcome(outcome(ended)), None)),
        }
    })
}

fn outcome(ended: Result<String, Failed>) -> Outcome {
    ended.map_or_else(|failed| Outcome::Error(Problem::from(failed)), Outcome::Done)
}

fn missed(app: &str, events: u64) -> Event {
    Event { time: Time(SystemTime::now()), app: app.to_owned(), kind: EventKind::Missed { events } }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{broadcast, oneshot};

    use super::*;

    fn event(app: &str, worker: u32) -> Event {
        let kind = EventKind::WorkerMoves { worker };
        Event { time: Time(SystemTime::UNIX_EPOCH), app: app.to_owned(), kind }
    }

    fn source(app: &str, capacity: usize) -> (broadcast::Sender<Event>, EventSource) {
        let (sender, events) = broadcast::channel(capacity);
        (sender, EventSource { app: app.to_owned(), events })
    }

    async fn rest(items: impl Stream<Item: Serialize>) -> Vec<serde_json::Value> {
        items.map(|item| serde_json::to_value(item).unwrap()).collect().await
    }

    #[tokio::test]
    async fn events_of_all_apps_come_until_the_last_one_ends() {
        let ((one, first), (two, second)) = (source("one", 8), source("two", 8));
        let stream = events(vec![first, second]);
        two.send(event("two", 1)).unwrap();
        one.send(event("one", 1)).unwrap();
        drop(two);
        one.send(event("one", 2)).unwrap();
        drop(one);
        let mut told: Vec<_> =
            rest(stream).await.iter().map(|event| format!("{} {}", event["app"], event["worker"])).collect();
        told.sort();
        assert_eq!(told, ["\"one\" 1", "\"one\" 2", "\"two\" 1"]);
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told_how_much_was_missed() {
        let (sender, source) = source("web", 4);
        let stream = events(vec![source]);
        for worker in 1..=10 {
            sender.send(event("web", worker)).unwrap();
        }
        drop(sender);
        let told = rest(stream).await;
        assert_eq!((&told[0]["event"], &told[0]["events"]), (&"missed".into(), &6.into()));
        assert_eq!((told.len(), &told[1]["worker"]), (5, &7.into()));
    }

    #[tokio::test]
    async fn the_progress_of_a_command_ends_with_its_outcome() {
        for (outcome, expected) in [
            (Ok("done well".to_owned()), r#"{"done":"done well"}"#),
            (
                Err(Failed { reason: "no".to_owned(), last_lines: vec![] }),
                r#"{"error":{"code":"failed","message":"no"}}"#,
            ),
        ] {
            let (sender, source) = source("web", 256);
            let (end, ended) = oneshot::channel();
            let stream = progress(source, Box::pin(async { ended.await.unwrap() }));
            for worker in 1..=200 {
                sender.send(event("web", worker)).unwrap();
            }
            end.send(outcome).unwrap();
            let mut told = rest(stream).await;
            assert_eq!(told.pop().unwrap().to_string(), expected);
            assert_eq!(told.len(), 200, "and {sender:?} still lives");
        }
    }

    #[tokio::test]
    async fn a_stream_that_is_dropped_leaves_nobody_listening() {
        let (sender, source) = source("web", 4);
        let mut stream = Box::pin(events(vec![source]));
        sender.send(event("web", 1)).unwrap();
        stream.next().await.unwrap();
        assert_eq!(sender.receiver_count(), 1);
        drop(stream);
        assert_eq!(sender.receiver_count(), 0);
    }
}
