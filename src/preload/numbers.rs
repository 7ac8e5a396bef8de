//! A set of small numbers, ports or descriptors, for statics: without allocation and without a lock.

use core::sync::atomic::{AtomicU64, Ordering};

/// One bit each.
pub(crate) struct Numbers([AtomicU64; 1024]);

impl Numbers {
    pub(crate) const fn none() -> Self {
        Self([const { AtomicU64::new(0) }; 1024])
    }

    pub(crate) fn has(&self, number: u16) -> bool {
        let word = self.0.get(usize::from(number / 64)).map_or(0, |word| word.load(Ordering::Relaxed));
        word & Self::bit(number) != 0
    }

    pub(crate) fn add(&self, number: u16) {
        if let Some(word) = self.0.get(usize::from(number / 64)) {
            word.fetch_or(Self::bit(number), Ordering::Relaxed);
        }
    }

    fn bit(number: u16) -> u64 {
        1 << (number % 64)
    }
}
