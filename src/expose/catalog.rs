//! Every family the agent can serve, and every kubelet family it does not: the data behind `docs/metrics.md`.

use std::fmt::Write;

use crate::expose::families::{
    AGENT, CLAIM, CONTAINER, Group, HOST, KATA, NAMED, NODE, OOM, RESOURCE, RESOURCE_ERROR, SANDBOX, TOP, VOLUME,
    VOLUMES,
};
use crate::expose::family::{Meta, Profile};
use crate::telemetry::{Described, Telemetry};

/// A family of the kubelet that is not served, and why.
#[derive(Debug)]
pub struct Absent {
    /// Its name.
    pub name: &'static str,
    /// The reason, a sentence.
    pub why: &'static str,
}

/// Families of the kubelet's `/metrics/cadvisor` up to 1.37 that have no truthful source.
pub const ABSENT: &[Absent] = &[
    Absent { name: "container_cpu_load_average_10s", why: "The kubelet has no load reader and always exports 0." },
    Absent { name: "container_cpu_load_d_average_10s", why: "The kubelet has no load reader and always exports 0." },
    Absent {
        name: "container_health_state",
        why: "It is Docker's HEALTHCHECK, which no CRI runtime has; the kubelet always exports -1.",
    },
    Absent {
        name: "container_tasks_state",
        why: "The kubelet has no load reader and always exports five zeros per cgroup.",
    },
    Absent {
        name: "machine_nvm_avg_power_budget_watts",
        why: "It needs a library for persistent memory that the kubelet is not built with; it always exports 0.",
    },
    Absent {
        name: "machine_nvm_capacity",
        why: "It needs a library for persistent memory that the kubelet is not built with; it always exports 0.",
    },
];

/// Labels that every sample of a table carries beside the family's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// The six identity labels.
    Identity,
    /// None.
    Nothing,
}

/// Every family, in the order it is served.
pub fn families() -> Vec<(&'static Meta, Carries)> {
    let mut all: Vec<(&Meta, Carries)> = Vec::new();
    all.extend(CONTAINER.iter().map(|family| (&family.meta, Carries::Identity)));
    all.extend(NODE.iter().map(|family| (&family.meta, Carries::Nothing)));
    all.extend(OOM.iter().map(|family| (&family.meta, Carries::Nothing)));
    all.extend(SANDBOX.iter().map(|family| (&family.meta, Carries::Nothing)));
    all.extend(KATA.iter().map(|family| (&family.meta, Carries::Nothing)));
    all.extend(volume_families().map(|meta| (meta, Carries::Nothing)));
    all.extend(TOP.iter().map(|family| (&family.meta, Carries::Nothing)));
    all.extend(AGENT.iter().map(|family| (&family.meta, Carries::Nothing)));
    all.extend(HOST.iter().map(|family| (&family.meta, Carries::Nothing)));
    all
}

/// Those of them that tell of volumes.
pub fn volume_families() -> impl Iterator<Item = &'static Meta> {
    let of_volume = CLAIM.iter().chain(VOLUME).map(|family| &family.meta);
    of_volume.chain(VOLUMES.iter().map(|family| &family.meta))
}

/// Every family of `/metrics/resource`, in the order it is served. They have names in common with those of
/// [`families`], and fewer labels.
pub fn resource_families() -> impl Iterator<Item = &'static Meta> {
    RESOURCE.iter().map(|family| &family.meta).chain(RESOURCE_ERROR.iter().map(|family| &family.meta))
}

/// Whether some family from `names` is in the profile.
pub fn serves_any(profile: Profile, names: &[&str]) -> bool {
    families().iter().any(|(meta, _)| meta.profile <= profile && names.iter().any(|name| meta.name.starts_with(name)))
}

/// The reference in Markdown, as committed in `docs/metrics.md`.
pub fn markdown(telemetry: &Telemetry) -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         Generated from the metric tables in `src/expose/families/`; a test keeps this page and the tables equal.\n\
         Regenerate it with `UPDATE_GOLDEN=1 cargo test --test catalog`.\n\n\
         Types are cAdvisor's. Every `container_*` sample carries the six labels `container`, `id`, `image`, `name`, \
         `namespace` and `pod`, blank when unknown (`container_scrape_error` alone has none); the column shows what a family adds. *Profile* is the smallest \
         `--metrics-profile` that has the family: each profile has all of the one before it, in the order \
         `dashboards`, `kubelet`, `all`. A fact that the node's kernel or runtime does not give has no sample; a \
         measured zero is one.\n",
    );
    section(&mut page, "Containers, pods and the node", "container_", "");
    section(&mut page, "The machine", "machine_", "cadvisor_");
    section(&mut page, "Claims", "kubelet_", "");
    volumes(&mut page);
    section(&mut page, "The agent's own families", "kata_pulse_", "");
    processes(&mut page);
    own(&mut page, &telemetry.described());
    host(&mut page);
    resource(&mut page);
    page.push_str("\n## Families of the kubelet that are not served\n\n| Family | Why not |\n|---|---|\n");
    for Absent { name, why } in ABSENT {
        let _ = writeln!(page, "| `{name}` | {why} |");
    }
    page.push_str(
        "\n## Where the values differ from the kubelet's, on purpose\n\n\
         - Times from `/proc/diskstats` are seconds; cAdvisor divides milliseconds by 10^9.\n\
         - `container_memory_kernel_usage` on cgroup v2 is the kernel's `kernel` key; cAdvisor exports 0.\n\
         - Families without a source on the cgroup version at hand have no sample; cAdvisor exports 0.\n\
         - A container that has used no CPU yet has a sample of 0; cAdvisor leaves it out.\n\
         - Host-network pods have no network series: the node's counters are on the `/` row, once.\n\
         - Unused fallback tunnel devices (`tunl0`, `gre0`, `sit0` and their like) have no network series.\n\
         - Rows are the root, `kubepods` and its QoS classes, pods and their containers; other services' cgroups, such as \
         the kubelet's own, have none.\n\
         - Mounts of pods and containers are not repeated as filesystems of the `/` row.\n\
         - `container_start_time_seconds` of a container is the runtime's start time, not a file's.\n\
         - `container_oom_events_total` is the kernel's count for the cgroup, so it does not miss kills from before \
         the agent started; `kata_pulse_container_oom_kills_total` survives the container.\n\
         - Samples carry no timestamps, those of `/metrics/resource` apart: they are measured when they are asked for.\n",
    );
    page
}

/// The `volume` collector.
fn volumes(page: &mut String) {
    page.push_str(
        "\nServed with `--enable-collectors volume`, beside `kata_pulse_volume_*`. Figures are those of `df` in the volume. A \
         block volume has its device's size and nothing else. What has no filesystem of its own has no sample: an `emptyDir` \
         on the node's disk, `configMap`, `secret`, `projected` and `downwardAPI`. An `emptyDir` of memory has no claim, and \
         is among `kata_pulse_volume_*` as `plugin=\"empty-dir\"`; so are, with `--enable-collectors emptydir`, those on \
         disk, with the space and inodes that a walk every five minutes has found. Nothing on a node tells a claim's name: \
         without `--volume-claims`, `kata_pulse_volumes_unnamed` counts the volumes that may have one. Of \
         `kata_pulse_volumes{state}`, `silent` gave an error or no answer, `unseen` is not mounted where the agent sees it, \
         `in_guest` is in a Kata guest ([kata.md](kata.md)) and `left_out` is beyond 2048.\n",
    );
}

/// The `top` collector.
fn processes(page: &mut String) {
    page.push_str(
        "\n`kata_pulse_top_process_*` are served with `--enable-collectors top` and `--metrics-profile all`: processes of the \
         node, those of one name (`comm`) in one container together, the ten groups with most memory and the ten that use \
         most CPU time at present, and those that were among them while they are among the first twenty. A container's processes have 16 names over time, the node's own 256, and `comm=\"other\"` \
         is all further ones. Shims and virtual machines are their pod's, with a blank `container`; what runs in a guest is \
         not on the node and not among them. Without the profile `all` there is `/processes` alone, which lists single \
         processes and keeps command lines to itself.\n",
    );
}

/// What the agent counts about itself.
fn own(page: &mut String, described: &[Described]) {
    page.push_str(
        "\n## The agent about itself\n\n\
         Served with `/metrics`, beside `kata_pulse_build_info` and the usual `process_*`. Those of the container runtime \
         (`kata_pulse_cri_*`) are there once there is one to ask.\n\n| Family | Labels | Meaning |\n|---|---|---|\n",
    );
    for Described { name, help, labels } in described {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(page, "| `{name}` | {} | {help} |", labels.join(", "));
    }
}

/// The page for metrics-server.
fn resource(page: &mut String) {
    page.push_str(
        "\n## What metrics-server reads\n\n\
         Served on `/metrics/resource`, in every profile; [metrics-server.md](metrics-server.md) tells what for. These \
         samples have the labels that stand here and no others.\n\n\
         | Family | Type | Labels | Timestamp | Meaning | Source |\n|---|---|---|---|---|---|\n",
    );
    for meta in resource_families() {
        let Meta { name, kind, stamped, help, source, .. } = meta;
        let (kind, labels, stamped) = (kind.as_str(), labels(meta), if *stamped { "yes" } else { "" });
        let _ = writeln!(page, "| `{name}` | {kind} | {labels} | {stamped} | {help} | {source} |");
    }
}

fn labels(meta: &Meta) -> String {
    meta.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ")
}

/// Collectors of node_exporter that have no counterpart here and are on there, and why.
const NOT_OF_THE_HOST: &[(&str, &str)] = &[
    (
        "bcache, btrfs, xfs, zfs, nfs, nfsd, mdadm, bonding, infiniband, fibrechannel, ipvs, tapestats",
        "Storage and network hardware of particular kinds.",
    ),
    (
        "dmi, edac, hwmon, nvme, powersupplyclass, rapl, thermal_zone",
        "Hardware, which is not what a pod runs on but what a machine is.",
    ),
    ("entropy, selinux, schedstat, udp_queues", "No dashboard or alert of the node mixin reads them."),
    ("time, timex", "Only `node_time_seconds`: whether a clock is right is asked of the time service."),
    ("textfile, systemd, runit, supervisord", "They tell of programs and not of the node."),
    (
        "`node_disk_info`, `node_disk_ata_*`, `node_disk_device_mapper_info`, `node_disk_filesystem_info`",
        "They come from udev's database, not from the kernel.",
    ),
    ("`node_nf_conntrack_stat_*`", "The limit and what is left of it say whether there is trouble."),
    ("`node_scrape_collector_*`, `node_exporter_build_info`", "They are node_exporter's about itself."),
];

/// The `node` collector.
fn host(page: &mut String) {
    section(page, "The node as a host", "node_", "");
    for Group { prefix, kind, help, source, .. } in NAMED {
        let _ = writeln!(page, "| `{prefix}*` | {} |  | dashboards | {help} | {source} |", kind.as_str());
    }
    page.push_str(
        "\nServed with `--enable-collectors node`, under node_exporter's names, types and labels. Network files are those of \
         `/proc/1/net`, the host's own namespace. Interfaces, disks and filesystems are those that node_exporter takes when \
         nobody says otherwise; `--node-exclude-interfaces`, `--node-exclude-disks`, `--node-exclude-mounts` and \
         `--node-exclude-filesystems` say otherwise. A filesystem that does not answer has `node_filesystem_device_error` \
         1, costs a scrape half a second once and is asked again when its call has returned; one that the agent's own \
         mount namespace does not show has no series. What is unknown has no sample: the speed of an interface that is down is not -125000 bytes per second.\n\n\
         | Not there | Why not |\n|---|---|\n",
    );
    for (what, why) in NOT_OF_THE_HOST {
        let _ = writeln!(page, "| {what} | {why} |");
    }
}

fn section(page: &mut String, title: &str, prefix: &str, other: &str) {
    let _ = write!(
        page,
        "\n## {title}\n\n| Family | Type | Labels | Profile | Meaning | Source |\n|---|---|---|---|---|---|\n"
    );
    let of_section = |meta: &Meta| meta.name.starts_with(prefix) || (!other.is_empty() && meta.name.starts_with(other));
    for (meta, _) in families().into_iter().filter(|(meta, _)| of_section(meta)) {
        let Meta { name, kind, help, profile, source, .. } = meta;
        let (kind, labels, profile) = (kind.as_str(), labels(meta), profile.as_str());
        let _ = writeln!(page, "| `{name}` | {kind} | {labels} | {profile} | {help} | {source} |");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::expose::family::Kind;

    /// Counters that cAdvisor named without `_total`, and gauges it named with it.
    const ODD_NAMES: [&str; 4] =
        ["container_memory_failcnt", "container_hugetlb_failcnt", "container_fs_inodes_total", "machine_dimm_count"];

    #[test]
    fn tables_follow_the_naming_rules() {
        let (mut seen, mut of_resource) = (HashSet::new(), HashSet::new());
        for (meta, _) in families() {
            assert!(seen.insert(meta.name), "{} stands twice", meta.name);
        }
        for meta in resource_families() {
            assert!(of_resource.insert(meta.name), "{} stands twice", meta.name);
        }
        let resource = resource_families().map(|meta| (meta, Carries::Nothing));
        for (meta, carries) in families().into_iter().chain(resource) {
            let name = meta.name;
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
            if !ODD_NAMES.contains(&name) {
                assert_eq!(meta.kind == Kind::Counter, name.ends_with("_total"), "{name}: counters end in _total");
            }
            assert!(
                meta.help.ends_with('.') && !meta.help.contains('\n') && meta.help.len() > 5,
                "{name}: {}",
                meta.help
            );
            assert!(!meta.source.is_empty() && !meta.source.contains('|'), "{name}: source");
            assert!(meta.labels.is_sorted() && meta.labels.windows(2).all(|w| w[0] != w[1]), "{name}: labels");
            if carries == Carries::Identity {
                let own = meta.labels.iter().filter(|l| crate::model::identity::Labels::NAMES.contains(l)).count();
                assert_eq!(own, 0, "{name}: a label stands twice");
            }
        }
        for absent in ABSENT {
            assert!(!seen.contains(absent.name), "{} is served", absent.name);
            assert!(absent.why.ends_with('.'));
        }
    }

    #[test]
    fn tables_are_sorted_by_name() {
        assert!(CONTAINER.is_sorted_by_key(|family| family.meta.name));
        assert!(NODE.is_sorted_by_key(|family| family.meta.name));
        assert!(SANDBOX.is_sorted_by_key(|family| family.meta.name));
        assert!(KATA.is_sorted_by_key(|family| family.meta.name));
        assert!(CLAIM.is_sorted_by_key(|family| family.meta.name));
        assert!(VOLUME.is_sorted_by_key(|family| family.meta.name));
        assert!(VOLUMES.is_sorted_by_key(|family| family.meta.name));
        assert!(TOP.is_sorted_by_key(|family| family.meta.name));
        assert!(AGENT.is_sorted_by_key(|family| family.meta.name));
        assert!(HOST.is_sorted_by_key(|family| family.meta.name));
        assert!(resource_families().is_sorted_by_key(|meta| meta.name));
    }
}
