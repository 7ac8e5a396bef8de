//! Real servers, not a line of them changed: a table of them, and what is proved of each.
//!
//! A row of the table ([`server::Server`]) is a configuration: its command, its files, what a client says to it and what
//! it answers. Each row is a test, and [`proof`] says what it shows. The rows of a language or of a kind of server
//! are a file in `table`.
//!
//! Only some rows run everywhere (`.in_ci()`); `CLUSTERD_TEST_SERVERS=all` runs the others as well.

mod dialogue;
mod proof;
mod server;
mod table;
mod turns;

pub(crate) use turns::answer_in_turn;
