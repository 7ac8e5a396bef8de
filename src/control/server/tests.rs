use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures_util::TryStreamExt;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::oneshot;

use super::*;
use crate::control::address::SocketGuard;
use crate::control::api::{self, Outcome};
use crate::control::backend::Detail;
use crate::control::client::{self, Clusterd, Error, JsonLines};
use crate::control::fake::Fake;
use crate::control::home::Home;
use crate::ids::Slot;
use crate::supervisor::events::{Event, EventKind};
use crate::supervisor::{Command, Failed, Scale};

const PATIENCE: Duration = Duration::from_secs(20);

/// A server of one fake app, on a thread of its own; what is asked for is asked from the test's.
struct Served {
    app: Arc<Fake>,
    folder: tempfile::TempDir,
    guard: SocketGuard,
    _stop: oneshot::Sender<()>,
}

impl Served {
    fn start(limits: ConnectionLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (listener, guard) = home(&folder).listen("web").unwrap();
        let app = Arc::new(Fake::new());
        let (stop, stopped) = oneshot::channel::<()>();
        let (address, apps) = (guard.address().clone(), vec![Arc::clone(&app) as Arc<dyn AppBackend>]);
        std::thread::spawn(move || {
            runtime().block_on(async {
                let server = Server::with(
                    limits,
                    (tokio::net::UnixListener::from_std(listener).unwrap(), address),
                    apps,
                );
                tokio::select! {
                    () = server.serve() => {}
                    _ = stopped => {}
                }
            });
        });
        Self { app, folder, guard, _stop: stop }
    }

    fn clusterd(&self) -> Clusterd {
        Clusterd::at(self.guard.address().clone())
    }

    fn connect(&self) -> StdStream {
        let stream = self.guard.address().connect().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends these bytes and reads until the server closes.
    fn ask(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // It may have answered and closed before everything is sent.
        let _ = stream.write_all(bytes);
        read(stream)
    }

    fn get(&self, path: &str) -> String {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
    }

    /// Until so many follow events.
    fn until_followed_by(&self, followers: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.app.events.receiver_count() != followers {
            assert!(Instant::now() < deadline, "{} follow", self.app.events.receiver_count());
            std::thread::yield_now();
        }
    }
}

fn home(folder: &tempfile::TempDir) -> Home {
    Home::named(folder.path())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn read(mut stream: StdStream) -> String {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8_lossy(&all).into_owned(),
    }
}

async fn all(mut lines: JsonLines) -> Result<Vec<String>, Error> {
    let mut all = Vec::new();
    while let Some(line) = lines.try_next().await? {
        all.push(line);
    }
    Ok(all)
}

#[test]
fn a_client_finds_the_app_and_looks_at_it() {
    let served = Served::start(LIMITS);
    runtime().block_on(async {
        let found = client::find(&home(&served.folder)).await;
        assert!(found.errors.is_empty());
        let [(clusterd, app)] = found.apps.try_into().unwrap();
        assert_eq!(clusterd, served.clusterd());
        assert!(
            app.workers[0].last_lines.is_empty() && app.workers[0].without_shim.is_empty(),
            "the list is short"
        );
        assert_eq!(clusterd.app("web").await.unwrap(), served.app.snapshot(Detail::Full));
        let with_environment = served.app.snapshot(Detail::WithEnvironment);
        assert!(with_environment.workers[0].environment.is_some());
        assert_eq!(clusterd.app_with_environment("web").await.unwrap(), with_environment);
        let Err(Error::Refused(problem)) = clusterd.app("api").await else { panic!("there is none") };
        assert_eq!((problem.code, problem.to_string().as_str()), (Code::NotFound, "there is no app api"));
        assert_eq!(problem.help.as_deref(), Some("running apps: web"));
        let Err(Error::Refused(problem)) = clusterd.app("an/odd name?").await else {
            panic!("there is none")
        };
        assert_eq!(problem.to_string(), "there is no app an/odd name?");
    });
}

#[test]
fn a_command_is_followed_to_its_end() {
    let served = Served::start(LIMITS);
    runtime().block_on(async {
        let end = served.app.ending();
        let command = Command::Scale(Scale::By(1));
        let mut lines = served.clusterd().command("web", &command).await.unwrap();
        let (pid, uid) = (rustix::process::getpid().as_raw_pid(), rustix::process::geteuid().as_raw());
        assert_eq!(*served.app.begun.lock().unwrap(), [(command, Asker::Command { pid, uid })]);
        for worker in 1..=3 {
            served.app.tell(worker);
            let line = lines.try_next().await.unwrap().unwrap();
            assert!(matches!(serde_json::from_str(&line).unwrap(), Event { kind: EventKind::WorkerMoves { worker: w }, .. } if w == worker));
        }
        end.send(Ok("done".to_owned())).unwrap();
        assert_eq!(all(lines).await.unwrap(), [r#"{"done":"done"}"#]);
    });
    served.until_followed_by(0);
}

#[test]
fn a_command_that_fails_says_so_last() {
    let served = Served::start(LIMITS);
    runtime().block_on(async {
        let end = served.app.ending();
        let failed = Failed { reason: "it crashed".to_owned(), last_lines: vec!["boom".to_owned()] };
        end.send(Err(failed.clone())).unwrap();
        let told = all(served.clusterd().command("web", &Command::Reload).await.unwrap()).await.unwrap();
        assert_eq!(serde_json::from_str::<Outcome>(&told[0]).unwrap(), Outcome::Error(failed.into()));
        let Err(Error::Refused(problem)) = served.clusterd().command("web", &Command::Reload).await else {
            panic!("another one is under way")
        };
        assert_eq!(problem.code, Code::Busy);
    });
}

#[test]
fn a_command_goes_on_without_its_client() {
    let served = Served::start(LIMITS);
    let end = served.app.ending();
    let mut client = served.connect();
    client.write_all(b"POST /v1/apps/web/reload HTTP/1.1\r\nContent-Length: 0\r\n\r\n").unwrap();
    served.until_followed_by(1);
    drop(client);
    served.until_followed_by(0);
    assert_eq!(served.app.begun.lock().unwrap().len(), 1);
    assert!(end.is_closed(), "nobody waits for the end any more");
}

#[test]
fn a_command_is_begun_for_a_client_that_has_left_already() {
    let served = Served::start(LIMITS);
    for count in 1..=20 {
        let mut client = served.connect();
        client
            .write_all(b"POST /v1/apps/web/restart HTTP/1.1\r\nContent-Length: 12\r\n\r\n{\"worker\":2}")
            .unwrap();
        drop(client);
        let deadline = Instant::now() + PATIENCE;
        while served.app.begun.lock().unwrap().len() < count {
            assert!(Instant::now() < deadline, "command {count} was lost");
            std::thread::yield_now();
        }
    }
}

#[test]
fn an_end_of_the_server_is_no_end_of_the_stream() {
    let served = Served::start(LIMITS);
    runtime().block_on(async {
        let mut lines = served.clusterd().events(None).await.unwrap();
        served.until_followed_by(1);
        served.app.tell(1);
        assert!(lines.try_next().await.unwrap().is_some());
        let clusterd = served.clusterd();
        drop(served);
        assert!(matches!(lines.try_next().await, Err(Error::Ended { .. })));
        assert!(matches!(clusterd.apps().await, Err(Error::Unreachable { .. })));
    });
}

#[test]
fn one_who_does_not_read_holds_up_nobody_and_is_told_what_was_missed() {
    let served = Served::start(LIMITS);
    let mut slow = served.connect();
    slow.write_all(b"GET /v1/events HTTP/1.1\r\n\r\n").unwrap();
    served.until_followed_by(1);
    for _ in 0..200_000 {
        served.app.tell(1);
    }
    assert!(served.get("/v1/apps").starts_with("HTTP/1.1 200"));
    let mut told = String::new();
    while !told.contains(r#""event":"missed""#) {
        let mut buffer = [0; 65536];
        let count = slow.read(&mut buffer).unwrap();
        assert!(count > 0, "the stream goes on");
        told = told.split_off(told.len().saturating_sub(200)) + &String::from_utf8_lossy(&buffer[..count]);
    }
    drop(slow);
    served.app.tell(1);
    served.until_followed_by(0);
}

#[test]
fn what_makes_no_sense_is_refused_and_does_no_harm() {
    let served = Served::start(LIMITS);
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20));
    let huge = "POST /v1/apps/web/reload HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n".to_owned()
        + &"x".repeat(1 << 20);
    let post = |path: &str, body: &str| {
        format!("POST {path} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let table = [
        ("\x16\x03\x01\x02\x00\x01\x00\x01 hello\r\n\r\n".to_owned(), "400", ""),
        ("SSH-2.0-OpenSSH_9.9\r\n\r\n".to_owned(), "400", ""),
        (long, "431", ""),
        (huge, "400", "bad-request"),
        (post("/v1/apps/web/reload", "{"), "400", "bad-request"),
        (post("/v1/apps/web/scale", "{}"), "400", "bad-request"),
        (post("/v1/apps/api/reload", ""), "404", "not-found"),
        (post("/v1/apps", ""), "405", "method-not-allowed"),
        ("GET /v1/apps/web/reload HTTP/1.1\r\n\r\n".to_owned(), "405", "method-not-allowed"),
        ("GET /v2/apps HTTP/1.1\r\n\r\n".to_owned(), "404", "not-found"),
        (post("/v1/apps/web/reload", ""), "409", "busy"),
    ];
    for (bytes, status, code) in table {
        let answer = served.ask(bytes.as_bytes());
        let start: String = bytes.chars().take(60).collect();
        // A reset may overtake the answer.
        let is_expected = answer.get(9..12) == Some(status) && answer.contains(code);
        assert!(answer.is_empty() || is_expected, "{answer} for {start}");
        assert!(served.get("/v1/apps").starts_with("HTTP/1.1 200"));
    }
    assert!(served.get("/v1/apps/web/reload").contains("allow: POST, OPTIONS\r\n"));
}

#[test]
fn one_who_does_not_ask_is_closed() {
    let served = Served::start(ConnectionLimits { head: Duration::from_millis(100), ..LIMITS });
    assert_eq!(read(served.connect()), "");
    let mut slow = served.connect();
    slow.write_all(b"GET /v1/apps HTTP/1.1\r\na: ").unwrap();
    assert!(!read(slow).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_client_that_closes_its_sending_side_still_gets_its_answer() {
    let served = Served::start(LIMITS);
    let mut client = served.connect();
    client.write_all(b"GET /v1/apps HTTP/1.0\r\n\r\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let answer = read(client);
    assert!(answer.starts_with("HTTP/1.0 200") && answer.contains(r#"{"apps":["#), "{answer}");

    let end = served.app.ending();
    let mut client = served.connect();
    client.write_all(b"POST /v1/apps/web/reload HTTP/1.0\r\n\r\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    served.until_followed_by(1);
    served.app.tell(1);
    assert!(served.get("/v1/apps").starts_with("HTTP/1.1 200"), "the end of the request was met meanwhile");
    end.send(Ok("done".to_owned())).unwrap();
    let answer = read(client);
    assert!(
        answer.contains(r#""event":"worker-moves""#) && answer.ends_with("{\"done\":\"done\"}\n"),
        "{answer}"
    );

    let mut unfinished = served.connect();
    unfinished.write_all(b"GET /v1/apps HTTP/1.1\r\n").unwrap();
    unfinished.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read(unfinished), "");
}

#[test]
fn an_unfinished_body_is_refused_at_its_end() {
    let served = Served::start(LIMITS);
    let mut client = served.connect();
    client.write_all(b"POST /v1/apps/web/restart HTTP/1.1\r\nContent-Length: 9\r\n\r\n{").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let answer = read(client);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(served.app.begun.lock().unwrap().is_empty());
}

#[test]
fn a_head_for_a_worker_gets_no_length_that_the_worker_did_not_name() {
    let served = Served::start(LIMITS);
    let answer = served.ask(b"HEAD /v1/apps/web/workers/1/http/a HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("clusterd-worker: 1\r\n"), "{answer}");
    assert!(!answer.contains("content-length"), "{answer}");
}

#[test]
fn too_many_clients_are_told_so() {
    let served = Served::start(ConnectionLimits { connections: 2, ..LIMITS });
    let followers: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = served.connect();
            stream.write_all(b"GET /v1/events HTTP/1.1\r\n\r\n").unwrap();
            stream
        })
        .collect();
    served.until_followed_by(2);
    let answer = served.get("/v1/apps");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("overloaded"), "{answer}");
    drop(followers);
    served.until_followed_by(0);
    let deadline = Instant::now() + PATIENCE;
    while !served.get("/v1/apps").starts_with("HTTP/1.1 200") {
        assert!(Instant::now() < deadline, "their places are free again");
    }
}

/// Clients that have sent this, and wait.
fn waiting(served: &Served, count: usize, sent: &[u8]) -> Vec<StdStream> {
    let connect = || {
        let mut stream = served.connect();
        stream.write_all(sent).unwrap();
        stream
    };
    (0..count).map(|_| connect()).collect()
}

#[test]
fn beside_slow_clients_the_next_is_refused_until_they_have_to_leave() {
    let beginning = b"GET /v1/apps HTTP/1.1\r\nHo".as_slice();
    let body = b"POST /v1/apps/web/scale HTTP/1.1\r\nContent-Length: 9\r\n\r\n{".as_slice();
    for sent in [b"".as_slice(), beginning, body] {
        let limits =
            ConnectionLimits { connections: 4, head: Duration::from_secs(1), total: Duration::from_secs(1) };
        let served = Served::start(limits);
        let slow = waiting(&served, 4, sent);
        // Those who say nothing take the places of the refused, too, and keep nobody from hearing why.
        let refused = waiting(&served, 2 * REFUSALS, b"");
        let answer = served.get("/v1/apps");
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("overloaded"), "{answer}");
        let deadline = Instant::now() + PATIENCE;
        while !served.get("/v1/apps").starts_with("HTTP/1.1 200") {
            assert!(Instant::now() < deadline, "slow clients have to leave");
        }
        drop((slow, refused));
    }
}

#[test]
fn one_who_does_not_read_an_answer_has_to_leave() {
    let served = Served::start(ConnectionLimits { total: Duration::from_millis(200), ..LIMITS });
    served.app.padding.store(8 << 20, Ordering::Relaxed);
    let mut slow = waiting(&served, 1, b"GET /v1/apps HTTP/1.1\r\n\r\n").remove(0);
    let mut hung_up = [PollFd::new(&slow, PollFlags::empty())];
    let patience = Timespec::try_from(PATIENCE).unwrap();
    assert_eq!(poll(&mut hung_up, Some(&patience)).unwrap(), 1, "it is still served");
    let mut told = Vec::new();
    let _ = slow.read_to_end(&mut told);
    assert!(told.starts_with(b"HTTP/1.1 200") && told.len() < 8 << 20);
}

#[test]
fn followers_leave_room_for_commands() {
    let served =
        Served::start(ConnectionLimits { connections: 4, total: Duration::from_millis(200), ..LIMITS });
    let mut followers = waiting(&served, 3, b"GET /v1/events HTTP/1.1\r\n\r\n");
    served.until_followed_by(3);
    for path in ["/v1/events", "/v1/apps/web/workers/1/http/"] {
        let answer = served.get(path);
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("overloaded"), "{answer}");
    }
    assert!(served.get("/v1/apps").starts_with("HTTP/1.1 200"));
    let end = served.app.ending();
    let mut command = waiting(&served, 1, b"POST /v1/apps/web/reload HTTP/1.0\r\n\r\n").remove(0);
    served.until_followed_by(4);
    // Longer than others may stay.
    command.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut told = Vec::new();
    assert_eq!(command.read_to_end(&mut told).unwrap_err().kind(), ErrorKind::WouldBlock);
    end.send(Ok("done".to_owned())).unwrap();
    command.set_read_timeout(Some(PATIENCE)).unwrap();
    command.read_to_end(&mut told).unwrap();
    assert!(told.ends_with(b"{\"done\":\"done\"}\n"));
    served.app.tell(1);
    let mut event = [0; 12];
    followers[0].read_exact(&mut event).unwrap();
    assert_eq!(&event, b"HTTP/1.1 200");
}

#[test]
fn a_request_is_passed_on_to_one_worker_and_its_answer_back() {
    let served = Served::start(LIMITS);
    runtime().block_on(async {
        let request = |port: &str| {
            let request = Request::builder().method("PUT").uri("/a/b?c=d").header(api::PORT_HEADER, port);
            request.body(Full::new(Bytes::from("body"))).unwrap()
        };
        let clusterd = served.clusterd();
        let answer = clusterd.exchange("web", Slot(1), request("8080")).await.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.headers()["a"]), (404, &"b".parse().unwrap()));
        let said = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(said, "PUT /a/b?c=d at Some(WorkerPort(8080)): body");
        for (worker, port, code) in [(2, "8080", Code::NotFound), (1, "http", Code::BadRequest)] {
            let refused = clusterd.exchange("web", Slot(worker), request(port)).await;
            assert!(matches!(refused, Err(Error::Refused(problem)) if problem.code == code));
        }
    });
}
