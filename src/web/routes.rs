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
use crate::http::stay::Stay;

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
        let problem = Problem::new(Code::Unauthorized, "the token is missing or wrong")
            .help("open the address that clusterd web has printed, or send Authorization: Bearer TOKEN");
        return ([(WWW_AUTHENTICATE, "Bearer")], problem).into_response();
    }
    if let Err(foreign) = origin::check_site(request.headers()) {
        let help = "a proxy has to pass on the Host that the browser asks for";
        return Problem::new(Code::Forbidden, foreign.to_string()).help(help).into_response();
    }
    if forward::is_order(request.method()) && !greeting.actions {
        return forward::no_orders().into_response();
    }
    next.run(request).await
}

async fn live(State(state): State<WebState>, Extension(stay): Extension<Stay>) -> Response {
    match stay.follow() {
        Ok(()) => feed::respond(feed::of_home(state.0.hub.clone(), &state.0.greeting)),
        Err(taken) => forward::too_many(taken).into_response(),
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
        (Err(problem), _) => problem.into_response(),
        (_, Err(taken)) => forward::too_many(taken).into_response(),
        (Ok(log), Ok(())) => feed::respond(log::follow(log)),
    }
}

async fn api(State(state): State<WebState>, Extension(stay): Extension<Stay>, request: Request) -> Response {
    forward::forward(&state.0.home, &stay, request).await
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt;
    use hyper::header::AUTHORIZATION;
    use tower::ServiceExt;

    use super::*;
    use crate::http::stay::Followers;

    const SECRET: &str = "0123456789abcdef";

    /// Of a home in which no app runs; the folder is removed when dropped.
    struct Served {
        router: Router,
        _folder: tempfile::TempDir,
    }

    impl Served {
        fn new(actions: bool, places: usize) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let greeting = Greeting {
                version: "0",
                host: None,
                user: None,
                actions,
                logs: true,
                connections: true,
                token: true,
            };
            let state = WebState::new(Home::named(folder.path()), Token::given(SECRET).unwrap(), greeting);
            let stay = Followers::new(places).client();
            Self { router: router(state).layer(Extension(stay)), _folder: folder }
        }

        async fn ask(&self, request: &str, headers: &[(&str, &str)]) -> Response {
            let (method, path) = request.split_once(' ').unwrap();
            let mut asked = Request::builder().method(method).uri(path);
            for (name, value) in headers {
                asked = asked.header(*name, *value);
            }
            self.router.clone().oneshot(asked.body(Body::empty()).unwrap()).await.unwrap()
        }
    }

    fn bearer() -> (&'static str, &'static str) {
        (AUTHORIZATION.as_str(), "Bearer 0123456789abcdef")
    }

    #[tokio::test]
    async fn who_has_no_token_gets_the_page_and_nothing_in_it() {
        let served = Served::new(true, 9);
        let wrong = (AUTHORIZATION.as_str(), "Bearer 0123456789abcdee");
        for (request, status) in [
            ("GET /", 200),
            ("HEAD /page.css", 200),
            ("POST /", 405),
            ("GET /nothing", 404),
            ("GET /page/index.html", 404),
            ("GET /live", 401),
            ("GET /log?name=web", 401),
            ("GET /v1/apps", 401),
            ("POST /v1/apps/web/stop", 401),
            ("OPTIONS /v1/apps", 401),
            ("GET /v1/nothing", 401),
        ] {
            assert_eq!(served.ask(request, &[]).await.status(), status, "{request}");
            assert_eq!(served.ask(request, &[wrong]).await.status(), status, "{request}, with a wrong one");
        }
    }

    #[tokio::test]
    async fn who_has_the_token_may_see_and_with_actions_do() {
        for (request, reading, acting) in [
            ("GET /v1/apps", 200, 200),
            ("GET /v1/apps?traffic=true", 200, 200),
            ("GET /v1/apps/web", 404, 404),
            ("OPTIONS /v1/apps", 204, 204),
            ("GET /v1/apps/web/reload", 405, 405),
            ("GET /v1/apps/web/workers/1/http/", 404, 404),
            ("POST /v1/apps", 403, 405),
            ("GET /log", 400, 400),
            ("GET /log?name=web", 404, 404),
            ("GET /log?pid=1&name=web", 400, 400),
            ("POST /v1/apps/web/stop", 403, 404),
            ("DELETE /v1/apps/web", 403, 405),
        ] {
            for (actions, status) in [(false, reading), (true, acting)] {
                let served = Served::new(actions, 9);
                assert_eq!(served.ask(request, &[bearer()]).await.status(), status, "{request} {actions}");
                let elsewhere = [bearer(), ("sec-fetch-site", "cross-site")];
                assert_eq!(served.ask(request, &elsewhere).await.status(), 403, "{request} from elsewhere");
            }
        }
    }

    #[tokio::test]
    async fn every_answer_is_guarded() {
        let served = Served::new(false, 9);
        for request in ["GET /", "GET /live", "GET /v1/apps", "GET /nothing", "POST /"] {
            let answer = served.ask(request, &[]).await;
            let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
            assert!(
                header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'"))
            );
            assert_eq!(header("x-content-type-options"), Some("nosniff"), "{request}");
            assert_eq!(header("cache-control"), Some("no-store"), "{request}");
            assert_eq!(header("access-control-allow-origin"), None, "{request}");
        }
    }

    #[tokio::test]
    async fn a_page_is_greeted_and_told_what_there_is() {
        let served = Served::new(false, 1);
        let answer = served.ask("GET /live", &[bearer()]).await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let first = answer.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
        let text = String::from_utf8(first.to_vec()).unwrap();
        assert!(text.starts_with("data: {\"home\":{\"actions\":false,"), "{text}");
        assert!(text.contains("data: {\"resting\":{"), "{text}");
    }

    #[tokio::test]
    async fn an_app_called_live_takes_no_place() {
        let served = Served::new(false, 0);
        assert_eq!(served.ask("GET /v1/apps/live", &[bearer()]).await.status(), 404);
    }

    #[tokio::test]
    async fn only_so_many_pages_are_open() {
        let served = Served::new(false, 0);
        assert_eq!(served.ask("GET /live", &[bearer()]).await.status(), 503);
    }
}
