//! What a real node needs from the machine. A missing piece is an error that names the Debian package: a test that
//! skips itself would look like one that passed.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// Where Debian puts the CNI plugins.
pub(crate) const CNI_PLUGINS: &str = "/usr/lib/cni";

/// The statically linked busybox that the images are made of.
pub(crate) const BUSYBOX: &str = "/bin/busybox";

const PROGRAMS: [(&str, &str); 5] = [
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("ip", "iproute2"),
];

/// Root often has no `sbin` in its PATH in CI jobs, although runc and ip live there.
const PROGRAM_DIRECTORIES: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The PATH under which containerd, its shims and the CNI plugins run.
pub(crate) fn search_path() -> String {
    PROGRAM_DIRECTORIES.join(":")
}

/// Fails with the first thing that the machine lacks.
pub(crate) fn check() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "a real node must be run by root: it mounts, makes cgroups and network namespaces"
    );
    for (program, package) in PROGRAMS {
        let found = PROGRAM_DIRECTORIES.iter().any(|directory| Path::new(directory).join(program).is_file());
        ensure!(found, "a real node needs the program {program}: install the Debian package {package}");
    }
    for plugin in ["bridge", "host-local", "loopback"] {
        require_file(&Path::new(CNI_PLUGINS).join(plugin), "containernetworking-plugins")?;
    }
    require_file(Path::new(BUSYBOX), "busybox-static")?;
    let busybox = std::fs::read(BUSYBOX).with_context(|| format!("read {BUSYBOX}"))?;
    // An ELF file that asks for the dynamic loader names it; in an image without libraries it could not start.
    let loader = b"/ld-linux";
    ensure!(
        !busybox.windows(loader.len()).any(|window| window == loader),
        "{BUSYBOX} is linked dynamically: install the Debian package busybox-static in place of busybox"
    );
    for controller in ["cpu", "cpuacct", "cpuset", "memory", "pids"] {
        if crate::cgroup::hierarchy(controller).is_err() {
            bail!(
                "a real node needs the cgroup v1 controller {controller}: boot with systemd.unified_cgroup_hierarchy=0"
            );
        }
    }
    Ok(())
}

fn require_file(path: &Path, package: &str) -> Result<()> {
    ensure!(path.is_file(), "a real node needs {}: install the Debian package {package}", path.display());
    Ok(())
}
