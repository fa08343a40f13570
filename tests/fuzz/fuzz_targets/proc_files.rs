//! The target `proc_files` for cargo-fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kata_pulse_fuzz::named("proc_files").expect("a target").run(data));
