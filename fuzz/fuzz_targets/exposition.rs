//! Whatever workers tell in their metrics: `cargo +nightly fuzz run exposition`.

#![no_main]

#[path = "../exposition.rs"]
mod exposition;

libfuzzer_sys::fuzz_target!(|data: &[u8]| exposition::check(data));
