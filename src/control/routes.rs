//! The routes of the control socket: which path and method leads to which handler.
//!
//! The paths that the client asks for are in [`api`](super::api).

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request};
use axum::handler::Handler;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post};
use axum::{Extension, Router};
use hyper::header::ALLOW;
use hyper::{Method, StatusCode, Uri};

use super::api::{Code, Problem, Verb};
use super::backend::AppBackend;
use super::extract::LongestBody;
use super::handlers::{self, ControlState};

/// Builds the router. Its requests need an [`Asker`](crate::supervisor::events::Asker) and a
/// [`Stay`](crate::http::stay::Stay) among their extensions.
pub(super) fn router(state: ControlState) -> Router {
    let router = Router::new()
        .route("/v1/apps", read(handlers::list))
        .route("/v1/apps/{app}", read(handlers::show))
        .route("/v1/apps/{app}/connections", read(handlers::connections))
        .route("/v1/apps/{app}/live", read(handlers::live))
        .route("/v1/events", read(handlers::events))
        .route("/v1/apps/{app}/workers/{worker}/http/", any(handlers::exchange))
        .route("/v1/apps/{app}/workers/{worker}/http/{*path}", any(handlers::exchange));
    let router = Verb::ALL.into_iter().fold(router, |router, verb| {
        router.route(&format!("/v1/apps/{{app}}/{}", verb.name()), command(verb))
    });
    router.fallback(no_such_path).with_state(state)
}

/// The open connections of this app, for a page that shows nothing of others: the same path, and no other.
pub(crate) fn connections(app: Arc<dyn AppBackend>) -> Router {
    let path = "/v1/apps/{app}/connections";
    Router::new().route(path, read(handlers::connections)).with_state(ControlState::new(vec![app]))
}

fn read<H: Handler<T, ControlState>, T: 'static>(handler: H) -> MethodRouter<ControlState> {
    get(handler).fallback(|request: Request| other_method(request, "GET, HEAD, OPTIONS"))
}

fn command(verb: Verb) -> MethodRouter<ControlState> {
    let handler = move |app, by, stay, format, body| handlers::command(verb, app, by, stay, format, body);
    let longest = LongestBody::of(verb);
    post(handler)
        .layer::<_, Infallible>(Extension(longest))
        .layer(DefaultBodyLimit::max(longest.0))
        .fallback(|request: Request| other_method(request, "POST, OPTIONS"))
}

async fn other_method(request: Request, methods: &'static str) -> Response {
    let allow = [(ALLOW, methods)];
    let (method, path) = (request.method(), request.uri().path());
    match *method {
        Method::OPTIONS => (StatusCode::NO_CONTENT, allow).into_response(),
        _ => {
            let problem = Problem::new(Code::MethodNotAllowed, format!("{path} does not take {method}"));
            (allow, problem.help(format!("use {methods}"))).into_response()
        }
    }
}

async fn no_such_path(uri: Uri) -> Problem {
    let (path, version) = (uri.path(), env!("CARGO_PKG_VERSION"));
    Problem::new(Code::NotFound, format!("clusterd {version} has no path {path}"))
        .help("paths begin with /v1/apps or are /v1/events")
}

#[cfg(test)]
mod tests;
