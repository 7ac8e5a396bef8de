//! The table: a row is a name and a configuration, and becomes a test.

mod compiled;
mod daemons;
mod data;
mod javascript;
mod languages;
mod python;
mod unpreloaded;
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

        $crate::servers::table::intercepted! { $($name => $server;)+ }
    };
}
use servers;

/// Makes a test with `--attach seccomp` of each row.
macro_rules! intercepted {
    ($($(#[$doc:meta])* $name:ident => $server:expr;)+) => {
        /// With `--attach seccomp`.
        mod seccomp {
            #[allow(unused_imports, reason = "some tables have only rows without anything of their own")]
            use super::*;

            $($(#[$doc])* #[test] fn $name() { $crate::servers::proof::prove_intercepted(&$server); })+
        }
    };
}
use intercepted;

use super::server::Server;
