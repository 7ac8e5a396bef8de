//! Workers' processes: how one is started, as whom and with what, how it is signalled, and how its end is noticed.
//!
//! When one is wanted is not decided here, nor what follows from its end.

pub(crate) mod environment;
pub(crate) mod exec_context;
pub(crate) mod guardian;
pub(crate) mod identity;
mod inspector;
pub(crate) mod notify_socket;
pub(crate) mod oom;
pub(crate) mod reaper;
pub(crate) mod spawn;

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use tracing::warn;

use self::environment::Environment;
use self::guardian::{Guardian, Orders, Waiting};
use self::oom::Kills;
use self::reaper::{Reaper, Scope};
use self::spawn::{CommandSpec, Spawned, StartError};
use super::ends::Ended;
use super::lanes::Lane;
use super::leftovers::ToSignal;
use super::lifecycle::{Ending, Process};
use super::snapshot::{ProcessesSnapshot, SupervisorSnapshot};
use super::worker_hooks::Launched;
use crate::ids::{Slot, WorkerId};
use crate::sys::mark::{Family, Mark};
use crate::sys::processes;

/// A guardian that ends sooner than this after its start would end again.
const GUARDIAN_RAN_WELL: Duration = Duration::from_secs(1);
/// How long to wait, at the very end, for what should take no time at all.
const FINISH: Duration = Duration::from_secs(1);

/// The children of this process, and what watches over them.
pub(super) struct Processes {
    reaper: Reaper,
    /// What a guardian does; `None` for no guardian.
    guardian_orders: Option<Orders>,
    guardian: Option<Guardian>,
    /// What the kernel has killed for want of memory.
    kills: Option<Kills>,
    launches: u64,
    /// What all that descends from workers is known by.
    family: Family,
    /// Whether what leaves its process group ends with its worker.
    treekill: bool,
}

/// Whose end it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Died {
    /// The guardian's, which was seen to.
    Guardian,
    /// Another child's.
    Child {
        /// The kernel is likely to have killed it for want of memory.
        out_of_memory: bool,
    },
}

impl Processes {
    /// Starts to wait for children. A guardian that is wanted is started by [`Processes::guard`].
    ///
    /// # Errors
    /// The ends of children would not be noticed.
    pub(super) fn new(
        scope: Scope,
        guardian_orders: Option<Orders>,
        (family, treekill): (Family, bool),
    ) -> Result<Self, StartError> {
        let reaper = Reaper::new(scope).map_err(StartError::Signals)?;
        let kills = Kills::from_now();
        Ok(Self { reaper, guardian_orders, guardian: None, kills, launches: 0, family, treekill })
    }

    /// Starts the guardian of these groups, if one is wanted, or gives its orders to the one that waits for them.
    pub(super) fn guard(&mut self, waiting: Option<Waiting>, groups: &[Pid]) {
        self.start_guardian(waiting, groups);
    }

    /// Goes on with this many launches.
    pub(super) fn go_on(&mut self, launches: u64) {
        self.launches = launches;
    }

    /// As they are written down.
    pub(super) fn snapshot(&self) -> ProcessesSnapshot {
        ProcessesSnapshot {
            launches: self.launches,
            guardian: self.guardian.as_ref().map(Guardian::snapshot),
        }
    }

    /// This image's guardian takes over from the one before, which is let go: after a crash it would start the program again
    /// that it runs itself.
    pub(super) fn take_over(&mut self, snapshot: &SupervisorSnapshot, before: Option<Guardian>) {
        if let Some(guardian) = &self.guardian {
            snapshot.running().for_each(|(_, group)| guardian.watch(group));
        }
        match before {
            // It is waited for as a stranger.
            Some(before) if self.guardian.is_some() => drop(before.dismiss()),
            before => self.guardian = before,
        }
    }

    /// Without a guardian everything works but the cleaning up after a `kill -9` of the primary.
    fn start_guardian(&mut self, waiting: Option<Waiting>, groups: &[Pid]) {
        let Some(orders) = &self.guardian_orders else {
            return;
        };
        if rustix::process::getpid().is_init() {
            return;
        }
        match Guardian::start(orders, waiting) {
            Ok(guardian) => {
                groups.iter().for_each(|&group| guardian.watch(group));
                self.guardian = Some(guardian);
            }
            Err(error) => warn!(
                "cannot start the guardian: {error}; if clusterd is killed with SIGKILL, processes that its workers \
                 started may keep running"
            ),
        }
    }

    /// Starts the next launch of the worker in this slot, one of so many. Its environment is what it was given.
    pub(super) fn launch(
        &mut self,
        spec: &CommandSpec,
        (slot, lane): (Slot, Lane),
        workers: u32,
    ) -> Result<(Process, Launched, Environment), StartError> {
        let token = spawn::fresh_token().map_err(StartError::Token)?;
        let id = WorkerId { slot, launch: self.launches + 1 };
        let mark = self.mark(id.launch);
        let launch = spawn::Launch { id, lane, token, workers, mark };
        let Spawned { pid, pipes, channel, calls, environment } = spawn::spawn(spec, launch)?;
        self.launches = id.launch;
        let launched = Launched { worker: id, group: pid, token, pipes, channel, calls };
        Ok((Process { id, group: pid, token, ending: Ending::default() }, launched, environment))
    }

    /// Waits for the next child that ends, of these groups or the guardian. A future that is dropped loses nothing.
    pub(super) async fn next_end(&mut self, mut groups: Vec<Pid>) -> (Pid, Ended) {
        groups.extend(self.guardian.as_ref().map(Guardian::pid));
        self.reaper.next(&groups).await
    }

    /// Notes the end of a child, while these groups have members.
    pub(super) fn ended(&mut self, pid: Pid, how: Ended, groups: &[Pid]) -> Died {
        if let Some(guardian) = self.guardian.take_if(|guardian| guardian.pid() == pid) {
            self.guardian_ended(&guardian, how, groups);
            return Died::Guardian;
        }
        // It is not known which process it was; but the kernel kills with SIGKILL.
        let was_killed = matches!(how, Ended::Signal { signal: libc::SIGKILL, .. });
        let out_of_memory = self.kills.as_mut().is_some_and(|kills| kills.since_last() > 0) && was_killed;
        Died::Child { out_of_memory }
    }

    fn guardian_ended(&mut self, guardian: &Guardian, how: Ended, groups: &[Pid]) {
        let pid = guardian.pid().as_raw_pid();
        if guardian.since().elapsed() >= GUARDIAN_RAN_WELL {
            warn!(pid, "the guardian {how}; starting it again");
            self.start_guardian(None, groups);
        } else {
            warn!(pid, "the guardian {how} as soon as it was started; continuing without one");
        }
    }

    /// Puts a process group under guard.
    pub(super) fn watch(&self, group: Pid) {
        if let Some(guardian) = &self.guardian {
            guardian.watch(group);
        }
    }

    /// Takes a process group that has ended from under guard.
    pub(super) fn release(&self, group: Pid) {
        if let Some(guardian) = &self.guardian {
            guardian.release(group);
        }
    }

    /// The processes that have left their launch, or that it has left: those in none of these groups whose own parents
    /// are gone.
    pub(super) fn left(&self, groups: &[Pid]) -> Vec<(Pid, Option<Mark>)> {
        let groups: BTreeSet<i32> = groups.iter().map(|group| group.as_raw_pid()).collect();
        let guardian = self.guardian.as_ref().map(|guardian| guardian.pid().as_raw_pid());
        let adopted = processes::adopted(&groups.iter().copied().chain(guardian).collect());
        let outside = adopted.into_iter().filter(|member| !groups.contains(&member.group));
        outside.map(|member| (member.pid, Mark::of(member.pid))).collect()
    }

    /// What this launch, and all that descends from it, is known by.
    pub(super) fn mark(&self, launch: u64) -> Mark {
        self.family.member(launch)
    }

    /// Whether what leaves its process group ends with its worker.
    pub(super) fn treekill(&self) -> bool {
        self.treekill
    }

    /// Sends a signal to processes with this mark, and to no others that were given their numbers meanwhile.
    pub(super) fn signal_left(&self, ToSignal { mark, pids, signal }: ToSignal) {
        for pid in pids {
            processes::signal_if(pid, signal, || Mark::of(pid) == Some(mark));
        }
    }

    /// Dismisses the guardian, and waits for its end.
    pub(super) async fn finish(&mut self) {
        let Some(guardian) = self.guardian.take() else { return };
        let pid = guardian.dismiss();
        let gone = async { while self.reaper.next(&[pid]).await.0 != pid {} };
        if tokio::time::timeout(FINISH, gone).await.is_err() {
            warn!(pid = pid.as_raw_pid(), "the guardian did not end in time");
        }
    }
}

/// Whether a process group has a member.
pub(super) fn has_members(group: Pid) -> bool {
    // EPERM: there are members, of another user.
    !matches!(rustix::process::test_kill_process_group(group), Err(Errno::SRCH))
}

/// Sends a signal to the process that leads a worker's group, and to no other.
pub(super) fn signal_leader(leader: Pid, signal: Signal) -> io::Result<()> {
    match rustix::process::kill_process(leader, signal) {
        // ESRCH: it has just ended.
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Sends a signal to every process of a worker's group.
pub(super) fn signal(group: Pid, signal: Signal) {
    match rustix::process::kill_process_group(group, signal) {
        // ESRCH: the last one has just ended.
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => warn!(
            pid = group.as_raw_pid(),
            "cannot send signal {} to the worker's process group: {error}",
            signal.as_raw()
        ),
    }
}
