//! The Task service of one sandbox's shim: stats of its containers as the shim tells them. Nothing else is ever asked
//! of it.
//!
//! It is the socket by which containerd controls the sandbox, and in the Go runtime a call of `Stats` holds up all
//! others: a fallback for guests whose agent cannot be reached.

use std::time::Duration;

use protobuf::well_known_types::any::Any;

use crate::collect::kata::agent::MAX_STATS_BYTES;
use crate::protos::task::{StatsRequest, StatsResponse};
use crate::transport::{Address, Client, Method, TransportError};

// The one call there is. See `protos/task.proto` for why there are no others.
const SERVICE: &str = "containerd.task.v2.Task";
const STATS: Method<StatsRequest, StatsResponse> = Method::new(SERVICE, "Stats", MAX_STATS_BYTES);

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
                ("Stats", _) => Err((Code::NOT_FOUND, "container not found")),
                other => panic!("{other:?} must never be called"),
            }
        });
        let mut task = TaskClient::connect(&shim.unix(), DEADLINE).await.unwrap();
        let usage = stats::of_task(&task.stats(SPIN_ID).await.unwrap(), KataRuntime::Rs).unwrap();
        assert_eq!(usage.cpu.unwrap().usage, Seconds::from_nanos(53_164_637_000));
        assert!(matches!(task.stats("x").await, Err(TransportError::UnknownId { .. })));
        assert!(task.is_open());
    }

    #[tokio::test]
    async fn an_empty_answer_has_no_stats() {
        let shim = Peer::answering(|_, _, _| Ok(Vec::new()));
        let mut task = TaskClient::connect(&shim.unix(), DEADLINE).await.unwrap();
        assert_eq!(task.stats("x").await.unwrap(), Any::default());
    }

    #[test]
    fn the_call_is_written_down_in_the_proto() {
        let proto = include_str!("../../../protos/task.proto");
        assert!(proto.contains("package containerd.task.v2;") && proto.contains("service Task {"));
        let calls = proto.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next());
        let listed: Vec<&str> = calls.collect();
        assert_eq!(listed, ["State", "Pids", "Stats", "Connect"]);
        let (service, method) = STATS.names();
        assert_eq!(service, SERVICE);
        assert!(listed.contains(&method));
    }
}
