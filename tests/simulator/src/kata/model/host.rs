//! What the sandbox costs the host: processes, the pod's network namespace, cgroups.

use super::{Facts, Life, pages};
use crate::kata::kind::{Endpoint, HostCgroup, Hypervisor, Runtime};
use crate::kata::truth::{
    CgroupTruth, Component, GuestTruth, HostTruth, InterfaceTruth, ProcessIo, ProcessTruth, Traffic,
};

/// CPU time the hypervisor used before it was moved into the sandbox cgroup: it stays where it was used.
const BOOT_US: u64 = 2_500_000;

/// Guest memory first touched after the move; all other stays charged to the overhead cgroup.
const TOUCHED_LATE: u64 = 2_379_776;

impl Facts {
    pub(super) fn host(&self, guest: &GuestTruth, life: &Life, tick: u64) -> HostTruth {
        let touched = self.touched(guest, life.room, tick);
        let processes = self.processes(guest, touched, tick);
        let sandbox = self.sandbox_cgroup(guest, &processes, tick);
        let overhead = self.placement.overhead.as_ref().map(|path| self.overhead_cgroup(path, guest, &processes, tick));
        let pod = self.pod_cgroup(&sandbox, life);
        HostTruth {
            processes,
            network: self.host_network(guest, tick),
            sandbox_cgroup: sandbox,
            overhead_cgroup: overhead,
            pod_cgroup: pod,
        }
    }

    fn processes(&self, guest: &GuestTruth, touched: u64, tick: u64) -> Vec<ProcessTruth> {
        let mut all = vec![self.shim(guest, touched, tick)];
        if self.plan.hypervisor != Hypervisor::Dragonball {
            all.push(self.hypervisor(guest, touched, tick));
        }
        let pids = self.pids;
        if let Some(pid) = pids.virtiofsd {
            all.push(self.virtiofsd(Component::Virtiofsd, pid, pids.shim, tick));
            if let Some(child) = pids.virtiofsd_child {
                all.push(self.virtiofsd(Component::VirtiofsdChild, child, pid, tick));
            }
        }
        all.extend(pids.kernel_thread.map(|pid| self.kernel_thread(pid)));
        all
    }

    fn shim(&self, guest: &GuestTruth, touched: u64, tick: u64) -> ProcessTruth {
        let count = |what: &str, rate| self.dice.counter(&format!("shim {what}"), rate, tick);
        let dragonball = self.plan.hypervisor == Hypervisor::Dragonball;
        let (guest_us, guest_memory) = if dragonball { (busy_us(guest), touched) } else { (0, 0) };
        let pid = self.pids.shim;
        let names = ["containerd-shim", "tokio-rt-worker", "tokio-rt-worker", "tokio-rt-worker", "slog-async-logg"];
        let mut threads: Vec<_> = (pid..).zip(names.map(str::to_owned)).collect();
        if dragonball {
            threads.push((self.pids.hypervisor, "vmm_master".to_owned()));
            threads.extend((self.pids.hypervisor + 1..).zip((0..self.plan.vcpus).map(|cpu| format!("db_vcpu{cpu}"))));
        }
        let program = match self.plan.runtime {
            Runtime::Go => "/opt/kata/bin/containerd-shim-kata-v2",
            Runtime::Rust => "/opt/kata/runtime-rs/bin/containerd-shim-kata-v2",
        };
        let arguments = ["-namespace", "k8s.io", "-address", "/run/containerd/containerd.sock", "-publish-binary"];
        let mut command = vec![program.to_owned()];
        command.extend(arguments.map(str::to_owned));
        command.extend(["/usr/bin/containerd".to_owned(), "-id".to_owned(), self.id().to_owned()]);
        ProcessTruth {
            component: Component::Shim,
            pid,
            parent: 1,
            comm: "containerd-shim".to_owned(),
            command,
            threads,
            user_us: guest_us + count("user", 21_000),
            system_us: count("system", 13_000),
            rss_anon: pages(self.dice.gauge("shim anon", 15 << 20, 19 << 20, tick)),
            rss_file: 30_900 << 10,
            rss_shmem: guest_memory,
            virtual_bytes: (1_284_000 << 10) + guest_memory,
            descriptors: 13,
            io: ProcessIo {
                rchar: count("rchar", 9000),
                wchar: count("wchar", 700),
                syscr: count("syscr", 30),
                syscw: count("syscw", 12),
                read_bytes: 24_576,
                write_bytes: count("written", 100) / 4096 * 4096,
            },
            cgroup: self.placement.overhead.as_ref().unwrap_or(&self.placement.sandbox).clone(),
        }
    }

    fn hypervisor(&self, guest: &GuestTruth, touched: u64, tick: u64) -> ProcessTruth {
        let count = |what: &str, rate| self.dice.counter(&format!("vmm {what}"), rate, tick);
        let pid = self.pids.hypervisor;
        let (comm, program, vcpu): (_, _, fn(u64) -> String) = match self.plan.hypervisor {
            Hypervisor::Qemu => ("qemu-system-x86", "/opt/kata/bin/qemu-system-x86_64", |cpu| format!("CPU {cpu}/KVM")),
            Hypervisor::Firecracker => ("firecracker", "/opt/kata/bin/firecracker", |cpu| format!("fc_vcpu {cpu}")),
            Hypervisor::OpenVmm => ("openvmm", "/opt/kata/bin/openvmm", |cpu| format!("vp-{cpu}")),
            _ => ("cloud-hyperviso", "/opt/kata/bin/cloud-hypervisor", |cpu| format!("vcpu{cpu}")),
        };
        let service = ["vmm", "http-server", "vmm_signal_hand", "_net0_ctrl", "_net0_qp0"].map(str::to_owned);
        let names = [comm.to_owned()].into_iter().chain((0..self.plan.vcpus).map(vcpu)).chain(service);
        let disk_bytes = |read: fn(&crate::kata::truth::DiskTruth) -> u64| {
            guest.disks.iter().filter(|disk| !disk.partition).map(read).sum::<u64>() * 512
        };
        let (read, written) = (disk_bytes(|disk| disk.sectors_read), disk_bytes(|disk| disk.sectors_written));
        ProcessTruth {
            component: Component::Hypervisor,
            pid,
            parent: self.pids.shim,
            comm: comm.to_owned(),
            command: [program].into_iter().map(str::to_owned).chain(self.hypervisor_arguments()).collect(),
            threads: (pid..).zip(names).collect(),
            user_us: BOOT_US + busy_us(guest) + count("user", 9000),
            system_us: count("system", 30_000),
            rss_anon: pages(self.dice.gauge("vmm anon", 4 << 20, 7 << 20, tick)),
            rss_file: 8796 << 10,
            rss_shmem: touched,
            virtual_bytes: self.plan.memory_bytes + (540 << 20),
            descriptors: 17,
            io: ProcessIo {
                rchar: count("rchar", 20_000) + read,
                wchar: count("wchar", 30_000) + written,
                syscr: count("syscr", 40),
                syscw: count("syscw", 300),
                read_bytes: read,
                write_bytes: written,
            },
            cgroup: match (self.host, &self.placement.overhead) {
                // On v1 only the vCPU threads are moved out.
                (HostCgroup::V1, Some(overhead)) => overhead.clone(),
                _ => self.placement.sandbox.clone(),
            },
        }
    }

    /// What tells whose hypervisor it is.
    fn hypervisor_arguments(&self) -> Vec<String> {
        let id = self.id();
        let path = |endpoint| self.layout.socket(endpoint).map(|socket| format!("/run/{socket}")).unwrap_or_default();
        match self.plan.hypervisor {
            Hypervisor::Qemu => {
                vec!["-name".to_owned(), format!("sandbox-{id}"), "-machine".to_owned(), "q35".to_owned()]
            }
            // It takes no more of the id.
            Hypervisor::Firecracker => vec!["--id".to_owned(), id.get(..32).unwrap_or(id).to_owned()],
            Hypervisor::OpenVmm => vec!["--vsock".to_owned(), path(Endpoint::Agent)],
            _ => vec!["--api-socket".to_owned(), path(Endpoint::Hypervisor)],
        }
    }

    fn virtiofsd(&self, component: Component, pid: u32, parent: u32, tick: u64) -> ProcessTruth {
        let child = component == Component::VirtiofsdChild;
        let count = |what: &str, rate| {
            let rate = if child { rate } else { rate / 1000 };
            self.dice.counter(&format!("virtiofsd {child} {what}"), rate, tick)
        };
        let share = format!("/run/kata-containers/shared/sandboxes/{}/ro", self.id());
        let names = if child { vec!["virtiofsd", "virtiofsd-backe", "vring_worker"] } else { vec!["virtiofsd"] };
        let pages_of = |what, rate| pages(count(what, rate));
        ProcessTruth {
            component,
            pid,
            parent,
            comm: "virtiofsd".to_owned(),
            command: vec!["/opt/kata/libexec/virtiofsd".to_owned(), "--shared-dir".to_owned(), share],
            threads: (pid..).zip(names.into_iter().map(str::to_owned)).collect(),
            user_us: count("user", 5000),
            system_us: count("system", 11_000),
            rss_anon: pages(self.dice.gauge("virtiofsd anon", 900 << 10, 2 << 20, tick)),
            rss_file: 5300 << 10,
            rss_shmem: 0,
            virtual_bytes: 737_596 << 10,
            descriptors: if child { 9 } else { 5 },
            io: ProcessIo {
                rchar: count("rchar", 60_000),
                wchar: count("wchar", 50_000),
                syscr: count("syscr", 60),
                syscw: count("syscw", 40),
                read_bytes: pages_of("read", 40_000),
                write_bytes: pages_of("written", 90_000),
            },
            cgroup: self.placement.overhead.as_ref().unwrap_or(&self.placement.sandbox).clone(),
        }
    }

    /// It bears the pid of the VM it belongs to. It has no memory, no arguments and no descriptors, and its name may be longer than anybody else's.
    fn kernel_thread(&self, pid: u32) -> ProcessTruth {
        let name = format!("kvm-nx-lpage-recovery-{}", self.pids.hypervisor);
        ProcessTruth {
            component: Component::KernelThread,
            pid,
            parent: 2,
            comm: name.clone(),
            command: Vec::new(),
            threads: vec![(pid, name)],
            user_us: 0,
            system_us: 0,
            rss_anon: 0,
            rss_file: 0,
            rss_shmem: 0,
            virtual_bytes: 0,
            descriptors: 0,
            io: ProcessIo::default(),
            cgroup: self.placement.overhead.as_ref().unwrap_or(&self.placement.sandbox).clone(),
        }
    }

    /// Guest memory the host has given pages for: it grows towards the most the guest ever used, and stays.
    fn touched(&self, guest: &GuestTruth, room: u64, tick: u64) -> u64 {
        let most = (super::guest::RESERVED + (2 << 20) + room).min(guest.memory.total);
        pages(most - most / 16 / (tick + 1))
    }

    fn sandbox_cgroup(&self, guest: &GuestTruth, processes: &[ProcessTruth], tick: u64) -> CgroupTruth {
        let path = self.placement.sandbox.clone();
        let split = self.placement.overhead.is_some();
        let hypervisor = processes.iter().find(|process| process.component == Component::Hypervisor);
        match (split, self.host, hypervisor) {
            (true, HostCgroup::V1, Some(hypervisor)) => CgroupTruth {
                pids: vec![hypervisor.pid],
                threads: self.plan.vcpus,
                user_us: busy_us(guest),
                ..empty(path)
            },
            (true, HostCgroup::V2, Some(hypervisor)) => {
                let (shmem, anon) = (TOUCHED_LATE, 16_384);
                let moved = CgroupTruth { shmem, anon, kernel: 8192, ..empty(path) };
                CgroupTruth {
                    pids: vec![hypervisor.pid],
                    threads: hypervisor.threads.len().try_into().unwrap_or(u64::MAX),
                    user_us: hypervisor.user_us - BOOT_US,
                    system_us: hypervisor.system_us,
                    read_bytes: hypervisor.io.read_bytes,
                    write_bytes: hypervisor.io.write_bytes,
                    page_faults: self.dice.counter("sandbox faults", 20, tick),
                    cpu_waiting_us: self.dice.counter("sandbox waiting", 30_000, tick),
                    ..moved
                }
            }
            _ => self.sum(path, processes, tick),
        }
    }

    fn overhead_cgroup(&self, path: &str, guest: &GuestTruth, processes: &[ProcessTruth], tick: u64) -> CgroupTruth {
        let inside: Vec<_> = processes.iter().filter(|process| process.cgroup == path).cloned().collect();
        let mut cgroup = self.sum(path.to_owned(), &inside, tick);
        match self.host {
            HostCgroup::V1 => {
                cgroup.user_us -= busy_us(guest);
                cgroup.threads -= self.plan.vcpus;
            }
            HostCgroup::V2 => {
                cgroup.user_us += BOOT_US;
                let elsewhere = processes.iter().filter(|process| process.cgroup != path);
                cgroup.shmem += elsewhere.map(|process| process.rss_shmem).sum::<u64>() - TOUCHED_LATE;
            }
        }
        cgroup
    }

    /// A cgroup that has always held these processes and nothing else.
    fn sum(&self, path: String, processes: &[ProcessTruth], tick: u64) -> CgroupTruth {
        let sum = |read: fn(&ProcessTruth) -> u64| processes.iter().map(read).sum::<u64>();
        CgroupTruth {
            pids: processes.iter().map(|process| process.pid).collect(),
            threads: processes
                .iter()
                .map(|process| process.threads.len())
                .sum::<usize>()
                .try_into()
                .unwrap_or(u64::MAX),
            user_us: sum(|process| process.user_us),
            system_us: sum(|process| process.system_us),
            anon: sum(|process| process.rss_anon),
            shmem: sum(|process| process.rss_shmem),
            inactive_file: pages(self.dice.gauge("host inactive", 30 << 20, 60 << 20, tick)),
            active_file: 64 << 10,
            kernel: pages(self.dice.gauge("host kernel", 3 << 20, 6 << 20, tick)),
            read_bytes: sum(|process| process.io.read_bytes),
            write_bytes: sum(|process| process.io.write_bytes),
            page_faults: self.dice.counter("host faults", 90, tick),
            cpu_waiting_us: self.dice.counter("host waiting", 30_000, tick),
            ..empty(path)
        }
    }

    /// The pod's cgroup: the sandbox cgroup and the little that a directory costs, unless the runtime put the
    /// sandbox cgroup elsewhere. The kubelet limits it when every container is limited.
    fn pod_cgroup(&self, sandbox: &CgroupTruth, life: &Life) -> CgroupTruth {
        let path = self.placement.pod.clone();
        let holds = sandbox.path.starts_with(&format!("{path}/"));
        let own = if holds { CgroupTruth { path, ..sandbox.clone() } } else { empty(path) };
        let plans = || life.containers.iter().skip(1).map(|(_, plan)| plan);
        let total = |limit: fn(&crate::kata::plan::ContainerPlan) -> Option<u64>| {
            plans().map(limit).sum::<Option<u64>>().filter(|sum| *sum > 0)
        };
        CgroupTruth {
            pids: Vec::new(),
            kernel: own.kernel + 12_288,
            memory_limit: total(|plan| plan.memory_limit).map(|limit| limit + (130 << 20)),
            cpu_quota: total(|plan| plan.cpu_quota).map(|quota| quota + 25_000),
            ..own
        }
    }

    /// The pod's namespace on the host: `eth0` has seen what the guest has seen and a little before it, the tap
    /// mirrors it.
    fn host_network(&self, guest: &GuestTruth, tick: u64) -> Vec<InterfaceTruth> {
        let inner = guest.interface("eth0");
        let own = |what, packets| {
            let packets = packets + self.dice.counter(what, 1, tick) / 8;
            Traffic { bytes: packets * 90, packets, ..Traffic::default() }
        };
        let plus = |one: Traffic, other: Traffic| Traffic {
            bytes: one.bytes + other.bytes,
            packets: one.packets + other.packets,
            ..Traffic::default()
        };
        let interface = |name: &str, received, sent| InterfaceTruth { name: name.to_owned(), received, sent };
        let quiet = |traffic: Traffic| Traffic { errors: 0, drops: 0, ..traffic };
        vec![
            interface("lo", Traffic::default(), Traffic::default()),
            interface("eth0", plus(inner.received, own("veth in", 3)), plus(inner.sent, own("veth out", 2))),
            interface("tap0_kata", quiet(inner.sent), quiet(inner.received)),
        ]
    }
}

fn empty(path: String) -> CgroupTruth {
    CgroupTruth { path, ..CgroupTruth::default() }
}

/// What the guest's CPUs did, in microseconds: to the host it is user time of the hypervisor.
fn busy_us(guest: &GuestTruth) -> u64 {
    guest.cpu_total().busy() * 1000
}
