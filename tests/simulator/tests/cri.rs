//! Drives the simulated runtime with k8s-cri's client, as an agent would.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_cri::v1;
use kata_pulse_simulator::cri::{self, CriServer, Exit, Fault, Method, Node, Pod, Qos};
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::Code;

/// Longer than any answer takes, shorter than a patience.
const MOMENT: Duration = Duration::from_millis(200);
/// What a slow machine gets.
const PATIENCE: Duration = Duration::from_secs(10);

struct Setup {
    node: Node,
    server: CriServer,
    socket: PathBuf,
    _directory: TempDir,
}

fn setup() -> anyhow::Result<Setup> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("containerd.sock");
    let node = Node::new();
    let server = CriServer::start(&socket, &node)?;
    Ok(Setup { node, server, socket, _directory: directory })
}

fn all_sandboxes() -> v1::ListPodSandboxRequest {
    v1::ListPodSandboxRequest { filter: None }
}

fn all_containers() -> v1::ListContainersRequest {
    v1::ListContainersRequest { filter: None }
}

fn version() -> v1::VersionRequest {
    v1::VersionRequest { version: "0.1.0".to_owned() }
}

#[tokio::test]
async fn a_described_pod_is_listed_and_told_as_containerd_tells_it() -> anyhow::Result<()> {
    let Setup { node, socket, .. } = &setup()?;
    let pod = Pod::new("shop", "web")
        .uid("3b7e61c0-5a0d-4f0e-9d51-6c1f0a7be201")
        .handler("kata-clh")
        .qos(Qos::Guaranteed)
        .pid(283)
        .created_at(7);
    let app = pod.container("app").image("docker.io/library/nginx:1.29").pid(284).memory_limit(1 << 27);
    node.add_pod(&pod);
    node.add_container(&app);
    let mut client = cri::connect(socket).await?;

    let listed = client.list_pod_sandbox(all_sandboxes()).await?.into_inner().items;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].id, pod.id());
    assert_eq!(listed[0].runtime_handler, "kata-clh");
    assert_eq!(listed[0].state(), v1::PodSandboxState::SandboxReady);
    assert_eq!(listed[0].labels["io.kubernetes.pod.namespace"], "shop");

    let listed = client.list_containers(all_containers()).await?.into_inner().containers;
    assert_eq!(listed[0].pod_sandbox_id, pod.id());
    assert_eq!(listed[0].state(), v1::ContainerState::ContainerRunning);
    assert!(listed[0].image.as_ref().is_some_and(|image| image.image.starts_with("sha256:")));

    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.id().to_owned(), verbose: true };
    let reply = client.pod_sandbox_status(request).await?.into_inner();
    let info: serde_json::Value = serde_json::from_str(&reply.info["info"])?;
    let cgroup = "/kubepods/pod3b7e61c0-5a0d-4f0e-9d51-6c1f0a7be201";
    assert_eq!(info["pid"], 283);
    assert_eq!(info["image"], "registry.k8s.io/pause:3.9");
    assert_eq!(info["runtimeType"], "io.containerd.kata-clh.v2");
    assert_eq!(info["config"]["linux"]["cgroup_parent"], cgroup);
    assert_eq!(info["runtimeSpec"]["linux"]["cgroupsPath"], format!("{cgroup}/{}", pod.id()));

    let request = v1::ContainerStatusRequest { container_id: app.id().to_owned(), verbose: true };
    let reply = client.container_status(request).await?.into_inner();
    let info: serde_json::Value = serde_json::from_str(&reply.info["info"])?;
    assert_eq!(info["sandboxID"], pod.id());
    assert_eq!(info["pid"], 284);
    let status = reply.status.unwrap_or_default();
    assert_eq!(status.image.unwrap_or_default().image, "docker.io/library/nginx:1.29");
    assert_eq!(status.resources.and_then(|all| all.linux).unwrap_or_default().memory_limit_in_bytes, 1 << 27);
    Ok(())
}

#[tokio::test]
async fn a_status_that_is_not_verbose_has_no_info() -> anyhow::Result<()> {
    let Setup { node, socket, .. } = &setup()?;
    let pod = Pod::new("shop", "web");
    node.add_pod(&pod);
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.id().to_owned(), verbose: false };
    let reply = cri::connect(socket).await?.pod_sandbox_status(request).await?.into_inner();
    assert!(reply.info.is_empty());
    assert_eq!(reply.status.unwrap_or_default().id, pod.id());
    Ok(())
}

#[tokio::test]
async fn the_systemd_driver_s_cgroup_is_a_slice() -> anyhow::Result<()> {
    let Setup { node, socket, .. } = &setup()?;
    let pod = Pod::new("shop", "web").cgroup_parent("kubepods-besteffort-pod1.slice");
    node.add_pod(&pod);
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.id().to_owned(), verbose: true };
    let reply = cri::connect(socket).await?.pod_sandbox_status(request).await?.into_inner();
    let info: serde_json::Value = serde_json::from_str(&reply.info["info"])?;
    let expected = format!("kubepods-besteffort-pod1.slice:cri-containerd:{}", pod.id());
    assert_eq!(info["runtimeSpec"]["linux"]["cgroupsPath"], expected);
    Ok(())
}

#[tokio::test]
async fn filters_choose_by_id_state_pod_and_label() -> anyhow::Result<()> {
    let Setup { node, socket, .. } = &setup()?;
    let web = Pod::new("shop", "web").label("app", "web");
    let job = Pod::new("batch", "job");
    node.add_pod(&web);
    node.add_pod(&job);
    node.add_container(&web.container("app"));
    node.add_container(&job.container("run").exited(&Exit::completed()));
    node.stop_pod(job.id());
    let mut client = cri::connect(socket).await?;

    let by_id = v1::PodSandboxFilter { id: web.id()[..12].to_owned(), ..Default::default() };
    let not_ready = v1::PodSandboxStateValue { state: v1::PodSandboxState::SandboxNotready.into() };
    let by_state = v1::PodSandboxFilter { state: Some(not_ready), ..Default::default() };
    let selector = HashMap::from([("app".to_owned(), "web".to_owned())]);
    let by_label = v1::PodSandboxFilter { label_selector: selector, ..Default::default() };
    for (filter, expected) in [(by_id, &web), (by_state, &job), (by_label, &web)] {
        let items =
            client.list_pod_sandbox(v1::ListPodSandboxRequest { filter: Some(filter) }).await?.into_inner().items;
        let ids: Vec<_> = items.iter().map(|item| item.id.as_str()).collect();
        assert_eq!(ids, [expected.id()]);
    }

    let running = v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning.into() };
    let by_state = v1::ContainerFilter { state: Some(running), ..Default::default() };
    let by_pod = v1::ContainerFilter { pod_sandbox_id: job.id().to_owned(), ..Default::default() };
    for (filter, expected) in [(by_state, "app"), (by_pod, "run")] {
        let request = v1::ListContainersRequest { filter: Some(filter) };
        let containers = client.list_containers(request).await?.into_inner().containers;
        let names: Vec<_> = containers.iter().filter_map(|one| one.metadata.as_ref()).map(|one| &one.name).collect();
        assert_eq!(names, [expected]);
    }
    Ok(())
}

#[tokio::test]
async fn an_exit_is_told_with_reason_code_and_time_and_without_pid() -> anyhow::Result<()> {
    let Setup { node, socket, .. } = &setup()?;
    let pod = Pod::new("shop", "web");
    let app = pod.container("app").pid(99);
    node.add_pod(&pod);
    node.add_container(&app);
    node.set_usage(app.id(), Duration::from_secs(3), 1 << 20);
    let mut client = cri::connect(socket).await?;
    let stats = client.list_container_stats(v1::ListContainerStatsRequest { filter: None }).await?.into_inner().stats;
    let cpu = stats[0].cpu.as_ref().and_then(|cpu| cpu.usage_core_nano_seconds);
    assert_eq!(cpu.unwrap_or_default().value, 3_000_000_000);

    node.exit_container(app.id(), &Exit::oom_killed().at(42));

    let request = v1::ContainerStatusRequest { container_id: app.id().to_owned(), verbose: true };
    let reply = client.container_status(request).await?.into_inner();
    let info: serde_json::Value = serde_json::from_str(&reply.info["info"])?;
    let status = reply.status.unwrap_or_default();
    assert_eq!((status.exit_code, status.reason.as_str(), status.finished_at), (137, "OOMKilled", 42));
    assert_eq!(info["pid"], 0);
    let stats = client.list_container_stats(v1::ListContainerStatsRequest { filter: None }).await?.into_inner().stats;
    assert_eq!(stats, []);
    Ok(())
}

#[tokio::test]
async fn unknown_ids_are_not_found_and_unsimulated_methods_unimplemented() -> anyhow::Result<()> {
    let Setup { server, socket, .. } = &setup()?;
    let mut client = cri::connect(socket).await?;
    let id = "f".repeat(64);

    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.clone(), verbose: true };
    let error = client.pod_sandbox_status(request).await.map(drop).expect_err("no such sandbox");
    assert_eq!(error.code(), Code::NotFound);
    assert_eq!(error.message(), format!("an error occurred when try to find sandbox \"{id}\": not found"));
    let request = v1::ContainerStatsRequest { container_id: String::new() };
    let error = client.container_stats(request).await.map(drop).expect_err("an empty id is no id");
    assert_eq!(error.code(), Code::NotFound);

    let request = v1::StopPodSandboxRequest { pod_sandbox_id: id };
    let error = client.stop_pod_sandbox(request).await.map(drop).expect_err("not simulated");
    assert_eq!(error.code(), Code::Unimplemented);
    assert_eq!(error.message(), "unknown method StopPodSandbox for service runtime.v1.RuntimeService");
    assert_eq!(server.calls(Method::StopPodSandbox), 1);
    Ok(())
}

#[tokio::test]
async fn events_tell_every_change_of_a_container() -> anyhow::Result<()> {
    let Setup { node, server, socket, .. } = &setup()?;
    let mut client = cri::connect(socket).await?;
    let mut events = client.get_container_events(v1::GetEventsRequest {}).await?.into_inner();
    let pod = Pod::new("shop", "web");
    let app = pod.container("app");
    node.add_pod(&pod);
    node.add_container(&app);
    node.exit_container(app.id(), &Exit::error(1));
    node.remove_container(app.id());
    node.remove_pod(pod.id());

    use v1::ContainerEventType as Kind;
    let expected = [
        (pod.id(), Kind::ContainerCreatedEvent),
        (pod.id(), Kind::ContainerStartedEvent),
        (app.id(), Kind::ContainerCreatedEvent),
        (app.id(), Kind::ContainerStartedEvent),
        (app.id(), Kind::ContainerStoppedEvent),
        (app.id(), Kind::ContainerDeletedEvent),
        (pod.id(), Kind::ContainerDeletedEvent),
    ];
    for (id, kind) in expected {
        let event = timeout(PATIENCE, events.next()).await?.expect("the stream is open")?;
        assert_eq!((event.container_id.as_str(), event.container_event_type()), (id, kind));
        let told = event.pod_sandbox_status.map(|status| status.id);
        assert_eq!(told.is_some(), !(id == pod.id() && kind == Kind::ContainerDeletedEvent));
    }

    server.cut_connections();
    let end = timeout(PATIENCE, events.next()).await?;
    assert!(!matches!(end, Some(Ok(_))), "a cut stream ends");
    Ok(())
}

#[tokio::test]
async fn an_old_containerd_has_no_event_stream() -> anyhow::Result<()> {
    let Setup { node, socket, .. } = &setup()?;
    node.set_event_stream(false);
    let mut client = cri::connect(socket).await?;
    let error = client.get_container_events(v1::GetEventsRequest {}).await.map(drop).expect_err("switched off");
    assert_eq!(error.code(), Code::Unimplemented);
    Ok(())
}

#[tokio::test]
async fn a_fault_concerns_its_method_until_it_is_healed() -> anyhow::Result<()> {
    let Setup { server, socket, .. } = &setup()?;
    let mut client = cri::connect(socket).await?;

    server.fail(Method::Version, Fault::Status(Code::Unavailable, "containerd is starting".to_owned()));
    let error = client.version(version()).await.map(drop).expect_err("a fault is set");
    assert_eq!((error.code(), error.message()), (Code::Unavailable, "containerd is starting"));
    assert_eq!(client.list_pod_sandbox(all_sandboxes()).await?.into_inner().items, []);

    server.fail(Method::Version, Fault::Hang);
    assert!(timeout(MOMENT, client.version(version())).await.is_err());

    server.fail(Method::Version, Fault::Delay(MOMENT));
    let asked = tokio::time::Instant::now();
    client.version(version()).await?;
    assert!(asked.elapsed() >= MOMENT);

    server.heal(Method::Version);
    assert_eq!(client.version(version()).await?.into_inner().runtime_name, "containerd");
    assert_eq!(server.calls(Method::Version), 4);
    assert_eq!(server.calls(Method::ListPodSandbox), 1);
    assert!(!server.wait_for_calls(Method::Version, 5, Duration::from_millis(10)));
    Ok(())
}

#[tokio::test]
async fn closing_takes_along_the_other_calls_of_the_connection_and_no_other_connection() -> anyhow::Result<()> {
    let Setup { server, socket, .. } = &setup()?;
    let (mut first, mut second) = (cri::connect(socket).await?, cri::connect(socket).await?);
    second.version(version()).await?;
    server.fail(Method::ListContainers, Fault::Hang);
    server.fail(Method::Version, Fault::Close);
    let mut hanging = first.clone();
    let hanging = tokio::spawn(async move { hanging.list_containers(all_containers()).await });
    assert!(wait_for(server, Method::ListContainers).await);

    assert!(timeout(PATIENCE, first.version(version())).await?.is_err());
    assert!(timeout(PATIENCE, hanging).await??.is_err());
    assert_eq!(second.list_pod_sandbox(all_sandboxes()).await?.into_inner().items, []);
    Ok(())
}

#[tokio::test]
async fn a_restart_keeps_the_path_the_node_and_the_counters() -> anyhow::Result<()> {
    let Setup { node, mut server, socket, _directory } = setup()?;
    node.add_pod(&Pod::new("shop", "web"));
    let mut client = cri::connect(&socket).await?;
    client.version(version()).await?;

    server.stop();
    assert!(!socket.exists());
    assert!(client.version(version()).await.is_err());
    server.restart()?;
    let mut client = cri::connect(&socket).await?;
    client.version(version()).await?;
    assert_eq!(client.list_pod_sandbox(all_sandboxes()).await?.into_inner().items.len(), 1);
    assert_eq!(server.calls(Method::Version), 2);

    server.crash();
    assert!(socket.exists(), "a killed runtime leaves its socket file");
    assert!(cri::connect(&socket).await.is_err());
    server.restart()?;
    cri::connect(&socket).await?.version(version()).await?;
    Ok(())
}

#[test]
fn only_a_socket_is_replaced() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("containerd.sock");
    std::fs::write(&path, "not a socket")?;
    let error = CriServer::start(&path, &Node::new()).expect_err("a file is in the way");
    assert!(error.to_string().contains("is not a socket"), "{error:#}");
    assert_eq!(std::fs::read_to_string(&path)?, "not a socket");
    Ok(())
}

/// Waits for the first call of `method` without blocking the client's own thread.
async fn wait_for(server: &CriServer, method: Method) -> bool {
    let waited = async {
        while server.calls(method) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waited).await.is_ok()
}
