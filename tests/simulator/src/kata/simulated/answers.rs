//! What a simulated sandbox says at each door.

use std::path::Path;
use std::sync::atomic::Ordering;

use protobuf::{Message, MessageField};

use super::Simulated;
use crate::kata::dice::Dice;
use crate::kata::host::{self, run::RUN};
use crate::kata::kind::{Hypervisor, Runtime};
use crate::kata::layout::Layout;
use crate::kata::say::exposition::{self, Dialect, Family};
use crate::kata::say::lies::{BODY_LIMIT, RPC_LIMIT};
use crate::kata::say::{agent_stats, agent_text, hypervisor_json, shim_text, task_stats};
use crate::kata::serve::{Answers, Call, Code, HttpReply, HttpRequest, RpcReply};
use crate::kata::truth::{ContainerTruth, Truth};
use crate::kata::wire::{agent, task};

/// The buffer of Go's response writer: the size of a chunk, which ends wherever it is full.
const GO_BUFFER: usize = 2048;

impl Simulated {
    fn agent_families(&self, truth: &Truth, wrong_units: bool) -> Vec<Family> {
        let scrapes = self.agent_scrapes.fetch_add(1, Ordering::Relaxed) + 1;
        agent_text::families(&truth.guest, scrapes, wrong_units)
    }

    fn guest_metrics(&self, call: &Call<'_>) -> RpcReply {
        if self.facts.plan.denies_metrics {
            let text = "GetMetricsRequest is blocked by policy: ".to_owned();
            return RpcReply::Status(Code::PERMISSION_DENIED, text);
        }
        let (truth, lie) = self.told();
        let mut text = exposition::print(&self.agent_families(&truth, call.wrong_units), Dialect::Rust);
        if let Some(lie) = lie {
            text.push_str(&lie.text(RPC_LIMIT.saturating_sub(text.len())));
        }
        RpcReply::message(&agent::Metrics { metrics: text, ..Default::default() })
    }

    fn stats_manner(&self, wrong_units: bool) -> agent_stats::Manner {
        let plan = &self.facts.plan;
        agent_stats::Manner {
            guest: plan.guest_cgroup,
            reports_throttled_time: plan.reports_throttled_time,
            wrong_units,
        }
    }

    fn stats_container(&self, call: &Call<'_>) -> RpcReply {
        let Ok(request) = agent::StatsContainerRequest::parse_from_bytes(call.payload) else { return undecodable() };
        let (truth, lie) = self.told();
        let Some(container) = find(&truth, &request.container_id) else {
            // The quotes are part of the text.
            return RpcReply::Status(Code::INVALID_ARGUMENT, "\"invalid container id\"".to_owned());
        };
        let mut response = agent_stats::response(container, self.stats_manner(call.wrong_units));
        if let Some(lie) = lie {
            lie.spoil(&mut response);
        }
        RpcReply::message(&response)
    }

    fn guest_details(&self) -> RpcReply {
        let handlers = ["blk", "ephemeral", "local", "nvdimm", "overlayfs", "scsi", "virtio-fs"];
        let details = agent::AgentDetails {
            version: self.facts.plan.agent_version.clone(),
            storage_handlers: handlers.map(str::to_owned).to_vec(),
            ..Default::default()
        };
        RpcReply::message(&agent::GuestDetailsResponse {
            mem_block_size_bytes: 128 << 20,
            agent_details: MessageField::some(details),
            ..Default::default()
        })
    }

    fn task_reply(&self, message: &impl Message) -> RpcReply {
        match (RpcReply::message(message), self.facts.plan.runtime) {
            (RpcReply::Payload(payload), Runtime::Go) => RpcReply::Bare(payload),
            (reply, _) => reply,
        }
    }

    fn task_stats(&self, id: &str, wrong_units: bool) -> RpcReply {
        let (truth, _) = self.told();
        let Some(container) = find(&truth, id) else { return not_found(id) };
        let manner = task_stats::Manner {
            runtime: self.facts.plan.runtime,
            host: self.facts.host,
            agent: self.stats_manner(wrong_units),
        };
        let stats = MessageField::some(task_stats::payload(container, manner));
        self.task_reply(&task::StatsResponse { stats, ..Default::default() })
    }

    fn task_state(&self, id: &str) -> RpcReply {
        self.task_reply(&task::StateResponse {
            id: id.to_owned(),
            bundle: format!("{RUN}/{}", Layout::bundle(id)),
            pid: self.facts.pids.hypervisor,
            status: task::Status::RUNNING.into(),
            ..Default::default()
        })
    }

    fn shim_metrics(&self, request: &HttpRequest) -> HttpReply {
        let plan = &self.facts.plan;
        if plan.hypervisor.dies_of_metrics(plan.runtime) {
            return HttpReply::Die;
        }
        let (truth, lie) = self.told();
        let scrapes = self.shim_scrapes.fetch_add(1, Ordering::Relaxed) + 1;
        let manner = shim_text::Manner {
            runtime: plan.runtime,
            hypervisor: plan.hypervisor,
            scrapes,
            wrong_units: request.wrong_units,
        };
        let own = shim_text::families(&truth, manner);
        // A section that fails is left out, and the status stays 200.
        let heard = !plan.denies_metrics && !self.agent_unheard.load(Ordering::Acquire);
        let mut agent = if heard { self.agent_families(&truth, request.wrong_units) } else { Vec::new() };
        let (families, dialect) = match plan.runtime {
            Runtime::Go => {
                shuffle(&mut agent, scrapes);
                (own.into_iter().chain(agent).collect::<Vec<_>>(), Dialect::Go)
            }
            Runtime::Rust => (agent.into_iter().chain(own).collect(), Dialect::Rust),
        };
        let mut text = exposition::print(&families, dialect);
        if let Some(lie) = lie.filter(|_| heard) {
            text.push_str(&lie.text(BODY_LIMIT));
        }
        HttpReply::Bytes(self.shim_answer(200, &text))
    }

    /// Before there is an agent, one runtime fails and the other says nothing.
    fn agent_url(&self) -> Vec<u8> {
        let unheard = self.agent_unheard.load(Ordering::Acquire);
        match self.facts.plan.runtime {
            Runtime::Go if unheard => self.shim_answer(500, "agent is not running\n"),
            Runtime::Rust if unheard => self.shim_answer(200, ""),
            _ => self.shim_answer(200, &self.facts.layout.agent_url(Path::new(RUN))),
        }
    }

    /// A body as the runtime's HTTP server frames it.
    fn shim_answer(&self, status: u16, body: &str) -> Vec<u8> {
        let reason = match status {
            200 => "OK",
            404 => "Not Found",
            _ => "Internal Server Error",
        };
        let date = "Sat, 21 Nov 2026 02:05:40 GMT";
        match self.facts.plan.runtime {
            Runtime::Rust => {
                let length = body.len();
                format!("HTTP/1.1 {status} {reason}\r\ncontent-length: {length}\r\ndate: {date}\r\n\r\n{body}").into()
            }
            Runtime::Go => {
                let head = format!(
                    "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nDate: {date}\r\n"
                );
                // What fits into the writer's buffer is sent with its length.
                if body.len() <= GO_BUFFER {
                    return format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
                }
                let mut bytes = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
                for chunk in body.as_bytes().chunks(GO_BUFFER) {
                    bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                    bytes.extend(chunk);
                    bytes.extend(b"\r\n");
                }
                bytes.extend(b"0\r\n\r\n");
                bytes
            }
        }
    }
}

impl Answers for Simulated {
    fn agent(&self, call: &Call<'_>) -> RpcReply {
        match call.route {
            "grpc.Health/Check" => RpcReply::message(&agent::HealthCheckResponse {
                status: agent::health_check_response::ServingStatus::SERVING.into(),
                ..Default::default()
            }),
            "grpc.Health/Version" => RpcReply::message(&agent::VersionCheckResponse {
                grpc_version: "0.0.1".to_owned(),
                agent_version: self.facts.plan.agent_version.clone(),
                ..Default::default()
            }),
            "grpc.AgentService/GetMetrics" => self.guest_metrics(call),
            "grpc.AgentService/StatsContainer" => self.stats_container(call),
            "grpc.AgentService/GetGuestDetails" => self.guest_details(),
            // It waits for an event, and takes the next one from whom it belongs to.
            "grpc.AgentService/GetOOMEvent" => RpcReply::Silence,
            other => unimplemented_method(other),
        }
    }

    fn task(&self, call: &Call<'_>) -> RpcReply {
        // Every request has the container's id as its first field.
        let Ok(request) = task::StatsRequest::parse_from_bytes(call.payload) else { return undecodable() };
        let id = request.id.as_str();
        let pids = self.facts.pids;
        match call.route {
            _ if !call.route.starts_with("containerd.task.v2.Task/") => unimplemented_service(call.route),
            "containerd.task.v2.Task/Stats" => self.task_stats(id, call.wrong_units),
            "containerd.task.v2.Task/State" | "containerd.task.v2.Task/Pids" if find(&self.truth(), id).is_none() => {
                not_found(id)
            }
            "containerd.task.v2.Task/State" => self.task_state(id),
            "containerd.task.v2.Task/Pids" => {
                let process = task::ProcessInfo { pid: pids.hypervisor, ..Default::default() };
                self.task_reply(&task::PidsResponse { processes: vec![process], ..Default::default() })
            }
            "containerd.task.v2.Task/Connect" => self.task_reply(&task::ConnectResponse {
                shim_pid: pids.shim,
                task_pid: pids.hypervisor,
                ..Default::default()
            }),
            other => unimplemented_method(other),
        }
    }

    fn shim(&self, request: &HttpRequest) -> HttpReply {
        let go = self.facts.plan.runtime == Runtime::Go;
        // The Go server looks at the path alone.
        match request.path.as_str() {
            "/metrics" if go || request.method == "GET" => self.shim_metrics(request),
            "/agent-url" if go || request.method == "GET" => HttpReply::Bytes(self.agent_url()),
            _ if go => HttpReply::Bytes(self.shim_answer(404, "404 page not found\n")),
            _ => HttpReply::Bytes(self.shim_answer(404, "URL NOT FOUND")),
        }
    }

    fn hypervisor(&self, request: &HttpRequest) -> HttpReply {
        let call = self.hypervisor_calls.fetch_add(1, Ordering::Relaxed);
        let (vm, paused_at, lie) = {
            let state = self.lock();
            (state.vm, state.paused_at, state.lie)
        };
        let truth = paused_at.map_or_else(|| self.truth(), |tick| self.truth_at(tick));
        let cloud_hypervisor = self.facts.plan.hypervisor == Hypervisor::CloudHypervisor;
        let (status, body) = match request.path.as_str() {
            "/api/v1/vmm.ping" if cloud_hypervisor => hypervisor_json::ping(self.facts.pids.hypervisor),
            "/api/v1/vm.info" if cloud_hypervisor => hypervisor_json::info(&truth.vmm, vm, self.facts.plan.vcpus),
            "/api/v1/vm.counters" if cloud_hypervisor => {
                let (status, body) = hypervisor_json::counters(&truth.vmm, vm, call, request.wrong_units);
                match lie {
                    Some(lie) => (status, lie.counters(&body)),
                    None => (status, body),
                }
            }
            _ => (404, String::new()),
        };
        let head = "Server: Cloud Hypervisor API\r\nConnection: keep-alive\r\nContent-Type: application/json";
        let answer = format!("HTTP/1.1 {status} \r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        HttpReply::Bytes(answer.into_bytes())
    }

    /// The shim has aborted: its socket and directories are gone, so is the task; hypervisor and virtiofsd run on.
    fn died(&self, _of: &str) {
        self.remove_directories();
        self.remove_bundles();
        if let Some(root) = &self.root {
            host::proc::remove(root, self.facts.pids.shim);
        }
        if self.node.pod(self.facts.id()).is_some() {
            self.node.stop_pod(self.facts.id());
        }
    }
}

fn find<'a>(truth: &'a Truth, id: &str) -> Option<&'a ContainerTruth> {
    truth.containers.iter().find(|container| container.id == id)
}

fn undecodable() -> RpcReply {
    RpcReply::Status(Code::INVALID_ARGUMENT, "cannot decode the request".to_owned())
}

fn not_found(id: &str) -> RpcReply {
    RpcReply::Status(Code::NOT_FOUND, format!("container does not exist {id}: not found"))
}

fn unimplemented_method(route: &str) -> RpcReply {
    let method = route.rsplit('/').next().unwrap_or_default();
    RpcReply::Status(Code::UNIMPLEMENTED, format!("{method} method"))
}

fn unimplemented_service(route: &str) -> RpcReply {
    let service = route.split('/').next().unwrap_or_default();
    RpcReply::Status(Code::UNIMPLEMENTED, format!("service {service}"))
}

/// Another order in every scrape, as of a Go map.
fn shuffle<T>(items: &mut [T], turn: u64) {
    let dice = Dice::new(turn, "order");
    for left in (1..items.len()).rev() {
        let bound = u64::try_from(left + 1).unwrap_or(1);
        let other = usize::try_from(dice.roll(&left.to_string(), bound)).unwrap_or_default();
        items.swap(left, other);
    }
}
