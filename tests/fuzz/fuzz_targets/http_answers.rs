//! The target `http_answers` for cargo-fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kata_pulse_fuzz::named("http_answers").expect("a target").run(data));
