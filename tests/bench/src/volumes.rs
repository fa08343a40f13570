//! A kubelet's directory with volumes of the pods that [`crate::cgroups`] makes: of each a tmpfs, as a CSI driver would have
//! mounted it, and an `emptyDir` on disk.
//!
//! A sweeper, which only waits for this process to end, in whatever way, unmounts what is in there.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::cgroups;
use crate::child::Told;

/// Files in each `emptyDir`.
pub const FILES: usize = 100;

/// What the name of the directory begins with.
const PREFIX: &str = "kata-pulse-bench-";

/// Volumes that are really there.
#[derive(Debug)]
pub struct Volumes {
    // Unmounted before it is removed: fields are dropped in this order.
    _sweeper: Told,
    directory: tempfile::TempDir,
}

impl Volumes {
    /// Those of so many pods.
    pub fn new(pods: usize) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
        let sweeper = Told::start(Command::new(std::env::current_exe()?).arg("unmount").arg(directory.path()))?;
        for number in 0..pods {
            let volumes = directory.path().join("pods").join(cgroups::uid(number)).join("volumes");
            let point = volumes.join(format!("kubernetes.io~csi/pvc-{number}/mount"));
            fs::create_dir_all(&point)?;
            let data = format!(
                r#"{{"driverName":"csi.bench","specVolID":"pvc-{number}","volumeHandle":"{number}","volumeLifecycleMode":"Persistent"}}"#
            );
            fs::write(point.with_file_name("vol_data.json"), data)?;
            mount("tmpfs", &point, "tmpfs", MountFlags::empty(), Some(c"size=1m"))
                .with_context(|| format!("mount a tmpfs at {}", point.display()))?;
            let cache = volumes.join(format!("kubernetes.io~empty-dir/cache-{number}"));
            fs::create_dir_all(&cache)?;
            for file in 0..FILES {
                fs::write(cache.join(file.to_string()), "")?;
            }
        }
        Ok(Self { _sweeper: sweeper, directory })
    }

    /// The kubelet's directory.
    pub fn kubelet(&self) -> &Path {
        self.directory.path()
    }
}

/// Waits until standard input ends, then unmounts and removes everything below this directory.
pub fn sweep(directory: &Path) -> anyhow::Result<()> {
    let made_here = directory.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX));
    ensure!(made_here, "{} was not made here", directory.display());
    io::stdin().read_to_end(&mut Vec::new())?;
    for mount in fs::read_to_string("/proc/self/mountinfo")?.lines() {
        let point = mount.split(' ').nth(4).map(Path::new);
        if let Some(point) = point.filter(|point| point.starts_with(directory)) {
            unmount(point, UnmountFlags::DETACH)?;
        }
    }
    // Whoever made it removes it too, unless it was killed.
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
