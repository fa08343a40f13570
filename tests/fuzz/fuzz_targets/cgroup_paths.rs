//! The target `cgroup_paths` for cargo-fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kata_pulse_fuzz::named("cgroup_paths").expect("a target").run(data));
