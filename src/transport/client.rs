//! One ttrpc connection and unary calls over it, one at a time.
//!
//! The messages are those of the `ttrpc` crate, its client is not used. That one reads in a task of its own for as
//! long as the connection lives, whatever the peer sends and whether or not anyone has asked: a guest could keep it
//! busy for ever, a frame header that claims 4 GiB makes it read them all, and an answer marked as stream data stays
//! in its table. Here the caller reads, only while it waits for an answer, and never more than that answer may hold.
//!
//! ```text
//! frame    u32 length, u32 stream id (odd, rising), u8 type, u8 flags: big-endian; then the message
//! request  service=1 method=2 payload=3 timeout_nano=4
//! response status=1 payload=2
//! ```

use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use protobuf::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use ttrpc::asynchronous::transport::Socket;
use ttrpc::proto::{MESSAGE_HEADER_LENGTH, MESSAGE_TYPE_RESPONSE, MessageHeader};
use ttrpc::{Code, Request, Status};

use crate::protos;
use crate::transport::{Address, Step, TransportError, invalid, open};

/// Room for the envelope of a response beside its payload.
const ENVELOPE_BYTES: usize = 64;

/// First room for an answer: that of a container's stats.
const FIRST_READ: usize = 2 << 10;

/// Most room made for bytes that were announced and have not come: that of a guest's text.
const MOST_AHEAD: usize = 48 << 10;

/// Largest status taken: a code and a sentence.
const MAX_STATUS_BYTES: usize = 16 << 10;

/// Longest message of a peer that is repeated in an error.
const MAX_MESSAGE_BYTES: usize = 200;

/// Numbers of the fields of a response.
const STATUS_FIELD: u32 = 1;
const PAYLOAD_FIELD: u32 = 2;

/// A call that can be made: what to name, what to send, what comes back.
///
/// The real services also change and kill things. A call exists here only if somebody has written it down as a
/// constant, next to the client that makes it.
#[derive(Debug)]
pub struct Method<Q, A> {
    service: &'static str,
    name: &'static str,
    max_reply: usize,
    types: PhantomData<fn(&Q) -> A>,
}

impl<Q, A> Method<Q, A> {
    /// A method of a service whose replies have at most `max_reply` bytes.
    pub const fn new(service: &'static str, name: &'static str, max_reply: usize) -> Self {
        Self { service, name, max_reply, types: PhantomData }
    }

    /// Its full name: `grpc.AgentService`, `GetMetrics`.
    #[cfg(test)]
    pub(crate) const fn names(&self) -> (&'static str, &'static str) {
        (self.service, self.name)
    }
}

/// A connection to one peer.
///
/// Holds a socket and nothing else: dropping it closes the socket, and no task exists that could outlive it. A call
/// that is given up half-way, for whatever reason, closes it too, because the rest of an answer may still come.
pub struct Client {
    stream: Option<Socket>,
    deadline: Duration,
    last_id: Option<u32>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("open", &self.is_open()).field("deadline", &self.deadline).finish()
    }
}

impl Client {
    /// Connects, within `deadline` including the handshake; each call has the same deadline.
    pub async fn connect(address: &Address, deadline: Duration) -> Result<Self, TransportError> {
        let stream = open(address, deadline).await?;
        Ok(Self { stream: Some(stream), deadline, last_id: None })
    }

    /// Whether another call can be made. A closed connection stays closed; make another one.
    pub fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Calls a method and decodes its answer.
    pub async fn call<Q, A>(&mut self, method: &Method<Q, A>, request: &Q) -> Result<A, TransportError>
    where
        Q: Message,
        A: Message,
    {
        self.call_with(method, request, |payload| protos::decode(payload).map_err(invalid)).await
    }

    /// Calls a method and has its answer decoded by `decode`, an error of which closes the connection.
    pub async fn call_with<Q, A, T>(
        &mut self,
        method: &Method<Q, A>,
        request: &Q,
        decode: impl FnOnce(&[u8]) -> io::Result<T>,
    ) -> Result<T, TransportError>
    where
        Q: Message,
    {
        let broken = |source| TransportError::Broken { method: method.name, source };
        // Put back only after a whole answer.
        let mut stream = self.stream.take().ok_or_else(|| broken(io::ErrorKind::NotConnected.into()))?;
        let id = self.next_id();
        let frame = request_frame(id, method, request, self.deadline).map_err(broken)?;
        let max_bytes = method.max_reply.saturating_add(ENVELOPE_BYTES);
        let exchange = tokio::time::timeout(self.deadline, exchange(&mut stream, id, &frame, max_bytes));
        let reply = exchange
            .await
            .map_err(|_| TransportError::Timeout { step: Step::Call(method.name), after: self.deadline })?
            .map_err(broken)?;
        let reply = &reply[MESSAGE_HEADER_LENGTH..];
        let answer = match status(reply).map_err(broken)? {
            Some(status) => Err(self.refusal(method.name, &status)),
            None => {
                let payload = protos::bytes_field(reply, PAYLOAD_FIELD).map_err(|error| broken(error.into()))?;
                Ok(decode(payload.unwrap_or_default()).map_err(broken)?)
            }
        };
        self.stream = Some(stream);
        answer
    }

    /// Odd, and never used before on this connection.
    fn next_id(&mut self) -> u32 {
        let id = self.last_id.map_or(1, |last| last.wrapping_add(2));
        self.last_id = Some(id);
        id
    }

    /// What a status means, by number; a peer's text decides only where two peers use one number for two things.
    fn refusal(&self, method: &'static str, status: &Status) -> TransportError {
        let message = said(&status.message);
        let code = status.code.value();
        match status.code.enum_value().ok() {
            Some(Code::DEADLINE_EXCEEDED) => TransportError::Timeout { step: Step::Call(method), after: self.deadline },
            Some(Code::PERMISSION_DENIED) => TransportError::Denied { method, message },
            Some(Code::UNIMPLEMENTED) => TransportError::Unimplemented { method, message },
            // ttrpc in Rust: an unknown service is an invalid argument, and a method without code is not found, named by
            // its path.
            Some(Code::INVALID_ARGUMENT | Code::NOT_FOUND)
                if message.ends_with(" service does not exist") || message.starts_with('/') =>
            {
                TransportError::Unimplemented { method, message }
            }
            Some(Code::INVALID_ARGUMENT | Code::NOT_FOUND) => TransportError::UnknownId { method, message },
            _ => TransportError::Refused { method, code, message },
        }
    }
}

/// The bytes of a request, header included.
fn request_frame<Q: Message, A>(
    id: u32,
    method: &Method<Q, A>,
    request: &Q,
    deadline: Duration,
) -> io::Result<Vec<u8>> {
    let request = Request {
        service: method.service.to_owned(),
        method: method.name.to_owned(),
        payload: request.write_to_bytes()?,
        // Lets the peer give up as well, which in a guest may free a lock that others wait for.
        timeout_nano: i64::try_from(deadline.as_nanos()).unwrap_or(i64::MAX),
        ..Request::default()
    };
    let body = request.write_to_bytes()?;
    let length = u32::try_from(body.len()).map_err(|_| invalid("the request is too long"))?;
    let mut frame: Vec<u8> = MessageHeader::new_request(id, length).into();
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// Sends a frame and reads the one that must answer it: the bytes of its message, behind those of its header.
///
/// Header and message mostly come with one read. Room is made for [`MOST_AHEAD`] of what a header claims, so memory
/// follows the bytes that come.
async fn exchange(stream: &mut Socket, id: u32, frame: &[u8], max_bytes: usize) -> io::Result<Vec<u8>> {
    stream.write_all(frame).await?;
    stream.flush().await?;
    let mut bytes = Vec::with_capacity(FIRST_READ);
    read_up_to(stream, &mut bytes, MESSAGE_HEADER_LENGTH).await?;
    let (header, _) = bytes.split_first_chunk::<MESSAGE_HEADER_LENGTH>().ok_or(io::ErrorKind::UnexpectedEof)?;
    let header = MessageHeader::from(*header);
    if header.type_ != MESSAGE_TYPE_RESPONSE || header.stream_id != id {
        return Err(invalid(format!("a frame of type {} for stream {}", header.type_, header.stream_id)));
    }
    let length = usize::try_from(header.length).unwrap_or(usize::MAX);
    if length > max_bytes {
        return Err(invalid(format!("an answer of {length} bytes, {max_bytes} at most")));
    }
    let end = MESSAGE_HEADER_LENGTH + length;
    read_up_to(stream, &mut bytes, end).await?;
    if bytes.len() > end {
        return Err(invalid("more than the answer that was asked for"));
    }
    Ok(bytes)
}

/// Reads until there are `end` bytes; there may be more.
async fn read_up_to(stream: &mut Socket, bytes: &mut Vec<u8>, end: usize) -> io::Result<()> {
    while bytes.len() < end {
        bytes.reserve((end - bytes.len()).min(MOST_AHEAD));
        if stream.read_buf(bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// The status of a response, unless it is OK. A number that the crate does not know is not OK.
fn status(response: &[u8]) -> io::Result<Option<Status>> {
    let Some(bytes) = protos::bytes_field(response, STATUS_FIELD)? else { return Ok(None) };
    if bytes.len() > MAX_STATUS_BYTES {
        return Err(invalid(format!("a status of {} bytes", bytes.len())));
    }
    let status: Status = protos::decode(bytes)?;
    Ok((status.code.value() != 0).then_some(status))
}

/// A peer's words for a log line: short, without line breaks, without the quotes that the agent puts around them.
fn said(message: &str) -> String {
    let message = message.trim().trim_matches('"');
    let short = &message[..message.floor_char_boundary(MAX_MESSAGE_BYTES)];
    short.replace(char::is_control, " ")
}
