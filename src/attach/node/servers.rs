//! The servers of one Node worker, each with where its connections come from.
//!
//! It tells nobody anything: what follows when a server comes, listens or goes is the session's.

use std::collections::BTreeMap;
use std::io;

use tokio::sync::{mpsc, oneshot};

use super::offers::Offers;
use super::relay::{Answer, Doing, Offer, Recipient, Relay};
use super::snapshot::{PassingSnapshot, RelayPosition, RelaySnapshot, ServerSnapshot, SupplySnapshot, wrong};
use crate::carry::{CarriedFd, CarriedFds, Still};
use crate::front::links::Holder;
use crate::ids::{LinkId, WorkerId};
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
        /// How far it is.
        passing: Passing,
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

/// How far a relay is.
#[derive(Debug)]
pub(super) enum Passing {
    /// It begins when the server listens, on the other end of the channel.
    NotBegun(ForeignFd),
    /// It runs, unless its channel has ended.
    Begun(Relay),
    /// It passes nothing on any more.
    Ended,
}

/// What is to be done for a server that listens by now.
#[derive(Debug)]
pub(super) enum Begin {
    /// Relay connections from this channel to the server with this key.
    Relay {
        /// The key.
        key: String,
        /// The channel.
        link: LinkId,
        /// The worker's end of it.
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
        if let Supply::Relay { passing, .. } = self {
            *passing = Passing::Ended;
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
                Supply::Relay { link, port, passing } if is_it(*port) => {
                    Some(Begin::Relay { key: key.clone(), link: *link, worker_end: passing.begin()? })
                }
                Supply::Shared { link, port } if is_it(*port) => Some(Begin::Share(*link)),
                Supply::Relay { .. } | Supply::Shared { .. } | Supply::Channel(..) | Supply::Other => None,
            }
        });
        begins.collect()
    }

    /// The relay of this server runs.
    pub(super) fn relayed_by(&mut self, key: &str, relay: Relay) {
        if let Some(Server { supply: Supply::Relay { passing, .. }, .. }) = self.0.get_mut(key) {
            *passing = Passing::Begun(relay);
        }
    }

    /// The relays do nothing until what is returned is dropped. Those that are missing have ended.
    pub(super) async fn stand_still(&self) -> BTreeMap<LinkId, Still<RelaySnapshot>> {
        let mut relays = BTreeMap::new();
        for server in self.0.values() {
            if let Supply::Relay { link, passing: Passing::Begun(relay), .. } = &server.supply
                && let Some(still) = relay.stand_still().await
            {
                relays.insert(*link, still);
            }
        }
        relays
    }

    /// As they are written down, while their relays stand still.
    pub(super) fn snapshot(
        &self,
        relays: &BTreeMap<LinkId, Still<RelaySnapshot>>,
        offers: &Offers,
    ) -> Vec<ServerSnapshot> {
        self.0.values().map(|server| server.snapshot(relays, offers)).collect()
    }

    /// One of those that were written down.
    ///
    /// # Errors
    /// It is there already.
    pub(super) fn rejoin(&mut self, server: Server) -> io::Result<()> {
        if self.has(&server.query.key()) {
            return Err(wrong("a worker has two servers of one address"));
        }
        self.join(server.query, server.supply);
        Ok(())
    }
}

impl Passing {
    /// As it is written down, where its `relay` tells this.
    fn snapshot(&self, link: LinkId, relay: Option<RelaySnapshot>, offers: &Offers) -> PassingSnapshot {
        match (self, relay) {
            (Passing::NotBegun(worker_end), _) => {
                PassingSnapshot::NotBegun { worker_end: CarriedFd::of(worker_end) }
            }
            // What the worker was not told of yet is offered again.
            (Passing::Begun(_), Some(RelaySnapshot { channel, position: RelayPosition::Offered }))
                if !offers.has_from(link) =>
            {
                PassingSnapshot::Begun(RelaySnapshot { channel, position: RelayPosition::Looking })
            }
            (Passing::Begun(_), Some(relay)) => PassingSnapshot::Begun(relay),
            (Passing::Begun(_) | Passing::Ended, _) => PassingSnapshot::Ended,
        }
    }

    /// The channel of a relay that has not begun, and that begins now.
    fn begin(&mut self) -> Option<ForeignFd> {
        match std::mem::replace(self, Passing::Ended) {
            Passing::NotBegun(worker_end) => Some(worker_end),
            other => {
                *self = other;
                None
            }
        }
    }
}

/// What a relay that goes on depends on.
#[derive(Debug)]
pub(super) struct Relaying<'a> {
    pub worker: WorkerId,
    pub offers: &'a mut Offers,
    /// What becomes of the connections that were offered, by the channel of each.
    pub told: BTreeMap<LinkId, oneshot::Receiver<Answer>>,
    /// Where connections are offered.
    pub offered: mpsc::Sender<Offer>,
}

impl Server {
    /// As it is written down. A relay that is not among these has ended.
    pub(super) fn snapshot(
        &self,
        relays: &BTreeMap<LinkId, Still<RelaySnapshot>>,
        offers: &Offers,
    ) -> ServerSnapshot {
        let supply = match &self.supply {
            Supply::Channel(link, Holder { inode, pid }) => {
                SupplySnapshot::Channel { link: *link, inode: *inode, pid: *pid }
            }
            Supply::Relay { link, port, passing } => {
                let relay = relays.get(link).map(|relay| relay.state.clone());
                SupplySnapshot::Relay {
                    link: *link,
                    port: *port,
                    passing: passing.snapshot(*link, relay, offers),
                }
            }
            Supply::Shared { link, port } => SupplySnapshot::Shared { link: *link, port: *port },
            Supply::Other => SupplySnapshot::Other,
        };
        ServerSnapshot { query: (&self.query).into(), supply }
    }

    /// As it was: a relay goes on.
    ///
    /// # Errors
    /// What was written down cannot be, or a descriptor was not carried.
    pub(super) fn restore(
        ServerSnapshot { query, supply }: ServerSnapshot,
        relaying: &mut Relaying<'_>,
        fds: &CarriedFds,
    ) -> io::Result<Self> {
        let query = Query::try_from(query)?;
        let supply = match supply {
            SupplySnapshot::Channel { link, inode, pid } if pid >= 0 => {
                Supply::Channel(link, Holder { inode, pid })
            }
            SupplySnapshot::Channel { .. } => return Err(wrong("a process has a number below zero")),
            SupplySnapshot::Relay { link, port, passing } => {
                let passing = relaying.restore(passing, (&query, link), fds)?;
                Supply::Relay { link, port, passing }
            }
            SupplySnapshot::Shared { link, port } => Supply::Shared { link, port },
            SupplySnapshot::Other => Supply::Other,
        };
        Ok(Self { query, supply })
    }
}

impl Relaying<'_> {
    fn restore(
        &mut self,
        passing: PassingSnapshot,
        (query, link): (&Query, LinkId),
        fds: &CarriedFds,
    ) -> io::Result<Passing> {
        Ok(match passing {
            PassingSnapshot::NotBegun { worker_end } => Passing::NotBegun(fds.take(worker_end)?.into()),
            PassingSnapshot::Begun(RelaySnapshot { channel, position }) => {
                let (channel, doing) = (fds.take(channel)?.into(), self.doing(link, position)?);
                let recipient = Recipient { worker: self.worker, key: query.key(), link };
                Passing::Begun(Relay::go_on(recipient, channel, self.offered.clone(), doing))
            }
            PassingSnapshot::Ended => Passing::Ended,
        })
    }

    fn doing(&mut self, link: LinkId, position: RelayPosition) -> io::Result<Doing> {
        Ok(match position {
            RelayPosition::Looking => Doing::Looking,
            RelayPosition::Offered => {
                let told = self.told.remove(&link);
                Doing::Offered(
                    told.ok_or_else(|| wrong("nothing is known of a connection that was offered"))?,
                )
            }
            RelayPosition::Declining => Doing::Declining(None),
            RelayPosition::DecliningStuck => Doing::Declining(Some(self.offers.moving())),
            RelayPosition::Stuck => Doing::Stuck(self.offers.moving()),
        })
    }
}
