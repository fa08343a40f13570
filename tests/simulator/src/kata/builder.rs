//! The words in which a test describes a node.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use tempfile::TempDir;

use crate::cri::{self, CriServer};

use super::host::{self, Tree};
use super::kind::{HostCgroup, Hypervisor, Runtime};
use super::node::KataNode;
use super::plan::SandboxPlan;
use super::serve::{ServingThread, raise_descriptor_limit};

/// Describes a node.
#[derive(Debug)]
pub struct KataNodeBuilder {
    plans: Vec<SandboxPlan>,
    host: HostCgroup,
    systemd: bool,
    host_files: bool,
    run: Option<PathBuf>,
    registry: Option<cri::Node>,
}

impl KataNodeBuilder {
    pub(super) fn new() -> Self {
        Self { plans: Vec::new(), host: HostCgroup::V2, systemd: false, host_files: true, run: None, registry: None }
    }

    /// One more sandbox of these kinds. What follows says more about it.
    ///
    /// # Panics
    /// When the runtime does not have the hypervisor.
    #[must_use]
    pub fn sandbox(self, runtime: Runtime, hypervisor: Hypervisor) -> Self {
        self.plan(SandboxPlan::new(runtime, hypervisor))
    }

    /// One more sandbox.
    #[must_use]
    pub fn plan(mut self, plan: SandboxPlan) -> Self {
        self.plans.push(plan);
        self
    }

    /// Says more about the last sandbox: `.with(|plan| plan.vcpus(4).policy_denies_metrics())`.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn with(mut self, more: impl FnOnce(SandboxPlan) -> SandboxPlan) -> Self {
        let last = self.plans.pop().expect("a sandbox was named before more is said about it");
        self.plan(more(last))
    }

    /// The last sandbox has this many containers.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn containers(self, count: usize) -> Self {
        self.with(|plan| plan.containers(count))
    }

    /// The last sandbox, so many times in all.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn times(mut self, count: usize) -> Self {
        let last = self.plans.pop().expect("a sandbox was named before it is multiplied");
        self.plans.extend(std::iter::repeat_n(last, count));
        self
    }

    /// The cgroup version of the node, instead of v2.
    #[must_use]
    pub fn host_cgroup(mut self, version: HostCgroup) -> Self {
        self.host = version;
        self
    }

    /// Cgroups as the systemd driver names them, instead of the cgroupfs driver.
    #[must_use]
    pub fn systemd(mut self) -> Self {
        self.systemd = true;
        self
    }

    /// Neither procfs nor cgroups: only the run directory. A hundred files less per sandbox.
    #[must_use]
    pub fn without_host_files(mut self) -> Self {
        self.host_files = false;
        self
    }

    /// An existing directory that stands for `/run`, instead of a host root of its own; there are no host files then.
    /// Sockets in it have up to 90 bytes more, and may have 107 in all.
    #[must_use]
    pub fn run_directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.run = Some(path.into());
        self.without_host_files()
    }

    /// A runtime that somebody else serves, to be told of the sandboxes.
    #[must_use]
    pub fn registered_with(mut self, node: &cri::Node) -> Self {
        self.registry = Some(node.clone());
        self
    }

    /// Makes the node. When this returns, every socket accepts connections and the runtime lists every sandbox.
    ///
    /// # Errors
    /// When files or sockets cannot be made: a path is too long, or this process may not hold so many descriptors.
    pub fn start(self) -> anyhow::Result<KataNode> {
        raise_descriptor_limit(self.plans.len())?;
        let directory = if self.run.is_none() { Some(short_directory()?) } else { None };
        let root = directory.as_ref().map(|directory| Tree::new(directory.path()));
        let run = match (&self.run, &root) {
            (Some(run), _) => run.clone(),
            (None, Some(root)) => root.path("run"),
            (None, None) => unreachable!("a node has a run directory or makes one"),
        };
        if let Some(root) = &root {
            host::node::make(root, self.host)?;
        }
        let run = Tree::new(run);
        let (registry, server) = match self.registry {
            Some(node) => (node, None),
            None => {
                run.directory("containerd/io.containerd.runtime.v2.task/k8s.io")?;
                let node = cri::Node::new();
                let server = CriServer::start(run.path("containerd/containerd.sock"), &node)?;
                (node, Some(server))
            }
        };
        let node = KataNode {
            sandboxes: Mutex::default(),
            ledger: Arc::default(),
            registry,
            server,
            thread: ServingThread::start()?,
            host: self.host,
            systemd: self.systemd,
            host_files: self.host_files,
            run,
            root,
            made: Mutex::default(),
            directory,
        };
        for plan in self.plans {
            node.add_quietly(plan)?;
        }
        node.write_classes()?;
        Ok(node)
    }
}

/// A directory with as short a path as can be had, because the paths of sockets in it are long.
pub(super) fn short_directory() -> anyhow::Result<TempDir> {
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("k").rand_bytes(5);
        builder
    };
    let short = builder().tempdir_in("/tmp");
    short.or_else(|_| builder().tempdir()).context("make a temporary directory")
}
