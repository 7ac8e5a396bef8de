//! PM2's dialect: what it calls things, and how it shows them, for scripts that were written for it.
//!
//! In reading order: [`line`](mod@line) (a command line in its words), [`record`] (a worker as its list has it), [`inspect`] (the
//! text that Node makes of that) and [`table`] (its list).

pub(super) mod inspect;
pub(super) mod line;
pub(super) mod record;
pub(super) mod table;

/// Whether it is a number, such as the 1 of `-1`.
fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}
