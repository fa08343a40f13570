//! The life of the server: one thread, one socket, connections that can be cut.
//!
//! Connections are served one by one with hyper rather than by tonic's own server, because tonic offers no
//! way to close one connection, or all of them without waiting for hanging calls.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, bail};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, watch};

use super::fault::{Desk, Fault};
use super::node::Node;
use super::rpc::{Method, Runtime};
use super::task_events::Services;

/// A CRI server on a Unix socket. Dropping it stops it.
#[derive(Debug)]
pub struct CriServer {
    path: PathBuf,
    node: Node,
    desk: Arc<Desk>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    /// Counts the times all connections were cut. Dropping it ends the thread.
    cuts: watch::Sender<u64>,
    thread: JoinHandle<()>,
}

impl CriServer {
    /// Serves `node` at `path`, replacing a socket file that was left there.
    ///
    /// # Errors
    /// When the socket cannot be made, or something other than a socket is at `path`.
    pub fn start(path: impl AsRef<Path>, node: &Node) -> anyhow::Result<Self> {
        let path = path.as_ref().to_owned();
        let mut server = Self { path, node: node.clone(), desk: Arc::default(), running: None };
        server.restart()?;
        Ok(server)
    }

    /// Stops the server, if it runs, and starts it on the same path. Node, counters and faults are kept.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.stop();
        remove_stale_socket(&self.path)?;
        let bind = || -> io::Result<StdListener> {
            let listener = StdListener::bind(&self.path)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = bind().with_context(|| format!("listen on {}", self.path.display()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        let (cuts, seen_cuts) = watch::channel(0);
        let (node, desk) = (self.node.clone(), Arc::clone(&self.desk));
        // The runtime is dropped at the end of the thread, and with it every connection.
        let serve = move || runtime.block_on(accept(listener, node, desk, seen_cuts));
        let thread = thread::Builder::new().name("cri".to_owned()).spawn(serve).context("start a thread")?;
        self.running = Some(Running { cuts, thread });
        Ok(())
    }

    /// Stops the server as a runtime that is shut down: connections are closed, the socket file is removed.
    pub fn stop(&mut self) {
        if self.halt() {
            fs::remove_file(&self.path).ok();
        }
    }

    /// Stops the server as a runtime that is killed: connections are closed, the socket file stays and
    /// refuses connections.
    pub fn crash(&mut self) {
        self.halt();
    }

    /// Closes every connection that is open, and goes on listening.
    pub fn cut_connections(&self) {
        if let Some(running) = &self.running {
            running.cuts.send_modify(|cuts| *cuts += 1);
        }
    }

    /// Lets every call of `method` go wrong, from now on.
    pub fn fail(&self, method: Method, fault: Fault) {
        self.desk.set_fault(method, Some(fault));
    }

    /// Lets `method` answer properly again. Calls that hang go on hanging.
    pub fn heal(&self, method: Method) {
        self.desk.set_fault(method, None);
    }

    /// How often `method` was called, whatever came of it.
    #[must_use]
    pub fn calls(&self, method: Method) -> u64 {
        self.desk.calls(method)
    }

    /// Waits until `method` was called `times` in all. Returns false when that took longer than `patience`.
    #[must_use]
    pub fn wait_for_calls(&self, method: Method, times: u64, patience: Duration) -> bool {
        self.desk.wait_for_calls(method, times, patience)
    }

    /// The path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The node that is served.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    fn halt(&mut self) -> bool {
        let Some(Running { cuts, thread }) = self.running.take() else { return false };
        drop(cuts);
        // A panic of the server has been reported by its thread; the test fails by what it did not get.
        thread.join().ok();
        true
    }
}

impl Drop for CriServer {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn accept(listener: StdListener, node: Node, desk: Arc<Desk>, mut cuts: watch::Receiver<u64>) {
    let listener = UnixListener::from_std(listener).expect("the listener is non-blocking and the runtime runs");
    loop {
        tokio::select! {
            changed = cuts.changed() => if changed.is_err() { return },
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let runtime = Runtime { node: node.clone(), desk: Arc::clone(&desk), hang_up: Arc::default() };
                let mut cuts = cuts.clone();
                // A cut that came before the connection does not concern it.
                cuts.mark_unchanged();
                tokio::spawn(serve(stream, runtime, cuts));
            }
        }
    }
}

/// Serves one connection until the client leaves or it is cut.
async fn serve(stream: UnixStream, runtime: Runtime, mut cuts: watch::Receiver<u64>) {
    let hang_up: Arc<Notify> = Arc::clone(&runtime.hang_up);
    let service = TowerToHyperService::new(Services::new(runtime));
    let builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    tokio::select! {
        // An error is the client's way of leaving.
        _ = builder.serve_connection(TokioIo::new(stream), service) => {}
        () = hang_up.notified() => {}
        _ = cuts.changed() => {}
    }
}

/// A bind fails on the file a killed server left. Only a socket is removed: a path that a test got wrong
/// must not cost a file.
fn remove_stale_socket(path: &Path) -> anyhow::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("stat {}", path.display())),
    };
    if !kind.is_socket() {
        bail!("{} is in the way and is not a socket", path.display());
    }
    fs::remove_file(path).with_context(|| format!("remove {}", path.display()))
}
