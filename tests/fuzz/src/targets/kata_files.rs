//! What runtimes and hypervisors write about a sandbox: JSON and addresses.

use std::path::{Component, Path};

use kata_pulse::collect::kata::cloud_hypervisor::{Counters, parse_counters, parse_info, parse_ping};
use kata_pulse::collect::kata::gate::{Facts, ShimScrape, Verdict};
use kata_pulse::collect::kata::state_file::{parse_go, parse_rust};
use kata_pulse::model::guest::{VmState, Vmm};
use kata_pulse::model::inventory::KataRuntime;
use kata_pulse::model::snapshot::KataReport;
use kata_pulse::model::units::Bytes;
use kata_pulse::transport::Address;
use serde_json::Value;

use crate::memory::within;
use crate::page;

/// The same document by the general reader; `None` where that refuses a text that is of no interest to ours.
fn document(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice(bytes).ok()
}

/// Answers of Cloud Hypervisor.
pub fn cloud_hypervisor(body: &[u8]) {
    let (ping, info, counters) =
        within(body.len(), 60, 16 << 10, || (parse_ping(body), parse_info(body), parse_counters(body)));
    let document = document(body);
    if let (Ok(ping), Some(document)) = (&ping, &document) {
        assert_eq!(ping.pid, pid(&document["pid"]));
        assert_eq!(ping.version.is_some(), document["version"].is_string());
    }
    let mut vmm = Vmm::default();
    if let Ok(info) = info {
        if let Some(document) = &document {
            assert_eq!(info.memory, document["memory_actual_size"].as_u64().map(Bytes));
            assert_eq!(info.state == Some(VmState::Running), document["state"] == "Running");
        }
        (vmm.state, vmm.memory) = (info.state, info.memory);
    }
    if let Ok(Counters { disks, networks }) = counters {
        assert!(disks.len() + networks.len() <= 512);
        if let Some(document) = &document {
            for network in &networks {
                assert_eq!(network.receive_bytes, document[&network.device]["rx_bytes"].as_u64().map(Bytes));
            }
            for disk in &disks {
                assert_eq!(disk.read_bytes, document[&disk.device]["read_bytes"].as_u64().map(Bytes));
            }
        }
        (vmm.disks, vmm.networks) = (disks, networks);
    }
    page::of_kata(KataReport { vmm: Some(vmm), ..KataReport::default() });
}

fn pid(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0)
}

/// State files of both runtimes.
pub fn state_files(content: &[u8]) {
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let (go, rust) = within(content.len(), 60, 16 << 10, || (parse_go(content), parse_rust(content)));
    let Some(document) = document(content) else { return };
    if let Ok(state) = go {
        let hypervisor = &document["HypervisorState"];
        assert_eq!(state.hypervisor_type, text(&hypervisor["Type"]));
        assert_eq!(state.vmm_pid, pid(&hypervisor["Pid"]));
        assert_eq!(state.virtiofsd_pid, pid(&hypervisor["VirtiofsDaemonPid"]));
        assert_eq!(state.agent_url, text(&document["AgentState"]["URL"]));
        assert_eq!(state.cgroup, text(&document["SandboxCgroupPath"]));
        assert_eq!(state.sandbox_cgroup_only, document["Config"]["SandboxCgroupOnly"].as_bool());
        let _ = state.hypervisor();
    }
    if let Ok(state) = rust {
        let hypervisor = &document["hypervisor"];
        assert_eq!(state.hypervisor_type, text(&hypervisor["hypervisor_type"]));
        assert_eq!(state.vmm_pid, pid(&hypervisor["pid"]));
        assert_eq!(state.virtiofsd_pid, pid(&hypervisor["virtiofs_daemon_pid"]));
        let cgroup = &document["resource"]["cgroup_state"];
        assert_eq!(state.cgroup, text(&cgroup["path"]));
        assert_eq!(state.sandbox_cgroup_only, cgroup["sandbox_cgroup_only"].as_bool());
        let _ = state.hypervisor();
    }
}

/// Addresses of agents and shims, and what they say about the hypervisor.
pub fn addresses(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let run_dir = Path::new("/host/run");
    for address in [Address::of_agent(&text, run_dir), Address::of_task(&text, run_dir)] {
        match address {
            Ok(Address::HybridVsock(path) | Address::Unix(path)) => is_below(&path, run_dir),
            Ok(Address::Vsock(cid)) => assert!((3..u32::MAX).contains(&cid) && text.contains(&cid.to_string())),
            Err(error) => assert!(error.to_string().len() < 2000),
        }
    }
    comes_back(&text);
    for has_root in [false, true] {
        gate(&text, has_root);
    }
}

/// Nothing leads out of the run directory.
fn is_below(path: &Path, run_dir: &Path) {
    assert!(path.starts_with(run_dir) && path != run_dir, "{}", path.display());
    assert!(path.components().all(|part| !matches!(part, Component::ParentDir)), "{}", path.display());
}

/// An address that is written is read as the same.
fn comes_back(text: &str) {
    let run_dir = Path::new("/run");
    if let Ok(address @ (Address::HybridVsock(_) | Address::Vsock(_))) = Address::of_agent(text, run_dir) {
        assert_eq!(Address::of_agent(&address.to_string(), run_dir), Ok(address));
    }
    if let Ok(address) = Address::of_task(text, run_dir) {
        assert_eq!(Address::of_task(&address.to_string(), run_dir), Ok(address));
    }
}

/// A shim that is not known to survive is not asked.
fn gate(url: &str, has_root: bool) {
    let facts =
        |hypervisor_type| Facts { runtime: KataRuntime::Rs, sandbox: "abc", agent_url: url, hypervisor_type, has_root };
    let verdict = Verdict::of(&facts(None));
    if verdict == Verdict::Safe {
        let known = ["/ch-vm.sock:", "/vsock.sock:", "/kata/abc/root/kata.hvsock:"];
        assert!(url.contains("hvsock://") && known.iter().any(|socket| url.contains(socket)), "{url}");
    }
    assert!(verdict.permit(ShimScrape::Off).is_none());
    assert_eq!(verdict.permit(ShimScrape::Safe).is_some(), verdict == Verdict::Safe);
    assert_eq!(verdict.permit(ShimScrape::All).is_some(), verdict != Verdict::Unknown);
    // At odds with the state file.
    assert_ne!(Verdict::of(&facts(Some("qemu"))), Verdict::Safe);
    assert_ne!(Verdict::of(&facts(Some(""))), Verdict::Safe);
}
