//! A container's bundle as containerd makes it: what its `config.json` says to a Kata shim.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

use crate::cri::Pod;
use crate::kata::plan::ContainerPlan;

use super::program::Program;

/// Microseconds of the period that plans count in.
const PERIOD: u64 = 100_000;

/// A bundle and what is of interest in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundle {
    /// Its directory.
    pub path: PathBuf,
    /// The container's id.
    pub id: String,
    /// The sandbox that it belongs to; its own id for a sandbox, and for a container without a pod.
    pub sandbox: String,
    /// Namespace, name and uid of its pod.
    pub(super) pod: [String; 3],
    /// Its name in the pod.
    name: String,
    /// The cgroup as containerd names it: a path, or `slice:prefix:id`.
    cgroup: String,
    /// Where the pod's network namespace is mounted, unless the pod is in the node's.
    pub(super) network: Option<PathBuf>,
    memory_limit: Option<u64>,
    cpu_quota: Option<u64>,
    pub(super) program: Program,
}

impl Bundle {
    /// Reads the bundle of a container.
    ///
    /// # Errors
    /// When it has no `config.json`, or another than containerd makes.
    pub fn read(path: &Path, id: &str) -> anyhow::Result<Self> {
        let file = path.join("config.json");
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let config: Value = serde_json::from_str(&text).with_context(|| format!("content of {}", file.display()))?;
        Ok(Self::parse(path, id, &config))
    }

    fn parse(path: &Path, id: &str, config: &Value) -> Self {
        let annotation = |name: &str| {
            let value = config.pointer("/annotations")?.get(format!("io.kubernetes.cri.{name}"))?;
            value.as_str().map(str::to_owned)
        };
        let contained = annotation("container-type").is_some_and(|kind| kind == "container");
        let sandbox = annotation("sandbox-id").filter(|_| contained);
        let number = |pointer: &str| config.pointer(pointer).and_then(Value::as_u64).filter(|number| *number > 0);
        let quota = number("/linux/resources/cpu/quota");
        let period = number("/linux/resources/cpu/period").unwrap_or(PERIOD);
        let namespaces = config.pointer("/linux/namespaces").and_then(Value::as_array).into_iter().flatten();
        let network = namespaces.filter(|namespace| namespace["type"] == "network");
        let arguments = config.pointer("/process/args").and_then(Value::as_array).into_iter().flatten();
        let arguments: Vec<&str> = arguments.filter_map(Value::as_str).collect();
        Self {
            path: path.to_owned(),
            id: id.to_owned(),
            sandbox: sandbox.unwrap_or_else(|| id.to_owned()),
            pod: ["namespace", "name", "uid"].map(|part| annotation(&format!("sandbox-{part}")).unwrap_or_default()),
            name: annotation("container-name").unwrap_or_default(),
            cgroup: config.pointer("/linux/cgroupsPath").and_then(Value::as_str).unwrap_or_default().to_owned(),
            network: network.filter_map(|namespace| Some(namespace.get("path")?.as_str()?.into())).next(),
            memory_limit: number("/linux/resources/memory/limit"),
            cpu_quota: quota.map(|quota| quota * PERIOD / period),
            program: if contained { Program::of(&arguments) } else { Program::Forever },
        }
    }

    /// Whether it is the sandbox itself and not a container of one.
    #[must_use]
    pub fn is_sandbox(&self) -> bool {
        self.sandbox == self.id
    }

    /// The pod, whose cgroup is the one above its sandbox's.
    pub(super) fn pod(&self) -> Pod {
        let [namespace, name, uid] = &self.pod;
        let parent = match self.cgroup.split_once(':') {
            Some((slice, _)) => slice,
            None => self.cgroup.rsplit_once('/').map_or("", |(parent, _)| parent),
        };
        Pod::new(namespace, name).uid(uid).with_id(&self.sandbox).cgroup_parent(parent)
    }

    /// The cgroup below which the node's `kubepods` lies: blank unless the node is a part of another.
    pub(super) fn cgroup_root(&self) -> &str {
        self.cgroup.split_once("/kubepods").map_or("", |(root, _)| root)
    }

    /// The container in the guest.
    pub(super) fn plan(&self) -> ContainerPlan {
        let mut plan = ContainerPlan::new(&self.name).with_id(&self.id);
        if let Some(bytes) = self.memory_limit {
            plan = plan.memory_limit(bytes);
        }
        match self.cpu_quota {
            Some(micros) => plan.cpu_quota(micros),
            None => plan,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_is_told_from_its_sandbox() {
        let annotations = |kind: &str| {
            json!({
                "io.kubernetes.cri.container-type": kind,
                "io.kubernetes.cri.container-name": "app",
                "io.kubernetes.cri.sandbox-id": "5f",
                "io.kubernetes.cri.sandbox-namespace": "shop",
                "io.kubernetes.cri.sandbox-name": "web",
                "io.kubernetes.cri.sandbox-uid": "7",
            })
        };
        let config = |kind: &str| {
            json!({
                "annotations": annotations(kind),
                "process": {"args": ["false"]},
                "linux": {
                    "cgroupsPath": "/node/kubepods/pod7/5f",
                    "namespaces": [{"type": "pid"}, {"type": "network", "path": "/netns/a"}],
                    "resources": {"memory": {"limit": 4096}, "cpu": {"quota": 5000, "period": 50_000}},
                },
            })
        };
        let sandbox = Bundle::parse(Path::new("/bundle"), "5f", &config("sandbox"));
        assert!(sandbox.is_sandbox() && sandbox.program == Program::Forever);
        assert_eq!((sandbox.cgroup_root(), sandbox.pod().cgroup().as_str()), ("/node", "/node/kubepods/pod7"));
        assert_eq!(sandbox.network.as_deref(), Some(Path::new("/netns/a")));
        let container = Bundle::parse(Path::new("/bundle"), "c1", &config("container"));
        assert!(!container.is_sandbox() && container.sandbox == "5f");
        assert_eq!((container.name.as_str(), container.memory_limit), ("app", Some(4096)));
        assert_eq!((container.cpu_quota, container.program), (Some(10_000), Program::of(&["false"])));
    }
}
