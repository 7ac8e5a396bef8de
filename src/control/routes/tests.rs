use axum::body::Body;
use http_body_util::BodyExt;
use hyper::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use proptest::prelude::*;
use tower::ServiceExt;

use super::*;
use crate::control::api::{self, Path};
use crate::control::fake::Fake;
use crate::http::stay::Followers;
use crate::ids::Slot;
use crate::supervisor::Command;
use crate::supervisor::events::Asker;

/// The router of an app, with a client.
fn served() -> (std::sync::Arc<Fake>, Router) {
    let app = std::sync::Arc::new(Fake::new());
    let by = Asker::Command { pid: 1, uid: 0 };
    let stay = Followers::new(1000).client();
    let router =
        router(ControlState::new(vec![app.clone()])).layer(axum::Extension(by)).layer(axum::Extension(stay));
    (app, router)
}

fn request(method: Method, path: &str) -> Request {
    Request::builder().method(method).uri(path).body(Body::empty()).unwrap()
}

async fn ask(router: &Router, request: Request) -> Response {
    router.clone().oneshot(request).await.unwrap()
}

async fn text(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn paths_name_what_they_say() {
    let (_app, router) = served();
    let found = |answer: &'static str| (200, answer);
    let exchange = |answer: &'static str| (404, answer);
    let none = (404, r#""code":"not-found""#);
    let table = [
        ("/v1/apps", found(r#"{"apps":[{"name":"web""#)),
        ("/v1/apps?traffic=true", found(r#""traffic":{"accepted":0,"#)),
        ("/v1/apps?traffic=true", found(r#""connections_open":3"#)),
        ("/v1/apps?traffic=much", (400, r#""code":"bad-request""#)),
        ("/v1/apps/web", found(r#"{"name":"web""#)),
        ("/v1/apps/w%65b", found(r#"{"name":"web""#)),
        ("/v1/apps/web/connections", found(r#"{"client":"127.0.0.1:1","#)),
        ("/v1/apps/web/connections?worker=1", found(r#"{"client":"127.0.0.1:1","#)),
        ("/v1/apps/web/connections?worker=2", (404, "there is no worker 2")),
        ("/v1/apps/web/connections?worker=0", none),
        ("/v1/apps/web/connections?worker=one", (404, "numbered from 1")),
        ("/v1/apps/web/connections?worker=1&worker=1", (400, r#""code":"bad-request""#)),
        ("/v1/apps/api/connections", none),
        ("/v1/apps/web/workers/2/http/", (404, "there is no worker 2")),
        ("/v1/apps/web/workers/1/http/", exchange("GET / at None: ")),
        ("/v1/apps/web/workers/1/http/a/b//c?d=e", exchange("GET /a/b//c?d=e at None: ")),
        ("/v1/apps/w%65b/workers/%31/http/a%2Fb%20?c=%26", exchange("GET /a%2Fb%20?c=%26 at None: ")),
        ("/v1/apps/web/workers/1/http", none),
        ("/v1/apps/web/workers/0/http/", none),
        ("/v1/apps/web/workers/two/http/", none),
        ("/v1/apps/web/workers/1/https/", none),
        ("/v1/apps/web/nothing", none),
        ("/v1/apps/web/reload/now", none),
        ("/v1/apps/web%2Freload", none),
        ("/v1/apps/", none),
        ("/v1/apps/we%ff", (400, r#""code":"bad-request""#)),
        ("/v1/appsweb", none),
        ("/v2/apps", none),
        ("/", none),
    ];
    for (path, (status, answer)) in table {
        let response = ask(&router, request(Method::GET, path)).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
        let text = text(response).await;
        assert!(text.contains(answer), "{path}: {text}");
    }
}

#[tokio::test]
async fn each_command_has_a_path() {
    for (path, body, command) in [
        ("/v1/apps/web/reload", "", Command::Reload),
        ("/v1/apps/w%65b/stop", "", Command::Stop(None)),
        ("/v1/apps/web/restart", r#"{"worker":2}"#, Command::Restart(Some(Slot(2)))),
    ] {
        let (app, router) = served();
        let _end = app.ending();
        let request = Request::post(path).body(Body::from(body)).unwrap();
        assert_eq!(ask(&router, request).await.status(), 200, "{path}");
        assert_eq!(app.begun.lock().unwrap()[0].0, command);
    }
}

#[tokio::test]
async fn only_what_may_bring_an_environment_may_be_long() {
    let entries = vec!["A=".to_owned() + &"x".repeat(100_000)];
    let body = serde_json::json!({ "environment": entries }).to_string();
    for (verb, status, answer) in
        [("reload", 200, ""), ("restart", 200, ""), ("stop", 400, "the body is longer than 4096 bytes")]
    {
        let (app, router) = served();
        let _end = app.ending();
        let request = Request::post(format!("/v1/apps/web/{verb}")).body(Body::from(body.clone())).unwrap();
        let response = ask(&router, request).await;
        assert_eq!(response.status().as_u16(), status, "{verb}");
        if status != 200 {
            let text = text(response).await;
            assert!(text.contains(answer), "{text}");
        }
    }
    let (app, router) = served();
    let _end = app.ending();
    let body = Body::from("x".repeat(8 * 1024 * 1024 + 1));
    let response = ask(&router, Request::post("/v1/apps/web/reload").body(body).unwrap()).await;
    assert!(text(response).await.contains("the body is longer than 8388608 bytes"));
}

#[tokio::test]
async fn the_environment_is_for_those_who_ask_for_it() {
    let (_app, router) = served();
    for (query, status, has_it) in [
        ("", 200, false),
        ("?environment=false", 200, false),
        ("?environment=true", 200, true),
        ("?environment=yes", 400, false),
    ] {
        let response = ask(&router, request(Method::GET, &format!("/v1/apps/web{query}"))).await;
        assert_eq!(response.status().as_u16(), status, "{query}");
        assert_eq!(text(response).await.contains(r#""environment":{"A":"b"}"#), has_it, "{query}");
    }
    assert!(
        !text(ask(&router, request(Method::GET, "/v1/apps?environment=true")).await)
            .await
            .contains("environment")
    );
}

#[tokio::test]
async fn connections_come_one_a_line_and_only_as_they_are_known() {
    let (_app, router) = served();
    let response = ask(&router, request(Method::GET, "/v1/apps/web/connections")).await;
    assert_eq!(response.headers()[CONTENT_TYPE], "application/jsonl");
    let text = text(response).await;
    assert_eq!(text.lines().count(), 3);
    assert_eq!(
        text.lines().next(),
        Some(
            r#"{"client":"127.0.0.1:1","local":"127.0.0.1:80","worker":1,"state":"established","age_seconds":1.5,"received_bytes":7}"#
        )
    );
}

#[tokio::test]
async fn events_are_of_every_app_or_of_one() {
    let (app, router) = served();
    for (query, status) in
        [("", 200), ("?app=web", 200), ("?x=1&app=w%65b", 200), ("?app=", 200), ("?app=api", 404)]
    {
        let response = ask(&router, request(Method::GET, &format!("/v1/events{query}"))).await;
        assert_eq!(response.status(), status, "{query}");
        assert_eq!(app.events.receiver_count(), usize::from(status == 200), "{query}");
    }
    assert_eq!(ask(&router, request(Method::GET, "/v1/events?app=a&app=b")).await.status(), 400);
}

#[tokio::test]
async fn events_come_as_lines_or_as_server_sent_events() {
    let (app, router) = served();
    let table = [
        (None, "application/jsonl", "{", "}\n"),
        (Some("*/*"), "application/jsonl", "{", "}\n"),
        (Some("text/html, Text/Event-Stream;q=0.9"), "text/event-stream", "data: {", "}\n\n"),
    ];
    for (accept, kind, start, end) in table {
        let mut request = request(Method::GET, "/v1/events");
        if let Some(accept) = accept {
            request.headers_mut().insert(ACCEPT, accept.parse().unwrap());
        }
        let response = ask(&router, request).await;
        assert_eq!(response.headers()[CONTENT_TYPE], kind, "{accept:?}");
        app.tell(3);
        let frame = response.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
        let text = std::str::from_utf8(&frame).unwrap();
        assert!(text.starts_with(start) && text.ends_with(end), "{text}");
        assert!(text.contains(r#""event":"worker-moves","worker":3"#), "{text}");
    }
}

#[tokio::test]
async fn other_methods_are_refused_with_those_that_are_taken() {
    let (_app, router) = served();
    let read = "GET, HEAD, OPTIONS";
    let table = [
        (Method::POST, "/v1/apps", 405, read),
        (Method::DELETE, "/v1/apps/web", 405, read),
        (Method::PUT, "/v1/events", 405, read),
        (Method::GET, "/v1/apps/web/stop", 405, "POST, OPTIONS"),
        (Method::HEAD, "/v1/apps/web/stop", 405, "POST, OPTIONS"),
        (Method::OPTIONS, "/v1/apps", 204, read),
        (Method::OPTIONS, "/v1/apps/web/scale", 204, "POST, OPTIONS"),
    ];
    for (method, path, status, allow) in table {
        let response = ask(&router, request(method.clone(), path)).await;
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        assert_eq!(response.headers()["allow"], allow, "{method} {path}");
        let text = text(response).await;
        let says_so = text.contains(&format!(r#""help":"use {allow}""#));
        assert!(says_so || status == 204 || method == Method::HEAD, "{text}");
    }
}

#[tokio::test]
async fn a_head_is_answered_as_a_get_without_its_body() {
    let (app, router) = served();
    let get = ask(&router, request(Method::GET, "/v1/apps/web")).await;
    let head = ask(&router, request(Method::HEAD, "/v1/apps/web")).await;
    assert_eq!((get.status(), get.headers()), (head.status(), head.headers()));
    assert_eq!(head.headers()[CONTENT_LENGTH], text(get).await.len().to_string());
    assert_eq!(text(head).await, "");
    let events = ask(&router, request(Method::HEAD, "/v1/events")).await;
    assert_eq!((events.status().as_u16(), app.events.receiver_count()), (200, 0));
}

#[tokio::test]
async fn a_body_is_json_whatever_its_type_is_not_called() {
    let table = [
        (None, "{\"worker\":2}", 200),
        (Some("application/json"), "{}", 200),
        (Some("Application/JSON; charset=utf-8"), "{}", 200),
        (Some("application/problem+json"), "{}", 200),
        (Some("application/x-www-form-urlencoded"), "", 200),
        (Some("application/x-www-form-urlencoded"), "{}", 415),
        (Some("text/plain"), "{}", 415),
        (None, "worker=2", 400),
    ];
    for (kind, body, status) in table {
        let (app, router) = served();
        let _end = app.ending();
        let mut request = Request::post("/v1/apps/web/restart").body(Body::from(body)).unwrap();
        if let Some(kind) = kind {
            request.headers_mut().insert(CONTENT_TYPE, kind.parse().unwrap());
        }
        let response = ask(&router, request).await;
        assert_eq!(response.status().as_u16(), status, "{kind:?} {body}");
        if status == 415 {
            let text = text(response).await;
            assert!(text.contains("unsupported-media-type") && text.contains("application/json"), "{text}");
        }
    }
}

proptest! {
    #[test]
    fn any_path_is_answered(path in "(/|v1|apps|web|workers|2|http|events|%|%2F|%ff|[a-z?=&]){0,12}") {
        let Ok(uri) = format!("/{path}").parse::<Uri>() else { return Ok(()) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (_app, router) = served();
        let status = runtime.block_on(ask(&router, request(Method::GET, &uri.to_string()))).status().as_u16();
        prop_assert!([200, 400, 404, 405].contains(&status), "{uri}: {status}");
    }

    #[test]
    fn what_the_client_asks_for_is_found(
        verb in prop::sample::select(Verb::ALL.to_vec()),
        path in "/([a-z/]|%2F){0,8}",
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_app, router) = served();
            let connections = [None, Some(Slot(1))].map(|worker| Path::Connections("web", worker));
            let others = [Path::Apps, Path::App("web"), Path::Events(None), Path::Events(Some("web"))];
            for known in others.into_iter().chain(connections) {
                prop_assert_eq!(ask(&router, request(Method::GET, &known.to_string())).await.status(), 200);
            }
            let command = Path::Command("web", verb).to_string();
            prop_assert_eq!(ask(&router, request(Method::OPTIONS, &command)).await.status(), 204);
            let exchange = Path::Exchange { app: "web", worker: Slot(1), path: &path }.to_string();
            let response = ask(&router, request(Method::GET, &exchange)).await;
            prop_assert!(response.headers().contains_key(api::WORKER_HEADER));
            prop_assert_eq!(text(response).await, format!("GET {path} at None: "));
            Ok(())
        })?;
    }
}
