//! Which worker gets the next connection, and how many at a time: pure bookkeeping, no I/O.

pub mod round_robin;
pub mod window;
