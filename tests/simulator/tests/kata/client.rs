//! Clients that share no code with the servers: bytes on blocking sockets, and messages declared here.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use prost::Message;

/// What a slow machine gets.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A request of ttrpc.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    #[prost(string, tag = "1")]
    pub service: String,
    #[prost(string, tag = "2")]
    pub method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
}

/// A response of ttrpc.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Status {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}

/// Any request whose first field is an id.
#[derive(Clone, PartialEq, Message)]
pub struct Id {
    #[prost(string, tag = "1")]
    pub id: String,
}

/// `Metrics` of the agent.
#[derive(Clone, PartialEq, Message)]
pub struct Text {
    #[prost(string, tag = "1")]
    pub text: String,
}

/// `StatsContainerResponse`, as far as tests look at it.
#[derive(Clone, PartialEq, Message)]
pub struct Stats {
    #[prost(message, required, tag = "1")]
    pub cgroup: Cgroup,
}

#[derive(Clone, PartialEq, Message)]
pub struct Cgroup {
    #[prost(message, required, tag = "1")]
    pub cpu: Cpu,
    #[prost(message, required, tag = "2")]
    pub memory: Memory,
    #[prost(message, required, tag = "3")]
    pub pids: Pids,
    #[prost(message, required, tag = "4")]
    pub blkio: Blkio,
    #[prost(map = "string, message", tag = "5")]
    pub hugetlb: HashMap<String, Numbers>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Cpu {
    #[prost(message, required, tag = "1")]
    pub usage: CpuUsage,
    #[prost(message, required, tag = "2")]
    pub throttling: Numbers,
}

#[derive(Clone, PartialEq, Message)]
pub struct CpuUsage {
    #[prost(uint64, tag = "1")]
    pub total: u64,
    #[prost(uint64, repeated, tag = "2")]
    pub per_cpu: Vec<u64>,
    #[prost(uint64, tag = "3")]
    pub kernel: u64,
    #[prost(uint64, tag = "4")]
    pub user: u64,
}

/// Four numbers: periods, throttled periods and throttled time, or usage, maximum, failures and limit.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Numbers {
    #[prost(uint64, tag = "1")]
    pub first: u64,
    #[prost(uint64, tag = "2")]
    pub second: u64,
    #[prost(uint64, tag = "3")]
    pub third: u64,
    #[prost(uint64, tag = "4")]
    pub fourth: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Memory {
    #[prost(uint64, tag = "1")]
    pub cache: u64,
    #[prost(message, required, tag = "2")]
    pub usage: Numbers,
    #[prost(message, required, tag = "3")]
    pub swap: Numbers,
    #[prost(message, required, tag = "4")]
    pub kernel: Numbers,
    #[prost(bool, tag = "5")]
    pub use_hierarchy: bool,
    #[prost(map = "string, uint64", tag = "6")]
    pub stats: HashMap<String, u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Pids {
    #[prost(uint64, tag = "1")]
    pub current: u64,
    #[prost(uint64, tag = "2")]
    pub limit: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Blkio {
    #[prost(message, repeated, tag = "1")]
    pub bytes: Vec<BlkioEntry>,
    #[prost(message, repeated, tag = "2")]
    pub operations: Vec<BlkioEntry>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct BlkioEntry {
    #[prost(uint64, tag = "1")]
    pub major: u64,
    #[prost(uint64, tag = "2")]
    pub minor: u64,
    #[prost(string, tag = "3")]
    pub op: String,
    #[prost(uint64, tag = "4")]
    pub value: u64,
}

/// A status that is not OK: its code and message.
pub type Refusal = (i32, String);

/// A ttrpc connection.
pub struct Rpc {
    pub stream: UnixStream,
    next: u32,
}

impl Rpc {
    /// To a socket that speaks ttrpc at once.
    pub fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self { stream: connect(path)?, next: 1 })
    }

    /// To the agent, through the handshake.
    pub fn to_agent(path: &Path) -> io::Result<Self> {
        let mut rpc = Self::connect(path)?;
        let line = shake_hands(&mut rpc.stream, "CONNECT 1024\n")?;
        assert!(line.starts_with("OK "), "{line:?}");
        Ok(rpc)
    }

    /// Calls and waits.
    pub fn call(&mut self, route: &str, payload: &[u8]) -> io::Result<Result<Vec<u8>, Refusal>> {
        let id = self.send(route, payload)?;
        let (stream_id, message) = self.receive()?;
        assert_eq!(stream_id, id);
        let response = Response::decode(message.as_slice())?;
        Ok(match response.status.filter(|status| status.code != 0) {
            Some(status) => Err((status.code, status.message)),
            None => Ok(response.payload),
        })
    }

    /// Calls about an id, and takes no refusal.
    pub fn ask<M: Message + Default>(&mut self, route: &str, id: &str) -> anyhow::Result<M> {
        let payload = Id { id: id.to_owned() }.encode_to_vec();
        let payload = self.call(route, &payload)?.map_err(|(code, text)| anyhow::anyhow!("{code}: {text}"))?;
        Ok(M::decode(payload.as_slice())?)
    }

    /// Sends a request and gives its stream id.
    pub fn send(&mut self, route: &str, payload: &[u8]) -> io::Result<u32> {
        let id = self.next;
        self.next += 2;
        let (service, method) = route.rsplit_once('/').expect("a route is service/Method");
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: payload.to_owned(),
            timeout_nano: 2_000_000_000,
        };
        let message = request.encode_to_vec();
        let length = u32::try_from(message.len()).expect("requests are short");
        let frame = [&length.to_be_bytes()[..], &id.to_be_bytes(), &[1, 0], &message].concat();
        self.stream.write_all(&frame)?;
        Ok(id)
    }

    /// Reads a response frame: its stream id and message.
    pub fn receive(&mut self) -> io::Result<(u32, Vec<u8>)> {
        let (length, id) = self.receive_header()?;
        let mut message = vec![0; usize::try_from(length).expect("64 bits")];
        self.stream.read_exact(&mut message)?;
        Ok((id, message))
    }

    /// Reads the header of a response: its length and stream id.
    pub fn receive_header(&mut self) -> io::Result<(u32, u32)> {
        let mut header = [0; 10];
        self.stream.read_exact(&mut header)?;
        let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"));
        assert_eq!((header[8], header[9]), (2, 0), "a response without flags");
        Ok((number(0), number(4)))
    }
}

/// Connects; reads give up after [`PATIENCE`].
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends a line and reads one, byte by byte. Empty when the connection was closed.
pub fn shake_hands(stream: &mut UnixStream, line: &str) -> io::Result<String> {
    stream.write_all(line.as_bytes())?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\n") && read_some(stream, &mut byte)? > 0 {
        answer.extend(byte);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// As `read`, but a connection that was reset is at its end.
pub fn read_some(stream: &mut UnixStream, buffer: &mut [u8]) -> io::Result<usize> {
    match stream.read(buffer) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(0),
        read => read,
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Http {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Http {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    }
}

/// Asks on a connection of its own and reads to the end of it.
pub fn get(path: &Path, target: &str) -> io::Result<Http> {
    request(path, "GET", target)
}

pub fn request(path: &Path, method: &str, target: &str) -> io::Result<Http> {
    let mut stream = connect(path)?;
    stream.write_all(format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match read_some(&mut stream, &mut buffer)? {
            0 => break,
            count => bytes.extend(&buffer[..count]),
        }
    }
    parse(&bytes).ok_or_else(|| ErrorKind::InvalidData.into())
}

pub fn parse(bytes: &[u8]) -> Option<Http> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut http = Http { status, head, body: bytes[end + 4..].to_vec() };
    if http.header("transfer-encoding") == Some("chunked") {
        http.body = dechunk(&http.body)?;
    }
    Some(http)
}

fn dechunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).ok()?, 16).ok()?;
        bytes = &bytes[end + 2..];
        if length == 0 {
            return (bytes == b"\r\n").then_some(body);
        }
        body.extend(bytes.get(..length)?);
        bytes = bytes.get(length..)?.strip_prefix(b"\r\n")?;
    }
}

/// The samples of a Prometheus text: name with labels, and value.
pub fn samples(text: &str) -> HashMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.map(|line| line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}")));
    pairs.map(|(series, value)| (series.to_owned(), value.parse().expect("a number"))).collect()
}
