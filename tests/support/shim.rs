//! The simulator's containerd shim, as a program that containerd can start.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The shim's path. Cargo builds a test's own package and no binary of another, so it is built here; when the test
/// was not started by cargo, the one that is there must do.
#[track_caller]
pub fn containerd_shim_kata() -> PathBuf {
    let directory = Path::new(env!("CARGO_BIN_EXE_kata-pulse")).parent().expect("the binary is in a directory");
    let shim = directory.join("containerd-shim-kata-v2");
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        // The whole workspace with one binary: the same features, so what was built before is used again.
        build.args(["build", "--quiet", "--locked", "--workspace", "--bin", "containerd-shim-kata-v2"]);
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        if directory.ends_with("release") {
            build.arg("--release");
        }
        let status = build.status().expect("run cargo");
        assert!(status.success(), "the shim cannot be built: {status}");
    }
    assert!(shim.is_file(), "{} is missing: build it with `cargo build --workspace`", shim.display());
    shim
}
