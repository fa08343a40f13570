//! What else there is of the pods that [`crate::cgroups`] makes: a runtime that names them, and a kubelet's directory with
//! their volumes, of each a tmpfs, as a CSI driver would have mounted it, and an `emptyDir` on disk.
//!
//! A sweeper, which only waits for this process to end, in whatever way, unmounts what is in there.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use kata_pulse_simulator::cri::{CriServer, Node, Pod};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::cgroups;
use crate::child::Told;

/// Files in each `emptyDir`.
const FILES: usize = 100;

/// What the name of the directory begins with.
const PREFIX: &str = "kata-pulse-bench-";

/// Pods with volumes that are really there.
#[derive(Debug)]
pub struct Pods {
    runtime: CriServer,
    // Unmounted before it is removed: fields are dropped in this order.
    _sweeper: Told,
    directory: tempfile::TempDir,
}

impl Pods {
    /// So many, each with one container.
    pub fn new(pods: usize) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
        let sweeper = Told::start(Command::new(std::env::current_exe()?).arg("unmount").arg(directory.path()))?;
        let node = Node::new();
        for number in 0..pods {
            let uid = cgroups::uid(number);
            let pod = Pod::new("bench", &format!("pod-{number}")).uid(&uid);
            node.add_pod(&pod);
            node.add_container(&pod.container("app").with_id(&cgroups::id(number)));
            let volumes = directory.path().join("pods").join(uid).join("volumes");
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
        let runtime = CriServer::start(directory.path().join("cri.sock"), &node)?;
        Ok(Self { runtime, _sweeper: sweeper, directory })
    }

    /// The agent's flags.
    pub fn flags(&self) -> [String; 2] {
        let (runtime, kubelet) = (self.runtime.path().display(), self.directory.path().display());
        [format!("--runtime-endpoint={runtime}"), format!("--kubelet-dir={kubelet}")]
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
