//! Loads the runtime's recorded replies: one file per call, the raw protobuf message.
//!
//! `ListPodSandbox.pb` answers a call without arguments, `PodSandboxStatus/<id>.verbose.pb` one about an id.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, ensure};
use k8s_cri::v1;
use prost::Message;

use crate::cri::{ContainerEntry, Node, SandboxEntry};

/// Builds the node from the lists in `lists` and the statuses in `statuses`, in the order of the lists.
pub(super) fn load(lists: &Path, statuses: &Path) -> anyhow::Result<Node> {
    let node = Node::new();
    node.set_version(message(&statuses.join("Version.pb"))?);
    node.set_status(message(&statuses.join("Status.verbose.pb"))?);
    // The recorded containerd 1.6 does not have it.
    node.set_event_stream(false);

    let sandboxes: v1::ListPodSandboxResponse = message(&lists.join("ListPodSandbox.pb"))?;
    let stats: v1::ListPodSandboxStatsResponse = message(&lists.join("ListPodSandboxStats.pb"))?;
    for listed in sandboxes.items {
        let of_it = |stats: &&v1::PodSandboxStats| stats.attributes.as_ref().is_some_and(|who| who.id == listed.id);
        let status = status(&statuses.join("PodSandboxStatus"), &listed.id)?;
        let stats = stats.stats.iter().find(of_it).cloned();
        node.add_sandbox_entry(SandboxEntry { listed, status, stats });
    }

    let containers: v1::ListContainersResponse = message(&lists.join("ListContainers.pb"))?;
    let stats: v1::ListContainerStatsResponse = message(&lists.join("ListContainerStats.pb"))?;
    for listed in containers.containers {
        let of_it = |stats: &&v1::ContainerStats| stats.attributes.as_ref().is_some_and(|who| who.id == listed.id);
        let status = status(&statuses.join("ContainerStatus"), &listed.id)?;
        let stats = stats.stats.iter().find(of_it).cloned();
        node.add_container_entry(ContainerEntry { listed, status, stats });
    }
    Ok(node)
}

/// The verbose status, or the plain one where the verbose one was not recorded.
fn status<M: Message + Default>(directory: &Path, id: &str) -> anyhow::Result<M> {
    let verbose = directory.join(format!("{id}.verbose.pb"));
    if verbose.exists() { message(&verbose) } else { message(&directory.join(format!("{id}.pb"))) }
}

fn message<M: Message + Default>(path: &Path) -> anyhow::Result<M> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => anyhow::bail!("no recorded reply {}", path.display()),
        read => read.with_context(|| format!("read {}", path.display()))?,
    };
    // An empty message decodes, but no recorded reply is empty: the file would have been cut off.
    ensure!(!bytes.is_empty(), "recorded reply {} is empty", path.display());
    M::decode(bytes.as_slice()).with_context(|| format!("decode {}", path.display()))
}
