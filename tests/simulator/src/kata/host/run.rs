//! What a sandbox has below the run directory besides its sockets: directories, its state, and one bundle per
//! container.
//!
//! Paths in these files are the host's own, `/run/…`, wherever the run directory really is.

use std::path::Path;

use serde_json::{Value, json};

use super::Tree;
use crate::cri::Pod;
use crate::kata::kind::{Endpoint, Hypervisor, Runtime};
use crate::kata::layout::{Layout, Placement};
use crate::kata::model::Facts;
use crate::kata::plan::ContainerPlan;

/// How the host calls the run directory.
pub(in crate::kata) const RUN: &str = "/run";

/// Makes the sandbox's own directories and its state file.
pub(in crate::kata) fn make(run: &Tree, facts: &Facts) -> anyhow::Result<()> {
    let layout = &facts.layout;
    for directory in layout.directories() {
        run.directory(&directory)?;
    }
    match layout.runtime {
        Runtime::Go => {
            run.write(&layout.state_file(), persist(facts).to_string())?;
            pid_file(run, facts)
        }
        Runtime::Rust => {
            run.write(&layout.state_file(), state(facts).to_string())?;
            match facts.pids.virtiofsd {
                Some(pid) => run.write(&format!("{}/root/virtiofsd.sock.pid", layout.sandbox()), format!("{pid}\n")),
                None => Ok(()),
            }
        }
    }
}

/// Makes what the Go runtime notes of each of these containers.
pub(in crate::kata) fn make_notes(run: &Tree, facts: &Facts, made: &[(String, ContainerPlan)]) -> anyhow::Result<()> {
    if facts.layout.runtime == Runtime::Go {
        for (id, _) in made {
            let directory = format!("{}/{id}", facts.layout.sandbox());
            run.directory(&directory)?;
            run.write(&format!("{directory}/persist.json"), "{}")?;
        }
    }
    Ok(())
}

/// Makes the bundles of these containers and the directory of Task sockets.
pub(in crate::kata) fn make_bundles(
    run: &Tree,
    facts: &Facts,
    pod: &Pod,
    made: &[(String, ContainerPlan)],
) -> anyhow::Result<()> {
    run.directory("containerd/s")?;
    let socket = facts.layout.socket(Endpoint::Task).unwrap_or_default();
    for (id, plan) in made {
        let pause = id == facts.id();
        let bundle = Layout::bundle(id);
        run.directory(&format!("{bundle}/rootfs"))?;
        let file = |name: &str, content: &str| run.write(&format!("{bundle}/{name}"), content);
        // Without a newline.
        file("address", &format!("unix://{RUN}/{socket}"))?;
        file("config.json", &config(facts, pod, id, (!pause).then_some(&plan.name)).to_string())?;
        file("shim-binary-path", "/usr/bin/containerd-shim-kata-v2")?;
        if pause {
            file("shim.pid", &facts.pids.shim.to_string())?;
            if facts.layout.runtime == Runtime::Go {
                let monitor = facts.layout.socket(Endpoint::Shim).unwrap_or_default();
                file("monitor_address", &format!("unix://{RUN}/{monitor}"))?;
            }
        }
    }
    Ok(())
}

/// Removes the sandbox's own directories.
pub(in crate::kata) fn remove(run: &Tree, facts: &Facts) {
    facts.layout.tops().iter().for_each(|top| run.remove(top));
}

/// Removes what there is of a container: its bundle, and the Go runtime's notes.
pub(in crate::kata) fn remove_container(run: &Tree, facts: &Facts, id: &str) {
    if facts.plan.bundled {
        run.remove(&Layout::bundle(id));
    }
    if facts.layout.runtime == Runtime::Go {
        run.remove(&format!("{}/{id}", facts.layout.sandbox()));
    }
}

/// QEMU and Firecracker leave their pids beside their sockets under Go.
fn pid_file(run: &Tree, facts: &Facts) -> anyhow::Result<()> {
    let pid = facts.pids.hypervisor.to_string();
    let layout = &facts.layout;
    match layout.hypervisor {
        Hypervisor::Qemu => run.write(&format!("vc/vm/{}/pid", layout.id), pid),
        Hypervisor::Firecracker => {
            let socket = layout.socket(Endpoint::Agent).unwrap_or_default();
            let directory = socket.trim_end_matches("kata.hvsock");
            run.write(&format!("{directory}firecracker.pid"), pid)
        }
        _ => Ok(()),
    }
}

/// The Go runtime's state.
fn persist(facts: &Facts) -> Value {
    let layout = &facts.layout;
    let firecracker = layout.hypervisor == Hypervisor::Firecracker;
    let api = layout.socket(Endpoint::Hypervisor).map(|socket| format!("{RUN}/{socket}")).unwrap_or_default();
    json!({
        "PersistVersion": 2,
        "State": "running",
        "SandboxContainer": layout.id,
        "SandboxCgroupPath": facts.placement.sandbox,
        "OverheadCgroupPath": facts.placement.overhead.clone().unwrap_or_default(),
        "HypervisorState": {
            "Type": layout.hypervisor.state_name(),
            "Pid": facts.pids.hypervisor,
            // Firecracker tells its pid and no more.
            "VirtiofsDaemonPid": if firecracker { 0 } else { facts.pids.virtiofsd.unwrap_or_default() },
            "APISocket": if firecracker { "" } else { &api },
            "UUID": "",
        },
        "AgentState": {"URL": layout.agent_url(Path::new(RUN))},
        "Network": {"NetworkID": format!("/var/run/netns/cni-{}", layout.cid), "Endpoints": []},
        "Config": {"HypervisorType": layout.hypervisor.state_name(), "SandboxCgroupOnly": facts.placement.overhead.is_none()},
    })
}

/// runtime-rs's state. It names an overhead cgroup even where none is used, and knows no pid.
fn state(facts: &Facts) -> Value {
    let layout = &facts.layout;
    let overhead = facts.placement.overhead.clone();
    let overhead = overhead.unwrap_or_else(|| Placement::nominal_overhead(&layout.id));
    let directory = format!("{RUN}/{}", layout.sandbox());
    json!({
        "sandbox_type": "virt_container",
        "resource": {
            "endpoint": [{"veth_endpoint": {"if_name": "eth0", "network_qos": false}, "tap_endpoint": null}],
            "cgroup_state": {
                "path": facts.placement.sandbox.trim_start_matches('/'),
                "overhead_path": overhead.trim_start_matches('/'),
                "sandbox_cgroup_only": facts.placement.overhead.is_none(),
                "enable_vcpus_pinning": false,
            },
        },
        "hypervisor": {
            "hypervisor_type": layout.hypervisor.state_name(),
            "id": layout.id,
            "pid": null,
            "virtiofs_daemon_pid": 0,
            "api_socket": "",
            "jailed": layout.jailed,
            "jailer_root": "",
            "netns": format!("/var/run/netns/cni-{}", layout.cid),
            "run_dir": directory,
            "vm_path": directory,
            "config": {
                "default_vcpus": facts.plan.vcpus,
                "default_memory": facts.plan.memory_bytes >> 20,
                "default_maxvcpus": facts.plan.vcpus,
                "enable_debug": false,
                "kernel": "/opt/kata/share/kata-containers/vmlinuz",
                "kernel_params": "cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1",
                "path": format!("/opt/kata/bin/{}", layout.hypervisor.state_name()),
                "shared_fs": "virtio-fs",
            },
        },
    })
}

/// The container's OCI configuration. It names a cgroup that a container of a Kata pod does not have.
fn config(facts: &Facts, pod: &Pod, id: &str, name: Option<&String>) -> Value {
    let sandbox = facts.id();
    let mut annotations = json!({
        "io.kubernetes.cri.container-type": if name.is_some() { "container" } else { "sandbox" },
        "io.kubernetes.cri.sandbox-id": sandbox,
        "io.kubernetes.cri.sandbox-name": pod.pod_name(),
        "io.kubernetes.cri.sandbox-namespace": pod.pod_namespace(),
        "io.kubernetes.cri.sandbox-uid": pod.pod_uid(),
    });
    if let (Some(name), Some(object)) = (name, annotations.as_object_mut()) {
        object.insert("io.kubernetes.cri.container-name".to_owned(), json!(name));
    }
    let parent = pod.cgroup();
    let systemd = parent.ends_with(".slice");
    let cgroup = if systemd { format!("{parent}:cri-containerd:{id}") } else { format!("{parent}/{id}") };
    let network = if name.is_some() {
        json!({"type": "network", "path": format!("/proc/{}/ns/net", facts.pids.hypervisor)})
    } else {
        json!({"type": "network", "path": format!("/var/run/netns/cni-{}", facts.layout.cid)})
    };
    json!({
        "ociVersion": "1.0.2-dev",
        "process": {"args": ["/app"], "cwd": "/"},
        "annotations": annotations,
        "linux": {"cgroupsPath": cgroup, "namespaces": [{"type": "pid"}, {"type": "mount"}, network]},
    })
}
