//! The routes of `clusterd web`: which path leads where, and who is answered.
//!
//! It knows no sockets.

use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Extension, Router};
use hyper::StatusCode;
use hyper::header::{ALLOW, WWW_AUTHENTICATE};
use serde::Deserialize;

use super::feed::{self, Greeting};
use super::hub::Hub;
use super::token::Token;
use super::{forward, log, origin, page};
use crate::control::api::{Code, Problem};
use crate::control::home::Home;
use crate::home::app_log::AppLog;
use crate::http::stay::{AllTaken, Stay};

/// What the routes share.
#[derive(Clone)]
pub(super) struct WebState(Arc<Inner>);

struct Inner {
    home: Home,
    hub: Hub,
    token: Token,
    greeting: Greeting,
}

impl WebState {
    pub(super) fn new(home: Home, token: Token, greeting: Greeting) -> Self {
        let hub = Hub::start(home.clone());
        Self(Arc::new(Inner { home, hub, token, greeting }))
    }
}

/// Builds the router. Its requests need a [`Stay`] among their extensions.
pub(super) fn router(state: WebState) -> Router {
    let data = Router::new()
        .route("/live", get(live))
        .route("/log", get(follow_log))
        .route("/v1/{*path}", any(api))
        .layer(middleware::from_fn_with_state(state.clone(), admit));
    page::router()
        .merge(data)
        .method_not_allowed_fallback(async || {
            (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "GET, HEAD")], "use GET\n")
        })
        .fallback(async || (StatusCode::NOT_FOUND, "not found: the page is /, and the API begins with /v1\n"))
        .layer(middleware::map_response(async |answer: Response| page::guarded(answer)))
        .with_state(state)
}

/// Who may see what is not part of the page itself, and who may give orders.
async fn admit(State(state): State<WebState>, request: Request, next: Next) -> Response {
    let Inner { token, greeting, .. } = &*state.0;
    if !token.is_in(request.headers()) {
        let problem = Problem::new(Code::Forbidden, "the token is missing or wrong")
            .help("open the address that clusterd web has printed, or send Authorization: Bearer TOKEN");
        let mut answer = forward::refused(problem);
        *answer.status_mut() = StatusCode::UNAUTHORIZED;
        return ([(WWW_AUTHENTICATE, "Bearer")], answer).into_response();
    }
    if let Err(foreign) = origin::check_site(request.headers()) {
        return forward::refused(Problem::new(Code::Forbidden, foreign.to_string()));
    }
    if forward::is_order(request.method()) && !greeting.actions {
        return forward::no_orders();
    }
    next.run(request).await
}

async fn live(State(state): State<WebState>, Extension(stay): Extension<Stay>) -> Response {
    match stay.follow() {
        Ok(()) => feed::respond(feed::of_home(state.0.hub.clone(), &state.0.greeting)),
        Err(taken) => too_many(taken),
    }
}

/// Of which app the log is.
#[derive(Debug, Deserialize)]
struct LogQuery {
    name: Option<String>,
    pid: Option<u32>,
}

async fn follow_log(
    State(state): State<WebState>,
    Extension(stay): Extension<Stay>,
    query: Result<Query<LogQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let name = match query.map(|Query(query)| query) {
        Ok(LogQuery { name: Some(name), pid: None }) => Ok(name),
        Ok(LogQuery { name: None, pid: Some(pid) }) => {
            forward::find(&state.0.home, &pid.to_string()).await.map(|(_, app)| app.name)
        }
        _ => Err(Problem::new(Code::BadRequest, "it is not clear whose log is meant")
            .help("use name=APP or pid=PID")),
    };
    let log = name.and_then(|name| {
        let none = || Problem::new(Code::NotFound, format!("the app {name} writes no log files"));
        AppLog::open(&name).ok_or_else(none)
    });
    match (log, stay.follow()) {
        (Err(problem), _) => forward::refused(problem),
        (_, Err(taken)) => too_many(taken),
        (Ok(log), Ok(())) => feed::respond(log::follow(log)),
    }
}

async fn api(State(state): State<WebState>, Extension(stay): Extension<Stay>, request: Request) -> Response {
    let follows = request.uri().path().ends_with("/live");
    if follows && let Err(taken) = stay.follow() {
        return too_many(taken);
    }
    if forward::is_order(request.method()) {
        stay.follow_command();
    }
    forward::forward(&state.0.home, request).await
}

fn too_many(AllTaken(most): AllTaken) -> Response {
    let problem = Problem::new(Code::Overloaded, format!("{most} pages and logs are open already"));
    forward::refused(problem.help("close some of them"))
}
