//! Whatever stands in PM2's files: `cargo +nightly fuzz run import`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| clusterd::internal::properties::import::check(data));
