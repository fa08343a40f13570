//! A container runtime that answers CRI v1 on a Unix socket.
//!
//! [`Node`] is what the runtime knows; a test holds a clone of it and changes it while [`CriServer`]
//! serves it. [`Pod`] and [`Container`] describe additions in the words of a test:
//!
//! ```no_run
//! use kata_pulse_simulator::cri::{CriServer, Exit, Fault, Method, Node, Pod};
//!
//! # fn main() -> anyhow::Result<()> {
//! let node = Node::new();
//! let mut server = CriServer::start("/tmp/example/containerd.sock", &node)?;
//!
//! let web = Pod::new("shop", "web").handler("kata-clh").pid(4711);
//! let app = web.container("app").image("docker.io/library/nginx:1.29").memory_limit(128 << 20);
//! node.add_pod(&web);
//! node.add_container(&app);
//!
//! server.fail(Method::ListContainers, Fault::Hang);
//! node.exit_container(app.id(), &Exit::oom_killed());
//! assert_eq!(server.calls(Method::ListContainers), 0);
//! server.restart()?;
//! # Ok(())
//! # }
//! ```
//!
//! The server owns a thread with its own runtime: it keeps answering while a test blocks, and all of its
//! methods are plain functions. Replies follow containerd, down to the texts of its errors.

mod answers;
mod containerd;
mod fault;
mod filter;
pub(crate) mod identity;
mod node;
mod pod;
mod rpc;
mod server;
mod task_events;

use std::path::{Path, PathBuf};

use anyhow::Context;
use hyper_util::rt::TokioIo;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

pub use fault::Fault;
pub use node::{ContainerEntry, Node, SandboxEntry};
pub use pod::{Container, Exit, Pod, Qos};
pub use rpc::Method;
pub use server::CriServer;

/// Connects k8s-cri's own client to the runtime socket at `path`.
///
/// # Errors
/// When nobody listens there.
pub async fn connect(path: impl AsRef<Path>) -> anyhow::Result<RuntimeServiceClient<Channel>> {
    let path: PathBuf = path.as_ref().to_owned();
    let connector = {
        let path = path.clone();
        tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        })
    };
    // tonic wants an address even though the connector ignores it.
    let channel = Endpoint::from_static("http://runtime.invalid")
        .connect_with_connector(connector)
        .await
        .with_context(|| format!("connect to {}", path.display()))?;
    // The list replies of a crowded node pass tonic's default of 4 MiB.
    Ok(RuntimeServiceClient::new(channel).max_decoding_message_size(64 << 20))
}
