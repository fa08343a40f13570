//! The `filesystem` collector: the node's filesystems and disks on the `/` row, writable layers on container rows.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use procfs::FromRead;
use rustix::fs::StatVfs;

use crate::collect::mount_table::{self, MountTable};
use crate::collect::writable_layer::{Layer, WritableLayers};
use crate::collect::{CollectError, Collector, Draft, Roots, mounted};
use crate::model::inventory::Kind;
use crate::model::units::{Bytes, Seconds};
use crate::model::usage::{Disk, Filesystem};

/// The mount table is long on a busy node and changes with every pod; the node's own filesystems hardly ever do.
const MOUNTS_INTERVAL: Duration = Duration::from_secs(30);

/// Mounts of pods and containers, which come and go and repeat the filesystem they lie on.
const RUNTIME_MOUNTS: [&str; 7] = [
    "/run/containerd/",
    "/run/k3s/containerd/",
    "/run/containers/",
    "/var/lib/containers/",
    "/var/lib/docker/",
    "/var/lib/kubelet/pods/",
    "/run/kata-containers/",
];

/// A filesystem of the node that can be asked for its usage.
#[derive(Debug)]
struct Mount {
    device: String,
    mount_point: PathBuf,
    /// The mount point as this process reaches it, where it does reach it.
    path: Option<PathBuf>,
}

/// Reads the mount table, statfs and `/proc/diskstats`.
#[derive(Debug)]
pub struct Filesystems {
    roots: Arc<Roots>,
    layers: Arc<WritableLayers>,
    mounts: Vec<Mount>,
    mounts_read: Option<Instant>,
}

impl Filesystems {
    /// A collector that has read nothing yet.
    pub fn new(roots: Arc<Roots>, layers: Arc<WritableLayers>) -> Self {
        Self { roots, layers, mounts: Vec::new(), mounts_read: None }
    }

    fn refresh_mounts(&mut self) -> Result<(), CollectError> {
        if self.mounts_read.is_some_and(|read| read.elapsed() < MOUNTS_INTERVAL) {
            return Ok(());
        }
        let table = MountTable::read(&self.roots.proc)?;
        let all = table.mounts()?;
        self.mounts_read = Some(Instant::now());
        let mut mounts: Vec<Mount> = Vec::new();
        for mount in &all {
            let Some(device) = device_label(mount) else { continue };
            // The first mount of a device stands for it: later ones are bind mounts.
            if mounts.iter().any(|known| known.device == device) {
                continue;
            }
            mounts.push(Mount { device, mount_point: mount.point.to_path_buf(), path: self.reach(mount) });
        }
        self.mounts = mounts;
        Ok(())
    }

    /// Where this process sees the mount, if it does.
    fn reach(&self, mount: &mount_table::Mount<'_>) -> Option<PathBuf> {
        let path = below(&self.roots.host, &mount.point);
        mounted::is_at(&path, mount.majmin, &mount.fs_type).is_ok_and(|it_is| it_is).then_some(path)
    }

    /// How full each mount is: asked once, and not for each container whose layer lies there.
    fn ask(&self) -> Vec<Option<StatVfs>> {
        self.mounts.iter().map(|mount| rustix::fs::statvfs(mount.path.as_ref()?).ok()).collect()
    }

    fn of_node(&self, stats: &[Option<StatVfs>]) -> Vec<Filesystem> {
        self.mounts
            .iter()
            .zip(stats)
            .filter_map(|(mount, stat)| {
                let stat = stat.as_ref()?;
                let size = Bytes(stat.f_blocks.saturating_mul(stat.f_frsize));
                Some(Filesystem {
                    device: mount.device.clone(),
                    usage: Some(Bytes(size.0.saturating_sub(stat.f_bfree.saturating_mul(stat.f_frsize)))),
                    limit: Some(size),
                    inodes: Some(stat.f_files),
                    inodes_free: Some(stat.f_ffree),
                })
            })
            .collect()
    }

    /// The writable layer, on the filesystem that holds it.
    fn of_layer(&self, layer: &Layer, stats: &[Option<StatVfs>]) -> Filesystem {
        let holder = self
            .mounts
            .iter()
            .zip(stats)
            .filter(|(mount, _)| layer.mountpoint.starts_with(&mount.mount_point))
            .max_by_key(|(mount, _)| mount.mount_point.as_os_str().len());
        Filesystem {
            device: holder.map(|(mount, _)| mount.device.clone()).unwrap_or_default(),
            usage: Some(layer.used),
            limit: holder
                .and_then(|(_, stat)| stat.as_ref())
                .map(|stat| Bytes(stat.f_blocks.saturating_mul(stat.f_frsize))),
            inodes: None,
            inodes_free: None,
        }
    }

    fn disks(&self) -> Result<Vec<Disk>, CollectError> {
        let path = self.roots.proc.join("diskstats");
        let stats = procfs::DiskStats::from_file(&path).map_err(|error| CollectError::procfs(&path, &error))?;
        let mut seen = HashSet::new();
        let disks = stats.0.into_iter().filter(|disk| seen.insert(disk.name.clone())).filter(|disk| {
            let plumbing = ["loop", "ram", "zram", "sr", "fd"].iter().any(|kind| disk.name.starts_with(kind));
            let device = format!("/dev/{}", disk.name);
            !plumbing && self.mounts.iter().any(|mount| mount.device == device)
        });
        Ok(disks
            .map(|disk| Disk {
                device: format!("/dev/{}", disk.name),
                reads: disk.reads,
                reads_merged: disk.merged,
                sectors_read: disk.sectors_read,
                read_time: Seconds::from_millis(disk.time_reading),
                writes: disk.writes,
                writes_merged: disk.writes_merged,
                sectors_written: disk.sectors_written,
                write_time: Seconds::from_millis(disk.time_writing),
                in_progress: disk.in_progress,
                io_time: Seconds::from_millis(disk.time_in_progress),
                weighted_io_time: Seconds::from_millis(disk.weighted_time_in_progress),
            })
            .collect())
    }
}

/// How cAdvisor names a mount's device; `None` for filesystems that are not storage or belong to a container.
fn device_label(mount: &mount_table::Mount<'_>) -> Option<String> {
    let point = mount.point.to_str()?;
    if RUNTIME_MOUNTS.iter().any(|prefix| point.starts_with(prefix)) {
        return None;
    }
    match &*mount.fs_type {
        "tmpfs" => Some(point.to_owned()),
        "overlay" => Some(format!("overlay_{}", mount.majmin.replace(':', "-"))),
        "btrfs" | "xfs" | "zfs" | "f2fs" | "bcachefs" | "vfat" => Some(mount.source.clone().into_owned()),
        kind if kind.starts_with("ext") => Some(mount.source.clone().into_owned()),
        _ => None,
    }
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

impl Collector for Filesystems {
    fn name(&self) -> &'static str {
        "filesystem"
    }

    fn collect(&mut self, draft: &mut Draft) -> Result<(), CollectError> {
        self.refresh_mounts()?;
        let (stats, layers) = (self.ask(), self.layers.known());
        for row in draft.rows.iter_mut().filter(|row| !row.gone) {
            match row.subject.kind {
                Kind::Root => {
                    row.usage.filesystems = self.of_node(&stats);
                    row.usage.disks = self.disks()?;
                }
                Kind::Container => {
                    let layer = row.subject.container.as_ref().and_then(|id| layers.get(id));
                    row.usage.filesystems = layer.map(|layer| self.of_layer(layer, &stats)).into_iter().collect();
                }
                Kind::Group | Kind::Pod | Kind::Sandbox => {}
            }
        }
        Ok(())
    }
}
