//! `/v1` of the page: the API of every clusterd of the home, as if it were one.
//!
//! A request for one app is passed on to the clusterd that runs it, and the answer back, both as they come. What is passed on
//! is named here, one by one: environments hold secrets, whoever sets one runs programs, and what a worker answers would
//! be this page's own in a browser.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HOST, HeaderMap};
use hyper::{Method, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use tokio::time::timeout;

use crate::control::api::{App, Apps, Code, Problem, Verb};
use crate::control::app_name::encoded;
use crate::control::client::{self, Clusterd, Error, Found};
use crate::control::home::Home;
use crate::http::stay::{AllTaken, Stay};

/// How long the body of a request may be, in bytes.
const LONGEST_BODY: usize = 4 * 1024;

/// How long a client may take to send it.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// The orders that a page may give.
const ORDERS: [Verb; 5] = [Verb::Reload, Verb::Restart, Verb::Scale, Verb::Stop, Verb::Start];

/// What is asked for, after `/v1`.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// Every app, with what passes through each or not.
    Apps { with_traffic: bool },
    /// Something of the app that this word means.
    OfApp(String, OfApp),
    /// Nothing that there is here.
    Nothing,
}

/// What there is of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
enum OfApp {
    /// Its state.
    State,
    /// The same as it changes.
    Live,
    /// Its open connections, or those of one worker.
    Connections { worker: Option<u32> },
    /// An order to it.
    Order(Verb),
}

impl Asked {
    fn read(uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        let path = uri.path().strip_prefix("/v1").unwrap_or_default();
        if path == "/apps" {
            return Self::Apps { with_traffic: query == "traffic=true" };
        }
        let Some(of_app) = path.strip_prefix("/apps/") else { return Self::Nothing };
        let (word, rest) = of_app.split_once('/').map_or((of_app, ""), |(word, rest)| (word, rest));
        let asked = match rest {
            "" if word == of_app => OfApp::State,
            "live" => OfApp::Live,
            "connections" => {
                OfApp::Connections { worker: query.strip_prefix("worker=").and_then(|n| n.parse().ok()) }
            }
            verb => match ORDERS.into_iter().find(|order| order.name() == verb) {
                Some(order) => OfApp::Order(order),
                None => return Self::Nothing,
            },
        };
        match percent_decode_str(word).decode_utf8() {
            Ok(word) if !word.is_empty() => Self::OfApp(word.into_owned(), asked),
            _ => Self::Nothing,
        }
    }

    /// The methods that it takes.
    fn methods(&self) -> &'static str {
        match self {
            Self::OfApp(_, OfApp::Order(_)) => "POST, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        }
    }
}

impl OfApp {
    /// The path of the control socket.
    fn path(&self, app: &str) -> String {
        let app = encoded(app);
        match self {
            Self::State => format!("/v1/apps/{app}"),
            Self::Live => format!("/v1/apps/{app}/live"),
            Self::Connections { worker: None } => format!("/v1/apps/{app}/connections"),
            Self::Connections { worker: Some(worker) } => {
                format!("/v1/apps/{app}/connections?worker={worker}")
            }
            Self::Order(verb) => format!("/v1/apps/{app}/{}", verb.name()),
        }
    }
}

/// The answer to a request whose path begins with `/v1`.
pub(super) async fn forward(home: &Home, stay: &Stay, request: Request) -> Response {
    let asked = Asked::read(request.uri());
    let (method, methods) = (request.method(), asked.methods());
    if asked != Asked::Nothing && !methods.split(", ").any(|known| known == method.as_str()) {
        let problem =
            Problem::new(Code::MethodNotAllowed, format!("{} does not take {method}", request.uri().path()));
        return ([(ALLOW, methods)], problem.help(format!("use {methods}"))).into_response();
    }
    if asked != Asked::Nothing && method == Method::OPTIONS {
        return (StatusCode::NO_CONTENT, [(ALLOW, methods)]).into_response();
    }
    let answer = match asked {
        Asked::Apps { with_traffic: false } => return all(client::find(home).await),
        Asked::Apps { with_traffic: true } => return all(client::find_with_traffic(home).await),
        Asked::OfApp(word, what) => of_app(home, (&word, &what), stay, request).await,
        Asked::Nothing => {
            let problem =
                Problem::new(Code::NotFound, format!("there is no path {} here", request.uri().path()));
            Err(problem.help("docs/api.md lists them; environments and answers of workers are for clusterd env and clusterd curl"))
        }
    };
    answer.unwrap_or_else(IntoResponse::into_response)
}

/// Why nothing more can be followed.
pub(super) fn too_many(AllTaken(most): AllTaken) -> Problem {
    Problem::new(Code::Overloaded, format!("{most} pages and logs are open already"))
        .help("close some of them")
}

fn all(found: Found) -> Response {
    let errors = found.errors.iter().map(ToString::to_string).collect();
    axum::Json(Apps { apps: found.apps.into_iter().map(|(_, app)| app).collect(), errors }).into_response()
}

/// The clusterd of the app that this word means: a name, or the process id of a clusterd where several have the name.
pub(super) async fn find(home: &Home, word: &str) -> Result<(Clusterd, App), Problem> {
    let of_name = client::find_of_name(home, word).await;
    if !of_name.apps.is_empty() || !of_name.is_certain() || word.parse::<u32>().is_err() {
        return choose(of_name, word, |app| app.name == word);
    }
    choose(client::find(home).await, word, |app| word.parse() == Ok(app.pid))
}

/// The only one that is meant. Where none is, one that does not answer may be.
fn choose(found: Found, word: &str, is_meant: impl Fn(&App) -> bool) -> Result<(Clusterd, App), Problem> {
    let mut meant: Vec<_> = found.apps.into_iter().filter(|(_, app)| is_meant(app)).collect();
    if meant.len() > 1 {
        let pids: Vec<_> = meant.iter().map(|(_, app)| app.pid.to_string()).collect();
        return Err(Problem::new(Code::BadRequest, format!("{} apps are called {word}", meant.len()))
            .help(format!("use the pid of one of their clusterds: {}", pids.join(", "))));
    }
    let silent = found.errors.iter().find(|error| !matches!(error, Error::Stranger { .. }));
    match (meant.pop(), silent) {
        (Some(one), _) => Ok(one),
        (None, Some(error)) => Err(unreachable(error)),
        (None, None) => Err(Problem::new(Code::NotFound, format!("no app {word} is running"))),
    }
}

async fn of_app(
    home: &Home,
    (word, what): (&str, &OfApp),
    stay: &Stay,
    request: Request,
) -> Result<Response, Problem> {
    let (clusterd, app) = find(home, word).await?;
    let request = rewritten(request, what.path(&app.name)).await?;
    match what {
        OfApp::Order(_) => stay.follow_command(),
        OfApp::Live => stay.follow().map_err(too_many)?,
        OfApp::State | OfApp::Connections { .. } => {}
    }
    let answer = clusterd.pass_on(request).await.map_err(|error| unreachable(&error))?;
    Ok(passed_back(answer))
}

/// The same request for this path, without headers that mean nothing to a clusterd.
async fn rewritten(request: Request, path: String) -> Result<hyper::Request<Full<Bytes>>, Problem> {
    let (parts, body) = request.into_parts();
    let body = timeout(BODY_TIMEOUT, Limited::new(body, LONGEST_BODY).collect()).await.map_err(|_| {
        Problem::new(Code::BadRequest, format!("the body did not arrive within {BODY_TIMEOUT:?}"))
    })?;
    let body = body
        .map_err(|error| Problem::new(Code::BadRequest, format!("cannot read the body: {error}")))?
        .to_bytes();
    check_body(&body)?;
    let mut rewritten = hyper::Request::builder().method(parts.method).uri(path).header(HOST, "clusterd");
    for name in [ACCEPT, CONTENT_TYPE] {
        if let Some(value) = parts.headers.get(&name) {
            rewritten = rewritten.header(name, value);
        }
    }
    rewritten
        .body(Full::new(body))
        .map_err(|error| Problem::new(Code::BadRequest, format!("not a valid path: {error}")))
}

/// Whoever sets the environment of workers runs programs of their own in them.
fn check_body(body: &[u8]) -> Result<(), Problem> {
    let has_environment =
        serde_json::from_slice::<serde_json::Value>(body).is_ok_and(|body| body.get("environment").is_some());
    match has_environment {
        false => Ok(()),
        true => Err(Problem::new(Code::Forbidden, "environments are not taken from browsers")
            .help("use the command, which takes that of its terminal: clusterd reload --update-env")),
    }
}

/// With the type of its body, and nothing else that might mean something to a browser.
fn passed_back(answer: hyper::Response<Incoming>) -> Response {
    let (parts, body) = answer.into_parts();
    let kept = [CONTENT_TYPE, ALLOW].into_iter();
    let headers: HeaderMap =
        kept.filter_map(|name| Some((name.clone(), parts.headers.get(name)?.clone()))).collect();
    let body = Body::from_stream(body.into_data_stream().map_err(std::io::Error::other));
    (parts.status, headers, body).into_response()
}

fn unreachable(error: &Error) -> Problem {
    Problem::new(Code::Unreachable, error.to_string())
}

/// Whether a request may change something.
pub(super) fn is_order(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// The answer to an order where none are taken.
pub(super) fn no_orders() -> Problem {
    Problem::new(Code::Forbidden, "this page gives no orders").help("start it with --allow-actions")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_say_whose_they_are() {
        let of_app = |word: &str, what| Asked::OfApp(word.to_owned(), what);
        let table = [
            ("/v1/apps", Asked::Apps { with_traffic: false }),
            ("/v1/apps?traffic=true", Asked::Apps { with_traffic: true }),
            ("/v1/apps/web", of_app("web", OfApp::State)),
            ("/v1/apps/w%2Feb/connections?worker=2", of_app("w/eb", OfApp::Connections { worker: Some(2) })),
            ("/v1/apps/web/connections", of_app("web", OfApp::Connections { worker: None })),
            ("/v1/apps/web/reload", of_app("web", OfApp::Order(Verb::Reload))),
            ("/v1/apps/4711/live", of_app("4711", OfApp::Live)),
        ];
        for (path, expected) in table {
            assert_eq!(Asked::read(&path.parse().unwrap()), expected, "{path}");
        }
        for path in [
            "/v1",
            "/v1/events",
            "/v1/apps/",
            "/v1/apps//",
            "/v1/apps/%ff",
            "/v1/apps/web/",
            "/v1/apps/web/LIVE",
        ] {
            assert_eq!(Asked::read(&path.parse().unwrap()), Asked::Nothing, "{path}");
        }
    }

    #[test]
    fn what_is_not_for_browsers_is_not_passed_on() {
        for path in [
            "/v1/apps/web/workers/1/http/",
            "/v1/apps/web/%77orkers/1/http/",
            "/v1/apps/web/./workers/1/http/",
            "/v1/apps/web/signal",
            "/v1/apps/web/reset",
            "/v1/apps/web/live/../../web",
        ] {
            assert_eq!(Asked::read(&path.parse().unwrap()), Asked::Nothing, "{path}");
        }
        for query in ["environment=true", "%65nvironment=true", "a=1&environment=true"] {
            let Asked::OfApp(word, what) = Asked::read(&format!("/v1/apps/web?{query}").parse().unwrap())
            else {
                panic!("{query}");
            };
            assert_eq!(what.path(&word), "/v1/apps/web", "no query is passed on: {query}");
        }
        let worker = "/v1/apps/web/connections?worker=1&environment=true".parse().unwrap();
        assert_eq!(Asked::read(&worker), Asked::OfApp("web".to_owned(), OfApp::Connections { worker: None }));
        for (body, is_taken) in [
            ("", true),
            ("{}", true),
            (r#"{"worker":2}"#, true),
            ("[", true),
            (r#"{"environment":[]}"#, false),
            (r#"{"\u0065nvironment":["A=b"]}"#, false),
        ] {
            assert_eq!(check_body(body.as_bytes()).is_ok(), is_taken, "{body}");
        }
    }
}
