//! Byte streams to the kata-agents of guests and to the shims of sandboxes, and ttrpc calls over them. A leaf.
//!
//! Peers are not trusted: a guest belongs to its tenant. Every step has a deadline, every reply a size, nothing is
//! read that was not asked for, and no task is left behind.

mod address;
mod client;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod faults;

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use ttrpc::asynchronous::transport::Socket;

use crate::unix_socket;

pub use address::{AGENT_PORT, Address, AddressError};
pub use client::{Client, Method};

/// Deadline of a connection with its handshake, and of a call, when nobody says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(2);

/// Longest answer to a hybrid vsock handshake; a real one is `OK 1073741829\n`.
const MAX_HANDSHAKE_BYTES: usize = 64;

/// Why there is no connection or no answer.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The socket is absent, stale or full.
    #[error("connect {address}")]
    Connect {
        /// The peer.
        address: Address,
        /// What the kernel said.
        source: io::Error,
    },
    /// This process may not connect: a seccomp profile forbids `AF_VSOCK` (containerd's default one does), or the
    /// socket belongs to somebody else. A state, not to be retried.
    #[error("no permission to connect {address}")]
    NotPermitted {
        /// The peer.
        address: Address,
        /// What the kernel said.
        source: io::Error,
    },
    /// The hypervisor did not lead on to the guest's agent.
    #[error("handshake with {address}")]
    Handshake {
        /// The peer.
        address: Address,
        /// What went wrong.
        source: io::Error,
    },
    /// A step took too long. A call that ran into this has closed the connection, unless the peer itself said so.
    #[error("{step}: no answer within {after:?}")]
    Timeout {
        /// Which step.
        step: Step,
        /// How long was waited.
        after: Duration,
    },
    /// The guest's policy forbids the call. A state, not to be retried.
    #[error("{method} is forbidden: {message}")]
    Denied {
        /// The method.
        method: &'static str,
        /// What the peer said.
        message: String,
    },
    /// The peer does not know the container.
    #[error("{method}: unknown id: {message}")]
    UnknownId {
        /// The method.
        method: &'static str,
        /// What the peer said.
        message: String,
    },
    /// The peer does not have the call. A state, not to be retried.
    #[error("{method} is not implemented: {message}")]
    Unimplemented {
        /// The method.
        method: &'static str,
        /// What the peer said.
        message: String,
    },
    /// The peer answered with any other error.
    #[error("{method}: status {code}: {message}")]
    Refused {
        /// The method.
        method: &'static str,
        /// The number of the status, as in gRPC.
        code: i32,
        /// What the peer said.
        message: String,
    },
    /// The connection ended, or what came over it is not an answer. It is closed.
    #[error("{method}: broken connection")]
    Broken {
        /// The method.
        method: &'static str,
        /// What went wrong.
        source: io::Error,
    },
}

impl TransportError {
    /// Asking again cannot help until the peer or this process is another one.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::NotPermitted { .. } | Self::Denied { .. } | Self::Unimplemented { .. })
    }

    /// The peer hangs, or is so slow that it looks like it.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }
}

/// What is done with a peer, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reaching the socket.
    Connect(Address),
    /// Being led on to the guest's agent.
    Handshake(Address),
    /// A call of this method.
    Call(&'static str),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(address) => write!(f, "connect {address}"),
            Self::Handshake(address) => write!(f, "handshake with {address}"),
            Self::Call(method) => f.write_str(method),
        }
    }
}

/// A stream to the peer on which ttrpc can begin.
async fn open(address: &Address, deadline: Duration) -> Result<Socket, TransportError> {
    let until = Instant::now() + deadline;
    let late = |step| TransportError::Timeout { step, after: deadline };
    let connect = async {
        match address {
            Address::Vsock(cid) => Socket::connect_vsock(format!("{cid}:{AGENT_PORT}")).await,
            Address::HybridVsock(path) | Address::Unix(path) => unix_socket::connect(path).await.map(Socket::from),
        }
    };
    let mut stream = timeout_at(until, connect)
        .await
        .map_err(|_| late(Step::Connect(address.clone())))?
        .map_err(|source| refused(address.clone(), source))?;
    if let Address::HybridVsock(_) = address {
        timeout_at(until, handshake(&mut stream))
            .await
            .map_err(|_| late(Step::Handshake(address.clone())))?
            .map_err(|source| TransportError::Handshake { address: address.clone(), source })?;
    }
    Ok(stream)
}

fn refused(address: Address, source: io::Error) -> TransportError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => TransportError::NotPermitted { address, source },
        _ => TransportError::Connect { address, source },
    }
}

/// Asks the hypervisor to lead on to the agent's port. Its answer is read byte by byte, because whatever follows the
/// line is ttrpc already.
async fn handshake(stream: &mut Socket) -> io::Result<()> {
    stream.write_all(format!("CONNECT {AGENT_PORT}\n").as_bytes()).await?;
    stream.flush().await?;
    let mut line = Vec::with_capacity(MAX_HANDSHAKE_BYTES);
    loop {
        match stream.read_u8().await {
            Ok(b'\n') => break,
            Ok(byte) if line.len() < MAX_HANDSHAKE_BYTES => line.push(byte),
            Ok(_) => return Err(invalid("the answer does not end")),
            // How a hypervisor says that nothing listens on the guest's port.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(io::Error::new(error.kind(), "closed without an answer"));
            }
            Err(error) => return Err(error),
        }
    }
    if line.windows(2).any(|pair| pair == b"OK") {
        Ok(())
    } else {
        Err(invalid(format!("the answer is {:?}", String::from_utf8_lossy(&line))))
    }
}

/// What a peer sent makes no sense.
fn invalid(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
