//! What is said at the control socket: paths, requests, replies and refusals, for the server and for the client alike.
//!
//! It carries nothing out. Every path begins with `/v1`, and every body is JSON: an object, or (a stream of progress
//! or of events) one object a line.

use std::fmt;
use std::net::SocketAddr;

use hyper::{Method, StatusCode};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::ids::{Slot, WorkerPort};
use crate::supervisor::events::Time;
use crate::supervisor::{Command, Failed, Refused, Scale};

/// The content type of a stream of objects, each on a line of its own.
pub const LINES: &str = "application/jsonl";

/// The header that names the port of the worker which an exchange is for; without it, the first is meant.
pub const PORT_HEADER: &str = "clusterd-port";

/// The header of an answer that is a worker's own, with its number. An answer without it is clusterd's.
pub const WORKER_HEADER: &str = "clusterd-worker";

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/v1/apps`: every app.
    Apps,
    /// `/v1/apps/{app}`: one of them.
    App(String),
    /// `/v1/apps/{app}/{verb}`: a command to it.
    Command(String, Verb),
    /// `/v1/events`: what happens, as it happens; `?app=` to one app.
    Events(Option<String>),
    /// `/v1/apps/{app}/workers/{n}/http/{path}`: an HTTP exchange with one worker.
    Exchange {
        /// The app.
        app: String,
        /// Its worker.
        worker: Slot,
        /// What is asked of the worker, from the `/` on.
        path: String,
    },
}

/// The commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Replace every worker by a new one that is ready first.
    Reload,
    /// End and start again.
    Restart,
    /// More or fewer workers.
    Scale,
    /// End every worker.
    Stop,
    /// Start them again.
    Start,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Verb; 5] = [Verb::Reload, Verb::Restart, Verb::Scale, Verb::Stop, Verb::Start];

    /// As it stands in a path.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Reload => "reload",
            Verb::Restart => "restart",
            Verb::Scale => "scale",
            Verb::Stop => "stop",
            Verb::Start => "start",
        }
    }

    /// The verb of a command.
    pub fn of(command: Command) -> Self {
        match command {
            Command::Reload => Verb::Reload,
            Command::Restart(_) => Verb::Restart,
            Command::Scale(_) => Verb::Scale,
            Command::Stop => Verb::Stop,
            Command::Start => Verb::Start,
        }
    }
}

impl Route {
    /// Reads the path and the query of a request; `None` if there is nothing of that name.
    pub fn parse(path: &str, query: Option<&str>) -> Option<Self> {
        let rest = path.strip_prefix("/v1/")?;
        if rest == "events" {
            return Some(Route::Events(query.and_then(app_of).map(str::to_owned)));
        }
        let mut parts = rest.strip_prefix("apps")?.splitn(6, '/');
        if !parts.next()?.is_empty() {
            return None;
        }
        let Some(app) = parts.next() else { return Some(Route::Apps) };
        let app = Some(app).filter(|app| !app.is_empty())?.to_owned();
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (None, ..) => Some(Route::App(app)),
            (Some(name), None, ..) => {
                let verb = Verb::ALL.into_iter().find(|verb| verb.name() == name)?;
                Some(Route::Command(app, verb))
            }
            (Some("workers"), Some(number), Some("http"), Some(path)) => {
                let worker = Slot(number.parse().ok().filter(|&number| number > 0)?);
                let query = query.map(|query| format!("?{query}")).unwrap_or_default();
                Some(Route::Exchange { app, worker, path: format!("/{path}{query}") })
            }
            _ => None,
        }
    }

    /// The methods that it is asked with; none stands for every one.
    pub fn methods(&self) -> &'static [Method] {
        match self {
            Route::Apps | Route::App(_) | Route::Events(_) => &[Method::GET],
            Route::Command(..) => &[Method::POST],
            Route::Exchange { .. } => &[],
        }
    }
}

/// As it stands in a request.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Route::Apps => f.write_str("/v1/apps"),
            Route::App(app) => write!(f, "/v1/apps/{app}"),
            Route::Command(app, verb) => write!(f, "/v1/apps/{app}/{}", verb.name()),
            Route::Events(None) => f.write_str("/v1/events"),
            Route::Events(Some(app)) => write!(f, "/v1/events?app={app}"),
            Route::Exchange { app, worker, path } => {
                write!(f, "/v1/apps/{app}/workers/{worker}/http{path}")
            }
        }
    }
}

fn app_of(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("app=")).filter(|app| !app.is_empty())
}

/// What `/v1/apps` answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Apps {
    /// Every app, without the lines that workers wrote.
    pub apps: Vec<App>,
}

/// An app, as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct App {
    /// What it is called (`--name`).
    pub name: String,
    /// What its workers run; empty for the built-in demo.
    pub command: Vec<String>,
    /// The process of its clusterd.
    pub pid: u32,
    /// The version of its clusterd.
    pub version: String,
    /// When clusterd was started.
    pub started: Time,
    /// How long ago that is, in milliseconds.
    pub uptime_ms: u64,
    /// Where clients connect to.
    pub addresses: Vec<Address>,
    /// How many workers are wanted.
    pub wanted: u32,
    /// It was stopped by a command.
    pub stopped: bool,
    /// Who has asked for the reload that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload: Option<String>,
    /// Its workers, in the order of their numbers. While a worker is replaced, two have the same one.
    pub workers: Vec<Worker>,
}

/// A public address, and the port that workers ask for to be served from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub address: SocketAddr,
    /// The port.
    pub worker_port: u16,
}

/// A worker, as it is now. What is of a process is absent while it has none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its number, from 1.
    pub worker: u32,
    /// Its state, as the `state` label of the metrics has it.
    pub state: String,
    /// The process that leads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// When that was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// How long ago that is, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_ms: Option<u64>,
    /// How many times it was started again.
    pub restarts: u64,
    /// The CPU time of its whole process group since somebody looked before, or since its start, in percent of one CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// The resident memory of its whole process group, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// How many connections workers of this number have taken.
    pub connections: u64,
    /// The ports on which it listens.
    pub listening: Vec<u16>,
    /// How the process before ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_end: Option<String>,
    /// The last lines that it has written to standard error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_lines: Vec<String>,
}

/// The last line of the stream that a command is answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was carried out; what was done, in one sentence.
    Done(String),
    /// It was not.
    Error(Problem),
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why.
    pub error: Problem,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// The kind.
    pub code: Code,
    /// What was wrong.
    pub message: String,
    /// What would help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The last lines that the worker which failed has written to standard error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_lines: Vec<String>,
}

/// What kind of problem it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The request makes no sense.
    BadRequest,
    /// Who asks is not allowed to.
    Forbidden,
    /// There is nothing of that name.
    NotFound,
    /// It is not asked with this method.
    MethodNotAllowed,
    /// Another command is under way.
    Busy,
    /// The app is stopped.
    Stopped,
    /// The configuration is wrong.
    Configuration,
    /// The worker cannot be spoken with.
    Unreachable,
    /// Too much is asked at once.
    Overloaded,
    /// clusterd stops.
    Stopping,
    /// It was begun, and failed.
    Failed,
}

impl Code {
    /// The status of an answer with this problem (RFC 9110).
    pub fn status(self) -> StatusCode {
        match self {
            Code::BadRequest => StatusCode::BAD_REQUEST,
            Code::Forbidden => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Code::Busy | Code::Stopped => StatusCode::CONFLICT,
            Code::Configuration => StatusCode::UNPROCESSABLE_ENTITY,
            Code::Unreachable => StatusCode::BAD_GATEWAY,
            Code::Overloaded | Code::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Code::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Problem {
    /// A problem without more words.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: None, last_lines: Vec::new() }
    }

    /// The same, and what would help.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let code = match refused {
            Refused::Busy { .. } => Code::Busy,
            Refused::Stopping => Code::Stopping,
            Refused::Stopped => Code::Stopped,
            Refused::OutOfRange { .. } => Code::BadRequest,
            Refused::Configuration(_) => Code::Configuration,
            Refused::NoWorker(_) => Code::NotFound,
        };
        Self::new(code, refused.to_string())
    }
}

impl From<Failed> for Problem {
    fn from(failed: Failed) -> Self {
        Self { last_lines: failed.last_lines, ..Self::new(Code::Failed, failed.reason) }
    }
}

/// The body of a restart.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RestartBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    worker: Option<u32>,
}

/// The body of a scale.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScaleBody {
    workers: Workers,
}

/// The body of any other command.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EmptyBody {}

/// The body that goes with a command.
pub fn body_of(command: Command) -> Vec<u8> {
    let body = match command {
        Command::Restart(worker) => serde_json::to_vec(&RestartBody { worker: worker.map(|slot| slot.0) }),
        Command::Scale(scale) => serde_json::to_vec(&ScaleBody { workers: Workers(scale) }),
        Command::Reload | Command::Stop | Command::Start => serde_json::to_vec(&EmptyBody {}),
    };
    body.expect("plain structures can be written")
}

/// The command that a verb and a body stand for. No body is an empty object.
///
/// # Errors
/// What is wrong with the body.
pub fn command_of(verb: Verb, body: &[u8]) -> Result<Command, Problem> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    let read = match verb {
        Verb::Reload => serde_json::from_slice(body).map(|EmptyBody {}| Command::Reload),
        Verb::Stop => serde_json::from_slice(body).map(|EmptyBody {}| Command::Stop),
        Verb::Start => serde_json::from_slice(body).map(|EmptyBody {}| Command::Start),
        Verb::Restart => {
            serde_json::from_slice(body).map(|RestartBody { worker }| Command::Restart(worker.map(Slot)))
        }
        Verb::Scale => {
            serde_json::from_slice(body).map(|ScaleBody { workers: Workers(scale) }| Command::Scale(scale))
        }
    };
    let wanted = match verb {
        Verb::Restart => r#"the body is {} or {"worker":2}"#,
        Verb::Scale => r#"the body is {"workers":4} or {"workers":"+1"}"#,
        Verb::Reload | Verb::Stop | Verb::Start => "the body is empty",
    };
    read.map_err(|error| Problem::new(Code::BadRequest, format!("{}: {error}", verb.name())).help(wanted))
}

/// How many workers are wanted, as people write it: `4`, `+1`, `-2`; in JSON, `4` may be a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers(pub Scale);

/// A number of workers that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}: not a number of workers: use 4 for four, +1 for one more, -1 for one fewer")]
pub struct NotWorkers(String);

impl std::str::FromStr for Workers {
    type Err = NotWorkers;

    fn from_str(text: &str) -> Result<Self, NotWorkers> {
        let wrong = || NotWorkers(text.to_owned());
        let is_signed = text.starts_with(['+', '-']);
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let scale = match is_signed {
            true => Scale::By(text.parse().map_err(|_| wrong())?),
            false => Scale::To(text.parse().map_err(|_| wrong())?),
        };
        Ok(Self(scale))
    }
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Scale::To(number) => number.fmt(f),
            Scale::By(difference) => write!(f, "{difference:+}"),
        }
    }
}

impl Serialize for Workers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Scale::To(number) => serializer.serialize_u32(number),
            Scale::By(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number, or a text such as \"+1\"")]
        enum Written {
            Number(u32),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(Self(Scale::To(number))),
            Written::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

/// The port that an exchange names in its header.
///
/// # Errors
/// What is there is no port.
pub fn port_of(header: &str) -> Result<WorkerPort, Problem> {
    let port = header.parse().ok().filter(|&port| port > 0).map(WorkerPort);
    port.ok_or_else(|| Problem::new(Code::BadRequest, format!("{PORT_HEADER}: {header}: not a port")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::supervisor::events::Asker;

    #[test]
    fn paths_name_what_they_say() {
        let app = || "web".to_owned();
        let exchange = |path: &str| Route::Exchange { app: app(), worker: Slot(2), path: path.to_owned() };
        let table = [
            ("/v1/apps", Some(Route::Apps)),
            ("/v1/apps/web", Some(Route::App(app()))),
            ("/v1/apps/web/reload", Some(Route::Command(app(), Verb::Reload))),
            ("/v1/apps/web/scale", Some(Route::Command(app(), Verb::Scale))),
            ("/v1/events", Some(Route::Events(None))),
            ("/v1/events?app=web", Some(Route::Events(Some(app())))),
            ("/v1/events?x=1&app=web", Some(Route::Events(Some(app())))),
            ("/v1/events?app=", Some(Route::Events(None))),
            ("/v1/apps/web/workers/2/http/", Some(exchange("/"))),
            ("/v1/apps/web/workers/2/http/a/b//c?d=e", Some(exchange("/a/b//c?d=e"))),
            ("/v1/apps/web/workers/2/http", None),
            ("/v1/apps/web/workers/0/http/", None),
            ("/v1/apps/web/workers/two/http/", None),
            ("/v1/apps/web/workers/2/https/", None),
            ("/v1/apps/web/nothing", None),
            ("/v1/apps/web/reload/now", None),
            ("/v1/apps/", None),
            ("/v1/appsweb", None),
            ("/v2/apps", None),
            ("/", None),
            ("", None),
        ];
        for (text, expected) in table {
            let (path, query) =
                text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
            assert_eq!(Route::parse(path, query), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_read_and_what_is_written_is_read_back(path in "(/|v1|apps|web|workers|2|http|events|.){0,12}") {
            if let Some(route) = Route::parse(&path, None) {
                prop_assert_eq!(Route::parse(&route.to_string(), None), Some(route));
            }
        }
    }

    #[test]
    fn a_command_comes_back_from_its_verb_and_body() {
        for command in [
            Command::Reload,
            Command::Restart(None),
            Command::Restart(Some(Slot(3))),
            Command::Scale(Scale::To(4)),
            Command::Scale(Scale::By(1)),
            Command::Scale(Scale::By(-2)),
            Command::Stop,
            Command::Start,
        ] {
            assert_eq!(command_of(Verb::of(command), &body_of(command)), Ok(command));
        }
    }

    #[test]
    fn a_body_is_read_strictly() {
        let good: [(Verb, &str, Command); 5] = [
            (Verb::Reload, "", Command::Reload),
            (Verb::Stop, " \n", Command::Stop),
            (Verb::Restart, "{}", Command::Restart(None)),
            (Verb::Restart, r#"{"worker":2}"#, Command::Restart(Some(Slot(2)))),
            (Verb::Scale, r#"{"workers":"4"}"#, Command::Scale(Scale::To(4))),
        ];
        for (verb, body, command) in good {
            assert_eq!(command_of(verb, body.as_bytes()), Ok(command), "{body}");
        }
        for (verb, body) in [
            (Verb::Reload, r#"{"worker":2}"#),
            (Verb::Start, "[1]"),
            (Verb::Restart, r#"{"worker":-1}"#),
            (Verb::Restart, r#"{"wroker":2}"#),
            (Verb::Scale, ""),
            (Verb::Scale, r#"{"workers":"many"}"#),
            (Verb::Scale, r#"{"workers":-1}"#),
            (Verb::Scale, r#"{"workers":"+99999999999"}"#),
            (Verb::Scale, "\u{0}"),
        ] {
            let problem = command_of(verb, body.as_bytes()).expect_err(body);
            assert_eq!(problem.code, Code::BadRequest);
            assert!(problem.help.is_some());
        }
    }

    #[test]
    fn a_refusal_keeps_its_words_and_has_a_status() {
        let by = Asker::Command { pid: 5, uid: 0 };
        let table = [
            (Refused::Busy { by }, 409, "busy"),
            (Refused::Stopping, 503, "stopping"),
            (Refused::Stopped, 409, "stopped"),
            (Refused::OutOfRange { asked: 0 }, 400, "bad-request"),
            (Refused::Configuration("a port is missing".to_owned()), 422, "configuration"),
            (Refused::NoWorker(Slot(9)), 404, "not-found"),
        ];
        for (refused, status, code) in table {
            let words = refused.to_string();
            let problem = Problem::from(refused);
            assert_eq!(problem.code.status(), status);
            assert_eq!(problem.to_string(), words);
            let json = serde_json::to_value(Refusal { error: problem.clone() }).unwrap();
            assert_eq!(json["error"]["code"], code);
            assert_eq!(serde_json::from_value::<Refusal>(json).unwrap().error, problem);
        }
    }

    #[test]
    fn the_last_line_of_a_command_is_told_from_an_event() {
        let done = Outcome::Done("reloaded 4 workers".to_owned());
        let text = serde_json::to_string(&done).unwrap();
        assert_eq!(text, r#"{"done":"reloaded 4 workers"}"#);
        assert_eq!(serde_json::from_str::<Outcome>(&text).unwrap(), done);
        let failed = Failed { reason: "it crashed".to_owned(), last_lines: vec!["boom".to_owned()] };
        let text = serde_json::to_string(&Outcome::Error(failed.into())).unwrap();
        assert_eq!(text, r#"{"error":{"code":"failed","message":"it crashed","last_lines":["boom"]}}"#);
        let event =
            r#"{"time":"2026-11-20T13:14:40.118Z","app":"web","event":"scaled","workers":1,"by":"cron"}"#;
        assert!(serde_json::from_str::<Outcome>(event).is_err());
    }
}
