//! The client of the control socket: finds running clusterds, sends them requests, and follows their streams.
//!
//! It prints nothing and decides nothing. It checks the credentials of a server before it sends anything, for any process
//! may take a name.

use std::io;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{self, timeout};
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::io::StreamReader;

use super::address::SocketAddress;
use super::api::{self, App, Apps, Connection, Path, Problem, Refusal, Verb};
use super::app_name::encoded;
use super::home::Home;
use super::peer::{self, Stranger};
use crate::ids::Slot;
use crate::supervisor::Command;
use crate::tasks;

/// How long a clusterd may take to list its apps.
const LIST: Duration = Duration::from_secs(3);

/// How long it may take to begin its answer to anything else.
const ANSWER: Duration = Duration::from_secs(30);

/// How long a worker may take to begin an answer that somebody waits for.
const EXCHANGE: Duration = Duration::from_secs(600);

/// How long to wait for room in the backlog before the next try.
const BACKLOG_PAUSE: Duration = Duration::from_millis(20);

/// The longest answer that is taken whole, in bytes.
const LONGEST_ANSWER: usize = 64 * 1024 * 1024;

/// The longest line of a stream, in bytes: a Node worker's message has at most 16 MiB.
const LONGEST_LINE: usize = 32 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No process listens, or the socket cannot be reached.
    #[error("cannot connect to the clusterd at {address}: {source}")]
    Unreachable {
        /// Where it should listen.
        address: SocketAddress,
        /// What the system said.
        source: io::Error,
    },
    /// The socket belongs to a process that is not trusted.
    #[error("not using the clusterd at {address}: {stranger}")]
    Stranger {
        /// Where.
        address: SocketAddress,
        /// Who.
        stranger: Stranger,
    },
    /// It does not answer in time.
    #[error("the clusterd at {address} does not answer; its process may be stopped or overloaded")]
    Silent {
        /// Where it is.
        address: SocketAddress,
    },
    /// Its answer makes no sense.
    #[error("protocol error from the clusterd at {address}: {what}")]
    Malformed {
        /// Where it is.
        address: SocketAddress,
        /// What is wrong.
        what: String,
    },
    /// It does not say which apps it runs.
    #[error("the clusterd at {address} does not tell of its app: {problem}")]
    Untold {
        /// Where it is.
        address: SocketAddress,
        /// Why not.
        problem: Problem,
    },
    /// It exited in the middle of its answer.
    #[error("the clusterd at {address} exited before its answer was complete")]
    Ended {
        /// Where it was.
        address: SocketAddress,
    },
    /// It refuses.
    #[error(transparent)]
    Refused(#[from] Problem),
}

/// The lines of a stream, one object each. It fails when the clusterd exits, or sends what is no line; taking the next
/// line can be given up without losing it.
pub(crate) type JsonLines = BoxStream<'static, Result<String, Error>>;

/// A clusterd that may run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Clusterd {
    address: SocketAddress,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Every app, with the clusterd that runs it.
    pub apps: Vec<(Clusterd, App)>,
    /// Why some of the clusterds could not be asked.
    pub errors: Vec<Error>,
    /// What the apps of those are called.
    pub unanswered: Vec<String>,
}

impl Found {
    /// Whether an app of this name runs.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.apps.iter().any(|(_, app)| app.name == name)
    }

    fn add_error(&mut self, clusterd: &Clusterd, error: Error) {
        let address = clusterd.address.clone();
        if !matches!(error, Error::Stranger { .. }) {
            self.unanswered.extend(address.app());
        }
        self.errors.push(match error {
            Error::Refused(problem) => Error::Untold { address, problem },
            error => error,
        });
    }

    /// Whether no clusterd of this user is missing. A stranger's is none.
    pub(crate) fn is_certain(&self) -> bool {
        self.errors.iter().all(|error| matches!(error, Error::Stranger { .. }))
    }
}

/// The app of the clusterd with this process id, if that answers by now.
pub(crate) async fn find_process(home: &Home, pid: u32) -> Option<App> {
    let ending = format!("-{pid}");
    for address in home.sockets().into_iter().filter(|address| address.stem().ends_with(&ending)) {
        let apps = Clusterd { address }.apps().await.unwrap_or_default();
        if let Some(app) = apps.into_iter().find(|app| app.pid == pid) {
            return Some(app);
        }
    }
    None
}

/// Asks every clusterd that may run under this home for its apps, all at once.
pub(crate) async fn find(home: &Home) -> Found {
    ask_all(home.sockets()).await
}

/// The same, with what passes through each.
pub(crate) async fn find_with_traffic(home: &Home) -> Found {
    ask_all_for(home.sockets(), Path::AppsWithTraffic).await
}

/// Asks no others than those that run the apps of these names, if each of them is the name of one; otherwise all. A name goes
/// before all else that a word may mean.
pub(crate) async fn find_for(home: &Home, words: &[&str]) -> Found {
    match words.is_empty() {
        true => find(home).await,
        false => match find_named(home, words).await {
            Some(found) => found,
            None => find(home).await,
        },
    }
}

/// Asks those alone whose apps may have this name, as their sockets are called.
pub(crate) async fn find_of_name(home: &Home, name: &str) -> Found {
    ask_all(home.sockets().into_iter().filter(|address| may_be_of(address, name)).collect()).await
}

fn may_be_of(address: &SocketAddress, name: &str) -> bool {
    address.stem().strip_prefix(&encoded(name)).is_some_and(|rest| rest.starts_with('-'))
}

/// `None` unless each of these is the name of an app that runs.
async fn find_named(home: &Home, names: &[&str]) -> Option<Found> {
    let may_be_meant = |address: &SocketAddress| names.iter().any(|name| may_be_of(address, name));
    let found = ask_all(home.sockets().into_iter().filter(may_be_meant).collect()).await;
    let is_whole = found.errors.is_empty() && names.iter().all(|name| found.has(name));
    let is_meant = |(_, app): &(Clusterd, App)| names.contains(&app.name.as_str());
    is_whole.then(|| Found { apps: found.apps.into_iter().filter(is_meant).collect(), ..Found::default() })
}

async fn ask_all(addresses: Vec<SocketAddress>) -> Found {
    ask_all_for(addresses, Path::Apps).await
}

async fn ask_all_for(addresses: Vec<SocketAddress>, path: Path<'static>) -> Found {
    let mut asked = JoinSet::new();
    for (index, address) in addresses.into_iter().enumerate() {
        let clusterd = Clusterd { address };
        asked.spawn(async move { (index, clusterd.apps_at(&path).await, clusterd) });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(index, ..)| *index);
    let mut found = Found::default();
    for (_, answer, clusterd) in answers {
        match answer {
            Ok(apps) => found.apps.extend(apps.into_iter().map(|app| (clusterd.clone(), app))),
            Err(error) if error.is_of_nobody() => {}
            // It was killed while it answered.
            Err(_) if clusterd.address.connect().is_err_and(|error| is_gone(&error)) => {}
            Err(error) => found.add_error(&clusterd, error),
        }
    }
    found.apps.sort_by(|(_, one), (_, other)| (&one.name, one.pid).cmp(&(&other.name, other.pid)));
    found
}

impl Error {
    /// Whether no clusterd listens there any more.
    pub(crate) fn is_of_nobody(&self) -> bool {
        matches!(self, Self::Unreachable { source, .. } if is_gone(source))
    }
}

/// Whether no clusterd listens there any more.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

/// Those that may run under this home. None of them is asked.
pub(crate) fn all(home: &Home) -> Vec<Clusterd> {
    home.sockets().into_iter().map(|address| Clusterd { address }).collect()
}

impl Clusterd {
    /// What its app is called, as far as can be seen without asking it.
    pub(crate) fn app_name(&self) -> Option<String> {
        self.address.app()
    }

    /// The one at this address.
    #[cfg(any(test, feature = "internal"))]
    pub(crate) fn at(address: SocketAddress) -> Self {
        Self { address }
    }

    /// Its apps, without the lines that workers wrote.
    ///
    /// # Errors
    /// There is no answer, or it is not understood.
    pub(crate) async fn apps(&self) -> Result<Vec<App>, Error> {
        self.apps_at(&Path::Apps).await
    }

    async fn apps_at(&self, path: &Path<'_>) -> Result<Vec<App>, Error> {
        let asked = async { Ok(self.get::<Apps>(path).await?.apps) };
        timeout(LIST, asked).await.unwrap_or_else(|_| Err(self.silent()))
    }

    /// One app.
    ///
    /// # Errors
    /// There is no answer, it refuses, or it is not understood.
    pub(crate) async fn app(&self, name: &str) -> Result<App, Error> {
        self.get(&Path::App(name)).await
    }

    /// One app, with the environment of its workers, which may hold secrets.
    ///
    /// # Errors
    /// As above.
    pub(crate) async fn app_with_environment(&self, name: &str) -> Result<App, Error> {
        self.get(&Path::AppWithEnvironment(name)).await
    }

    /// Begins a command. Its progress is a stream: events, then an [`Outcome`](api::Outcome).
    ///
    /// # Errors
    /// There is no answer, or it refuses.
    pub(crate) async fn command(&self, app: &str, command: &Command) -> Result<JsonLines, Error> {
        let path = Path::Command(app, Verb::of(command));
        self.lines(self.request(Method::POST, &path, api::body_of(command).into())?).await
    }

    /// The open connections of an app's clients, or of one of its workers', as they come.
    ///
    /// # Errors
    /// There is no answer, or it refuses.
    pub(crate) async fn connections(
        &self,
        app: &str,
        worker: Option<Slot>,
    ) -> Result<BoxStream<'static, Result<Connection, Error>>, Error> {
        let path = Path::Connections(app, worker);
        let lines = self.lines(self.request(Method::GET, &path, Bytes::new())?).await?;
        let clusterd = self.clone();
        let read = move |line: String| serde_json::from_str(&line).map_err(|error| clusterd.malformed(error));
        Ok(lines.map(move |line| line.and_then(&read)).boxed())
    }

    /// The events from now on, of all its apps or of one.
    ///
    /// # Errors
    /// There is no answer, or it refuses.
    pub(crate) async fn events(&self, app: Option<&str>) -> Result<JsonLines, Error> {
        self.lines(self.request(Method::GET, &Path::Events(app), Bytes::new())?).await
    }

    /// The last events of an app, and those from now on.
    ///
    /// # Errors
    /// There is no answer, or it refuses.
    pub(crate) async fn events_with_past(&self, app: &str) -> Result<JsonLines, Error> {
        self.lines(self.request(Method::GET, &Path::EventsWithPast(app), Bytes::new())?).await
    }

    /// One app as it lives: a stream of [`Live`](api::Live), whose objects are left as they are.
    ///
    /// # Errors
    /// There is no answer, or it refuses.
    pub(crate) async fn live(&self, app: &str) -> Result<JsonLines, Error> {
        self.lines(self.request(Method::GET, &Path::Live(app), Bytes::new())?).await
    }

    /// Passes on a request of somebody else's for a path of the API, and the answer as it comes.
    ///
    /// # Errors
    /// There is no answer, or the path cannot be asked for.
    pub(crate) async fn pass_on(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
        self.send(request, ANSWER).await
    }

    fn request(&self, method: Method, path: &Path<'_>, body: Bytes) -> Result<Request<Full<Bytes>>, Error> {
        let request = Request::builder().method(method).uri(path.to_string());
        let request = request.header(HOST, "clusterd").header(CONTENT_TYPE, "application/json");
        request.body(Full::new(body)).map_err(|error| self.malformed(error))
    }

    /// Sends a request to one worker of an app. Its URI is the path that is asked for.
    ///
    /// # Errors
    /// There is no answer, the path cannot be asked for, or clusterd refuses.
    pub(crate) async fn exchange(
        &self,
        app: &str,
        worker: Slot,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Error> {
        let path = Path::Exchange { app, worker, path: &request.uri().to_string() }.to_string();
        *request.uri_mut() = path.parse().map_err(|error| self.malformed(error))?;
        let answer = self.send(request, EXCHANGE).await?;
        if answer.headers().contains_key(api::WORKER_HEADER) {
            return Ok(answer);
        }
        Err(self.refusal(answer).await)
    }

    async fn get<T: DeserializeOwned>(&self, path: &Path<'_>) -> Result<T, Error> {
        let answer = self.ask(self.request(Method::GET, path, Bytes::new())?).await?;
        let body = self.whole(answer).await?;
        serde_json::from_slice(&body).map_err(|error| self.malformed(error))
    }

    async fn lines(&self, request: Request<Full<Bytes>>) -> Result<JsonLines, Error> {
        let answer = self.ask(request).await?;
        let body = StreamReader::new(answer.into_body().into_data_stream().map_err(io::Error::other));
        let lines = FramedRead::new(body, LinesCodec::new_with_max_length(LONGEST_LINE));
        let clusterd = self.clone();
        Ok(lines.map_err(move |error| clusterd.broken_line(&error)).boxed())
    }

    /// Sends a request, and waits for the head of the answer. One that is not a success is a [`Problem`].
    async fn ask(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
        let answer = self.send(request, ANSWER).await?;
        if answer.status().is_success() { Ok(answer) } else { Err(self.refusal(answer).await) }
    }

    /// Why it was refused.
    async fn refusal(&self, answer: Response<Incoming>) -> Error {
        let status = answer.status();
        match self.whole(answer).await.map(|body| serde_json::from_slice(&body)) {
            Ok(Ok(Refusal { error })) => error.into(),
            Ok(Err(_)) => self.malformed(format!("status {status}")),
            Err(error) => error,
        }
    }

    /// Waits so long for the head of the answer.
    async fn send(&self, request: Request<Full<Bytes>>, time: Duration) -> Result<Response<Incoming>, Error> {
        let broken = |error| self.broken(&error);
        let exchange = async {
            let stream = self.connect().await?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
            // It ends with the answer's body.
            tasks::spawn(connection);
            sender.send_request(request).await.map_err(broken)
        };
        timeout(time, exchange).await.unwrap_or_else(|_| Err(self.silent()))
    }

    async fn connect(&self) -> Result<UnixStream, Error> {
        let unreachable = |source| Error::Unreachable { address: self.address.clone(), source };
        let stream = loop {
            match self.address.connect_or_clear() {
                // The backlog is full: of clients that come at once, or because the process is stopped.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => time::sleep(BACKLOG_PAUSE).await,
                stream => break stream.map_err(unreachable)?,
            }
        };
        match peer::check_server(&stream, &self.address).map_err(unreachable)? {
            Ok(_) => UnixStream::from_std(stream).map_err(unreachable),
            Err(stranger) => Err(Error::Stranger { address: self.address.clone(), stranger }),
        }
    }

    async fn whole(&self, answer: Response<Incoming>) -> Result<Bytes, Error> {
        let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect();
        match timeout(ANSWER, body).await {
            Ok(body) => Ok(body.map_err(|error| self.malformed(error))?.to_bytes()),
            Err(_) => Err(self.silent()),
        }
    }

    fn broken(&self, error: &hyper::Error) -> Error {
        let has_ended = error.is_incomplete_message() || error.is_canceled();
        if has_ended { self.ended() } else { self.malformed(error) }
    }

    fn broken_line(&self, error: &LinesCodecError) -> Error {
        match error {
            // Bytes that are no text; what breaks the body is of another kind.
            LinesCodecError::Io(error) if error.kind() != io::ErrorKind::InvalidData => self.ended(),
            _ => self.malformed(error),
        }
    }

    fn ended(&self) -> Error {
        Error::Ended { address: self.address.clone() }
    }

    /// That it says nothing.
    pub(crate) fn silent(&self) -> Error {
        Error::Silent { address: self.address.clone() }
    }

    fn malformed(&self, what: impl ToString) -> Error {
        Error::Malformed { address: self.address.clone(), what: what.to_string() }
    }
}
