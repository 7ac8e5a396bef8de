//! Whatever a Node worker sends: `cargo +nightly fuzz run node_worker`.

#![no_main]

#[path = "../node_worker.rs"]
mod node_worker;

libfuzzer_sys::fuzz_target!(|data: &[u8]| node_worker::check(data));
