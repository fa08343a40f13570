//! What must be served of a simulated sandbox, worked out from the simulator's own state: no formula of the agent is
//! used here.

use std::collections::BTreeMap;

use kata_pulse_simulator::kata::truth::{
    BlockIoTruth, Component, ContainerTruth, GuestTruth, HostTruth, InterfaceTruth, ProcessTruth, Truth, VmmTruth,
};
use kata_pulse_simulator::kata::{GuestCgroup, Hypervisor, KataSandbox};

/// Samples by family and labels. The labels that only say whose it is are left out but for `container`, `name`.
pub type Expected = BTreeMap<(String, String), f64>;

/// Puts samples together.
#[derive(Default)]
struct Book(Expected);

impl Book {
    fn put(&mut self, family: &str, labels: &[(&str, &str)], value: f64) {
        let mut labels = labels.to_vec();
        labels.sort_unstable();
        let text: String = labels.iter().map(|(name, value)| format!("{name}={value},")).collect();
        let before = self.0.insert((family.to_owned(), text), value);
        assert_eq!(before, None, "{family} {labels:?} expected twice");
    }
}

/// Every sample that the sandbox's own sources give, with every family on and the agent reachable.
pub fn of(sandbox: &KataSandbox, guest: GuestCgroup) -> Expected {
    let truth = sandbox.truth();
    // A vsock leads to QEMU's guests, and there is none here: only the guest itself names its disks,
    // and the network is the node's to tell.
    let names = (sandbox.hypervisor() != Hypervisor::Qemu).then_some(&truth.guest);
    let mut book = Book::default();
    for container in &truth.containers {
        let is_pause = container.id == sandbox.id();
        of_container(&mut book, container, if is_pause { "" } else { &container.name }, guest, names);
    }
    of_network(&mut book, sandbox.id(), names.map_or(&truth.host.network, |guest| &guest.network));
    of_guest(&mut book, sandbox.id(), &truth.guest);
    of_host(&mut book, sandbox, &truth);
    if sandbox.hypervisor() == Hypervisor::CloudHypervisor {
        of_vmm(&mut book, sandbox.id(), &truth.vmm);
    }
    book.0
}

fn of_container(
    book: &mut Book,
    container: &ContainerTruth,
    name: &str,
    guest: GuestCgroup,
    names: Option<&GuestTruth>,
) {
    let v2 = guest == GuestCgroup::V2;
    let id = [("container", name), ("name", container.id.as_str())];
    let with = |more: &[(&'static str, &'static str)]| [&id[..], more].concat();
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    // A guest with cgroup v1 counts modes in ticks of 10 ms.
    let mode = |nanos: u64| seconds(if v2 { nanos } else { nanos - nanos % 10_000_000 });
    let ContainerTruth { cpu, memory, pids, block_io, .. } = container;
    book.put("container_cpu_usage_seconds_total", &with(&[("cpu", "total")]), seconds(cpu.total_ns()));
    book.put("container_cpu_user_seconds_total", &id, mode(cpu.user_ns));
    book.put("container_cpu_system_seconds_total", &id, mode(cpu.kernel_ns));
    if cpu.periods > 0 {
        book.put("container_cpu_cfs_periods_total", &id, cpu.periods as f64);
        book.put("container_cpu_cfs_throttled_periods_total", &id, cpu.throttled_periods as f64);
        // The agent loses the time on v2; where nothing was throttled its zero is true.
        if !v2 || cpu.throttled_periods == 0 {
            book.put("container_cpu_cfs_throttled_seconds_total", &id, seconds(cpu.throttled_ns));
        }
    }
    for (family, bytes) in [
        ("container_memory_usage_bytes", memory.usage()),
        ("container_memory_working_set_bytes", memory.working_set()),
        ("container_memory_rss", memory.anon()),
        ("container_memory_cache", memory.file()),
        ("container_memory_mapped_file", memory.file_mapped),
        ("container_memory_swap", memory.swap),
        ("container_memory_max_usage_bytes", memory.peak),
        ("container_memory_kernel_usage", memory.kernel()),
        ("container_memory_file_dirty_bytes", memory.file_dirty),
        // Nothing is being written back in a simulated guest, nor does it use huge pages.
        ("container_memory_file_writeback_bytes", 0),
        ("container_memory_total_active_file_bytes", memory.active_file),
        ("container_memory_total_inactive_file_bytes", memory.inactive_file),
    ] {
        book.put(family, &id, bytes as f64);
    }
    if !v2 {
        book.put("container_memory_failcnt", &id, memory.failures as f64);
    }
    for scope in ["container", "hierarchy"] {
        for (kind, count) in [("pgfault", memory.page_faults), ("pgmajfault", memory.major_page_faults)] {
            let labels = [id[0], id[1], ("failure_type", kind), ("scope", scope)];
            book.put("container_memory_failures_total", &labels, count as f64);
        }
    }
    book.put("container_threads", &id, *pids as f64);
    if !name.is_empty() {
        // Nobody has been killed.
        book.put("container_oom_events_total", &id, 0.0);
    }
    for size in ["1GB", "2MB"] {
        book.put("container_hugetlb_usage_bytes", &with(&[("pagesize", size)]), 0.0);
        book.put("container_hugetlb_failcnt", &with(&[("pagesize", size)]), 0.0);
        if !v2 {
            book.put("container_hugetlb_max_usage_bytes", &with(&[("pagesize", size)]), 0.0);
        }
    }
    if v2 {
        for family in ["pgscan", "pgsteal", "workingset_refault_anon", "workingset_refault_file"] {
            // Nothing is reclaimed in a simulated guest.
            book.put(&format!("container_memory_{family}_total"), &id, 0.0);
        }
    } else {
        for io in block_io {
            of_device(book, &id, io, names);
        }
    }
}

fn of_device(book: &mut Book, id: &[(&str, &str)], io: &BlockIoTruth, names: Option<&GuestTruth>) {
    let name = names.map(|guest| {
        let disk = guest.disks.iter().find(|disk| (disk.major, disk.minor) == (io.major, io.minor));
        format!("/dev/{}", disk.expect("the guest lists the disk").name)
    });
    let device = name.unwrap_or_else(|| format!("/dev/block/{}:{}", io.major, io.minor));
    let labels = [id, &[("device", device.as_str())]].concat();
    for (family, value) in [
        ("container_fs_reads_bytes_total", io.read_bytes),
        ("container_fs_writes_bytes_total", io.write_bytes),
        ("container_fs_reads_total", io.reads),
        ("container_fs_writes_total", io.writes),
    ] {
        book.put(family, &labels, value as f64);
    }
    let (major, minor) = (io.major.to_string(), io.minor.to_string());
    // Everything is counted as synchronous in the simulated guest.
    let all = io.read_bytes + io.write_bytes;
    let operations = [("Read", io.read_bytes), ("Write", io.write_bytes), ("Sync", all), ("Async", 0), ("Total", all)];
    for (operation, value) in operations {
        let more = [("major", major.as_str()), ("minor", minor.as_str()), ("operation", operation)];
        book.put("container_blkio_device_usage_total", &[&labels[..], &more].concat(), value as f64);
    }
}

fn of_network(book: &mut Book, sandbox: &str, network: &[InterfaceTruth]) {
    let is_pods = |name: &str| name != "lo" && !name.starts_with("tap");
    for InterfaceTruth { name, received, sent } in network.iter().filter(|interface| is_pods(&interface.name)) {
        let labels = [("container", ""), ("interface", name.as_str()), ("name", sandbox)];
        for (direction, traffic) in [("receive", received), ("transmit", sent)] {
            for (what, count) in [
                ("bytes", traffic.bytes),
                ("packets", traffic.packets),
                ("errors", traffic.errors),
                ("packets_dropped", traffic.drops),
            ] {
                book.put(&format!("container_network_{direction}_{what}_total"), &labels, count as f64);
            }
        }
    }
}

fn of_guest(book: &mut Book, sandbox: &str, guest: &GuestTruth) {
    let id = [("sandbox_id", sandbox)];
    for (mode, millis) in guest.cpu_total().items() {
        book.put("kata_pulse_guest_cpu_seconds_total", &[id[0], ("mode", mode)], millis as f64 / 1e3);
    }
    let memory = &guest.memory;
    for (what, bytes) in [
        ("total", memory.total),
        ("free", memory.free),
        ("available", memory.available),
        ("buffers", memory.buffers),
        ("cached", memory.cached),
        ("anon", memory.anon_pages),
        ("slab", memory.slab_reclaimable + memory.slab_unreclaimable),
    ] {
        book.put(&format!("kata_pulse_guest_memory_{what}_bytes"), &id, bytes as f64);
    }
    for (minutes, load) in [1, 5, 15].into_iter().zip(guest.load) {
        book.put(&format!("kata_pulse_guest_load{minutes}"), &id, f64::from(load));
    }
    book.put("kata_pulse_guest_threads", &id, guest.tasks.1 as f64);
    book.put("kata_pulse_guest_vcpus", &id, guest.cpus.len() as f64);
    book.put("kata_pulse_guest_oom_kills_total", &id, guest.vm_stat("oom_kill") as f64);
    for disk in guest.disks.iter().filter(|disk| !disk.partition && disk.name.starts_with("vd")) {
        let device = format!("/dev/{}", disk.name);
        let labels = [id[0], ("device", device.as_str())];
        for (what, value) in [
            ("read_bytes", disk.sectors_read * 512),
            ("written_bytes", disk.sectors_written * 512),
            ("reads", disk.reads),
            ("writes", disk.writes),
        ] {
            book.put(&format!("kata_pulse_guest_disk_{what}_total"), &labels, value as f64);
        }
    }
    for filesystem in &guest.filesystems {
        let labels = [id[0], ("device", filesystem.device.as_str()), ("mount", filesystem.mount.as_str())];
        for (what, value) in [
            ("size_bytes", filesystem.total_bytes),
            ("used_bytes", filesystem.used_bytes),
            ("free_bytes", filesystem.available_bytes),
            ("inodes", filesystem.total_inodes),
            ("inodes_free", filesystem.total_inodes - filesystem.used_inodes),
        ] {
            book.put(&format!("kata_pulse_guest_filesystem_{what}"), &labels, value as f64);
        }
    }
}

fn of_host(book: &mut Book, sandbox: &KataSandbox, truth: &Truth) {
    let id = [("sandbox_id", sandbox.id())];
    let host = &truth.host;
    book.put("kata_pulse_sandbox_host_cpu_seconds_total", &id, host.cpu_us() as f64 / 1e6);
    let memory = host_memory(host);
    book.put("kata_pulse_sandbox_host_memory_bytes", &id, memory as f64);
    let used: u64 = truth.containers.iter().map(|container| container.memory.usage()).sum();
    book.put("kata_pulse_sandbox_overhead_memory_bytes", &id, memory.saturating_sub(used) as f64);
    for (component, parts) in [
        ("shim", &[Component::Shim][..]),
        ("hypervisor", &[Component::Hypervisor]),
        ("virtiofsd", &[Component::Virtiofsd, Component::VirtiofsdChild]),
    ] {
        let processes: Vec<&ProcessTruth> =
            host.processes.iter().filter(|process| parts.contains(&process.component)).collect();
        if processes.is_empty() {
            continue;
        }
        let sum = |of: fn(&ProcessTruth) -> u64| processes.iter().map(|process| of(process)).sum::<u64>() as f64;
        let labels = [id[0], ("component", component)];
        let ticks = sum(|process| process.ticks().0 + process.ticks().1);
        for (what, value) in [
            ("cpu_seconds_total", ticks / 100.0),
            ("resident_memory_bytes", sum(ProcessTruth::rss)),
            ("threads", sum(|process| process.threads.len() as u64)),
            ("open_fds", sum(|process| process.descriptors)),
            ("read_bytes_total", sum(|process| process.io.read_bytes)),
            ("written_bytes_total", sum(|process| process.io.write_bytes)),
        ] {
            book.put(&format!("kata_pulse_sandbox_process_{what}"), &labels, value);
        }
    }
}

/// What the node can only give back by ending the sandbox: no page cache in it.
fn host_memory(host: &HostTruth) -> u64 {
    host.cgroups().map(|cgroup| cgroup.anon + cgroup.shmem + cgroup.kernel).sum()
}

fn of_vmm(book: &mut Book, sandbox: &str, vmm: &VmmTruth) {
    let id = ("sandbox_id", sandbox);
    book.put("kata_pulse_vmm_memory_bytes", &[id], vmm.memory_bytes as f64);
    book.put("kata_pulse_vmm_state", &[id, ("state", "running")], 1.0);
    for net in &vmm.nets {
        let labels = [id, ("device", net.id.as_str())];
        for (what, value) in [
            ("receive_bytes", net.rx_bytes),
            ("receive_frames", net.rx_frames),
            ("transmit_bytes", net.tx_bytes),
            ("transmit_frames", net.tx_frames),
        ] {
            book.put(&format!("kata_pulse_vmm_net_{what}_total"), &labels, value as f64);
        }
    }
    for disk in &vmm.disks {
        let labels = [id, ("device", disk.id.as_str())];
        for (kind, latency) in [("read", disk.read_latency), ("write", disk.write_latency)] {
            for (stat, micros) in ["min", "max", "mean"].into_iter().zip(latency.into_iter().flatten()) {
                let labels = [id, labels[1], ("stat", stat)];
                book.put(&format!("kata_pulse_vmm_block_{kind}_latency_seconds"), &labels, micros as f64 / 1e6);
            }
        }
        for (what, value) in [
            ("read_bytes", disk.read_bytes),
            ("reads", disk.read_ops),
            ("written_bytes", disk.write_bytes),
            ("writes", disk.write_ops),
        ] {
            book.put(&format!("kata_pulse_vmm_block_{what}_total"), &labels, value as f64);
        }
    }
}
