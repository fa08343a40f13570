//! The doors of a sandbox: real Unix sockets, served by hand so that every byte can be made to go wrong.
//!
//! ```text
//! Doors ──► listen ──► attend ──► handshake ──► rpc  ──► Answers
//!             │          │                      http ──►
//!             │          └ ends when cut, refused or closed
//!             └ gone and back with Fault::Refuse
//! ```
//!
//! What is answered comes from [`Answers`]; what is allowed, from [`permit`], whoever answers.

mod http;
mod outgoing;
mod permit;
mod rpc;
mod thread;

use std::fs;
use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::fs::{CWD, Mode, OFlags};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::fault::{Control, Fault};
use super::kind::Endpoint;
use super::layout::SOCKET_PATH_MAX;
use super::ledger::Ledger;

pub(super) use http::{HttpReply, HttpRequest, plain};
pub(super) use rpc::{Call, Code, RpcReply};
pub(super) use thread::ServingThread;

/// What a sandbox says at its doors.
pub(super) trait Answers: std::fmt::Debug + Send + Sync + 'static {
    /// The kata-agent.
    fn agent(&self, call: &Call<'_>) -> RpcReply;
    /// The shim's Task service.
    fn task(&self, call: &Call<'_>) -> RpcReply;
    /// The shim's management server.
    fn shim(&self, request: &HttpRequest) -> HttpReply;
    /// The hypervisor's API.
    fn hypervisor(&self, request: &HttpRequest) -> HttpReply;
    /// Told when a request has killed the sandbox, before the caller can notice.
    fn died(&self, of: &str);
    /// Whether a process is one that controls the sandbox and may ask for everything.
    fn obeys(&self, _pid: i32) -> bool {
        false
    }
}

/// The doors of one sandbox.
#[derive(Debug)]
pub(super) struct Doors {
    sockets: Vec<(Endpoint, PathBuf)>,
    answers: Arc<dyn Answers>,
    control: watch::Sender<Control>,
    pub(super) ledger: Arc<Ledger>,
    runtime: Handle,
    /// Why the sandbox died, if a request killed it.
    death: Mutex<Option<String>>,
}

impl Doors {
    pub(super) fn new(
        sockets: Vec<(Endpoint, PathBuf)>,
        answers: Arc<dyn Answers>,
        ledger: Arc<Ledger>,
        runtime: Handle,
    ) -> Arc<Self> {
        let control = watch::Sender::new(Control::default());
        Arc::new(Self { sockets, answers, control, ledger, runtime, death: Mutex::default() })
    }

    /// Makes the sockets. When this returns, connections are accepted.
    pub(super) fn open(self: &Arc<Self>) -> anyhow::Result<()> {
        let mut listeners = Vec::new();
        for (endpoint, path) in &self.sockets {
            let listener = bind(path).with_context(|| format!("listen on {}", path.display()))?;
            listeners.push((*endpoint, path.clone(), listener));
        }
        self.control.send_modify(|control| control.generation += 1);
        for (endpoint, path, listener) in listeners {
            let control = self.control.subscribe();
            let generation = control.borrow().generation;
            self.runtime.spawn(listen(Arc::clone(self), endpoint, path, listener, control, generation));
        }
        Ok(())
    }

    /// Closes every connection and takes the sockets away.
    pub(super) fn close(&self) {
        self.control.send_modify(|control| control.generation += 1);
        for (_, path) in &self.sockets {
            // Gone with its directory is as good.
            fs::remove_file(path).ok();
        }
    }

    pub(super) fn set_fault(&self, endpoint: Endpoint, fault: Option<Fault>) {
        self.control.send_modify(|control| control.set_fault(endpoint, fault));
    }

    pub(super) fn cut(&self, endpoint: Endpoint) {
        self.control.send_modify(|control| control.cut(endpoint));
    }

    pub(super) fn has(&self, endpoint: Endpoint) -> bool {
        self.sockets.iter().any(|(there, _)| *there == endpoint)
    }

    pub(super) fn path(&self, endpoint: Endpoint) -> Option<&Path> {
        self.sockets.iter().find(|(there, _)| *there == endpoint).map(|(_, path)| path.as_path())
    }

    /// The request that killed the sandbox.
    pub(super) fn death(&self) -> Option<String> {
        self.death.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn die(&self, of: &str) {
        *self.death.lock().unwrap_or_else(PoisonError::into_inner) = Some(of.to_owned());
        self.answers.died(of);
        self.close();
    }

    fn fault(&self, endpoint: Endpoint) -> Option<Fault> {
        self.control.borrow().fault(endpoint).cloned()
    }

    /// Returns when the endpoint does not hang, or no longer.
    async fn wait_while_it_hangs(&self, endpoint: Endpoint) {
        let mut control = self.control.subscribe();
        // The sender lives as long as self.
        control.wait_for(|control| control.fault(endpoint) != Some(&Fault::Hang)).await.ok();
    }

    /// Returns when the endpoint is no longer as slow as this, or after the time.
    async fn linger(&self, endpoint: Endpoint, slow: &Fault, time: Duration) {
        let mut control = self.control.subscribe();
        let healed = control.wait_for(|control| control.fault(endpoint) != Some(slow));
        // Either way it goes on.
        tokio::time::timeout(time, healed).await.ok();
    }
}

/// Accepts at one socket until the doors close.
async fn listen(
    doors: Arc<Doors>,
    endpoint: Endpoint,
    path: PathBuf,
    listener: StdListener,
    mut control: watch::Receiver<Control>,
    generation: u64,
) {
    let mut listener = UnixListener::from_std(listener).ok();
    loop {
        let (ours, refuses) = {
            let control = control.borrow_and_update();
            (control.generation == generation, control.fault(endpoint) == Some(&Fault::Refuse))
        };
        if !ours {
            return;
        }
        if refuses {
            // The file stays, and refuses whoever comes.
            listener = None;
        } else if listener.is_none() {
            fs::remove_file(&path).ok();
            listener = bind(&path).and_then(UnixListener::from_std).ok();
        }
        tokio::select! {
            changed = control.changed() => if changed.is_err() { return },
            stream = accept(listener.as_ref()) => {
                let Some(stream) = stream else { continue };
                tokio::spawn(attend(Arc::clone(&doors), endpoint, stream, control.clone(), generation));
            }
        }
    }
}

/// Waits for ever where nobody listens.
async fn accept(listener: Option<&UnixListener>) -> Option<UnixStream> {
    match listener {
        Some(listener) => listener.accept().await.ok().map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

/// Serves one connection until the client leaves or it is cut.
async fn attend(
    doors: Arc<Doors>,
    endpoint: Endpoint,
    stream: UnixStream,
    mut control: watch::Receiver<Control>,
    generation: u64,
) {
    let _open = doors.ledger.open(endpoint);
    let cuts = control.borrow().cuts(endpoint);
    let ended = control.wait_for(|control| {
        control.generation != generation
            || control.cuts(endpoint) != cuts
            || control.fault(endpoint) == Some(&Fault::Refuse)
    });
    tokio::select! {
        // An error means that the node is gone.
        _ = ended => {}
        // An error is the client's way of leaving.
        _ = serve(&doors, endpoint, stream) => {}
    }
}

async fn serve(doors: &Arc<Doors>, endpoint: Endpoint, mut stream: UnixStream) -> io::Result<()> {
    match endpoint {
        Endpoint::Shim | Endpoint::Hypervisor => http::serve(doors, endpoint, stream).await,
        Endpoint::Task => rpc::serve(doors, endpoint, stream, Vec::new()).await,
        Endpoint::Agent => {
            let Some(early) = rpc::shake_hands(doors, &mut stream).await? else { return Ok(()) };
            rpc::serve(doors, endpoint, stream, early).await
        }
        Endpoint::Reserved => {
            doors.ledger.violation(endpoint, "connect");
            std::future::pending().await
        }
    }
}

/// Listens at a path of any length, replacing nothing. A path that is too long for a socket address is reached
/// through its directory; clients then have to do the same.
fn bind(path: &Path) -> io::Result<StdListener> {
    let listener = if path.as_os_str().len() <= SOCKET_PATH_MAX {
        StdListener::bind(path)?
    } else {
        let (directory, name) = path.parent().zip(path.file_name()).ok_or(io::ErrorKind::InvalidInput)?;
        let directory = rustix::fs::openat(CWD, directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
        StdListener::bind(Path::new("/proc/self/fd").join(number.to_string()).join(name))?
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Lets this process hold as many descriptors as it may: a thousand sandboxes have four sockets each, and as many
/// connections.
pub(super) fn raise_descriptor_limit(sandboxes: usize) -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let needed = u64::try_from(sandboxes).unwrap_or(u64::MAX).saturating_mul(10).saturating_add(200);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    ensure!(
        maximum.is_none_or(|maximum| maximum >= needed),
        "{sandboxes} sandboxes need {needed} descriptors, and this process may have {maximum:?}"
    );
    let wanted = maximum.map_or(needed, |maximum| maximum.min(needed.max(65_536)));
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).context("raise the descriptor limit")
}
