//! The demo as a test: waits until everything that runs is measured, and says so in one line.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_cri::v1;
use kata_pulse_simulator::cri;

use crate::agent::Agent;
use crate::interrupt::Interrupt;
use crate::node::{DemoContainer, DemoNode, DemoPod};
use crate::plan::Work;
use crate::sandboxes::Sandboxes;

/// What a slow machine gets.
const PATIENCE: Duration = Duration::from_secs(30);

/// The family by which containers are looked for: every container that runs has it.
const FAMILY: &str = "container_cpu_usage_seconds_total";

/// The family by which a sandbox that hangs is looked for.
const SANDBOX_UP: &str = "kata_pulse_sandbox_up";

/// Waits until the agent serves every container that runs by its name, and CPU time of the busy one. Fails when it has
/// done to a sandbox what it never must.
pub(crate) fn served(agent: &Agent, node: &DemoNode, interrupt: &Interrupt) -> anyhow::Result<String> {
    let mut missing = String::new();
    let busy_seconds = interrupt.wait_until("the agent serves every container", PATIENCE, || {
        let reply = agent.get("/metrics/cadvisor")?;
        ensure!(reply.succeeded(), "/metrics/cadvisor: {reply:?}");
        let sample = |(pod, container): (&DemoPod, &DemoContainer)| {
            let labels =
                [("container", container.plan.name), ("namespace", pod.plan.namespace), ("pod", pod.plan.name)];
            value(&reply.body, FAMILY, &labels)
        };
        let absent = running(node).find(|one| sample(*one).is_none());
        if let Some((pod, container)) = absent {
            missing = format!("no {FAMILY} of {} in {}", container.plan.name, pod.plan.name);
            return Ok(None);
        }
        if let Some(what) = missing_sandbox(agent, node, &reply.body)? {
            missing = what;
            return Ok(None);
        }
        "the busy container has used no CPU time".clone_into(&mut missing);
        let busy = running(node).find(|(_, container)| container.plan.work == Work::Spin).and_then(sample);
        Ok(busy.filter(|seconds| *seconds > 0.0))
    });
    let busy_seconds = busy_seconds.context(missing)?;
    let passed_on = agent.get("/metrics/kata")?;
    ensure!(passed_on.succeeded() && passed_on.body.contains("kata_shim_threads{"), "/metrics/kata: {passed_on:?}");
    let sandboxes = sandboxes(node)?;
    sandboxes.unharmed()?;
    let served = format!(
        "{} running containers of {} pods served by name, {} Kata sandboxes served as well",
        running(node).count(),
        node.pods.len(),
        sandboxes.pods.len()
    );
    Ok(format!("demo: ok: {served} at {}, the busy one has used {busy_seconds:.2} s of CPU\n", agent.address))
}

/// Without an agent: asks the runtime for the containers' processes, finds them in the cgroups they should
/// be in, and waits until the busy one is throttled.
pub(crate) fn built(node: &DemoNode, interrupt: &Interrupt) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let pids = runtime.block_on(pids(node))?;
    for (_, container) in running(node) {
        let (_, id) = container.cgroup.rsplit_once('/').context("a cgroup has a path")?;
        let (_, pid) = pids.iter().find(|(listed, _)| listed == id).context("the runtime lists every container")?;
        let path = format!("/proc/{pid}/cgroup");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let memberships = text.lines().filter(|line| line.ends_with(&container.cgroup)).count();
        let expected = node.cgroups.directories("").len();
        ensure!(memberships == expected, "{path}: {memberships} of {expected} in {}:\n{text}", container.cgroup);
    }
    let busy = running(node).find(|(_, container)| container.plan.work == Work::Spin);
    let (_, busy) = busy.context("a busy container is planned")?;
    let throttled = interrupt.wait_until("the busy container is throttled", PATIENCE, || {
        Ok(node.cgroups.cpu_stat(&busy.cgroup, "nr_throttled").filter(|times| *times > 0))
    })?;
    let sandboxes = sandboxes(node)?;
    for (plan, sandbox) in &sandboxes.pods {
        for process in &sandbox.truth().host.processes {
            let path = format!("/proc/{}/cgroup", process.pid);
            let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
            ensure!(text.contains(&process.cgroup), "{path} of {}: not in {}:\n{text}", plan.name, process.cgroup);
        }
    }
    Ok(format!(
        "demo: ok: {} running containers of {} pods and {} Kata sandboxes in {}, the busy one was throttled \
         {throttled} times\n",
        running(node).count(),
        node.pods.len(),
        sandboxes.pods.len(),
        node.cgroups.kind(),
    ))
}

/// What the agent does not yet say of the Kata pods.
fn missing_sandbox(agent: &Agent, node: &DemoNode, cadvisor: &str) -> anyhow::Result<Option<String>> {
    let reply = agent.get("/metrics")?;
    for (plan, sandbox) in &sandboxes(node)?.pods {
        let up = value(&reply.body, SANDBOX_UP, &[("sandbox_id", sandbox.id())]);
        let expected = if plan.hung { 0.0 } else { 1.0 };
        if up != Some(expected) {
            return Ok(Some(format!("{SANDBOX_UP} of {} is {up:?} and not {expected}", plan.name)));
        }
        for (container, _) in plan.containers.iter().filter(|_| !plan.hung) {
            let labels = [("container", *container), ("namespace", plan.namespace), ("pod", plan.name)];
            if value(cadvisor, FAMILY, &labels).is_none() {
                return Ok(Some(format!("no {FAMILY} of {container} in {}", plan.name)));
            }
        }
    }
    Ok(None)
}

fn sandboxes(node: &DemoNode) -> anyhow::Result<&Sandboxes> {
    node.sandboxes.as_ref().context("the node was built to its end")
}

fn running(node: &DemoNode) -> impl Iterator<Item = (&DemoPod, &DemoContainer)> {
    let all = node.pods.iter().flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)));
    all.filter(|(_, container)| container.runs())
}

/// Ids and pids of the running containers, through the socket.
async fn pids(node: &DemoNode) -> anyhow::Result<Vec<(String, u64)>> {
    let mut client = cri::connect(node.runtime.path()).await?;
    let running = v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning.into() };
    let filter = v1::ContainerFilter { state: Some(running), ..Default::default() };
    let request = v1::ListContainersRequest { filter: Some(filter) };
    let mut pids = Vec::new();
    for container in client.list_containers(request).await?.into_inner().containers {
        let request = v1::ContainerStatusRequest { container_id: container.id.clone(), verbose: true };
        let info = client.container_status(request).await?.into_inner().info;
        let info: serde_json::Value = serde_json::from_str(info.get("info").context("a verbose status has info")?)?;
        pids.push((container.id, info["pid"].as_u64().context("info has a pid")?));
    }
    Ok(pids)
}

/// The value of the sample of `family` that has all of these labels.
fn value(exposition: &str, family: &str, labels: &[(&str, &str)]) -> Option<f64> {
    exposition.lines().find_map(|line| {
        let (set, value) = line.strip_prefix(family)?.strip_prefix('{')?.rsplit_once("} ")?;
        let has = |(name, value): &(&str, &str)| format!(",{set},").contains(&format!(",{name}=\"{value}\","));
        if labels.iter().all(has) { value.trim().parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_found_by_its_labels() {
        let text = "# TYPE container_cpu_usage_seconds_total counter\n\
                    container_cpu_usage_seconds_total{container=\"\",namespace=\"shop\",pod=\"web\"} 9\n\
                    container_cpu_usage_seconds_total{container=\"app\",namespace=\"shop\",pod=\"web\"} 0.25\n";
        let find = |container| value(text, FAMILY, &[("container", container), ("pod", "web")]);
        assert_eq!(find("app"), Some(0.25));
        assert_eq!(find("ap"), None);
        assert_eq!(value(text, "container_cpu", &[("pod", "web")]), None);
    }
}
