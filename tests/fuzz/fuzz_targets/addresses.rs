//! The target `addresses` for cargo-fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kata_pulse_fuzz::named("addresses").expect("a target").run(data));
