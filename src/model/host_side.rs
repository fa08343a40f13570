//! What a Kata sandbox costs the node: its processes, the cgroups they are in, its network as the host sees it.
//!
//! The same memory shows in several places: guest RAM is shared between VMM and virtiofsd and is counted in the
//! resident memory of both. Only the cgroups' sum counts each page once.

use crate::model::identity::CgroupPath;
use crate::model::units::{Bytes, Seconds};
use crate::model::usage::Interface;

/// The host side of one sandbox.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostSide {
    /// The shim. With Dragonball it is the VMM as well.
    pub shim: Option<ProcessUse>,
    /// The VMM, where it is a process of its own.
    pub hypervisor: Option<ProcessUse>,
    /// virtiofsd and the processes it forked.
    pub virtiofsd: Option<ProcessUse>,
    /// Each cgroup that belongs to this sandbox alone.
    pub cgroups: Vec<CgroupUse>,
    /// CPU time of these cgroups together: what the node has paid. `None` unless every process is in one of them.
    pub cpu: Option<Seconds>,
    /// Memory of these cgroups together, likewise.
    pub memory: Option<Bytes>,
    /// Interfaces of the pod's network namespace, without the tap that mirrors them to the guest.
    pub network: Vec<Interface>,
    /// When this was measured, Unix time.
    pub measured_at: Option<Seconds>,
}

/// One component of a sandbox: a process, or several that are counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessUse {
    /// CPU time of all threads, user and system, cumulative.
    pub cpu: Option<Seconds>,
    /// Resident memory.
    pub resident: Option<Bytes>,
    /// Anonymous part of it.
    pub resident_anon: Option<Bytes>,
    /// Shared part of it: guest RAM, whenever virtio-fs is used.
    pub resident_shmem: Option<Bytes>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open descriptors.
    pub open_fds: Option<u64>,
    /// Bytes fetched from storage, cumulative. Takes the right to trace the process.
    pub read_bytes: Option<Bytes>,
    /// Bytes sent to storage, cumulative. Takes the right to trace the process.
    pub written_bytes: Option<Bytes>,
}

/// A cgroup that belongs to one sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupUse {
    /// Where.
    pub path: CgroupPath,
    /// What is in it.
    pub role: CgroupRole,
    /// CPU time, cumulative.
    pub cpu: Option<Seconds>,
    /// Memory now.
    pub memory: Option<HostMemory>,
}

/// What one of a sandbox's cgroups is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupRole {
    /// The sandbox's own, in the pod's: everything, or in split mode the VMM (v2) or its vCPU threads (v1).
    Sandbox,
    /// Split mode only, outside of the pod: the shim, virtiofsd, and memory the VMM touched before it was moved.
    Overhead,
}

/// Memory a sandbox's cgroup holds on the host, in the parts that matter for a machine: guest RAM is `shmem` when it is
/// shared with virtiofsd and always with runtime-rs and Cloud Hypervisor, `anon` otherwise, `hugetlb` when so
/// configured. The host's page cache is not in it: it can be reclaimed without asking anyone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostMemory {
    /// Anonymous.
    pub anon: Option<Bytes>,
    /// Shared.
    pub shmem: Option<Bytes>,
    /// The kernel's, on behalf of the sandbox.
    pub kernel: Option<Bytes>,
    /// Huge pages of all sizes; `None` without the controller.
    pub hugetlb: Option<Bytes>,
}

impl HostMemory {
    /// All of it. Huge pages are left out where nobody counts them; any other part must be there.
    pub fn total(&self) -> Option<Bytes> {
        let hugetlb = self.hugetlb.map_or(0, |bytes| bytes.0);
        let parts = [self.anon?.0, self.shmem?.0, self.kernel?.0, hugetlb];
        parts.into_iter().try_fold(0u64, u64::checked_add).map(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_needs_every_part_but_huge_pages() {
        let memory = HostMemory {
            anon: Some(Bytes(3)),
            shmem: Some(Bytes(40)),
            kernel: Some(Bytes(500)),
            hugetlb: Some(Bytes(6000)),
        };
        assert_eq!(memory.total(), Some(Bytes(6543)));
        assert_eq!(HostMemory { hugetlb: None, ..memory }.total(), Some(Bytes(543)));
        assert_eq!(HostMemory { kernel: None, ..memory }.total(), None);
    }
}
