//! Checks the recorded node against the recorder's own notes, through the real client over the socket.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileTypeExt;

use k8s_cri::v1;
use kata_pulse_simulator::cri::{self, CriServer};
use kata_pulse_simulator::recorded::{Capture, RecordedNode};
use prost::Message;

#[tokio::test]
async fn every_pod_and_container_is_listed_by_its_name() -> anyhow::Result<()> {
    let recorded = RecordedNode::unpack()?;
    let directory = tempfile::tempdir()?;
    let pods = recorded.pods()?;
    assert_eq!(pods.len(), 5);

    for capture in Capture::ALL {
        let server = CriServer::start(directory.path().join("containerd.sock"), &recorded.cri(capture)?)?;
        let mut client = cri::connect(server.path()).await?;
        let sandboxes = client.list_pod_sandbox(v1::ListPodSandboxRequest { filter: None }).await?.into_inner().items;
        let containers =
            client.list_containers(v1::ListContainersRequest { filter: None }).await?.into_inner().containers;
        assert_eq!(sandboxes.len(), pods.len());
        assert_eq!(containers.len(), pods.iter().map(|pod| pod.containers.len()).sum::<usize>());

        for pod in &pods {
            let sandbox = sandboxes.iter().find(|sandbox| sandbox.id == pod.sandbox).expect("every pod is listed");
            let metadata = sandbox.metadata.clone().unwrap_or_default();
            assert_eq!((&metadata.name, &metadata.namespace, &metadata.uid), (&pod.name, &pod.namespace, &pod.uid));
            assert_eq!(sandbox.runtime_handler, pod.handler);

            let listed: BTreeMap<_, _> = containers
                .iter()
                .filter(|container| container.pod_sandbox_id == pod.sandbox)
                .map(|container| (container.metadata.clone().unwrap_or_default().name, container.id.clone()))
                .collect();
            assert_eq!(listed, pod.containers);

            let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.sandbox.clone(), verbose: true };
            let reply = client.pod_sandbox_status(request).await?.into_inner();
            let info: serde_json::Value = serde_json::from_str(&reply.info["info"])?;
            assert_eq!(info["config"]["linux"]["cgroup_parent"], pod.cgroup_parent);
            assert_eq!(reply.status.and_then(|status| status.network).unwrap_or_default().ip, pod.ip);
        }
    }
    Ok(())
}

#[tokio::test]
async fn replies_are_the_recorded_messages() -> anyhow::Result<()> {
    let recorded = RecordedNode::unpack()?;
    let directory = tempfile::tempdir()?;
    let server = CriServer::start(directory.path().join("containerd.sock"), &recorded.cri(Capture::T0)?)?;
    let mut client = cri::connect(server.path()).await?;
    let read = |name: &str| fs::read(recorded.capture(Capture::T0).join("cri").join(name));

    let reply = client.version(v1::VersionRequest::default()).await?.into_inner();
    assert_eq!(reply, v1::VersionResponse::decode(read("Version.pb")?.as_slice())?);
    let reply = client.status(v1::StatusRequest { verbose: true }).await?.into_inner();
    assert_eq!(reply, v1::StatusResponse::decode(read("Status.verbose.pb")?.as_slice())?);
    let reply = client.list_containers(v1::ListContainersRequest { filter: None }).await?.into_inner();
    assert_eq!(reply, v1::ListContainersResponse::decode(read("ListContainers.pb")?.as_slice())?);

    // The runtime orders the items of each call differently, so these are compared as sets.
    let mut reply =
        client.list_container_stats(v1::ListContainerStatsRequest { filter: None }).await?.into_inner().stats;
    let mut file = v1::ListContainerStatsResponse::decode(read("ListContainerStats.pb")?.as_slice())?.stats;
    reply.sort_by_key(|stats| stats.attributes.clone().unwrap_or_default().id);
    file.sort_by_key(|stats| stats.attributes.clone().unwrap_or_default().id);
    assert_eq!(reply, file);

    // An answer that is not verbose equals the one that was recorded as such.
    for pod in recorded.pods()? {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.sandbox.clone(), verbose: false };
        let file = read(&format!("PodSandboxStatus/{}.pb", pod.sandbox))?;
        let reply = client.pod_sandbox_status(request).await?.into_inner();
        assert_eq!(reply, v1::PodSandboxStatusResponse::decode(file.as_slice())?);
        for id in pod.containers.values() {
            let request = v1::ContainerStatusRequest { container_id: id.clone(), verbose: false };
            let file = read(&format!("ContainerStatus/{id}.pb"))?;
            let reply = client.container_status(request).await?.into_inner();
            assert_eq!(reply, v1::ContainerStatusResponse::decode(file.as_slice())?);
        }
    }
    Ok(())
}

#[test]
fn the_host_root_has_what_an_archive_cannot_hold() -> anyhow::Result<()> {
    let recorded = RecordedNode::unpack()?;
    for capture in Capture::ALL {
        let root = recorded.root(capture);
        for pod in recorded.pods()?.iter().filter(|pod| pod.handler == "kata-clh") {
            let directory = root.join("run/kata").join(&pod.sandbox);
            assert!(fs::symlink_metadata(directory.join("shim-monitor.sock"))?.file_type().is_socket());
        }
        assert!(root.join("run/kata-containers/shared/sandboxes").is_dir());
        assert!(!root.join("run/vc").exists(), "the node had no such directory");
        assert!(root.join("var/log/pods").is_dir());

        // truth.md: pid 283 is the hypervisor of kata-web, in the pod's network namespace, with 138 descriptors.
        let hypervisor = root.join("proc/283");
        assert_eq!(fs::read_link(hypervisor.join("ns/net"))?.to_str(), Some("net:[4026532254]"));
        assert_eq!(fs::read_link(hypervisor.join("exe"))?.to_str(), Some("/opt/kata/bin/cloud-hypervisor"));
        let recorded_count: usize = fs::read_to_string(hypervisor.join("fd.count"))?.trim().parse()?;
        assert_eq!(fs::read_dir(hypervisor.join("fd"))?.count(), recorded_count);
        // A kernel thread has neither.
        assert!(fs::read_link(root.join("proc/287/exe")).is_err());
        assert_eq!(fs::read_dir(root.join("proc/287/fd"))?.count(), 0);
    }
    Ok(())
}
