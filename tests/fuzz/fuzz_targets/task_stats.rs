//! The target `task_stats` for cargo-fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kata_pulse_fuzz::named("task_stats").expect("a target").run(data));
