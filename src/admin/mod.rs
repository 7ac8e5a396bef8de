//! `/metrics`, `/livez` and `/readyz` over HTTP.
//!
//! It only answers questions: nothing that is asked here changes anything.

mod answer;
pub mod collect;
#[cfg(test)]
mod lint;
mod own_process;
mod readiness;
mod serve;

pub use readiness::Readiness;
pub use serve::{Admin, AdminState, BindError};
