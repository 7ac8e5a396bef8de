//! How many connections may be on their way to one worker at a time: pure bookkeeping, no clock but a passed time.
//!
//! With one at a time, as in Node's free pool, a busy worker goes to sleep and is woken for every single connection.
//! Given some ahead, it finds the next one when it comes back. But what is given ahead waits for this worker alone. So
//! the window opens by one with each connection that is taken in time, and closes with the first that is not: a worker
//! that is busy for long with each request gets one at a time.

use std::num::NonZeroUsize;
use std::time::Duration;

/// The window of one channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    size: usize,
    most: usize,
    in_time: Duration,
    stays_open: bool,
}

impl Window {
    /// A closed window, for one connection at a time, that opens for `most` at most. A connection that is taken later
    /// than `in_time` after it was given closes it.
    pub(crate) fn new(most: NonZeroUsize, in_time: Duration) -> Self {
        Self { size: 1, most: most.get(), in_time, stays_open: false }
    }

    /// The same, open from the start and for good.
    pub(crate) fn opened(self) -> Self {
        Self { size: self.most, stays_open: true, ..self }
    }

    /// The same, open for so many, or as many as it may be.
    pub(crate) fn opened_for(self, size: usize) -> Self {
        Self { size: size.clamp(1, self.most), ..self }
    }

    /// Whether it never closes.
    pub(crate) fn stays_open(&self) -> bool {
        self.stays_open
    }

    /// Within which time a connection is taken in time.
    pub(crate) fn in_time(&self) -> Duration {
        self.in_time
    }

    /// How many may be on their way: at least one.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// A connection was taken this long after it was given. Returns whether that was in time.
    pub(crate) fn taken(&mut self, after: Duration) -> bool {
        let in_time = after <= self.in_time;
        if in_time {
            self.size = (self.size + 1).min(self.most);
        } else {
            self.close();
        }
        in_time
    }

    /// A connection was not taken in time.
    pub(crate) fn close(&mut self) {
        if !self.stays_open {
            self.size = 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IN_TIME: Duration = Duration::from_millis(20);

    fn window(most: usize) -> Window {
        Window::new(NonZeroUsize::new(most).unwrap(), IN_TIME)
    }

    #[test]
    fn it_opens_with_each_that_is_taken_in_time_and_closes_with_the_first_that_is_not() {
        let mut window = window(3);
        let late = IN_TIME + Duration::from_nanos(1);
        let mut sizes = vec![window.size()];
        for after in [Duration::ZERO, IN_TIME, IN_TIME, late, IN_TIME] {
            window.taken(after);
            sizes.push(window.size());
        }
        window.close();
        sizes.push(window.size());
        assert_eq!(sizes, [1, 2, 3, 3, 1, 2, 1]);
        let mut opened = window.opened();
        opened.taken(late);
        assert_eq!(opened.size(), 3);
    }

    proptest! {
        #[test]
        fn it_is_never_closed_entirely_nor_wider_than_it_may_be(
            most in 1_usize..20,
            after in prop::collection::vec(0_u64..40, 0..100),
        ) {
            let mut window = window(most);
            for milliseconds in after {
                window.taken(Duration::from_millis(milliseconds));
                prop_assert!((1..=most).contains(&window.size()));
            }
        }
    }
}
