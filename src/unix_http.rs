//! HTTP/1.1 GET over a Unix socket, with a deadline and a size cap. A leaf: shims and Cloud Hypervisor are asked
//! through it.
//!
//! A connection is driven by the exchange itself: dropping its future closes the socket and leaves no task behind. There
//! is no other method than GET.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use crate::unix_socket;

/// Read buffer of a connection. It bounds the size of an answer's head, and of the pieces its body comes in.
const BUFFER_BYTES: usize = 16 << 10;

/// How much of an answer that is not 200 is kept: enough for the one line servers write there.
const MAX_REFUSAL_BYTES: usize = 4 << 10;

/// Bounds of one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// From connecting to the last byte of the body.
    pub deadline: Duration,
    /// Size of the body.
    pub body_bytes: usize,
}

/// Which exchange failed, and why.
#[derive(Debug, thiserror::Error)]
#[error("GET {route} on {socket}")]
pub struct HttpError {
    /// The socket.
    pub socket: PathBuf,
    /// What was asked for.
    pub route: &'static str,
    /// Why there is no answer.
    #[source]
    pub fault: Fault,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The socket is absent, refuses, or has its queue full.
    #[error("connect")]
    Connect(#[source] io::Error),
    /// The connection was closed before a byte came back: how a dying shim looks.
    #[error("closed without an answer")]
    NoAnswer,
    /// The answer broke off, or is not HTTP.
    #[error("broken answer")]
    Broken(#[source] hyper::Error),
    /// An answer other than 200.
    #[error("status {status}: {}", excerpt(body))]
    Status {
        /// The status.
        status: u16,
        /// The beginning of its body.
        body: Vec<u8>,
    },
    /// The body is larger than allowed.
    #[error("more than {0} bytes")]
    TooLarge(usize),
    /// The answer was not complete in time.
    #[error("no complete answer within {0:?}")]
    Late(Duration),
}

/// A line of an error's body for a log: the first 200 bytes of it, blanks and control characters made visible.
fn excerpt(body: &[u8]) -> String {
    let body = body.trim_ascii();
    body.get(..200).unwrap_or(body).escape_ascii().to_string()
}

/// Asks for `route` and hands the body of a 200 to `take` as it arrives. After an error what was taken is not the whole
/// body.
pub async fn get(socket: &Path, route: &'static str, bounds: Bounds, take: impl FnMut(&[u8])) -> Result<(), HttpError> {
    Session::new(socket).get(route, bounds, take).await
}

/// Asks for `route` and keeps the body.
pub async fn get_bytes(socket: &Path, route: &'static str, bounds: Bounds) -> Result<Vec<u8>, HttpError> {
    Session::new(socket).get_bytes(route, bounds).await
}

/// Exchanges with one server, one after the other. They share a connection while the server keeps it open: where it does
/// not, each has its own.
#[derive(Debug)]
pub struct Session<'a> {
    socket: &'a Path,
    open: Option<Open>,
}

impl<'a> Session<'a> {
    /// Nothing is connected yet.
    pub fn new(socket: &'a Path) -> Self {
        Self { socket, open: None }
    }

    /// As [`get`].
    pub async fn get(&mut self, route: &'static str, bounds: Bounds, take: impl FnMut(&[u8])) -> Result<(), HttpError> {
        let answer = tokio::time::timeout(bounds.deadline, self.exchange(route, bounds.body_bytes, take)).await;
        answer.unwrap_or(Err(Fault::Late(bounds.deadline))).map_err(|fault| HttpError {
            socket: self.socket.to_owned(),
            route,
            fault,
        })
    }

    /// As [`get_bytes`].
    pub async fn get_bytes(&mut self, route: &'static str, bounds: Bounds) -> Result<Vec<u8>, HttpError> {
        let mut body = Vec::new();
        self.get(route, bounds, |piece| body.extend_from_slice(piece)).await?;
        Ok(body)
    }

    async fn exchange(&mut self, route: &'static str, limit: usize, mut take: impl FnMut(&[u8])) -> Result<(), Fault> {
        // What is not put back is closed: after an error, and when this future is dropped.
        if let Some(mut open) = self.open.take() {
            match open.exchange(route, limit, &mut take).await {
                // The server had closed it after its last answer.
                Err(Fault::NoAnswer) => {}
                outcome => {
                    self.keep(open, &outcome);
                    return outcome;
                }
            }
        }
        let mut open = Open::connect(self.socket).await?;
        let outcome = open.exchange(route, limit, &mut take).await;
        self.keep(open, &outcome);
        outcome
    }

    fn keep(&mut self, open: Open, outcome: &Result<(), Fault>) {
        self.open = Some(open).filter(|open| outcome.is_ok() && open.connection.is_some());
    }
}

type Driven = http1::Connection<TokioIo<Listening>, Empty<Bytes>>;

/// A connection on which nothing is under way.
struct Open {
    sender: http1::SendRequest<Empty<Bytes>>,
    /// `None` once it has ended.
    connection: Option<Pin<Box<Driven>>>,
    heard: Arc<AtomicBool>,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Open").finish_non_exhaustive()
    }
}

impl Open {
    async fn connect(socket: &Path) -> Result<Self, Fault> {
        let stream = unix_socket::connect(socket).await.map_err(Fault::Connect)?;
        let heard = Arc::new(AtomicBool::new(false));
        let stream = Listening { stream, heard: Arc::clone(&heard) };
        let handshake = http1::Builder::new().max_buf_size(BUFFER_BYTES).handshake(TokioIo::new(stream)).await;
        // Nothing has been written or read yet.
        let (sender, connection) = handshake.map_err(|_| Fault::NoAnswer)?;
        Ok(Self { sender, connection: Some(Box::pin(connection)), heard })
    }

    async fn exchange(&mut self, route: &'static str, limit: usize, take: impl FnMut(&[u8])) -> Result<(), Fault> {
        let Self { sender, connection, heard } = self;
        heard.store(false, Ordering::Relaxed);
        let broken =
            |error: hyper::Error| if heard.load(Ordering::Relaxed) { Fault::Broken(error) } else { Fault::NoAnswer };
        let ask = async {
            sender.ready().await.map_err(broken)?;
            // A host is obligatory and means nothing here. Nothing else is sent: Cloud Hypervisor's server refuses
            // headers that it knows but does not support.
            let mut request = Request::new(Empty::<Bytes>::new());
            *request.uri_mut() = Uri::from_static(route);
            request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
            let response = sender.send_request(request).await.map_err(broken)?;
            read_answer(response, limit, take).await
        };
        tokio::pin!(ask);
        // Bytes move only while the connection is polled; once it has ended, what it received can still be read.
        while let Some(driven) = connection {
            tokio::select! {
                answer = &mut ask => return answer,
                _ = driven => *connection = None,
            }
        }
        ask.await
    }
}

async fn read_answer(response: Response<Incoming>, limit: usize, mut take: impl FnMut(&[u8])) -> Result<(), Fault> {
    let status = response.status();
    let mut body = response.into_body();
    if status != StatusCode::OK {
        return Err(Fault::Status { status: status.as_u16(), body: refusal(body).await });
    }
    if body.size_hint().lower() > limit as u64 {
        return Err(Fault::TooLarge(limit));
    }
    let mut taken = 0usize;
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(Fault::Broken)?.into_data() else { continue };
        taken = taken.saturating_add(piece.len());
        if taken > limit {
            return Err(Fault::TooLarge(limit));
        }
        take(&piece);
    }
    Ok(())
}

/// The beginning of an error's body, as far as it arrives.
async fn refusal(mut body: Incoming) -> Vec<u8> {
    let mut kept = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let piece = frame.into_data().unwrap_or_default();
        kept.extend(piece.iter().take(MAX_REFUSAL_BYTES - kept.len()));
        if kept.len() == MAX_REFUSAL_BYTES {
            break;
        }
    }
    kept
}

/// A stream that remembers whether the other side has said anything.
#[derive(Debug)]
struct Listening {
    stream: UnixStream,
    heard: Arc<AtomicBool>,
}

impl AsyncRead for Listening {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.heard.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Listening {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
pub(crate) mod server;
#[cfg(test)]
mod tests;
