//! The table: a row is a name and a configuration, and becomes a test.

mod compiled;
mod daemons;
mod data;
mod javascript;
mod languages;
mod python;
mod web;

/// Makes a test of each row.
macro_rules! servers {
    ($($(#[$doc:meta])* $name:ident => $server:expr;)+) => {
        $($(#[$doc])* #[test] fn $name() { $crate::servers::proof::prove(&$server); })+

        /// With `--accept workers`.
        mod accepting {
            #[allow(unused_imports, reason = "some tables have only rows without anything of their own")]
            use super::*;

            $(#[test] fn $name() { $crate::servers::proof::prove_accepting(&$server); })+
        }
    };
}
use servers;

use super::server::Server;
