//! The servers of one Node worker, each with where its connections come from.
//!
//! It tells nobody anything: what follows when a server comes, listens or goes is the session's.

use std::collections::BTreeMap;
use tokio::task::AbortHandle;

use crate::front::links::Holder;
use crate::ids::LinkId;
use crate::protocol::node::Query;
use crate::sys::closer::ForeignFd;

/// How many servers one worker may have.
const MOST: usize = 256;

/// The servers, by the keys of their queries.
#[derive(Debug, Default)]
pub(super) struct ServerTable(BTreeMap<String, Server>);

/// A server of the worker.
#[derive(Debug)]
pub(super) struct Server {
    /// What it asked for.
    pub query: Query,
    /// How it gets its connections.
    pub supply: Supply,
}

/// How a server gets its connections.
#[derive(Debug)]
pub(super) enum Supply {
    /// From a channel of the attach protocol, on which the shim says that it listens; and who holds it.
    Channel(LinkId, Holder),
    /// From a relay, which begins when the server listens.
    Relay {
        /// The relay's channel.
        link: LinkId,
        /// The port that it got.
        port: u16,
        /// The other end of the channel, until the relay has it.
        worker_end: Option<ForeignFd>,
        /// The relay.
        relay: Option<AbortHandle>,
    },
    /// It accepts by itself, from a socket that the front keeps.
    Shared {
        /// Its place among all that listen.
        link: LinkId,
        /// The port that it got.
        port: u16,
    },
    /// It has a socket of which the front does not know.
    Other,
}

/// What is to be done for a server that listens by now.
#[derive(Debug)]
pub(super) enum Begin {
    /// Relay connections from this channel to the server with this key.
    Relay {
        /// The key.
        key: String,
        /// The channel.
        worker_end: ForeignFd,
    },
    /// Tell the front that it listens.
    Share(LinkId),
}

impl Supply {
    /// What the front knows it by.
    pub(super) fn link(&self) -> Option<LinkId> {
        match self {
            Supply::Channel(link, _) | Supply::Relay { link, .. } | Supply::Shared { link, .. } => {
                Some(*link)
            }
            Supply::Other => None,
        }
    }

    /// No connection is relayed to it any more.
    pub(super) fn stop_relay(&mut self) {
        if let Supply::Relay { relay: Some(relay), .. } = self {
            relay.abort();
        }
    }
}

impl ServerTable {
    /// Whether a server with this query may join: there are not too many, and none excludes it.
    pub(super) fn may_join(&self, query: &Query) -> bool {
        self.0.len() < MOST && !self.0.values().any(|server| server.query.excludes(query))
    }

    /// A server has been given its supply.
    pub(super) fn join(&mut self, query: Query, supply: Supply) {
        self.0.insert(query.key(), Server { query, supply });
    }

    /// A server is gone.
    pub(super) fn leave(&mut self, key: &str) -> Option<Server> {
        self.0.remove(key)
    }

    /// Whether there is a server with this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Those that get their connections over Node's channel are gone.
    pub(super) fn clear_relayed(&mut self) -> impl Iterator<Item = (String, Server)> + use<> {
        let is_relayed = |server: &Server| matches!(server.supply, Supply::Relay { .. });
        let (relayed, others) =
            std::mem::take(&mut self.0).into_iter().partition(|(_, server)| is_relayed(server));
        self.0 = others;
        relayed.into_iter()
    }

    /// All of them are gone.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = (String, Server)> + use<> {
        std::mem::take(&mut self.0).into_iter()
    }

    /// What is to begin now that the server which asked `query` listens. Who asked for any port tells which it got, so that
    /// the query alone would not be found.
    pub(super) fn listens(&mut self, query: &Query) -> Vec<Begin> {
        let asked = query.key();
        let begins = self.0.iter_mut().filter_map(|(key, server)| {
            let any_port = server.query.port == 0;
            let is_it = |port: u16| *key == asked || (any_port && i64::from(port) == query.port);
            match &mut server.supply {
                Supply::Relay { port, worker_end, .. } if is_it(*port) => {
                    let worker_end = worker_end.take()?;
                    Some(Begin::Relay { key: key.clone(), worker_end })
                }
                Supply::Shared { link, port } if is_it(*port) => Some(Begin::Share(*link)),
                Supply::Relay { .. } | Supply::Shared { .. } | Supply::Channel(..) | Supply::Other => None,
            }
        });
        begins.collect()
    }

    /// The relay of this server runs.
    pub(super) fn relayed_by(&mut self, key: &str, handle: AbortHandle) {
        if let Some(Server { supply: Supply::Relay { relay, .. }, .. }) = self.0.get_mut(key) {
            *relay = Some(handle);
        }
    }
}
