//! What is said to a clusterd that runs: by its verbs, and at its control socket.

mod commands;
mod connections;
mod looking;
mod socket;
