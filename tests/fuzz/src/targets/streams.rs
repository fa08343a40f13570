//! Peers on Unix sockets: kata-agents and shims that speak ttrpc, shims and hypervisors that speak HTTP. They say what
//! they like, in as many pieces as they like, and hang up.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kata_pulse::collect::kata::agent::AgentClient;
use kata_pulse::collect::kata::task::TaskClient;
use kata_pulse::protos::agent::VersionCheckResponse;
use kata_pulse::transport::{Address, TransportError};
use kata_pulse::unix_http::{self, Bounds, Fault, HttpError};
use protobuf::Message;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;

use crate::memory::within;
use crate::reference::pieces;

/// Longer than any exchange takes: a peer that hangs up is noticed at once.
const DEADLINE: Duration = Duration::from_secs(20);

/// Bytes of a body that are taken.
const MAX_BODY: usize = 3000;

/// A socket to connect to, and a runtime to do it on.
struct Peer {
    runtime: Runtime,
    listener: UnixListener,
    directory: TempDir,
}

thread_local! {
    static PEER: Peer = Peer::new();
}

impl Peer {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("kpf").tempdir().expect("a temporary directory");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = runtime.block_on(async { UnixListener::bind(directory.path().join("peer")) });
        Self { runtime, listener: listener.expect("a socket"), directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("peer")
    }

    /// Connects with `client`, says `words` to it in pieces, if need be without having been `asked`, and hangs up.
    fn speak<T>(&self, words: &[u8], asked: bool, client: impl AsyncFnOnce(&Path) -> T) -> T {
        let path = self.path();
        self.runtime.block_on(async {
            let peer = async {
                let (mut stream, _) = self.listener.accept().await.expect("somebody connects");
                // Answers come after questions, and some clients insist on it.
                if asked {
                    let _ = stream.read(&mut [0; 512]).await;
                }
                for piece in pieces(words) {
                    // Whoever does not want to hear more is free to go.
                    if stream.write_all(piece).await.is_err() {
                        return;
                    }
                }
                let _ = stream.shutdown().await;
                let mut heard = Vec::new();
                let _ = stream.read_to_end(&mut heard).await;
            };
            let (_, outcome) = tokio::join!(peer, client(&path));
            outcome
        })
    }
}

/// An error is good for a log line.
fn is_line(error: &impl Display) {
    let text = error.to_string();
    assert!(text.len() < 2000 && !text.contains(char::is_control), "{text:?}");
}

/// A kata-agent, or a shim's Task service. The first byte chooses who it is, and whether what follows are whole answers
/// or all that comes over the wire.
pub fn ttrpc(input: &[u8]) {
    let Some((choice, words)) = input.split_first() else { return };
    let (hybrid, framed, task) = (choice & 1 != 0, choice & 2 != 0, choice & 4 != 0);
    let (first, second) = words.split_at(words.len() / 2);
    let mut wire = Vec::new();
    if framed {
        if hybrid {
            wire.extend_from_slice(b"OK 1073741829\n");
        }
        wire.extend(frame(1, first));
        wire.extend(frame(3, second));
    } else {
        wire.extend_from_slice(words);
    }
    let answers = PEER.with(|peer| {
        let ask = async |path: &Path| {
            let address = if hybrid { Address::HybridVsock(path.into()) } else { Address::Unix(path.into()) };
            if task { ask_shim(&address).await } else { ask_agent(&address).await }
        };
        within(wire.len(), 300, 256 << 10, || peer.speak(&wire, false, ask))
    });
    if let (true, false, Ok(version)) = (framed, task, &answers) {
        // Of the envelope ours reads two fields, and the general reader all.
        if let Ok(reply) = ttrpc::Response::parse_from_bytes(first) {
            let told = VersionCheckResponse::parse_from_bytes(&reply.payload).expect("a version, as it was taken");
            assert!(told.agent_version.starts_with(version.as_str()));
        }
    }
    if let Err(error) = answers {
        is_line(&error);
    }
}

/// A frame of a response.
fn frame(id: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("an input is shorter than 4 GiB");
    [&length.to_be_bytes()[..], &id.to_be_bytes(), &[2, 0], body].concat()
}

async fn ask_agent(address: &Address) -> Result<String, TransportError> {
    let mut agent = AgentClient::connect(address, DEADLINE).await?;
    let version = agent.version().await;
    after(&version, agent.is_open());
    if agent.is_open() {
        let bytes = agent.guest_metrics(str::len).await;
        assert!(*bytes.as_ref().unwrap_or(&0) <= 1 << 20);
        after(&bytes, agent.is_open());
    }
    let version = version?;
    assert!(version.len() <= 64);
    Ok(version)
}

async fn ask_shim(address: &Address) -> Result<String, TransportError> {
    let mut shim = TaskClient::connect(address, DEADLINE).await?;
    let stats = shim.stats("abc").await;
    after(&stats, shim.is_open());
    Ok(stats?.type_url)
}

/// A connection over which something came that is no answer is closed, and one over which an answer came is not.
fn after<T>(answer: &Result<T, TransportError>, is_open: bool) {
    match answer {
        Ok(_)
        | Err(
            TransportError::Denied { .. }
            | TransportError::UnknownId { .. }
            | TransportError::Unimplemented { .. }
            | TransportError::Refused { .. },
        ) => assert!(is_open, "closed after an answer"),
        Err(TransportError::Broken { .. }) => assert!(!is_open, "open after nonsense"),
        Err(TransportError::Timeout { after, .. }) => assert_eq!((*after, is_open), (DEADLINE, true), "nobody hangs"),
        Err(other) => panic!("{other}"),
    }
}

/// A shim's or a hypervisor's HTTP server. The first byte chooses whether what follows is a body, and how it is sent, or
/// all that comes over the wire.
pub fn http_answers(input: &[u8]) {
    let Some((choice, words)) = input.split_first() else { return };
    let wire = match choice & 3 {
        0 => words.to_vec(),
        1 => [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", words.len()).as_bytes(), words].concat(),
        2 => chunked(words),
        _ => [b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n", words].concat(),
    };
    let mut taken = 0;
    let answer = PEER.with(|peer| {
        let bounds = Bounds { deadline: DEADLINE, body_bytes: MAX_BODY };
        let ask = async |path: &Path| {
            let mut body = Vec::new();
            let got = unix_http::get(path, "/metrics", bounds, |piece| {
                taken += piece.len();
                body.extend_from_slice(piece);
            });
            got.await.map(|()| body)
        };
        within(wire.len(), 20, 256 << 10, || peer.speak(&wire, choice & 7 != 4, ask))
    });
    assert!(taken <= MAX_BODY);
    if choice & 3 != 0 {
        match &answer {
            Ok(body) => assert_eq!(body, words, "the body is another one"),
            Err(HttpError { fault: Fault::TooLarge(limit), .. }) => {
                assert!(*limit == MAX_BODY && words.len() > MAX_BODY)
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    if let Err(HttpError { fault, .. }) = answer {
        assert!(!matches!(fault, Fault::Connect(_) | Fault::Late(_)), "{fault:?}");
        is_line(&fault);
    }
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let mut wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in pieces(body) {
        wire.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        wire.extend_from_slice(piece);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}
