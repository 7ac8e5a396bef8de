//! When a worker is ready: what it still lacks, and the one decision that follows from it.
//!
//! Pure, as all of the lifecycle; what is lacking comes from the rules, what comes meanwhile from inputs.

use std::collections::BTreeSet;

use super::Rules;
use crate::ids::WorkerPort;

/// What a worker lacks to be ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// The ports on which it does not listen yet.
    pub ports: BTreeSet<WorkerPort>,
    /// Its word that it is ready.
    pub word: bool,
    /// Its answer to a probe.
    pub answer: Answer,
}

/// Whether a worker has answered its probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It has, or need not.
    Given,
    /// It was asked.
    Awaited,
    /// It is asked once it has all else.
    NotAskedFor,
}

/// How far a worker is from being ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// It has more to do.
    Waiting,
    /// It has done its part, and is to be probed.
    ToBeProbed,
    /// It is: clients may come.
    Ready,
}

impl Missing {
    /// What a worker that was just started lacks.
    pub(super) fn at_first(rules: &Rules) -> Self {
        let answer = if rules.probes { Answer::NotAskedFor } else { Answer::Given };
        Self { ports: rules.ports.iter().copied().collect(), word: rules.wait_ready, answer }
    }

    /// Whether the worker may be given clients. Nothing else decides it, whoever has said whatever in which order.
    pub(crate) fn readiness(&self) -> Readiness {
        match self {
            Missing { ports, word: false, answer } if ports.is_empty() => match answer {
                Answer::Given => Readiness::Ready,
                Answer::Awaited => Readiness::Waiting,
                Answer::NotAskedFor => Readiness::ToBeProbed,
            },
            Missing { .. } => Readiness::Waiting,
        }
    }
}
