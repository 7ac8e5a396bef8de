//! An app for the tests of the control socket.
//!
//! It has no workers: it only answers as one might.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http_body_util::BodyExt;
use tokio::sync::{broadcast, oneshot};

use super::api::{Accept, App, Code, Connection, Problem, Tick, Traffic, Worker};
use super::backend::{AppBackend, CommandEnd, Detail};
use crate::ids::{Slot, WorkerPort};
use crate::supervisor::events::{Asker, Event, EventKind, Time};
use crate::supervisor::{Command, Failed, Refused};

/// An app whose commands end when the test says so.
pub(crate) struct Fake {
    pub(crate) events: broadcast::Sender<Event>,
    past: Mutex<Vec<Event>>,
    taken: AtomicU64,
    /// How long its command is, beyond what it needs.
    pub(crate) padding: AtomicUsize,
    pub(crate) begun: Mutex<Vec<(Command, Asker)>>,
    end: Mutex<Option<oneshot::Receiver<Result<String, Failed>>>>,
}

impl Fake {
    pub(crate) fn new() -> Self {
        let (events, _) = broadcast::channel(16);
        Self {
            events,
            past: Mutex::default(),
            taken: AtomicU64::new(1),
            padding: AtomicUsize::new(0),
            begun: Mutex::default(),
            end: Mutex::default(),
        }
    }

    pub(crate) fn tell(&self, worker: u32) {
        let kind = EventKind::WorkerMoves { worker };
        let event = Event { time: Time(SystemTime::now()), app: "web".to_owned(), kind };
        self.past.lock().unwrap().push(event.clone());
        let _ = self.events.send(event);
    }

    /// Its worker takes so many connections.
    pub(crate) fn take_connections(&self, count: u64) {
        self.taken.fetch_add(count, Ordering::Relaxed);
    }

    /// The next command is not refused, and ends so.
    pub(crate) fn ending(&self) -> oneshot::Sender<Result<String, Failed>> {
        let (end, ended) = oneshot::channel();
        *self.end.lock().unwrap() = Some(ended);
        end
    }
}

impl AppBackend for Fake {
    fn name(&self) -> &str {
        "web"
    }

    fn snapshot(&self, detail: Detail) -> App {
        let worker = Worker {
            worker: 1,
            state: "online".to_owned(),
            pid: Some(7),
            started: None,
            uptime_ms: None,
            restarts: 0,
            cpu_percent: None,
            memory_bytes: None,
            connections_taken: self.taken.load(Ordering::Relaxed),
            connections_open: None,
            moved: None,
            listening: vec![3000],
            without_shim: match detail {
                Detail::Brief | Detail::Traffic => Vec::new(),
                Detail::Full | Detail::WithEnvironment => vec!["esbuild (pid 8)".to_owned()],
            },
            last_end: None,
            last_lines: vec!["a line".to_owned()],
            environment: (detail == Detail::WithEnvironment)
                .then(|| [("A".to_owned(), "b".to_owned())].into_iter().collect()),
        };
        App {
            name: "web".to_owned(),
            namespace: "default".to_owned(),
            command: vec![
                "node".to_owned(),
                "app.js".to_owned() + &" ".repeat(self.padding.load(Ordering::Relaxed)),
            ],
            pid: std::process::id(),
            version: "0".to_owned(),
            outdated: false,
            upgrade: None,
            started: Time(SystemTime::UNIX_EPOCH),
            uptime_ms: 1,
            addresses: Vec::new(),
            wanted: 1,
            stopped: false,
            ready: true,
            accept: Accept::Primary,
            asks_to_leave: true,
            reload: None,
            traffic: (detail == Detail::Traffic).then(Traffic::default),
            workers: vec![worker],
        }
    }

    fn begin(&self, command: Command, by: Asker) -> BoxFuture<'static, Result<CommandEnd, Refused>> {
        self.begun.lock().unwrap().push((command, by.clone()));
        let end = self.end.lock().unwrap().take();
        Box::pin(async move {
            let end = end.ok_or(Refused::Busy { by })?;
            Ok(Box::pin(async { end.await.unwrap() }) as CommandEnd)
        })
    }

    fn counts(&self) -> Tick {
        let taken = self.taken.load(Ordering::Relaxed);
        Tick { pid: std::process::id(), accepted: taken, taken: vec![(1, taken)], ..Tick::default() }
    }

    fn open_connections(&self) -> BoxFuture<'static, Option<BTreeMap<u32, u64>>> {
        Box::pin(async { Some([(1, 3)].into()) })
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    fn events_with_past(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        (self.past.lock().unwrap().clone(), self.events.subscribe())
    }

    fn connections(&self, worker: Option<Slot>) -> BoxFuture<'static, Result<Vec<Connection>, Problem>> {
        let connections = match worker {
            None => Ok((1..=3).map(connection).collect()),
            Some(Slot(1)) => Ok(vec![connection(1)]),
            Some(worker) => Err(Problem::new(Code::NotFound, format!("there is no worker {worker}"))),
        };
        Box::pin(async { connections })
    }

    /// Says what it was asked, as a worker might.
    fn exchange(
        &self,
        worker: Slot,
        port: Option<WorkerPort>,
        request: Request,
    ) -> BoxFuture<'static, Result<Response, Problem>> {
        if worker != Slot(1) {
            let problem = Problem::new(Code::NotFound, format!("there is no worker {worker}"));
            return Box::pin(async { Err(problem) });
        }
        let asked = format!("{} {} at {port:?}: ", request.method(), request.uri());
        Box::pin(async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let said = [asked.as_bytes(), &body].concat();
            let answer = Response::builder().status(404).header("a", "b");
            // As it comes from a worker: as a stream, whose length is not known.
            let said = stream::once(async { Ok::<_, Infallible>(said) });
            Ok(answer.body(Body::from_stream(said)).unwrap())
        })
    }
}

/// The connection of a client with this port.
fn connection(port: u16) -> Connection {
    Connection {
        client: ([127, 0, 0, 1], port).into(),
        local: ([127, 0, 0, 1], 80).into(),
        worker: Some(1),
        state: "established".to_owned(),
        age_seconds: Some(1.5),
        idle_seconds: None,
        received_bytes: Some(7),
        sent_bytes: None,
        rtt_seconds: None,
        rtt_variation_seconds: None,
        retransmitted_segments: None,
        queued_seconds: None,
    }
}
