//! What another reading of the configuration changes, and what of that a reload puts in force.
//!
//! Pure. What a reload cannot change was bound, opened or started once, and stays until clusterd is started again.

use super::Config;
use super::table;

/// What a reload puts in force of a configuration that was read again: how workers are started, treated and replaced.
/// All else stays as it was read `first`.
pub(crate) fn in_force(first: &Config, new: &Config) -> Config {
    first.reloaded(new)
}

/// The settings of `new` that are not in force, by their names.
pub(crate) fn waiting(in_force: &Config, new: &Config) -> Vec<&'static str> {
    table::all().filter(|key| (key.show)(in_force) != (key.show)(new)).map(|key| key.name).collect()
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
