//! What another reading of the configuration changes, and what of that a reload puts in force.
//!
//! Pure. What a reload cannot change was bound, opened or started once, and stays until clusterd is started again.

use super::Config;
use super::keys;

/// What a reload puts in force of a configuration that was read again: how workers are started, treated and replaced.
/// All else stays as it was read `first`.
pub fn in_force(first: &Config, new: &Config) -> Config {
    Config {
        command: new.command.clone(),
        workers: new.workers,
        nofile: new.nofile,
        oom_score_adj: new.oom_score_adj,
        cpu_affinity: new.cpu_affinity,
        cpu_scheduling: new.cpu_scheduling,
        ready_timeout: new.ready_timeout,
        autorestart: new.autorestart,
        min_uptime: new.min_uptime,
        max_restarts: new.max_restarts,
        stop_exit_codes: new.stop_exit_codes.clone(),
        drain_timeout: new.drain_timeout,
        stop_signal: new.stop_signal,
        kill_timeout: new.kill_timeout,
        reload_parallel: new.reload_parallel,
        ..first.clone()
    }
}

/// The settings of `new` that are not in force, by their names.
pub fn waiting(in_force: &Config, new: &Config) -> Vec<&'static str> {
    keys::all().filter(|key| (key.show)(in_force) != (key.show)(new)).map(|key| key.name).collect()
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
        assert!(waiting(&in_force(&old, &new), &new).is_empty());
        new.max_restarts += 1;
        new.workers = NonZeroU32::MIN;
        assert!(waiting(&in_force(&old, &new), &new).is_empty());
        new.queue = 7.try_into().expect("not zero");
        new.wait_ready = !old.wait_ready;
        assert_eq!(waiting(&in_force(&old, &new), &new), ["queue", "wait-ready"]);
    }
}
