//! Direct-assigned volumes of Kata: a block device that the guest mounts by itself. The node has no filesystem to ask.
//!
//! ```text
//! <run>/kata-containers/shared/direct-volumes/<base64 of the path where the pod's volume would be>/mountInfo.json
//! ```
//!
//! Only the names are read. `docs/decisions/0005-volumes.md` says why the guest is not asked.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;

use crate::collect::volume::table::{self, Place};

/// The directory below the run directory.
pub(super) const DIRECTORY: &str = "kata-containers/shared/direct-volumes";

/// The volumes of pods that are direct-assigned, at most so many. No directory, no volumes.
pub(super) fn list(directory: &Path, pods: &Path, most: usize) -> io::Result<Vec<(Place, PathBuf)>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    let found = names.filter_map(|name| volume(name.as_bytes(), pods));
    Ok(found.take(most).collect())
}

/// The volume that an entry stands for and its path below the directory of pods, which is `pods` on the node.
fn volume(encoded: &[u8], pods: &Path) -> Option<(Place, PathBuf)> {
    let path = PathBuf::from(String::from_utf8(URL_SAFE.decode(encoded).ok()?).ok()?);
    let below = path.strip_prefix(pods).ok()?;
    Some((table::place(below)?, below.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: &str = "/var/lib/kubelet/pods";

    #[test]
    fn names_are_paths_of_volumes() {
        let directory = tempfile::tempdir().unwrap();
        let path = format!("{PODS}/0b7c/volumes/kubernetes.io~csi/pvc-1/mount");
        for path in [path.as_str(), "/elsewhere/0b7c/volumes/kubernetes.io~csi/pvc-1/mount", PODS, ""] {
            std::fs::create_dir_all(directory.path().join(URL_SAFE.encode(path))).unwrap();
        }
        std::fs::create_dir(directory.path().join("not base64!")).unwrap();
        std::fs::create_dir(directory.path().join(URL_SAFE.encode(b"\xff\xfe"))).unwrap();
        let found = list(directory.path(), Path::new(PODS), 10).unwrap();
        let place = Place { uid: "0b7c".to_owned(), plugin: "csi".to_owned(), name: "pvc-1".to_owned() };
        let below = PathBuf::from("0b7c/volumes/kubernetes.io~csi/pvc-1/mount");
        assert_eq!(found, [(place, below)]);
        assert_eq!(list(directory.path(), Path::new(PODS), 0).unwrap(), []);
        assert_eq!(list(Path::new("/nowhere"), Path::new(PODS), 10).unwrap(), []);
    }
}
