//! Facts of the node itself, behind the `machine_*` families and `cadvisor_version_info`.

use crate::model::units::Bytes;

/// The node's hardware and identity. Absent facts give no sample; identity texts are blank when unknown, because
/// the kubelet's families always carry the three labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// DMI product uuid.
    pub system_uuid: String,
    /// Random id of this boot.
    pub boot_id: String,
    /// Kernel release.
    pub kernel_version: String,
    /// `PRETTY_NAME` of os-release.
    pub os_version: String,
    /// Logical CPUs online.
    pub cores: Option<u64>,
    /// Physical cores.
    pub physical_cores: Option<u64>,
    /// Sockets.
    pub sockets: Option<u64>,
    /// Books, s390 only.
    pub books: Option<u64>,
    /// Drawers, s390 only.
    pub drawers: Option<u64>,
    /// `MemTotal`.
    pub memory: Option<Bytes>,
    /// `SwapTotal`.
    pub swap: Option<Bytes>,
    /// Memory modules by type, where the kernel's EDAC driver knows them.
    pub dimms: Vec<Dimm>,
}

/// Memory modules of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dimm {
    /// Type as EDAC names it: `Unbuffered-DDR4`.
    pub kind: String,
    /// How many.
    pub count: u64,
    /// Their size together.
    pub capacity: Bytes,
}
