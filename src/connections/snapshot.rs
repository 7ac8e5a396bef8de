//! What the room hands to the next image of clusterd: who has which connection, and where to look for it.
//!
//! What is not in it is found again: who waits for an answer, for ends, or until a worker is drained, asks again; ends that
//! nobody heard of meanwhile show in the lists, as those do whose events were lost; and with the lists come the figures.

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::notes::{Client, Micros, Note};
use crate::carry::Moment;
use crate::ids::WorkerId;

/// What the thread of the room knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnectionsSnapshot {
    /// What was noted of connections that have not ended.
    pub(super) noted: Vec<NotedSnapshot>,
    /// The workers that are not gone.
    pub(super) groups: Vec<GroupSnapshot>,
    /// Whether each connection that a worker has was noted.
    pub(super) notes_all: bool,
    /// Ports that are served no more, and may still have connections.
    pub(super) left_ports: Vec<u16>,
}

impl ConnectionsSnapshot {
    pub(super) fn began(&mut self, worker: WorkerId, group: Pid) {
        self.gone(worker);
        self.groups.push(GroupSnapshot { worker, group: group.as_raw_pid() });
    }

    pub(super) fn gone(&mut self, worker: WorkerId) {
        self.groups.retain(|known| known.worker != worker);
    }
}

/// What is known of a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NotedSnapshot {
    pub(super) cookie: u64,
    pub(super) worker: Option<WorkerId>,
    pub(super) client: Client,
    pub(super) accepted: Moment,
    pub(super) waited: Micros,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_freed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) missing_since: Option<Moment>,
}

/// The process group of a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupSnapshot {
    pub(super) worker: WorkerId,
    pub(super) group: i32,
}

/// What was noted, and not read yet.
///
/// The ports that are served are not in it: who serves them says so again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NotesSnapshot {
    /// In the order in which they were made.
    pub(super) notes: Vec<Note>,
    /// How many were not kept.
    pub(super) dropped: u64,
    /// The ports that were served until this was last read.
    pub(super) left_ports: Vec<u16>,
}

/// What `--connection-stats` has counted of connections that have not ended. The sums are metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StatisticsSnapshot {
    pub(super) counted: Vec<CountedSnapshot>,
}

/// What was counted of one connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CountedSnapshot {
    pub(super) cookie: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) retransmitted: u64,
    pub(super) seen: Moment,
}
