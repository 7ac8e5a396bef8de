//! Whatever another clusterd tells the page: `cargo +nightly fuzz run home_state`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| clusterd::internal::properties::home_state::check(data));
