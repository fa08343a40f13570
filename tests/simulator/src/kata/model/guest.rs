//! The guest as a whole, as its own `/proc` would tell it.

use super::vmstat::{self, Sums};
use super::{Facts, PAGE, TICK_MS, pages, part};
use crate::kata::truth::{
    AgentTruth, ContainerTruth, CpuModes, DiskTruth, FilesystemTruth, GuestMemory, GuestTruth, InterfaceTruth,
    ProcessIo, Traffic,
};

/// What kernel, agent and the root filesystem's cache use of the guest's memory.
pub(super) const RESERVED: u64 = 192 << 20;

impl Facts {
    pub(super) fn guest(&self, containers: &[ContainerTruth], tick: u64, oom_kills: u64) -> GuestTruth {
        let memory = self.memory(containers);
        let disks = self.disks(containers, tick);
        let sums = Sums {
            memory: &memory,
            page_faults: containers.iter().map(|container| container.memory.page_faults).sum(),
            major_page_faults: containers.iter().map(|container| container.memory.major_page_faults).sum(),
            sectors_read: disks.iter().filter(|disk| !disk.partition).map(|disk| disk.sectors_read).sum(),
            sectors_written: disks.iter().filter(|disk| !disk.partition).map(|disk| disk.sectors_written).sum(),
            oom_kills,
        };
        let hundredths = |what, high| {
            let hundredths = u16::try_from(self.dice.gauge(what, 1, high, tick)).unwrap_or(u16::MAX);
            f32::from(hundredths) / 100.0
        };
        GuestTruth {
            cpus: self.cpus(containers, tick),
            load: [hundredths("load1", 300), hundredths("load5", 200), hundredths("load15", 100)],
            tasks: (
                self.dice.gauge("runnable", 1, 4, tick),
                60 + containers.iter().map(|container| container.pids).sum::<u64>(),
            ),
            vm_stat: vmstat::items(self.dice, &sums, tick),
            network: self.network(tick),
            filesystems: self.filesystems(tick),
            agent: self.agent(tick),
            memory,
            disks,
        }
    }

    /// In ticks of the guest's clock, then in milliseconds, so all are multiples of 10.
    fn cpus(&self, containers: &[ContainerTruth], tick: u64) -> Vec<CpuModes> {
        let vcpus = self.plan.vcpus;
        let ticks = |nanos: u64| nanos / 1_000_000 / TICK_MS;
        let user = ticks(containers.iter().map(|container| container.cpu.user_ns).sum());
        let system = ticks(containers.iter().map(|container| container.cpu.kernel_ns).sum());
        // What kernel and agent use beside the containers: tenths of a tick, on average.
        let mode = |what, tenths| self.dice.counter(what, tenths, tick) / 10;
        let (user, system) = (user + mode("user", 4), system + mode("system", 9));
        let (nice, iowait, softirq, steal) = (mode("nice", 1), mode("iowait", 5), mode("softirq", 2), mode("steal", 8));
        (0..vcpus)
            .map(|cpu| {
                let share = |sum| part(sum, cpu, vcpus);
                let mut modes = CpuModes {
                    user: share(user),
                    nice: share(nice),
                    system: share(system),
                    iowait: share(iowait),
                    softirq: share(softirq),
                    steal: share(steal),
                    ..CpuModes::default()
                };
                let used = modes.busy() + modes.iowait + modes.steal;
                modes.idle = (4000 + 100 * tick).saturating_sub(used);
                in_milliseconds(modes)
            })
            .collect()
    }

    fn memory(&self, containers: &[ContainerTruth]) -> GuestMemory {
        let sum = |read: fn(&ContainerTruth) -> u64| containers.iter().map(read).sum::<u64>();
        let total = self.plan.memory_bytes - (17 << 20);
        let shmem = sum(|container| container.memory.shmem) + 4 * PAGE;
        let (active_anon, inactive_anon) =
            (sum(|c| c.memory.active_anon) + (4 << 20), sum(|c| c.memory.inactive_anon) + (14 << 20));
        let (active_file, inactive_file) =
            (sum(|c| c.memory.active_file) + (12 << 20), sum(|c| c.memory.inactive_file) + (40 << 20));
        let buffers = 2 << 20;
        let slab_reclaimable = pages(sum(|c| c.memory.slab_reclaimable)) + (16 << 20);
        let slab_unreclaimable = pages(sum(|c| c.memory.slab_unreclaimable)) + (8 << 20);
        let kernel_stack = sum(|c| c.memory.kernel_stack) + (1 << 20);
        let page_tables = sum(|c| c.memory.page_tables) + (2 << 20);
        let per_cpu = 256 * PAGE * self.plan.vcpus;
        let used = active_anon + inactive_anon + active_file + inactive_file + buffers;
        let kernel = slab_reclaimable + slab_unreclaimable + kernel_stack + page_tables + per_cpu;
        let free = total.saturating_sub(used + kernel);
        GuestMemory {
            total,
            free,
            available: pages(free + (active_file + inactive_file) * 3 / 4 + slab_reclaimable / 2),
            buffers,
            cached: active_file + inactive_file + shmem,
            active_anon,
            inactive_anon,
            active_file,
            inactive_file,
            anon_pages: active_anon + inactive_anon - shmem,
            mapped: sum(|c| c.memory.file_mapped) + (24 << 20),
            shmem,
            slab_reclaimable,
            slab_unreclaimable,
            kernel_stack,
            page_tables,
            per_cpu,
            committed: (active_anon + inactive_anon) * 2,
        }
    }

    fn network(&self, tick: u64) -> Vec<InterfaceTruth> {
        let count = |what, rate| self.dice.counter(what, rate, tick);
        let (received, sent) = (count("eth0 in", 90), count("eth0 out", 70));
        let loopback = count("lo", 3);
        let traffic = |packets, size| Traffic { bytes: packets * size, packets, ..Traffic::default() };
        vec![
            InterfaceTruth {
                name: "eth0".to_owned(),
                received: Traffic {
                    errors: count("eth0 errors", 1),
                    drops: count("eth0 drops", 1),
                    ..traffic(received, 611)
                },
                sent: traffic(sent, 1187),
            },
            InterfaceTruth { name: "lo".to_owned(), received: traffic(loopback, 84), sent: traffic(loopback, 84) },
        ]
    }

    /// `vda` with a partition, then `vdb`, `vdc`, … and a loop device, if there are disks at all.
    fn disks(&self, containers: &[ContainerTruth], tick: u64) -> Vec<DiskTruth> {
        let mut disks = Vec::new();
        for (minor, letter) in (0..self.plan.disks).zip('a'..='z') {
            let name = format!("vd{letter}");
            // All that containers do, they do to the first disk.
            let by_containers = |read: fn(&ContainerTruth) -> u64| match minor {
                0 => containers.iter().map(read).sum::<u64>(),
                _ => 0,
            };
            let dice = |what: &str, rate| self.dice.counter_from_zero(&format!("{name} {what}"), rate, tick);
            let reads = dice("reads", 2) + by_containers(|c| c.block_io.iter().map(|io| io.reads).sum());
            let writes = dice("writes", 3) + by_containers(|c| c.block_io.iter().map(|io| io.writes).sum());
            let read_bytes =
                dice("reads", 2) * PAGE + by_containers(|c| c.block_io.iter().map(|io| io.read_bytes).sum());
            let write_bytes =
                dice("writes", 3) * PAGE + by_containers(|c| c.block_io.iter().map(|io| io.write_bytes).sum());
            let disk = DiskTruth {
                name: name.clone(),
                major: 254,
                minor: minor * 16,
                partition: false,
                reads,
                reads_merged: reads / 5,
                sectors_read: read_bytes / 512,
                time_reading: reads * 3,
                writes,
                writes_merged: writes / 7,
                sectors_written: write_bytes / 512,
                time_writing: writes * 5,
                in_progress: self.dice.gauge("in progress", 0, 3, tick),
                time_in_progress: reads + writes * 2,
                weighted_time_in_progress: reads * 3 + writes * 5,
                flushes: writes / 11,
                time_flushing: writes / 11 * 4,
            };
            disks.push(disk.clone());
            if minor == 0 {
                disks.push(DiskTruth { name: format!("{name}1"), minor: 1, partition: true, ..disk });
            }
        }
        if !disks.is_empty() {
            disks.push(DiskTruth { name: "loop0".to_owned(), major: 7, ..DiskTruth::default() });
        }
        disks
    }

    /// One on each disk but the root's, which is read-only and therefore left out by the agent.
    fn filesystems(&self, tick: u64) -> Vec<FilesystemTruth> {
        (1..self.plan.disks)
            .zip('b'..='z')
            .map(|(_, letter)| {
                let total_bytes = 240 << 20;
                let used_bytes = PAGE * self.dice.gauge(&format!("fs {letter}"), 2000, 20_000, tick);
                FilesystemTruth {
                    mount: format!("/run/kata-containers/sandbox/storage/vd{letter}"),
                    device: format!("vd{letter}"),
                    total_bytes,
                    used_bytes,
                    available_bytes: total_bytes - used_bytes,
                    total_inodes: 65_536,
                    used_inodes: self.dice.gauge(&format!("inodes {letter}"), 12, 400, tick),
                }
            })
            .collect()
    }

    fn agent(&self, tick: u64) -> AgentTruth {
        let count = |what, rate| self.dice.counter(what, rate, tick);
        AgentTruth {
            threads: 3,
            user_ticks: count("agent user", 1),
            system_ticks: count("agent system", 2),
            rss_bytes: 28_548 << 10,
            virtual_bytes: 323_644 << 10,
            io: ProcessIo {
                rchar: count("agent rchar", 4000),
                wchar: count("agent wchar", 900),
                syscr: count("agent syscr", 5),
                syscw: count("agent syscw", 8),
                ..ProcessIo::default()
            },
        }
    }
}

fn in_milliseconds(modes: CpuModes) -> CpuModes {
    let CpuModes { user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice } = modes;
    let ms = |ticks: u64| ticks * TICK_MS;
    CpuModes {
        user: ms(user),
        nice: ms(nice),
        system: ms(system),
        idle: ms(idle),
        iowait: ms(iowait),
        irq: ms(irq),
        softirq: ms(softirq),
        steal: ms(steal),
        guest: ms(guest),
        guest_nice: ms(guest_nice),
    }
}
