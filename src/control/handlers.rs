//! What each request is answered, and the limits on reading the state of the workers.
//!
//! It knows no sockets and no paths.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::response::Response;
use futures_util::{StreamExt, stream};
use hyper::header::HeaderValue;
use serde::Deserialize;
use tower::ServiceExt;

use super::api::{self, App, Apps, Code, Connection, PORT_HEADER, Problem, Verb, WORKER_HEADER};
use super::backend::{AppBackend, Detail};
use super::extract::{CommandBody, NamedApp, NamedWorker, StreamFormat, WorkerPath, worker_of};
use super::feed::{self, EventSource};
use super::live;
use super::respond::Json;
use super::snapshots::{Snapshots, overloaded};
use crate::http::stay::{AllTaken, Stay};
use crate::http::{self, Bounded};
use crate::ids::Slot;
use crate::supervisor::events::{Asker, Event};

/// How many requests for connections may be under way at once; further ones are refused.
const LISTINGS: usize = 4;

/// How long the kernel may take to list them.
const LISTING_TIMEOUT: Duration = Duration::from_secs(5);

/// The connections of an app, or of one of its workers.
struct Listing {
    app: Arc<dyn AppBackend>,
    worker: Option<Slot>,
}

/// The apps, and how their state is read. Clones share the limits.
#[derive(Clone)]
pub(super) struct ControlState {
    apps: Arc<[Arc<dyn AppBackend>]>,
    snapshots: Snapshots,
    listings: Bounded<Listing, Result<Vec<Connection>, Problem>>,
}

impl ControlState {
    pub(super) fn new(apps: Vec<Arc<dyn AppBackend>>) -> Self {
        let listing = |Listing { app, worker }| async move { Ok(app.connections(worker).await) };
        Self {
            apps: apps.into(),
            snapshots: Snapshots::new(),
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

    async fn listing(&self, listing: Listing) -> Result<Vec<Connection>, Problem> {
        let connections = self.listings.clone().oneshot(listing).await;
        connections.map_err(|error| overloaded(&error, LISTINGS, "the connections"))?
    }
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
    let mut apps = Vec::new();
    for app in &*state.apps {
        apps.push(match traffic {
            true => state.snapshots.take_with_traffic(app).await?,
            false => state.snapshots.take(app, Detail::Brief).await?,
        });
    }
    Ok(Json(Apps { apps, errors: Vec::new() }))
}

/// The query of a request for an app.
#[derive(Debug, Deserialize)]
pub(super) struct AppQuery {
    #[serde(default)]
    environment: bool,
}

pub(super) async fn show(
    State(state): State<ControlState>,
    NamedApp(app): NamedApp,
    query: Result<Query<AppQuery>, QueryRejection>,
) -> Result<Json<App>, Problem> {
    let Query(AppQuery { environment }) = query.map_err(|rejection| {
        Problem::new(Code::BadRequest, rejection.body_text()).help("the query is empty, or environment=true")
    })?;
    let detail = if environment { Detail::WithEnvironment } else { Detail::Full };
    state.snapshots.take(&app, detail).await.map(Json)
}

/// As long as the client likes.
pub(super) async fn live(
    State(state): State<ControlState>,
    NamedApp(app): NamedApp,
    Extension(stay): Extension<Stay>,
    format: StreamFormat,
) -> Result<Response, Problem> {
    stay.follow().map_err(all_taken)?;
    Ok(format.respond(live::live(app, state.snapshots)))
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
    #[serde(default)]
    past: bool,
}

pub(super) async fn events(
    State(state): State<ControlState>,
    Extension(stay): Extension<Stay>,
    format: StreamFormat,
    query: Result<Query<EventQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|rejection| {
        Problem::new(Code::BadRequest, rejection.body_text())
            .help("the query is empty, or has app=NAME or past=true")
    })?;
    let apps = match query.app.filter(|app| !app.is_empty()) {
        Some(app) => vec![state.app(&app)?],
        None => state.apps.to_vec(),
    };
    stay.follow().map_err(all_taken)?;
    let (past, sources): (Vec<_>, Vec<_>) = apps.iter().map(source_with_past).unzip();
    let mut past: Vec<_> = past.into_iter().flatten().filter(|_| query.past).collect();
    past.sort_by_key(|event| event.time);
    Ok(format.respond(stream::iter(past).chain(feed::events(sources))))
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
    stay.follow().map_err(all_taken)?;
    let mut answer = app.exchange(worker, port, request).await?;
    answer.headers_mut().insert(WORKER_HEADER, HeaderValue::from(worker.0));
    Ok(answer)
}

fn all_taken(AllTaken(most): AllTaken) -> Problem {
    Problem::new(Code::Overloaded, format!("{most} clients follow events or answers of workers already"))
        .help("close some of them (clusterd events, clusterd curl, clusterd web)")
}

fn source_with_past(app: &Arc<dyn AppBackend>) -> (Vec<Event>, EventSource) {
    let (past, events) = app.events_with_past();
    (past, EventSource { app: app.name().to_owned(), events })
}

fn source(app: &Arc<dyn AppBackend>) -> EventSource {
    EventSource { app: app.name().to_owned(), events: app.events() }
}
