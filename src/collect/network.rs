//! The `network` collector: interface counters of the node and of each pod's network namespace.
//!
//! A pod's counters come from `/proc/<pid>/net/dev` of one of its processes, held open. The open descriptor belongs to
//! the namespace, not to the process: it survives the process and cannot be led astray when the pid is used again. It
//! also keeps the namespace alive, so [`Collector::forget`] must run when a pod goes, scraped or not.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::collect::cgroup::parse::{self, ParseError};
use crate::collect::exclude::Exclude;
use crate::collect::held::{Budget, HeldFile, Reader};
use crate::collect::procs::Procs;
use crate::collect::{CollectError, Collector, Draft, Roots};
use crate::model::identity::CgroupPath;
use crate::model::inventory::{Inventory, Network};
use crate::model::units::Bytes;
use crate::model::usage::{Interface, Traffic};

/// Most interfaces reported per namespace: a namespace full of made-up ones must not flood the scrape.
const MAX_INTERFACES: usize = 128;

/// Interfaces that are plumbing: cAdvisor leaves these out, and so do we.
const PLUMBING: [&str; 4] = ["lo", "veth", "docker", "nerdctl"];

/// Devices the kernel makes in every namespace when a tunnel module is loaded. Left out while nothing has used them.
const FALLBACK_TUNNELS: [&str; 9] =
    ["tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"];

/// Parses `/proc/<pid>/net/dev`, without plumbing and what is excluded.
///
/// ```text
/// Inter-|   Receive                                                |  Transmit
///  face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
///   eth0: 3954423    2713    0    0    0     0          0         0    83058    1219    0    0    0     0       0          0
/// ```
pub fn net_dev(content: &[u8], exclude: &Exclude) -> Result<Vec<Interface>, ParseError> {
    let mut interfaces = Vec::new();
    for line in content.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let Ok(name) = std::str::from_utf8(line[..colon].trim_ascii()) else { continue };
        let lower = name.to_ascii_lowercase();
        // The tap of a Kata pod mirrors its eth0 with the directions swapped.
        let mirror = lower.starts_with("tap") && lower.ends_with("_kata");
        if mirror || PLUMBING.iter().any(|prefix| lower.starts_with(prefix)) || exclude.has(name) {
            continue;
        }
        let mut columns = [0u64; 16];
        let mut words = line[colon + 1..].split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
        for column in &mut columns {
            *column = words.next().and_then(parse::number).ok_or(ParseError("net/dev"))?;
        }
        if FALLBACK_TUNNELS.contains(&name) && columns.iter().all(|column| *column == 0) {
            continue;
        }
        if interfaces.iter().any(|known: &Interface| known.name == name) {
            continue;
        }
        if interfaces.len() == MAX_INTERFACES {
            break;
        }
        let traffic = |at: usize| Traffic {
            bytes: Bytes(columns[at]),
            packets: columns[at + 1],
            errors: columns[at + 2],
            dropped: columns[at + 3],
        };
        interfaces.push(Interface { name: name.to_owned(), receive: traffic(0), transmit: traffic(8) });
    }
    Ok(interfaces)
}

/// Reads the namespaces of the inventory's rows.
#[derive(Debug)]
pub struct Networks {
    procs: Procs,
    reader: Reader,
    exclude: Exclude,
    held: HashMap<String, Namespace>,
}

#[derive(Debug)]
struct Namespace {
    dir: PathBuf,
    dev: HeldFile,
    /// It is the node's: the counters belong to the `/` row alone.
    of_node: bool,
}

impl Networks {
    /// A collector that has read nothing yet.
    pub fn new(roots: Arc<Roots>, budget: Arc<Budget>, exclude: Exclude) -> Self {
        Self { procs: Procs::new(roots), reader: Reader::new(budget), exclude, held: HashMap::new() }
    }

    /// Opens the namespace of the first process found in `cgroups`.
    fn open(&mut self, cgroups: &[CgroupPath]) -> Option<Namespace> {
        for cgroup in cgroups {
            let Some(pid) = self.procs.of(cgroup.as_str()).into_iter().next() else { continue };
            let namespace = self.namespace_of(pid)?;
            // Between the two looks the process may have ended and its pid may be another's by now.
            if self.procs.holds(cgroup.as_str(), pid) {
                return Some(namespace);
            }
        }
        None
    }

    fn namespace_of(&mut self, pid: u32) -> Option<Namespace> {
        let dir = self.procs.proc().join(pid.to_string()).join("net");
        let mut dev = HeldFile::default();
        self.reader.parse(&mut dev, &dir, "dev", |_| Ok(())).ok()??;
        let of_node = pid != 1 && same_file(&dir.join("dev"), &self.procs.proc().join("1/net/dev"));
        Some(Namespace { dir, dev, of_node })
    }

    fn read(&mut self, key: &str, network: &Network) -> Vec<Interface> {
        if !self.held.contains_key(key) {
            let opened = match network {
                Network::None => None,
                Network::Node => self.namespace_of(1),
                Network::Pod(cgroups) => self.open(cgroups),
            };
            let Some(namespace) = opened else { return Vec::new() };
            self.held.insert(key.to_owned(), namespace);
        }
        let Some(Namespace { dir, dev, of_node }) = self.held.get_mut(key) else { return Vec::new() };
        if *of_node {
            return Vec::new();
        }
        match self.reader.parse(dev, dir, "dev", |content| net_dev(content, &self.exclude)) {
            Ok(Some(interfaces)) => interfaces,
            // The process is gone and the file was not held: look for another process next time.
            Ok(None) | Err(_) => {
                self.held.remove(key);
                Vec::new()
            }
        }
    }
}

/// Two paths of procfs lead to the same file. Each network namespace has inodes of its own for `net/…`, so this tells
/// whether two processes share one, without the privilege that reading `ns/net` takes.
pub fn same_file(one: &Path, other: &Path) -> bool {
    match (std::fs::metadata(one), std::fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

impl Collector for Networks {
    fn name(&self) -> &'static str {
        "network"
    }

    fn collect(&mut self, draft: &mut Draft) -> Result<(), CollectError> {
        for row in draft.rows.iter_mut().filter(|row| !row.gone && row.subject.network != Network::None) {
            let subject = Arc::clone(&row.subject);
            row.usage.network = self.read(subject.key(), &subject.network);
        }
        self.reader.take_fault().map_or(Ok(()), |fault| Err(CollectError::Read(fault)))
    }

    fn forget(&mut self, inventory: &Inventory) {
        let live: std::collections::HashSet<&str> = inventory.subjects.iter().map(|subject| subject.key()).collect();
        self.held.retain(|key, _| live.contains(key.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n";

    #[test]
    fn plumbing_and_unused_tunnels_are_left_out_and_true_zeros_kept() {
        let text = format!(
            "{HEADER}    lo: 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9\n  eth0: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n veth1: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n tunl0: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n  gre0: 0 0 0 0 0 0 0 0 1 0 0 0 0 0 0 0\ntap0_kata: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n"
        );
        let names: Vec<String> =
            net_dev(text.as_bytes(), &Exclude::default()).unwrap().into_iter().map(|i| i.name).collect();
        assert_eq!(names, ["eth0", "gre0"]);
    }

    #[test]
    fn columns_are_the_kernels() {
        let text = format!("{HEADER}  eth0:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n");
        let found = net_dev(text.as_bytes(), &Exclude::default()).unwrap();
        assert_eq!(found[0].receive, Traffic { bytes: Bytes(1), packets: 2, errors: 3, dropped: 4 });
        assert_eq!(found[0].transmit, Traffic { bytes: Bytes(9), packets: 10, errors: 11, dropped: 12 });
        assert_eq!(net_dev(b"eth0: 1 2 3\n", &Exclude::default()), Err(ParseError("net/dev")));
    }

    #[test]
    fn what_is_excluded_makes_room() {
        let many = (0..200).map(|n| format!("lxc{n}: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n"));
        let text: String = many.chain(["eth0: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n".to_owned()]).collect();
        let found = net_dev(text.as_bytes(), &Exclude::new("^lxc").unwrap()).unwrap();
        assert_eq!(found.iter().map(|interface| interface.name.as_str()).collect::<Vec<_>>(), ["eth0"]);
    }

    #[test]
    fn a_flood_of_interfaces_is_cut() {
        let many: String = (0..1000).map(|n| format!("e{n}: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n")).collect();
        assert_eq!(net_dev(many.as_bytes(), &Exclude::default()).unwrap().len(), MAX_INTERFACES);
    }
}
