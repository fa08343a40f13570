//! The targets.

mod guest;
mod kata_files;
mod kernel;
mod labels;
mod messages;
mod node;
mod requests;
mod runtime;
mod settings;
mod streams;
mod volumes;

use crate::Target;

const fn target(name: &'static str, max_len: usize, read: fn(&[u8]), about: &'static str) -> Target {
    Target { name, about, max_len, read }
}

/// All of them, sorted by name.
pub const TARGETS: &[Target] = &[
    target(
        "addresses",
        500,
        kata_files::addresses,
        "agent URLs of shims and state files, `address` of bundles; the gate",
    ),
    target(
        "agent_stats",
        4096,
        messages::agent_stats,
        "kata-agent: `StatsContainer`, `GetMetrics`, `Version` in protobuf",
    ),
    target(
        "certificates",
        4096,
        settings::certificates_of_clients,
        "PEM files, and the names in clients' certificates",
    ),
    target("cgroup_files", 4096, kernel::cgroup_files, "every file of cgroup v1 and v2 directories"),
    target("cgroup_paths", 600, kernel::cgroup_paths, "names of cgroups, `/proc/<pid>/cgroup`"),
    target(
        "cloud_hypervisor",
        8192,
        kata_files::cloud_hypervisor,
        "Cloud Hypervisor: `vmm.ping`, `vm.info`, `vm.counters` in JSON",
    ),
    target("config", 2048, settings::config, "the YAML of `--config`"),
    target(
        "cri",
        16384,
        runtime::cri,
        "CRI lists, statuses and stats, containerd's events: to rows, `/sandboxes`, page",
    ),
    target("guest_text", 16384, guest::guest_text, "the text of kata-agents and shims, read for facts"),
    target("http_answers", 8192, streams::http_answers, "HTTP servers of shims and hypervisors, byte by byte"),
    target("http_headers", 1024, requests::http_headers, "`Accept`, `Accept-Encoding`, `Authorization` of clients"),
    target(
        "http_requests",
        2048,
        requests::http_requests,
        "connections to the HTTP server, byte by byte: with and without users",
    ),
    target(
        "kubernetes_reviews",
        4096,
        settings::kubernetes_reviews,
        "the API server's TokenReview and SubjectAccessReview",
    ),
    target("labels", 12000, labels::labels, "names of everybody on their way to a page"),
    target("node", 4096, node::node, "all files of a node together, through every collector to the page"),
    target("numbers", 400, guest::numbers, "numbers as they are read and written"),
    target(
        "proc_files",
        4096,
        kernel::proc_files,
        "`/proc`: stat, status, io, meminfo, net/dev, memory of sandboxes, limits, mountinfo, diskstats",
    ),
    target("shim_passthrough", 16384, guest::shim_passthrough, "the text of shims, read to be passed on"),
    target("state_files", 8192, kata_files::state_files, "`persist.json` and `state.json` of Kata's runtimes"),
    target("task_stats", 4096, messages::task_stats, "shims: Task `Stats` in protobuf, both payload types"),
    target("ttrpc", 4096, streams::ttrpc, "kata-agents and shims behind a socket, byte by byte"),
    target(
        "volumes",
        4096,
        volumes::volumes,
        "the kubelet's `vol_data.json`, the API server's PersistentVolume, `/proc`: mountinfo and partitions for volumes",
    ),
    target("web_config", 4096, settings::web_config, "the YAML of `--web-config`, to what is in force"),
];
