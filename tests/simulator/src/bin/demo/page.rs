//! What the demo tells a person who has just started it.

use std::fmt::Write;

use crate::agent::Agent;
use crate::node::DemoNode;

/// The page with an agent to ask.
pub(crate) fn with_agent(node: &DemoNode, agent: &Agent) -> String {
    let url = format!("http://{}", agent.address);
    let web = node.pods.first().map_or("", |pod| pod.sandbox.get(..12).unwrap_or_default());
    let questions = aligned(&[
        (format!("curl -s {url}/sandboxes"), "which pods there are"),
        (format!("curl -s {url}/metrics"), "everything"),
        (format!("curl -s '{url}/metrics?sandbox={web}'"), "only shop/web"),
        (format!("curl -s {url}/metrics/cadvisor"), "what the kubelet would serve"),
        (format!("curl -s {url}/metrics/kata"), "what kata-monitor would serve"),
    ]);
    let log = node.agent_log();
    let what_runs = what_runs(node);
    let kata = kata_hints(&url);
    format!(
        "kata-pulse runs at {url}\n\
         \n\
         {what_runs}\
         \n\
         Ask it\n\
         {questions}\
         \n\
         Look for\n\
         \x20 batch/cruncher is throttled in nearly every period; ask twice and see both counters grow alike:\n\
         \x20   curl -s {url}/metrics/cadvisor | grep -E 'cfs_(throttled_)?periods_total.*cruncher'\n\
         \x20 shop/db needs 48 MiB; the files it writes add to its usage for a minute, and not to its working set:\n\
         \x20   curl -s {url}/metrics/cadvisor | grep -E 'memory_(working_set|usage)_bytes.*postgres'\n\
         \x20 batch/finished is listed, and has no container to measure.\n\
         {kata}\
         \n\
         Log of the agent: {}\n\
         Ctrl-C ends it all and leaves nothing behind.\n",
        log.display(),
    )
}

/// What there is to see of the Kata pods.
fn kata_hints(url: &str) -> String {
    format!(
        "\x20 shop/cart runs in a VM; its containers have rows of their own, measured in the guest:\n\
         \x20   curl -s {url}/metrics/cadvisor | grep -E 'cpu_usage_seconds_total.*\"cart\"'\n\
         \x20 and what the VM costs this host is told apart, by process:\n\
         \x20   curl -s {url}/metrics | grep kata_pulse_sandbox_process_cpu_seconds_total\n\
         \x20 batch/stuck hangs, and costs nobody else a sample:\n\
         \x20   curl -s {url}/metrics | grep kata_pulse_sandbox_up\n"
    )
}

/// The page without an agent.
pub(crate) fn without_agent(node: &DemoNode) -> String {
    format!(
        "{}\n\
         Runtime socket: {}\n\
         Start an agent on it with\n\
         \x20 kata-pulse --runtime-endpoint {} --cgroupfs {} --run-dir {}\n\
         Ctrl-C ends it all and leaves nothing behind.\n",
        what_runs(node),
        node.runtime.path().display(),
        node.runtime.path().display(),
        node.cgroups.root().display(),
        node.run_directory().display(),
    )
}

fn what_runs(node: &DemoNode) -> String {
    let mut text = format!("On this host's {}\n", node.cgroups.kind());
    for pod in &node.pods {
        for container in &pod.containers {
            let name = format!("{}/{}", pod.plan.namespace, pod.plan.name);
            // Writing to a string cannot fail.
            writeln!(text, "  {name:<16} {:<12} {}", container.plan.name, container.plan.purpose).ok();
        }
    }
    text.push_str("Kata pods, with a simulated guest each and real processes around it\n");
    for (plan, _) in node.sandboxes.iter().flat_map(|sandboxes| &sandboxes.pods) {
        let name = format!("{}/{}", plan.namespace, plan.name);
        let containers: Vec<_> = plan.containers.iter().map(|(name, _)| *name).collect();
        writeln!(text, "  {name:<16} {:<12} {}", containers.join(", "), plan.purpose).ok();
    }
    if let Some(why) = &node.without_network {
        writeln!(text, "  The pods have no eth0: {why}").ok();
    }
    text
}

/// Commands and what they are for, in two columns.
fn aligned(rows: &[(String, &str)]) -> String {
    let width = rows.iter().map(|(command, _)| command.len()).max().unwrap_or_default();
    rows.iter().map(|(command, purpose)| format!("  {command:<width$}   {purpose}\n")).collect()
}
