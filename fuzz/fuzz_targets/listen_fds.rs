//! Whatever the environment says: `cargo +nightly fuzz run listen_fds`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| clusterd::internal::properties::listen_fds::check(data));
