//! Where a sandbox has its directories, sockets and cgroups. All paths are relative to the run directory, which
//! stands for `/run`, unless said otherwise.

use std::path::Path;

use super::kind::{Endpoint, HostCgroup, Hypervisor, Runtime};

/// The most bytes a Unix socket's path may have.
pub(super) const SOCKET_PATH_MAX: usize = 107;

/// The directories and sockets of one sandbox.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) runtime: Runtime,
    pub(super) hypervisor: Hypervisor,
    pub(super) jailed: bool,
    pub(super) id: String,
    /// The name of the Task socket.
    pub(super) hash: String,
    /// The guest's vsock address.
    pub(super) cid: u32,
}

impl Layout {
    /// The directory that says that there is a sandbox: `vc/sbs/<id>` or `kata/<id>`.
    pub(super) fn sandbox(&self) -> String {
        match self.runtime {
            Runtime::Go => format!("vc/sbs/{}", self.id),
            Runtime::Rust => format!("kata/{}", self.id),
        }
    }

    /// The directory of the VM.
    fn vm(&self) -> String {
        match (self.runtime, self.hypervisor) {
            // The name is cut because the jailer takes no more.
            (Runtime::Go, Hypervisor::Firecracker) => format!("{}/root", self.go_firecracker()),
            (Runtime::Go, _) => format!("vc/vm/{}", self.id),
            (Runtime::Rust, _) if self.jailed => format!("kata/firecracker/{}/root", self.id),
            (Runtime::Rust, _) => self.sandbox(),
        }
    }

    fn go_firecracker(&self) -> String {
        format!("vc/firecracker/{}", self.id.get(..32).unwrap_or(&self.id))
    }

    /// Directories that come and go with the sandbox, without those inside of them.
    pub(super) fn tops(&self) -> Vec<String> {
        let mut tops = vec![self.sandbox()];
        match (self.runtime, self.hypervisor) {
            (Runtime::Go, Hypervisor::Firecracker) => tops.push(self.go_firecracker()),
            (Runtime::Go, _) => tops.push(format!("vc/vm/{}", self.id)),
            (Runtime::Rust, _) if self.jailed => tops.push(format!("kata/firecracker/{}", self.id)),
            (Runtime::Rust, _) => {}
        }
        tops.push(format!("kata-containers/shared/sandboxes/{}", self.id));
        tops
    }

    /// Every directory of the sandbox.
    pub(super) fn directories(&self) -> Vec<String> {
        let vm = self.vm();
        let shared = format!("kata-containers/shared/sandboxes/{}", self.id);
        let shares = match self.runtime {
            Runtime::Go => ["mounts", "shared"],
            Runtime::Rust => ["rw", "ro"],
        };
        let mut all = vec![self.sandbox(), vm.clone()];
        match (self.runtime, self.hypervisor) {
            (_, Hypervisor::Firecracker) => all.push(format!("{vm}/run")),
            (Runtime::Rust, _) => all.push(format!("{}/root", self.sandbox())),
            (Runtime::Go, _) => {}
        }
        all.extend(shares.map(|share| format!("{shared}/{share}")));
        all
    }

    /// The socket of an endpoint, if the sandbox has one that a Unix socket can stand for.
    pub(super) fn socket(&self, endpoint: Endpoint) -> Option<String> {
        let vm = self.vm();
        match endpoint {
            Endpoint::Shim => Some(format!("{}/shim-monitor.sock", self.sandbox())),
            Endpoint::Task => Some(format!("containerd/s/{}", self.hash)),
            Endpoint::Agent => match (self.runtime, self.hypervisor) {
                (Runtime::Go, Hypervisor::CloudHypervisor) => Some(format!("{vm}/clh.sock")),
                (Runtime::Rust, Hypervisor::CloudHypervisor) => Some(format!("{vm}/ch-vm.sock")),
                (_, Hypervisor::Firecracker) => Some(format!("{vm}/kata.hvsock")),
                (_, Hypervisor::Dragonball) => Some(format!("{vm}/root/kata.hvsock")),
                (_, Hypervisor::OpenVmm) => Some(format!("{vm}/vsock.sock")),
                (_, Hypervisor::Qemu) => None,
            },
            Endpoint::Hypervisor => match (self.runtime, self.hypervisor) {
                (Runtime::Go, Hypervisor::CloudHypervisor) => Some(format!("{vm}/clh-api.sock")),
                (Runtime::Rust, Hypervisor::CloudHypervisor) => Some(format!("{vm}/ch-api.sock")),
                (Runtime::Go, Hypervisor::Firecracker) => Some(format!("{vm}/run/firecracker.socket")),
                (Runtime::Rust, Hypervisor::Firecracker) => Some(format!("{vm}/run/fc.sock")),
                _ => None,
            },
            Endpoint::Reserved => match (self.runtime, self.hypervisor) {
                (Runtime::Go, Hypervisor::Qemu) => Some(format!("{vm}/qmp.sock")),
                (Runtime::Rust, Hypervisor::Qemu) => Some(format!("{vm}/root/console.sock")),
                _ => None,
            },
        }
    }

    /// The file that holds the sandbox's state.
    pub(super) fn state_file(&self) -> String {
        match self.runtime {
            Runtime::Go => format!("{}/persist.json", self.sandbox()),
            Runtime::Rust => format!("{}/state.json", if self.jailed { self.vm() } else { self.sandbox() }),
        }
    }

    /// The bundle of a container.
    pub(super) fn bundle(container: &str) -> String {
        format!("containerd/io.containerd.runtime.v2.task/k8s.io/{container}")
    }

    /// What `/agent-url` says when `/run` is called `run`.
    pub(super) fn agent_url(&self, run: &Path) -> String {
        match self.socket(Endpoint::Agent) {
            Some(socket) => format!("hvsock://{}:1024", run.join(socket).display()),
            None => format!("vsock://{}:1024", self.cid),
        }
    }
}

/// The cgroups of a sandbox, as paths below the mount point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placement {
    pub(super) pod: String,
    pub(super) sandbox: String,
    pub(super) overhead: Option<String>,
}

impl Placement {
    /// Where a runtime puts a sandbox of the pod whose cgroup the kubelet calls `parent`: a path with the cgroupfs
    /// driver, a name ending in `.slice` with the systemd driver.
    pub(super) fn of(runtime: Runtime, host: HostCgroup, parent: &str, id: &str, only: bool) -> Self {
        let systemd = parent.ends_with(".slice");
        let pod = if systemd { slice_path(parent) } else { parent.to_owned() };
        let sandbox = match (runtime, systemd) {
            // The prefix hides it from cAdvisor, on purpose.
            (Runtime::Go, false) => format!("{pod}/kata_{id}"),
            (Runtime::Rust, false) => format!("{pod}/{id}"),
            // The Go runtime takes the three parts meant for systemd as a file name.
            (Runtime::Go, true) if !only && host == HostCgroup::V2 => format!("/{parent}:cri-containerd:{id}"),
            (_, true) => format!("{pod}/cri-containerd-{id}.scope"),
        };
        let overhead = match (runtime, systemd) {
            (Runtime::Rust, true) => format!("/kata-overhead.slice/runtime-rs-{id}.scope"),
            _ => format!("/kata_overhead/{id}"),
        };
        Self { pod, sandbox, overhead: (!only).then_some(overhead) }
    }

    /// What `state.json` calls the overhead cgroup, used or not.
    pub(super) fn nominal_overhead(id: &str) -> String {
        format!("kata_overhead/{id}")
    }
}

/// `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7.slice` for the last name in it.
fn slice_path(slice: &str) -> String {
    let stem = slice.trim_end_matches(".slice");
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    ends.filter_map(|end| stem.get(..end)).map(|part| format!("/{part}.slice")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(runtime: Runtime, hypervisor: Hypervisor) -> Layout {
        Layout { runtime, hypervisor, jailed: false, id: "5f".repeat(32), hash: "AB".repeat(32), cid: 7 }
    }

    #[test]
    fn sockets_are_where_each_runtime_and_hypervisor_has_them() {
        let id = "5f".repeat(32);
        let socket = |runtime, hypervisor, endpoint| layout(runtime, hypervisor).socket(endpoint);
        for (runtime, hypervisor, agent) in [
            (Runtime::Go, Hypervisor::CloudHypervisor, Some(format!("vc/vm/{id}/clh.sock"))),
            (Runtime::Go, Hypervisor::Firecracker, Some(format!("vc/firecracker/{}/root/kata.hvsock", &id[..32]))),
            (Runtime::Go, Hypervisor::Qemu, None),
            (Runtime::Rust, Hypervisor::CloudHypervisor, Some(format!("kata/{id}/ch-vm.sock"))),
            (Runtime::Rust, Hypervisor::Firecracker, Some(format!("kata/{id}/kata.hvsock"))),
            (Runtime::Rust, Hypervisor::Dragonball, Some(format!("kata/{id}/root/kata.hvsock"))),
            (Runtime::Rust, Hypervisor::OpenVmm, Some(format!("kata/{id}/vsock.sock"))),
        ] {
            assert_eq!(socket(runtime, hypervisor, Endpoint::Agent), agent);
        }
        let shim = socket(Runtime::Go, Hypervisor::Qemu, Endpoint::Shim);
        assert_eq!(shim, Some(format!("vc/sbs/{id}/shim-monitor.sock")));
        let api = socket(Runtime::Rust, Hypervisor::CloudHypervisor, Endpoint::Hypervisor);
        assert_eq!(api, Some(format!("kata/{id}/ch-api.sock")));
    }

    #[test]
    fn a_directory_that_goes_takes_everything_with_it() {
        for (runtime, hypervisor, jailed) in [
            (Runtime::Go, Hypervisor::CloudHypervisor, false),
            (Runtime::Go, Hypervisor::Firecracker, false),
            (Runtime::Rust, Hypervisor::Firecracker, true),
            (Runtime::Rust, Hypervisor::Dragonball, false),
        ] {
            let layout = Layout { jailed, ..layout(runtime, hypervisor) };
            let inside = |path: &String| layout.tops().iter().any(|top| path.starts_with(top));
            assert!(layout.directories().iter().all(inside));
            for endpoint in [Endpoint::Agent, Endpoint::Shim, Endpoint::Hypervisor] {
                assert!(layout.socket(endpoint).iter().all(inside), "{endpoint:?}");
            }
            assert!(inside(&layout.state_file()));
        }
    }

    #[test]
    fn agent_urls_name_the_last_token_with_the_port() {
        let run = Path::new("/run");
        let url = layout(Runtime::Rust, Hypervisor::CloudHypervisor).agent_url(run);
        assert_eq!(url, format!("hvsock:///run/kata/{}/ch-vm.sock:1024", "5f".repeat(32)));
        assert_eq!(layout(Runtime::Rust, Hypervisor::Qemu).agent_url(run), "vsock://7:1024");
    }

    #[test]
    fn cgroups_are_placed_by_runtime_driver_and_version() {
        let place = |runtime, parent: &str, only| {
            let placed = Placement::of(runtime, HostCgroup::V2, parent, "7f", only);
            (placed.sandbox, placed.overhead)
        };
        let pod = "/kubepods/burstable/pod1";
        assert_eq!(place(Runtime::Rust, pod, true), (format!("{pod}/7f"), None));
        let overhead = || Some("/kata_overhead/7f".to_owned());
        assert_eq!(place(Runtime::Go, pod, false), (format!("{pod}/kata_7f"), overhead()));
        let slice = "kubepods-burstable-pod1_2.slice";
        let path = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice";
        assert_eq!(place(Runtime::Go, slice, true), (format!("{path}/cri-containerd-7f.scope"), None));
        assert_eq!(place(Runtime::Go, slice, false), (format!("/{slice}:cri-containerd:7f"), overhead()));
        let scope = Some("/kata-overhead.slice/runtime-rs-7f.scope".to_owned());
        assert_eq!(place(Runtime::Rust, slice, false), (format!("{path}/cri-containerd-7f.scope"), scope));
    }
}
