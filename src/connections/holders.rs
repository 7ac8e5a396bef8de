//! Which connections the processes of a worker hold, by their descriptors.
//!
//! A worker's processes are its group, what descends from that, and what clusterd has adopted of it: nobody else is looked
//! at, unless the kernel does not tell whose children there are (CONFIG_PROC_CHILDREN).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::ControlFlow;

use rustix::process::Pid;

use super::snapshot::GroupSnapshot;
use crate::ids::WorkerId;
use crate::sys::kin::{self, Kinship, SpareDescriptors};
use crate::sys::mark::{Family, Mark};

/// What leads to the processes of the workers.
#[derive(Debug)]
pub(super) struct Holders {
    groups: BTreeMap<WorkerId, Pid>,
    family: Family,
    spare: SpareDescriptors,
}

/// What is looked up once, for all workers that are looked at together.
#[derive(Debug)]
pub(super) struct Kin {
    kinship: Kinship,
    /// What clusterd has adopted, and whose it was.
    adopted: Vec<(i32, Origin)>,
}

#[derive(Clone, Copy, Debug)]
struct Origin {
    group: i32,
    mark: Option<Mark>,
}

/// What the processes of a worker hold of what was looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Inodes; not all if it was enough to find one.
    pub(super) sockets: BTreeSet<u64>,
    /// One of them lets nobody look into it.
    pub(super) is_closed: bool,
    /// One of them has an io_uring, which may hold sockets that have no descriptor.
    pub(super) has_ring: bool,
}

impl Holders {
    /// Nobody yet. What leaves its process group has a mark of this family.
    pub(super) fn new(family: Family) -> Self {
        Self { groups: BTreeMap::new(), family, spare: SpareDescriptors::keep() }
    }

    /// What the next image of clusterd has to know of them.
    pub(super) fn snapshot(&self) -> Vec<GroupSnapshot> {
        let groups = self.groups.iter();
        groups.map(|(&worker, group)| GroupSnapshot { worker, group: group.as_raw_pid() }).collect()
    }

    /// These workers are there.
    ///
    /// # Errors
    /// One has a group that can be none.
    pub(super) fn restore(&mut self, groups: Vec<GroupSnapshot>) -> io::Result<()> {
        for GroupSnapshot { worker, group } in groups {
            let valid = Some(group).filter(|group| *group > 0).and_then(Pid::from_raw);
            let group = valid.ok_or_else(|| io::Error::other(format!("{group} is no process group")))?;
            self.began(worker, group);
        }
        Ok(())
    }

    /// A worker's first process leads this group.
    pub(super) fn began(&mut self, worker: WorkerId, group: Pid) {
        self.groups.insert(worker, group);
    }

    /// A worker is gone.
    pub(super) fn gone(&mut self, worker: WorkerId) {
        self.groups.remove(&worker);
    }

    /// The workers that are not gone.
    pub(super) fn workers(&self) -> Vec<WorkerId> {
        self.groups.keys().copied().collect()
    }

    /// What is needed to look into several workers at one moment.
    ///
    /// # Errors
    /// /proc cannot be read: nothing is known.
    pub(super) fn kin(&mut self) -> io::Result<Kin> {
        let leaders: BTreeSet<i32> = self.groups.values().map(|group| group.as_raw_pid()).collect();
        self.spare.lend(|| {
            let kinship = Kinship::look()?;
            let me = rustix::process::getpid().as_raw_pid();
            let mut adopted = Vec::new();
            for child in kinship.children(me)? {
                if !leaders.contains(&child)
                    && let Some(relation) = kin::relation(child)?
                {
                    adopted.push((child, Origin { group: relation.group, mark: Mark::read(child)? }));
                }
            }
            Ok(Kin { kinship, adopted })
        })
    }

    /// Which of the wanted sockets the processes of a worker hold; one of them is enough unless `all` are asked for. Nothing of
    /// a worker that is gone.
    ///
    /// # Errors
    /// /proc cannot be read: nothing is known.
    pub(super) fn held(
        &mut self,
        kin: &Kin,
        worker: WorkerId,
        wanted: &BTreeSet<u64>,
        all: bool,
    ) -> io::Result<Held> {
        let Some(group) = self.groups.get(&worker).map(|group| group.as_raw_pid()) else {
            return Ok(Held::default());
        };
        let mark = Some(self.family.member(worker.launch));
        let adopted = kin.adopted.iter().filter(|(_, origin)| origin.group == group || origin.mark == mark);
        let heads: Vec<i32> = adopted.map(|&(pid, _)| pid).chain([group]).collect();
        self.spare.lend(|| {
            let mut held = Held::default();
            for pid in kin.kinship.family(heads.iter().copied())? {
                let seen = kin::each_socket(pid, |inode| {
                    if wanted.contains(&inode) {
                        held.sockets.insert(inode);
                        if !all {
                            return ControlFlow::Break(());
                        }
                    }
                    ControlFlow::Continue(())
                })?;
                held.is_closed |= seen.is_closed;
                held.has_ring |= seen.has_ring;
                if !all && !held.sockets.is_empty() {
                    break;
                }
            }
            Ok(held)
        })
    }
}
