//! The paths of the control socket, as the client asks for them, and its headers.
//!
//! The server's side of them is the router's.

use std::fmt;

use super::super::app_name::encoded;
use super::{Code, Problem, Verb};
use crate::ids::{Slot, WorkerPort};

/// The header that names the port of the worker which an exchange is for; without it, the first is meant.
pub(crate) const PORT_HEADER: &str = "clusterd-port";

/// The header of an answer that is a worker's own, with its number. An answer without it is clusterd's.
pub(crate) const WORKER_HEADER: &str = "clusterd-worker";

/// A path, in which the names of apps are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path<'a> {
    /// `/v1/apps`: every app.
    Apps,
    /// `/v1/apps?traffic=true`: every app, with what passes through it.
    AppsWithTraffic,
    /// `/v1/apps/{app}`: one of them.
    App(&'a str),
    /// `/v1/apps/{app}?environment=true`: the same, with what its workers were given.
    AppWithEnvironment(&'a str),
    /// `/v1/apps/{app}/live`: the same as it changes.
    Live(&'a str),
    /// `/v1/apps/{app}/{verb}`: a command to it.
    Command(&'a str, Verb),
    /// `/v1/apps/{app}/connections`: its open connections; `?worker=` those of one worker.
    Connections(&'a str, Option<Slot>),
    /// `/v1/events`: the events of every app; `?app=` of one.
    Events(Option<&'a str>),
    /// `/v1/events?app=…&past=true`: those of one, after the last ones that happened before.
    EventsWithPast(&'a str),
    /// `/v1/apps/{app}/workers/{n}/http/{path}`: an HTTP exchange with one worker.
    Exchange {
        /// The app.
        app: &'a str,
        /// Its worker.
        worker: Slot,
        /// What the worker is asked for, from the `/` on.
        path: &'a str,
    },
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Apps => f.write_str("/v1/apps"),
            Path::AppsWithTraffic => f.write_str("/v1/apps?traffic=true"),
            Path::App(app) => write!(f, "/v1/apps/{}", encoded(app)),
            Path::AppWithEnvironment(app) => write!(f, "/v1/apps/{}?environment=true", encoded(app)),
            Path::Live(app) => write!(f, "/v1/apps/{}/live", encoded(app)),
            Path::Command(app, verb) => write!(f, "/v1/apps/{}/{}", encoded(app), verb.name()),
            Path::Connections(app, None) => write!(f, "/v1/apps/{}/connections", encoded(app)),
            Path::Connections(app, Some(worker)) => {
                write!(f, "/v1/apps/{}/connections?worker={worker}", encoded(app))
            }
            Path::EventsWithPast(app) => write!(f, "/v1/events?app={}&past=true", encoded(app)),
            Path::Events(None) => f.write_str("/v1/events"),
            Path::Events(Some(app)) => write!(f, "/v1/events?app={}", encoded(app)),
            Path::Exchange { app, worker, path } => {
                write!(f, "/v1/apps/{}/workers/{worker}/http{path}", encoded(app))
            }
        }
    }
}

/// The port that an exchange names in its header.
///
/// # Errors
/// What is there is no port.
pub(crate) fn port_of(header: &str) -> Result<WorkerPort, Problem> {
    let port = header.parse().ok().filter(|&port| port > 0).map(WorkerPort);
    port.ok_or_else(|| Problem::new(Code::BadRequest, format!("{PORT_HEADER}: {header}: not a port")))
}
