//! A pid that is used again: the numbers of the process that has it now are not those of the one that had it.

use std::fs;
use std::path::PathBuf;

use kata_pulse_simulator::kata::truth::Component;
use kata_pulse_simulator::kata::{Hypervisor, KataNode, KataSandbox, Runtime};

use crate::support::agent::Agent;
use crate::support::exposition::Page;
use crate::support::gate::Gate;
use crate::support::host::{Host, net_dev};
use crate::support::kata::{flags, scrape};
use crate::{PATIENCE, eager};

/// What `/proc/<pid>/stat` has after the name: state, parent, and so on; the 22nd field of all is the start time.
const UTIME: usize = 14 - 3;
const START: usize = 22 - 3;

/// A process of a simulated node.
struct Process {
    directory: PathBuf,
}

impl Process {
    fn of(node: &KataNode, sandbox: &KataSandbox, component: Component) -> Self {
        let truth = sandbox.truth();
        let process = truth.host.processes.iter().find(|process| process.component == component);
        let pid = process.expect("the sandbox has one").pid;
        Self { directory: node.host_root().join("proc").join(pid.to_string()) }
    }

    /// Changes fields after the name.
    fn change(&self, changes: &[(usize, u64)]) {
        let path = self.directory.join("stat");
        let stat = fs::read_to_string(&path).expect("it has a stat");
        let (name, fields) = stat.trim_end().rsplit_once(") ").expect("a name in brackets");
        let mut fields: Vec<String> = fields.split(' ').map(str::to_owned).collect();
        for (at, value) in changes {
            fields[*at] = value.to_string();
        }
        fs::write(&path, format!("{name}) {}\n", fields.join(" "))).expect("write the stat");
    }
}

fn cpu(page: &Page, sandbox: &KataSandbox, component: &str) -> Option<f64> {
    let labels = [("component", component), ("sandbox_id", sandbox.id())];
    page.lookup("kata_pulse_sandbox_process_cpu_seconds_total", &labels)
}

/// The stranger has used a hundred days of processor time: were it taken for the VMM, it would show.
#[test]
fn a_stranger_with_the_pid_of_a_vmm_is_not_taken_for_it() {
    let node = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor).times(2).start();
    let node = node.expect("a simulated node");
    let (robbed, other) = (node.sandbox(0), node.sandbox(1));
    let agent = Agent::start(flags(&node));
    let before = scrape(&agent);
    let own = cpu(&before, &robbed, "hypervisor").expect("the VMM is measured");
    let vmm = Process::of(&node, &robbed, Component::Hypervisor);
    // The same directory and the same pid, and another process: its name and command line are its own.
    vmm.change(&[(START, 999_999_999), (UTIME, 864_000_000)]);
    let stat = fs::read_to_string(vmm.directory.join("stat")).expect("it has a stat");
    let (pid, rest) = stat.split_once(" (").expect("a pid");
    let (_, fields) = rest.rsplit_once(')').expect("a name");
    fs::write(vmm.directory.join("stat"), format!("{pid} (stranger){fields}")).expect("write the stat");
    fs::write(vmm.directory.join("cmdline"), "stranger\0").expect("write the command line");
    for _ in 0..3 {
        let page = scrape(&agent);
        let now = cpu(&page, &robbed, "hypervisor");
        assert!(now.is_none_or(|now| now <= own), "{now:?} of {own}");
        assert_eq!(cpu(&page, &other, "hypervisor"), cpu(&before, &other, "hypervisor"), "beside it");
    }
    agent.stop(0);
}

/// A pod's network is that of its namespace, which stays open: who has the pid now does not matter.
#[test]
fn a_pods_network_stays_its_own_when_its_first_process_is_replaced() {
    let host = Host::v2();
    let cgroup = crate::cgroup(0);
    let container = format!("{cgroup}/{}", "a1".repeat(32));
    host.v2_cgroup(&cgroup);
    host.v2_cgroup(&container);
    host.v2_process(&container, 41, &[("lo", 1), ("eth0", 1000)]);
    let agent = Agent::start(eager(host.flags(), &[]));
    let received = |page: &Page| {
        let all = page.matching("container_network_receive_bytes_total", &[("interface", "eth0")]);
        all.iter().map(|sample| sample.value).collect::<Vec<_>>()
    };
    agent.wait_until("its network is read", PATIENCE, || received(&agent.page("/metrics")) == [1000.0]);
    // Procfs has new files for the new process; those that are open stay those of the old one's namespace.
    fs::remove_dir_all(host.path("proc/41")).expect("the process ends");
    host.write("proc/41/net/dev", &net_dev(&[("lo", 1), ("eth0", 777_777)]));
    host.write("sys/fs/cgroup/other/cgroup.procs", "41\n");
    for _ in 0..3 {
        assert_eq!(received(&agent.page("/metrics")), [1000.0]);
    }
    agent.stop(0);
}

/// Its limits were read after it had left, when the pid might have been anybody's.
#[test]
fn limits_are_those_of_a_process_that_is_still_in_its_cgroup() {
    let host = Host::v2();
    let cgroup = crate::cgroup(0);
    let container = format!("{cgroup}/{}", "a1".repeat(32));
    host.v2_cgroup(&cgroup);
    host.v2_cgroup(&container);
    host.v2_process(&container, 41, &[("eth0", 1000)]);
    let limits = fs::read_to_string(host.path("proc/41/limits")).expect("it has limits");
    host.v2_process(&container, 42, &[("eth0", 1000)]);
    host.write("proc/42/limits", &limits.replace("1024 ", "4242 "));
    host.write(&format!("sys/fs/cgroup/{container}/cgroup.procs"), "41\n");
    let mut gate = Gate::close(&host.path("proc/41/limits"));
    let agent = Agent::start(eager(host.flags(), &[]));
    let files = |page: &Page| {
        let all = page.matching("container_ulimits_soft", &[("ulimit", "max_open_files")]);
        all.iter().filter(|sample| sample.label("id") != Some("/")).map(|sample| sample.value).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| agent.page("/metrics"));
        gate.wait_for_reader();
        host.write(&format!("sys/fs/cgroup/{container}/cgroup.procs"), "42\n");
        gate.open();
        assert_eq!(files(&first.join().expect("a page")), [0.0; 0], "the process has left its cgroup meanwhile");
    });
    assert_eq!(files(&agent.page("/metrics")), [4242.0], "who is in it now is asked the next time");
    agent.stop(0);
}
