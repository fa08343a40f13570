//! A containerd shim, version 2, around one simulated sandbox: what the binary `containerd-shim-kata-v2` is made of.
//!
//! ```text
//! containerd ──start──► address of the pod's shim, which is made for the sandbox and found for its containers
//!            ──ttrpc──► service ──► tasks     create, start, wait, kill, delete
//!                          │  └───► machine   the simulated sandbox, stand-ins for its processes, cgroups
//!                          └──────► events    back to containerd
//! ```
//!
//! The containers run nowhere: a simulated guest has them, by the ids that containerd gave them, and `program` says
//! from their commands when they end. [`Settings`] say where the sandboxes are and how old; with them a test knows what
//! is true in every guest.

mod bundle;
mod cgroup;
mod events;
mod machine;
mod program;
mod service;
mod settings;
mod stand_in;
mod tasks;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context;
use protobuf::well_known_types::timestamp::Timestamp;
use protobuf::{Message, MessageField};

use crate::cri::identity;
use crate::kata::kind::Endpoint;
use crate::kata::ledger::{Ledger, NodeLedger};
use crate::kata::serve::{Doors, ServingThread};
use crate::kata::wire::control::DeleteResponse;

pub use bundle::Bundle;
pub use settings::Settings;
pub use stand_in::stand_in;

use events::Events;
use service::Service;

/// How often the shim looks after what happens by itself. Guests tell a new tick this much late at most.
const PULSE: Duration = Duration::from_millis(50);

/// How long the last answers may take to be read.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where the sockets of all shims are, whatever the state directory of their containerd.
const SOCKETS: &str = "/run/containerd/s";

/// Whose shim it is.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// containerd's namespace, `k8s.io` for CRI.
    pub namespace: String,
    /// containerd's socket.
    pub address: String,
    /// The sandbox's id.
    pub sandbox: String,
}

impl Invocation {
    /// The socket of the Task service: the same for the sandbox and for each of its containers.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        let Self { namespace, address, sandbox } = self;
        // runtime-rs writes the digits in upper case. Nobody may compute it, so it need not be the SHA-256 sum.
        let hash = identity::hex_id(&format!("{address}/{namespace}/{sandbox}")).to_uppercase();
        Path::new(SOCKETS).join(hash)
    }

    /// Serves the sandbox's shim until containerd shuts it down, its bundle is gone or its hypervisor has ended. Calls
    /// `ready` once containerd may connect. Events go to the socket `events`.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn serve(
        &self,
        bundle: &Path,
        events: PathBuf,
        ready: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        fs::create_dir_all(SOCKETS).with_context(|| format!("make {SOCKETS}"))?;
        let (finish, finished) = mpsc::channel();
        let events = Events { socket: events, namespace: self.namespace.clone() };
        let service = Arc::new(Service::new(&self.sandbox, events, finish));
        let node = Arc::new(NodeLedger::default());
        let ledger = Arc::new(Ledger::new(&self.sandbox, &node));
        let mut thread = ServingThread::start()?;
        let sockets = vec![(Endpoint::Task, self.socket())];
        let doors = Doors::new(sockets, service.clone(), Arc::clone(&ledger), thread.handle.clone());
        doors.open()?;
        ready()?;
        while let Err(RecvTimeoutError::Timeout) = finished.recv_timeout(PULSE) {
            service.note(&node.take_violations());
            if !service.live() || !bundle.exists() {
                break;
            }
        }
        service.end_all();
        let deadline = Instant::now() + FAREWELL;
        while ledger.counts(Endpoint::Task).in_flight > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        doors.close();
        thread.stop();
        Ok(())
    }
}

/// Cleans up after the shim of this container, which is dead, and gives what containerd wants to be told on standard
/// output.
///
/// # Errors
/// When something cannot be removed.
pub fn delete(invocation: &Invocation, bundle: &Path) -> anyhow::Result<Vec<u8>> {
    machine::remove_traces(bundle, &invocation.sandbox)?;
    // The socket of a container's own id was never there.
    fs::remove_file(invocation.socket()).ok();
    let response = DeleteResponse {
        exit_status: program::KILLED,
        exited_at: MessageField::some(Timestamp::now()),
        ..DeleteResponse::default()
    };
    Ok(response.write_to_bytes()?)
}

/// A line in containerd's log, which reads what its shims write to standard error.
fn say(line: &str) {
    // Nobody can be told that nobody can be told.
    writeln!(io::stderr(), "containerd-shim-kata-v2: {line}").ok();
}
