//! The cgroups of a sandbox: its pod's, its own, and that of its overhead.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Tree;
use super::node::V1_HIERARCHIES;
use crate::kata::kind::HostCgroup;
use crate::kata::model::Facts;
use crate::kata::truth::{CgroupTruth, Truth};

/// Where cgroups are mounted.
const MOUNT: &str = "sys/fs/cgroup";

/// The host's disk.
const DISK: &str = "254:0";

/// A file and its content.
type File = (&'static str, String);

/// Makes the directories with what never changes.
pub(in crate::kata) fn make(root: &Tree, facts: &Facts, truth: &Truth) -> anyhow::Result<()> {
    for cgroup in cgroups(truth) {
        match facts.host {
            HostCgroup::V2 => {
                let directory = format!("{MOUNT}{}", cgroup.path);
                root.directory(&directory)?;
                write(root, &directory, v2_fixed(cgroup))?;
            }
            HostCgroup::V1 => {
                for (hierarchy, _) in V1_HIERARCHIES {
                    let directory = format!("{MOUNT}/{hierarchy}{}", cgroup.path);
                    root.directory(&directory)?;
                    write(root, &directory, v1_fixed(hierarchy, cgroup, moved_threads(facts, &cgroup.path)))?;
                }
            }
        }
    }
    rewrite(root, facts.host, truth)
}

/// Writes what has changed.
pub(in crate::kata) fn rewrite(root: &Tree, host: HostCgroup, truth: &Truth) -> anyhow::Result<()> {
    for cgroup in cgroups(truth) {
        match host {
            HostCgroup::V2 => write(root, &format!("{MOUNT}{}", cgroup.path), v2_moving(cgroup))?,
            HostCgroup::V1 => {
                for (hierarchy, _) in V1_HIERARCHIES {
                    let directory = format!("{MOUNT}/{hierarchy}{}", cgroup.path);
                    write(root, &directory, v1_moving(hierarchy, cgroup))?;
                }
            }
        }
    }
    Ok(())
}

/// Removes the directories, as when the pod is gone.
pub(in crate::kata) fn remove(root: &Tree, host: HostCgroup, truth: &Truth) {
    for cgroup in cgroups(truth) {
        match host {
            HostCgroup::V2 => root.remove(&format!("{MOUNT}{}", cgroup.path)),
            HostCgroup::V1 => {
                V1_HIERARCHIES.iter().for_each(|(name, _)| root.remove(&format!("{MOUNT}/{name}{}", cgroup.path)));
            }
        }
    }
}

/// Writes the classes above the pods: each the sum of what is in it.
pub(in crate::kata) fn write_classes<'a>(
    root: &Tree,
    host: HostCgroup,
    truths: impl IntoIterator<Item = &'a Truth>,
) -> anyhow::Result<()> {
    for class in classes(truths).values() {
        match host {
            HostCgroup::V2 => {
                let directory = format!("{MOUNT}{}", class.path);
                root.directory(&directory)?;
                write(root, &directory, v2_fixed(class))?;
                write(root, &directory, v2_moving(class))?;
            }
            HostCgroup::V1 => {
                for (hierarchy, _) in V1_HIERARCHIES {
                    let directory = format!("{MOUNT}/{hierarchy}{}", class.path);
                    root.directory(&directory)?;
                    write(root, &directory, v1_fixed(hierarchy, class, None))?;
                    write(root, &directory, v1_moving(hierarchy, class))?;
                }
            }
        }
    }
    Ok(())
}

fn classes<'a>(truths: impl IntoIterator<Item = &'a Truth>) -> BTreeMap<String, CgroupTruth> {
    let mut classes = BTreeMap::<String, CgroupTruth>::new();
    for truth in truths {
        let pod = &truth.host.pod_cgroup;
        let outside = truth.host.cgroups().filter(|cgroup| !cgroup.path.starts_with(&format!("{}/", pod.path)));
        for cgroup in [pod].into_iter().chain(outside) {
            let ends = cgroup.path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
            for path in ends.filter_map(|end| cgroup.path.get(..end)) {
                let class = classes.entry(path.to_owned()).or_default();
                add(class, cgroup);
                path.clone_into(&mut class.path);
            }
        }
    }
    classes
}

fn add(class: &mut CgroupTruth, cgroup: &CgroupTruth) {
    class.threads += cgroup.threads;
    class.user_us += cgroup.user_us;
    class.system_us += cgroup.system_us;
    class.anon += cgroup.anon;
    class.shmem += cgroup.shmem;
    class.inactive_file += cgroup.inactive_file;
    class.active_file += cgroup.active_file;
    class.kernel += cgroup.kernel;
    class.read_bytes += cgroup.read_bytes;
    class.write_bytes += cgroup.write_bytes;
    class.page_faults += cgroup.page_faults;
    class.cpu_waiting_us += cgroup.cpu_waiting_us;
}

fn cgroups(truth: &Truth) -> impl Iterator<Item = &CgroupTruth> {
    [&truth.host.pod_cgroup].into_iter().chain(truth.host.cgroups())
}

/// A directory that is gone stays so.
fn write(root: &Tree, directory: &str, files: Vec<File>) -> anyhow::Result<()> {
    if !root.has(directory) {
        return Ok(());
    }
    files.iter().try_for_each(|(name, content)| root.write(&format!("{directory}/{name}"), content))
}

fn lines<T: std::fmt::Display>(numbers: impl IntoIterator<Item = T>) -> String {
    // Writing to a string cannot fail.
    numbers.into_iter().fold(String::new(), |mut text, number| {
        writeln!(text, "{number}").ok();
        text
    })
}

fn or_max(limit: Option<u64>) -> String {
    limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string())
}

fn v2_fixed(cgroup: &CgroupTruth) -> Vec<File> {
    let quiet = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
    vec![
        ("cgroup.controllers", "cpuset cpu io memory hugetlb pids\n".to_owned()),
        ("cgroup.events", format!("populated {}\nfrozen 0\n", u8::from(!cgroup.pids.is_empty()))),
        ("cgroup.procs", lines(&cgroup.pids)),
        ("cpu.max", format!("{} 100000\n", or_max(cgroup.cpu_quota))),
        ("cpu.weight", "20\n".to_owned()),
        ("hugetlb.2MB.current", "0\n".to_owned()),
        ("io.pressure", quiet.to_owned()),
        ("memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n".to_owned()),
        ("memory.max", format!("{}\n", or_max(cgroup.memory_limit))),
        ("memory.min", "0\n".to_owned()),
        ("memory.pressure", quiet.to_owned()),
        ("memory.swap.current", "0\n".to_owned()),
        ("memory.swap.max", "max\n".to_owned()),
        ("pids.current", format!("{}\n", cgroup.threads)),
        ("pids.max", "max\n".to_owned()),
    ]
}

fn v2_moving(cgroup: &CgroupTruth) -> Vec<File> {
    let (user, system) = (cgroup.user_us, cgroup.system_us);
    let waiting = cgroup.cpu_waiting_us;
    vec![
        (
            "cpu.stat",
            format!(
                "usage_usec {}\nuser_usec {user}\nsystem_usec {system}\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n\
                 nr_bursts 0\nburst_usec 0\n",
                user + system
            ),
        ),
        (
            "cpu.pressure",
            format!(
                "some avg10=0.00 avg60=0.00 avg300=0.00 total={waiting}\n\
                 full avg10=0.00 avg60=0.00 avg300=0.00 total={}\n",
                waiting / 10
            ),
        ),
        ("io.stat", v2_io(cgroup)),
        ("memory.current", format!("{}\n", cgroup.memory_current())),
        ("memory.peak", format!("{}\n", cgroup.memory_current() + (1 << 20))),
        ("memory.stat", v2_memory_stat(cgroup)),
    ]
}

/// Empty where nothing was read or written.
fn v2_io(cgroup: &CgroupTruth) -> String {
    let (read, written) = (cgroup.read_bytes, cgroup.write_bytes);
    if read + written == 0 {
        return String::new();
    }
    format!("{DISK} rbytes={read} wbytes={written} rios={} wios={} dbytes=0 dios=0\n", read / 4096, written / 4096)
}

fn v2_memory_stat(cgroup: &CgroupTruth) -> String {
    let keys = [
        ("anon", cgroup.anon),
        ("file", cgroup.file()),
        ("kernel", cgroup.kernel),
        ("kernel_stack", cgroup.kernel / 16 / 4096 * 4096),
        ("pagetables", cgroup.kernel / 8 / 4096 * 4096),
        ("percpu", 0),
        ("sock", 0),
        ("vmalloc", 0),
        ("shmem", cgroup.shmem),
        // Guest memory is mapped by the hypervisor.
        ("file_mapped", cgroup.shmem),
        ("file_dirty", 0),
        ("file_writeback", 0),
        ("swapcached", 0),
        ("anon_thp", 0),
        ("file_thp", 0),
        ("shmem_thp", 0),
        ("inactive_anon", cgroup.anon),
        ("active_anon", cgroup.shmem),
        ("inactive_file", cgroup.inactive_file),
        ("active_file", cgroup.active_file),
        ("unevictable", 0),
        ("slab_reclaimable", cgroup.kernel / 2),
        ("slab_unreclaimable", cgroup.kernel / 8),
        ("slab", cgroup.kernel / 2 + cgroup.kernel / 8),
        ("workingset_refault_anon", 0),
        ("workingset_refault_file", 0),
        ("pgscan", 0),
        ("pgsteal", 0),
        ("pgfault", cgroup.page_faults),
        ("pgmajfault", 1),
    ];
    lines(keys.map(|(key, value)| format!("{key} {value}")))
}

/// On v1 a split sandbox's own cgroup has the threads of the virtual CPUs alone.
pub(super) fn moved_threads(facts: &Facts, path: &str) -> Option<Vec<u32>> {
    let split = facts.placement.overhead.is_some() && path == facts.placement.sandbox;
    let vcpus = u32::try_from(facts.plan.vcpus).unwrap_or(u32::MAX);
    split.then(|| (1..=vcpus).map(|number| facts.pids.hypervisor + number).collect())
}

/// `moved` are threads that are in the cgroup without the rest of their process.
fn v1_fixed(hierarchy: &str, cgroup: &CgroupTruth, moved: Option<Vec<u32>>) -> Vec<File> {
    let no_limit = 9_223_372_036_854_771_712_u64;
    let limit = format!("{}\n", cgroup.memory_limit.unwrap_or(no_limit));
    let procs = lines(&cgroup.pids);
    let tasks = moved.map_or_else(|| procs.clone(), lines);
    let mut files = vec![("cgroup.clone_children", "0\n".to_owned()), ("cgroup.procs", procs), ("tasks", tasks)];
    let own: Vec<File> = match hierarchy {
        "cpu,cpuacct" => vec![
            ("cpu.cfs_period_us", "100000\n".to_owned()),
            ("cpu.cfs_quota_us", cgroup.cpu_quota.map_or_else(|| "-1\n".to_owned(), |quota| format!("{quota}\n"))),
            ("cpu.shares", "512\n".to_owned()),
            ("cpu.stat", "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n".to_owned()),
        ],
        "memory" => vec![
            ("memory.failcnt", "0\n".to_owned()),
            ("memory.limit_in_bytes", limit.clone()),
            ("memory.memsw.limit_in_bytes", limit),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n".to_owned()),
            ("memory.soft_limit_in_bytes", format!("{no_limit}\n")),
            ("memory.use_hierarchy", "1\n".to_owned()),
        ],
        "pids" => {
            vec![("pids.current", format!("{}\n", cgroup.threads)), ("pids.max", "max\n".to_owned())]
        }
        "hugetlb" => vec![
            ("hugetlb.2MB.usage_in_bytes", "0\n".to_owned()),
            ("hugetlb.2MB.max_usage_in_bytes", "0\n".to_owned()),
            ("hugetlb.2MB.failcnt", "0\n".to_owned()),
        ],
        _ => Vec::new(),
    };
    files.extend(own);
    files
}

fn v1_moving(hierarchy: &str, cgroup: &CgroupTruth) -> Vec<File> {
    match hierarchy {
        "cpu,cpuacct" => vec![
            ("cpuacct.usage", format!("{}\n", cgroup.cpu_us() * 1000)),
            ("cpuacct.stat", format!("user {}\nsystem {}\n", cgroup.user_us / 10_000, cgroup.system_us / 10_000)),
        ],
        "memory" => vec![
            ("memory.kmem.usage_in_bytes", format!("{}\n", cgroup.kernel)),
            ("memory.max_usage_in_bytes", format!("{}\n", cgroup.memory_current() + (1 << 20))),
            ("memory.memsw.usage_in_bytes", format!("{}\n", cgroup.memory_current())),
            ("memory.stat", v1_memory_stat(cgroup)),
            ("memory.usage_in_bytes", format!("{}\n", cgroup.memory_current())),
        ],
        "blkio" => {
            let (read, written) = (cgroup.read_bytes, cgroup.write_bytes);
            vec![
                ("blkio.throttle.io_service_bytes_recursive", v1_io(read, written)),
                ("blkio.throttle.io_serviced_recursive", v1_io(read / 4096, written / 4096)),
            ]
        }
        _ => Vec::new(),
    }
}

fn v1_io(read: u64, written: u64) -> String {
    let total = read + written;
    let ops = [("Read", read), ("Write", written), ("Sync", total), ("Async", 0), ("Discard", 0), ("Total", total)];
    lines(ops.map(|(op, value)| format!("{DISK} {op} {value}"))) + &format!("Total {total}\n")
}

fn v1_memory_stat(cgroup: &CgroupTruth) -> String {
    let keys = [
        ("cache", cgroup.file()),
        ("rss", cgroup.anon),
        ("rss_huge", 0),
        ("shmem", cgroup.shmem),
        ("mapped_file", cgroup.shmem),
        ("dirty", 0),
        ("writeback", 0),
        ("swap", 0),
        ("pgpgin", cgroup.page_faults),
        ("pgpgout", cgroup.page_faults / 2),
        ("pgfault", cgroup.page_faults),
        ("pgmajfault", 1),
        ("inactive_anon", cgroup.anon),
        ("active_anon", cgroup.shmem),
        ("inactive_file", cgroup.inactive_file),
        ("active_file", cgroup.active_file),
        ("unevictable", 0),
    ];
    let own = keys.map(|(key, value)| format!("{key} {value}"));
    let limits =
        ["hierarchical_memory_limit", "hierarchical_memsw_limit"].map(|key| format!("{key} 9223372036854771712"));
    let total = keys.map(|(key, value)| format!("total_{key} {value}"));
    lines(own.iter().chain(&limits).chain(&total))
}
