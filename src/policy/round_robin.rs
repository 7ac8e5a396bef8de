//! The free pool: idle workers in the order in which they became idle, as in Node's `round_robin_handle`.
//!
//! It does not know why a worker is idle, nor through which channel it is reached.

use std::collections::VecDeque;

/// Idle workers, the one that has been idle longest first.
///
/// A worker is in the pool at most once.
#[derive(Debug)]
pub struct RoundRobin<W> {
    free: VecDeque<W>,
}

impl<W: Copy + PartialEq> RoundRobin<W> {
    /// An empty pool.
    pub fn new() -> Self {
        Self { free: VecDeque::new() }
    }

    /// Takes the worker that is next out of the pool.
    pub fn take(&mut self) -> Option<W> {
        self.free.pop_front()
    }

    /// Puts an idle worker at the end, unless it is in the pool already.
    pub fn release(&mut self, worker: W) {
        if !self.free.contains(&worker) {
            self.free.push_back(worker);
        }
    }

    /// Takes a worker out, wherever it stands.
    pub fn remove(&mut self, worker: W) {
        self.free.retain(|&free| free != worker);
    }

    /// Whether no worker is idle.
    pub fn is_empty(&self) -> bool {
        self.free.is_empty()
    }
}

impl<W: Copy + PartialEq> Default for RoundRobin<W> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::RoundRobin;
    use proptest::prelude::*;

    #[test]
    fn idle_workers_take_turns() {
        let mut pool = RoundRobin::new();
        for worker in 1..=3 {
            pool.release(worker);
        }
        let mut turns = Vec::new();
        for _ in 0..7 {
            let worker = pool.take().unwrap();
            turns.push(worker);
            pool.release(worker);
        }
        assert_eq!(turns, [1, 2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn a_busy_worker_is_passed_over_and_comes_back_last() {
        let mut pool = RoundRobin::new();
        for worker in 1..=3 {
            pool.release(worker);
        }
        let busy = pool.take().unwrap();
        assert_eq!(pool.take(), Some(2));
        pool.release(2);
        pool.release(busy);
        assert_eq!([pool.take(), pool.take(), pool.take(), pool.take()], [Some(3), Some(2), Some(1), None]);
    }

    proptest! {
        /// Whatever happens, the pool holds just the workers that were released and neither taken nor removed since.
        #[test]
        fn the_pool_holds_each_idle_worker_once(steps in prop::collection::vec((0u8..3, 0u8..5), 0..200)) {
            let mut pool = RoundRobin::new();
            let mut idle = Vec::new();
            for (step, worker) in steps {
                match step {
                    0 => {
                        pool.release(worker);
                        if !idle.contains(&worker) {
                            idle.push(worker);
                        }
                    }
                    1 => {
                        pool.remove(worker);
                        idle.retain(|&other| other != worker);
                    }
                    _ => {
                        let expected = if idle.is_empty() { None } else { Some(idle.remove(0)) };
                        prop_assert_eq!(pool.take(), expected);
                    }
                }
                prop_assert_eq!(pool.is_empty(), idle.is_empty());
            }
        }
    }
}
