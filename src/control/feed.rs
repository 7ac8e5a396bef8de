//! Bodies that go on for as long as something happens: events, and the progress of a command; one object a line.
//!
//! Nobody waits for the client: a line is made when the client has room for it, and what was missed meanwhile is told
//! by a count. A client that is gone takes its body with it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::SystemTime;

use hyper::body::{Body, Bytes, Frame};
use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::api::{Outcome, Problem};
use super::app::{Ending, Soon};
use crate::supervisor::events::{Event, EventKind, Time};

/// What happens to these apps, for ever.
pub fn events(sources: Vec<Source>) -> impl Body<Data = Bytes, Error = Infallible> + Send {
    Lines::new(Merged::of(sources), |mut merged| async move {
        let event = merged.next().await?;
        Some((line(&event), merged))
    })
}

/// What happens to an app from now on until a command has come to its `end`, and that.
pub fn progress(source: Source, end: Ending) -> impl Body<Data = Bytes, Error = Infallible> + Send {
    Lines::new(Some((Merged::of(vec![source]), end)), |underway| async move {
        let (mut merged, mut end) = underway?;
        // What happened before the end is told before it.
        tokio::select! {
            biased;
            Some(event) = merged.next() => Some((line(&event), Some((merged, end)))),
            outcome = &mut end => {
                let outcome = outcome.map_or_else(|failed| Outcome::Error(Problem::from(failed)), Outcome::Done);
                Some((line(&outcome), None))
            }
        }
    })
}

fn line(object: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(object).expect("events and outcomes can be written");
    line.push(b'\n');
    line.into()
}

/// What happens to one app.
#[derive(Debug)]
pub struct Source {
    /// What it is called.
    pub app: String,
    /// What happens.
    pub events: Receiver<Event>,
}

type Happening = Soon<(Source, Result<Event, RecvError>)>;

fn wait_at(mut source: Source) -> Happening {
    Box::pin(async move {
        let happened = source.events.recv().await;
        (source, happened)
    })
}

/// What happens to several apps.
struct Merged(Vec<Happening>);

impl Merged {
    fn of(sources: Vec<Source>) -> Self {
        Self(sources.into_iter().map(wait_at).collect())
    }

    /// The next event; `None` once nothing can happen any more.
    async fn next(&mut self) -> Option<Event> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut index = 0;
        while let Some(happening) = self.0.get_mut(index) {
            let Poll::Ready((source, happened)) = happening.as_mut().poll(context) else {
                index += 1;
                continue;
            };
            let event = match happened {
                Ok(event) => event,
                Err(RecvError::Lagged(events)) => missed(&source.app, events),
                Err(RecvError::Closed) => {
                    drop(self.0.remove(index));
                    continue;
                }
            };
            self.0[index] = wait_at(source);
            return Poll::Ready(Some(event));
        }
        if self.0.is_empty() { Poll::Ready(None) } else { Poll::Pending }
    }
}

fn missed(app: &str, events: u64) -> Event {
    Event { time: Time(SystemTime::now()), app: app.to_owned(), kind: EventKind::Missed { events } }
}

/// A body whose every piece is made when it is asked for, out of a state that goes from one to the next.
struct Lines<State, Next> {
    next: Next,
    making: Soon<Option<(Bytes, State)>>,
}

impl<State, Next, Making> Lines<State, Next>
where
    Next: Fn(State) -> Making,
    Making: Future<Output = Option<(Bytes, State)>> + Send + 'static,
{
    fn new(state: State, next: Next) -> Self {
        Self { making: Box::pin(next(state)), next }
    }
}

impl<State, Next, Making> Body for Lines<State, Next>
where
    Next: Fn(State) -> Making + Unpin,
    Making: Future<Output = Option<(Bytes, State)>> + Send + 'static,
{
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.making.as_mut().poll(context).map(|made| {
            let (bytes, state) = made?;
            self.making = Box::pin((self.next)(state));
            Some(Ok(Frame::data(bytes)))
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::sync::{broadcast, oneshot};

    use super::*;
    use crate::supervisor::Failed;

    fn event(app: &str, worker: u32) -> Event {
        let kind = EventKind::WorkerMoves { worker };
        Event { time: Time(SystemTime::UNIX_EPOCH), app: app.to_owned(), kind }
    }

    fn source(app: &str, capacity: usize) -> (broadcast::Sender<Event>, Source) {
        let (sender, events) = broadcast::channel(capacity);
        (sender, Source { app: app.to_owned(), events })
    }

    async fn rest(body: impl Body<Data = Bytes, Error = Infallible>) -> Vec<serde_json::Value> {
        let bytes = body.collect().await.unwrap().to_bytes();
        bytes
            .split_inclusive(|&byte| byte == b'\n')
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    #[tokio::test]
    async fn events_of_all_apps_come_until_the_last_one_ends() {
        let ((one, first), (two, second)) = (source("one", 8), source("two", 8));
        let body = events(vec![first, second]);
        two.send(event("two", 1)).unwrap();
        one.send(event("one", 1)).unwrap();
        drop(two);
        one.send(event("one", 2)).unwrap();
        drop(one);
        let mut told: Vec<_> =
            rest(body).await.iter().map(|event| format!("{} {}", event["app"], event["worker"])).collect();
        told.sort();
        assert_eq!(told, ["\"one\" 1", "\"one\" 2", "\"two\" 1"]);
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told_how_much_was_missed() {
        let (sender, source) = source("web", 4);
        let body = events(vec![source]);
        for worker in 1..=10 {
            sender.send(event("web", worker)).unwrap();
        }
        drop(sender);
        let told = rest(body).await;
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
            let body = progress(source, Box::pin(async { ended.await.unwrap() }));
            for worker in 1..=200 {
                sender.send(event("web", worker)).unwrap();
            }
            end.send(outcome).unwrap();
            let mut told = rest(body).await;
            assert_eq!(told.pop().unwrap().to_string(), expected);
            assert_eq!(told.len(), 200, "and {sender:?} still lives");
        }
    }

    #[tokio::test]
    async fn a_body_that_is_dropped_leaves_nobody_listening() {
        let (sender, source) = source("web", 4);
        let mut body = Box::pin(events(vec![source]));
        sender.send(event("web", 1)).unwrap();
        body.frame().await.unwrap().unwrap();
        assert_eq!(sender.receiver_count(), 1);
        drop(body);
        assert_eq!(sender.receiver_count(), 0);
    }
}
