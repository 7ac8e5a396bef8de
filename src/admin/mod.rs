//! `/metrics`, `/livez` and `/readyz` over HTTP.
//!
//! It only answers: no request changes anything.

pub mod collect;
#[cfg(test)]
mod lint;
mod own_process;
mod readiness;
mod routes;
mod serve;

pub use readiness::Readiness;
pub use serve::{Admin, AdminState, BindError};
