//! The files of a whole node at once, through every collector to the page.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use kata_pulse::collect::cgroup::layout::Layout;
use kata_pulse::collect::cgroup::{Hugepages, Wanted};
use kata_pulse::collect::exclude::Exclude;
use kata_pulse::collect::held::Budget;
use kata_pulse::collect::oom::Ledger;
use kata_pulse::collect::writable_layer::WritableLayers;
use kata_pulse::collect::{COLLECTORS, Collection, Options, Roots, node, volume};
use kata_pulse::discover::assemble::{Assembler, Evidence, Scope};
use kata_pulse::discover::cgroups::Tree;
use kata_pulse::discover::runtime_view::RuntimeView;
use kata_pulse::model::inventory::Inventory;

use crate::host::Host;
use crate::page;

/// A pod and its container, below the roots of both cgroup versions.
const CONTAINER: &str = "kubepods/pod1/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// Files of a cgroup v2 node that the input may fill, by the name that it gives.
const V2: [&str; 30] = [
    "cgroup.procs",
    "cpu.max",
    "cpu.pressure",
    "cpu.stat",
    "cpu.weight",
    "hugetlb.2MB.current",
    "hugetlb.2MB.events",
    "io.pressure",
    "io.stat",
    "memory.current",
    "memory.events",
    "memory.max",
    "memory.min",
    "memory.peak",
    "memory.pressure",
    "memory.stat",
    "memory.swap.current",
    "memory.swap.max",
    "pids.current",
    "pids.max",
    "proc/1/limits",
    "proc/1/mountinfo",
    "proc/1/net/dev",
    "proc/77/cgroup",
    "proc/77/cmdline",
    "proc/77/stat",
    "proc/uptime",
    "proc/diskstats",
    "proc/meminfo",
    "proc/cpuinfo",
];

/// The same of cgroup v1, with the controller in front.
const V1: [&str; 28] = [
    "blkio/blkio.bfq.io_service_bytes_recursive",
    "blkio/blkio.throttle.io_service_bytes",
    "blkio/blkio.throttle.io_serviced",
    "cpu,cpuacct/cpu.cfs_period_us",
    "cpu,cpuacct/cpu.cfs_quota_us",
    "cpu,cpuacct/cpu.shares",
    "cpu,cpuacct/cpu.stat",
    "cpu,cpuacct/cpuacct.stat",
    "cpu,cpuacct/cpuacct.usage",
    "hugetlb/hugetlb.2MB.failcnt",
    "hugetlb/hugetlb.2MB.usage_in_bytes",
    "memory/cgroup.procs",
    "memory/memory.failcnt",
    "memory/memory.kmem.usage_in_bytes",
    "memory/memory.limit_in_bytes",
    "memory/memory.max_usage_in_bytes",
    "memory/memory.memsw.limit_in_bytes",
    "memory/memory.oom_control",
    "memory/memory.soft_limit_in_bytes",
    "memory/memory.stat",
    "memory/memory.usage_in_bytes",
    "memory/memory.use_hierarchy",
    "pids/pids.current",
    "pids/pids.max",
    "proc/stat",
    "etc/os-release",
    "sys/class/dmi/id/product_uuid",
    "sys/devices/system/edac/mc/mc0/dimm0/size",
];

thread_local! {
    static NODES: RefCell<[Node; 2]> = RefCell::new([Node::new(Host::v2(), &V2, ""), Node::new(v1(), &V1, "memory")]);
}

/// A node, the files that inputs may fill, and what they held before.
struct Node {
    host: Host,
    names: &'static [&'static str],
    before: BTreeMap<PathBuf, Option<Vec<u8>>>,
    inventory: Arc<Inventory>,
}

fn v1() -> Host {
    let host = Host::bare();
    for name in V1 {
        if let Some((controller, file)) = name.split_once('/').filter(|_| !is_of_node(name)) {
            for cgroup in ["", CONTAINER] {
                host.write(&format!("sys/fs/cgroup/{controller}/{cgroup}/{file}"), "");
            }
        }
    }
    host
}

fn is_of_node(name: &str) -> bool {
    ["proc/", "etc/", "sys/"].iter().any(|prefix| name.starts_with(prefix))
}

impl Node {
    fn new(host: Host, names: &'static [&'static str], hierarchy: &str) -> Self {
        if hierarchy.is_empty() {
            host.v2_cgroup(CONTAINER);
            host.v2_process(CONTAINER, 77, &[("eth0", 100)]);
        }
        host.write("var/lib/kubelet/pods/.made", "");
        host.write("sys/devices/system/edac/mc/mc0/dimm0/dimm_mem_type", "Unbuffered-DDR4\n");
        let mut tree = Tree::new(host.path("sys/fs/cgroup").join(hierarchy));
        let found = tree.walk(true).expect("the tree can be walked");
        let evidence = Evidence {
            view: &RuntimeView::default(),
            runtime_answers: false,
            found: &found,
            kata: &Default::default(),
        };
        let assembled = Assembler::new(Scope::All).assemble(&evidence, &Inventory::default(), Instant::now());
        let inventory = Arc::new(assembled.inventory);
        assert!(inventory.subjects.len() >= 3, "root, pod and container");
        Self { host, names, before: BTreeMap::new(), inventory }
    }

    /// Where a file of this name lies.
    fn path(&self, name: &str) -> PathBuf {
        if is_of_node(name) {
            return self.host.path(name);
        }
        let (controller, file) = name.split_once('/').unwrap_or(("", name));
        self.host.path("sys/fs/cgroup").join(controller).join(CONTAINER).join(file)
    }

    /// Fills files as the input says: `@<name>` on a line of its own, and its content behind it.
    fn fill(&mut self, input: &[u8]) {
        let mut rest = input;
        while let Some(at) = rest.iter().position(|byte| *byte == b'@') {
            let section = &rest[at + 1..];
            let end = section.iter().position(|byte| *byte == b'@').unwrap_or(section.len());
            let (section, after) = section.split_at(end);
            rest = after;
            let Some(line) = section.iter().position(|byte| *byte == b'\n') else { continue };
            let name = self.names.iter().find(|name| name.as_bytes() == &section[..line]);
            if let Some(name) = name {
                let path = self.path(name);
                self.before.entry(path.clone()).or_insert_with(|| fs::read(&path).ok());
                fs::create_dir_all(path.parent().expect("a file lies in a directory")).expect("make a directory");
                fs::write(path, &section[line + 1..]).expect("write a file");
            }
        }
    }

    fn restore(&mut self) {
        for (path, content) in std::mem::take(&mut self.before) {
            match content {
                Some(content) => fs::write(path, content).expect("write a file"),
                None => fs::remove_file(path).expect("remove a file"),
            }
        }
    }

    fn collect(&self) {
        let roots = Roots {
            host: self.host.root().to_owned(),
            proc: self.host.path("proc"),
            sys: self.host.path("sys"),
            cgroup: self.host.path("sys/fs/cgroup"),
        };
        let mut collection = Collection::new(Options {
            roots: Arc::new(roots),
            budget: Budget::new(200),
            enabled: COLLECTORS.iter().map(|collector| collector.name).collect(),
            wanted: Wanted {
                io: true,
                memory_details: true,
                pressure: true,
                hugetlb: true,
                hugepages: Hugepages { sizes: vec!["2MB".to_owned()] },
            },
            layers: Arc::new(WritableLayers::default()),
            oom: Arc::new(Ledger::default()),
            process_groups: true,
            exclude_interfaces: Exclude::default(),
            node: node::Options::default(),
            volume: volume::Options {
                kubelet: self.host.path("var/lib/kubelet"),
                run_dir: self.host.path("run"),
                claims: None,
            },
        });
        let collected = collection.run(Arc::clone(&self.inventory));
        page::of(&collected.snapshot);
    }
}

/// A node. The first byte chooses the version of cgroups.
pub fn node(input: &[u8]) {
    let Some((choice, files)) = input.split_first() else { return };
    NODES.with_borrow_mut(|nodes| {
        let node = &mut nodes[usize::from(choice & 1)];
        debug_assert!(Layout::detect(&node.host.path("sys/fs/cgroup")).is_ok());
        node.fill(files);
        node.collect();
        node.restore();
    });
}
