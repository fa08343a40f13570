//! The table of CRI v1 methods: one row each, and what answers it.
//!
//! A row becomes a [`Method`] for tests to name, and a function of the generated server trait. The trait
//! comes from `async_trait`, so a row spells out the boxed future that the attribute would have written.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use k8s_cri::v1;
use k8s_cri::v1::runtime_service_server::RuntimeService;
use tokio::sync::Notify;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Code, Request, Response, Status};

use super::fault::{Desk, Fault};
use super::node::Node;

/// The future of an answer.
type Answer<'a, R> = Pin<Box<dyn Future<Output = Result<Response<R>, Status>> + Send + 'a>>;

/// An open event stream.
type Events = Pin<Box<dyn Stream<Item = Result<v1::ContainerEventResponse, Status>> + Send>>;

/// The runtime as one connection sees it.
#[derive(Debug, Clone)]
pub(super) struct Runtime {
    pub(super) node: Node,
    pub(super) desk: Arc<Desk>,
    /// Told when a fault wants this connection closed.
    pub(super) hang_up: Arc<Notify>,
}

macro_rules! methods {
    ($($method:ident $function:ident ($request:ident) -> $reply:ident = $answer:expr;)*) => {
        /// A method of CRI v1's RuntimeService.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "the variants are the method names of the CRI specification")]
        pub enum Method { GetContainerEvents, $($method,)* }

        impl Method {
            /// The name in the CRI specification, `ListPodSandbox`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    Self::GetContainerEvents => "GetContainerEvents",
                    $(Self::$method => stringify!($method),)*
                }
            }
        }

        impl RuntimeService for Runtime {
            type GetContainerEventsStream = Events;

            fn get_container_events<'life0, 'async_trait>(
                &'life0 self,
                _: Request<v1::GetEventsRequest>,
            ) -> Answer<'async_trait, Events>
            where
                'life0: 'async_trait,
                Self: 'async_trait,
            {
                Box::pin(self.open_events())
            }

            $(fn $function<'life0, 'async_trait>(
                &'life0 self,
                request: Request<v1::$request>,
            ) -> Answer<'async_trait, v1::$reply>
            where
                'life0: 'async_trait,
                Self: 'async_trait,
            {
                Box::pin(self.answer(Method::$method, request, $answer))
            })*
        }
    };
}

methods! {
    Version version(VersionRequest) -> VersionResponse = Node::answer_version;
    Status status(StatusRequest) -> StatusResponse = Node::answer_status;
    ListPodSandbox list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse = Node::answer_list_pod_sandbox;
    PodSandboxStatus pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse
        = Node::answer_pod_sandbox_status;
    PodSandboxStats pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse
        = Node::answer_pod_sandbox_stats;
    ListPodSandboxStats list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse
        = Node::answer_list_pod_sandbox_stats;
    ListContainers list_containers(ListContainersRequest) -> ListContainersResponse = Node::answer_list_containers;
    ContainerStatus container_status(ContainerStatusRequest) -> ContainerStatusResponse
        = Node::answer_container_status;
    ContainerStats container_stats(ContainerStatsRequest) -> ContainerStatsResponse = Node::answer_container_stats;
    ListContainerStats list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse
        = Node::answer_list_container_stats;

    // An agent that only reads has no business here; a test sees the attempt in the counter.
    RunPodSandbox run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse = |_, _| unknown("RunPodSandbox");
    StopPodSandbox stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse = |_, _| unknown("StopPodSandbox");
    RemovePodSandbox remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse
        = |_, _| unknown("RemovePodSandbox");
    CreateContainer create_container(CreateContainerRequest) -> CreateContainerResponse
        = |_, _| unknown("CreateContainer");
    StartContainer start_container(StartContainerRequest) -> StartContainerResponse = |_, _| unknown("StartContainer");
    StopContainer stop_container(StopContainerRequest) -> StopContainerResponse = |_, _| unknown("StopContainer");
    RemoveContainer remove_container(RemoveContainerRequest) -> RemoveContainerResponse
        = |_, _| unknown("RemoveContainer");
    UpdateContainerResources update_container_resources(UpdateContainerResourcesRequest)
        -> UpdateContainerResourcesResponse = |_, _| unknown("UpdateContainerResources");
    ReopenContainerLog reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse
        = |_, _| unknown("ReopenContainerLog");
    ExecSync exec_sync(ExecSyncRequest) -> ExecSyncResponse = |_, _| unknown("ExecSync");
    Exec exec(ExecRequest) -> ExecResponse = |_, _| unknown("Exec");
    Attach attach(AttachRequest) -> AttachResponse = |_, _| unknown("Attach");
    PortForward port_forward(PortForwardRequest) -> PortForwardResponse = |_, _| unknown("PortForward");
    UpdateRuntimeConfig update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse
        = |_, _| unknown("UpdateRuntimeConfig");
    CheckpointContainer checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse
        = |_, _| unknown("CheckpointContainer");

    // Absent from containerd 1.6 and 1.7, so an agent must live without them.
    ListMetricDescriptors list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse
        = |_, _| unknown("ListMetricDescriptors");
    ListPodSandboxMetrics list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse
        = |_, _| unknown("ListPodSandboxMetrics");
    RuntimeConfig runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse = |_, _| unknown("RuntimeConfig");
}

impl Runtime {
    async fn answer<Q, R>(
        &self,
        method: Method,
        request: Request<Q>,
        answer: fn(&Node, &Q) -> Result<R, Status>,
    ) -> Result<Response<R>, Status> {
        self.admit(method).await?;
        answer(&self.node, request.get_ref()).map(Response::new)
    }

    async fn open_events(&self) -> Result<Response<Events>, Status> {
        self.admit(Method::GetContainerEvents).await?;
        if !self.node.lock().event_stream {
            return unknown(Method::GetContainerEvents.name());
        }
        let events = BroadcastStream::new(self.node.subscribe())
            .map(|event| event.map_err(|lagged| Status::new(Code::DataLoss, lagged.to_string())));
        Ok(Response::new(Box::pin(events)))
    }

    /// Counts the call and lets a fault have its way with it.
    async fn admit(&self, method: Method) -> Result<(), Status> {
        match self.desk.check_in(method) {
            None => Ok(()),
            Some(Fault::Status(code, message)) => Err(Status::new(code, message)),
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Close) => {
                self.hang_up.notify_one();
                std::future::pending().await
            }
        }
    }
}

/// What a gRPC server written in Go says of a method it does not have.
fn unknown<R>(method: &str) -> Result<R, Status> {
    Err(Status::unimplemented(format!("unknown method {method} for service runtime.v1.RuntimeService")))
}
