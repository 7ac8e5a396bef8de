//! Whatever the image of clusterd before has written down: `cargo +nightly fuzz run snapshot`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| clusterd::internal::properties::snapshot::check(data));
