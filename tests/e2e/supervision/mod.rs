//! Workers that are replaced, scaled, stopped and given up while clients ask: nobody notices.
//!
//! The promises are tested with a server that TERM kills at once (python3) and with Node, to which connections come
//! through the shim or over its own channel (`newconn`).

mod configuration;
mod drain;
mod exits;
mod keep_alive;
mod reload;
mod restarts;
mod scale;
mod stop;
mod storm;
mod versions;

use crate::harness::Cluster;
use crate::harness::setup::Setup;

/// The servers that a promise is tested with. Each does what the paths of its requests tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum App {
    /// `fixtures/server.py`.
    Python,
    /// `fixtures/node/app.js`.
    Node,
    /// The same, without the shim.
    Newconn,
}

impl App {
    fn command(self) -> &'static str {
        match self {
            App::Python => "python3 {fixtures}/server.py",
            App::Node | App::Newconn => "node {fixtures}/node/app.js",
        }
    }

    /// A cluster of it that reloads swiftly: the first new worker need not prove itself for a second.
    fn setup(self) -> Setup {
        self.under(self.command()).options("--min-uptime 100ms")
    }

    /// A cluster of this command, which comes to run it.
    fn under(self, command: &str) -> Setup {
        let attach = if self == App::Newconn { "--attach node" } else { "--attach auto" };
        Cluster::of(command).options(attach)
    }
}

/// Makes a test for each of these apps of each function that takes an [`App`].
macro_rules! tests {
    ($apps:tt $($check:ident),+ $(,)?) => {
        $(mod $check {
            $crate::supervision::tests!(@$check $apps);
        })+
    };
    (@$check:ident [$($app:ident),+]) => {
        $($crate::supervision::tests!(@$check $app);)+
    };
    (@$check:ident python) => { $crate::supervision::tests!(@$check python, "python3", Python); };
    (@$check:ident node) => { $crate::supervision::tests!(@$check node, "node", Node); };
    (@$check:ident newconn) => { $crate::supervision::tests!(@$check newconn, "node", Newconn); };
    (@$check:ident $name:ident, $program:literal, $app:ident) => {
        #[test]
        fn $name() {
            if $crate::harness::needs::program($program) {
                super::$check($crate::supervision::App::$app);
            }
        }
    };
}
use tests;
