//! How many descriptors a process has open, from its directory `/proc/<pid>/fd`. A leaf: the agent counts its own and
//! those of sandboxes.

use std::mem::MaybeUninit;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat};

/// Room for the entries of about forty descriptors, which most processes do not have.
const ENTRIES: usize = 1024;

/// Open descriptors. Since kernel 6.2 the directory's size says so; before, and where `/proc` is no procfs, they are
/// counted one by one, and a process with more than `most` gives no number.
pub fn count(dir: &Path, real_procfs: bool, most: usize) -> Option<u64> {
    if real_procfs {
        let size = std::fs::metadata(dir).ok()?.len();
        if size > 0 {
            return Some(size);
        }
    }
    // Not by `std::fs::read_dir`, whose buffer of 32 kB costs more than the counting.
    let opened = openat(CWD, dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut buffer = [MaybeUninit::uninit(); ENTRIES];
    let mut entries = RawDir::new(opened, &mut buffer);
    let mut counted = 0;
    while let Some(entry) = entries.next() {
        let entry = entry.ok()?;
        counted += usize::from(!matches!(entry.file_name().to_bytes(), b"." | b".."));
        if counted > most {
            return None;
        }
    }
    u64::try_from(counted).ok()
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
