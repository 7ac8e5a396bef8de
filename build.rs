//! Builds the shim and hands it to the crate.

fn main() {}
