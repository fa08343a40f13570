//! Removes what demos left that were killed before they could clean up.
//!
//! Everything a demo makes has its pid in the name. A pid is dead when no process has it, or one that is not
//! a demo; our own pid is dead, too, when something already bears it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kata_pulse_simulator::hierarchy;

use crate::network;
use crate::node::{DIRECTORIES, NAME_PREFIX};

/// Removes it all, and tells on standard error what it could not remove.
pub(crate) fn sweep() {
    for hierarchy in hierarchy::mounted().unwrap_or_default() {
        for name in left_over(&hierarchy.mount, NAME_PREFIX) {
            complain(hierarchy::remove_tree(&hierarchy.mount.join(name)));
        }
    }
    for name in left_over(Path::new("/sys/class/net"), network::LINK_PREFIX) {
        complain(network::remove(&name));
    }
    for (parent, prefix) in DIRECTORIES {
        for name in left_over(Path::new(parent), prefix) {
            let path = Path::new(parent).join(name);
            // Others may write to some of these places, and the name alone does not make it ours.
            if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == 0) {
                complain(fs::remove_dir_all(&path).map_err(Into::into));
            }
        }
    }
}

/// The names in `directory` that begin with `prefix` and the pid of a dead demo.
fn left_over(directory: &Path, prefix: &str) -> Vec<String> {
    let names = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| demo_of(name, prefix).is_some_and(|pid| !is_live(pid))).collect()
}

/// The pid in `kata-pulse-demo-4711` or `kpd4711-0`.
fn demo_of(name: &str, prefix: &str) -> Option<u32> {
    let rest = name.strip_prefix(prefix)?;
    rest.split('-').next()?.parse().ok()
}

fn is_live(pid: u32) -> bool {
    let comm = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm"));
    pid != std::process::id()
        && matches!((comm(&pid.to_string()), comm("self")), (Ok(theirs), Ok(ours)) if theirs == ours)
}

fn complain(outcome: anyhow::Result<()>) {
    if let Err(error) = outcome {
        writeln!(io::stderr(), "demo: left-over of an earlier demo: {error:#}").ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_demos_are_taken() {
        assert_eq!(demo_of("kata-pulse-demo-4711", NAME_PREFIX), Some(4711));
        assert_eq!(demo_of("kpd4711-0", network::LINK_PREFIX), Some(4711));
        assert_eq!(demo_of("kpd4711", network::LINK_PREFIX), Some(4711));
        assert_eq!(demo_of("kpdata", network::LINK_PREFIX), None);
        assert_eq!(demo_of("kata-pulse-demo-", NAME_PREFIX), None);
        assert_eq!(demo_of("kubepods", NAME_PREFIX), None);
    }

    #[test]
    fn a_process_that_is_no_demo_is_no_live_demo() {
        assert!(!is_live(1), "init is no demo");
        assert!(!is_live(std::process::id()), "what bears our pid at the start is older than we are");
    }
}
