//! Where a peer listens: the agent of a guest, or the shim of a sandbox. Pure.

use std::fmt;
use std::path::{Component, Path, PathBuf};

/// The guest port of the kata-agent, on vsock and hybrid vsock alike.
///
/// No other port is ever connected: 1025 carries the guest's log to its one reader, the shim, and 1026 a shell.
pub const AGENT_PORT: u32 = 1024;

/// Where the runtimes put their sockets, as they write it into their own files.
const RUN_DIRS: [&str; 2] = ["/run", "/var/run"];

/// Context ids below this are the hypervisor, this machine and its host: never a guest.
const FIRST_GUEST_CID: u32 = 3;

/// Longest part of a text from outside that is repeated in an error.
const MAX_QUOTE_BYTES: usize = 200;

/// A peer's address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// The Unix socket of a hypervisor that leads to the guest's vsock ports, the port being asked for on the stream
    /// (Cloud Hypervisor, Firecracker, Dragonball, OpenVMM).
    HybridVsock(PathBuf),
    /// The agent's port of a guest with this context id (QEMU, Stratovirt).
    Vsock(u32),
    /// A Unix socket that speaks ttrpc at once: a shim, or the tunnel to a guest on another machine.
    Unix(PathBuf),
}

/// Why a text is no address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing is written there: what the Rust runtime says before its agent is up.
    #[error("the address is empty")]
    Empty,
    /// Not one of the known schemes.
    #[error("{0:?} has an unknown scheme")]
    Scheme(String),
    /// A port other than the agent's, or none where one is needed.
    #[error("{0:?} does not name port 1024")]
    Port(String),
    /// The context id is not a number, or not a guest's.
    #[error("{0:?} does not name a guest")]
    Guest(String),
    /// A path that is not below `/run`, or climbs out of it.
    #[error("{0:?} is not a path below /run")]
    Path(String),
}

impl Address {
    /// From an agent URL, as a shim tells it at `/agent-url` or `persist.json` keeps it:
    /// `hvsock:///run/vc/vm/…/clh.sock:1024`, `vsock://830455376:1024`, `remote:///run/…/agent.sock`.
    ///
    /// `run_dir` is the node's `/run` as this process sees it; paths are put below it.
    pub fn of_agent(url: &str, run_dir: &Path) -> Result<Self, AddressError> {
        let url = url.trim();
        if url.is_empty() {
            return Err(AddressError::Empty);
        }
        let (scheme, rest) = url.split_once("://").ok_or_else(|| AddressError::Scheme(quote(url)))?;
        let (place, port) = split_port(rest);
        // The Rust runtime appends the port to a remote path as well, the Go runtime does not.
        if port != Some(AGENT_PORT) && (port.is_some() || scheme != "remote") {
            return Err(AddressError::Port(quote(url)));
        }
        match scheme {
            "hvsock" => rebase(place, run_dir).map(Self::HybridVsock),
            "remote" => rebase(place, run_dir).map(Self::Unix),
            "vsock" => match place.parse() {
                Ok(cid) if (FIRST_GUEST_CID..u32::MAX).contains(&cid) => Ok(Self::Vsock(cid)),
                _ => Err(AddressError::Guest(quote(url))),
            },
            _ => Err(AddressError::Scheme(quote(url))),
        }
    }

    /// From the `address` file of a container's bundle: `unix:///run/containerd/s/<SHA-256>`.
    pub fn of_task(address: &str, run_dir: &Path) -> Result<Self, AddressError> {
        let address = address.trim();
        if address.is_empty() {
            return Err(AddressError::Empty);
        }
        let path = address.strip_prefix("unix://").ok_or_else(|| AddressError::Scheme(quote(address)))?;
        rebase(path, run_dir).map(Self::Unix)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HybridVsock(path) => write!(f, "hvsock://{}:{AGENT_PORT}", path.display()),
            Self::Vsock(cid) => write!(f, "vsock://{cid}:{AGENT_PORT}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// `place:port` taken apart; no port when the last part is not a number.
fn split_port(text: &str) -> (&str, Option<u32>) {
    match text.rsplit_once(':') {
        Some((place, port)) => port.parse().map_or((text, None), |port| (place, Some(port))),
        None => (text, None),
    }
}

/// `/run/x` as `<run_dir>/x`.
fn rebase(path: &str, run_dir: &Path) -> Result<PathBuf, AddressError> {
    let below = RUN_DIRS.iter().find_map(|run| Path::new(path).strip_prefix(run).ok());
    match below {
        Some(below)
            if below.components().next().is_some()
                && below.components().all(|part| matches!(part, Component::Normal(_))) =>
        {
            Ok(run_dir.join(below))
        }
        _ => Err(AddressError::Path(quote(path))),
    }
}

fn quote(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_QUOTE_BYTES)].to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agent(url: &str) -> Result<Address, AddressError> {
        Address::of_agent(url, Path::new("/host/run"))
    }

    #[test]
    fn agent_urls_of_every_hypervisor() {
        let sandbox = "80a5e164df55df791e139e6d1c59092c4566fbdffd016b715c7ad48cdbea9e45";
        let go = format!("hvsock:///run/vc/vm/{sandbox}/clh.sock:1024\n");
        assert_eq!(agent(&go), Ok(Address::HybridVsock(format!("/host/run/vc/vm/{sandbox}/clh.sock").into())));
        let rs = format!("hvsock:///run/kata/{sandbox}/ch-vm.sock:1024");
        assert_eq!(agent(&rs), Ok(Address::HybridVsock(format!("/host/run/kata/{sandbox}/ch-vm.sock").into())));
        assert_eq!(agent("vsock://830455376:1024"), Ok(Address::Vsock(830_455_376)));
        let tunnel = Ok(Address::Unix("/host/run/peerpod/pods/x/agent.ttrpc".into()));
        assert_eq!(agent("remote:///run/peerpod/pods/x/agent.ttrpc"), tunnel);
        assert_eq!(agent("remote:///run/peerpod/pods/x/agent.ttrpc:1024"), tunnel);
    }

    #[test]
    fn other_ports_of_a_guest_are_refused() {
        for url in ["hvsock:///run/kata/a/ch-vm.sock:1025", "hvsock:///run/kata/a/ch-vm.sock", "vsock://5:1026"] {
            assert_eq!(agent(url), Err(AddressError::Port(url.into())));
        }
        assert_eq!(agent("remote:///run/x:1025"), Err(AddressError::Port("remote:///run/x:1025".into())));
    }

    #[test]
    fn what_is_no_guest_is_refused() {
        assert_eq!(agent(" \n"), Err(AddressError::Empty));
        assert_eq!(agent("tcp://1.2.3.4:1024"), Err(AddressError::Scheme("tcp://1.2.3.4:1024".into())));
        assert_eq!(agent("/run/kata/x:1024"), Err(AddressError::Scheme("/run/kata/x:1024".into())));
        for cid in ["0", "1", "2", "4294967295", "-1", "4294967296", "x"] {
            let url = format!("vsock://{cid}:1024");
            assert_eq!(agent(&url), Err(AddressError::Guest(url.clone())));
        }
        for path in ["/etc/passwd", "run/x", "/run/../etc/x", "/run", "/running/x"] {
            assert_eq!(agent(&format!("hvsock://{path}:1024")), Err(AddressError::Path(path.into())));
        }
    }

    #[test]
    fn task_addresses_are_put_below_the_nodes_run_directory() {
        let task = |text| Address::of_task(text, Path::new("/host/run"));
        assert_eq!(
            task("unix:///run/containerd/s/DBE5\n"),
            Ok(Address::Unix("/host/run/containerd/s/DBE5".into())),
            "runc shims write lower case, Kata's Rust runtime upper case"
        );
        assert_eq!(task("unix:///var/run/containerd/s/a"), Ok(Address::Unix("/host/run/containerd/s/a".into())));
        assert_eq!(task(""), Err(AddressError::Empty));
        assert_eq!(task("npipe://x"), Err(AddressError::Scheme("npipe://x".into())));
        assert_eq!(task("unix:///run/a/../../etc/x"), Err(AddressError::Path("/run/a/../../etc/x".into())));
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_below_run_or_an_error(text in "(hvsock|vsock|remote|unix)?(://)?.{0,300}") {
            for address in [agent(&text), Address::of_task(&text, Path::new("/host/run"))].into_iter().flatten() {
                if let Address::HybridVsock(path) | Address::Unix(path) = address {
                    prop_assert!(path.starts_with("/host/run"));
                    prop_assert!(!path.components().any(|part| part == Component::ParentDir));
                }
            }
        }
    }
}
