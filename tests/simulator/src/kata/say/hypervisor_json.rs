//! What Cloud Hypervisor's API says. Keys come in another order every time, as they do from the real one.

use serde_json::{Value, json};

use crate::kata::kind::VmState;
use crate::kata::truth::{VmmDiskTruth, VmmTruth};

/// Least and most latency before the first request, and their quotient that is told as the average.
const NO_LATENCY: [u64; 3] = [u64::MAX, u64::MAX, u64::MAX / 10_000];

/// A status and a body.
pub(crate) type Answer = (u16, String);

/// `vmm.ping`. It answers whatever the state of the VM is.
pub(crate) fn ping(pid: u32) -> Answer {
    let body = json!({"build_version": "v51.1.0", "version": "51.1.0", "pid": pid, "features": ["io_uring", "kvm"]});
    (200, body.to_string())
}

/// `vm.info`.
pub(crate) fn info(vmm: &VmmTruth, state: VmState, vcpus: u64) -> Answer {
    let state = match state {
        VmState::Running => "Running",
        VmState::Paused => "Paused",
        VmState::NotBooted => "Created",
        VmState::NotCreated => return unavailable("VM is not created"),
    };
    let devices = vmm.nets.iter().map(|net| &net.id).chain(vmm.disks.iter().map(|disk| &disk.id));
    let tree: serde_json::Map<_, _> = devices
        .map(|id| (id.clone(), json!({"id": id, "resources": [], "parent": null, "children": [], "pci_bdf": null})))
        .collect();
    let body = json!({
        "config": {
            "cpus": {"boot_vcpus": vcpus, "max_vcpus": vcpus, "topology": null, "kvm_hyperv": false},
            "memory": {"size": vmm.memory_bytes, "hotplug_method": "Acpi", "hotplugged_size": null, "shared": true,
                       "hugepages": false, "zones": null, "thp": true},
            "payload": {"kernel": "/opt/kata/share/kata-containers/vmlinuz", "cmdline": "root=/dev/vda1 ro panic=1"},
            "disks": vmm.disks.iter().map(|disk| json!({"id": disk.id, "readonly": false})).collect::<Vec<_>>(),
            "net": vmm.nets.iter().map(|net| json!({"id": net.id, "tap": null, "num_queues": 2})).collect::<Vec<_>>(),
            "balloon": null,
        },
        "state": state,
        "memory_actual_size": vmm.memory_bytes,
        "device_tree": tree,
    });
    (200, body.to_string())
}

/// `vm.counters`; `call` is the number of the call and turns the order of the keys.
pub(crate) fn counters(vmm: &VmmTruth, state: VmState, call: usize, wrong_units: bool) -> Answer {
    match state {
        VmState::Running | VmState::Paused => {}
        VmState::NotBooted => return unavailable("VM is not running"),
        VmState::NotCreated => return unavailable("VM is not created"),
    }
    let number = |value: u64| if wrong_units { json!(value.to_string()) } else { json!(value) };
    let mut devices: Vec<(String, Vec<(&str, Value)>)> = Vec::new();
    for net in &vmm.nets {
        let counters = [
            ("rx_bytes", net.rx_bytes),
            ("rx_frames", net.rx_frames),
            ("tx_bytes", net.tx_bytes),
            ("tx_frames", net.tx_frames),
        ];
        devices.push((net.id.clone(), counters.map(|(name, value)| (name, number(value))).to_vec()));
    }
    for disk in &vmm.disks {
        let counters = disk_counters(disk).map(|(name, value)| (name, number(value)));
        devices.push((disk.id.clone(), counters.to_vec()));
    }
    (200, turned_object(devices.into_iter().map(|(id, counters)| (id, turned_object(counters, call))), call))
}

fn disk_counters(disk: &VmmDiskTruth) -> [(&'static str, u64); 10] {
    let [read_min, read_max, read_avg] = disk.read_latency.unwrap_or(NO_LATENCY);
    let [write_min, write_max, write_avg] = disk.write_latency.unwrap_or(NO_LATENCY);
    [
        ("read_bytes", disk.read_bytes),
        ("write_bytes", disk.write_bytes),
        ("read_ops", disk.read_ops),
        ("write_ops", disk.write_ops),
        ("read_latency_min", read_min),
        ("read_latency_max", read_max),
        ("read_latency_avg", read_avg),
        ("write_latency_min", write_min),
        ("write_latency_max", write_max),
        ("write_latency_avg", write_avg),
    ]
}

/// An object whose members begin at another one in every call.
fn turned_object<K: AsRef<str>>(members: impl IntoIterator<Item = (K, impl ToString)>, call: usize) -> String {
    let mut members: Vec<_> = members
        .into_iter()
        .map(|(key, value)| format!("{}:{}", Value::from(key.as_ref()), value.to_string()))
        .collect();
    let turn = call % members.len().max(1);
    members.rotate_left(turn);
    format!("{{{}}}", members.join(","))
}

fn unavailable(why: &str) -> Answer {
    (500, json!(["Error from API", "The VM info is not available", why]).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kata::truth::VmmNetTruth;

    #[test]
    fn keys_change_their_order_and_nothing_else() {
        let net = VmmNetTruth { id: "_net0".to_owned(), rx_bytes: 1, rx_frames: 2, tx_bytes: 3, tx_frames: 4 };
        let disk = VmmDiskTruth {
            id: "_disk0".to_owned(),
            read_bytes: 0,
            read_ops: 0,
            write_bytes: 0,
            write_ops: 0,
            read_latency: None,
            write_latency: None,
        };
        let vmm = VmmTruth { memory_bytes: 1 << 30, nets: vec![net], disks: vec![disk] };
        let (status, first) = counters(&vmm, VmState::Running, 0, false);
        let (_, second) = counters(&vmm, VmState::Running, 1, false);
        assert_eq!(status, 200);
        assert_ne!(first, second);
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(parse(&first), parse(&second));
        assert_eq!(parse(&first)["_net0"]["tx_frames"], 4);
        assert_eq!(parse(&first)["_disk0"]["read_latency_min"], u64::MAX);
        assert_eq!(parse(&first)["_disk0"]["write_latency_avg"], 1_844_674_407_370_955_u64);
        assert_eq!(counters(&vmm, VmState::NotBooted, 0, false).0, 500);
        assert!(parse(&counters(&vmm, VmState::NotCreated, 0, false).1).is_array());
    }
}
