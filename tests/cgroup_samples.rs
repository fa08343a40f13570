//! Cgroup directories of other projects' test data through the real binary: every sample of the container's row is
//! compared with what was worked out by hand from the files and cAdvisor's formulas.
//!
//! A row is compared whole. What is not in a list must not be served, so the lists state absences too.

use std::collections::BTreeMap;
use std::fs;

mod support;

use support::command::kata_pulse;
use support::exposition::{Page, Sample};
use support::host::Host;
use support::trees::Trees;

const ID: &str = "1c8fa019edd4b9d4b2856f4932c55929c5c118c808ed5faee9a135ca6e84b039";
const POD: &str = "/kubepods/burstable/pod3b7e61c0-5a0d-4f0e-9d51-6c1f0a7be201";

/// The labels that every row has.
const IDENTITY: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

/// What depends on the clock and not on the tree.
const CLOCK: [&str; 2] = ["container_last_seen", "container_start_time_seconds"];

fn container() -> String {
    format!("{POD}/{ID}")
}

/// A collection with every family on, which must succeed.
fn collect(host: &Host) -> Page {
    let mut arguments = host.flags();
    arguments.extend(["collect", "--metrics-profile", "all"].map(Into::into));
    kata_pulse(arguments).expect_code(0).page()
}

/// A cgroup v2 node with one container, whose files are a directory of the archive.
fn v2(tree: &str) -> Host {
    let host = Host::v2();
    // A node with the huge page controller has its files in every cgroup but the root.
    for name in ["hugetlb.1GB.current", "hugetlb.2MB.current"] {
        host.write(&format!("sys/fs/cgroup/kubepods/{name}"), "0\n");
    }
    Trees::unpack().place(tree, &host.path(&format!("sys/fs/cgroup{}", container())));
    host
}

/// The samples of a row as `name{own labels}` and value. The identity labels must be there and blank, but for `id`:
/// without a runtime nobody knows names.
fn row(page: &Page, id: &str) -> BTreeMap<String, f64> {
    let samples = page.samples().filter(|sample| sample.label("id") == Some(id));
    let samples = samples.filter(|sample| !CLOCK.contains(&sample.name.as_str()));
    samples.map(|sample| (series(sample, id), sample.value)).collect()
}

fn series(sample: &Sample, id: &str) -> String {
    for name in IDENTITY {
        assert_eq!(sample.label(name), Some(if name == "id" { id } else { "" }), "{name} of {sample:?}");
    }
    let own = sample.labels.iter().filter(|(name, _)| !IDENTITY.contains(&name.as_str()));
    let own: Vec<String> = own.map(|(name, value)| format!("{name}={value}")).collect();
    if own.is_empty() { sample.name.clone() } else { format!("{}{{{}}}", sample.name, own.join(",")) }
}

/// Compares a row with a list of `name{own labels} value`.
#[track_caller]
fn assert_row(page: &Page, id: &str, expected: &str) {
    let expected: BTreeMap<String, f64> = expected
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a series and its value");
            (series.to_owned(), value.parse().expect("a number"))
        })
        .collect();
    let served = row(page, id);
    let names: std::collections::BTreeSet<&String> = expected.keys().chain(served.keys()).collect();
    let differences: Vec<String> = names
        .into_iter()
        .filter(|name| expected.get(*name) != served.get(*name))
        .map(|name| format!("{name}: expected {:?}, served {:?}", expected.get(name), served.get(name)))
        .collect();
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    for name in CLOCK {
        assert!(page.value(name, &[("id", id)]) > 1.6e9, "{name} of {id}");
    }
}

#[test]
fn v1_with_the_systemd_driver_on_a_real_eks_node() {
    let host = Host::bare();
    Trees::unpack().place("v1/eks-containerd-systemd/sys", &host.path("sys"));
    let id = "/kubepods.slice/kubepods-burstable.slice/\
              kubepods-burstable-pod7a96c459_d529_44ae_9f99_90d3798d6426.slice/\
              cri-containerd-1d3d308a7d48a27814a68bf33a44acf4441c9c02463ca0bc1cdfdc8c0b4a8496.scope";
    // Shares of 102 are what was asked for, verbatim. No quota, so neither the quota nor throttling counters that
    // stand at zero. BFQ's files hold only `Total 0`, so the throttle files speak for the disk.
    assert_row(
        &collect(&host),
        id,
        "
        container_blkio_device_usage_total{device=/dev/nvme0n1,major=259,minor=0,operation=Async} 0
        container_blkio_device_usage_total{device=/dev/nvme0n1,major=259,minor=0,operation=Discard} 0
        container_blkio_device_usage_total{device=/dev/nvme0n1,major=259,minor=0,operation=Read} 3448832
        container_blkio_device_usage_total{device=/dev/nvme0n1,major=259,minor=0,operation=Sync} 28652032
        container_blkio_device_usage_total{device=/dev/nvme0n1,major=259,minor=0,operation=Total} 28652032
        container_blkio_device_usage_total{device=/dev/nvme0n1,major=259,minor=0,operation=Write} 25203200
        container_cpu_system_seconds_total 15165.02
        container_cpu_usage_seconds_total{cpu=total} 124659.500367
        container_cpu_user_seconds_total 108488.91
        container_fs_reads_bytes_total{device=/dev/nvme0n1} 3448832
        container_fs_reads_total{device=/dev/nvme0n1} 59
        container_fs_writes_bytes_total{device=/dev/nvme0n1} 25203200
        container_fs_writes_total{device=/dev/nvme0n1} 5048
        container_memory_cache 78397440
        container_memory_failcnt 0
        container_memory_failures_total{failure_type=pgfault,scope=container} 116218146
        container_memory_failures_total{failure_type=pgfault,scope=hierarchy} 116218146
        container_memory_failures_total{failure_type=pgmajfault,scope=container} 0
        container_memory_failures_total{failure_type=pgmajfault,scope=hierarchy} 0
        container_memory_file_dirty_bytes 56094720
        container_memory_file_writeback_bytes 0
        container_memory_kernel_usage 16584704
        container_memory_mapped_file 0
        container_memory_max_usage_bytes 1532657664
        container_memory_rss 1119465472
        container_memory_swap 0
        container_memory_total_active_file_bytes 0
        container_memory_total_inactive_file_bytes 78557184
        container_memory_usage_bytes 1215860736
        container_memory_working_set_bytes 1137303552
        container_oom_events_total 0
        container_processes 12
        container_spec_cpu_period 100000
        container_spec_cpu_shares 102
        container_spec_memory_limit_bytes 2147483648
        container_spec_memory_reservation_limit_bytes 0
        container_spec_memory_swap_limit_bytes 2147483648
        container_threads 177
        container_threads_max 0
        ",
    );
}

#[test]
fn v1_with_a_mount_per_controller_and_without_hierarchy() {
    let host = Host::bare();
    let trees = Trees::unpack();
    for controller in ["blkio", "cpu", "cpuacct", "memory"] {
        let mount = format!("sys/fs/cgroup/{controller}");
        let docker = format!("v1/docker-cgroupfs/{mount}/docker");
        // Outside of pods a container's name proves nothing, so this one is put into a pod.
        let name = "b29faf21b7eff959f64b4192c34d5d67a707fe8561e9eaa608cb27693fba4242";
        trees.place(&format!("{docker}/{name}"), &host.path(&format!("{mount}{}", container())));
    }
    // The limits are the kernel's round i64::MAX, above 2^62: none. There is no quota, so the throttling counters,
    // 1046 times throttled, are not served. The pids controller is not mounted, the kernel too old for `dirty` and
    // for kills in memory.oom_control. Device 7:0 is not in diskstats and keeps its number.
    assert_row(
        &collect(&host),
        &container(),
        "
        container_blkio_device_usage_total{device=/dev/block/7:0,major=7,minor=0,operation=Async} 4608
        container_blkio_device_usage_total{device=/dev/block/7:0,major=7,minor=0,operation=Read} 4608
        container_blkio_device_usage_total{device=/dev/block/7:0,major=7,minor=0,operation=Sync} 0
        container_blkio_device_usage_total{device=/dev/block/7:0,major=7,minor=0,operation=Total} 4608
        container_blkio_device_usage_total{device=/dev/block/7:0,major=7,minor=0,operation=Write} 0
        container_blkio_device_usage_total{device=/dev/dm-0,major=253,minor=0,operation=Async} 4608
        container_blkio_device_usage_total{device=/dev/dm-0,major=253,minor=0,operation=Read} 4608
        container_blkio_device_usage_total{device=/dev/dm-0,major=253,minor=0,operation=Sync} 0
        container_blkio_device_usage_total{device=/dev/dm-0,major=253,minor=0,operation=Total} 4608
        container_blkio_device_usage_total{device=/dev/dm-0,major=253,minor=0,operation=Write} 0
        container_blkio_device_usage_total{device=/dev/dm-1,major=253,minor=1,operation=Async} 1638912
        container_blkio_device_usage_total{device=/dev/dm-1,major=253,minor=1,operation=Read} 1638912
        container_blkio_device_usage_total{device=/dev/dm-1,major=253,minor=1,operation=Sync} 0
        container_blkio_device_usage_total{device=/dev/dm-1,major=253,minor=1,operation=Total} 1638912
        container_blkio_device_usage_total{device=/dev/dm-1,major=253,minor=1,operation=Write} 0
        container_cpu_system_seconds_total 7.73
        container_cpu_usage_seconds_total{cpu=total} 95.996653175
        container_cpu_user_seconds_total 61.95
        container_fs_reads_bytes_total{device=/dev/block/7:0} 4608
        container_fs_reads_bytes_total{device=/dev/dm-0} 4608
        container_fs_reads_bytes_total{device=/dev/dm-1} 1638912
        container_fs_reads_total{device=/dev/block/7:0} 2
        container_fs_reads_total{device=/dev/dm-0} 2
        container_fs_reads_total{device=/dev/dm-1} 42
        container_fs_writes_bytes_total{device=/dev/block/7:0} 0
        container_fs_writes_bytes_total{device=/dev/dm-0} 0
        container_fs_writes_bytes_total{device=/dev/dm-1} 0
        container_fs_writes_total{device=/dev/block/7:0} 0
        container_fs_writes_total{device=/dev/dm-0} 0
        container_fs_writes_total{device=/dev/dm-1} 0
        container_memory_cache 65101824
        container_memory_failcnt 0
        container_memory_failures_total{failure_type=pgfault,scope=container} 91651
        container_memory_failures_total{failure_type=pgfault,scope=hierarchy} 91651
        container_memory_failures_total{failure_type=pgmajfault,scope=container} 166
        container_memory_failures_total{failure_type=pgmajfault,scope=hierarchy} 166
        container_memory_file_writeback_bytes 0
        container_memory_kernel_usage 40
        container_memory_mapped_file 17633280
        container_memory_max_usage_bytes 298532864
        container_memory_rss 230662144
        container_memory_swap 0
        container_memory_total_active_file_bytes 24813568
        container_memory_total_inactive_file_bytes 40108032
        container_memory_usage_bytes 295997440
        container_memory_working_set_bytes 255889408
        container_processes 1
        container_spec_cpu_period 100000
        container_spec_cpu_shares 1024
        container_spec_memory_limit_bytes 0
        container_spec_memory_reservation_limit_bytes 0
        container_spec_memory_swap_limit_bytes 0
        ",
    );
}

#[test]
fn v2_of_a_late_kernel_with_everything() {
    // Shares are 2 + (79 - 1) x 262142 / 9999. There is no cgroup.procs in the sample, so no processes are counted.
    assert_row(
        &collect(&v2("v2/telegraf")),
        &container(),
        "
        container_blkio_device_usage_total{device=/dev/nvme1n1,major=259,minor=8,operation=Read} 74526720
        container_blkio_device_usage_total{device=/dev/nvme1n1,major=259,minor=8,operation=Write} 3789381632
        container_cpu_cfs_burst_periods_total 0
        container_cpu_cfs_burst_seconds_total 0
        container_cpu_cfs_periods_total 3936904
        container_cpu_cfs_throttled_periods_total 6004
        container_cpu_cfs_throttled_seconds_total 19175.137007
        container_cpu_system_seconds_total 37345.608977
        container_cpu_usage_seconds_total{cpu=total} 98701.325189
        container_cpu_user_seconds_total 61355.716211
        container_fs_reads_bytes_total{device=/dev/nvme1n1} 74526720
        container_fs_reads_total{device=/dev/nvme1n1} 2936
        container_fs_writes_bytes_total{device=/dev/nvme1n1} 3789381632
        container_fs_writes_total{device=/dev/nvme1n1} 181928
        container_hugetlb_failcnt{pagesize=1GB} 0
        container_hugetlb_failcnt{pagesize=2MB} 0
        container_hugetlb_usage_bytes{pagesize=1GB} 0
        container_hugetlb_usage_bytes{pagesize=2MB} 0
        container_memory_cache 8532865024
        container_memory_events_high_total 0
        container_memory_events_max_total 0
        container_memory_failures_total{failure_type=pgfault,scope=container} 1973187551
        container_memory_failures_total{failure_type=pgfault,scope=hierarchy} 1973187551
        container_memory_failures_total{failure_type=pgmajfault,scope=container} 8497
        container_memory_failures_total{failure_type=pgmajfault,scope=hierarchy} 8497
        container_memory_file_dirty_bytes 319488
        container_memory_file_writeback_bytes 0
        container_memory_kernel_usage 2065149952
        container_memory_mapped_file 14213120
        container_memory_max_usage_bytes 87302021120
        container_memory_pgscan_total 12149209
        container_memory_pgsteal_total 12139915
        container_memory_rss 2471755776
        container_memory_swap 0
        container_memory_total_active_file_bytes 5597401088
        container_memory_total_inactive_file_bytes 2935459840
        container_memory_usage_bytes 13071106048
        container_memory_working_set_bytes 10135646208
        container_memory_workingset_refault_anon_total 0
        container_memory_workingset_refault_file_total 629356
        container_oom_events_total 0
        container_pressure_cpu_stalled_seconds_total 277.111656
        container_pressure_cpu_waiting_seconds_total 293.391454
        container_pressure_io_stalled_seconds_total 184.607952
        container_pressure_io_waiting_seconds_total 185.1624
        container_pressure_memory_stalled_seconds_total 0.250662
        container_pressure_memory_waiting_seconds_total 0.250773
        container_spec_cpu_period 100000
        container_spec_cpu_quota 4800000
        container_spec_cpu_shares 2046
        container_spec_memory_limit_bytes 103079215104
        container_spec_memory_reservation_limit_bytes 0
        container_spec_memory_swap_limit_bytes 0
        container_threads 592
        container_threads_max 629145
        ",
    );
}

#[test]
fn v2_of_an_older_kernel_without_quota() {
    let host = Host::v2();
    let tree = format!("v2/docker-systemd/sys/fs/cgroup/system.slice/docker-{ID}.scope");
    Trees::unpack().place(&tree, &host.path(&format!("sys/fs/cgroup{}", container())));
    // The quota is `max`, so nothing tells of throttling although four periods were. Without a `full` line nobody
    // knows how long the CPU stalled everyone, and without memory.peak what the peak was: no samples, where the
    // kubelet says 0. The resident set exceeds the usage in the sample, which is no reason to change either.
    assert_row(
        &collect(&host),
        &container(),
        "
        container_blkio_device_usage_total{device=/dev/block/8:0,major=8,minor=0,operation=Read} 512
        container_blkio_device_usage_total{device=/dev/block/8:0,major=8,minor=0,operation=Write} 4096
        container_blkio_device_usage_total{device=/dev/dm-0,major=253,minor=0,operation=Read} 1024
        container_blkio_device_usage_total{device=/dev/dm-0,major=253,minor=0,operation=Write} 4096
        container_cpu_system_seconds_total 5793.060316
        container_cpu_usage_seconds_total{cpu=total} 26772.130245
        container_cpu_user_seconds_total 20979.069928
        container_fs_reads_bytes_total{device=/dev/block/8:0} 512
        container_fs_reads_bytes_total{device=/dev/dm-0} 1024
        container_fs_reads_total{device=/dev/block/8:0} 100
        container_fs_reads_total{device=/dev/dm-0} 1
        container_fs_writes_bytes_total{device=/dev/block/8:0} 4096
        container_fs_writes_bytes_total{device=/dev/dm-0} 4096
        container_fs_writes_total{device=/dev/block/8:0} 1
        container_fs_writes_total{device=/dev/dm-0} 1
        container_memory_cache 0
        container_memory_events_high_total 3
        container_memory_events_max_total 2
        container_memory_failures_total{failure_type=pgfault,scope=container} 580970907
        container_memory_failures_total{failure_type=pgfault,scope=hierarchy} 580970907
        container_memory_failures_total{failure_type=pgmajfault,scope=container} 0
        container_memory_failures_total{failure_type=pgmajfault,scope=hierarchy} 0
        container_memory_file_dirty_bytes 0
        container_memory_file_writeback_bytes 0
        container_memory_mapped_file 0
        container_memory_pgscan_total 0
        container_memory_rss 411045888
        container_memory_swap 0
        container_memory_total_active_file_bytes 0
        container_memory_total_inactive_file_bytes 270336
        container_memory_usage_bytes 9125888
        container_memory_working_set_bytes 8855552
        container_memory_workingset_refault_anon_total 5
        container_memory_workingset_refault_file_total 5
        container_memory_pgsteal_total 0
        container_oom_events_total 1
        container_pressure_cpu_waiting_seconds_total 1.676316
        container_pressure_io_stalled_seconds_total 1.154482
        container_pressure_io_waiting_seconds_total 1.154482
        container_pressure_memory_stalled_seconds_total 0
        container_pressure_memory_waiting_seconds_total 0
        container_spec_cpu_period 100000
        container_spec_cpu_shares 2597
        container_spec_memory_limit_bytes 0
        container_spec_memory_reservation_limit_bytes 0
        container_spec_memory_swap_limit_bytes 0
        ",
    );
}

#[test]
fn v2_with_more_inactive_file_cache_than_usage() {
    assert_row(
        &collect(&v2("v2/oci-cgroups-memory")),
        &container(),
        "
        container_memory_cache 6502666240
        container_memory_failures_total{failure_type=pgfault,scope=container} 103216687
        container_memory_failures_total{failure_type=pgfault,scope=hierarchy} 103216687
        container_memory_failures_total{failure_type=pgmajfault,scope=container} 6879
        container_memory_failures_total{failure_type=pgmajfault,scope=hierarchy} 6879
        container_memory_file_dirty_bytes 1122304
        container_memory_file_writeback_bytes 0
        container_memory_mapped_file 656187392
        container_memory_max_usage_bytes 987654321
        container_memory_pgscan_total 0
        container_memory_pgsteal_total 0
        container_memory_rss 790425600
        container_memory_total_active_file_bytes 1179316224
        container_memory_total_inactive_file_bytes 5307346944
        container_memory_usage_bytes 123456789
        container_memory_working_set_bytes 0
        container_memory_workingset_refault_anon_total 0
        container_memory_workingset_refault_file_total 0
        container_spec_memory_limit_bytes 999999999
        ",
    );
}

/// Several device numbers in a line and numbers without keys: only the number before the keys has counters.
#[test]
fn io_stat_lines_as_only_some_kernels_write_them() {
    for (file, expected) in [
        (
            "ubuntu.io.stat",
            "
            container_blkio_device_usage_total{device=/dev/block/7:3,major=7,minor=3,operation=Read} 21017600
            container_blkio_device_usage_total{device=/dev/block/7:3,major=7,minor=3,operation=Write} 0
            container_blkio_device_usage_total{device=/dev/block/7:4,major=7,minor=4,operation=Read} 556032
            container_blkio_device_usage_total{device=/dev/block/7:4,major=7,minor=4,operation=Write} 0
            container_fs_reads_bytes_total{device=/dev/block/7:3} 21017600
            container_fs_reads_bytes_total{device=/dev/block/7:4} 556032
            container_fs_reads_total{device=/dev/block/7:3} 629
            container_fs_reads_total{device=/dev/block/7:4} 78
            container_fs_writes_bytes_total{device=/dev/block/7:3} 0
            container_fs_writes_bytes_total{device=/dev/block/7:4} 0
            container_fs_writes_total{device=/dev/block/7:3} 0
            container_fs_writes_total{device=/dev/block/7:4} 0
            ",
        ),
        (
            "ubuntu2.io.stat",
            "
            container_blkio_device_usage_total{device=/dev/dm-0,major=253,minor=0,operation=Read} 45931053056
            container_blkio_device_usage_total{device=/dev/dm-0,major=253,minor=0,operation=Write} 211814596608
            container_blkio_device_usage_total{device=/dev/nvme0n1,major=259,minor=0,operation=Read} 48963873792
            container_blkio_device_usage_total{device=/dev/nvme0n1,major=259,minor=0,operation=Write} 217588278272
            container_fs_reads_bytes_total{device=/dev/dm-0} 45931053056
            container_fs_reads_bytes_total{device=/dev/nvme0n1} 48963873792
            container_fs_reads_total{device=/dev/dm-0} 1078394
            container_fs_reads_total{device=/dev/nvme0n1} 1315370
            container_fs_writes_bytes_total{device=/dev/dm-0} 211814596608
            container_fs_writes_bytes_total{device=/dev/nvme0n1} 217588278272
            container_fs_writes_total{device=/dev/dm-0} 21426614
            container_fs_writes_total{device=/dev/nvme0n1} 15358572
            ",
        ),
    ] {
        let host = Host::v2();
        let text = fs::read_to_string(Trees::unpack().path("v2/io-stat-variants").join(file)).unwrap();
        host.write(&format!("sys/fs/cgroup{}/io.stat", container()), &text);
        assert_row(&collect(&host), &container(), expected);
    }
}

#[test]
fn v1_limits_and_shares() {
    let host = Host::bare();
    let trees = Trees::unpack();
    for controller in ["cpu", "cpuset", "memory", "pids"] {
        let container = host.path(&format!("sys/fs/cgroup/{controller}{}", container()));
        trees.place(&format!("spec/v1/test1/{controller}"), &container);
    }
    assert_row(
        &collect(&host),
        &container(),
        "
        container_spec_cpu_period 100010
        container_spec_cpu_quota 20000
        container_spec_cpu_shares 1025
        container_spec_memory_limit_bytes 123456789
        container_spec_memory_reservation_limit_bytes 24680
        container_spec_memory_swap_limit_bytes 13579
        container_threads_max 1027
        ",
    );
}

#[test]
fn v2_limits_and_shares() {
    assert_row(
        &collect(&v2("spec/v2/test1")),
        &container(),
        "
        container_spec_cpu_period 100010
        container_spec_cpu_quota 20000
        container_spec_cpu_shares 1286
        container_spec_memory_limit_bytes 123456789
        container_spec_memory_reservation_limit_bytes 24680
        container_spec_memory_swap_limit_bytes 13579
        container_threads_max 1027
        ",
    );
}

#[test]
fn v2_limits_that_are_all_max() {
    assert_row(
        &collect(&v2("spec/v2/test2")),
        &container(),
        "
        container_spec_cpu_period 100010
        container_spec_cpu_shares 1286
        container_spec_memory_limit_bytes 0
        container_spec_memory_reservation_limit_bytes 0
        container_spec_memory_swap_limit_bytes 0
        container_threads_max 0
        ",
    );
}

/// The root cgroup of v2 has neither memory.current nor limits: the machine's own figures stand in, as the kubelet
/// has it.
#[test]
fn the_root_row_shows_the_machine() {
    let host = Host::v2();
    let page = collect(&host);
    let root = [("id", "/")];
    for (family, value) in [
        ("container_cpu_usage_seconds_total", 9.0),
        ("container_cpu_user_seconds_total", 6.0),
        ("container_cpu_system_seconds_total", 3.0),
        ("container_memory_usage_bytes", 3_221_225_472.0),
        ("container_memory_working_set_bytes", 2_684_354_560.0),
        ("container_memory_swap", 536_870_912.0),
        ("container_spec_memory_limit_bytes", support::host::MEMORY_BYTES),
        ("container_spec_memory_swap_limit_bytes", support::host::SWAP_BYTES),
        ("container_start_time_seconds", support::host::BOOT_TIME),
        ("container_ulimits_soft", 1_048_576.0),
    ] {
        assert_eq!(page.value(family, &root), value, "{family}");
    }
    let ens5 = [("id", "/"), ("interface", "ens5")];
    assert_eq!(page.value("container_network_receive_bytes_total", &ens5), 1000.0);
    assert_eq!(page.value("container_network_receive_packets_total", &ens5), 1001.0);
    assert_eq!(page.value("container_network_receive_errors_total", &ens5), 1002.0);
    assert_eq!(page.value("container_network_receive_packets_dropped_total", &ens5), 1003.0);
    assert_eq!(page.value("container_network_transmit_bytes_total", &ens5), 1008.0);
    assert_eq!(page.value("container_network_transmit_packets_total", &ens5), 1009.0);
    assert_eq!(page.value("container_network_transmit_errors_total", &ens5), 1010.0);
    assert_eq!(page.value("container_network_transmit_packets_dropped_total", &ens5), 1011.0);
    assert_eq!(page.matching("container_network_receive_bytes_total", &root).len(), 1, "lo is left out");
    // Columns of diskstats, milliseconds as seconds.
    let disk = [("id", "/"), ("device", "/dev/nvme0n1")];
    for (family, value) in [
        ("container_fs_reads_total", 1000.0),
        ("container_fs_reads_merged_total", 20.0),
        ("container_fs_sector_reads_total", 30_000.0),
        ("container_fs_read_seconds_total", 4.0),
        ("container_fs_writes_total", 5000.0),
        ("container_fs_writes_merged_total", 60.0),
        ("container_fs_sector_writes_total", 70_000.0),
        ("container_fs_write_seconds_total", 8.0),
        ("container_fs_io_current", 9.0),
        ("container_fs_io_time_seconds_total", 10.0),
        ("container_fs_io_time_weighted_seconds_total", 11.0),
    ] {
        assert_eq!(page.value(family, &disk), value, "{family}");
    }
    assert_eq!(page.value("machine_memory_bytes", &[]), support::host::MEMORY_BYTES);
    assert_eq!(page.value("machine_swap_bytes", &[]), support::host::SWAP_BYTES);
    assert_eq!(page.value("machine_cpu_cores", &[]), 4.0);
    let version = page.matching("cadvisor_version_info", &[("kernelVersion", "6.1.0-test")]);
    assert_eq!(version[0].label("osVersion"), Some("Testing Linux 1"));
}
