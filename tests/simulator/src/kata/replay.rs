//! Sandboxes that say what real ones said: the recorded node's replies, byte for byte, behind real sockets.
//!
//! Recorded paths are too long for sockets, so a [`ReplayedNode`] makes a host root of its own with a short path:
//! `proc`, `sys`, `var` and `etc` are links to the recorded ones, `run` is a copy of the recorded directory in which
//! the sockets of the Kata sandboxes and of the runtime are served. An agent needs `--host-root` and nothing else.

use std::ffi::OsString;
use std::fs;
use std::ops::Deref;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context;
use protobuf::Message;
use tempfile::TempDir;

use crate::cri::CriServer;
use crate::recorded::{Capture, RecordedNode, RecordedPod};

use super::builder::short_directory;
use super::doors::DoorHandle;
use super::kind::Endpoint;
use super::ledger::{Ledger, NodeLedger, Violation};
use super::serve::{Answers, Call, Code, Doors, HttpReply, HttpRequest, RpcReply, ServingThread};
use super::wire::{agent, task};

/// A recorded sandbox that answers. Its doors are used through it, see [`DoorHandle`].
#[derive(Debug, Clone)]
pub struct ReplayedSandbox {
    pod: RecordedPod,
    doors: DoorHandle,
}

impl ReplayedSandbox {
    /// The pod as the recorder noted it.
    #[must_use]
    pub fn pod(&self) -> &RecordedPod {
        &self.pod
    }
}

impl Deref for ReplayedSandbox {
    type Target = DoorHandle;

    fn deref(&self) -> &DoorHandle {
        &self.doors
    }
}

/// The recorded node with its Kata sandboxes and its runtime answering. Dropping it ends them, and panics if a
/// violation was recorded that nobody has [taken](Self::take_violations).
#[derive(Debug)]
pub struct ReplayedNode {
    recorded: RecordedNode,
    /// Where the replies of the moment are.
    capture: Arc<RwLock<PathBuf>>,
    sandboxes: Vec<ReplayedSandbox>,
    server: CriServer,
    ledger: Arc<NodeLedger>,
    thread: ServingThread,
    root: TempDir,
}

impl ReplayedNode {
    /// Serves the node as it was at this moment.
    ///
    /// # Errors
    /// When the recording lacks something, or sockets cannot be made.
    pub fn start(recorded: RecordedNode, capture: Capture) -> anyhow::Result<Self> {
        let root = short_directory()?;
        link_all(&recorded.root(capture), root.path())?;
        let run = root.path().join("run");
        copy(&recorded.root(capture).join("run"), &run)?;
        let socket = run.join("containerd/containerd.sock");
        let server = CriServer::start(socket, &recorded.cri(capture)?)?;
        let mut node = Self {
            capture: Arc::new(RwLock::new(recorded.capture(capture))),
            recorded,
            sandboxes: Vec::new(),
            server,
            ledger: Arc::default(),
            thread: ServingThread::start()?,
            root,
        };
        for pod in node.recorded.pods()? {
            if recorded_directory(&node.capture, &pod.sandbox).is_dir() {
                let sandbox = node.serve(pod).context("serve a recorded sandbox")?;
                node.sandboxes.push(sandbox);
            }
        }
        Ok(node)
    }

    /// Shows the node as it was at another moment: what is answered, read and listed. A file that an agent holds open
    /// stays the one of the moment in which it was opened.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn show(&mut self, capture: Capture) -> anyhow::Result<()> {
        *self.capture.write().unwrap_or_else(PoisonError::into_inner) = self.recorded.capture(capture);
        link_all(&self.recorded.root(capture), self.root.path())?;
        let path = self.server.path().to_owned();
        self.server.stop();
        self.server = CriServer::start(path, &self.recorded.cri(capture)?)?;
        Ok(())
    }

    /// The recording.
    #[must_use]
    pub fn recorded(&self) -> &RecordedNode {
        &self.recorded
    }

    /// The directory that stands for `/`.
    #[must_use]
    pub fn host_root(&self) -> &Path {
        self.root.path()
    }

    /// The directory that stands for `/run`.
    #[must_use]
    pub fn run_directory(&self) -> PathBuf {
        self.root.path().join("run")
    }

    /// The runtime.
    #[must_use]
    pub fn runtime(&self) -> &CriServer {
        &self.server
    }

    /// The flags that make the agent read this node.
    #[must_use]
    pub fn flags(&self) -> Vec<OsString> {
        vec!["--host-root".into(), self.host_root().into(), "--runtime-endpoint".into(), self.server.path().into()]
    }

    /// The Kata sandboxes.
    #[must_use]
    pub fn sandboxes(&self) -> &[ReplayedSandbox] {
        &self.sandboxes
    }

    /// The calls that nobody may make and somebody has made.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.ledger.violations()
    }

    /// The same, and forgets them.
    #[must_use]
    pub fn take_violations(&self) -> Vec<Violation> {
        self.ledger.take_violations()
    }

    fn serve(&self, pod: RecordedPod) -> anyhow::Result<ReplayedSandbox> {
        let run = self.run_directory();
        let directory = run.join("kata").join(&pod.sandbox);
        let bundle = run.join("containerd/io.containerd.runtime.v2.task/k8s.io").join(&pod.sandbox);
        let address = fs::read_to_string(bundle.join("address")).context("read the bundle's address")?;
        let task = address.strip_prefix("unix:///run/").context("an address below /run")?;
        let sockets = vec![
            (Endpoint::Agent, directory.join("ch-vm.sock")),
            (Endpoint::Shim, directory.join("shim-monitor.sock")),
            (Endpoint::Task, run.join(task)),
            (Endpoint::Hypervisor, directory.join("ch-api.sock")),
        ];
        for parent in sockets.iter().filter_map(|(_, path)| path.parent()) {
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        let answers = Arc::new(Replayed { sandbox: pod.sandbox.clone(), capture: Arc::clone(&self.capture) });
        let ledger = Arc::new(Ledger::new(&pod.sandbox, &self.ledger));
        let doors = Doors::new(sockets, answers, ledger, self.thread.handle.clone());
        doors.open()?;
        Ok(ReplayedSandbox { pod, doors: DoorHandle(doors) })
    }
}

impl Drop for ReplayedNode {
    fn drop(&mut self) {
        self.sandboxes.iter().for_each(|sandbox| sandbox.doors.0.close());
        self.thread.stop();
        let violations = self.take_violations();
        if !std::thread::panicking() {
            let told: Vec<_> = violations.iter().map(ToString::to_string).collect();
            assert!(told.is_empty(), "calls that an agent must never make: {}", told.join("; "));
        }
    }
}

/// What one recorded sandbox said.
#[derive(Debug)]
struct Replayed {
    sandbox: String,
    capture: Arc<RwLock<PathBuf>>,
}

impl Replayed {
    /// A recorded file of this moment.
    fn read(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let directory = self.capture.read().unwrap_or_else(PoisonError::into_inner).clone();
        // What was recorded once only, at the first moment, serves both.
        let first = directory.parent().map(|parent| parent.join("t0"));
        [Some(directory), first].into_iter().flatten().find_map(|base| fs::read(base.join(&path)).ok())
    }

    fn kata(&self, name: &str) -> Option<Vec<u8>> {
        self.read(Path::new("kata").join(&self.sandbox).join(name))
    }

    fn http(&self, name: &str) -> HttpReply {
        let missing = || super::serve::plain(404, "not recorded");
        HttpReply::Bytes(self.kata(name).unwrap_or_else(missing))
    }
}

impl Answers for Replayed {
    fn agent(&self, call: &Call<'_>) -> RpcReply {
        let name = match call.route {
            "grpc.Health/Check" => "HealthCheck".to_owned(),
            "grpc.Health/Version" => "HealthVersion".to_owned(),
            "grpc.AgentService/GetMetrics" => "GetMetrics".to_owned(),
            "grpc.AgentService/GetGuestDetails" => "GetGuestDetails".to_owned(),
            "grpc.AgentService/StatsContainer" => {
                let request = agent::StatsContainerRequest::parse_from_bytes(call.payload).unwrap_or_default();
                format!("StatsContainer-{}", request.container_id)
            }
            "grpc.AgentService/GetOOMEvent" => return RpcReply::Silence,
            _ => return RpcReply::Status(Code::UNIMPLEMENTED, "not recorded".to_owned()),
        };
        match self.kata(&format!("agent/{name}.pb")) {
            Some(payload) => RpcReply::Payload(payload),
            None => RpcReply::Status(Code::INVALID_ARGUMENT, "\"invalid container id\"".to_owned()),
        }
    }

    fn task(&self, call: &Call<'_>) -> RpcReply {
        let request = task::StatsRequest::parse_from_bytes(call.payload).unwrap_or_default();
        let Some(method) = call.route.strip_prefix("containerd.task.v2.Task/") else {
            return RpcReply::Status(Code::UNIMPLEMENTED, call.route.to_owned());
        };
        match self.read(Path::new("task").join(&request.id).join(format!("{method}.pb"))) {
            Some(payload) => RpcReply::Payload(payload),
            None => RpcReply::Status(Code::NOT_FOUND, format!("container does not exist {}: not found", request.id)),
        }
    }

    fn shim(&self, request: &HttpRequest) -> HttpReply {
        self.http(match request.path.as_str() {
            "/metrics" => "metrics.http",
            "/agent-url" => "agent-url.http",
            _ => "404.http",
        })
    }

    fn hypervisor(&self, request: &HttpRequest) -> HttpReply {
        let name = request.path.rsplit('/').next().unwrap_or_default();
        self.http(&format!("ch/{name}.http"))
    }

    fn died(&self, _of: &str) {}
}

fn recorded_directory(capture: &RwLock<PathBuf>, sandbox: &str) -> PathBuf {
    capture.read().unwrap_or_else(PoisonError::into_inner).join("kata").join(sandbox)
}

/// Links everything but `run` of a recorded root into ours, replacing earlier links.
fn link_all(recorded: &Path, root: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(recorded).with_context(|| format!("list {}", recorded.display()))? {
        let entry = entry?;
        if entry.file_name() == "run" {
            continue;
        }
        // Made beside and moved over, so that a reader always finds one.
        let (link, new) = (root.join(entry.file_name()), root.join("new"));
        symlink(entry.path(), &new).with_context(|| format!("make {}", new.display()))?;
        fs::rename(&new, &link).with_context(|| format!("replace {}", link.display()))?;
    }
    Ok(())
}

/// Copies directories, files and links; sockets and FIFOs are left out.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, &to).with_context(|| format!("make {}", to.display()))?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &to).with_context(|| format!("copy to {}", to.display()))?;
        }
    }
    Ok(())
}
