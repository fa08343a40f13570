//! The fake host: layouts of both runtimes, processes, cgroups, and how the numbers fit together.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kata_pulse_simulator::kata::truth::{Component, Truth};
use kata_pulse_simulator::kata::{Endpoint, HostCgroup, Hypervisor, KataNode, KataSandbox, Lie, Runtime};

const KINDS: [(Runtime, Hypervisor); 8] = [
    (Runtime::Go, Hypervisor::CloudHypervisor),
    (Runtime::Go, Hypervisor::Qemu),
    (Runtime::Go, Hypervisor::Firecracker),
    (Runtime::Rust, Hypervisor::CloudHypervisor),
    (Runtime::Rust, Hypervisor::Qemu),
    (Runtime::Rust, Hypervisor::Firecracker),
    (Runtime::Rust, Hypervisor::Dragonball),
    (Runtime::Rust, Hypervisor::OpenVmm),
];

fn every_kind() -> kata_pulse_simulator::kata::KataNodeBuilder {
    let builder = KataNode::builder();
    KINDS.into_iter().fold(builder, |builder, (runtime, hypervisor)| builder.sandbox(runtime, hypervisor).containers(2))
}

fn read(root: &Path, path: &str) -> String {
    let path = root.join(path.trim_start_matches('/'));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The value of a key in `key value` lines.
fn keyed(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix([' ', ':']));
    let value = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    value.unwrap_or_else(|| panic!("no {key} in {text}"))
}

#[test]
fn every_kind_has_its_sockets_and_state_where_it_should() -> anyhow::Result<()> {
    let node = every_kind().start()?;
    let run = node.run_directory();
    for ((runtime, hypervisor), sandbox) in KINDS.into_iter().zip(node.sandboxes()) {
        let id = sandbox.id();
        assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        for endpoint in Endpoint::ALL {
            let Some(path) = sandbox.socket(endpoint) else { continue };
            assert!(path.as_os_str().len() < 108, "{}", path.display());
            assert!(path.exists() && path.starts_with(run), "{}", path.display());
        }
        let (directory, file, key) = match runtime {
            Runtime::Go => (format!("vc/sbs/{id}"), "persist.json", "/HypervisorState/Type"),
            Runtime::Rust => (format!("kata/{id}"), "state.json", "/hypervisor/hypervisor_type"),
        };
        assert_eq!(sandbox.directory(), run.join(&directory));
        assert!(run.join(&directory).join("shim-monitor.sock").exists());
        let state: serde_json::Value = serde_json::from_str(&read(run, &format!("{directory}/{file}")))?;
        assert_eq!(state.pointer(key).and_then(|value| value.as_str()), Some(hypervisor.state_name()));
        assert_eq!(sandbox.has(Endpoint::Agent), hypervisor != Hypervisor::Qemu);
    }
    assert!(node.host_root().join("proc/meminfo").exists());
    Ok(())
}

#[test]
fn a_jailed_firecracker_is_in_its_jail() -> anyhow::Result<()> {
    let builder = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::Firecracker);
    let node = builder.with(|plan| plan.jailed()).without_host_files().start()?;
    let sandbox = node.sandbox(0);
    let jail = node.run_directory().join("kata/firecracker").join(sandbox.id()).join("root");
    assert_eq!(sandbox.path(Endpoint::Agent), jail.join("kata.hvsock"));
    assert!(jail.join("kata.hvsock").exists() && jail.join("state.json").exists());
    assert!(sandbox.directory().join("shim-monitor.sock").exists());
    Ok(())
}

#[test]
fn processes_are_told_as_procfs_tells_them() -> anyhow::Result<()> {
    let node = every_kind().start()?;
    node.advance(9);
    for sandbox in node.sandboxes() {
        let truth = sandbox.truth();
        for process in &truth.host.processes {
            let file = |name: &str| read(node.host_root(), &format!("proc/{}/{name}", process.pid));
            let stat = file("stat");
            let (head, tail) = stat.rsplit_once(") ").expect("a name in parentheses");
            assert!(head.starts_with(&format!("{} ({}", process.pid, process.comm)));
            let fields: Vec<&str> = tail.split_whitespace().collect();
            assert_eq!(fields.len(), 50);
            let number = |at: usize| fields[at - 3].parse::<u64>().expect("a number");
            assert_eq!((number(14), number(15)), process.ticks());
            assert_eq!((number(4), number(20)), (process.parent.into(), u64::try_from(process.threads.len())?));
            assert_eq!(number(24) * 4096, process.rss());
            assert_eq!(keyed(&file("io"), "write_bytes"), process.io.write_bytes);
            let descriptors = fs::read_dir(node.host_root().join(format!("proc/{}/fd", process.pid)))?.count();
            assert_eq!(u64::try_from(descriptors)?, process.descriptors);
            for (tid, name) in &process.threads {
                let comm = file(&format!("task/{tid}/comm"));
                assert_eq!(comm.trim_end(), name);
            }
            assert_eq!(file("cgroup"), format!("0::{}\n", process.cgroup));
            if process.component == Component::KernelThread {
                assert!(file("cmdline").is_empty() && file("comm").starts_with("kvm-nx-lpage-recovery-"));
            } else {
                // Firecracker takes half of it.
                assert!(file("cmdline").contains(&sandbox.id()[..32]), "whose it is");
                assert_eq!(keyed(&file("status"), "VmRSS") * 1024, process.rss());
                assert_eq!(file("cmdline").split('\0').next(), process.command.first().map(String::as_str));
                assert!(process.comm.len() <= 15);
            }
        }
        let parts: Vec<_> = truth.host.processes.iter().map(|process| process.component).collect();
        let virtiofsd = !matches!(sandbox.hypervisor(), Hypervisor::Firecracker | Hypervisor::Dragonball);
        assert_eq!(parts.contains(&Component::VirtiofsdChild), virtiofsd);
        assert_eq!(parts.contains(&Component::Hypervisor), sandbox.hypervisor() != Hypervisor::Dragonball);
    }
    Ok(())
}

#[test]
fn the_pod_s_interfaces_are_seen_from_the_hypervisor() -> anyhow::Result<()> {
    let node = every_kind().start()?;
    for sandbox in node.sandboxes() {
        let truth = sandbox.truth();
        let path = match sandbox.hypervisor() {
            // Only its own thread has entered the namespace.
            Hypervisor::Dragonball => {
                let shim = truth.process(Component::Shim);
                let (tid, _) = shim.threads.iter().find(|(_, name)| name == "vmm_master").expect("a thread");
                format!("proc/{}/task/{tid}/net/dev", shim.pid)
            }
            _ => format!("proc/{}/net/dev", truth.process(Component::Hypervisor).pid),
        };
        let text = read(node.host_root(), &path);
        let line = |name: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with(name)).expect("an interface");
            let (_, numbers) = line.split_once(':').expect("a colon");
            numbers.split_whitespace().map(|number| number.parse::<u64>().expect("a number")).collect::<Vec<_>>()
        };
        let guest = truth.guest.interface("eth0");
        let (eth0, tap) = (line("eth0"), line("tap0_kata"));
        assert_eq!((eth0.len(), tap.len()), (16, 16));
        assert!(eth0[0] > guest.received.bytes && eth0[8] > guest.sent.bytes, "a little more than the guest");
        assert_eq!((tap[0], tap[8]), (guest.sent.bytes, guest.received.bytes), "the other way round");
        // Of one namespace there is one file.
        let inode = |path: &str| fs::metadata(node.host_root().join(path)).map(|metadata| metadata.ino());
        let shim = format!("proc/{}/net/dev", truth.process(Component::Shim).pid);
        assert_eq!(inode(&shim)?, inode("proc/1/net/dev")?);
        assert_ne!(inode(&path)?, inode("proc/1/net/dev")?);
    }
    Ok(())
}

#[test]
fn cgroups_hold_who_and_what_they_say_on_v2() -> anyhow::Result<()> {
    let builder = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor).containers(2);
    let builder = builder.sandbox(Runtime::Go, Hypervisor::CloudHypervisor).containers(2);
    let node = builder.start()?;
    node.advance(30);
    let [together, split] = <[KataSandbox; 2]>::try_from(node.sandboxes()).expect("two sandboxes");
    let mount = node.host_root().join("sys/fs/cgroup");
    for sandbox in [&together, &split] {
        let truth = sandbox.truth();
        for cgroup in truth.host.cgroups().chain([&truth.host.pod_cgroup]) {
            let file = |name: &str| read(&mount, &format!("{}/{name}", cgroup.path));
            assert_eq!(keyed(&file("cpu.stat"), "usage_usec"), cgroup.cpu_us());
            assert_eq!(file("memory.current").trim(), cgroup.memory_current().to_string());
            assert_eq!(keyed(&file("memory.stat"), "shmem"), cgroup.shmem);
            let procs: Vec<u32> = file("cgroup.procs").lines().map(|line| line.parse().expect("a pid")).collect();
            assert_eq!(procs, cgroup.pids);
        }
        for process in &truth.host.processes {
            let members = truth.host.cgroups().find(|cgroup| cgroup.path == process.cgroup).expect("its cgroup");
            assert!(members.pids.contains(&process.pid));
        }
    }
    let host = together.truth().host;
    assert_eq!(host.overhead_cgroup, None);
    assert_eq!(host.sandbox_cgroup.pids.len(), 5);
    assert!(host.sandbox_cgroup.path.ends_with(&format!("/{}", together.id())));

    let host = split.truth().host;
    let overhead = host.overhead_cgroup.clone().expect("split");
    assert_eq!(overhead.path, format!("/kata_overhead/{}", split.id()));
    assert!(host.sandbox_cgroup.path.ends_with(&format!("/kata_{}", split.id())));
    assert_eq!(host.sandbox_cgroup.pids, [split.truth().process(Component::Hypervisor).pid]);
    // Guest memory stays charged where it was first touched.
    assert!(overhead.shmem > 20 * host.sandbox_cgroup.shmem);
    let root = read(&mount, "kubepods/cpu.stat");
    let pods: u64 = [&together, &split].iter().map(|sandbox| sandbox.truth().host.pod_cgroup.cpu_us()).sum();
    assert_eq!(keyed(&root, "usage_usec"), pods);
    Ok(())
}

#[test]
fn on_v1_only_virtual_cpus_leave_the_overhead() -> anyhow::Result<()> {
    let builder = KataNode::builder().host_cgroup(HostCgroup::V1).sandbox(Runtime::Go, Hypervisor::Qemu);
    let node = builder.start()?;
    let sandbox = node.sandbox(0);
    node.advance(10);
    let truth = sandbox.truth();
    let mount = node.host_root().join("sys/fs/cgroup");
    let (own, overhead) = (&truth.host.sandbox_cgroup, truth.host.overhead_cgroup.as_ref().expect("split"));
    let vmm = truth.process(Component::Hypervisor);
    let file = |controller: &str, cgroup: &str, name: &str| read(&mount, &format!("{controller}{cgroup}/{name}"));
    assert_eq!(vmm.cgroup, overhead.path);
    let tasks = file("cpu", &own.path, "tasks");
    let vcpus: Vec<_> =
        vmm.threads.iter().filter(|(_, name)| name.ends_with("/KVM")).map(|(tid, _)| tid.to_string()).collect();
    assert_eq!(tasks.lines().collect::<Vec<_>>(), vcpus);
    assert_eq!(file("memory", &own.path, "memory.usage_in_bytes").trim(), "0");
    assert!(overhead.shmem > 0);
    let usage: u64 = file("cpuacct", &overhead.path, "cpuacct.usage").trim().parse()?;
    assert_eq!(usage, overhead.cpu_us() * 1000);
    assert_eq!(truth.host.cpu_us(), truth.host.processes.iter().map(|one| one.user_us + one.system_us).sum::<u64>());
    assert!(
        read(node.host_root(), &format!("proc/{}/cgroup", vmm.pid)).contains(&format!(":memory:{}\n", overhead.path))
    );
    Ok(())
}

#[test]
fn the_systemd_driver_makes_scopes() -> anyhow::Result<()> {
    let node = KataNode::builder()
        .systemd()
        .sandbox(Runtime::Rust, Hypervisor::Qemu)
        .sandbox(Runtime::Go, Hypervisor::Qemu)
        .start()?;
    let paths: Vec<_> = node.sandboxes().iter().map(|sandbox| sandbox.truth().host.sandbox_cgroup.path).collect();
    let id = node.sandbox(0).id().to_owned();
    assert!(paths[0].starts_with("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod"));
    assert!(paths[0].ends_with(&format!(".slice/cri-containerd-{id}.scope")));
    // A file name with colons, at the root.
    assert!(paths[1].starts_with("/kubepods-burstable-pod") && paths[1].matches('/').count() == 1, "{}", paths[1]);
    assert!(node.host_root().join("sys/fs/cgroup").join(&paths[1][1..]).is_dir());
    Ok(())
}

/// Growing means growing, and parts are parts.
fn check(before: &Truth, after: &Truth) {
    for (before, after) in before.containers.iter().zip(&after.containers) {
        assert!(after.cpu.total_ns() > before.cpu.total_ns());
        assert!(after.cpu.throttled_periods >= before.cpu.throttled_periods);
        assert!(after.cpu.throttled_periods <= after.cpu.periods);
        assert_eq!(after.cpu.per_cpu_ns.iter().sum::<u64>(), after.cpu.total_ns());
        assert!(after.memory.usage() <= after.memory.peak);
        assert!(after.memory.limit.is_none_or(|limit| after.memory.peak <= limit));
        assert!(after.memory.working_set() <= after.memory.usage());
    }
    let (guest, earlier) = (&after.guest, &before.guest);
    for ((_, now), (key, then)) in guest.vm_stat.iter().zip(&earlier.vm_stat) {
        assert!(key.starts_with("nr_") || now >= then, "{key}");
    }
    for (now, then) in guest.cpus.iter().zip(&earlier.cpus) {
        for ((key, now), (_, then)) in now.items().into_iter().zip(then.items()) {
            assert!(now >= then, "{key}");
        }
    }
    let containers: u64 = after.containers.iter().map(|container| container.cpu.total_ns()).sum();
    assert!(guest.cpu_total().busy() * 1_000_000 + 20_000_000 > containers, "the guest did what its containers did");
    let used: u64 = after.containers.iter().map(|container| container.memory.usage()).sum();
    let memory = &guest.memory;
    assert!(memory.free > 0 && memory.available <= memory.total && memory.total - memory.free > used);
    let host = &after.host;
    assert!(host.memory_bytes() > used, "the host pays for the guest");
    assert!(host.cpu_us() / 1000 > guest.cpu_total().busy(), "and for its CPU time");
    assert!(host.cpu_us() > before.host.cpu_us());
    for (now, then) in host.cgroups().zip(before.host.cgroups()) {
        assert!(now.user_us >= then.user_us && now.system_us >= then.system_us, "{}", now.path);
    }
    let processes: u64 = host.processes.iter().map(|process| process.user_us + process.system_us).sum();
    assert_eq!(processes, host.cpu_us(), "all that was used was used in a cgroup");
}

#[test]
fn the_numbers_fit_together_at_every_tick() -> anyhow::Result<()> {
    let mut builder = KataNode::builder();
    for (runtime, hypervisor) in KINDS {
        for (containers, vcpus) in [(1, 1), (6, 2), (0, 8)] {
            builder = builder
                .sandbox(runtime, hypervisor)
                .containers(containers)
                .with(|plan| plan.vcpus(vcpus).disks(vcpus % 3).seed(vcpus));
        }
    }
    let node = builder.without_host_files().start()?;
    for sandbox in node.sandboxes() {
        let mut before = sandbox.truth();
        for _ in 0..60 {
            sandbox.advance(1);
            let after = sandbox.truth();
            check(&before, &after);
            before = after;
        }
        sandbox.lie(Some(Lie::Backwards));
    }
    Ok(())
}
