//! The target `shim_passthrough` for cargo-fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kata_pulse_fuzz::named("shim_passthrough").expect("a target").run(data));
