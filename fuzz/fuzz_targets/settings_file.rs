//! Whatever stands in a file of settings: `cargo +nightly fuzz run settings_file`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| clusterd::internal::properties::settings_file::check(data));
