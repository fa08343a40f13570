//! A node of which every number is known.

use std::os::unix::fs::MetadataExt;

use crate::support::agent::Agent;
use crate::support::host::Host;

#[test]
fn the_network_is_that_of_the_hosts_first_process() {
    let host = Host::v2();
    host.write("proc/self/net/dev", &crate::support::host::net_dev(&[("eth0", 5)]));
    host.write("proc/net/dev", &crate::support::host::net_dev(&[("eth0", 5)]));
    let mut flags = host.flags();
    flags.extend(["--enable-collectors", "node"].map(Into::into));
    let page = Agent::start(flags).page("/metrics");
    let received = |device: &str| page.lookup("node_network_receive_bytes_total", &[("device", device)]);
    assert_eq!((received("lo"), received("ens5"), received("eth0")), (Some(7.0), Some(1000.0), None));
    // Kibibytes, sectors, milliseconds and ticks.
    assert_eq!(page.value("node_memory_MemAvailable_bytes", &[]), 12_582_912.0 * 1024.0);
    assert_eq!(page.value("node_memory_Active_anon_bytes", &[]), 1_048_576.0 * 1024.0);
    let disk = |family: &str| page.value(family, &[("device", "nvme0n1")]);
    assert_eq!(disk("node_disk_read_bytes_total"), 30_000.0 * 512.0);
    assert_eq!(disk("node_disk_write_time_seconds_total"), 8.0);
    assert_eq!(disk("node_disk_io_now"), 9.0);
    assert_eq!(page.value("node_cpu_seconds_total", &[("cpu", "3"), ("mode", "idle")]), 2.5);
    assert_eq!(page.value("node_boot_time_seconds", &[]), 1_700_000_000.0);
    // What the node does not have is not made up.
    for absent in
        ["node_load1", "node_nf_conntrack_entries", "node_pressure_cpu_waiting_seconds_total", "node_intr_total"]
    {
        assert_eq!(page.lookup(absent, &[]), None, "{absent}");
    }
    assert_eq!(page.value("kata_pulse_collector_success", &[("collector", "node")]), 1.0);
}

#[test]
fn what_is_excluded_is_left_out() {
    let host = Host::v2();
    host.write("proc/1/net/arp", "IP address\n192.0.2.1 0x1 0x2 00:00:5e:00:53:01 * ens5\n");
    // Both are where the host's files are.
    let device = std::fs::metadata(host.root()).expect("it is there").dev();
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let mount = |point: &str, kind: &str| format!("1 0 {number} / {point} rw - {kind} {kind}-disk rw\n");
    for directory in ["mnt/data", "srv"] {
        std::fs::create_dir_all(host.path(directory)).expect("make a directory");
    }
    host.write("proc/1/mountinfo", &[mount("/", "ext4"), mount("/mnt/data", "xfs"), mount("/srv", "tmpfs")].concat());
    let told = |more: &[&str]| {
        let mut flags = host.flags();
        flags.extend(["--enable-collectors", "node"].iter().chain(more).map(Into::into));
        let page = Agent::start(flags).page("/metrics");
        assert_eq!(page.value("kata_pulse_collector_success", &[("collector", "node")]), 1.0);
        let families = [
            ("node_network_receive_bytes_total", "device"),
            ("node_arp_entries", "device"),
            ("node_disk_read_bytes_total", "device"),
            ("node_filesystem_size_bytes", "mountpoint"),
            ("container_network_receive_bytes_total", "interface"),
        ];
        families.map(|(family, label)| {
            let values = page.matching(family, &[]).into_iter().filter_map(|sample| sample.label(label));
            values.collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
        })
    };
    let everything = ["ens5 lo", "ens5", "dm-0 dm-1 nvme0n1 nvme1n1", "/ /mnt/data /srv", "ens5"];
    assert_eq!(told(&[]), everything);
    let excluded = [
        ["--node-exclude-interfaces", "^(ens|veth)"],
        ["--node-exclude-disks", "^nvme"],
        ["--node-exclude-mounts", "^/mnt/"],
        ["--node-exclude-filesystems", "^tmpfs$"],
        ["--exclude-interfaces", "^ens"],
    ];
    assert_eq!(told(&excluded.concat()), ["lo", "", "dm-0 dm-1", "/", ""]);
}

#[test]
fn mounts_are_told_by_their_own_names() {
    let host = Host::v2();
    let device = std::fs::metadata(host.root()).expect("it is there").dev();
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    for directory in ["mnt/my disk", "mnt/bound"] {
        std::fs::create_dir_all(host.path(directory)).expect("make a directory");
    }
    // A pod says by `subPath` which directory is bound, and by `emptyDir` volumes have no source.
    let lines = [
        format!("1 0 {number} / / rw - ext4 /dev/sda rw\n"),
        format!("2 1 {number} / /mnt/my\\040disk rw - tmpfs none rw,size=1k\n"),
        format!("3 1 {number} /of\u{a0}a\u{2003}pod /mnt/bound rw shared:7 - xfs /dev/sdb ro\n"),
    ];
    host.write("proc/1/mountinfo", &lines.concat());
    let mut flags = host.flags();
    flags.extend(["--enable-collectors", "node"].map(Into::into));
    let page = Agent::start(flags).page("/metrics");
    for collector in ["filesystem", "node"] {
        assert_eq!(page.value("kata_pulse_collector_success", &[("collector", collector)]), 1.0, "{collector}");
    }
    let told: Vec<String> = page
        .matching("node_filesystem_readonly", &[])
        .iter()
        .map(|sample| {
            let of = |name: &str| sample.label(name).expect("it has it").to_owned();
            [of("device"), of("fstype"), of("mountpoint"), sample.value.to_string()].join(" ")
        })
        .collect();
    assert_eq!(told, ["/dev/sda ext4 / 0", "none tmpfs /mnt/my disk 0", "/dev/sdb xfs /mnt/bound 1"]);
    let of_node: Vec<&str> =
        page.matching("container_fs_limit_bytes", &[]).iter().filter_map(|sample| sample.label("device")).collect();
    assert_eq!(of_node, ["/dev/sda", "/mnt/my disk", "/dev/sdb"]);
}

#[test]
fn what_files_say_twice_is_served_once() {
    let host = Host::v2();
    let twice = |path: &str, text: &str| host.write(path, &text.repeat(2));
    twice("proc/1/net/dev", "head\n lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n");
    twice("proc/1/net/snmp", "Udp: InDatagrams\nUdp: 1\n");
    twice("proc/1/net/sockstat", "TCP: inuse 1\n");
    twice("proc/1/net/softnet_stat", "0000000a 00000001 00000002 0 0 0 0 0 0 0 0 0 00000000 0 0\n");
    twice("proc/cpuinfo", "processor\t: 0\n\n");
    twice("proc/diskstats", " 259 0 nvme0n1 1 2 3 4 5 6 7 8 9 10 11\n");
    twice("proc/meminfo", "MemTotal: 2 kB\nSwapTotal: 0 kB\n");
    twice("proc/stat", "cpu0 25 0 25 250 0 0 0 0 0 0\nctxt 1\n");
    twice("proc/vmstat", "pgpgin 2\n");
    let mut flags = host.flags();
    flags.extend(["--enable-collectors", "node"].map(Into::into));
    // The parser refuses families and series that are there twice.
    let page = Agent::start(flags).page("/metrics");
    for family in ["node_memory_MemTotal_bytes", "node_netstat_Udp_InDatagrams", "node_vmstat_pgpgin", "node_cpu_info"]
    {
        assert_eq!(page.matching(family, &[]).len(), 1, "{family}");
    }
}

#[test]
fn nothing_of_it_is_served_to_who_did_not_ask() {
    let page = Agent::start(Host::v2().flags()).page("/metrics");
    let names: Vec<&str> =
        page.families.iter().map(|family| family.name.as_str()).filter(|name| name.starts_with("node_")).collect();
    assert_eq!(names, [""; 0]);
}

#[test]
fn the_open_format_has_no_type_that_it_does_not_know() {
    let mut flags: Vec<std::ffi::OsString> = crate::FLAGS.map(Into::into).to_vec();
    flags.extend(["--metrics-profile", "dashboards"].map(Into::into));
    let agent = Agent::start(flags);
    let answer = agent.get_with("/metrics", &[("Accept", "application/openmetrics-text; version=1.0.0")]);
    assert!(answer.text().contains("# TYPE node_vmstat_pgfault unknown\n"));
    assert!(answer.text().contains("# TYPE node_cpu_seconds counter\n"));
    assert!(answer.text().ends_with("# EOF\n"));
}
