//! What each request is answered, and the limits on reading the state of the workers.
//!
//! It knows no sockets and no paths.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::response::Response;
use futures_util::stream;
use hyper::header::HeaderValue;
use serde::Deserialize;
use tower::{BoxError, ServiceExt};

use super::api::{self, App, Apps, Code, Connection, PORT_HEADER, Problem, Verb, WORKER_HEADER};
use super::backend::{AppBackend, Detail};
use super::extract::{CommandBody, NamedApp, NamedWorker, StreamFormat, WorkerPath, worker_of};
use super::feed::{self, EventSource};
use super::respond::Json;
use super::stay::Stay;
use crate::http::{self, Bounded};
use crate::ids::Slot;
use crate::supervisor::events::Asker;

/// How many snapshots may be under way at once; further ones are refused.
const SNAPSHOTS: usize = 16;

/// How long a snapshot may take.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(5);

/// How many requests for connections may be under way at once; further ones are refused.
const LISTINGS: usize = 4;

/// How long the kernel may take to list them.
const LISTING_TIMEOUT: Duration = Duration::from_secs(5);

/// The connections of an app, or of one of its workers.
struct Listing {
    app: Arc<dyn AppBackend>,
    worker: Option<Slot>,
}

/// An app whose state is read.
struct Look {
    app: NamedApp,
    detail: Detail,
}

/// The apps, and how their state is read. Clones share the limits.
#[derive(Clone)]
pub(super) struct ControlState {
    apps: Arc<[Arc<dyn AppBackend>]>,
    snapshots: Bounded<Look, App>,
    listings: Bounded<Listing, Result<Vec<Connection>, Problem>>,
}

impl ControlState {
    pub(super) fn new(apps: Vec<Arc<dyn AppBackend>>) -> Self {
        let snapshot = |Look { app: NamedApp(app), detail }| async move {
            Ok(tokio::task::spawn_blocking(move || app.snapshot(detail)).await?)
        };
        let listing = |Listing { app, worker }| async move { Ok(app.connections(worker).await) };
        Self {
            apps: apps.into(),
            snapshots: http::bounded(SNAPSHOTS, SNAPSHOT_TIMEOUT, snapshot),
            listings: http::bounded(LISTINGS, LISTING_TIMEOUT, listing),
        }
    }

    /// The app of this name.
    pub(super) fn app(&self, name: &str) -> Result<Arc<dyn AppBackend>, Problem> {
        self.apps.iter().find(|app| app.name() == name).cloned().ok_or_else(|| {
            let known: Vec<_> = self.apps.iter().map(|app| app.name()).collect();
            Problem::new(Code::NotFound, format!("there is no app {name}"))
                .help(format!("running apps: {}", known.join(", ")))
        })
    }

    async fn snapshot(&self, app: NamedApp, detail: Detail) -> Result<App, Problem> {
        let snapshot = self.snapshots.clone().oneshot(Look { app, detail }).await;
        snapshot.map_err(|error| overloaded(&error, SNAPSHOTS, "the state of the workers"))
    }

    async fn listing(&self, listing: Listing) -> Result<Vec<Connection>, Problem> {
        let connections = self.listings.clone().oneshot(listing).await;
        connections.map_err(|error| overloaded(&error, LISTINGS, "the connections"))?
    }
}

/// Why `what` could not be read, of which so many readings may be under way.
fn overloaded(error: &BoxError, most: usize, what: &str) -> Problem {
    let message = if error.is::<tower::load_shed::error::Overloaded>() {
        format!("{most} requests are reading {what} already")
    } else {
        format!("cannot read {what}: {error}")
    };
    Problem::new(Code::Overloaded, message)
}

/// The query of a request for all apps.
#[derive(Debug, Deserialize)]
pub(super) struct AppsQuery {
    #[serde(default)]
    traffic: bool,
}

pub(super) async fn list(
    State(state): State<ControlState>,
    query: Result<Query<AppsQuery>, QueryRejection>,
) -> Result<Json<Apps>, Problem> {
    let Query(AppsQuery { traffic }) = query.map_err(|rejection| {
        Problem::new(Code::BadRequest, rejection.body_text()).help("the query is empty, or traffic=true")
    })?;
    let detail = if traffic { Detail::Traffic } else { Detail::Brief };
    let mut apps = Vec::new();
    for named in state.apps.iter().map(Arc::clone) {
        let mut app = state.snapshot(NamedApp(Arc::clone(&named)), detail).await?;
        app.workers.iter_mut().for_each(|worker| worker.last_lines.clear());
        // Without netlink nobody knows how many are open; the rest is told all the same.
        if traffic && let Ok(open) = state.listing(Listing { app: named, worker: None }).await {
            count_open(&mut app, &open);
        }
        apps.push(app);
    }
    Ok(Json(Apps { apps }))
}

/// Notes with each worker how many of these it has. While a worker is replaced, two processes share the number.
fn count_open(app: &mut App, open: &[Connection]) {
    let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
    open.iter()
        .filter_map(|connection| connection.worker)
        .for_each(|worker| *counts.entry(worker).or_default() += 1);
    for worker in &mut app.workers {
        worker.connections_open = Some(counts.get(&worker.worker).copied().unwrap_or_default());
    }
}

/// The query of a request for an app.
#[derive(Debug, Deserialize)]
pub(super) struct AppQuery {
    #[serde(default)]
    environment: bool,
}

pub(super) async fn show(
    State(state): State<ControlState>,
    app: NamedApp,
    query: Result<Query<AppQuery>, QueryRejection>,
) -> Result<Json<App>, Problem> {
    let Query(AppQuery { environment }) = query.map_err(|rejection| {
        Problem::new(Code::BadRequest, rejection.body_text()).help("the query is empty, or environment=true")
    })?;
    let detail = if environment { Detail::WithEnvironment } else { Detail::Full };
    state.snapshot(app, detail).await.map(Json)
}

/// The query of a request for connections.
#[derive(Debug, Deserialize)]
pub(super) struct ConnectionQuery {
    worker: Option<String>,
}

/// One object a connection, as there may be very many.
pub(super) async fn connections(
    State(state): State<ControlState>,
    NamedApp(app): NamedApp,
    format: StreamFormat,
    query: Result<Query<ConnectionQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|rejection| {
        Problem::new(Code::BadRequest, rejection.body_text()).help("the query is empty, or worker=N")
    })?;
    let worker = query.worker.as_deref().map(worker_of).transpose()?;
    let connections = state.listing(Listing { app, worker }).await?;
    Ok(format.respond(stream::iter(connections)))
}

/// The query of a request for events.
#[derive(Debug, Deserialize)]
pub(super) struct EventQuery {
    app: Option<String>,
}

pub(super) async fn events(
    State(state): State<ControlState>,
    Extension(stay): Extension<Stay>,
    format: StreamFormat,
    query: Result<Query<EventQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|rejection| {
        Problem::new(Code::BadRequest, rejection.body_text()).help("the query is empty, or app=NAME")
    })?;
    let sources = match query.app.filter(|app| !app.is_empty()) {
        Some(app) => vec![source(&state.app(&app)?)],
        None => state.apps.iter().map(source).collect(),
    };
    stay.follow()?;
    Ok(format.respond(feed::events(sources)))
}

pub(super) async fn command(
    verb: Verb,
    NamedApp(app): NamedApp,
    Extension(by): Extension<Asker>,
    Extension(stay): Extension<Stay>,
    format: StreamFormat,
    CommandBody(body): CommandBody,
) -> Result<Response, Problem> {
    let command = api::command_of(verb, &body)?;
    // Subscribed before the start, the client misses nothing of it.
    let source = source(&app);
    let end = app.begin(command, by).await?;
    stay.follow_command();
    Ok(format.respond(feed::progress(source, end)))
}

/// Passes a request on to one worker, and its answer back, both as they come.
pub(super) async fn exchange(
    NamedApp(app): NamedApp,
    NamedWorker(worker): NamedWorker,
    WorkerPath(path): WorkerPath,
    Extension(stay): Extension<Stay>,
    mut request: Request,
) -> Result<Response, Problem> {
    *request.uri_mut() = path;
    let port = request.headers_mut().remove(PORT_HEADER);
    let port = port.map(|port| api::port_of(port.to_str().unwrap_or_default())).transpose()?;
    stay.follow()?;
    let mut answer = app.exchange(worker, port, request).await?;
    answer.headers_mut().insert(WORKER_HEADER, HeaderValue::from(worker.0));
    Ok(answer)
}

fn source(app: &Arc<dyn AppBackend>) -> EventSource {
    EventSource { app: app.name().to_owned(), events: app.events() }
}
