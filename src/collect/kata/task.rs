//! The Task service of one sandbox's shim: stats of its containers as the shim tells them, and the ids of its
//! processes on the host. Nothing else is ever asked of it.
//!
//! It is the socket by which containerd controls the sandbox, and in the Go runtime a call of `Stats` holds up all
//! others: a fallback for guests whose agent cannot be reached.

use std::time::Duration;

use protobuf::well_known_types::any::Any;

use crate::collect::kata::agent::MAX_STATS_BYTES;
use crate::protos::task::{ConnectRequest, ConnectResponse, PidsRequest, PidsResponse, StatsRequest, StatsResponse};
use crate::transport::{Address, Client, Method, TransportError};

/// Largest of the other replies: a few numbers.
const MAX_REPLY_BYTES: usize = 16 << 10;

// Every call there is. See `protos/task.proto` for why there are no others.
const SERVICE: &str = "containerd.task.v2.Task";
const STATS: Method<StatsRequest, StatsResponse> = Method::new(SERVICE, "Stats", MAX_STATS_BYTES);
const PIDS: Method<PidsRequest, PidsResponse> = Method::new(SERVICE, "Pids", MAX_REPLY_BYTES);
const CONNECT: Method<ConnectRequest, ConnectResponse> = Method::new(SERVICE, "Connect", MAX_REPLY_BYTES);

/// Processes of a sandbox on the host. `None` where the shim says 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processes {
    /// The shim.
    pub shim: Option<u32>,
    /// The hypervisor.
    pub hypervisor: Option<u32>,
}

/// A connection to the shim of one sandbox. Dropping it closes the socket.
#[derive(Debug)]
pub struct TaskClient {
    client: Client,
}

impl TaskClient {
    /// Connects; each call has the same deadline.
    pub async fn connect(address: &Address, deadline: Duration) -> Result<Self, TransportError> {
        Ok(Self { client: Client::connect(address, deadline).await? })
    }

    /// Whether another call can be made; if not, connect anew.
    pub fn is_open(&self) -> bool {
        self.client.is_open()
    }

    /// Stats of a container, or of the pause container by the sandbox id; for [`super::stats::of_task`].
    pub async fn stats(&mut self, id: &str) -> Result<Any, TransportError> {
        let request = StatsRequest { id: id.to_owned(), ..StatsRequest::default() };
        Ok(self.client.call(&STATS, &request).await?.stats.unwrap_or_default())
    }

    /// The hypervisor's process, whichever container of the sandbox is asked about: the one entry of `Pids`. With
    /// Dragonball it is a thread of the shim.
    pub async fn pids(&mut self, id: &str) -> Result<Option<u32>, TransportError> {
        let request = PidsRequest { id: id.to_owned(), ..PidsRequest::default() };
        let reply = self.client.call(&PIDS, &request).await?;
        Ok(reply.processes.first().and_then(|process| known(process.pid)))
    }

    /// The shim's own process and the hypervisor's.
    pub async fn processes(&mut self, id: &str) -> Result<Processes, TransportError> {
        let request = ConnectRequest { id: id.to_owned(), ..ConnectRequest::default() };
        let reply = self.client.call(&CONNECT, &request).await?;
        Ok(Processes { shim: known(reply.shim_pid), hypervisor: known(reply.task_pid) })
    }
}

fn known(pid: u32) -> Option<u32> {
    (pid != 0).then_some(pid)
}

#[cfg(test)]
mod tests {
    use ttrpc::Code;

    use super::*;
    use crate::collect::kata::stats;
    use crate::model::inventory::KataRuntime;
    use crate::model::units::Seconds;
    use crate::protos;
    use crate::transport::fake::Peer;

    const DEADLINE: Duration = Duration::from_secs(20);
    const SPIN: &[u8] = include_bytes!("../../../tests/fixtures/kata/task-stats-rs-spin.pb");
    const SPIN_ID: &str = "17fb07463b2ea00befae8ab3544637ceb0961b2a9e8769c3f886de9dd13a53f7";

    #[tokio::test]
    async fn a_recorded_shim_answers() {
        let shim = Peer::answering(|service, method, payload| {
            assert_eq!(service, SERVICE);
            let request: StatsRequest = protos::decode(payload).unwrap();
            match (method, request.id.as_str()) {
                ("Stats", SPIN_ID) => Ok(SPIN.to_vec()),
                // As recorded: one process, 283; shim 274 and task 283.
                ("Pids", SPIN_ID) => Ok(vec![0x0a, 3, 0x08, 0x9b, 0x02]),
                ("Connect", SPIN_ID) => Ok(vec![0x08, 0x92, 0x02, 0x10, 0x9b, 0x02]),
                ("Stats" | "Pids" | "Connect", _) => Err((Code::NOT_FOUND, "container not found")),
                other => panic!("{other:?} must never be called"),
            }
        });
        let mut task = TaskClient::connect(&shim.unix(), DEADLINE).await.unwrap();
        let usage = stats::of_task(&task.stats(SPIN_ID).await.unwrap(), KataRuntime::Rs).unwrap();
        assert_eq!(usage.cpu.unwrap().usage, Seconds::from_nanos(53_164_637_000));
        assert_eq!(task.pids(SPIN_ID).await.unwrap(), Some(283));
        let processes = task.processes(SPIN_ID).await.unwrap();
        assert_eq!(processes, Processes { shim: Some(274), hypervisor: Some(283) });
        assert!(matches!(task.stats("x").await, Err(TransportError::UnknownId { .. })));
        assert!(task.is_open());
    }

    #[tokio::test]
    async fn processes_that_are_not_told_are_not_process_zero() {
        let shim = Peer::answering(|_, _, _| Ok(Vec::new()));
        let mut task = TaskClient::connect(&shim.unix(), DEADLINE).await.unwrap();
        assert_eq!(task.pids("x").await.unwrap(), None);
        assert_eq!(task.processes("x").await.unwrap(), Processes { shim: None, hypervisor: None });
        assert_eq!(task.stats("x").await.unwrap(), Any::default());
    }

    #[test]
    fn every_call_is_written_down_in_the_proto_and_reads() {
        let proto = include_str!("../../../protos/task.proto");
        assert!(proto.contains("package containerd.task.v2;") && proto.contains("service Task {"));
        let calls = proto.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next());
        let listed: Vec<&str> = calls.collect();
        assert_eq!(listed, ["State", "Pids", "Stats", "Connect"]);
        for (service, method) in [STATS.names(), PIDS.names(), CONNECT.names()] {
            assert_eq!(service, SERVICE);
            assert!(listed.contains(&method));
        }
    }
}
