//! What the supervisor has, as it is written down for the next image of clusterd, and how it begins with that.
//!
//! It is written down when nothing is under way: no reload, no other command, no worker on its way up or out. Of such states
//! there is nothing here: they pass, and an upgrade waits for that.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::num::NonZeroU32;
use std::time::SystemTime;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::ends::{End, Ended, Reason};
use super::events::Event;
use super::lifecycle::{Answer, Ending, Missing, OnChannel, Process, Signals, State};
use super::restart::Run;
use super::turn::Turned;
#[cfg(feature = "internal")]
use super::worker_table::WorkerTable;
use super::{Environment, MOST_WORKERS};
use crate::carry::{CarriedFd, LAST_COUNT, Moment, NotCarried, Raw, StandStill};
use crate::ids::{Slot, WorkerId, WorkerPort};
use crate::protocol::wire::Token;
use crate::settings::carried::CarriedSettings;
use crate::sys::seccomp::Privilege;

/// All of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SupervisorSnapshot {
    /// Whether the app is to run.
    pub(super) runs: bool,
    /// Whether a command has stopped it, and clients wait meanwhile.
    pub(super) is_stopped: bool,
    pub(super) is_held: bool,
    /// What was said of all settings when the configuration in force was read.
    pub(super) settings: CarriedSettings,
    /// The variables that workers inherit.
    pub(super) inherited: Variables,
    /// Whether launches have turned to another way of being served.
    pub(super) turned: Option<CarriedTurn>,
    pub(super) table: TableSnapshot,
    pub(super) processes: ProcessesSnapshot,
    /// Who has which lane: the launch's process group, and its number.
    pub(super) lanes: Vec<LaneSnapshot>,
    /// What has happened, the oldest first.
    pub(super) events: Vec<Event>,
}

/// The supervisor is asked to stand still; or what is under way.
pub(super) type AskedSupervisor = StandStill<Result<Box<SupervisorSnapshot>, NotCarried>>;

/// Variables, by their names.
pub(super) type Variables = Vec<(Raw, Raw)>;

/// The worker table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TableSnapshot {
    pub(super) wanted: NonZeroU32,
    pub(super) kept_empty: Vec<Slot>,
    pub(super) begun: u64,
    pub(super) restarts: Vec<(Slot, u64)>,
    /// The variables that all that were launched have: most of those that each has.
    pub(super) environment: Variables,
    pub(super) instances: Vec<InstanceSnapshot>,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InstanceSnapshot {
    pub(super) id: u64,
    pub(super) slot: Slot,
    pub(super) state: StateSnapshot,
    pub(super) listening: Vec<WorkerPort>,
    pub(super) started: Option<(Moment, SystemTime)>,
    pub(super) last_end: Option<(String, u8)>,
    pub(super) left: bool,
    /// Its variables, beside those that all have; `None` if it was not launched yet.
    pub(super) environment: Option<Variables>,
}

/// The states in which a worker can be when nothing is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum StateSnapshot {
    Left(CarriedEnd),
    Errored(CarriedEnd),
    Launching {
        process: ProcessSnapshot,
        since: Moment,
        missing_ports: Vec<WorkerPort>,
        missing_word: bool,
        missing_answer: CarriedAnswer,
        ready_by: Moment,
        advise_at: Option<Moment>,
        failures: u32,
    },
    Online {
        process: ProcessSnapshot,
        since: Moment,
        ready: Moment,
        failures: u32,
    },
    WaitingRestart {
        until: Moment,
        failures: u32,
        again: String,
    },
}

/// A worker's process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProcessSnapshot {
    id: WorkerId,
    group: i32,
    token: Token,
    on_channel: CarriedOnChannel,
    catches: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CarriedOnChannel {
    Nobody,
    Known,
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CarriedAnswer {
    Given,
    NotAskedFor,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum CarriedEnd {
    Code(i32),
    Signal { signal: i32, core: bool },
    Unready,
    NotStarted,
}

/// See [`Turned`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CarriedTurn {
    Shim,
    Seccomp,
    SeccompWithoutPrivileges,
}

/// The children, beside the workers, and how many launches there were.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProcessesSnapshot {
    pub(super) launches: u64,
    pub(super) guardian: Option<GuardianSnapshot>,
}

/// The guardian, which is replaced: it would start the program that it runs itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GuardianSnapshot {
    pub(super) pid: i32,
    pub(super) since: Moment,
    pub(super) pipe: CarriedFd,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LaneSnapshot {
    pub(super) lane: u32,
    pub(super) group: i32,
    pub(super) launch: u64,
}

/// What is written down is not what can have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot of the supervisor is wrong: {0}")]
pub(crate) struct Wrong(String);

impl SupervisorSnapshot {
    /// What was said of all settings when the configuration in force was read.
    pub(crate) fn settings(&self) -> &CarriedSettings {
        &self.settings
    }

    /// The variables that workers inherit.
    pub(crate) fn inherited(&self) -> Environment {
        environment(&self.inherited)
    }

    /// That it can have been so.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn check(&self) -> Result<(), Wrong> {
        self.table.check()?;
        let launches = counted("launches", self.processes.launches)?;
        for instance in &self.table.instances {
            instance.state.clone().read()?;
            let launch = instance.state.process().map(|process| process.id);
            if let Some(id) = launch.filter(|id| id.slot != instance.slot || id.launch > launches) {
                return Err(Wrong(format!(
                    "launch {} of worker {} in slot {}",
                    id.launch, id, instance.slot
                )));
            }
        }
        self.lanes.iter().try_for_each(|lane| pid(lane.group).map(drop))?;
        self.processes.guardian.iter().try_for_each(|guardian| pid(guardian.pid).map(drop))
    }

    /// Begins with the workers as they stand, and nothing else: they are told of, and each slot gets one more.
    ///
    /// # Errors
    /// They cannot stand so.
    #[cfg(feature = "internal")]
    pub(crate) fn trial(&self, plan: &std::sync::Arc<super::Plan>) -> Result<Vec<super::Status>, Wrong> {
        let mut table = WorkerTable::restore(self.table.clone(), plan, std::collections::HashMap::new())?;
        let statuses = table.statuses();
        let _ = (table.verdict(), table.deadline(), table.groups(), table.standings(), table.served());
        for slot in table.slots() {
            table.count_restart(slot);
            table.enter(slot, std::sync::Arc::clone(plan));
        }
        Ok(statuses)
    }

    /// Each process that runs: its launch, and its process group.
    pub(crate) fn running(&self) -> impl Iterator<Item = (WorkerId, Pid)> {
        let running = self.table.instances.iter().filter_map(|instance| instance.state.process());
        running.filter_map(|process| Some((process.id, pid(process.group).ok()?)))
    }

    /// How many launches there were.
    pub(super) fn launches(&self) -> u64 {
        self.processes.launches
    }

    /// The guardian of the image before.
    pub(crate) fn guardian(&self) -> Option<&GuardianSnapshot> {
        self.processes.guardian.as_ref()
    }

    /// How workers have turned to be served, if they have.
    pub(crate) fn turned(&self) -> Option<Turned> {
        self.turned.map(Turned::from)
    }
}

/// Variables as they are written down.
pub(super) fn variables(environment: &Environment) -> Variables {
    environment.iter().map(|(name, value)| (name.as_os_str().into(), value.as_os_str().into())).collect()
}

/// And as they are.
pub(super) fn environment(variables: &Variables) -> Environment {
    variables.iter().cloned().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

/// The process of this number.
///
/// # Errors
/// There is none.
pub(super) fn pid(number: i32) -> Result<Pid, Wrong> {
    // 1 is this process or none of its children, and kill(2) takes what is below for many.
    let child = Some(number).filter(|&number| number > 1).and_then(Pid::from_raw);
    child.ok_or_else(|| Wrong(format!("no child has the number {number}")))
}

impl StateSnapshot {
    /// Of this state.
    ///
    /// # Errors
    /// It passes soon, and there is nothing like it here.
    pub(super) fn of(state: &State) -> Result<Self, NotCarried> {
        Ok(match state {
            State::Left(end) => Self::Left((*end).into()),
            State::Errored(end) => Self::Errored((*end).into()),
            State::Launching { process, since, missing, ready_by, advise_at, run } => Self::Launching {
                process: process.into(),
                since: (*since).into(),
                missing_ports: missing.ports.iter().copied().collect(),
                missing_word: missing.word,
                missing_answer: match missing.answer {
                    Answer::Given => CarriedAnswer::Given,
                    Answer::NotAskedFor => CarriedAnswer::NotAskedFor,
                    Answer::Awaited => return Err(passing("answers a probe")),
                },
                ready_by: (*ready_by).into(),
                advise_at: advise_at.map(Into::into),
                failures: failures(*run)?,
            },
            State::Online { process, since, ready, run } => Self::Online {
                process: process.into(),
                since: (*since).into(),
                ready: (*ready).into(),
                failures: failures(*run)?,
            },
            State::WaitingRestart { until, run, again } => Self::WaitingRestart {
                until: (*until).into(),
                failures: failures(*run)?,
                again: again.label().to_owned(),
            },
            State::Starting { .. } => return Err(passing("is started")),
            State::Draining { .. } | State::Leaving { .. } => return Err(passing("drains")),
            State::Stopped
            | State::Failing { .. }
            | State::Settling { .. }
            | State::Stopping { .. }
            | State::Orphaned { .. }
            | State::Killed { .. } => return Err(passing("ends")),
        })
    }

    fn process(&self) -> Option<&ProcessSnapshot> {
        match self {
            Self::Launching { process, .. } | Self::Online { process, .. } => Some(process),
            Self::Left(_) | Self::Errored(_) | Self::WaitingRestart { .. } => None,
        }
    }

    /// The state.
    ///
    /// # Errors
    /// It cannot have been.
    pub(super) fn read(self) -> Result<State, Wrong> {
        let run = |failures| Run::Regular { failures };
        Ok(match self {
            Self::Left(end) => State::Left(end.into()),
            Self::Errored(end) => State::Errored(end.into()),
            Self::Launching {
                process,
                since,
                missing_ports,
                missing_word,
                missing_answer,
                ready_by,
                advise_at,
                failures,
            } => State::Launching {
                process: process.read()?,
                since: since.into(),
                missing: Missing {
                    ports: missing_ports.into_iter().collect(),
                    word: missing_word,
                    answer: match missing_answer {
                        CarriedAnswer::Given => Answer::Given,
                        CarriedAnswer::NotAskedFor => Answer::NotAskedFor,
                    },
                },
                ready_by: ready_by.into(),
                advise_at: advise_at.map(Into::into),
                run: run(failures),
            },
            Self::Online { process, since, ready, failures } => State::Online {
                process: process.read()?,
                since: since.into(),
                ready: ready.into(),
                run: run(failures),
            },
            Self::WaitingRestart { until, failures, again } => {
                let reason = Reason::ALL.into_iter().find(|reason| reason.label() == again);
                let again = reason.ok_or_else(|| Wrong(format!("no worker ends for {again:?}")))?;
                State::WaitingRestart { until: until.into(), run: run(failures), again }
            }
        })
    }
}

fn failures(run: Run) -> Result<u32, NotCarried> {
    match run {
        Run::Regular { failures } => Ok(failures),
        Run::Trial => Err(passing("is on trial")),
    }
}

fn passing(does: &str) -> NotCarried {
    NotCarried(format!("a worker {does}"))
}

impl From<&Process> for ProcessSnapshot {
    fn from(process: &Process) -> Self {
        let Process { id, group, token, ending: Ending { on_channel, catches } } = *process;
        let on_channel = match on_channel {
            OnChannel::Nobody => CarriedOnChannel::Nobody,
            OnChannel::Known => CarriedOnChannel::Known,
            OnChannel::Unknown => CarriedOnChannel::Unknown,
        };
        Self { id, group: group.as_raw_pid(), token, on_channel, catches: catches.bits() }
    }
}

impl ProcessSnapshot {
    fn read(self) -> Result<Process, Wrong> {
        let on_channel = match self.on_channel {
            CarriedOnChannel::Nobody => OnChannel::Nobody,
            CarriedOnChannel::Known => OnChannel::Known,
            CarriedOnChannel::Unknown => OnChannel::Unknown,
        };
        let ending = Ending { on_channel, catches: Signals::from_bits(self.catches) };
        Ok(Process { id: self.id, group: pid(self.group)?, token: self.token, ending })
    }
}

impl From<End> for CarriedEnd {
    fn from(end: End) -> Self {
        match end {
            End::Ended(Ended::Code(code)) => Self::Code(code),
            End::Ended(Ended::Signal { signal, core }) => Self::Signal { signal, core },
            End::Unready => Self::Unready,
            End::NotStarted => Self::NotStarted,
        }
    }
}

impl From<CarriedEnd> for End {
    fn from(end: CarriedEnd) -> Self {
        match end {
            CarriedEnd::Code(code) => End::Ended(Ended::Code(code)),
            CarriedEnd::Signal { signal, core } => End::Ended(Ended::Signal { signal, core }),
            CarriedEnd::Unready => End::Unready,
            CarriedEnd::NotStarted => End::NotStarted,
        }
    }
}

impl From<Turned> for CarriedTurn {
    fn from(turned: Turned) -> Self {
        match turned {
            Turned::ByShim => Self::Shim,
            Turned::BySeccomp(Privilege::Capability) => Self::Seccomp,
            Turned::BySeccomp(Privilege::NoNewPrivileges) => Self::SeccompWithoutPrivileges,
        }
    }
}

impl From<CarriedTurn> for Turned {
    fn from(turn: CarriedTurn) -> Self {
        match turn {
            CarriedTurn::Shim => Turned::ByShim,
            CarriedTurn::Seccomp => Turned::BySeccomp(Privilege::Capability),
            CarriedTurn::SeccompWithoutPrivileges => Turned::BySeccomp(Privilege::NoNewPrivileges),
        }
    }
}

/// A count that can go on.
fn counted(what: &str, count: u64) -> Result<u64, Wrong> {
    Some(count).filter(|&count| count < LAST_COUNT).ok_or_else(|| Wrong(format!("{count} {what}")))
}

impl TableSnapshot {
    /// That no two fill one slot, nor have one number, and that each slot is one that there can be.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn check(&self) -> Result<(), Wrong> {
        counted("instances", self.begun)?;
        self.restarts.iter().try_for_each(|&(_, count)| counted("restarts", count).map(drop))?;
        let known = self.kept_empty.iter().chain(self.restarts.iter().map(|(slot, _)| slot));
        let known = known.copied().chain([Slot(self.wanted.get())]);
        if let Some(slot) = known.into_iter().find(|slot| !(1..=MOST_WORKERS).contains(&slot.0)) {
            return Err(Wrong(format!("there is no slot {slot}")));
        }
        let (mut slots, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for &InstanceSnapshot { id, slot, .. } in &self.instances {
            if !(1..=MOST_WORKERS).contains(&slot.0) || id == 0 || id > self.begun {
                return Err(Wrong(format!("instance {id} in slot {slot}")));
            }
            if !slots.insert(slot) || !ids.insert(id) {
                return Err(Wrong(format!("two instances in slot {slot}, or of number {id}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::carry::testing::everything;

    #[test]
    fn what_cannot_have_been_is_refused() {
        let check = |changes: &[(&str, Value)]| {
            let checked = everything::<SupervisorSnapshot>("supervisor", changes).check();
            checked.map_err(|Wrong(wrong)| wrong)
        };
        assert_eq!(check(&[]), Ok(()));
        let launch = "/table/instances/0/state/online/process/id";
        let cases = [
            ("/table/wanted", json!(1025), "there is no slot 1025"),
            ("/table/kept_empty", json!([0]), "there is no slot 0"),
            ("/table/restarts/0/0", json!(2000), "there is no slot 2000"),
            ("/table/restarts/0/1", json!(u64::MAX), "18446744073709551615 restarts"),
            ("/table/begun", json!(u64::MAX), "18446744073709551615 instances"),
            ("/table/instances/0/slot", json!(2), "two instances in slot 2, or of number 2"),
            ("/table/instances/1/id", json!(1), "two instances in slot 2, or of number 1"),
            ("/table/instances/2/id", json!(7), "instance 7 in slot 3"),
            ("/table/instances/2/slot", json!(1025), "instance 3 in slot 1025"),
            ("/processes/launches", json!(1u64 << 53), "9007199254740992 launches"),
            ("/lanes/0/group", json!(-1), "no child has the number -1"),
            ("/processes/guardian/pid", json!(1), "no child has the number 1"),
            (launch, json!({ "slot": 2, "launch": 1 }), "launch 1 of worker 2 in slot 1"),
            (launch, json!({ "slot": 1, "launch": 10 }), "launch 10 of worker 1 in slot 1"),
        ];
        for (place, value, wrong) in cases {
            assert_eq!(check(&[(place, value)]), Err(wrong.to_owned()), "{place}");
        }
    }
}
