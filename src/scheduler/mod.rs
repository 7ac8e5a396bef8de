//! Which worker gets the next connection: pure bookkeeping, no I/O.

pub mod round_robin;
