//! How cgroups are mounted on this node, decided once per mount and not per file.

use std::io;
use std::path::{Path, PathBuf};

/// The hierarchies found under the cgroup mount point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One unified hierarchy.
    V2 {
        /// Its root.
        root: PathBuf,
    },
    /// One hierarchy per controller or pair of controllers; on hybrid systems also an empty unified one, which still
    /// has the pressure files.
    V1(V1),
}

/// Roots of the v1 hierarchies; `None` where a controller is not mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after the controllers")]
pub struct V1 {
    pub cpu: Option<PathBuf>,
    pub cpuacct: Option<PathBuf>,
    pub memory: Option<PathBuf>,
    pub blkio: Option<PathBuf>,
    pub pids: Option<PathBuf>,
    pub hugetlb: Option<PathBuf>,
    pub unified: Option<PathBuf>,
}

/// Nothing that looks like a cgroup mount.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The mount point cannot be listed.
    #[error("read {path}")]
    Read {
        /// The mount point.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds neither `cgroup.controllers` nor a directory named after a v1 controller.
    #[error("{path} is no cgroup mount: neither cgroup.controllers nor a v1 controller in it")]
    NoCgroups {
        /// The mount point.
        path: PathBuf,
    },
}

impl Layout {
    /// Looks at the mount point, usually `/sys/fs/cgroup`.
    pub fn detect(mount: &Path) -> Result<Self, LayoutError> {
        if mount.join("cgroup.controllers").exists() {
            return Ok(Self::V2 { root: mount.to_owned() });
        }
        let read = |source| LayoutError::Read { path: mount.to_owned(), source };
        let mut v1 = V1::default();
        let mut found = false;
        for entry in std::fs::read_dir(mount).map_err(read)? {
            let entry = entry.map_err(read)?;
            let name = entry.file_name();
            // A pair is one directory `cpu,cpuacct`, usually with a link per name beside it.
            for controller in name.to_string_lossy().split(',') {
                let root = match controller {
                    "cpu" => &mut v1.cpu,
                    "cpuacct" => &mut v1.cpuacct,
                    "memory" => &mut v1.memory,
                    "blkio" => &mut v1.blkio,
                    "pids" => &mut v1.pids,
                    "hugetlb" => &mut v1.hugetlb,
                    "unified" if entry.path().join("cgroup.controllers").exists() => &mut v1.unified,
                    _ => continue,
                };
                if root.is_none() && entry.path().is_dir() {
                    found |= controller != "unified";
                    *root = Some(entry.path());
                }
            }
        }
        if found { Ok(Self::V1(v1)) } else { Err(LayoutError::NoCgroups { path: mount.to_owned() }) }
    }

    /// The hierarchy whose tree names every container: on v1 the memory one, else the next that is mounted.
    pub fn primary_root(&self) -> Option<&Path> {
        match self {
            Self::V2 { root } => Some(root),
            Self::V1(V1 { cpu, cpuacct, memory, blkio, pids, .. }) => {
                [memory, cpu, cpuacct, pids, blkio].into_iter().find_map(|root| root.as_deref())
            }
        }
    }

    /// For people: `cgroup v2`, `cgroup v1`, `cgroup v1 with pressure from v2`.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::V2 { .. } => "cgroup v2",
            Self::V1(V1 { unified: Some(_), .. }) => "cgroup v1, hybrid with v2",
            Self::V1(_) => "cgroup v1",
        }
    }
}

/// A cgroup's directory in a hierarchy.
pub fn directory(root: &Path, cgroup: &str) -> PathBuf {
    root.join(cgroup.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v2_v1_hybrid_and_nothing_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path();
        assert!(matches!(Layout::detect(mount), Err(LayoutError::NoCgroups { .. })));
        assert!(matches!(Layout::detect(&mount.join("none")), Err(LayoutError::Read { .. })));

        std::fs::create_dir(mount.join("cpu,cpuacct")).unwrap();
        std::fs::create_dir(mount.join("memory")).unwrap();
        let Layout::V1(v1) = Layout::detect(mount).unwrap() else { panic!("v1") };
        assert_eq!(v1.cpu, v1.cpuacct);
        assert_eq!(v1.unified, None);
        assert_eq!(Layout::V1(v1).primary_root(), Some(mount.join("memory").as_path()));

        std::fs::create_dir(mount.join("unified")).unwrap();
        std::fs::write(mount.join("unified/cgroup.controllers"), "").unwrap();
        assert_eq!(Layout::detect(mount).unwrap().describe(), "cgroup v1, hybrid with v2");

        std::fs::write(mount.join("cgroup.controllers"), "cpu memory\n").unwrap();
        assert_eq!(Layout::detect(mount).unwrap(), Layout::V2 { root: mount.to_owned() });
    }
}
