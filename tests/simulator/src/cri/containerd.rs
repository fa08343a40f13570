//! Turns a description into the messages containerd would answer with.
//!
//! The shape was taken from containerd 1.6.20: which labels the kubelet sets, where the image is a name and
//! where it is an id, and the JSON text under the key `info` of a verbose status, which is the only place
//! that tells a sandbox's pid, runtime type and cgroup.

use std::collections::HashMap;

use k8s_cri::v1;
use serde_json::{Value, json};

use super::identity;
use super::node::{ContainerEntry, SandboxEntry};
use super::pod::{Container, Life, Pod};

/// The key of the verbose map under which containerd puts everything, as one JSON text.
pub(super) const INFO: &str = "info";

/// The CPU period every kubelet uses, in microseconds.
const CPU_PERIOD: i64 = 100_000;

/// The sandbox as it is listed and as its status tells it.
pub(super) fn sandbox(pod: &Pod) -> SandboxEntry {
    let state = if pod.ready { v1::PodSandboxState::SandboxReady } else { v1::PodSandboxState::SandboxNotready };
    let metadata = v1::PodSandboxMetadata {
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        namespace: pod.namespace.clone(),
        attempt: pod.attempt,
    };
    let listed = v1::PodSandbox {
        id: pod.id.clone(),
        metadata: Some(metadata.clone()),
        state: state.into(),
        created_at: pod.created_at,
        labels: pod_labels(pod),
        annotations: pod.annotations.clone(),
        runtime_handler: pod.handler.clone(),
    };
    let options = v1::NamespaceOption {
        network: network_mode(pod).into(),
        pid: v1::NamespaceMode::Container.into(),
        ..Default::default()
    };
    let status = v1::PodSandboxStatus {
        id: pod.id.clone(),
        metadata: Some(metadata),
        state: state.into(),
        created_at: pod.created_at,
        // A pod in the node's network got no address from CNI.
        network: Some(v1::PodSandboxNetworkStatus {
            ip: if pod.host_network { String::new() } else { pod.ip.clone() },
            ..Default::default()
        }),
        linux: Some(v1::LinuxPodSandboxStatus { namespaces: Some(v1::Namespace { options: Some(options) }) }),
        labels: listed.labels.clone(),
        annotations: listed.annotations.clone(),
        runtime_handler: listed.runtime_handler.clone(),
    };
    let info = HashMap::from([(INFO.to_owned(), sandbox_info(pod).to_string())]);
    let status = v1::PodSandboxStatusResponse { status: Some(status), info, ..Default::default() };
    SandboxEntry { listed, status, stats: None }
}

/// The container as it is listed and as its status tells it.
pub(super) fn container(container: &Container) -> ContainerEntry {
    let image_id = format!("sha256:{}", identity::hex_id(&container.image));
    let metadata = v1::ContainerMetadata { name: container.name.clone(), attempt: container.attempt };
    let listed = v1::Container {
        id: container.id.clone(),
        pod_sandbox_id: container.pod.id.clone(),
        metadata: Some(metadata.clone()),
        // Lists carry the image's id where the status carries its name.
        image: Some(v1::ImageSpec { image: image_id.clone(), ..Default::default() }),
        image_ref: image_id.clone(),
        state: v1::ContainerState::ContainerCreated.into(),
        created_at: container.created_at,
        labels: container_labels(container),
        annotations: container_annotations(container),
        ..Default::default()
    };
    let status = v1::ContainerStatus {
        id: container.id.clone(),
        metadata: Some(metadata),
        state: listed.state,
        created_at: container.created_at,
        image: Some(v1::ImageSpec { image: container.image.clone(), ..Default::default() }),
        image_ref: image_id,
        labels: listed.labels.clone(),
        annotations: listed.annotations.clone(),
        log_path: format!("{}/{}/{}.log", log_directory(&container.pod), container.name, container.attempt),
        resources: Some(v1::ContainerResources { linux: Some(resources(container)), ..Default::default() }),
        ..Default::default()
    };
    let info = HashMap::from([(INFO.to_owned(), container_info(container).to_string())]);
    let status = v1::ContainerStatusResponse { status: Some(status), info };
    let mut entry = ContainerEntry { listed, status, stats: None };
    match &container.life {
        Life::Created => {}
        Life::Running => entry.start(container.created_at),
        Life::Exited(exit) => {
            entry.start(container.created_at);
            entry.exit(exit);
        }
    }
    entry
}

/// Changes one field of the JSON text in a verbose status. A text that is not such JSON is left alone:
/// recorded replies may come from other runtimes.
pub(super) fn set_info(info: &mut HashMap<String, String>, field: &str, value: Value) {
    let Some(text) = info.get_mut(INFO) else { return };
    let Ok(Value::Object(mut object)) = serde_json::from_str(text) else { return };
    object.insert(field.to_owned(), value);
    *text = Value::Object(object).to_string();
}

fn sandbox_info(pod: &Pod) -> Value {
    json!({
        "pid": if pod.ready { pod.pid } else { 0 },
        "processStatus": if pod.ready { "running" } else { "deleted" },
        "netNamespaceClosed": !pod.ready,
        "image": pod.image,
        "snapshotKey": pod.id,
        "snapshotter": "overlayfs",
        "runtimeHandler": pod.handler,
        "runtimeType": runtime_type(pod),
        "runtimeOptions": {},
        "config": {
            "metadata": {"name": pod.name, "uid": pod.uid, "namespace": pod.namespace, "attempt": pod.attempt},
            "hostname": pod.name,
            "log_directory": log_directory(pod),
            "labels": pod_labels(pod),
            "annotations": pod.annotations,
            "linux": {
                "cgroup_parent": pod.cgroup(),
                "security_context": {"namespace_options": {"network": i32::from(network_mode(pod)), "pid": 1}},
            },
        },
        "runtimeSpec": {
            "ociVersion": "1.0.2-dev",
            "process": {"args": ["/pause"], "cwd": "/"},
            "annotations": spec_annotations(pod, "sandbox"),
            "linux": {
                "cgroupsPath": cgroups_path(pod, &pod.id),
                "namespaces": namespaces(pod, (!pod.host_network).then_some(pod.network_namespace.as_str())),
            },
        },
    })
}

fn container_info(container: &Container) -> Value {
    let pod = &container.pod;
    let mut annotations = spec_annotations(pod, "container");
    annotations.insert("io.kubernetes.cri.container-name".to_owned(), container.name.clone());
    annotations.insert("io.kubernetes.cri.image-name".to_owned(), container.image.clone());
    // Containers of a pod join the sandbox's network through its first process.
    let network = format!("/proc/{}/ns/net", pod.pid);
    json!({
        "sandboxID": pod.id,
        "pid": container.pid,
        "removing": false,
        "snapshotKey": container.id,
        "snapshotter": "overlayfs",
        "runtimeType": runtime_type(pod),
        "runtimeOptions": {},
        "config": {
            "metadata": {"name": container.name, "attempt": container.attempt},
            "image": {"image": format!("sha256:{}", identity::hex_id(&container.image))},
            "labels": container_labels(container),
            "annotations": container_annotations(container),
            "linux": {"resources": {
                "cpu_period": CPU_PERIOD,
                "cpu_quota": container.cpu_quota,
                "cpu_shares": container.cpu_shares,
                "memory_limit_in_bytes": container.memory_limit,
            }},
        },
        "runtimeSpec": {
            "ociVersion": "1.0.2-dev",
            "annotations": annotations,
            "linux": {
                "cgroupsPath": cgroups_path(pod, &container.id),
                "namespaces": namespaces(pod, (!pod.host_network).then_some(network.as_str())),
            },
        },
    })
}

/// `io.containerd.runc.v2` for runc, `io.containerd.kata-clh.v2` for the handler `kata-clh`.
fn runtime_type(pod: &Pod) -> String {
    let name = if pod.handler.is_empty() { "runc" } else { &pod.handler };
    format!("io.containerd.{name}.v2")
}

/// `<parent>/<id>` for the cgroupfs driver, `<slice>:cri-containerd:<id>` for the systemd driver.
fn cgroups_path(pod: &Pod, id: &str) -> String {
    let parent = pod.cgroup();
    if parent.ends_with(".slice") { format!("{parent}:cri-containerd:{id}") } else { format!("{parent}/{id}") }
}

fn namespaces(pod: &Pod, network: Option<&str>) -> Value {
    let mut namespaces = vec![json!({"type": "pid"}), json!({"type": "ipc"}), json!({"type": "mount"})];
    if let Some(path) = network {
        namespaces.push(json!({"type": "network", "path": path}));
    }
    if !pod.host_network {
        namespaces.push(json!({"type": "uts"}));
    }
    Value::Array(namespaces)
}

fn network_mode(pod: &Pod) -> v1::NamespaceMode {
    if pod.host_network { v1::NamespaceMode::Node } else { v1::NamespaceMode::Pod }
}

fn log_directory(pod: &Pod) -> String {
    format!("/var/log/pods/{}_{}_{}", pod.namespace, pod.name, pod.uid)
}

fn spec_annotations(pod: &Pod, kind: &str) -> HashMap<String, String> {
    strings([
        ("io.kubernetes.cri.container-type", kind),
        ("io.kubernetes.cri.sandbox-id", &pod.id),
        ("io.kubernetes.cri.sandbox-name", &pod.name),
        ("io.kubernetes.cri.sandbox-namespace", &pod.namespace),
        ("io.kubernetes.cri.sandbox-uid", &pod.uid),
    ])
}

fn pod_labels(pod: &Pod) -> HashMap<String, String> {
    let mut labels = strings([
        ("io.kubernetes.pod.name", &pod.name),
        ("io.kubernetes.pod.namespace", &pod.namespace),
        ("io.kubernetes.pod.uid", &pod.uid),
    ]);
    labels.extend(pod.labels.clone());
    labels
}

fn container_labels(container: &Container) -> HashMap<String, String> {
    let pod = &container.pod;
    let mut labels = strings([
        ("io.kubernetes.pod.name", &pod.name),
        ("io.kubernetes.pod.namespace", &pod.namespace),
        ("io.kubernetes.pod.uid", &pod.uid),
        ("io.kubernetes.container.name", &container.name),
    ]);
    labels.extend(container.labels.clone());
    labels
}

fn container_annotations(container: &Container) -> HashMap<String, String> {
    let mut annotations = strings([
        ("io.kubernetes.container.hash", "ce5cb8be"),
        ("io.kubernetes.container.restartCount", &container.attempt.to_string()),
        ("io.kubernetes.container.terminationMessagePath", "/dev/termination-log"),
        ("io.kubernetes.container.terminationMessagePolicy", "File"),
        ("io.kubernetes.pod.terminationGracePeriod", "30"),
    ]);
    annotations.extend(container.annotations.clone());
    annotations
}

fn resources(container: &Container) -> v1::LinuxContainerResources {
    v1::LinuxContainerResources {
        cpu_period: CPU_PERIOD,
        cpu_quota: container.cpu_quota,
        cpu_shares: container.cpu_shares,
        memory_limit_in_bytes: container.memory_limit,
        ..Default::default()
    }
}

fn strings<const N: usize>(pairs: [(&str, &str); N]) -> HashMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
