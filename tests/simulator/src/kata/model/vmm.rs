//! What the hypervisor counts for its devices.

use super::Facts;
use crate::kata::truth::{DiskTruth, GuestTruth, VmmDiskTruth, VmmNetTruth, VmmTruth};

impl Facts {
    pub(super) fn vmm(&self, guest: &GuestTruth, tick: u64) -> VmmTruth {
        let eth0 = guest.interface("eth0");
        let net = VmmNetTruth {
            id: "_net0".to_owned(),
            rx_bytes: eth0.received.bytes,
            rx_frames: eth0.received.packets,
            tx_bytes: eth0.sent.bytes,
            tx_frames: eth0.sent.packets,
        };
        let whole = guest.disks.iter().filter(|disk| !disk.partition && disk.name.starts_with("vd"));
        let disks = whole.enumerate().map(|(number, disk)| self.vmm_disk(number, disk, tick)).collect();
        VmmTruth { memory_bytes: self.plan.memory_bytes, nets: vec![net], disks }
    }

    fn vmm_disk(&self, number: usize, disk: &DiskTruth, tick: u64) -> VmmDiskTruth {
        let latency = |what: &str, requests: u64| {
            let least = 80 + self.dice.roll(&format!("{what} least {number}"), 100);
            let average = least + self.dice.gauge(&format!("{what} average {number}"), 50, 900, tick);
            // Once seen, the extremes stay.
            (requests > 0).then_some([least, least + 60_000, average])
        };
        VmmDiskTruth {
            id: format!("_disk{number}"),
            read_bytes: disk.sectors_read * 512,
            read_ops: disk.reads,
            write_bytes: disk.sectors_written * 512,
            write_ops: disk.writes,
            read_latency: latency("read", disk.reads),
            write_latency: latency("write", disk.writes),
        }
    }
}
