//! The CRI client, blocking: tests read better without async, and nothing here needs two calls at a time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hyper_util::rt::TokioIo;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ContainerConfig, ContainerStatus, ContainerStatusRequest, CreateContainerRequest, ImageSpec, ImageStatusRequest,
    PodSandboxConfig, PodSandboxStatus, PodSandboxStatusRequest, RemoveContainerRequest, RemovePodSandboxRequest,
    RunPodSandboxRequest, StartContainerRequest, StatusRequest, StopContainerRequest, StopPodSandboxRequest,
};
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Response, Status};

/// Longer than any call takes on a slow machine under load; a call that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Cri {
    runtime: Runtime,
    socket: PathBuf,
}

type Runtimes = RuntimeServiceClient<Channel>;

impl Cri {
    pub(crate) fn new(socket: &Path) -> Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the CRI client")?;
        Ok(Self { runtime, socket: socket.to_owned() })
    }

    /// Whether the runtime answers and says that it and its network are ready.
    pub(crate) fn ready(&self) -> Result<()> {
        let request = StatusRequest { verbose: false };
        let status = self.call("Status", async |mut cri| cri.status(request).await)?;
        for condition in status.status.unwrap_or_default().conditions {
            if !condition.status {
                bail!("{}: {}", condition.r#type, condition.message);
            }
        }
        Ok(())
    }

    pub(crate) fn run_sandbox(&self, config: PodSandboxConfig, handler: &str) -> Result<String> {
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
        let made = self.call("RunPodSandbox", async |mut cri| cri.run_pod_sandbox(request).await)?;
        Ok(made.pod_sandbox_id)
    }

    pub(crate) fn sandbox_status(&self, id: &str) -> Result<(PodSandboxStatus, Value)> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        let answer = self.call("PodSandboxStatus", async |mut cri| cri.pod_sandbox_status(request).await)?;
        Ok((answer.status.context("sandbox without status")?, details(&answer.info)?))
    }

    pub(crate) fn stop_sandbox(&self, id: &str) -> Result<()> {
        let request = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.call("StopPodSandbox", async |mut cri| cri.stop_pod_sandbox(request).await)?;
        Ok(())
    }

    pub(crate) fn remove_sandbox(&self, id: &str) -> Result<()> {
        let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.call("RemovePodSandbox", async |mut cri| cri.remove_pod_sandbox(request).await)?;
        Ok(())
    }

    /// Creates and starts a container, as the kubelet does in one go.
    pub(crate) fn run_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Result<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let id = self.call("CreateContainer", async |mut cri| cri.create_container(request).await)?.container_id;
        let request = StartContainerRequest { container_id: id.clone() };
        self.call("StartContainer", async |mut cri| cri.start_container(request).await)?;
        Ok(id)
    }

    pub(crate) fn container_status(&self, id: &str) -> Result<(ContainerStatus, Value)> {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
        let answer = self.call("ContainerStatus", async |mut cri| cri.container_status(request).await)?;
        Ok((answer.status.context("container without status")?, details(&answer.info)?))
    }

    /// Stops without grace: a first process without a handler ignores the polite signal.
    pub(crate) fn stop_container(&self, id: &str) -> Result<()> {
        let request = StopContainerRequest { container_id: id.to_owned(), timeout: 0 };
        self.call("StopContainer", async |mut cri| cri.stop_container(request).await)?;
        Ok(())
    }

    pub(crate) fn remove_container(&self, id: &str) -> Result<()> {
        let request = RemoveContainerRequest { container_id: id.to_owned() };
        self.call("RemoveContainer", async |mut cri| cri.remove_container(request).await)?;
        Ok(())
    }

    /// The digest by which the runtime knows an image, or `None` while it does not.
    pub(crate) fn image_id(&self, reference: &str) -> Result<Option<String>> {
        let request = ImageStatusRequest {
            image: Some(ImageSpec { image: reference.to_owned(), ..ImageSpec::default() }),
            verbose: false,
        };
        let answer =
            self.exchange("ImageStatus", async |channel| ImageServiceClient::new(channel).image_status(request).await)?;
        Ok(answer.image.map(|image| image.id))
    }

    fn call<T>(&self, method: &str, ask: impl AsyncFnOnce(Runtimes) -> Result<Response<T>, Status>) -> Result<T> {
        self.exchange(method, async |channel| ask(RuntimeServiceClient::new(channel)).await)
    }

    /// Every call dials anew, so that none meets the remains of a connection to a containerd that was killed.
    fn exchange<T>(&self, method: &str, ask: impl AsyncFnOnce(Channel) -> Result<Response<T>, Status>) -> Result<T> {
        let work = async {
            let channel = connect(self.socket.clone()).await?;
            Ok::<_, anyhow::Error>(ask(channel).await?.into_inner())
        };
        self.runtime
            .block_on(async { tokio::time::timeout(DEADLINE, work).await })
            .with_context(|| format!("{method} of CRI: no answer in {DEADLINE:?}"))?
            .with_context(|| format!("{method} of CRI"))
    }
}

async fn connect(socket: PathBuf) -> Result<Channel> {
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // The address only fills the authority of requests: the connector dials the socket.
    let endpoint = Endpoint::from_static("http://localhost");
    Ok(endpoint.connect_with_connector(connector).await?)
}

/// What a verbose status adds: JSON under the key `info`.
fn details(info: &HashMap<String, String>) -> Result<Value> {
    match info.get("info") {
        Some(text) => serde_json::from_str(text).context("verbose status of CRI"),
        None => Ok(Value::Null),
    }
}
