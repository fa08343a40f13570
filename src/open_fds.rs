//! How many descriptors a process has open, from its directory `/proc/<pid>/fd`. A leaf: the agent counts its own and
//! those of sandboxes.

use std::path::Path;

/// Open descriptors. Since kernel 6.2 the directory's size says so; before, and where `/proc` is no procfs, they are
/// counted one by one, and a process with more than `most` gives no number.
pub fn count(dir: &Path, real_procfs: bool, most: usize) -> Option<u64> {
    if real_procfs {
        let size = std::fs::metadata(dir).ok()?.len();
        if size > 0 {
            return Some(size);
        }
    }
    let counted = std::fs::read_dir(dir).ok()?.take(most + 1).count();
    if counted > most { None } else { u64::try_from(counted).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_as_many_descriptors_either_way() {
        let dir = Path::new("/proc/self/fd");
        let by_size = count(dir, true, 4096).unwrap();
        let counted = count(dir, false, 4096).unwrap();
        // Counting opens the directory itself; other tests open files meanwhile.
        assert!(by_size > 0 && counted.abs_diff(by_size) < 200, "{by_size} {counted}");
        assert_eq!(count(dir, false, 1), None, "too many to be counted");
        assert_eq!(count(Path::new("/proc/self/none"), true, 4096), None);
    }
}
