//! Passes facts of the build to the crate: compiler version and source revision for `kata_pulse_build_info`.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=protos/build.rs");
    println!("cargo::rerun-if-env-changed=KATA_PULSE_REVISION");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = Command::new(rustc)
        .arg("--version")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .and_then(|line| line.split_whitespace().nth(1).map(str::to_owned))
        .unwrap_or_default();
    println!("cargo::rustc-env=KATA_PULSE_RUSTC={version}");
    let revision = std::env::var("KATA_PULSE_REVISION").unwrap_or_default();
    println!("cargo::rustc-env=KATA_PULSE_REVISION={revision}");
}
