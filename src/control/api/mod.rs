//! The messages of the control socket: paths, requests, answers and refusals, for the server and for the client alike.
//!
//! It carries nothing out. Every path begins with `/v1`, and every body is JSON: an object, or (a stream of progress
//! or of events) one object a line.

mod command;
mod connection;
mod live;
mod number;
#[cfg(feature = "internal")]
pub mod openapi;
mod path;
mod problem;
mod state;
mod traffic;

pub(crate) use self::command::{Verb, body_of, command_of};
pub(crate) use self::connection::Connection;
pub(crate) use self::live::{Happened, History, Live, Tick};
pub(crate) use self::number::Workers;
pub(crate) use self::path::{PORT_HEADER, Path, WORKER_HEADER, port_of};
pub(crate) use self::problem::{Code, Outcome, Problem, Refusal};
pub(crate) use self::state::{Accept, Address, App, Apps, Moved, Upgrade, Worker};
pub(crate) use self::traffic::{Bucket, Histogram, ListenQueue, Traffic};

/// The content type of a stream of objects, each on a line of its own.
pub(crate) const JSON_LINES: &str = "application/jsonl";
