//! Peers for tests: Unix sockets that answer, and that misbehave, exactly as told.

use std::future::Future;
use std::path::PathBuf;

use protobuf::Message;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use ttrpc::proto::{MESSAGE_HEADER_LENGTH, MESSAGE_TYPE_RESPONSE, MessageHeader};
use ttrpc::{Code, Request, Response, get_status};

use crate::transport::Address;

/// A listening peer. Gone when dropped.
pub(crate) struct Peer {
    dir: TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Peer {
    /// Serves every connection with `serve`, one after the other.
    pub(crate) fn new<F>(serve: impl Fn(UnixStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serve(stream).await;
            }
        });
        Self { dir, task }
    }

    /// A well-behaved service: answers every request with what `answer` says for its service, method and payload.
    pub(crate) fn answering(
        answer: impl Fn(&str, &str, &[u8]) -> Result<Vec<u8>, (Code, &'static str)> + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::new(move |mut stream| {
            let answer = answer.clone();
            async move {
                while let Some((id, request)) = request(&mut stream).await {
                    let frame = match answer(&request.service, &request.method, &request.payload) {
                        Ok(payload) => reply(id, payload),
                        Err((code, message)) => refusal(id, code, message),
                    };
                    if stream.write_all(&frame).await.is_err() {
                        break;
                    }
                }
            }
        })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// Its address as a shim, or as a tunnel to an agent.
    pub(crate) fn unix(&self) -> Address {
        Address::Unix(self.path())
    }

    /// Its address as a hypervisor.
    pub(crate) fn hybrid(&self) -> Address {
        Address::HybridVsock(self.path())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads the `CONNECT` line.
pub(crate) async fn greeting(stream: &mut UnixStream) -> String {
    let mut line = String::new();
    BufReader::with_capacity(1, stream).read_line(&mut line).await.unwrap();
    line
}

/// Reads one request, or nothing when the client has closed.
pub(crate) async fn request(stream: &mut UnixStream) -> Option<(u32, Request)> {
    let mut header = [0; MESSAGE_HEADER_LENGTH];
    stream.read_exact(&mut header).await.ok()?;
    let header = MessageHeader::from(header);
    let mut body = vec![0; usize::try_from(header.length).unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    Some((header.stream_id, Request::parse_from_bytes(&body).unwrap()))
}

/// A frame with an honest header.
pub(crate) fn frame(id: u32, kind: u8, body: &[u8]) -> Vec<u8> {
    let header = MessageHeader { length: body.len().try_into().unwrap(), stream_id: id, type_: kind, flags: 0 };
    let mut frame: Vec<u8> = header.into();
    frame.extend_from_slice(body);
    frame
}

/// A frame that answers well.
pub(crate) fn reply(id: u32, payload: Vec<u8>) -> Vec<u8> {
    let response = Response { payload, ..Response::default() };
    frame(id, MESSAGE_TYPE_RESPONSE, &response.write_to_bytes().unwrap())
}

/// A frame that answers with an error.
pub(crate) fn refusal(id: u32, code: Code, message: &str) -> Vec<u8> {
    let mut response = Response::default();
    response.set_status(get_status(code, message));
    frame(id, MESSAGE_TYPE_RESPONSE, &response.write_to_bytes().unwrap())
}
