//! How many series a guest may name. Pure.
//!
//! Interfaces, disks, filesystems and page sizes are the guest's words, and each becomes several series. A guest that
//! makes up thousands of them gets the first ones served, always the same, and the rest counted.

use crate::collect::kata::Measured;
use crate::model::usage::Usage;

/// Series that one sandbox may name, all containers together. A guest with ten interfaces, sixty disks and thirty
/// filesystems uses a third of them.
pub const MAX_SERIES: usize = 2000;

/// Series that each kind of thing becomes, with every family on.
const PER_INTERFACE: usize = 8;
const PER_FILESYSTEM: usize = 6;
const PER_DISK: usize = 4;
const PER_DEVICE: usize = 12;
const PER_PAGE_SIZE: usize = 3;

/// What is left of it.
struct Allowance {
    left: usize,
    dropped: usize,
}

impl Allowance {
    /// Keeps as many of the first ones as the rest allows.
    fn cut<T>(&mut self, list: &mut Vec<T>, series_each: usize) {
        let kept = list.len().min(self.left / series_each);
        self.dropped += (list.len() - kept) * series_each;
        self.left -= kept * series_each;
        list.truncate(kept);
    }
}

/// Cuts what a sandbox names to its allowance. Gives the number of series left out.
pub fn bound(measured: &mut Measured) -> u64 {
    let mut allowance = Allowance { left: MAX_SERIES, dropped: 0 };
    if let Some(guest) = &mut measured.report.guest {
        allowance.cut(&mut guest.interfaces, PER_INTERFACE);
        allowance.cut(&mut guest.filesystems, PER_FILESYSTEM);
        allowance.cut(&mut guest.disks, PER_DISK);
    }
    let mut containers: Vec<_> = measured.containers.iter_mut().collect();
    containers.sort_unstable_by_key(|(id, _)| *id);
    for (_, Usage { io, hugetlb, .. }) in containers {
        allowance.cut(hugetlb, PER_PAGE_SIZE);
        allowance.cut(io, PER_DEVICE);
    }
    allowance.dropped as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::guest::{Guest, GuestFilesystem};
    use crate::model::identity::ContainerId;
    use crate::model::units::Bytes;
    use crate::model::usage::Hugetlb;

    fn measured(filesystems: usize, containers: usize) -> Measured {
        let mut measured = Measured::default();
        let filesystem = |at| GuestFilesystem { mount: format!("/{at}"), ..GuestFilesystem::default() };
        let guest = Guest { filesystems: (0..filesystems).map(filesystem).collect(), ..Guest::default() };
        measured.report.guest = Some(guest);
        let page = Hugetlb { page_size: "2MB".to_owned(), usage: Bytes(1), max_usage: None, failcnt: None };
        for at in 0..containers {
            let usage = Usage { hugetlb: vec![page.clone()], ..Usage::default() };
            measured.containers.insert(ContainerId::from(format!("{at:03}").as_str()), usage);
        }
        measured
    }

    #[test]
    fn a_plain_guest_keeps_everything() {
        let mut plain = measured(30, 10);
        assert_eq!(bound(&mut plain), 0);
        assert_eq!(plain.report.guest.unwrap().filesystems.len(), 30);
    }

    #[test]
    fn what_is_over_is_cut_and_counted_and_always_the_same() {
        let mut many = measured(400, 10);
        // 333 filesystems of 6 series are 1998; nothing is left for 10 containers' page sizes of 3.
        assert_eq!(bound(&mut many), (400 - 333) * 6 + 10 * 3);
        assert_eq!(many.report.guest.unwrap().filesystems.last().unwrap().mount, "/332");
        let mut some = measured(330, 10);
        // 20 series are left: six containers' page sizes.
        assert_eq!(bound(&mut some), 4 * 3);
        let kept = |id: &str| !some.containers[id].hugetlb.is_empty();
        assert!(kept("005") && !kept("006"));
    }
}
