//! What each request at the control socket is answered: the routes, and the limits on looking.
//!
//! It knows no sockets. What the paths and bodies are is in [`api`](super::api).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use tokio::time::timeout;
use tower::{BoxError, ServiceExt};

use super::api::{self, App, Apps, Code, LINES, PORT_HEADER, Problem, Refusal, Route, Verb, WORKER_HEADER};
use super::app::{Controlled, Streamed};
use super::feed::{self, Source};
use crate::http::{self, Bounded};
use crate::ids::Slot;
use crate::supervisor::events::Asker;

/// How many looks may be under way at once; further ones are refused.
const LOOKS: usize = 16;

/// How long a look may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the body of a command may be, in bytes.
const LONGEST_BODY: usize = 4 * 1024;

/// How long a client may take to send it.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// An answer, whose body may go on for long.
pub(super) type Answer = Response<Streamed>;

/// Answers requests. Clones answer for the same apps, and share the limits.
pub(super) struct Answers<A> {
    apps: Arc<[Arc<A>]>,
    look: Bounded<Arc<A>, App>,
}

impl<A> Clone for Answers<A> {
    fn clone(&self) -> Self {
        Self { apps: Arc::clone(&self.apps), look: self.look.clone() }
    }
}

impl<A: Controlled> Answers<A> {
    pub(super) fn new(apps: Vec<Arc<A>>) -> Self {
        let look = |app: Arc<A>| async move { Ok(tokio::task::spawn_blocking(move || app.look()).await?) };
        Self { apps: apps.into(), look: http::bounded(LOOKS, LOOK_TIMEOUT, look) }
    }

    /// The answer to one request, by this client.
    pub(super) async fn answer<B>(self, request: Request<B>, by: Asker) -> Result<Answer, Infallible>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Ok(self.find(request, by).await.unwrap_or_else(refuse))
    }

    async fn find<B>(&self, request: Request<B>, by: Asker) -> Result<Answer, Problem>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let uri = request.uri();
        let route = Route::parse(uri.path(), uri.query()).ok_or_else(|| {
            let (path, version) = (uri.path(), env!("CARGO_PKG_VERSION"));
            Problem::new(Code::NotFound, format!("clusterd {version} knows no {path}"))
        })?;
        let methods = route.methods();
        if !methods.is_empty() && !methods.contains(request.method()) {
            return Ok(method_not_allowed(&route));
        }
        match route {
            Route::Apps => self.all().await,
            Route::App(app) => Ok(json(StatusCode::OK, &self.look(self.app(&app)?).await?)),
            Route::Events(None) => Ok(lines(feed::events(self.apps.iter().map(source).collect()))),
            Route::Events(Some(app)) => Ok(lines(feed::events(vec![source(&self.app(&app)?)]))),
            Route::Command(app, verb) => command(self.app(&app)?, verb, request, by).await,
            Route::Exchange { app, worker, path } => exchange(self.app(&app)?, worker, &path, request).await,
        }
    }

    async fn all(&self) -> Result<Answer, Problem> {
        let mut apps = Vec::new();
        for app in self.apps.iter() {
            let mut app = self.look(Arc::clone(app)).await?;
            app.workers.iter_mut().for_each(|worker| worker.last_lines.clear());
            apps.push(app);
        }
        Ok(json(StatusCode::OK, &Apps { apps }))
    }

    fn app(&self, name: &str) -> Result<Arc<A>, Problem> {
        self.apps.iter().find(|app| app.name() == name).cloned().ok_or_else(|| {
            let known: Vec<_> = self.apps.iter().map(|app| app.name()).collect();
            Problem::new(Code::NotFound, format!("there is no app {name}"))
                .help(format!("there is {}", known.join(", ")))
        })
    }

    async fn look(&self, app: Arc<A>) -> Result<App, Problem> {
        self.look.clone().oneshot(app).await.map_err(|error| {
            if error.is::<tower::load_shed::error::Overloaded>() {
                Problem::new(Code::Overloaded, format!("{LOOKS} clients are looking"))
            } else {
                Problem::new(Code::Overloaded, format!("cannot look at the workers: {error}"))
            }
        })
    }
}

async fn command<A, B>(app: Arc<A>, verb: Verb, request: Request<B>, by: Asker) -> Result<Answer, Problem>
where
    A: Controlled,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let command = api::command_of(verb, &body(request).await?)?;
    // Whoever follows from before the start misses nothing of it.
    let source = source(&app);
    let end = app.begin(command, by).await?;
    Ok(lines(feed::progress(source, end)))
}

/// Passes a request on to one worker, and its answer back, both as they come.
async fn exchange<A, B>(app: Arc<A>, worker: Slot, path: &str, request: Request<B>) -> Result<Answer, Problem>
where
    A: Controlled,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let mut request = request.map(|body| body.map_err(Into::into).boxed_unsync());
    *request.uri_mut() = path
        .parse()
        .map_err(|error| Problem::new(Code::BadRequest, format!("{path}: not a path to ask for: {error}")))?;
    let port = request.headers_mut().remove(PORT_HEADER);
    let port = port.map(|port| api::port_of(port.to_str().unwrap_or_default())).transpose()?;
    let mut answer = app.exchange(worker, port, request).await?;
    answer.headers_mut().insert(WORKER_HEADER, HeaderValue::from(worker.0));
    Ok(answer)
}

async fn body<B>(request: Request<B>) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let wrong = |message| Problem::new(Code::BadRequest, message);
    match timeout(BODY_TIMEOUT, Limited::new(request.into_body(), LONGEST_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(wrong(format!("the body is longer than {LONGEST_BODY} bytes")))
        }
        Ok(Err(error)) => Err(wrong(format!("the body cannot be read: {error}"))),
        Err(_) => Err(wrong(format!("the body did not come in {BODY_TIMEOUT:?}"))),
    }
}

fn source(app: &Arc<impl Controlled>) -> Source {
    Source { app: app.name().to_owned(), events: app.events() }
}

/// The answer to a request that is not carried out.
pub(super) fn refuse(problem: Problem) -> Answer {
    json(problem.code.status(), &Refusal { error: problem })
}

fn method_not_allowed(route: &Route) -> Answer {
    let methods: Vec<_> = route.methods().iter().map(|method| method.as_str()).collect();
    let methods = methods.join(", ");
    let problem = Problem::new(Code::MethodNotAllowed, format!("{route} is asked with {methods}"));
    let mut answer = refuse(problem);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_str(&methods).expect("methods are plain text"));
    answer
}

fn json(status: StatusCode, object: &impl Serialize) -> Answer {
    let mut text = serde_json::to_vec(object).expect("plain structures can be written");
    text.push(b'\n');
    let mut answer = Response::new(boxed(Full::from(text)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn lines(body: impl Body<Data = Bytes, Error = Infallible> + Send + 'static) -> Answer {
    let mut answer = Response::new(boxed(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(LINES));
    answer
}

fn boxed(body: impl Body<Data = Bytes, Error = Infallible> + Send + 'static) -> Streamed {
    body.map_err(|never| match never {}).boxed_unsync()
}
