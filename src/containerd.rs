//! containerd's own event service, on the socket that also speaks CRI. A leaf.
//!
//! One topic is followed: out-of-memory kills. CRI tells of a kill only when it ended a container; a shim tells of every
//! one, and for a container in a guest nobody else on the node does. Other runtimes do not have the service and say so.
//!
//! Messages as in containerd 1.7 and 2.x, `api/services/events/v1/events.proto`, `api/events/task.proto`.

use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::cri::{Cri, CriError};

const METHOD: &str = "/containerd.services.events.v1.Events/Subscribe";

/// What is asked for, in containerd's filter language.
const TOPIC: &str = r#"topic=="/tasks/oom""#;

/// Where containerd keeps the containers that CRI knows.
const NAMESPACE: &str = "k8s.io";

/// Largest event taken: two short strings.
const MAX_EVENT_BYTES: usize = 16 << 10;

#[derive(Clone, PartialEq, prost::Message)]
struct SubscribeRequest {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}

/// One event of the stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Envelope {
    /// When it happened.
    #[prost(message, optional, tag = "1")]
    timestamp: Option<Timestamp>,
    /// containerd's, not Kubernetes'.
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(string, tag = "3")]
    topic: String,
    #[prost(message, optional, tag = "4")]
    event: Option<Event>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, prost::Message)]
struct Event {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TaskOom {
    #[prost(string, tag = "1")]
    container_id: String,
}

/// One kill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OomKill {
    /// The container's id.
    pub container: String,
    /// When, Unix time: seconds and nanoseconds.
    pub at: (i64, i32),
}

/// Kills as they happen.
#[derive(Debug)]
pub struct OomKills {
    events: Streaming<Envelope>,
}

/// Opens the stream. containerd answers with its first event: this may wait for hours, and must not have a deadline.
pub async fn oom_kills(cri: &Cri) -> Result<OomKills, CriError> {
    let failed = |status: Status| CriError::Call { method: "Subscribe", status: Box::new(status) };
    let mut grpc = Grpc::new(cri.channel().await?).max_decoding_message_size(MAX_EVENT_BYTES);
    let ready = grpc.ready().await;
    ready.map_err(|error| failed(Status::new(Code::Unavailable, error.to_string())))?;
    let request = Request::new(SubscribeRequest { filters: vec![TOPIC.to_owned()] });
    let codec = ProstCodec::<SubscribeRequest, Envelope>::default();
    let stream = grpc.server_streaming(request, PathAndQuery::from_static(METHOD), codec).await;
    Ok(OomKills { events: stream.map_err(failed)?.into_inner() })
}

impl OomKills {
    /// The next kill; `None` when the stream has ended.
    pub async fn next(&mut self) -> Option<OomKill> {
        loop {
            let envelope = self.events.message().await.ok()??;
            if let Some(kill) = read(&envelope) {
                return Some(kill);
            }
        }
    }
}

/// The kill that an event tells of, if it does.
pub fn read(envelope: &Envelope) -> Option<OomKill> {
    let event = envelope.event.as_ref().filter(|event| event.type_url.ends_with("containerd.events.TaskOOM"))?;
    if envelope.namespace != NAMESPACE {
        return None;
    }
    let container = TaskOom::decode(&*event.value).ok()?.container_id;
    let at = envelope.timestamp.as_ref().map_or((0, 0), |timestamp| (timestamp.seconds, timestamp.nanos));
    (!container.is_empty()).then_some(OomKill { container, at })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(namespace: &str, type_url: &str, value: Vec<u8>) -> Envelope {
        Envelope {
            timestamp: Some(Timestamp { seconds: 1_700_000_000, nanos: 5 }),
            namespace: namespace.to_owned(),
            topic: "/tasks/oom".to_owned(),
            event: Some(Event { type_url: type_url.to_owned(), value }),
        }
    }

    #[test]
    fn only_kills_of_kubernetes_containers_are_read() {
        let oom = TaskOom { container_id: "abc".to_owned() }.encode_to_vec();
        let kill = OomKill { container: "abc".to_owned(), at: (1_700_000_000, 5) };
        assert_eq!(read(&envelope("k8s.io", "containerd.events.TaskOOM", oom.clone())), Some(kill.clone()));
        assert_eq!(read(&envelope("k8s.io", "types.containerd.io/containerd.events.TaskOOM", oom.clone())), Some(kill));
        assert_eq!(read(&envelope("moby", "containerd.events.TaskOOM", oom.clone())), None);
        assert_eq!(read(&envelope("k8s.io", "containerd.events.TaskExit", oom)), None);
        assert_eq!(read(&envelope("k8s.io", "containerd.events.TaskOOM", vec![0xff, 1])), None);
        assert_eq!(read(&envelope("k8s.io", "containerd.events.TaskOOM", Vec::new())), None);
        assert_eq!(read(&Envelope::default()), None);
    }
}
