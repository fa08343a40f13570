//! The one sandbox of a shim with everything it has on the host: the simulated guest behind its sockets, stand-ins for
//! its processes, cgroups. All of it goes when it is dropped.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use anyhow::Context;

use crate::cri;
use crate::kata::host::Tree;
use crate::kata::kind::{HostCgroup, Hypervisor};
use crate::kata::layout::Layout;
use crate::kata::node::KataNode;
use crate::kata::plan::RealProcesses;
use crate::kata::sandbox::KataSandbox;
use crate::kata::serve::{Answers, Call, RpcReply};

use super::bundle::Bundle;
use super::cgroup::Cgroups;
use super::settings::Settings;
use super::stand_in::StandIn;

/// A copy of the settings in the sandbox's bundle, for whoever has to clean up without them.
const NOTE: &str = "simulated.json";

/// A running sandbox. Its fields go in this order.
#[derive(Debug)]
pub(super) struct Machine {
    settings: Settings,
    sandbox: KataSandbox,
    node: KataNode,
    hypervisor: StandIn,
    _virtiofsd: StandIn,
    _cgroups: Cgroups,
}

impl Machine {
    /// Boots the sandbox of this bundle.
    pub(super) fn boot(settings: Settings, bundle: &Bundle) -> anyhow::Result<Self> {
        settings.write(&bundle.path.join(NOTE))?;
        let mut cgroups = Cgroups::new()?;
        let host = cgroups.version();
        let plan = settings.plan().pod(bundle.pod()).cgroup_root(bundle.cgroup_root());
        let (own, overhead) = plan.cgroups(host);
        let beside = overhead.as_ref().unwrap_or(&own);
        for cgroup in [Some(&own), overhead.as_ref()].into_iter().flatten() {
            cgroups.make(cgroup).with_context(|| format!("cgroup {cgroup}"))?;
        }
        let shim = std::process::id();
        cgroups.enter(beside, shim)?;
        let virtiofsd = StandIn::start("virtiofsd", &bundle.id, None)?;
        let hypervisor = StandIn::start("cloud-hypervisor", &bundle.id, bundle.network.as_deref())?;
        // On v1 only threads of virtual CPUs are moved out of the overhead's cgroup, and this one has none.
        if host == HostCgroup::V2 {
            cgroups.enter(&own, hypervisor.pid())?;
        }
        let processes = RealProcesses { shim, hypervisor: hypervisor.pid(), virtiofsd: Some(virtiofsd.pid()) };
        let builder = KataNode::builder().run_directory(&settings.run).registered_with(&cri::Node::new());
        let node = builder.host_cgroup(host).start()?;
        let sandbox = node.add(plan.processes(processes))?;
        let machine = Self { settings, sandbox, node, hypervisor, _virtiofsd: virtiofsd, _cgroups: cgroups };
        machine.live()?;
        Ok(machine)
    }

    /// The hypervisor's pid, which is every container's as far as the host knows.
    pub(super) fn pid(&self) -> u32 {
        self.hypervisor.pid()
    }

    /// Whether the hypervisor runs still.
    pub(super) fn runs(&mut self) -> bool {
        self.hypervisor.runs()
    }

    /// A container comes.
    pub(super) fn add(&self, bundle: &Bundle) -> anyhow::Result<()> {
        self.sandbox.add_container(bundle.plan()).map(drop)
    }

    /// A container goes.
    pub(super) fn remove(&self, id: &str) {
        self.sandbox.remove_container(id);
    }

    /// The guest's kernel has killed a process for want of memory.
    pub(super) fn add_oom_kill(&self) {
        self.sandbox.add_oom_kill();
    }

    /// What the shim's own Task service knows of the guest.
    pub(super) fn ask(&self, call: &Call<'_>) -> RpcReply {
        self.sandbox.simulated.task(call)
    }

    /// Lets the guest live up to now, and notes what was asked of it and must not have been.
    pub(super) fn live(&self) -> anyhow::Result<()> {
        self.sandbox.advance(self.settings.tick().saturating_sub(self.sandbox.tick()));
        let violations = self.node.take_violations();
        if !violations.is_empty() {
            self.note(&violations.iter().map(|violation| format!("{violation}\n")).collect::<String>())?;
        }
        Ok(())
    }

    /// Appends to the file of violations.
    pub(super) fn note(&self, lines: &str) -> anyhow::Result<()> {
        let path = self.settings.violations();
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(lines.as_bytes()));
        written.with_context(|| format!("write {}", path.display()))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The node panics over those that nobody has taken.
        if let Err(error) = self.live() {
            super::say(&format!("{error:#}"));
        }
    }
}

/// Removes what the sandbox of this bundle has left, whose shim has ended without cleaning up.
pub(super) fn remove_traces(bundle: &Path, id: &str) -> anyhow::Result<()> {
    let note = bundle.join(NOTE);
    if !note.exists() {
        // A container, or a sandbox that was never booted.
        return Ok(());
    }
    let settings = Settings::read(&note)?;
    let bundle = Bundle::read(bundle, id)?;
    let layout = Layout {
        runtime: settings.runtime,
        hypervisor: Hypervisor::CloudHypervisor,
        jailed: false,
        id: id.to_owned(),
        hash: String::new(),
        cid: 0,
    };
    layout.tops().iter().for_each(|top| Tree::new(&settings.run).remove(top));
    let mut cgroups = Cgroups::new()?;
    let (own, overhead) =
        settings.plan().pod(bundle.pod()).cgroup_root(bundle.cgroup_root()).cgroups(cgroups.version());
    cgroups.adopt([Some(own), overhead].into_iter().flatten());
    Ok(())
}
