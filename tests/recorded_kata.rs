//! The recorded node with its sandboxes answering: what their agents, shims and hypervisors really said, byte for
//! byte, behind real sockets. Both Kata cgroup placements are there: kata-web has everything in one cgroup, kata-idle
//! keeps shim and virtiofsd, and what the guest's memory is charged to, in an overhead cgroup outside of kubepods.

#![allow(clippy::unwrap_used, reason = "whatever fails here is the test's own failure")]

use std::time::Duration;

use kata_pulse_simulator::kata::{Endpoint, ReplayedNode};
use kata_pulse_simulator::recorded::{Capture, RecordedNode};

mod support;

use support::agent::Agent;
use support::command::kata_pulse;
use support::exposition::{Kind, Page};
use support::golden::{golden, settled};

const PATIENCE: Duration = Duration::from_secs(30);

const WEB: &str = "760e7a6493d4f0add8a217d0f6a019cc288419dd8f375035586436c4c816d236";
const WEB_SPIN: &str = "17fb07463b2ea00befae8ab3544637ceb0961b2a9e8769c3f886de9dd13a53f7";
const WEB_WRITER: &str = "8d4e13e3f2b796fa825f6835cc03bbec86f1a850ab3bc4999cbd4866ae07aafc";
const IDLE: &str = "80a5e164df55df791e139e6d1c59092c4566fbdffd016b715c7ad48cdbea9e45";
const IDLE_APP: &str = "ab16be77993948ef5287752c37b75a7a31afc771f9a0a13739c9325086205c53";

fn node(capture: Capture) -> ReplayedNode {
    ReplayedNode::start(RecordedNode::unpack().unwrap(), capture).unwrap()
}

/// What one collection says of the node as it was then, with every family on.
fn collect(node: &ReplayedNode) -> String {
    let mut arguments: Vec<std::ffi::OsString> = vec!["collect".into()];
    arguments.extend(["--metrics-profile", "all", "--enable-collectors", "fd"].map(Into::into));
    arguments.extend(node.flags());
    kata_pulse(arguments).expect_code(0).stdout
}

#[test]
fn both_captures_give_the_golden_exposition() {
    for (capture, name) in [(Capture::T0, "mixed-node-answering-t0.txt"), (Capture::T1, "mixed-node-answering-t1.txt")]
    {
        let node = node(capture);
        let body = collect(&node);
        Page::parse(&body).unwrap();
        golden(name, &settled(&body));
        assert_eq!(node.violations(), []);
    }
}

/// Families with further labels and the value each must have.
type Expected<'a> = &'a [(&'a str, &'a [(&'a str, &'a str)], f64)];

#[track_caller]
fn check(page: &Page, common: &[(&str, &str)], expected: Expected<'_>) {
    for (family, labels, value) in expected {
        let all = [common, *labels].concat();
        assert_eq!(page.value(family, &all), *value, "{family} {all:?}");
    }
}

/// Worked out by hand from the recorded bytes at the first moment. Nanoseconds and microseconds are divided, and no
/// number is from a page of ours.
#[test]
fn containers_are_what_their_agent_said() {
    let page = Page::parse(&collect(&node(Capture::T0))).unwrap();
    let spin = [("namespace", "shop"), ("pod", "kata-web"), ("container", "spin"), ("name", WEB_SPIN)];
    check(
        &page,
        &spin,
        &[
            // total_usage 55526802000, usage_in_usermode 54358911000, usage_in_kernelmode 1167890000 ns
            ("container_cpu_usage_seconds_total", &[("cpu", "total")], 55.526802),
            ("container_cpu_user_seconds_total", &[], 54.358911),
            ("container_cpu_system_seconds_total", &[], 1.16789),
            ("container_cpu_cfs_periods_total", &[], 1121.0),
            ("container_cpu_cfs_throttled_periods_total", &[], 1073.0),
            ("container_memory_usage_bytes", &[], 1_736_704.0),
            // usage 1736704 − inactive_file 1581056; CRI says 1736704 for the same container
            ("container_memory_working_set_bytes", &[], 155_648.0),
            ("container_memory_rss", &[], 57_344.0),
            ("container_memory_cache", &[], 1_581_056.0),
            ("container_memory_mapped_file", &[], 1_396_736.0),
            ("container_memory_kernel_usage", &[], 98_304.0),
            ("container_memory_max_usage_bytes", &[], 1_769_472.0),
            ("container_memory_failures_total", &[("failure_type", "pgfault"), ("scope", "container")], 110.0),
            ("container_memory_failures_total", &[("failure_type", "pgmajfault"), ("scope", "hierarchy")], 15.0),
            ("container_threads", &[], 1.0),
        ],
    );
    // 1073 periods were throttled, and the agent says 0 ns: it reads another key than the kernel writes.
    assert_eq!(page.lookup("container_cpu_cfs_throttled_seconds_total", &spin), None);
    let writer = [("namespace", "shop"), ("pod", "kata-web"), ("container", "writer"), ("name", WEB_WRITER)];
    check(
        &page,
        &writer,
        &[
            // 26933517000, 1803582000, 25129935000 ns
            ("container_cpu_usage_seconds_total", &[("cpu", "total")], 26.933517),
            ("container_cpu_user_seconds_total", &[], 1.803582),
            ("container_cpu_system_seconds_total", &[], 25.129935),
            ("container_memory_usage_bytes", &[], 69_775_360.0),
            // 69775360 − 67686400
            ("container_memory_working_set_bytes", &[], 2_088_960.0),
            ("container_memory_rss", &[], 208_896.0),
            ("container_memory_cache", &[], 68_902_912.0),
            ("container_memory_total_active_file_bytes", &[], 1_208_320.0),
            ("container_memory_kernel_usage", &[], 475_136.0),
            ("container_threads", &[], 4.0),
        ],
    );
    let app = [("namespace", "shop"), ("pod", "kata-idle"), ("container", "app"), ("name", IDLE_APP)];
    check(
        &page,
        &app,
        &[
            // 486979000, 316131000, 170847000 ns
            ("container_cpu_usage_seconds_total", &[("cpu", "total")], 0.486979),
            ("container_cpu_user_seconds_total", &[], 0.316131),
            ("container_cpu_system_seconds_total", &[], 0.170847),
            ("container_memory_usage_bytes", &[], 1_769_472.0),
            // 1769472 − 1581056
            ("container_memory_working_set_bytes", &[], 188_416.0),
            ("container_memory_rss", &[], 49_152.0),
            // 128 MiB
            ("container_spec_memory_limit_bytes", &[], 134_217_728.0),
        ],
    );
    // The sandbox's row is the pause container in the guest, and never the machine around it.
    let sandbox = |pod, id| [("namespace", "shop"), ("pod", pod), ("container", ""), ("name", id)];
    check(
        &page,
        &sandbox("kata-web", WEB),
        &[
            ("container_cpu_usage_seconds_total", &[("cpu", "total")], 0.441203),
            ("container_memory_usage_bytes", &[], 815_104.0),
            // 815104 − 675840
            ("container_memory_working_set_bytes", &[], 139_264.0),
        ],
    );
    check(
        &page,
        &sandbox("kata-idle", IDLE),
        &[
            ("container_cpu_usage_seconds_total", &[("cpu", "total")], 0.389362),
            ("container_memory_usage_bytes", &[], 819_200.0),
            // 819200 − 675840
            ("container_memory_working_set_bytes", &[], 143_360.0),
        ],
    );
    for family in ["container_fs_reads_bytes_total", "container_fs_writes_bytes_total"] {
        for id in [WEB_SPIN, WEB_WRITER, IDLE_APP, WEB, IDLE] {
            assert!(page.matching(family, &[("name", id)]).is_empty(), "the guests have no disk");
        }
    }
}

#[test]
fn the_network_is_the_guests_and_stands_once() {
    let page = Page::parse(&collect(&node(Capture::T0))).unwrap();
    // The agent's eth0. Seen from the host its tap mirrors it, and the pod's eth0 has a few packets more.
    for (pod, id, counts) in
        [("kata-web", WEB, [84_922.0, 1165.0, 3_919_271.0, 1065.0]), ("kata-idle", IDLE, [4704.0, 60.0, 866.0, 11.0])]
    {
        let families = [
            "container_network_receive_bytes_total",
            "container_network_receive_packets_total",
            "container_network_transmit_bytes_total",
            "container_network_transmit_packets_total",
        ];
        for (family, count) in families.into_iter().zip(counts) {
            assert_eq!(page.value(family, &[("name", id), ("interface", "eth0")]), count, "{family} of {pod}");
            assert_eq!(page.matching(family, &[("namespace", "shop"), ("pod", pod)]).len(), 1, "{family} of {pod}");
        }
    }
    let taps = page.samples().filter(|sample| sample.label("interface").is_some_and(|name| name.starts_with("tap")));
    assert_eq!(taps.count(), 0);
}

#[test]
fn the_guest_and_its_machine_are_what_they_said() {
    let page = Page::parse(&collect(&node(Capture::T0))).unwrap();
    check(
        &page,
        &[("namespace", "shop"), ("pod", "kata-web"), ("sandbox_id", WEB)],
        &[
            // milliseconds: 54830, 20050, 990, 30830, 25050, 10
            ("kata_pulse_guest_cpu_seconds_total", &[("mode", "user")], 54.83),
            ("kata_pulse_guest_cpu_seconds_total", &[("mode", "system")], 20.05),
            ("kata_pulse_guest_cpu_seconds_total", &[("mode", "softirq")], 0.99),
            ("kata_pulse_guest_cpu_seconds_total", &[("mode", "steal")], 30.83),
            ("kata_pulse_guest_cpu_seconds_total", &[("mode", "idle")], 25.05),
            ("kata_pulse_guest_cpu_seconds_total", &[("mode", "iowait")], 0.01),
            ("kata_pulse_guest_memory_total_bytes", &[], 492_982_272.0),
            ("kata_pulse_guest_memory_available_bytes", &[], 397_549_568.0),
            ("kata_pulse_guest_memory_free_bytes", &[], 329_269_248.0),
            ("kata_pulse_guest_memory_cached_bytes", &[], 128_827_392.0),
            ("kata_pulse_guest_memory_anon_bytes", &[], 4_251_648.0),
            ("kata_pulse_guest_memory_slab_bytes", &[], 17_608_704.0),
            ("kata_pulse_guest_load1", &[], 1.129_999_995_231_628_4),
            ("kata_pulse_guest_threads", &[], 56.0),
            ("kata_pulse_guest_vcpus", &[], 1.0),
            ("kata_pulse_guest_oom_kills_total", &[], 0.0),
            // The machine was given 512 MiB. The hypervisor was asked a moment before the agent.
            ("kata_pulse_vmm_memory_bytes", &[], 536_870_912.0),
            ("kata_pulse_vmm_net_receive_bytes_total", &[("device", "_net0")], 83_968.0),
            ("kata_pulse_vmm_net_transmit_bytes_total", &[("device", "_net0")], 3_885_488.0),
            ("kata_pulse_vmm_net_receive_frames_total", &[("device", "_net0")], 1152.0),
            ("kata_pulse_vmm_net_transmit_frames_total", &[("device", "_net0")], 1053.0),
            ("kata_pulse_sandbox_up", &[], 1.0),
        ],
    );
    check(
        &page,
        &[("namespace", "shop"), ("pod", "kata-idle"), ("sandbox_id", IDLE)],
        &[
            ("kata_pulse_guest_cpu_seconds_total", &[("mode", "user")], 3.29),
            ("kata_pulse_guest_cpu_seconds_total", &[("mode", "system")], 9.62),
            ("kata_pulse_guest_cpu_seconds_total", &[("mode", "steal")], 15.65),
            ("kata_pulse_guest_memory_total_bytes", &[], 624_316_416.0),
            ("kata_pulse_guest_memory_available_bytes", &[], 468_303_872.0),
            ("kata_pulse_guest_threads", &[], 53.0),
            // 640 MiB
            ("kata_pulse_vmm_memory_bytes", &[], 671_088_640.0),
            ("kata_pulse_vmm_net_receive_bytes_total", &[("device", "_net0")], 4704.0),
            ("kata_pulse_vmm_net_transmit_bytes_total", &[("device", "_net0")], 866.0),
            ("kata_pulse_sandbox_up", &[], 1.0),
        ],
    );
    assert!(page.matching("kata_pulse_vmm_block_reads_total", &[]).is_empty(), "virtio-fs is no disk");
}

#[test]
fn the_node_pays_for_sandbox_and_overhead_cgroup() {
    let page = Page::parse(&collect(&node(Capture::T0))).unwrap();
    check(
        &page,
        &[("namespace", "shop"), ("pod", "kata-web"), ("sandbox_id", WEB)],
        &[
            // One cgroup: usage_usec 122527698
            ("kata_pulse_sandbox_host_cpu_seconds_total", &[], 122.527698),
            // anon 5873664 + shmem 247500800 + kernel 5001216, no huge pages
            ("kata_pulse_sandbox_host_memory_bytes", &[], 258_375_680.0),
            // 258375680 − (spin 1736704 + writer 69775360 + pause 815104)
            ("kata_pulse_sandbox_overhead_memory_bytes", &[], 186_048_512.0),
            // utime + stime in ticks of 10 ms: 1305 + 355, 7827 + 1808, 738 + 463
            ("kata_pulse_sandbox_process_cpu_seconds_total", &[("component", "shim")], 16.6),
            ("kata_pulse_sandbox_process_cpu_seconds_total", &[("component", "hypervisor")], 96.35),
            ("kata_pulse_sandbox_process_cpu_seconds_total", &[("component", "virtiofsd")], 12.01),
            // VmRSS 44240, 253812 and 79612 KiB
            ("kata_pulse_sandbox_process_resident_memory_bytes", &[("component", "shim")], 45_301_760.0),
            ("kata_pulse_sandbox_process_resident_memory_bytes", &[("component", "hypervisor")], 259_903_488.0),
            ("kata_pulse_sandbox_process_resident_memory_bytes", &[("component", "virtiofsd")], 81_522_688.0),
            ("kata_pulse_sandbox_process_threads", &[("component", "hypervisor")], 9.0),
            ("kata_pulse_sandbox_process_open_fds", &[("component", "hypervisor")], 138.0),
            ("kata_pulse_sandbox_process_open_fds", &[("component", "virtiofsd")], 67.0),
            // The guest's files are written by virtiofsd, and the hypervisor writes nothing.
            ("kata_pulse_sandbox_process_written_bytes_total", &[("component", "virtiofsd")], 169_148_416.0),
            ("kata_pulse_sandbox_process_written_bytes_total", &[("component", "hypervisor")], 0.0),
        ],
    );
    check(
        &page,
        &[("namespace", "shop"), ("pod", "kata-idle"), ("sandbox_id", IDLE)],
        &[
            // Two cgroups: 4856960 µs in the pod's, 44118104 µs in the overhead's
            ("kata_pulse_sandbox_host_cpu_seconds_total", &[], 48.975064),
            // (16384 + 2379776 + 16384) + (3641344 + 181997568 + 2564096)
            ("kata_pulse_sandbox_host_memory_bytes", &[], 190_615_552.0),
            // 190615552 − (app 1769472 + pause 819200)
            ("kata_pulse_sandbox_overhead_memory_bytes", &[], 188_026_880.0),
            // 1258 + 432, 1949 + 1271, 62 + 18
            ("kata_pulse_sandbox_process_cpu_seconds_total", &[("component", "shim")], 16.9),
            ("kata_pulse_sandbox_process_cpu_seconds_total", &[("component", "hypervisor")], 32.2),
            ("kata_pulse_sandbox_process_cpu_seconds_total", &[("component", "virtiofsd")], 0.8),
            // 43944, 192908 and 10656 KiB
            ("kata_pulse_sandbox_process_resident_memory_bytes", &[("component", "shim")], 44_998_656.0),
            ("kata_pulse_sandbox_process_resident_memory_bytes", &[("component", "hypervisor")], 197_537_792.0),
            ("kata_pulse_sandbox_process_resident_memory_bytes", &[("component", "virtiofsd")], 10_911_744.0),
            ("kata_pulse_sandbox_process_read_bytes_total", &[("component", "virtiofsd")], 6_955_008.0),
        ],
    );
    // The pod's own row is what the kubelet shows, which misses the overhead cgroup: memory.current 2424832.
    let pod = [("namespace", "shop"), ("pod", "kata-idle"), ("container", ""), ("name", ""), ("image", "")];
    assert_eq!(page.value("container_memory_usage_bytes", &pod), 2_424_832.0);
}

/// One agent that sees the first moment and then the second. What it holds open of procfs and cgroups stays at the
/// first, as the files of a fixture do; what it asks for goes on.
#[test]
fn counters_only_rise_while_one_agent_looks_on() {
    let mut node = node(Capture::T0);
    let mut flags = node.flags();
    flags.extend(["--max-age-secs", "0", "--metrics-profile", "all"].map(Into::into));
    let agent = Agent::start(flags);
    let first = agent.page("/metrics");
    node.show(Capture::T1).unwrap();
    let spin = [("name", WEB_SPIN), ("cpu", "total")];
    let cpu = |page: &Page| page.lookup("container_cpu_usage_seconds_total", &spin);
    // The runtime was started anew, so names may be gone for a moment; 69498778000 ns.
    agent.wait_until("the second moment is there", PATIENCE, || cpu(&agent.page("/metrics")) == Some(69.498778));
    let second = agent.page("/metrics");
    let mut risen = 0;
    for family in first.families.iter().filter(|family| family.kind == Some(Kind::Counter)) {
        // The agent's counts of its own work, and what is the node's, are not the sandboxes'.
        let of_pods = family.samples.iter().filter(|sample| sample.label("pod").is_some_and(|pod| !pod.is_empty()));
        for sample in of_pods {
            let labels: Vec<(&str, &str)> =
                sample.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let later = second.lookup(&sample.name, &labels);
            let later = later.unwrap_or_else(|| panic!("{} {labels:?} is gone", sample.name));
            assert!(later >= sample.value, "{} {labels:?} fell from {} to {later}", sample.name, sample.value);
            risen += usize::from(later > sample.value);
        }
    }
    // Two guests with a dozen counters each that moved in half a minute.
    assert!(risen >= 24, "only {risen} counters rose");
    check(
        &second,
        &[("namespace", "shop"), ("pod", "kata-web")],
        &[
            // 34555419000 ns
            ("container_cpu_usage_seconds_total", &[("name", WEB_WRITER), ("cpu", "total")], 34.555419),
            ("container_cpu_cfs_throttled_periods_total", &[("name", WEB_SPIN)], 1340.0),
            // 69681152 − 68902912
            ("container_memory_working_set_bytes", &[("name", WEB_WRITER)], 778_240.0),
            ("container_network_transmit_bytes_total", &[("name", WEB), ("interface", "eth0")], 4_893_345.0),
            ("kata_pulse_guest_cpu_seconds_total", &[("mode", "user")], 67.12),
            ("kata_pulse_vmm_net_receive_bytes_total", &[("device", "_net0")], 108_064.0),
        ],
    );
    for sandbox in node.sandboxes() {
        assert_eq!(sandbox.requests(Endpoint::Shim, "GET /metrics"), 0, "the agent answers, so nobody asks the shim");
        assert!(sandbox.counts(Endpoint::Agent).most_in_flight <= 1);
    }
    assert_eq!(node.violations(), []);
}
