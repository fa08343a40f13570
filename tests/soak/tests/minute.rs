//! A minute of the soak, with everything but the trends, which need more: it must find nothing, leave nothing on the host,
//! and find what is wrong when something is. The minute itself is run by hand until it does not depend on who else has
//! containers on the host.
//!
//! Where it cannot run (not root) it says so and exits with 2, and there is nothing more to be tested.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SOAK: &str = env!("CARGO_BIN_EXE_kata-pulse-soak");

/// A debug build on a machine that runs other tests is slow; the agent and the soak both are.
const PATIENCE: &str = "3";

/// The agent beside the soak. Cargo builds a test's own package and no binary of another, so it is built here; when the
/// test was not started by cargo, the one that is there must do.
fn agent() -> PathBuf {
    let directory = Path::new(SOAK).parent().expect("the binary is in a directory");
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        // The whole workspace with one binary: the same features, so what was built before is used again.
        build.args(["build", "--quiet", "--locked", "--workspace", "--bin", "kata-pulse"]);
        build.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
        if directory.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("run cargo").success(), "the agent cannot be built");
    }
    directory.join("kata-pulse")
}

fn soak(agent: &Path, output: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(SOAK);
    command.arg(agent).args(["--without-trends", "--patience", PATIENCE, "--output"]).arg(output).args(more);
    command.output().expect("run the soak")
}

/// Cgroups that soaks have made on this host and not removed, of processes that have ended.
fn left() -> Vec<PathBuf> {
    let mounts = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let places = mounts.chain([PathBuf::from("/sys/fs/cgroup")]);
    let entries = places.flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten());
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let dead = |path: &PathBuf| {
        let pid = name(path).strip_prefix("kata-pulse-soak-").map(str::to_owned);
        pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
    };
    entries.map(|entry| entry.path()).filter(dead).collect()
}

#[test]
#[ignore = "the agent sees cgroups of everybody on the host, and other tests have some: run it alone, with --ignored"]
fn a_minute_in_which_everything_goes_wrong() {
    let output = tempfile::tempdir().expect("a directory");
    let outcome = soak(&agent(), output.path(), &["--minutes", "0.75"]);
    let report = String::from_utf8_lossy(&outcome.stdout);
    if outcome.status.code() == Some(2) {
        return;
    }
    assert!(outcome.status.success(), "{report}{}", String::from_utf8_lossy(&outcome.stderr));
    assert!(report.ends_with("soak: ok\n"), "{report}");
    // It has done what it says.
    for done in ["Kata pods replaced", "runc pods replaced", "sandbox fault: ", "clients that left midway", "lies told"]
    {
        assert!(report.contains(done), "{done} is lacking: {report}");
    }
    let samples = fs::read_to_string(output.path().join("samples.csv")).expect("the samples");
    assert!(samples.lines().count() > 10, "{samples}");
    assert_eq!(left(), Vec::<PathBuf>::new());
}

#[test]
fn an_agent_that_does_not_live_is_no_success() {
    let output = tempfile::tempdir().expect("a directory");
    let outcome = soak(Path::new("/bin/false"), output.path(), &["--minutes", "0.1"]);
    assert_ne!(outcome.status.code(), Some(0));
}
