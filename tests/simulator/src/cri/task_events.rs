//! containerd's own event service beside CRI: subscribers to `/tasks/oom` are told of out-of-memory kills.
//!
//! k8s-cri has no server for it, so the one method is served by hand, with messages written down here.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::{FutureExt, Stream, StreamExt};
use k8s_cri::v1::runtime_service_server::RuntimeServiceServer;
use tokio_stream::wrappers::BroadcastStream;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::{Grpc, ServerStreamingService};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use super::node::Node;
use super::rpc::Runtime;

const METHOD: &str = "/containerd.services.events.v1.Events/Subscribe";

/// `containerd.services.events.v1.SubscribeRequest`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SubscribeRequest {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}

/// `containerd.types.Envelope`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Envelope {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(string, tag = "3")]
    topic: String,
    #[prost(message, optional, tag = "4")]
    event: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Any {
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

impl Envelope {
    /// A kill in this container, now.
    pub(super) fn oom(container: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let oom = TaskOom { container_id: container.to_owned() };
        let value = prost::Message::encode_to_vec(&oom);
        Self {
            timestamp: Some(Timestamp {
                seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
                nanos: i32::try_from(now.subsec_nanos()).unwrap_or(0),
            }),
            namespace: "k8s.io".to_owned(),
            topic: "/tasks/oom".to_owned(),
            event: Some(Any { type_url: "containerd.events.TaskOOM".to_owned(), value }),
        }
    }
}

/// Everything on the socket: CRI, and containerd's events where the node is containerd's.
#[derive(Clone)]
pub(super) struct Services {
    cri: RuntimeServiceServer<Runtime>,
    node: Node,
}

impl Services {
    pub(super) fn new(runtime: Runtime) -> Self {
        Self { node: runtime.node.clone(), cri: RuntimeServiceServer::new(runtime) }
    }
}

impl<B> Service<Request<B>> for Services
where
    B: tonic::codegen::Body + Send + 'static,
    B::Error: Into<tonic::codegen::StdError> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if request.uri().path() != METHOD {
            return Service::call(&mut self.cri, request);
        }
        let subscribe = Subscribe(self.node.clone());
        async move {
            let codec = ProstCodec::<Envelope, SubscribeRequest>::default();
            Ok(Grpc::new(codec).server_streaming(subscribe, request).await)
        }
        .boxed()
    }
}

/// The method.
struct Subscribe(Node);

impl ServerStreamingService<SubscribeRequest> for Subscribe {
    type Response = Envelope;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Envelope, Status>> + Send>>;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<SubscribeRequest>) -> Self::Future {
        let node = self.0.clone();
        async move {
            if !node.has_task_events() {
                return Err(Status::unimplemented("unknown service containerd.services.events.v1.Events"));
            }
            if request.get_ref().filters != [r#"topic=="/tasks/oom""#] {
                return Err(Status::invalid_argument("only out-of-memory kills are simulated"));
            }
            let mut events = BroadcastStream::new(node.subscribe_to_tasks())
                .map(|event| event.map_err(|lagged| Status::new(Code::DataLoss, lagged.to_string())));
            // As containerd does: the head of the answer comes with the first event.
            let first = events.next().await;
            let events = futures_util::stream::iter(first).chain(events);
            Ok(tonic::Response::new(Box::pin(events) as Self::ResponseStream))
        }
        .boxed()
    }
}
