//! The container runtime's CRI socket: connection, deadlines, back-off. A leaf: `discover` lists pods through it and
//! `collect` reads writable-layer sizes.
//!
//! Only calls that read are here. One connection is kept and made anew after a failure; a runtime that restarts is
//! picked up again without anyone's help.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    Container, ContainerEventResponse, ContainerStats, ContainerStatsFilter, ContainerStatusRequest,
    ContainerStatusResponse, GetEventsRequest, ListContainerStatsRequest, ListContainersRequest, ListPodSandboxRequest,
    PodSandbox, PodSandboxStatusRequest, PodSandboxStatusResponse, VersionRequest, VersionResponse,
};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::telemetry::Telemetry;

/// Deadline of every call.
pub const DEADLINE: Duration = Duration::from_secs(2);

/// The one method that makes the runtime ask shims in turn.
const STATS: &str = "ListContainerStats";

/// Largest reply taken: a list of thousands of containers with long annotations stays below.
const MAX_REPLY_BYTES: usize = 16 << 20;

/// Pause after a first failure; doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);

/// Longest pause after a refused connection: finding that out costs next to nothing.
const MAX_REFUSED_BACKOFF: Duration = Duration::from_secs(1);

/// Longest pause after a call that got no answer, each of which costs [`DEADLINE`].
const MAX_SILENT_BACKOFF: Duration = Duration::from_secs(5);

/// Sockets that `auto` tries, in this order, below the node's root.
pub const WELL_KNOWN_SOCKETS: [&str; 4] = [
    "run/containerd/containerd.sock",
    "run/k3s/containerd/containerd.sock",
    "run/crio/crio.sock",
    "run/cri-dockerd.sock",
];

/// Where to find the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeEndpoint {
    /// The first of these sockets that exists when it is needed.
    Probe(Vec<PathBuf>),
    /// This socket.
    Socket(PathBuf),
    /// No runtime: containers are found from the cgroup tree alone.
    None,
}

impl std::fmt::Display for RuntimeEndpoint {
    /// As it is configured: `auto`, `none` or the path.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Probe(_) => f.write_str("auto"),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// No socket is configured.
    #[error("no runtime endpoint")]
    NoEndpoint,
    /// None of the well-known sockets exists.
    #[error("no container runtime socket found; set --runtime-endpoint")]
    NotFound,
    /// The socket could not be connected.
    #[error("connect {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something else lies at the socket's path.
    #[error("{path} is not a socket; set --runtime-endpoint to the runtime's")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The last attempt failed a moment ago; the next is not due yet.
    #[error("waiting before the next attempt: {0}")]
    BackingOff(String),
    /// The runtime answered with an error, or not in time.
    #[error("{method}: {}: {}", status.code(), status.message())]
    Call {
        /// The method.
        method: &'static str,
        /// What it said.
        status: Box<Status>,
    },
}

impl CriError {
    /// The runtime says it does not know this method.
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, Self::Call { status, .. } if status.code() == Code::Unimplemented)
    }

    /// The runtime says it does not know this id.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Call { status, .. } if status.code() == Code::NotFound)
    }

    /// There was no answer in time. Whichever deadline fires first says so in its own way.
    pub fn is_timeout(&self) -> bool {
        let late = |code| matches!(code, Code::DeadlineExceeded | Code::Cancelled);
        matches!(self, Self::Call { status, .. } if late(status.code()))
    }

    /// The connection itself is suspect, not just this one request.
    fn breaks_connection(&self) -> bool {
        match self {
            Self::Call { status, .. } => {
                let silent = [Code::Unavailable, Code::DeadlineExceeded, Code::Unknown, Code::Cancelled];
                // A status with a cause is not the runtime's: what came was no answer of its protocol.
                silent.contains(&status.code()) || std::error::Error::source(&**status).is_some()
            }
            _ => true,
        }
    }

    /// This error and its causes in one line.
    pub fn chain(&self) -> String {
        match self {
            Self::Connect { source, .. } => format!("{self}: {source}"),
            other => other.to_string(),
        }
    }
}

/// A client of the CRI socket, shared by those who need it.
#[derive(Debug)]
pub struct Cri {
    endpoint: RuntimeEndpoint,
    telemetry: Arc<Telemetry>,
    connection: Mutex<Connection>,
}

#[derive(Debug, Default)]
struct Connection {
    /// The channel, and the CRI client on it.
    client: Option<(Channel, RuntimeServiceClient<Channel>)>,
    retry: Option<Retry>,
}

impl Connection {
    /// Gives the connection up and pauses before the next attempt, longer after each failure.
    fn back_off(&mut self, error: &CriError) {
        let longest = match error {
            CriError::Call { .. } => MAX_SILENT_BACKOFF,
            _ => MAX_REFUSED_BACKOFF,
        };
        let pause = self.retry.as_ref().map_or(FIRST_BACKOFF, |retry| (retry.pause * 2).min(longest));
        self.client = None;
        self.retry = Some(Retry { at: Instant::now() + pause, pause, because: error.chain() });
    }
}

#[derive(Debug)]
struct Retry {
    at: Instant,
    pause: Duration,
    because: String,
}

impl Cri {
    /// A client that connects when first used.
    pub fn new(endpoint: RuntimeEndpoint, telemetry: Arc<Telemetry>) -> Self {
        if endpoint != RuntimeEndpoint::None {
            telemetry.serve_cri();
        }
        Self { endpoint, telemetry, connection: Mutex::default() }
    }

    /// Whether there is a runtime to ask at all.
    pub fn is_configured(&self) -> bool {
        self.endpoint != RuntimeEndpoint::None
    }

    fn socket(&self) -> Result<&Path, CriError> {
        match &self.endpoint {
            RuntimeEndpoint::None => Err(CriError::NoEndpoint),
            RuntimeEndpoint::Socket(path) => Ok(path),
            RuntimeEndpoint::Probe(paths) => {
                paths.iter().find(|path| path.exists()).map(PathBuf::as_path).ok_or(CriError::NotFound)
            }
        }
    }

    /// The connected client, or why there is none.
    async fn client(&self) -> Result<RuntimeServiceClient<Channel>, CriError> {
        let mut connection = self.connection.lock().await;
        if let Some((_, client)) = &connection.client {
            return Ok(client.clone());
        }
        if let Some(retry) = &connection.retry
            && Instant::now() < retry.at
        {
            return Err(CriError::BackingOff(retry.because.clone()));
        }
        let connected = match self.socket() {
            Ok(path) => connect(path).await,
            Err(error) => Err(error),
        };
        match connected {
            Ok((channel, client)) => {
                connection.client = Some((channel, client.clone()));
                Ok(client)
            }
            Err(error) => {
                connection.back_off(&error);
                Err(error)
            }
        }
    }

    /// Makes one call with deadline, timing and error accounting.
    async fn call<M, T, F>(&self, method: &'static str, message: M, send: F) -> Result<T, CriError>
    where
        F: AsyncFnOnce(&mut RuntimeServiceClient<Channel>, Request<M>) -> Result<Response<T>, Status>,
    {
        let result = self.attempt(method, message, send).await;
        self.account(method, &result).await;
        result
    }

    /// Draws the consequences of a call for the connection and for what is said of the runtime.
    async fn account<T>(&self, method: &'static str, result: &Result<T, CriError>) {
        // Not knowing an id or a method is an answer too; only silence and refusal mean the runtime is down.
        let answered = result.as_ref().map_or_else(|error| !error.breaks_connection(), |_| true);
        self.telemetry.cri_up.set(i64::from(answered));
        match result {
            Err(error) if !matches!(error, CriError::BackingOff(_)) => {
                self.telemetry.cri_errors.with_label_values(&[method]).inc();
                if let CriError::Call { .. } = error
                    && error.breaks_connection()
                {
                    self.connection.lock().await.back_off(error);
                }
            }
            Err(_) => {}
            Ok(_) => self.connection.lock().await.retry = None,
        }
    }

    async fn attempt<M, T, F>(&self, method: &'static str, message: M, send: F) -> Result<T, CriError>
    where
        F: AsyncFnOnce(&mut RuntimeServiceClient<Channel>, Request<M>) -> Result<Response<T>, Status>,
    {
        let mut client = self.client().await?;
        let started = Instant::now();
        let mut request = Request::new(message);
        request.set_timeout(DEADLINE);
        let reply = tokio::time::timeout(DEADLINE, send(&mut client, request))
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        let took = started.elapsed().as_secs_f64();
        self.telemetry.cri_request_duration.with_label_values(&[method]).observe(took);
        reply.map(Response::into_inner).map_err(|status| CriError::Call { method, status: Box::new(status) })
    }

    /// Name and version of the runtime.
    pub async fn version(&self) -> Result<VersionResponse, CriError> {
        let message = VersionRequest { version: "v1".to_owned() };
        self.call("Version", message, async |client, request| client.version(request).await).await
    }

    /// All pod sandboxes.
    pub async fn sandboxes(&self) -> Result<Vec<PodSandbox>, CriError> {
        let message = ListPodSandboxRequest::default();
        let reply = self
            .call("ListPodSandbox", message, async |client, request| client.list_pod_sandbox(request).await)
            .await?;
        Ok(reply.items)
    }

    /// All containers.
    pub async fn containers(&self) -> Result<Vec<Container>, CriError> {
        let message = ListContainersRequest::default();
        let reply =
            self.call("ListContainers", message, async |client, request| client.list_containers(request).await).await?;
        Ok(reply.containers)
    }

    /// Status of one sandbox, with the runtime's own details.
    pub async fn sandbox_status(&self, id: &str) -> Result<PodSandboxStatusResponse, CriError> {
        let message = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        self.call("PodSandboxStatus", message, async |client, request| client.pod_sandbox_status(request).await).await
    }

    /// Status of one container.
    pub async fn container_status(&self, id: &str) -> Result<ContainerStatusResponse, CriError> {
        let message = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        self.call("ContainerStatus", message, async |client, request| client.container_status(request).await).await
    }

    /// Stats of all containers.
    pub async fn container_stats(&self) -> Result<Vec<ContainerStats>, CriError> {
        let message = ListContainerStatsRequest { filter: None };
        let reply =
            self.call(STATS, message, async |client, request| client.list_container_stats(request).await).await?;
        Ok(reply.stats)
    }

    /// Stats of one sandbox's containers. The runtime asks the sandbox's shim in turn, so silence is the shim's: it does
    /// not make the runtime count as down.
    pub async fn sandbox_container_stats(&self, id: &str) -> Result<Vec<ContainerStats>, CriError> {
        let filter = ContainerStatsFilter { pod_sandbox_id: id.to_owned(), ..ContainerStatsFilter::default() };
        let message = ListContainerStatsRequest { filter: Some(filter) };
        let send =
            async |client: &mut RuntimeServiceClient<Channel>, request| client.list_container_stats(request).await;
        let result = self.attempt(STATS, message, send).await;
        let of_shim = |error: &CriError| {
            error.is_timeout() || matches!(error, CriError::Call { status, .. } if status.code() == Code::Unknown)
        };
        if result.as_ref().is_err_and(of_shim) {
            self.telemetry.cri_errors.with_label_values(&[STATS]).inc();
        } else {
            self.account(STATS, &result).await;
        }
        Ok(result?.stats)
    }

    /// The channel itself, for what a runtime speaks beside CRI.
    pub async fn channel(&self) -> Result<Channel, CriError> {
        Ok(self.connected().await?.0)
    }

    /// The connection there is. Making one is left to the calls that are timed and counted.
    async fn connected(&self) -> Result<(Channel, RuntimeServiceClient<Channel>), CriError> {
        let connection = self.connection.lock().await;
        connection.client.clone().ok_or_else(|| CriError::BackingOff("not connected".to_owned()))
    }

    /// The stream of container events, where the runtime has one (containerd 1.7, CRI-O 1.27).
    pub async fn events(&self) -> Result<Streaming<ContainerEventResponse>, CriError> {
        let (_, mut client) = self.connected().await?;
        // No deadline here: containerd sends the head of its answer only with the first event, so opening the stream
        // takes as long as the node stays quiet. Whoever waits for it waits for nothing else.
        match client.get_container_events(GetEventsRequest {}).await {
            Ok(stream) => Ok(stream.into_inner()),
            Err(status) => Err(CriError::Call { method: "GetContainerEvents", status: Box::new(status) }),
        }
    }
}

async fn connect(path: &Path) -> Result<(Channel, RuntimeServiceClient<Channel>), CriError> {
    let failed = |source| CriError::Connect { path: path.to_owned(), source };
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.file_type().is_socket()) {
        return Err(CriError::NotASocket { path: path.to_owned() });
    }
    // A first plain connection tells a missing or foreign socket from a runtime that is slow to answer.
    UnixStream::connect(path).await.map_err(failed)?;
    let socket = path.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    let channel = Endpoint::from_static("http://cri.invalid")
        .connect_timeout(DEADLINE)
        .connect_with_connector(connector)
        .await
        .map_err(|error| failed(std::io::Error::other(error)))?;
    let client = RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_REPLY_BYTES);
    Ok((channel, client))
}
