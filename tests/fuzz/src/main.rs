//! Every target in one program: linking twenty takes minutes. `FUZZ_TARGET` names the one to run, arguments are
//! libFuzzer's. With `FUZZ_TARGET=list` it prints the names, each with its longest input.
#![no_main]

use std::io::Write;
use std::sync::OnceLock;

use kata_pulse_fuzz::{TARGETS, Target, named};

static CHOSEN: OnceLock<&Target> = OnceLock::new();

/// Looks the target up before the first input comes.
fn choose() {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    if name == "list" {
        let mut out = std::io::stdout().lock();
        let written = TARGETS.iter().try_for_each(|target| writeln!(out, "{} {}", target.name, target.max_len));
        written.expect("somebody reads the list");
        std::process::exit(0);
    }
    let target = named(&name).expect("FUZZ_TARGET names one of kata_pulse_fuzz::TARGETS");
    CHOSEN.get_or_init(|| target);
}

libfuzzer_sys::fuzz_target!(init: choose(), |data: &[u8]| {
    let target = CHOSEN.get().expect("chosen before the first input");
    target.run(data);
});
