//! The simulator's programs: the shim, as containerd can start it, and sandboxes in a process of their own.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The shim's path.
#[track_caller]
pub fn containerd_shim_kata() -> PathBuf {
    program("containerd-shim-kata-v2")
}

/// The path of the program that serves simulated sandboxes.
#[track_caller]
pub fn kata_node() -> PathBuf {
    program("kata-node")
}

/// A program of the simulator. Cargo builds a test's own package and no binary of another, so it is built here; when the
/// test was not started by cargo, the one that is there must do.
#[track_caller]
fn program(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_BIN_EXE_kata-pulse")).parent().expect("the binary is in a directory");
    let path = directory.join(name);
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        // The whole workspace with one binary: the same features, so what was built before is used again.
        build.args(["build", "--quiet", "--locked", "--workspace", "--bin", name]);
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        if directory.ends_with("release") {
            build.arg("--release");
        }
        let status = build.status().expect("run cargo");
        assert!(status.success(), "{name} cannot be built: {status}");
    }
    assert!(path.is_file(), "{} is missing: build it with `cargo build --workspace`", path.display());
    path
}
