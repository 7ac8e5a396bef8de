//! The `clusterd` command.

fn main() {}
