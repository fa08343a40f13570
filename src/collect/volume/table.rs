//! Which mounts of the node are volumes of pods. Pure.
//!
//! ```text
//! <kubelet>/pods/<pod uid>/volumes/kubernetes.io~csi/<persistent volume>/mount
//! <kubelet>/pods/<pod uid>/volumes/kubernetes.io~<plugin>/<volume>
//! <kubelet>/plugins/kubernetes.io/csi/volumeDevices/publish/<persistent volume>/<pod uid>     a device
//! <kubelet>/plugins/kubernetes.io/csi/volumeDevices/<persistent volume>/dev/<pod uid>         the same one
//! <kubelet>/plugins/kubernetes.io/<plugin>/volumeDevices/<persistent volume>/<pod uid>        a device
//! ```
//!
//! The mount table is asked and no directory: it has nothing that a pod could have put there, and what is not a mount of
//! its own lies on the node's filesystem, whose figures are not a volume's. Subpaths are bind mounts of a volume that is
//! in the table already, and lie elsewhere (`volume-subpaths`).

use std::path::{Path, PathBuf};

use crate::collect::mount_table::Mount;
use crate::model::units::Bytes;

/// Longest name of a volume, a plugin and a pod uid. Kubernetes' own end at 253 bytes.
const LONGEST: usize = 253;

/// Plugins whose volumes are files that the kubelet writes: they have no capacity of their own.
const FILES_OF_THE_KUBELET: [&str; 5] = ["configmap", "downward-api", "git-repo", "projected", "secret"];

/// Whose volume it is, and which.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The pod.
    pub uid: String,
    /// Without `kubernetes.io~`.
    pub plugin: String,
    /// The directory's name.
    pub name: String,
}

/// How a volume is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// A filesystem, mounted at this path below the directory of pods.
    Filesystem {
        /// The path.
        below: PathBuf,
        /// The filesystem's number in the mount table, `8:16`.
        majmin: String,
        /// Its type there.
        fstype: String,
    },
    /// A device of this name.
    Block {
        /// The name, as in `/proc/partitions`.
        device: String,
    },
    /// In a guest: a device that it mounts, or an `emptyDir`. On the node it would be at this path below the directory of
    /// pods.
    InGuest {
        /// The path.
        below: PathBuf,
    },
}

/// The volume that a mount is, if it is one. `kubelet` is the kubelet's directory on the node.
pub fn volume(mount: &Mount<'_>, kubelet: &Path) -> Option<(Place, Form)> {
    let below = mount.point.strip_prefix(kubelet).ok()?;
    if let Some(place) = below.strip_prefix("pods").ok().and_then(place) {
        let below = below.strip_prefix("pods").ok()?.to_owned();
        let form =
            Form::Filesystem { below, majmin: mount.majmin.to_owned(), fstype: mount.fs_type.clone().into_owned() };
        return Some((place, form));
    }
    // A device node is bound to a file: the root of such a mount is the node's path in the filesystem of devices.
    let device = mount.root.strip_prefix("/").ok().filter(|_| mount.fs_type == "devtmpfs")?.to_str()?;
    Some((device_place(below)?, Form::Block { device: device.to_owned() }))
}

/// The volume that is mounted at a path below the directory of pods.
pub fn place(below: &Path) -> Option<Place> {
    let parts = parts(below)?;
    let (uid, plugin, name) = match parts.as_slice() {
        [uid, "volumes", plugin, name] if *plugin != "kubernetes.io~csi" => (uid, plugin, name),
        [uid, "volumes", plugin @ "kubernetes.io~csi", name, "mount"] => (uid, plugin, name),
        _ => return None,
    };
    let plugin = plugin.strip_prefix("kubernetes.io~")?;
    if FILES_OF_THE_KUBELET.contains(&plugin) {
        return None;
    }
    new_place(uid, plugin, name)
}

fn device_place(below: &Path) -> Option<Place> {
    let parts = parts(below)?;
    let ["plugins", "kubernetes.io", plugin, "volumeDevices", rest @ ..] = parts.as_slice() else { return None };
    let (name, uid) = match rest {
        ["publish", name, uid] | [name, "dev", uid] | [name, uid] => (name, uid),
        _ => return None,
    };
    new_place(uid, plugin, name)
}

pub(super) fn new_place(uid: &str, plugin: &str, name: &str) -> Option<Place> {
    let fits = |text: &str| !text.is_empty() && text.len() <= LONGEST;
    (fits(uid) && fits(plugin) && fits(name)).then(|| Place {
        uid: uid.to_owned(),
        plugin: plugin.to_owned(),
        name: name.to_owned(),
    })
}

/// The names of a path that goes straight down.
fn parts(path: &Path) -> Option<Vec<&str>> {
    path.components()
        .map(|part| match part {
            std::path::Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect()
}

/// Size of the block device of this name, to the KiB, from `/proc/partitions`.
///
/// ```text
/// major minor  #blocks  name
///
///  253        0  264241152 vda
/// ```
pub fn device_size(partitions: &[u8], device: &str) -> Option<Bytes> {
    let text = std::str::from_utf8(partitions).ok()?;
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(2);
        let (blocks, name) = (words.next()?, words.next()?);
        (name == device && words.next().is_none()).then(|| blocks.parse().ok().map(Bytes::from_kib))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::mount_table;

    const UID: &str = "0b7c4bb1-4c5c-4d2c-9f43-6d6f0a0a0a0a";

    fn found(root: &str, point: &str, fstype: &str) -> Option<(Place, Form)> {
        let line = format!("36 35 8:16 {root} {point} rw,relatime shared:1 - {fstype} /dev/sdb rw\n");
        volume(&mount_table::parse(line.as_bytes()).unwrap()[0], Path::new("/var/lib/kubelet"))
    }

    fn of_pod(below: &str) -> Option<Place> {
        found("/", &format!("/var/lib/kubelet/pods/{UID}/{below}"), "ext4").map(|(place, _)| place)
    }

    fn as_place(plugin: &str, name: &str) -> Option<Place> {
        new_place(UID, plugin, name)
    }

    #[test]
    fn filesystems_of_volumes_are_found_by_their_path() {
        assert_eq!(of_pod("volumes/kubernetes.io~csi/pvc-1/mount"), as_place("csi", "pvc-1"));
        assert_eq!(of_pod("volumes/kubernetes.io~nfs/share"), as_place("nfs", "share"));
        assert_eq!(of_pod("volumes/kubernetes.io~empty-dir/cache"), as_place("empty-dir", "cache"));
        let (_, form) =
            found("/", &format!("/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~nfs/a"), "nfs4").unwrap();
        let below = PathBuf::from(format!("{UID}/volumes/kubernetes.io~nfs/a"));
        assert_eq!(form, Form::Filesystem { below, majmin: "8:16".to_owned(), fstype: "nfs4".to_owned() });
    }

    #[test]
    fn what_is_no_volume_of_its_own_is_not_found() {
        for below in [
            "volume-subpaths/data/app/0",
            "volumes/kubernetes.io~csi/pvc-1",
            "volumes/kubernetes.io~csi/pvc-1/mount/inner",
            "volumes/kubernetes.io~nfs/share/mount",
            "volumes/kubernetes.io~projected/kube-api-access-x2x4z",
            "volumes/kubernetes.io~secret/tls",
            "volumes/kubernetes.io~configmap/settings",
            "volumes/kubernetes.io~downward-api/labels",
            "volumes/vendor~driver/v",
            "volumes/kubernetes.io~/v",
            "etc-hosts",
        ] {
            assert_eq!(of_pod(below), None, "{below}");
        }
        assert_eq!(of_pod(&format!("volumes/kubernetes.io~nfs/{}", "a".repeat(254))), None);
        assert_eq!(found("/", "/elsewhere/pods/u/volumes/kubernetes.io~nfs/a", "nfs4"), None);
        assert_eq!(found("/", "/var/lib/kubelet", "ext4"), None);
    }

    #[test]
    fn devices_of_volumes_are_found_by_what_is_bound() {
        let device = |below: &str, root: &str, fstype: &str| {
            found(root, &format!("/var/lib/kubelet/plugins/kubernetes.io/{below}"), fstype)
        };
        for below in ["csi/volumeDevices/publish/pv/UID", "csi/volumeDevices/pv/dev/UID"] {
            let expected = (as_place("csi", "pv").unwrap(), Form::Block { device: "sdb".to_owned() });
            assert_eq!(device(&below.replace("UID", UID), "/sdb", "devtmpfs"), Some(expected), "{below}");
        }
        let local = device(&format!("local-volume/volumeDevices/disk-1/{UID}"), "/dm-3", "devtmpfs").unwrap();
        assert_eq!(local, (as_place("local-volume", "disk-1").unwrap(), Form::Block { device: "dm-3".to_owned() }));
        assert_eq!(device("csi/volumeDevices/publish/pv/u", "/sdb", "ext4"), None, "not a device");
        assert_eq!(device("csi/pv/globalmount", "/sdb", "devtmpfs"), None);
    }

    #[test]
    fn sizes_of_devices_are_in_kibibytes() {
        let text = b"major minor  #blocks  name\n\n 253        0  264241152 vda\n 253       16      65536 vdb\n   7 0 x loop0\n";
        assert_eq!(device_size(text, "vdb"), Some(Bytes(65536 * 1024)));
        for absent in ["vd", "vdbb", "loop0", "name", ""] {
            assert_eq!(device_size(text, absent), None, "{absent}");
        }
        assert_eq!(device_size(b"\xff", "vdb"), None);
    }
}
