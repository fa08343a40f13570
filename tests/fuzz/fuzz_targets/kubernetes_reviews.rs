//! The target `kubernetes_reviews` for cargo-fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kata_pulse_fuzz::named("kubernetes_reviews").expect("a target").run(data));
