//! What another reading of the configuration changes, and what of that a reload puts in force.
//!
//! Pure. What a reload cannot change was bound, opened or started once, and stays until clusterd is started again.

use super::Config;
use super::keys;
use super::setting::Key;

/// What a reload puts in force, beside the command: how workers are started, treated and replaced.
const RELOADED: [&Key; 13] = [
    &keys::WORKERS.key,
    &keys::NOFILE.key,
    &keys::OOM_SCORE_ADJ.key,
    &keys::CPU_AFFINITY.key,
    &keys::READY_TIMEOUT.key,
    &keys::AUTORESTART.key,
    &keys::MIN_UPTIME.key,
    &keys::MAX_RESTARTS.key,
    &keys::STOP_EXIT_CODES.key,
    &keys::DRAIN_TIMEOUT.key,
    &keys::STOP_SIGNAL.key,
    &keys::KILL_TIMEOUT.key,
    &keys::RELOAD_PARALLEL.key,
];

/// The settings that have another value and that no reload puts in force, by their names.
pub fn waiting(old: &Config, new: &Config) -> Vec<&'static str> {
    let is_reloaded = |key: &&Key| RELOADED.iter().any(|reloaded| reloaded.name == key.name);
    let differs = |key: &&Key| (key.show)(old) != (key.show)(new);
    keys::all().filter(|key| !is_reloaded(key)).filter(differs).map(|key| key.name).collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::super::resolve::{Sources, resolve};
    use super::*;

    #[test]
    fn what_was_bound_or_opened_waits_for_the_next_start() {
        let cpus = NonZeroU32::new(2).expect("not zero");
        let old = resolve(Sources::default(), cpus).expect("valid").config;
        let mut new = old.clone();
        assert!(waiting(&old, &new).is_empty());
        new.max_restarts += 1;
        new.workers = NonZeroU32::MIN;
        assert!(waiting(&old, &new).is_empty());
        new.queue = 7.try_into().expect("not zero");
        new.wait_ready = !old.wait_ready;
        assert_eq!(waiting(&old, &new), ["queue", "wait-ready"]);
    }
}
