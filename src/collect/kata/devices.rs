//! Names for the block devices of a guest's containers, which come as numbers. Pure.
//!
//! A guest's cgroups know `254:0`; dashboards look for `/dev/vda`. The guest's own list of disks has names without
//! numbers, so the kernel's numbering rules join the two where they leave no doubt; elsewhere the number stays.

use crate::model::usage::{DeviceIo, DeviceNumber};

/// `sd` disks: major 8, 16 minors each.
const SD_MAJOR: u32 = 8;

/// Majors that the kernel gives from the top to whoever asks: virtio-blk and device-mapper, in the order of loading.
const DYNAMIC_MAJORS: std::ops::RangeInclusive<u32> = 234..=254;

/// Minors of one disk and its partitions.
const MINORS: u32 = 16;

/// Names the devices that are among the guest's disks, given as `/dev/vda`.
pub fn name(io: &mut [DeviceIo], disks: &[String]) {
    for device in io.iter_mut().filter(|device| device.device.is_empty()) {
        if let Some(name) = path(device.number, disks) {
            device.device = name;
        }
    }
}

/// `/dev/vda` for 254:0, if the guest has such a disk.
fn path(number: DeviceNumber, disks: &[String]) -> Option<String> {
    let kind = match number.major {
        SD_MAJOR => "sd",
        major if DYNAMIC_MAJORS.contains(&major) => {
            let any = |prefix: &str| disks.iter().any(|disk| disk.starts_with(prefix));
            // With both kinds of disk it cannot be told whose number it is.
            match (any("/dev/vd"), any("/dev/dm-")) {
                (true, false) => "vd",
                (false, true) => return listed(format!("/dev/dm-{}", number.minor), disks),
                _ => return None,
            }
        }
        _ => return None,
    };
    let disk = listed(format!("/dev/{kind}{}", letters(number.minor / MINORS)), disks)?;
    let partition = number.minor % MINORS;
    Some(if partition == 0 { disk } else { format!("{disk}{partition}") })
}

fn listed(path: String, disks: &[String]) -> Option<String> {
    disks.contains(&path).then_some(path)
}

/// `a` … `z`, `aa`, `ab` …
fn letters(mut index: u32) -> String {
    let mut name = Vec::new();
    loop {
        name.push(b'a' + u8::try_from(index % 26).unwrap_or(0));
        match (index / 26).checked_sub(1) {
            Some(next) => index = next,
            None => break,
        }
    }
    name.reverse();
    String::from_utf8_lossy(&name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(major: u32, minor: u32, names: &[&str]) -> Option<String> {
        let disks: Vec<String> = names.iter().map(|name| format!("/dev/{name}")).collect();
        path(DeviceNumber { major, minor }, &disks)
    }

    #[test]
    fn numbers_become_the_names_that_the_guest_lists() {
        let virtio = ["vda", "vdb", "vdaa", "sda", "pmem0"];
        assert_eq!(named(254, 0, &virtio).as_deref(), Some("/dev/vda"));
        assert_eq!(named(253, 16, &virtio).as_deref(), Some("/dev/vdb"));
        assert_eq!(named(254, 19, &virtio).as_deref(), Some("/dev/vdb3"));
        assert_eq!(named(254, 26 * 16, &virtio).as_deref(), Some("/dev/vdaa"));
        assert_eq!(named(8, 0, &virtio).as_deref(), Some("/dev/sda"));
        assert_eq!(named(254, 32, &virtio), None, "no vdc");
        assert_eq!(named(259, 0, &virtio), None, "a major with no rule");
        assert_eq!(named(253, 1, &["dm-0", "dm-1", "sda"]).as_deref(), Some("/dev/dm-1"));
        assert_eq!(named(253, 0, &["dm-0", "vda"]), None, "either of them");
        assert_eq!(named(254, 0, &[]), None);
    }
}
