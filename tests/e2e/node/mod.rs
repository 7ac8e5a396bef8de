//! clusterd as the primary of Node's cluster workers, against the machine's own `node`.
//!
//! Each guarantee is tested on both ways for connections: `auto`, through the shim's channel given to the worker as a
//! shared handle, and `newconn`, over Node's channel, for workers without the shim.

mod case;
mod children;
mod compatibility;
mod ending;
mod guarantees;
mod leaving;
mod messages;
mod reference;
mod relay;
mod runtimes;
mod sharing;
mod storm;
mod wrappers;

use crate::harness::Cluster;
use crate::harness::setup::Setup;

/// The value of `--attach`, which decides on the way for connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attach {
    /// Channel and shim.
    Auto,
    /// The channel alone.
    Node,
}

impl Attach {
    /// The option for clusterd.
    fn option(self) -> &'static str {
        match self {
            Attach::Auto => "--attach auto",
            Attach::Node => "--attach node",
        }
    }
}

/// Makes two tests of each function that takes an [`Attach`].
macro_rules! both_ways {
    ($($check:ident),+ $(,)?) => {
        $(mod $check {
            #[test]
            fn auto() {
                if $crate::harness::needs::program("node") {
                    super::$check($crate::node::Attach::Auto);
                }
            }

            #[test]
            fn newconn() {
                if $crate::harness::needs::program("node") {
                    super::$check($crate::node::Attach::Node);
                }
            }
        })+
    };
}
use both_ways;

/// Workers that run `fixtures/node/app.js`, which does what its paths tell it.
fn app(attach: Attach) -> Setup {
    Cluster::of("node {fixtures}/node/app.js").options(attach.option())
}
