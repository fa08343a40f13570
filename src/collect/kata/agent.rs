//! The kata-agent of one guest: the guest's own text, what each container uses, the agent's version. Nothing else is
//! ever asked of it, and one question at a time.

use std::io;
use std::time::Duration;

use crate::protos;
use crate::protos::agent::{
    CgroupStats, CheckRequest, GetMetricsRequest, Metrics, StatsContainerRequest, StatsContainerResponse,
    VersionCheckResponse,
};
use crate::transport::{Address, Client, Method, TransportError};

/// Largest text of a guest that is taken. Real ones have 15 to 40 kB; a guest with 256 vCPUs and 100 disks would
/// have 300 kB. The protocol itself ends at 4 MiB.
const MAX_METRICS_BYTES: usize = 1 << 20;

/// Largest stats of a container that are taken. Real ones have 1 kB; 100 disks would add 20 kB, in the oldest guests
/// 60 kB. Decoded they can take 140 times as much memory, if a guest means it, so 9 MB for a moment.
pub(super) const MAX_STATS_BYTES: usize = 64 << 10;

/// Largest version reply.
const MAX_VERSION_BYTES: usize = 4 << 10;

/// Longest version text kept.
const MAX_VERSION_TEXT_BYTES: usize = 64;

/// Number of the text's field in [`Metrics`].
const METRICS_FIELD: u32 = 1;

// Every call there is. See `protos/agent.proto` for why there are no others.
const VERSION: Method<CheckRequest, VersionCheckResponse> = Method::new("grpc.Health", "Version", MAX_VERSION_BYTES);
const GET_METRICS: Method<GetMetricsRequest, Metrics> =
    Method::new("grpc.AgentService", "GetMetrics", MAX_METRICS_BYTES);
const STATS_CONTAINER: Method<StatsContainerRequest, StatsContainerResponse> =
    Method::new("grpc.AgentService", "StatsContainer", MAX_STATS_BYTES);

/// A connection to the agent of one guest. Cheap to keep, costs the guest one task; dropping it closes the socket.
///
/// Methods take `&mut self`, so that a sandbox can have one request in flight and no more: an agent before 4.1.0 that
/// blocks in one call holds a lock that all others need.
#[derive(Debug)]
pub struct AgentClient {
    client: Client,
}

impl AgentClient {
    /// Connects; each call has the same deadline.
    pub async fn connect(address: &Address, deadline: Duration) -> Result<Self, TransportError> {
        Ok(Self { client: Client::connect(address, deadline).await? })
    }

    /// Whether another call can be made; if not, connect anew.
    pub fn is_open(&self) -> bool {
        self.client.is_open()
    }

    /// The guest as a whole, in Prometheus text, of which `read` makes what is kept. A guest with a policy answers
    /// [`TransportError::Denied`].
    pub async fn guest_metrics<T>(&mut self, read: impl FnOnce(&str) -> T) -> Result<T, TransportError> {
        let text = |payload: &[u8]| {
            let text = protos::bytes_field(payload, METRICS_FIELD)?.unwrap_or_default();
            let text = std::str::from_utf8(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            Ok(read(text))
        };
        self.client.call_with(&GET_METRICS, &GetMetricsRequest::new(), text).await
    }

    /// What a container's cgroup in the guest counts; the sandbox id stands for the pause container.
    pub async fn container_stats(&mut self, id: &str) -> Result<CgroupStats, TransportError> {
        let request = StatsContainerRequest { container_id: id.to_owned(), ..StatsContainerRequest::default() };
        let reply = self.client.call(&STATS_CONTAINER, &request).await?;
        Ok(reply.cgroup_stats.unwrap_or_default())
    }

    /// The agent's version, like `4.1.0`. The guest writes a line into its log for each of these.
    pub async fn version(&mut self) -> Result<String, TransportError> {
        let mut version = self.client.call(&VERSION, &CheckRequest::new()).await?.agent_version;
        version.truncate(version.floor_char_boundary(MAX_VERSION_TEXT_BYTES));
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use protobuf::Message;
    use ttrpc::Code;

    use super::*;
    use crate::collect::kata::stats;
    use crate::model::units::Bytes;
    use crate::transport::fake::Peer;

    const DEADLINE: Duration = Duration::from_secs(20);
    const WRITER: &[u8] = include_bytes!("../../../tests/fixtures/kata/agent-stats-cgroup2-writer.pb");
    const WRITER_ID: &str = "8d4e13e3f2b796fa825f6835cc03bbec86f1a850ab3bc4999cbd4866ae07aafc";

    fn guest() -> Peer {
        Peer::answering(|service, method, payload| match (service, method) {
            ("grpc.Health", "Version") => {
                let agent_version = "4.1.0".to_owned();
                Ok(VersionCheckResponse { agent_version, ..Default::default() }.write_to_bytes().unwrap())
            }
            ("grpc.AgentService", "GetMetrics") => {
                let metrics = "kata_guest_load{item=\"load1\"} 0.5\n".repeat(1000);
                Ok(Metrics { metrics, ..Default::default() }.write_to_bytes().unwrap())
            }
            ("grpc.AgentService", "StatsContainer") => {
                let request: StatsContainerRequest = protos::decode(payload).unwrap();
                match request.container_id.as_str() {
                    WRITER_ID => Ok(WRITER.to_vec()),
                    _ => Err((Code::INVALID_ARGUMENT, "\"invalid container id\"")),
                }
            }
            other => panic!("{other:?} must never be called"),
        })
    }

    #[tokio::test]
    async fn one_connection_serves_all_questions() {
        let guest = guest();
        let mut agent = AgentClient::connect(&guest.unix(), DEADLINE).await.unwrap();
        assert_eq!(agent.version().await.unwrap(), "4.1.0");
        let stats = agent.container_stats(WRITER_ID).await.unwrap();
        assert_eq!(stats::of_agent(&stats).memory.unwrap().usage, Some(Bytes(69_775_360)));
        let error = agent.container_stats("no-such-container").await.unwrap_err();
        assert!(matches!(error, TransportError::UnknownId { ref message, .. } if message == "invalid container id"));
        let lines = agent.guest_metrics(|text| text.lines().count()).await.unwrap();
        assert_eq!(lines, 1000);
        assert!(agent.is_open());
    }

    #[tokio::test]
    async fn a_policy_that_forbids_the_text_still_gives_the_stats() {
        let guest = Peer::answering(|_, method, _| match method {
            "GetMetrics" => Err((Code::PERMISSION_DENIED, "\"GetMetricsRequest is blocked by policy\"")),
            _ => Ok(WRITER.to_vec()),
        });
        let mut agent = AgentClient::connect(&guest.unix(), DEADLINE).await.unwrap();
        let error = agent.guest_metrics(str::len).await.unwrap_err();
        assert!(matches!(error, TransportError::Denied { .. }) && error.is_permanent());
        assert!(agent.container_stats(WRITER_ID).await.is_ok());
    }

    #[tokio::test]
    async fn a_text_that_is_none_or_too_long_breaks_the_connection() {
        for payload in [vec![0x0a, 2, 0xc3, 0x28], vec![0x0a; MAX_METRICS_BYTES + 1000]] {
            let guest = Peer::answering(move |_, _, _| Ok(payload.clone()));
            let mut agent = AgentClient::connect(&guest.unix(), DEADLINE).await.unwrap();
            let error = agent.guest_metrics(str::len).await.unwrap_err();
            assert!(matches!(error, TransportError::Broken { method: "GetMetrics", .. }), "{error:?}");
            assert!(!agent.is_open());
        }
    }

    #[tokio::test]
    async fn replies_may_be_empty() {
        let guest = Peer::answering(|_, _, _| Ok(Vec::new()));
        let mut agent = AgentClient::connect(&guest.unix(), DEADLINE).await.unwrap();
        assert_eq!(agent.guest_metrics(str::len).await.unwrap(), 0);
        assert_eq!(agent.version().await.unwrap(), "");
        assert_eq!(agent.container_stats("x").await.unwrap(), CgroupStats::default());
    }

    #[test]
    fn every_call_is_written_down_in_the_proto_and_reads() {
        let proto = include_str!("../../../protos/agent.proto");
        for (service, method) in [VERSION.names(), GET_METRICS.names(), STATS_CONTAINER.names()] {
            let (package, service) = service.rsplit_once('.').unwrap();
            assert!(proto.contains(&format!("package {package};")));
            let body = proto.split_once(&format!("service {service} {{")).unwrap().1.split_once("\n}").unwrap().0;
            assert!(body.contains(&format!("rpc {method}(")), "{service}/{method}");
        }
        let calls = proto.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next());
        let listed: Vec<&str> = calls.collect();
        assert_eq!(listed, ["Check", "Version", "GetMetrics", "StatsContainer", "GetGuestDetails", "GetVolumeStats"]);
    }
}
