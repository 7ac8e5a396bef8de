//! On what terms workers run: as whom, and with how many files, which place in the kernel's order of victims, which CPU
//! and which share of it.
//!
//! What can be checked is checked before the first worker. Memory, age and connections are bounded elsewhere, while
//! workers run.

use std::io;

use rustix::process::{Resource, Rlimit, Signal};
use tracing::warn;

use super::identity::{Identity, IdentityError, Users};
use crate::ids::Slot;
use crate::sys::process::{self, ChildSetup};

/// The terms, for every worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExecContext {
    /// Whom they run as; `None` for whom clusterd does.
    pub identity: Option<Identity>,
    /// Whom clusterd has become, and they run as who have no identity of their own; `None` for whom it was started as.
    pub primary: Option<Identity>,
    /// Their limits of open descriptors.
    pub nofile: Rlimit,
    /// Their `oom_score_adj`; `None` for clusterd's own.
    pub oom_score_adj: Option<i16>,
    /// Whether each has one CPU.
    pub one_cpu_each: bool,
    /// Whether they are scheduled without interrupting each other.
    pub batch: bool,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ContextSettings<'a> {
    /// `--user`.
    pub user: Option<&'a str>,
    /// `--group`.
    pub group: Option<&'a str>,
    /// `--primary-user`, once clusterd has become that user.
    pub primary_user: Option<&'a str>,
    /// `--nofile`: the soft limit and the hard one.
    pub nofile: Option<u64>,
    /// `--oom-score-adj`.
    pub oom_score_adj: Option<i16>,
    /// `--cpu-affinity`.
    pub cpu_affinity: bool,
    /// `--cpu-scheduling batch`.
    pub batch: bool,
}

/// The terms cannot be met.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecContextError {
    /// Not as this user.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Not with so many files.
    #[error(
        "cannot give workers {wanted} open files: {source}; the hard limit here is {hard}\nhint: raise it where clusterd is started (`LimitNOFILE=`, `ulimit -Hn`, `docker run --ulimit`), start it as root, or lower --nofile; fs.nr_open (sysctl) bounds all of them"
    )]
    OpenFiles {
        /// How many were asked for.
        wanted: u64,
        /// How many it may be.
        hard: String,
        /// What the system said.
        source: io::Error,
    },
    /// Not with this score.
    #[error(
        "cannot give workers an oom_score_adj of {wanted}: {source}\nhint: a value below clusterd's own needs CAP_SYS_RESOURCE; set it where clusterd is started (`OOMScoreAdjust=`), or raise --oom-score-adj"
    )]
    OomScore {
        /// The score.
        wanted: i16,
        /// What the system said.
        source: io::Error,
    },
    /// It is not known which CPUs there are.
    #[error("cannot determine which CPUs clusterd may use (--cpu-affinity): {0}")]
    Cpus(#[source] io::Error),
}

impl ExecContext {
    /// The terms that nobody has changed, with these limits of open descriptors.
    #[cfg(test)]
    pub(crate) fn inherited(nofile: Rlimit) -> Self {
        Self { identity: None, primary: None, nofile, oom_score_adj: None, one_cpu_each: false, batch: false }
    }

    /// What is wanted, if it can be had; `inherited` are the limits that clusterd was started with.
    ///
    /// # Errors
    /// [`ExecContextError`].
    pub(crate) fn check(wanted: ContextSettings<'_>, inherited: Rlimit) -> Result<Self, ExecContextError> {
        let identity = Identity::look_up(wanted.user, wanted.group)?;
        let primary = wanted.primary_user.map(Identity::of_primary).transpose()?;
        let both = |limit| Rlimit { current: Some(limit), maximum: Some(limit) };
        let nofile = wanted.nofile.map_or(inherited, both);
        if let Some(wanted) = wanted.nofile {
            process::may_limit_open_files(nofile).map_err(|source| ExecContextError::OpenFiles {
                wanted,
                hard: hard_limit(),
                source,
            })?;
        }
        if let Some(wanted) = wanted.oom_score_adj {
            process::may_set_oom_score_adj(wanted)
                .map_err(|source| ExecContextError::OomScore { wanted, source })?;
        }
        if wanted.cpu_affinity {
            process::allowed_cpus().map_err(ExecContextError::Cpus)?;
        }
        let ContextSettings { oom_score_adj, cpu_affinity, batch, .. } = wanted;
        Ok(Self {
            identity,
            primary,
            nofile,
            oom_score_adj,
            one_cpu_each: cpu_affinity,
            batch: batch && may_be_batch(),
        })
    }

    /// Whose variables they are given: none if they run as whom clusterd was started as.
    pub(crate) fn user(&self) -> Option<&Identity> {
        let is_other_user = |identity: &&Identity| identity.is_other_user;
        self.identity.as_ref().filter(is_other_user).or(self.primary.as_ref())
    }

    /// The users whose processes may speak for a worker.
    pub(crate) fn users(&self) -> Users {
        Users::of_workers(self.identity.as_ref())
    }

    /// What holds for the process of this worker, which gets TERM if this thread ends.
    ///
    /// # Errors
    /// Those of sched_getaffinity(2): which CPUs there are may have changed.
    pub(crate) fn setup_of(&self, worker: Slot) -> io::Result<ChildSetup> {
        let cpus = self.one_cpu_each.then(process::allowed_cpus).transpose()?;
        Ok(ChildSetup {
            parent_death: Signal::TERM,
            nofile: self.nofile,
            oom_score_adj: self.oom_score_adj,
            cpu: cpus.and_then(|cpus| cpu_of(worker, &cpus)),
            batch: self.batch,
            credentials: self.identity.as_ref().map(|identity| identity.credentials.clone()),
            mark: None,
            filter: None,
        })
    }
}

/// Nobody needs it: where the system does not allow it, workers run without.
fn may_be_batch() -> bool {
    let outcome = process::may_be_batch();
    if let Err(error) = &outcome {
        warn!(%error, "SCHED_BATCH is not permitted here; workers run with clusterd's policy (--cpu-scheduling inherit)");
    }
    outcome.is_ok()
}

/// Worker 1 has the first CPU; where there are more workers than CPUs, they go round.
fn cpu_of(worker: Slot, cpus: &[usize]) -> Option<usize> {
    let index = usize::try_from(worker.0.saturating_sub(1)).ok()?.checked_rem(cpus.len())?;
    cpus.get(index).copied()
}

fn hard_limit() -> String {
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
    hard.map_or_else(|| "unlimited".to_owned(), |hard| hard.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Rlimit {
        rustix::process::getrlimit(Resource::Nofile)
    }

    #[test]
    fn workers_go_round_the_cpus() {
        let table: [(u32, &[usize], Option<usize>); 6] = [
            (1, &[0, 1], Some(0)),
            (2, &[0, 1], Some(1)),
            (3, &[0, 1], Some(0)),
            (2, &[3, 5, 9], Some(5)),
            (7, &[4], Some(4)),
            (1, &[], None),
        ];
        for (worker, cpus, expected) in table {
            assert_eq!(cpu_of(Slot(worker), cpus), expected, "worker {worker} of {cpus:?}");
        }
    }

    #[test]
    fn what_is_not_asked_for_stays() {
        assert_eq!(
            ExecContext::check(ContextSettings::default(), own()).unwrap(),
            ExecContext::inherited(own())
        );
    }

    #[test]
    fn a_limit_of_files_is_soft_and_hard() {
        let wanted = ContextSettings { nofile: Some(100), ..ContextSettings::default() };
        let context = ExecContext::check(wanted, own()).unwrap();
        assert_eq!(context.nofile, Rlimit { current: Some(100), maximum: Some(100) });
    }

    #[test]
    fn more_files_than_anybody_may_have_are_refused() {
        let wanted = ContextSettings { nofile: Some(1 << 30), ..ContextSettings::default() };
        let error = ExecContext::check(wanted, own()).unwrap_err().to_string();
        assert!(error.starts_with("cannot give workers 1073741824 open files: "), "{error}");
    }

    #[test]
    fn a_worker_may_always_be_a_likelier_victim() {
        let wanted = ContextSettings { oom_score_adj: Some(1000), ..ContextSettings::default() };
        assert_eq!(ExecContext::check(wanted, own()).unwrap().oom_score_adj, Some(1000));
    }
}
