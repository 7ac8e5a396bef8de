//! `/metrics`, `/livez` and `/readyz` over HTTP; and `/`, which is the [page](crate::web) of this app.
//!
//! It only answers: no request changes anything.

pub(crate) mod collect;
#[cfg(test)]
mod lint;
pub(crate) mod listen_queues;
mod network_namespace;
pub(crate) mod open_connections;
mod own_process;
pub(crate) mod pace;
mod readiness;
mod routes;
mod serve;

pub(crate) use readiness::Readiness;
pub(crate) use serve::{Admin, AdminState, BindError, Served, hint as bind_hint};
