//! The static file server of `clusterd serve`: a worker that answers with the files of one folder.
//!
//! It writes nothing, lists no folder, and shows nothing that lies outside its folder or has a hidden name ([`beneath`]).

mod beneath;

use std::ffi::OsString;
use std::path::{Component, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use axum::body::Body;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use constant_time_eq::constant_time_eq;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use tower::ServiceExt as _;
use tower_http::services::ServeDir;
use tower_http::services::fs::DefaultServeDirFallback;

use self::beneath::{Beneath, is_hidden};
use crate::http_worker::{self, Answer, Failure};
use crate::settings::file_server::{BASIC_AUTH, SPA};
use crate::sys::process::has_proc;

/// Where the worker finds the name, as PM2's has it.
pub(crate) const USERNAME: &str = "PM2_SERVE_BASIC_AUTH_USERNAME";
/// Where the worker finds the password, as PM2's has it: arguments are seen by everybody.
pub(crate) const PASSWORD: &str = "PM2_SERVE_BASIC_AUTH_PASSWORD";

/// Runs the file server with the arguments `FOLDER [--spa] [--basic-auth]`, and returns its exit code.
pub(crate) fn files_main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let _ = rustix::thread::set_name(c"clusterd-serve");
    http_worker::run("serve", || Files::new(arguments, &|name| std::env::var(name).ok()))
}

/// What is served, and to whom.
#[derive(Clone)]
struct Files {
    root: Beneath,
    folder: ServeDir<DefaultServeDirFallback, Beneath>,
    spa: bool,
    /// `NAME:PASSWORD`.
    credentials: Option<Arc<str>>,
}

impl Files {
    fn new(
        mut arguments: impl Iterator<Item = OsString>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Failure> {
        let folder = PathBuf::from(arguments.next().ok_or("no folder to serve")?);
        if !has_proc() {
            return Err("cannot serve files: /proc is not mounted, which tells where links lead".into());
        }
        let (mut spa, mut credentials) = (false, None);
        for argument in arguments {
            match argument.to_str() {
                Some(SPA) => spa = true,
                Some(BASIC_AUTH) => {
                    let get = |name| variable(name).ok_or_else(|| format!("{name} is not set"));
                    credentials = Some(format!("{}:{}", get(USERNAME)?, get(PASSWORD)?).into());
                }
                _ => return Err(format!("unknown argument {}", argument.display()).into()),
            }
        }
        let root =
            folder.canonicalize().map_err(|error| format!("cannot serve {}: {error}", folder.display()))?;
        let beneath = Beneath::new(&root);
        Ok(Self { folder: ServeDir::with_backend(&root, beneath.clone()), root: beneath, spa, credentials })
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(credentials) = &self.credentials else { return true };
        let said = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let encoded = said
            .and_then(|said| said.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
            .map(|(_, encoded)| encoded.trim());
        let said = encoded.and_then(|encoded| BASE64_STANDARD.decode(encoded).ok());
        said.is_some_and(|said| constant_time_eq(&said, credentials.as_bytes()))
    }
}

impl Answer for Files {
    type Body = Body;

    async fn answer(&self, mut request: Request<Incoming>) -> Response<Body> {
        if !self.admits(request.headers()) {
            let mut response = text(StatusCode::UNAUTHORIZED, "401 Unauthorized\n");
            let challenge = HeaderValue::from_static("Basic realm=\"clusterd\", charset=\"UTF-8\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            return response;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "405 Method Not Allowed\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let Some(path) = relative(request.uri().path()) else { return not_found() };
        if self.spa && wants_page(request.headers()) && !self.root.shows(path).await {
            *request.uri_mut() = Uri::from_static("/index.html");
        }
        match self.folder.clone().oneshot(request).await {
            Ok(response) if response.status() == StatusCode::NOT_FOUND => not_found(),
            Ok(response) => response.map(Body::new),
        }
    }
}

/// The file that a request's path means, relative to the folder; `None` for one that is never shown.
fn relative(path: &str) -> Option<PathBuf> {
    // Behind two slashes a redirect would lead to another host.
    if path.starts_with("//") {
        return None;
    }
    let decoded = percent_decode_str(path.strip_prefix('/')?).decode_utf8().ok()?;
    let relative = PathBuf::from(&*decoded);
    let is_shown = !decoded.contains(['\0', '\\'])
        && !decoded.starts_with('/')
        && decoded.split('/').all(|part| !is_hidden(part.as_bytes()))
        && relative.components().all(|part| matches!(part, Component::Normal(_)));
    is_shown.then_some(relative)
}

/// Whether it is a browser that goes to a page, and none that asks for a picture or data.
fn wants_page(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("text/html")
    })
}

fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 Not Found\n")
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_never_leads_out_nor_to_a_hidden_file() {
        for (path, expected) in [
            ("/", Some("")),
            ("/a/b.txt", Some("a/b.txt")),
            ("/a%20b", Some("a b")),
            ("/.env", None),
            ("/%2eenv", None),
            ("/.git/config", None),
            ("/a/../../etc/passwd", None),
            ("/%2e%2e/etc/passwd", None),
            ("/..%2fetc/passwd", None),
            ("//example.com", None),
            ("/%2fetc/passwd", None),
            ("/a%00", None),
            ("/%ff", None),
            ("*", None),
        ] {
            assert_eq!(relative(path), expected.map(PathBuf::from), "{path}");
        }
    }

    fn files(arguments: &[&str]) -> Result<Files, Failure> {
        let variable = |name: &str| match name {
            USERNAME => Some("ann".to_owned()),
            PASSWORD => Some("se:cret".to_owned()),
            _ => None,
        };
        Files::new(arguments.iter().map(OsString::from), &variable)
    }

    #[test]
    fn only_the_right_name_and_password_are_admitted() {
        let files = files(&["/", BASIC_AUTH]).unwrap();
        let admits = |said: Option<String>| {
            let said = said.map(|said| (AUTHORIZATION, HeaderValue::from_str(&said).unwrap()));
            files.admits(&said.into_iter().collect())
        };
        let encoded = |text: &str| BASE64_STANDARD.encode(text);
        assert!(admits(Some(format!("Basic {}", encoded("ann:se:cret")))));
        assert!(admits(Some(format!("basic {}", encoded("ann:se:cret")))));
        assert!(!admits(Some(format!("Basic {}", encoded("ann:secret")))));
        assert!(!admits(Some(format!("Bearer {}", encoded("ann:se:cret")))));
        assert!(!admits(Some("Basic".to_owned())));
        assert!(!admits(None));
    }

    #[test]
    fn a_server_that_lacks_its_password_does_not_start() {
        let arguments = ["/", BASIC_AUTH].map(OsString::from);
        assert!(Files::new(arguments.into_iter(), &|_| None).is_err());
        assert!(files(&["/", "--other"]).is_err());
    }
}
