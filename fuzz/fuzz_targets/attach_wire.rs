//! Whatever a worker's process sends, or a primary: `cargo +nightly fuzz run attach_wire`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| clusterd::internal::properties::attach_wire::check(data));
