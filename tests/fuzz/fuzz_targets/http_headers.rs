//! The target `http_headers` for cargo-fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kata_pulse_fuzz::named("http_headers").expect("a target").run(data));
