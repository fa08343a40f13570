//! The target `guest_text` for cargo-fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kata_pulse_fuzz::named("guest_text").expect("a target").run(data));
