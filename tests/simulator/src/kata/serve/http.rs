//! HTTP/1.1 by hand: one request at a time, connections kept.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{ReadHalf, WriteHalf};

use super::outgoing::{self, FLOOD_BYTES};
use super::rpc::until_left;
use super::{Doors, permit};
use crate::kata::fault::Fault;
use crate::kata::kind::Endpoint;

/// The longest request head that is read.
const HEAD_MAX: usize = 64 << 10;

/// How long the header of an oversize answer is.
const OVERSIZE_HEADER: u64 = 1 << 20;

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct HttpRequest {
    pub(crate) method: String,
    /// Without what follows a question mark.
    pub(crate) path: String,
    /// Whether the numbers are to be in wrong units.
    pub(crate) wrong_units: bool,
}

/// An answer.
#[derive(Debug)]
pub(crate) enum HttpReply {
    /// These bytes, head and body.
    Bytes(Vec<u8>),
    /// The process that answers dies of the request.
    Die,
}

/// How a read request goes on.
struct Head {
    request: HttpRequest,
    body: u64,
    close: bool,
}

/// Serves one connection.
pub(super) async fn serve(doors: &Doors, endpoint: Endpoint, mut stream: UnixStream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let mut buffer = Vec::new();
    loop {
        let Some(head) = read_head(&mut reader, &mut buffer).await? else { return Ok(()) };
        skip_body(&mut reader, &mut buffer, head.body).await?;
        let route = format!("{} {}", head.request.method, head.request.path);
        let _in_flight = doors.ledger.begin(endpoint, &route);
        if !permit::allows(endpoint, &route) {
            doors.ledger.violation(endpoint, &route);
        }
        let useful = tokio::select! {
            useful = reply(doors, endpoint, &mut writer, head.request) => useful?,
            () = until_left(&mut reader, &mut buffer) => false,
        };
        if !useful || head.close {
            return writer.shutdown().await;
        }
    }
}

async fn reply(
    doors: &Doors,
    endpoint: Endpoint,
    writer: &mut WriteHalf<'_>,
    mut request: HttpRequest,
) -> io::Result<bool> {
    doors.wait_while_it_hangs(endpoint).await;
    let fault = doors.fault(endpoint);
    request.wrong_units = fault == Some(Fault::WrongUnits);
    match &fault {
        Some(slow @ Fault::Delay(time)) => doors.linger(endpoint, slow, *time).await,
        Some(Fault::Close) => return Ok(false),
        Some(Fault::Fail) => {
            writer.write_all(&plain(500, "simulated failure")).await?;
            return Ok(true);
        }
        Some(Fault::Garbage) => {
            writer.write_all(b"\x16\x03\x01\x00\xff not HTTP \x00\xff\xfe\r\n\r\n").await?;
            return Ok(false);
        }
        Some(Fault::Flood) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {FLOOD_BYTES}\r\n\r\n");
            outgoing::flood(writer, head.as_bytes()).await?;
            return Ok(true);
        }
        Some(Fault::Oversize) => {
            writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-padding: ").await?;
            outgoing::fill(writer, OVERSIZE_HEADER).await?;
            writer.write_all(b"\r\n\r\nok").await?;
            return Ok(true);
        }
        _ => {}
    }
    let answer = match endpoint {
        Endpoint::Shim => doors.answers.shim(&request),
        _ => doors.answers.hypervisor(&request),
    };
    let mut bytes = match answer {
        HttpReply::Bytes(bytes) => bytes,
        HttpReply::Die => {
            let route = format!("{} {}", request.method, request.path);
            doors.ledger.violation(endpoint, &format!("{route}, of which the shim died"));
            doors.die(&route);
            return Ok(false);
        }
    };
    if fault == Some(Fault::InvalidUtf8) {
        let body = find(&bytes, b"\r\n\r\n").map_or(0, |end| end + 4);
        outgoing::spoil_text(&mut bytes, body, &[]);
    }
    outgoing::send(doors, endpoint, writer, &bytes, fault.as_ref()).await
}

/// Reads up to the empty line. None when the client has left between two requests, or sends no HTTP.
async fn read_head(reader: &mut ReadHalf<'_>, buffer: &mut Vec<u8>) -> io::Result<Option<Head>> {
    loop {
        if let Some(end) = find(buffer, b"\r\n\r\n") {
            let head: Vec<u8> = buffer.drain(..end + 4).collect();
            return Ok(parse_head(&String::from_utf8_lossy(&head)));
        }
        if buffer.len() > HEAD_MAX || reader.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn parse_head(text: &str) -> Option<Head> {
    let mut lines = text.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let (mut body, mut close) = (0, version == "HTTP/1.0");
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        match name.to_ascii_lowercase().as_str() {
            "content-length" => body = value.trim().parse().ok()?,
            "connection" => close |= value.trim().eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    let request = HttpRequest { method: method.to_owned(), path: path.to_owned(), wrong_units: false };
    Some(Head { request, body, close })
}

async fn skip_body(reader: &mut ReadHalf<'_>, buffer: &mut Vec<u8>, length: u64) -> io::Result<()> {
    let mut left = usize::try_from(length).unwrap_or(usize::MAX);
    loop {
        let there = left.min(buffer.len());
        buffer.drain(..there);
        left -= there;
        if left == 0 || reader.read_buf(buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// A short answer without a content type.
pub(crate) fn plain(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} \r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_taken_apart() {
        let head = parse_head("PUT /policy?x=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\nConnection: close\r\n\r\n");
        let head = head.expect("it is HTTP");
        assert_eq!((head.request.method.as_str(), head.request.path.as_str()), ("PUT", "/policy"));
        assert_eq!((head.body, head.close), (12, true));
        assert!(parse_head("garbage\r\n\r\n").is_none());
    }
}
