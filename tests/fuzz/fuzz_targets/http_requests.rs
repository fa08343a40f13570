//! The target `http_requests` for cargo-fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kata_pulse_fuzz::named("http_requests").expect("a target").run(data));
