//! Generates the messages of the kata-agent and of the shim's Task service from the agent's own proto files, and from
//! one more those by which containerd controls a shim.
//!
//! Only messages: the simulated servers read and write frames by hand, because a server that is to send broken
//! frames, or to notice a call nobody may make, must see every byte.

use std::error::Error;
use std::path::PathBuf;

use ttrpc_codegen::{Codegen, ProtobufCustomize};

const DIRECTORY: &str = "../../protos";
const OWN_DIRECTORY: &str = "protos";
const FILES: [&str; 4] = ["agent.proto", "task.proto", "cgroups_v1.proto", "cgroups_v2.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let inputs =
        FILES.iter().map(|file| format!("{DIRECTORY}/{file}")).chain([format!("{OWN_DIRECTORY}/control.proto")]);
    let inputs: Vec<String> = inputs.collect();
    for input in &inputs {
        println!("cargo::rerun-if-changed={input}");
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("wire");
    std::fs::create_dir_all(&out)?;
    Codegen::new()
        .out_dir(&out)
        .inputs(inputs)
        .includes([DIRECTORY, OWN_DIRECTORY])
        .rust_protobuf()
        .rust_protobuf_customize(ProtobufCustomize::default().gen_mod_rs(true).lite_runtime(true))
        .run()?;
    Ok(())
}
