//! The page of one app at its `--metrics`: read only, and without a token.
//!
//! Who is on the machine sees the app as it is; where others can see it, it shows no more than `/metrics` does.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::{Stream, StreamExt, stream};
use hyper::StatusCode;

use super::feed::{self, Greeting};
use super::restricted::{Seen, of};
use super::server::host_name;
use super::{origin, page};
use crate::control::api::Live;
use crate::control::backend::AppBackend;
use crate::control::live::live;
use crate::control::routes;
use crate::control::snapshots::Snapshots;
use crate::http::stay::{AllTaken, Stay};

/// The app, and what others may see of it.
#[derive(Clone)]
pub(crate) struct OwnPage {
    app: Arc<dyn AppBackend>,
    snapshots: Snapshots,
    listener: SocketAddr,
}

impl OwnPage {
    /// Of this app, for those who reach this listener.
    pub(crate) fn new(app: Arc<dyn AppBackend>, listener: SocketAddr) -> Self {
        Self { app, snapshots: Snapshots::new(), listener }
    }

    fn seen(&self) -> Seen {
        if self.listener.ip().to_canonical().is_loopback() { Seen::OnTheMachine } else { Seen::Elsewhere }
    }

    fn events(&self) -> impl Stream<Item = Bytes> + Send + use<> {
        let seen = self.seen();
        let is_near = seen == Seen::OnTheMachine;
        let greeting = Greeting {
            version: env!("CARGO_PKG_VERSION"),
            host: is_near.then(host_name),
            user: None,
            actions: false,
            // Other users of the machine can ask, too, and logs are this user's.
            logs: false,
            connections: is_near,
            token: false,
        };
        let told = live(Arc::clone(&self.app), self.snapshots.clone());
        let told = told.filter_map(move |told| std::future::ready(of(told, seen)));
        stream::once(async move { greeting.event() }).chain(told.map(|told| event(&told)))
    }
}

fn event(told: &Live) -> Bytes {
    let mut piece = Vec::new();
    feed::write(&mut piece, &serde_json::to_string(told).expect("plain structures can be written"));
    piece.into()
}

/// The page and what it asks for. Its requests need a [`Stay`] among their extensions.
pub(crate) fn router(own: OwnPage) -> Router {
    let live = Router::new().route("/live", get(follow)).with_state(own.clone());
    let data = match own.seen() {
        Seen::OnTheMachine => live.merge(routes::connections(Arc::clone(&own.app))),
        Seen::Elsewhere => live,
    };
    let data = data.layer(middleware::from_fn_with_state(own, admit));
    page::router().merge(data).layer(middleware::map_response(async |answer: Response| page::guarded(answer)))
}

async fn admit(State(own): State<OwnPage>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    match origin::check_host(headers, own.listener).and_then(|()| origin::check_site(headers)) {
        Ok(()) => next.run(request).await,
        Err(foreign) => (StatusCode::FORBIDDEN, format!("{foreign}\n")).into_response(),
    }
}

async fn follow(State(own): State<OwnPage>, Extension(stay): Extension<Stay>) -> Response {
    match stay.follow() {
        Ok(()) => feed::respond(own.events()),
        Err(AllTaken(most)) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{most} pages are open already\n")).into_response()
        }
    }
}
