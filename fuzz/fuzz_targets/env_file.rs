//! Whatever stands in an environment file: `cargo +nightly fuzz run env_file`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| clusterd::internal::properties::env_file::check(data));
