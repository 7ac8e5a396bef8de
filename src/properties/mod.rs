//! What must hold whatever others send or write: one function a target of `fuzz/`, which its unit tests run without a fuzzer.
//!
//! Each takes any bytes and panics where its property does not hold. Compiled with the feature `internal` only.

pub mod api_body;
pub mod attach_wire;
pub mod env_file;
pub mod home_state;
pub mod import;
pub mod listen_fds;
pub mod settings_file;
pub mod snapshot;
mod told;

#[cfg(test)]
mod tests;
