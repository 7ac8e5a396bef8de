//! The worker table: how many slots there are, which instances of workers fill them, and how each stands.
//!
//! It starts and stops nothing: [`WorkerTable::step`] says what is to be done.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use rustix::process::Pid;

use super::ends::Ended;
use super::instance::{Instance, Transition};
use super::lifecycle::{Input, State};
use super::rollout::{InstanceId, Standing};
use super::snapshot::{self, TableSnapshot, Wrong};
use super::{Environment, Plan, StartError, Status};
use crate::carry::NotCarried;
use crate::ids::{Slot, WorkerId, WorkerPort};
use crate::logs::LastLines;
use crate::protocol::wire::Token;

/// Every slot and every instance.
pub(super) struct WorkerTable {
    /// How many workers there are to be by now.
    wanted: u32,
    /// Those of them that were stopped by a command, alone.
    kept_empty: BTreeSet<Slot>,
    /// In the order of their slots.
    instances: Vec<Instance>,
    /// How many instances there have been.
    begun: u64,
    restarts: BTreeMap<Slot, u64>,
}

impl WorkerTable {
    pub(super) fn new(wanted: u32) -> Self {
        Self {
            wanted,
            kept_empty: BTreeSet::new(),
            instances: Vec::new(),
            begun: 0,
            restarts: BTreeMap::new(),
        }
    }

    /// As it is written down.
    ///
    /// # Errors
    /// An instance is in a state that passes.
    pub(super) fn snapshot(&self) -> Result<TableSnapshot, NotCarried> {
        let wanted =
            NonZeroU32::new(self.wanted).ok_or_else(|| NotCarried("no worker is wanted".to_owned()))?;
        let common = Environment::common(self.instances.iter().filter_map(Instance::environment));
        let instances = self.instances.iter().map(|instance| instance.snapshot(&common));
        Ok(TableSnapshot {
            wanted,
            kept_empty: self.kept_empty.iter().copied().collect(),
            begun: self.begun,
            restarts: self.restarts.iter().map(|(&slot, &count)| (slot, count)).collect(),
            instances: instances.collect::<Result<_, _>>()?,
            environment: snapshot::variables(&common),
        })
    }

    /// As it was written down, by this plan. What each launch wrote last is among `output`.
    ///
    /// # Errors
    /// It cannot have been so.
    pub(super) fn restore(
        snapshot: TableSnapshot,
        plan: &Arc<Plan>,
        mut output: HashMap<WorkerId, LastLines>,
    ) -> Result<Self, Wrong> {
        snapshot.check()?;
        let TableSnapshot { wanted, kept_empty, begun, restarts, environment, instances } = snapshot;
        let common = snapshot::environment(&environment);
        let restore = |one| Instance::restore(one, (Arc::clone(plan), &common), &mut output);
        let instances = instances.into_iter().map(restore);
        let mut instances = instances.collect::<Result<Vec<_>, _>>()?;
        instances.sort_by_key(Instance::slot);
        Ok(Self {
            wanted: wanted.get(),
            kept_empty: kept_empty.into_iter().collect(),
            instances,
            begun,
            restarts: restarts.into_iter().collect(),
        })
    }

    /// How many workers there are to be.
    pub(super) fn wanted(&self) -> u32 {
        self.wanted
    }

    /// Wants so many from now on; how many were wanted before.
    pub(super) fn resize(&mut self, wanted: u32) -> u32 {
        self.kept_empty.retain(|slot| slot.0 <= wanted);
        std::mem::replace(&mut self.wanted, wanted)
    }

    /// The slots that are to be filled.
    pub(super) fn slots(&self) -> Vec<Slot> {
        self.all_slots().filter(|slot| !self.kept_empty.contains(slot)).collect()
    }

    fn all_slots(&self) -> impl Iterator<Item = Slot> + use<> {
        (1..=self.wanted).map(Slot)
    }

    /// Nobody is to be in this slot.
    pub(super) fn keep_empty(&mut self, slot: Slot) {
        self.kept_empty.insert(slot);
    }

    /// Somebody is to be in this slot again.
    pub(super) fn fill(&mut self, slot: Slot) {
        self.kept_empty.remove(&slot);
    }

    /// The slots that nobody fills, or only somebody who finishes with its clients and by itself. One that was asked to
    /// stop is waited for.
    pub(super) fn vacant(&self) -> Vec<Slot> {
        let leaves_room =
            |state: &State| matches!(state, State::Draining { .. } | State::Leaving { .. } | State::Stopped);
        let is_vacant = |slot: &Slot| self.of_slot(*slot).all(|instance| leaves_room(instance.state()));
        self.slots().into_iter().filter(is_vacant).collect()
    }

    /// How many have a process that is not ready yet.
    pub(super) fn launching(&self) -> usize {
        let is_launching = |instance: &&Instance| matches!(instance.state(), State::Launching { .. });
        self.instances.iter().filter(is_launching).count()
    }

    /// Puts a new instance into a slot.
    pub(super) fn enter(&mut self, slot: Slot, plan: Arc<Plan>) -> InstanceId {
        self.begun += 1;
        let id = InstanceId(self.begun);
        let place = self.instances.partition_point(|instance| instance.slot() <= slot);
        self.instances.insert(place, Instance::new(id, slot, plan));
        id
    }

    /// Drops the instances that have ended and that nobody wants any more.
    pub(super) fn drop_stopped(&mut self) {
        self.instances.retain(|instance| *instance.state() != State::Stopped);
    }

    /// Lets this happen to an instance; `None` if it is gone.
    pub(super) fn step(&mut self, id: InstanceId, input: Input, now: Instant) -> Option<Transition> {
        Some(self.get_mut(id)?.step(input, now))
    }

    /// Notes that a launch listens on a port, which may be heard only after its end. Its instance, if that is new.
    pub(super) fn listens(&mut self, worker: WorkerId, port: WorkerPort) -> Option<&Instance> {
        let is_launch = |instance: &&mut Instance| instance.state().launch() == Some(worker);
        let instance = self.instances.iter_mut().find(is_launch)?;
        instance.listens(port).then_some(&*instance)
    }

    /// Notes what the new process of an instance writes.
    pub(super) fn launched(&mut self, id: InstanceId, output: Option<LastLines>, environment: Environment) {
        if let Some(instance) = self.get_mut(id) {
            instance.launched(output, environment);
        }
    }

    /// Notes that the process of an instance could not be started.
    pub(super) fn not_started(&mut self, id: InstanceId, error: &StartError) {
        if let Some(instance) = self.get_mut(id) {
            instance.not_started(error);
        }
    }

    /// Notes how the process that leads an instance has ended. Which instance that is; `None` for a stranger.
    pub(super) fn ended(&mut self, pid: Pid, how: Ended, out_of_memory: bool) -> Option<InstanceId> {
        let leads = |instance: &&mut Instance| instance.state().process().is_some_and(|led| led.group == pid);
        let instance = self.instances.iter_mut().find(leads)?;
        instance.ended(how, out_of_memory);
        Some(instance.id())
    }

    /// Notes that a process of an instance runs on out of its group.
    pub(super) fn left(&mut self, id: InstanceId) {
        if let Some(instance) = self.get_mut(id) {
            instance.has_left();
        }
    }

    /// Counts a start after the first.
    pub(super) fn count_restart(&mut self, slot: Slot) {
        *self.restarts.entry(slot).or_default() += 1;
    }

    /// Counts them from 0 again, of every slot or of this one.
    pub(super) fn reset_restarts(&mut self, slot: Option<Slot>) {
        self.restarts.retain(|counted, _| slot.is_some_and(|slot| slot != *counted));
    }

    pub(super) fn get(&self, id: InstanceId) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.id() == id)
    }

    fn get_mut(&mut self, id: InstanceId) -> Option<&mut Instance> {
        self.instances.iter_mut().find(|instance| instance.id() == id)
    }

    /// Every instance, in the order of the slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter()
    }

    /// Every instance, by its number.
    pub(super) fn ids(&self) -> Vec<InstanceId> {
        self.instances.iter().map(Instance::id).collect()
    }

    /// The instances in these slots.
    pub(super) fn ids_in(&self, slots: &[Slot]) -> Vec<InstanceId> {
        self.instances.iter().filter(|instance| slots.contains(&instance.slot())).map(Instance::id).collect()
    }

    fn of_slot(&self, slot: Slot) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(move |instance| instance.slot() == slot)
    }

    /// The instance that this launch is of, while it may be given connections.
    pub(super) fn serving(&self, worker: WorkerId) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.serving().is_some_and(|process| process.id == worker))
    }

    /// The instance that this launch is of, while its process may run.
    pub(super) fn running(&self, worker: WorkerId) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.state().process().is_some_and(|run| run.id == worker))
    }

    /// The launch that holds this token, while its process may run.
    pub(super) fn run_by(&self, token: Token) -> Option<WorkerId> {
        let mut running = self.instances.iter().filter_map(|instance| instance.state().process());
        running.find(|process| process.token == token).map(|process| process.id)
    }

    /// The launch that holds this token, while it may be given connections.
    pub(super) fn holder_of(&self, token: Token) -> Option<WorkerId> {
        let mut serving = self.instances.iter().filter_map(Instance::serving);
        serving.find(|process| process.token == token).map(|process| process.id)
    }

    /// The ports on which a worker listens.
    pub(super) fn served(&self) -> Vec<WorkerPort> {
        let serving = self.instances.iter().filter(|instance| instance.serving().is_some());
        serving.flat_map(|instance| instance.listening().iter().copied()).collect()
    }

    /// The process groups that may have members.
    pub(super) fn groups(&self) -> Vec<Pid> {
        self.instances.iter().filter_map(|instance| instance.state().group()).collect()
    }

    /// The process groups of which only the leader has ended.
    pub(super) fn orphaned(&self) -> Vec<(InstanceId, Pid)> {
        let orphaned = self.instances.iter().filter_map(|instance| match *instance.state() {
            State::Orphaned { group, .. } => Some((instance.id(), group)),
            _ => None,
        });
        orphaned.collect()
    }

    /// When an instance has to be looked at even if nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.instances.iter().filter_map(|instance| instance.state().deadline()).min()
    }

    /// As a rollout sees them. What has gone is not seen: its turn is over.
    pub(super) fn standings(&self) -> Vec<Standing> {
        let there = self.instances.iter().filter(|instance| *instance.state() != State::Stopped);
        there.map(Instance::standing).collect()
    }

    /// The code to exit with if every worker has ended for good; `None` if one has not.
    pub(super) fn verdict(&self) -> Option<u8> {
        let verdicts: Option<Vec<_>> = self.instances.iter().map(Instance::verdict).collect();
        verdicts?.into_iter().max().map(|(_, code)| code)
    }

    /// As the rest of the program sees them: every instance, and every slot without one.
    pub(super) fn statuses(&self) -> Vec<Status> {
        let restarts = |slot| self.restarts.get(&slot).copied().unwrap_or_default();
        let status = |instance: &Instance| instance.status(restarts(instance.slot()));
        let mut statuses: Vec<Status> = self.instances.iter().map(status).collect();
        let empty = self.all_slots().filter(|&slot| self.of_slot(slot).next().is_none());
        statuses.extend(empty.map(|slot| Status::empty(slot, restarts(slot))));
        statuses.sort_by_key(|status| status.slot);
        statuses
    }
}
