//! What a sandbox's state file tells: `persist.json` of Go's runtime, `state.json` of Rust's.
//!
//! Both hold the hypervisor's whole configuration besides; what is not wanted is skipped while reading and never kept.
//! Everything in them is a hint: Rust's runtime leaves the pids out, writes the file only once the machine is up, and
//! names an overhead cgroup even when it uses none.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::collect::kata::json::{If, Object};
use crate::model::guest::Hypervisor;
use crate::model::inventory::KataRuntime;

/// Largest file read. Real ones are 5 kB (Rust) and up to a few 10 kB (Go, by the number of containers).
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Facts of a state file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxState {
    /// Kata's name of the hypervisor: `qemu`, `clh`.
    pub hypervisor_type: Option<String>,
    /// The VMM's pid; Go only. With a remote hypervisor it is the shim's own.
    pub vmm_pid: Option<u32>,
    /// virtiofsd's pid; Go only.
    pub virtiofsd_pid: Option<u32>,
    /// How to reach the agent; Go only.
    pub agent_url: Option<String>,
    /// Cgroup of the sandbox as the runtime writes it, a path or `slice:prefix:name`.
    pub cgroup: Option<String>,
    /// Cgroup of what is kept out of it; `None` when nothing is.
    pub overhead_cgroup: Option<String>,
    /// All processes are in the sandbox's cgroup.
    pub sandbox_cgroup_only: Option<bool>,
}

impl SandboxState {
    /// The hypervisor, if its name is known here.
    pub fn hypervisor(&self) -> Option<Hypervisor> {
        self.hypervisor_type.as_deref().and_then(Hypervisor::from_kata_name)
    }
}

/// A state file gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// It is absent or cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not the JSON it should be.
    #[error("parse {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It is larger than any real one.
    #[error("{path} is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

impl StateFileError {
    /// There is no such file (yet), or no longer.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads the state file in a sandbox's directory.
pub fn read(runtime: KataRuntime, sandbox_dir: &Path) -> Result<SandboxState, StateFileError> {
    let path = sandbox_dir.join(match runtime {
        KataRuntime::Go => "persist.json",
        KataRuntime::Rs => "state.json",
    });
    let file = open_regular(&path).map_err(|source| StateFileError::Read { path: path.clone(), source })?;
    let mut bounded = file.take(MAX_FILE_BYTES);
    let parsed = match runtime {
        KataRuntime::Go => parse_go(BufReader::new(&mut bounded)),
        KataRuntime::Rs => parse_rust(BufReader::new(&mut bounded)),
    };
    if bounded.limit() == 0 {
        return Err(StateFileError::TooLarge { path });
    }
    parsed.map_err(|source| {
        if source.is_io() {
            StateFileError::Read { path, source: source.into() }
        } else {
            StateFileError::Parse { path, source }
        }
    })
}

/// A regular file; anything else could keep us waiting.
fn open_regular(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let file = File::from(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

/// Parses `persist.json`:
/// `{"SandboxCgroupPath":"…","HypervisorState":{"Type":"clh","Pid":123,…},"AgentState":{"URL":"…"},"Config":{…},…}`
pub fn parse_go(content: impl Read) -> Result<SandboxState, serde_json::Error> {
    #[derive(Deserialize, Default)]
    #[serde(default, rename_all = "PascalCase")]
    struct Document {
        hypervisor_state: Object<HypervisorState>,
        agent_state: Object<AgentState>,
        sandbox_cgroup_path: If<String>,
        overhead_cgroup_path: If<String>,
        config: Object<Config>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default, rename_all = "PascalCase")]
    struct HypervisorState {
        r#type: If<String>,
        pid: If<u64>,
        virtiofs_daemon_pid: If<u64>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct AgentState {
        #[serde(rename = "URL")]
        url: If<String>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default, rename_all = "PascalCase")]
    struct Config {
        sandbox_cgroup_only: If<bool>,
    }
    let Object(document) = serde_json::from_reader(content)?;
    let Document { hypervisor_state, agent_state, sandbox_cgroup_path, overhead_cgroup_path, config } = document;
    let Object(HypervisorState { r#type, pid, virtiofs_daemon_pid }) = hypervisor_state;
    Ok(SandboxState {
        hypervisor_type: text(r#type),
        vmm_pid: live(pid),
        virtiofsd_pid: live(virtiofs_daemon_pid),
        agent_url: text(agent_state.0.url),
        cgroup: text(sandbox_cgroup_path),
        overhead_cgroup: text(overhead_cgroup_path),
        sandbox_cgroup_only: config.0.sandbox_cgroup_only.0,
    })
}

/// Parses `state.json`:
/// `{"hypervisor":{"hypervisor_type":"clh","pid":null,…},"resource":{"cgroup_state":{"path":"…",…},…},…}`
pub fn parse_rust(content: impl Read) -> Result<SandboxState, serde_json::Error> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Document {
        hypervisor: Object<HypervisorState>,
        resource: Object<Resource>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct HypervisorState {
        hypervisor_type: If<String>,
        pid: If<u64>,
        virtiofs_daemon_pid: If<u64>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Resource {
        cgroup_state: Object<CgroupState>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct CgroupState {
        path: If<String>,
        overhead_path: If<String>,
        sandbox_cgroup_only: If<bool>,
    }
    let Object(Document { hypervisor, resource }) = serde_json::from_reader(content)?;
    let Object(HypervisorState { hypervisor_type, pid, virtiofs_daemon_pid }) = hypervisor;
    let Object(CgroupState { path, overhead_path, sandbox_cgroup_only }) = resource.0.cgroup_state;
    let unused = sandbox_cgroup_only.0 == Some(true);
    Ok(SandboxState {
        hypervisor_type: text(hypervisor_type),
        vmm_pid: live(pid),
        virtiofsd_pid: live(virtiofs_daemon_pid),
        agent_url: None,
        cgroup: text(path),
        overhead_cgroup: text(overhead_path).filter(|_| !unused),
        sandbox_cgroup_only: sandbox_cgroup_only.0,
    })
}

fn text(value: If<String>) -> Option<String> {
    value.0.filter(|text| !text.is_empty())
}

fn live(pid: If<u64>) -> Option<u32> {
    pid.0.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0)
}

/// A file that holds one pid, with or without a line feed: `shim.pid` of a bundle, `root/virtiofsd.sock.pid`. `None`
/// when it is absent or holds anything else.
pub fn read_pid(path: &Path) -> Option<u32> {
    let mut content = Vec::new();
    open_regular(path).ok()?.take(32).read_to_end(&mut content).ok()?;
    let pid = crate::collect::cgroup::parse::number(content.trim_ascii())?;
    u32::try_from(pid).ok().filter(|pid| *pid != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::kata::fixtures::{IDLE, WEB, recorded, unpacked};

    const SANDBOX: &str = "5f3c1d7a9b2e4c6d8f0a1b3c5d7e9f1a2b4c6d8e0f1a3b5c7d9e1f2a4b6c8d0e";

    #[test]
    fn a_real_state_of_runtime_rs() {
        let state =
            parse_rust(&unpacked(include_bytes!("../../../tests/fixtures/kata/state-clh.json.gz"))[..]).unwrap();
        let pod = "kubepods/burstable/pod0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
        let expected = SandboxState {
            hypervisor_type: Some("clh".into()),
            cgroup: Some(format!("{pod}/{SANDBOX}")),
            overhead_cgroup: Some(format!("kata_overhead/{SANDBOX}")),
            sandbox_cgroup_only: Some(false),
            ..SandboxState::default()
        };
        assert_eq!(state, expected);
        assert_eq!(state.hypervisor(), Some(Hypervisor::CloudHypervisor));
        let qemu =
            parse_rust(&unpacked(include_bytes!("../../../tests/fixtures/kata/state-qemu.json.gz"))[..]).unwrap();
        assert_eq!(qemu.hypervisor(), Some(Hypervisor::Qemu));
    }

    /// In the recording `kata-web` names an overhead cgroup that does not exist.
    #[test]
    fn an_overhead_cgroup_that_is_not_used_is_not_told() {
        let unused = br#"{"resource":{"cgroup_state":{"path":"p/s","overhead_path":"kata_overhead/s","sandbox_cgroup_only":true}}}"#;
        let state = parse_rust(&unused[..]).unwrap();
        assert_eq!((state.cgroup.as_deref(), state.overhead_cgroup), (Some("p/s"), None));
    }

    #[test]
    fn a_state_of_gos_runtime() {
        let persist = br#"{"PersistVersion":2,"State":"running","SandboxContainer":"abc",
            "SandboxCgroupPath":"/kubepods/burstable/podx/kata_abc","OverheadCgroupPath":"/kata_overhead/abc",
            "CgroupPaths":{"memory":"/sys/fs/cgroup/memory/x"},"Devices":[{"ID":"1"}],
            "HypervisorState":{"BlockIndexMap":{"0":{}},"Type":"qemu","UUID":"u","APISocket":"","Bridges":null,
                "HotpluggedMemory":2048,"VirtiofsDaemonPid":4242,"Pid":4243,"PCIeRootPort":0},
            "AgentState":{"ProxyPid":0,"URL":"vsock://830455376:1024"},
            "Network":{"NetworkID":"/run/netns/x"},"Config":{"HypervisorType":"qemu","SandboxCgroupOnly":false}}"#;
        let expected = SandboxState {
            hypervisor_type: Some("qemu".into()),
            vmm_pid: Some(4243),
            virtiofsd_pid: Some(4242),
            agent_url: Some("vsock://830455376:1024".into()),
            cgroup: Some("/kubepods/burstable/podx/kata_abc".into()),
            overhead_cgroup: Some("/kata_overhead/abc".into()),
            sandbox_cgroup_only: Some(false),
        };
        assert_eq!(parse_go(&persist[..]).unwrap(), expected);
        // Firecracker fills type and pid only; blank paths and pid 0 mean none.
        let firecracker =
            br#"{"OverheadCgroupPath":"","HypervisorState":{"Type":"firecracker","Pid":7,"VirtiofsDaemonPid":0}}"#;
        let expected =
            SandboxState { hypervisor_type: Some("firecracker".into()), vmm_pid: Some(7), ..SandboxState::default() };
        assert_eq!(parse_go(&firecracker[..]).unwrap(), expected);
    }

    #[test]
    fn odd_values_cost_themselves_and_broken_files_everything() {
        let odd = br#"{"HypervisorState":{"Type":7,"Pid":"x","VirtiofsDaemonPid":-1},"SandboxCgroupPath":["a"],"AgentState":{"URL":null}}"#;
        assert_eq!(parse_go(&odd[..]).unwrap(), SandboxState::default());
        assert_eq!(parse_rust(&b"{}"[..]).unwrap(), SandboxState::default());
        for bad in ["", "[]x", "{\"hypervisor\":{\"hypervisor_type\":\"clh\"", "{\"hypervisor\":3}", "[{}]"] {
            assert!(parse_rust(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn absent_broken_and_oversized_files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(KataRuntime::Rs, dir.path()).unwrap_err().is_absent());
        let state = dir.path().join("state.json");
        std::fs::write(&state, "{").unwrap();
        assert!(matches!(read(KataRuntime::Rs, dir.path()), Err(StateFileError::Parse { .. })));
        std::fs::write(&state, r#"{"hypervisor":{"hypervisor_type":"clh"}}"#).unwrap();
        assert_eq!(read(KataRuntime::Rs, dir.path()).unwrap().hypervisor_type.as_deref(), Some("clh"));
        std::fs::write(&state, vec![b' '; 5 << 20]).unwrap();
        assert!(matches!(read(KataRuntime::Rs, dir.path()), Err(StateFileError::TooLarge { .. })));
        std::fs::write(dir.path().join("persist.json"), r#"{"HypervisorState":{"Type":"qemu"}}"#).unwrap();
        assert_eq!(read(KataRuntime::Go, dir.path()).unwrap().hypervisor_type.as_deref(), Some("qemu"));
        std::fs::remove_file(&state).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &state, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        let error = read(KataRuntime::Rs, dir.path()).unwrap_err();
        assert!(matches!(error, StateFileError::Read { .. }), "a pipe keeps nobody waiting: {error:?}");
    }

    #[test]
    fn pid_files_hold_a_pid_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        assert_eq!(read_pid(&path), None);
        for (content, pid) in [
            ("219", Some(219)),
            ("280\n", Some(280)),
            ("", None),
            ("0\n", None),
            ("-1", None),
            ("12 13", None),
            ("4294967296", None),
            ("00000000000000000000000000000000000000000000000012", None),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(read_pid(&path), pid, "{content:?}");
        }
    }

    #[test]
    fn the_recorded_sandboxes() {
        let files = recorded("root/run/");
        let idle_pod = "kubepods/burstable/podc94d1f8e-77b3-4c1b-8a25-0f3e5d9a4c02";
        let web_pod = "kubepods/burstable/pod3b7e61c0-5a0d-4f0e-9d51-6c1f0a7be201";
        for (sandbox, pod, split) in [(IDLE, idle_pod, true), (WEB, web_pod, false)] {
            let state = parse_rust(&files[&format!("t0/root/run/kata/{sandbox}/state.json")][..]).unwrap();
            assert_eq!(state.hypervisor(), Some(Hypervisor::CloudHypervisor));
            assert_eq!(state.cgroup, Some(format!("{pod}/{sandbox}")));
            assert_eq!(state.sandbox_cgroup_only, Some(!split));
            // The other one names it as well, but the directory does not exist.
            assert_eq!(state.overhead_cgroup, split.then(|| format!("kata_overhead/{sandbox}")));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_give_facts_or_an_error(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = (parse_go(&body[..]), parse_rust(&body[..]));
        }
    }
}
