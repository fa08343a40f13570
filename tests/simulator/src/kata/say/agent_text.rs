//! What `GetMetrics` says: the guest as a whole, and the agent's own process.

use super::exposition::{Family, Kind, float};
use crate::kata::truth::{CpuModes, GuestMemory, GuestTruth, InterfaceTruth};

/// How a guest that is wrong about units is wrong about them.
#[derive(Debug, Clone, Copy)]
struct Units {
    /// What CPU milliseconds are divided by: agents before 2.5.0 told ticks.
    cpu: u64,
    /// What memory bytes are divided by: the documentation says KiB.
    memory: u64,
}

/// The sections of the text, sorted by name. The scrape count is the caller's.
pub(crate) fn families(guest: &GuestTruth, scrapes: u64, wrong_units: bool) -> Vec<Family> {
    let units = if wrong_units { Units { cpu: 10, memory: 1024 } } else { Units { cpu: 1, memory: 1 } };
    let mut all = agent(guest, scrapes);
    all.push(cpu_time(guest, units));
    all.extend(disks(guest));
    all.extend(filesystems(guest));
    all.push(load(guest));
    all.push(
        Family::gauge("kata_guest_meminfo", "Statistics about memory usage in the system.")
            .items(meminfo(&guest.memory, units.memory)),
    );
    all.push(network(guest));
    let (current, all_tasks) = guest.tasks;
    all.push(Family::gauge("kata_guest_tasks", "Guest system load.").items([("cur", current), ("max", all_tasks)]));
    all.push(
        Family::gauge("kata_guest_vm_stat", "Guest virtual memory statistics.").items(guest.vm_stat.iter().copied()),
    );
    all
}

fn agent(guest: &GuestTruth, scrapes: u64) -> Vec<Family> {
    let agent = &guest.agent;
    let kib = |bytes: u64| bytes / 1024;
    let io = [
        ("cancelled_write_bytes", 0),
        ("rchar", agent.io.rchar),
        ("read_bytes", agent.io.read_bytes),
        ("syscr", agent.io.syscr),
        ("syscw", agent.io.syscw),
        ("wchar", agent.io.wchar),
        ("write_bytes", agent.io.write_bytes),
    ];
    let stat = [("cstime", 12), ("cutime", 4), ("stime", agent.system_ticks), ("utime", agent.user_ticks)];
    let status = [
        ("hugetlbpages", 0),
        ("nonvoluntary_ctxt_switches", 334),
        ("rssanon", 3408),
        ("rssfile", kib(agent.rss_bytes) - 3408),
        ("rssshmem", 0),
        ("vmdata", 9428),
        ("vmexe", 33_308),
        ("vmhwm", kib(agent.rss_bytes)),
        ("vmlck", 0),
        ("vmlib", 2084),
        ("vmpeak", kib(agent.virtual_bytes)),
        ("vmpin", 0),
        ("vmpte", 172),
        ("vmrss", kib(agent.rss_bytes)),
        ("vmsize", kib(agent.virtual_bytes)),
        ("vmstk", 216),
        ("vmswap", 0),
        ("voluntary_ctxt_switches", 118),
    ];
    let seconds = float(agent.user_ticks + agent.system_ticks) / 100.0;
    vec![
        Family::gauge("kata_agent_io_stat", "Agent process IO statistics.").items(io),
        Family::gauge("kata_agent_proc_stat", "Agent process statistics.").items(stat),
        Family::gauge("kata_agent_proc_status", "Agent process status.").items(status),
        Family::gauge("kata_agent_scrape_count", "Metrics scrape count").of(Kind::Counter).value(float(scrapes)),
        Family::gauge("kata_agent_threads", "Agent process threads").value(float(agent.threads)),
        Family::gauge("kata_agent_total_rss", "Agent process total RSS size").value(float(agent.rss_bytes)),
        Family::gauge("kata_agent_total_time", "Agent process total time").value(seconds),
        Family::gauge("kata_agent_total_vm", "Agent process total VM size").value(float(agent.virtual_bytes)),
    ]
}

fn cpu_time(guest: &GuestTruth, units: Units) -> Family {
    let mut family = Family::gauge("kata_guest_cpu_time", "Guest CPU statistics.");
    let mut put = |cpu: &str, modes: &CpuModes| {
        for (item, ms) in modes.items() {
            family.push("", &[("cpu", cpu), ("item", item)], float(ms / units.cpu));
        }
    };
    for (number, modes) in guest.cpus.iter().enumerate() {
        put(&number.to_string(), modes);
    }
    put("total", &guest.cpu_total());
    family
}

fn disks(guest: &GuestTruth) -> Option<Family> {
    let mut family = Family::gauge("kata_guest_diskstat", "Disks statistics in system.");
    for disk in &guest.disks {
        for (item, value) in [
            ("discards", 0),
            ("discards_merged", 0),
            ("flushes", disk.flushes),
            ("in_progress", disk.in_progress),
            ("merged", disk.reads_merged),
            ("reads", disk.reads),
            ("sectors_discarded", 0),
            ("sectors_read", disk.sectors_read),
            ("sectors_written", disk.sectors_written),
            ("time_discarding", 0),
            ("time_flushing", disk.time_flushing),
            ("time_in_progress", disk.time_in_progress),
            ("time_reading", disk.time_reading),
            ("time_writing", disk.time_writing),
            ("weighted_time_in_progress", disk.weighted_time_in_progress),
            ("writes", disk.writes),
            ("writes_merged", disk.writes_merged),
        ] {
            family.push("", &[("disk", &disk.name), ("item", item)], float(value));
        }
    }
    (!family.samples.is_empty()).then_some(family)
}

fn filesystems(guest: &GuestTruth) -> Vec<Family> {
    if guest.filesystems.is_empty() {
        return Vec::new();
    }
    let mut bytes = Family::gauge("kata_guest_filesystem_bytes", "Guest filesystem space usage in bytes.");
    let mut inodes = Family::gauge("kata_guest_filesystem_inodes", "Guest filesystem inode usage.");
    for fs in &guest.filesystems {
        let put = |family: &mut Family, items: [(&str, u64); 3]| {
            for (item, value) in items {
                let labels = [("device", fs.device.as_str()), ("item", item), ("mount", fs.mount.as_str())];
                family.push("", &labels, float(value));
            }
        };
        let (total, used) = (fs.total_bytes, fs.used_bytes);
        put(&mut bytes, [("available", fs.available_bytes), ("total", total), ("used", used)]);
        let (total, used) = (fs.total_inodes, fs.used_inodes);
        put(&mut inodes, [("available", total - used), ("total", total), ("used", used)]);
    }
    vec![bytes, inodes]
}

fn load(guest: &GuestTruth) -> Family {
    let [load1, load5, load15] = guest.load;
    let mut family = Family::gauge("kata_guest_load", "Guest system load.");
    // Single precision widened, which is where the many digits come from.
    for (item, value) in [("load1", load1), ("load15", load15), ("load5", load5)] {
        family.push("", &[("item", item)], f64::from(value));
    }
    family
}

fn network(guest: &GuestTruth) -> Family {
    let mut family = Family::gauge("kata_guest_netdev_stat", "Guest net devices statistics.");
    for interface in &guest.network {
        for (item, value) in netdev_items(interface) {
            family.push("", &[("interface", &interface.name), ("item", item)], float(value));
        }
    }
    family
}

/// The items of an interface, in the guest and on the host alike.
pub(super) fn netdev_items(interface: &InterfaceTruth) -> [(&'static str, u64); 16] {
    let InterfaceTruth { received, sent, .. } = interface;
    [
        ("recv_bytes", received.bytes),
        ("recv_compressed", 0),
        ("recv_drop", received.drops),
        ("recv_errs", received.errors),
        ("recv_fifo", 0),
        ("recv_frame", 0),
        ("recv_multicast", 0),
        ("recv_packets", received.packets),
        ("sent_bytes", sent.bytes),
        ("sent_carrier", 0),
        ("sent_colls", 0),
        ("sent_compressed", 0),
        ("sent_drop", sent.drops),
        ("sent_errs", sent.errors),
        ("sent_fifo", 0),
        ("sent_packets", sent.packets),
    ]
}

/// Bytes, except `hugepages_*`, which are pages. Keys the guest's kernel does not have print as 0.
fn meminfo(memory: &GuestMemory, divisor: u64) -> Vec<(&'static str, u64)> {
    let items = [
        ("active", memory.active_anon + memory.active_file),
        ("active_anon", memory.active_anon),
        ("active_file", memory.active_file),
        ("anon_hugepages", 0),
        ("anon_pages", memory.anon_pages),
        ("bounce", 0),
        ("buffers", memory.buffers),
        ("cached", memory.cached),
        ("cma_free", 0),
        ("cma_total", 0),
        ("commit_limit", memory.total / 2),
        ("committed_as", memory.committed),
        ("direct_map_1G", 0),
        ("direct_map_2M", memory.total),
        ("direct_map_4M", 0),
        ("direct_map_4k", 29_360_128),
        ("dirty", 0),
        ("hardware_corrupted", 0),
        ("high_free", 0),
        ("high_total", 0),
        ("hugepages_free", 0),
        ("hugepages_rsvd", 0),
        ("hugepages_surp", 0),
        ("hugepages_total", 0),
        ("hugepagesize", 2_097_152),
        ("hugetlb", 0),
        ("inactive", memory.inactive_anon + memory.inactive_file),
        ("inactive_anon", memory.inactive_anon),
        ("inactive_file", memory.inactive_file),
        ("k_reclaimable", memory.slab_reclaimable),
        ("kernel_stack", memory.kernel_stack),
        ("low_free", 0),
        ("low_total", 0),
        ("mapped", memory.mapped),
        ("mem_available", memory.available),
        ("mem_free", memory.free),
        ("mem_total", memory.total),
        ("mlocked", 0),
        ("mmap_copy", 0),
        ("nfs_unstable", 0),
        ("page_tables", memory.page_tables),
        ("per_cpu", memory.per_cpu),
        ("quicklists", 0),
        ("s_reclaimable", memory.slab_reclaimable),
        ("s_unreclaim", memory.slab_unreclaimable),
        ("shmem", memory.shmem),
        ("shmem_hugepages", 0),
        ("shmem_pmd_mapped", 0),
        ("slab", memory.slab_reclaimable + memory.slab_unreclaimable),
        ("swap_cached", 0),
        ("swap_free", 0),
        ("swap_total", 0),
        ("unevictable", 0),
        ("vmalloc_chunk", 0),
        ("vmalloc_total", 35_184_372_087_808),
        ("vmalloc_used", 8_163_328),
        ("writeback", 0),
        ("writeback_tmp", 0),
    ];
    items.into_iter().map(|(item, bytes)| (item, bytes / divisor)).collect()
}
