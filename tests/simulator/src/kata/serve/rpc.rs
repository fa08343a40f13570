//! ttrpc by hand, and the handshake of hybrid vsock in front of it.
//!
//! A frame is a header of ten bytes (length, stream id, type, flags) and a message. Requests of a connection are
//! answered as they come and each in its own time, so one that hangs does not hold up the next.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use protobuf::{Message, MessageField};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, Notify, oneshot};
use tokio::task::JoinSet;
use ttrpc::proto::{MESSAGE_LENGTH_MAX, MESSAGE_TYPE_REQUEST, MESSAGE_TYPE_RESPONSE, Request, Response, Status};

use super::outgoing::{self, FLOOD_BYTES};
use super::{Doors, permit};
use crate::kata::fault::Fault;
use crate::kata::kind::Endpoint;

pub(crate) use ttrpc::Code;

/// Bytes of a frame's header.
const HEADER: usize = 10;

/// The guest port of the agent, and those that nobody but the shim may connect to: its log, which has one reader, the
/// debug console, and the containers' standard streams.
const AGENT_PORT: u32 = 1024;
const RESERVED_PORTS: std::ops::RangeInclusive<u32> = 1025..=1027;

/// The longest handshake that is read.
const HANDSHAKE_MAX: usize = 64;

/// Bytes that are no protobuf: a group that opens, in which a field claims bytes that are not there.
const GARBAGE: [u8; 9] = [0x0b, 0x0a, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x07];

/// A call.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// `grpc.AgentService/GetMetrics`
    pub(crate) route: &'a str,
    pub(crate) payload: &'a [u8],
    /// Whether the numbers are to be in wrong units.
    pub(crate) wrong_units: bool,
}

/// An answer.
#[derive(Debug)]
pub(crate) enum RpcReply {
    /// The encoded message, with the status OK that servers in Rust send along.
    Payload(Vec<u8>),
    /// The encoded message without a status, as servers in Go send it.
    Bare(Vec<u8>),
    /// An error.
    Status(Code, String),
    /// One that is not known yet.
    Later(oneshot::Receiver<RpcReply>),
    /// None, ever.
    Silence,
}

impl RpcReply {
    /// An encoded message.
    pub(crate) fn message(message: &impl Message) -> Self {
        Self::Payload(message.write_to_bytes().expect("a message without required fields can be written"))
    }
}

/// Answers `CONNECT 1024` with `OK <port>`, as the hypervisor does when the guest has accepted. Gives what the client
/// has sent beyond that; none when it was turned away or has left.
pub(super) async fn shake_hands(doors: &Doors, stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    /// The host side's port, another one for each connection.
    static PORT: AtomicU32 = AtomicU32::new(1 << 30);

    let mut line = Vec::new();
    loop {
        // Byte by byte, because what follows the line is not for us.
        let byte = stream.read_u8().await?;
        if byte == b'\n' {
            break;
        }
        line.push(byte);
        if line.len() > HANDSHAKE_MAX {
            return Ok(None);
        }
    }
    let line = String::from_utf8_lossy(&line).into_owned();
    let port = line.split_once(' ').filter(|(word, _)| word.eq_ignore_ascii_case("connect"));
    let port = port.and_then(|(_, port)| port.trim().parse::<u32>().ok());
    match port {
        Some(AGENT_PORT) => {}
        Some(reserved) if RESERVED_PORTS.contains(&reserved) => {
            doors.ledger.violation(Endpoint::Agent, &line);
            return Ok(None);
        }
        _ => return Ok(None),
    }
    let mut early = Vec::new();
    tokio::select! {
        biased;
        () = doors.wait_while_it_hangs(Endpoint::Agent) => {}
        () = until_left(stream, &mut early) => return Ok(None),
    }
    match doors.fault(Endpoint::Agent) {
        Some(Fault::Close) => return Ok(None),
        Some(Fault::DenyHandshake) => {
            stream.write_all(b"ERR no listener\n").await?;
            return Ok(None);
        }
        Some(Fault::EndlessHandshake) => {
            outgoing::flood(stream, b"OK").await?;
            return Ok(None);
        }
        _ => {}
    }
    let port = PORT.fetch_add(1, Ordering::Relaxed);
    stream.write_all(format!("OK {port}\n").as_bytes()).await?;
    Ok(Some(early))
}

/// Returns when the client has closed its end. What it sends meanwhile is kept.
pub(super) async fn until_left(reader: &mut (impl AsyncRead + Unpin), kept: &mut Vec<u8>) {
    // An error is the end, too.
    while matches!(reader.read_buf(kept).await, Ok(count) if count > 0) {}
}

/// One connection, as the tasks that answer its calls share it.
struct Line {
    doors: Arc<Doors>,
    endpoint: Endpoint,
    writer: Mutex<OwnedWriteHalf>,
    /// Whether the caller may ask for everything.
    master: bool,
    /// Told when a fault wants the connection closed.
    hang_up: Notify,
}

/// Serves one connection, of which these bytes have been read already.
pub(super) async fn serve(
    doors: &Arc<Doors>,
    endpoint: Endpoint,
    stream: UnixStream,
    mut buffer: Vec<u8>,
) -> io::Result<()> {
    let caller = stream.peer_cred().ok().and_then(|caller| caller.pid());
    let master = caller.is_some_and(|pid| doors.answers.obeys(pid));
    let (mut reader, writer) = stream.into_split();
    let writer = Mutex::new(writer);
    let line = Arc::new(Line { doors: Arc::clone(doors), endpoint, writer, master, hang_up: Notify::new() });
    // Dropped with the connection, and with it every call that is not answered.
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            frame = read_frame(&mut reader, &mut buffer) => {
                let Some((stream_id, request)) = frame? else { return Ok(()) };
                calls.spawn(Arc::clone(&line).answer(stream_id, request));
            }
            Some(_) = calls.join_next(), if !calls.is_empty() => {}
            () = line.hang_up.notified() => return Ok(()),
        }
    }
}

/// Reads a request; frames of other types are skipped. None when the client has left.
async fn read_frame(reader: &mut OwnedReadHalf, buffer: &mut Vec<u8>) -> io::Result<Option<(u32, Request)>> {
    loop {
        if let Some((length, stream_id, kind)) = header(buffer) {
            if length > MESSAGE_LENGTH_MAX {
                return Ok(None);
            }
            if buffer.len() >= HEADER + length {
                let frame: Vec<u8> = buffer.drain(..HEADER + length).collect();
                let request = Request::parse_from_bytes(frame.get(HEADER..).unwrap_or_default())?;
                if kind == MESSAGE_TYPE_REQUEST {
                    return Ok(Some((stream_id, request)));
                }
                continue;
            }
        }
        if reader.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// Length, stream id and type.
fn header(buffer: &[u8]) -> Option<(usize, u32, u8)> {
    let (length, rest) = buffer.split_first_chunk::<4>()?;
    let (stream_id, rest) = rest.split_first_chunk::<4>()?;
    let ([kind, _flags], _) = rest.split_first_chunk::<2>()?;
    Some((usize::try_from(u32::from_be_bytes(*length)).ok()?, u32::from_be_bytes(*stream_id), *kind))
}

/// The header of a response.
fn response_header(length: usize, stream_id: u32) -> Vec<u8> {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &stream_id.to_be_bytes(), &[MESSAGE_TYPE_RESPONSE, 0]].concat()
}

impl Line {
    async fn answer(self: Arc<Self>, stream_id: u32, request: Request) {
        // An error means that the client has left, which the reader notices.
        if !self.try_answer(stream_id, &request).await.unwrap_or(true) {
            self.hang_up.notify_one();
        }
    }

    /// Gives whether the connection is still of use.
    async fn try_answer(&self, stream_id: u32, request: &Request) -> io::Result<bool> {
        let Self { doors, endpoint, .. } = self;
        let route = format!("{}/{}", request.service, request.method);
        let _in_flight = doors.ledger.begin(*endpoint, &route);
        if !self.master && !permit::allows(*endpoint, &route) {
            doors.ledger.violation(*endpoint, &route);
        }
        doors.wait_while_it_hangs(*endpoint).await;
        let fault = doors.fault(*endpoint);
        match &fault {
            Some(slow @ Fault::Delay(time)) => doors.linger(*endpoint, slow, *time).await,
            Some(Fault::Close) => return Ok(false),
            Some(Fault::Flood) => {
                let head = response_header(usize::try_from(FLOOD_BYTES).unwrap_or(usize::MAX), stream_id);
                outgoing::flood(&mut *self.writer.lock().await, &head).await?;
                return Ok(true);
            }
            Some(Fault::Oversize) => {
                let length = MESSAGE_LENGTH_MAX + 1;
                let mut writer = self.writer.lock().await;
                writer.write_all(&response_header(length, stream_id)).await?;
                outgoing::fill(&mut *writer, u64::try_from(length).unwrap_or(u64::MAX)).await?;
                return Ok(true);
            }
            _ => {}
        }
        let wrong_units = fault == Some(Fault::WrongUnits);
        let call = Call { route: &route, payload: &request.payload, wrong_units };
        let reply = match (&fault, endpoint) {
            (Some(Fault::Fail), _) => RpcReply::Status(Code::INTERNAL, "simulated failure".to_owned()),
            (_, Endpoint::Task) => doors.answers.task(&call),
            _ => doors.answers.agent(&call),
        };
        let reply = match reply {
            // Nobody is left to answer when the sender is dropped.
            RpcReply::Later(reply) => reply.await.unwrap_or(RpcReply::Silence),
            reply => reply,
        };
        let Some(mut message) = response(reply)? else { return std::future::pending().await };
        match fault {
            // The envelope and what is in it take turns in being broken.
            Some(Fault::Garbage) if stream_id % 4 == 1 => message = GARBAGE.to_vec(),
            Some(Fault::Garbage) => {
                message = Response { payload: GARBAGE.to_vec(), ..Response::default() }.write_to_bytes()?;
            }
            Some(Fault::InvalidUtf8) => {
                let words = ["kata_guest", "inactive_file", "io.containerd", "SERVING", "4.", "/run"];
                outgoing::spoil_text(&mut message, 0, &words);
            }
            _ => {}
        }
        let frame = [response_header(message.len(), stream_id), message].concat();
        outgoing::send(doors, *endpoint, &mut *self.writer.lock().await, &frame, fault.as_ref()).await
    }
}

/// The encoded response; none where there is to be none.
fn response(reply: RpcReply) -> io::Result<Option<Vec<u8>>> {
    let response = match reply {
        RpcReply::Payload(payload) => {
            let status = Status { code: Code::OK.into(), ..Status::default() };
            Response { payload, status: MessageField::some(status), ..Response::default() }
        }
        RpcReply::Bare(payload) => Response { payload, ..Response::default() },
        RpcReply::Status(code, message) => {
            let status = Status { code: code.into(), message, ..Status::default() };
            Response { status: MessageField::some(status), ..Response::default() }
        }
        RpcReply::Silence | RpcReply::Later(_) => return Ok(None),
    };
    let bytes = response.write_to_bytes()?;
    if bytes.len() > MESSAGE_LENGTH_MAX {
        // As ttrpc itself says it.
        let length = bytes.len();
        let text = format!("message length {length} exceed maximum message size of {MESSAGE_LENGTH_MAX}");
        return self::response(RpcReply::Status(Code::INVALID_ARGUMENT, text));
    }
    Ok(Some(bytes))
}
