//! What an agent that only measures may ask for. Everything else is noted as a violation, whether or not the real
//! peer would have let it happen.

use crate::kata::kind::Endpoint;

/// Methods of the kata-agent.
const AGENT: [&str; 5] = [
    "grpc.Health/Check",
    "grpc.Health/Version",
    "grpc.AgentService/GetMetrics",
    "grpc.AgentService/StatsContainer",
    "grpc.AgentService/GetGuestDetails",
];

/// Methods of the Task service, of version 2 and, by mistake, of version 3.
const TASK: [&str; 4] = ["Stats", "State", "Pids", "Connect"];
const TASK_SERVICES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];

/// Routes of the shim that change the sandbox, reach into the guest or show the shim's inside. Any path that it does
/// not have is harmless.
const SHIM_FORBIDDEN: [&str; 6] = ["/direct-volume/", "/iptables", "/ip6tables", "/policy", "/debug/", "/agent-url/"];
const SHIM: [&str; 2] = ["/metrics", "/agent-url"];

/// Routes of Cloud Hypervisor.
const HYPERVISOR: [&str; 3] = ["/api/v1/vmm.ping", "/api/v1/vm.info", "/api/v1/vm.counters"];

/// Whether the call may be made. The route is `GET /metrics` or `service/Method`.
pub(super) fn allows(endpoint: Endpoint, route: &str) -> bool {
    match endpoint {
        Endpoint::Agent => AGENT.contains(&route),
        Endpoint::Task => route
            .split_once('/')
            .is_some_and(|(service, method)| TASK_SERVICES.contains(&service) && TASK.contains(&method)),
        Endpoint::Shim => match route.split_once(' ') {
            Some(("GET", path)) => {
                SHIM.contains(&path) || !SHIM_FORBIDDEN.iter().any(|forbidden| path.starts_with(forbidden))
            }
            _ => false,
        },
        Endpoint::Hypervisor => route.strip_prefix("GET ").is_some_and(|path| HYPERVISOR.contains(&path)),
        Endpoint::Reserved => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reading_is_allowed() {
        for (endpoint, route) in [
            (Endpoint::Agent, "grpc.AgentService/GetMetrics"),
            (Endpoint::Task, "containerd.task.v2.Task/Stats"),
            (Endpoint::Task, "containerd.task.v3.Task/Stats"),
            (Endpoint::Shim, "GET /metrics"),
            (Endpoint::Shim, "GET /nothing"),
            (Endpoint::Hypervisor, "GET /api/v1/vm.counters"),
        ] {
            assert!(allows(endpoint, route), "{route}");
        }
        for (endpoint, route) in [
            (Endpoint::Agent, "grpc.AgentService/GetOOMEvent"),
            (Endpoint::Agent, "grpc.AgentService/GetVolumeStats"),
            (Endpoint::Agent, "grpc.AgentService/DestroySandbox"),
            (Endpoint::Task, "containerd.task.v2.Task/Kill"),
            (Endpoint::Task, "containerd.task.v2.TaskX/Stats"),
            (Endpoint::Shim, "POST /metrics"),
            (Endpoint::Shim, "PUT /policy"),
            (Endpoint::Shim, "GET /direct-volume/stats"),
            (Endpoint::Hypervisor, "PUT /api/v1/vm.shutdown"),
            (Endpoint::Hypervisor, "GET /api/v1/vm.delete"),
            (Endpoint::Reserved, "connect"),
        ] {
            assert!(!allows(endpoint, route), "{route}");
        }
    }
}
