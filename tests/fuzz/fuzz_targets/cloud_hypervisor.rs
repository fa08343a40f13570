//! The target `cloud_hypervisor` for cargo-fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kata_pulse_fuzz::named("cloud_hypervisor").expect("a target").run(data));
