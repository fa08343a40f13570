//! Which cgroup a process is in, as seen from the node's root cgroup: what `/proc/<pid>/cgroup` says.
//!
//! In a cgroup namespace of its own, which is what Kubernetes gives every container on cgroup v2, this process sees the
//! others' paths relative to its own cgroup: `/../../podX/<sandbox>`. Where that is in the node's tree is found once, by
//! this process's pid.

use std::path::Path;

use crate::collect::cgroup::layout::Layout;
use crate::collect::held::read_once;

/// Directories looked at in search of this process's own cgroup.
const MAX_SEARCHED: usize = 20_000;

/// Tells cgroups from what procfs says.
#[derive(Debug, Default)]
pub struct Membership {
    own: Option<Option<String>>,
    buffer: Vec<u8>,
}

impl Membership {
    /// The cgroup of a process, which is read from its `cgroup` file below `proc`; `None` when the process is gone, too.
    pub fn of_process(&mut self, layout: &Layout, proc: &Path, pid: u32) -> Option<String> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let content = read_once(&proc.join(format!("{pid}/cgroup")), &mut buffer).ok();
        let cgroup = content.and_then(|content| self.of(layout, content));
        self.buffer = buffer;
        cgroup
    }

    /// The cgroup that a process's `cgroup` file names, in the hierarchy that names every container. `None` for one that
    /// is removed, and when it cannot be told.
    pub fn of(&mut self, layout: &Layout, content: &[u8]) -> Option<String> {
        let wanted = |controllers: &str| match layout {
            Layout::V2 { .. } => controllers.is_empty(),
            Layout::V1(_) => controllers.split(',').any(|name| name == "memory"),
        };
        let (_, path) = memberships(content).find(|(controllers, _)| wanted(controllers))?;
        // A removed cgroup that still has a dying process.
        if path.ends_with(" (deleted)") {
            return None;
        }
        if !path.starts_with("/..") {
            return Some(path.to_owned());
        }
        let own = self.own.get_or_insert_with(|| own_cgroup(layout.primary_root()?, std::process::id()));
        resolve(own.as_deref()?, path)
    }
}

/// The lines of `/proc/<pid>/cgroup`: controllers, blank for v2, and path.
///
/// ```text
/// 4:memory:/kubepods/pod1/abc
/// 0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-abc.scope
/// ```
fn memberships(content: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    content.split(|byte| *byte == b'\n').filter_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        let (_, rest) = line.split_once(':')?;
        rest.split_once(':')
    })
}

/// `/../../podX/s` from `/kubepods/podA/c`: `/kubepods/podX/s`.
fn resolve(own: &str, relative: &str) -> Option<String> {
    let mut parts: Vec<&str> = own.split('/').filter(|part| !part.is_empty()).collect();
    for part in relative.split('/').filter(|part| !part.is_empty()) {
        if part == ".." {
            parts.pop()?;
        } else {
            parts.push(part);
        }
    }
    Some(format!("/{}", parts.join("/")))
}

/// The cgroup below `root` that a process is in, by walking the tree.
fn own_cgroup(root: &Path, pid: u32) -> Option<String> {
    let wanted = pid.to_string();
    let mut dirs = vec![root.to_owned()];
    let mut searched = 0;
    while let Some(dir) = dirs.pop() {
        searched += 1;
        let procs = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        if procs.lines().any(|line| line == wanted) {
            let below = dir.strip_prefix(root).ok()?.to_str()?;
            return Some(format!("/{below}"));
        }
        if searched == MAX_SEARCHED {
            return None;
        }
        let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        dirs.extend(
            entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::cgroup::layout::V1;

    #[test]
    fn memberships_of_v1_v2_and_hybrid() {
        let hybrid =
            b"9:memory:/kubepods/a:b\n4:cpu,cpuacct:/kubepods/c\n1:name=systemd:/x\n0::/y\nnonsense\n\xff:a:b\n";
        let lines: Vec<_> = memberships(hybrid).collect();
        let expected =
            [("memory", "/kubepods/a:b"), ("cpu,cpuacct", "/kubepods/c"), ("name=systemd", "/x"), ("", "/y")];
        assert_eq!(lines, expected);
        let mut membership = Membership::default();
        let v1 = Layout::V1(V1::default());
        assert_eq!(membership.of(&v1, hybrid).as_deref(), Some("/kubepods/a:b"));
        let v2 = Layout::V2 { root: "/nowhere".into() };
        assert_eq!(membership.of(&v2, hybrid).as_deref(), Some("/y"));
        assert_eq!(membership.of(&v2, b"0::/kubepods/x (deleted)\n"), None);
        assert_eq!(membership.of(&v2, b"9:memory:/kubepods/a\n"), None);
        assert_eq!(membership.of(&v2, b"0::/../x\n"), None, "our own cgroup is not in that tree");
    }

    #[test]
    fn a_relative_path_is_resolved_against_our_own() {
        let own = "/kubepods/burstable/podA/container";
        assert_eq!(resolve(own, "/../../podB/s").as_deref(), Some("/kubepods/burstable/podB/s"));
        assert_eq!(resolve(own, "/../../../../kata_overhead/s").as_deref(), Some("/kata_overhead/s"));
        assert_eq!(resolve(own, "/..").as_deref(), Some("/kubepods/burstable/podA"));
        assert_eq!(resolve(own, "/../../../../../x"), None, "above the root");
    }

    #[test]
    fn a_process_is_found_in_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::create_dir(dir.path().join("z")).unwrap();
        std::fs::write(dir.path().join("cgroup.procs"), "1\n").unwrap();
        std::fs::write(deep.join("cgroup.procs"), "41\n42\n").unwrap();
        assert_eq!(own_cgroup(dir.path(), 42).as_deref(), Some("/a/b/c"));
        assert_eq!(own_cgroup(dir.path(), 1).as_deref(), Some("/"));
        assert_eq!(own_cgroup(dir.path(), 4), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_name_a_cgroup_or_none(content in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = Membership::default().of(&Layout::V2 { root: "/nowhere".into() }, &content);
        }
    }
}
