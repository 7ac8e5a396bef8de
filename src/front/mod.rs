//! The data path: from a client's connection to a worker that takes it.
//!
//! It runs on a thread of its own and owns listeners, queues and channels. It knows no processes: the rest of
//! the program reaches it through [`handle::Handle`], and it answers with [`handle::Notice`]s.

pub mod handle;
