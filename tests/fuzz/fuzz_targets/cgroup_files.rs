//! The target `cgroup_files` for cargo-fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kata_pulse_fuzz::named("cgroup_files").expect("a target").run(data));
