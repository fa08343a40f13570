//! The target `ttrpc` for cargo-fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kata_pulse_fuzz::named("ttrpc").expect("a target").run(data));
