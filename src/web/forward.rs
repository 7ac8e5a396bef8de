//! `/v1` of the page: the API of every clusterd of the home, as if it were one.
//!
//! A request for one app is passed on to the clusterd that runs it, and the answer back, both as they come. What would
//! bring something of a worker's own into a browser, or tell secrets, is not passed on.

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HOST, HeaderMap};
use hyper::{Method, Uri};
use percent_encoding::percent_decode_str;

use crate::control::api::{App, Apps, Code, Problem, Refusal};
use crate::control::app_name::encoded;
use crate::control::client::{self, Clusterd, Error, Found};
use crate::control::home::Home;

/// How long the body of a request may be, in bytes: an environment is the longest.
const LONGEST_BODY: usize = 8 * 1024 * 1024;

/// What is asked for, after `/v1`.
#[derive(Debug, PartialEq, Eq)]
enum Asked<'a> {
    /// Every app.
    Apps,
    /// The same, with what passes through each.
    AppsWithTraffic,
    /// Something of the app that this word means: the rest of the path, and the query.
    OfApp { word: String, rest: &'a str, query: Option<&'a str> },
    /// Nothing that there is.
    Nothing,
    /// What is not for browsers, and why.
    Withheld(&'static str),
}

impl<'a> Asked<'a> {
    fn read(uri: &'a Uri) -> Self {
        let (path, query) = (uri.path().strip_prefix("/v1").unwrap_or_default(), uri.query());
        if path == "/apps" {
            return if query == Some("traffic=true") { Self::AppsWithTraffic } else { Self::Apps };
        }
        let Some(of_app) = path.strip_prefix("/apps/") else { return Self::Nothing };
        let (word, rest) = of_app.split_once('/').map_or((of_app, ""), |(word, rest)| (word, rest));
        if rest.starts_with("workers/") {
            return Self::Withheld("what workers answer is not shown in browsers: use clusterd curl");
        }
        if rest.is_empty() && query.is_some_and(|query| query.contains("environment")) {
            return Self::Withheld(
                "environments may hold secrets and are not shown in browsers: use clusterd env",
            );
        }
        match percent_decode_str(word).decode_utf8() {
            Ok(word) if !word.is_empty() => Self::OfApp { word: word.into_owned(), rest, query },
            _ => Self::Nothing,
        }
    }
}

/// The answer to a request whose path begins with `/v1`.
pub(super) async fn forward(home: &Home, request: Request) -> Response {
    let uri = request.uri().clone();
    let answer = match Asked::read(&uri) {
        Asked::Apps => return all(client::find(home).await),
        Asked::AppsWithTraffic => return all(client::find_with_traffic(home).await),
        Asked::OfApp { word, rest, query } => of_app(home, &word, (rest, query), request).await,
        Asked::Withheld(why) => Err(Problem::new(Code::Forbidden, why)),
        Asked::Nothing => Err(Problem::new(Code::NotFound, format!("there is no path {}", uri.path()))
            .help("paths are /v1/apps, /v1/apps/APP and what is below that")),
    };
    answer.unwrap_or_else(refused)
}

/// A refusal, as every clusterd words it.
pub(super) fn refused(problem: Problem) -> Response {
    let status = problem.code.status();
    (status, axum::Json(Refusal { error: problem })).into_response()
}

fn all(found: Found) -> Response {
    axum::Json(Apps { apps: found.apps.into_iter().map(|(_, app)| app).collect() }).into_response()
}

/// The clusterd of the app that this word means: a name, or the process id of a clusterd where several have the name.
pub(super) async fn find(home: &Home, word: &str) -> Result<(Clusterd, App), Problem> {
    let found = client::find_for(home, &[word]).await;
    let is_named = |app: &App| app.name == word;
    let mut named: Vec<_> = found.apps.iter().filter(|(_, app)| is_named(app)).collect();
    if named.is_empty() {
        named = found.apps.iter().filter(|(_, app)| word.parse() == Ok(app.pid)).collect();
    }
    match named[..] {
        [(clusterd, app)] => Ok((clusterd.clone(), app.clone())),
        [] => Err(Problem::new(Code::NotFound, format!("no app {word} is running"))),
        _ => {
            let pids: Vec<_> = named.iter().map(|(_, app)| app.pid.to_string()).collect();
            Err(Problem::new(Code::BadRequest, format!("{} apps are called {word}", named.len()))
                .help(format!("use the pid of one of their clusterds: {}", pids.join(", "))))
        }
    }
}

async fn of_app(
    home: &Home,
    word: &str,
    (rest, query): (&str, Option<&str>),
    request: Request,
) -> Result<Response, Problem> {
    let (clusterd, app) = find(home, word).await?;
    let slash = if rest.is_empty() { "" } else { "/" };
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let path = format!("/v1/apps/{}{slash}{rest}{query}", encoded(&app.name));
    let request = rewritten(request, path).await?;
    let answer = clusterd.pass_on(request).await.map_err(|error| unreachable(&error))?;
    Ok(passed_back(answer))
}

/// The same request for this path, without headers that mean nothing to a clusterd.
async fn rewritten(request: Request, path: String) -> Result<hyper::Request<Full<Bytes>>, Problem> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, LONGEST_BODY).collect().await;
    let body =
        body.map_err(|error| Problem::new(Code::BadRequest, format!("cannot read the body: {error}")))?;
    let mut rewritten = hyper::Request::builder().method(parts.method).uri(path).header(HOST, "clusterd");
    for name in [ACCEPT, CONTENT_TYPE] {
        if let Some(value) = parts.headers.get(&name) {
            rewritten = rewritten.header(name, value);
        }
    }
    rewritten
        .body(Full::new(body.to_bytes()))
        .map_err(|error| Problem::new(Code::BadRequest, format!("not a valid path: {error}")))
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
pub(super) fn no_orders() -> Response {
    refused(Problem::new(Code::Forbidden, "this page gives no orders").help("start it with --allow-actions"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_say_whose_they_are() {
        let of_app = |word: &str, rest, query| Asked::OfApp { word: word.to_owned(), rest, query };
        let table = [
            ("/v1/apps", Asked::Apps),
            ("/v1/apps?traffic=true", Asked::AppsWithTraffic),
            ("/v1/apps/web", of_app("web", "", None)),
            ("/v1/apps/w%2Feb/connections?worker=2", of_app("w/eb", "connections", Some("worker=2"))),
            ("/v1/apps/web/reload", of_app("web", "reload", None)),
            ("/v1/apps/4711/live", of_app("4711", "live", None)),
            ("/v1/apps/", Asked::Nothing),
            ("/v1/apps/%ff", Asked::Nothing),
            ("/v1/events", Asked::Nothing),
            ("/v1", Asked::Nothing),
        ];
        for (path, expected) in table {
            assert_eq!(Asked::read(&path.parse().unwrap()), expected, "{path}");
        }
        for path in [
            "/v1/apps/web/workers/1/http/",
            "/v1/apps/web?environment=true",
            "/v1/apps/w%65b?a&environment=true",
        ] {
            assert!(matches!(Asked::read(&path.parse().unwrap()), Asked::Withheld(_)), "{path}");
        }
    }
}
