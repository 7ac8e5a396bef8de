//! The primaries that are compared: how each is started, with its workers, and ended.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::Pid;

use crate::load::Exchange;
use crate::{Options, bare, process, worker};

/// How long a primary may take to serve its first connection.
const START: Duration = Duration::from_secs(20);
/// How long a primary may take to end.
const END: Duration = Duration::from_secs(10);
/// Between two looks at a primary that starts or ends.
const GLANCE: Duration = Duration::from_millis(10);

/// Node's cluster of the least of a web server, and that server alone.
const NODE_CLUSTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/handoff/cluster.js");
const NODE_APP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/handoff/app.js");

/// Which primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// accept, sendmsg, close.
    Bare,
    /// The `clusterd` command.
    Clusterd,
    /// Node's own cluster.
    Node,
    /// The `clusterd` command with the very application of Node's own cluster.
    ClusterdNode,
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "bare" => Ok(Kind::Bare),
            "clusterd" => Ok(Kind::Clusterd),
            "node" => Ok(Kind::Node),
            "clusterd-node" => Ok(Kind::ClusterdNode),
            _ => anyhow::bail!("no primary is called {name:?}: choose from {}", crate::PRIMARIES),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Bare => "bare loop",
            Kind::Clusterd => "clusterd",
            Kind::Node => "node cluster",
            Kind::ClusterdNode => "clusterd node",
        })
    }
}

impl Kind {
    /// Whether its workers are Node's.
    pub(crate) fn needs_node(self) -> bool {
        matches!(self, Kind::Node | Kind::ClusterdNode)
    }
}

/// A running primary with its workers, ended when it is dropped.
pub(crate) struct Primary {
    kind: Kind,
    child: Child,
    address: SocketAddr,
}

impl Primary {
    /// Starts a primary and waits until it serves; `None` if it is not installed.
    pub(crate) fn start(kind: Kind, options: &Options) -> anyhow::Result<Option<Self>> {
        if kind.needs_node() && !has_node() {
            return Ok(None);
        }
        let address = free_address()?;
        let (port, workers) = (address.port().to_string(), options.workers.to_string());
        let mut command = match kind {
            Kind::Bare => Command::new(std::env::current_exe()?),
            Kind::Clusterd | Kind::ClusterdNode => Command::new(env!("CARGO_BIN_EXE_clusterd")),
            Kind::Node => Command::new("node"),
        };
        match kind {
            Kind::Bare => command.args([bare::ROLE, &port, &workers]),
            Kind::Clusterd => {
                clusterd(&mut command, address, &workers).arg(std::env::current_exe()?).arg(worker::ROLE)
            }
            Kind::Node => command.args([NODE_CLUSTER, &port, &workers]),
            Kind::ClusterdNode => clusterd(&mut command, address, &workers).args(["node", NODE_APP, &port]),
        };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.with_context(|| format!("cannot start {kind}"))?;
        let mut primary = Self { kind, child, address };
        primary.await_service()?;
        Ok(Some(primary))
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What clients say to its workers, and hear.
    pub(crate) fn exchange(&self) -> Exchange {
        match self.kind {
            Kind::Bare | Kind::Clusterd => Exchange { request: b"", answer: b"x" },
            Kind::Node | Kind::ClusterdNode => {
                Exchange { request: b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n", answer: b"HTTP/1.1 200 OK" }
            }
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn await_service(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        while !is_served(self.address, self.exchange()) {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("{} ended before it served anything: {status}", self.kind);
            }
            anyhow::ensure!(Instant::now() < deadline, "{} serves nothing within {START:?}", self.kind);
            thread::sleep(GLANCE);
        }
        Ok(())
    }
}

impl Drop for Primary {
    /// The workers of each end with it.
    fn drop(&mut self) {
        process::end(&mut self.child, END);
    }
}

/// What every clusterd is started with, up to the workers' command.
fn clusterd<'a>(command: &'a mut Command, address: SocketAddr, workers: &str) -> &'a mut Command {
    command.env("CLUSTERD_LOG_LEVEL", "warn");
    command.args(["--bind", &address.to_string(), "--workers", workers, "--"])
}

fn has_node() -> bool {
    let mut command = Command::new("node");
    let status = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn is_served(address: SocketAddr, exchange: Exchange) -> bool {
    let answered = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(exchange.request)?;
        stream.read_exact(&mut [0])
    };
    answered().is_ok()
}
