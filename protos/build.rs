//! Generates the messages of the kata-agent and of the containerd shim from the files beside this one, and passes
//! facts of the build to the crate: compiler version and source revision for `kata_pulse_build_info`.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

use ttrpc_codegen::{Codegen, ProtobufCustomize};

/// What is generated from.
const PROTOS: [&str; 4] =
    ["protos/agent.proto", "protos/task.proto", "protos/cgroups_v1.proto", "protos/cgroups_v2.proto"];

fn main() -> Result<(), Box<dyn Error>> {
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
    messages()
}

/// Writes `$OUT_DIR/protos/mod.rs` with one module of messages per file. Needs no `protoc` and no network.
///
/// The generator also writes a client and a server per service. They stay unused: `src/transport/client.rs` says why
/// calls are made by hand.
fn messages() -> Result<(), Box<dyn Error>> {
    for proto in PROTOS {
        println!("cargo::rerun-if-changed={proto}");
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("protos");
    std::fs::create_dir_all(&out)?;
    Codegen::new()
        .out_dir(&out)
        .inputs(PROTOS)
        .include("protos")
        .rust_protobuf()
        // Without descriptors and reflection, which nothing here asks for.
        .rust_protobuf_customize(ProtobufCustomize::default().gen_mod_rs(true).lite_runtime(true))
        .run()?;
    Ok(())
}
