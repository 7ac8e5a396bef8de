//! Whatever is sent with a command: `cargo +nightly fuzz run api_body`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| clusterd::internal::properties::api_body::check(data));
