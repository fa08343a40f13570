//! The floor: a program that reads the very files the agent holds open, has the very exchanges the agent has, copies as
//! many bytes as the agent says, and does nothing else.
//!
//! On `held` it does so with descriptors and connections it has already; on `anew` it opens and connects everything
//! first, as any tool must that holds nothing. It answers with the CPU and wall time in nanoseconds and the bytes read.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Larger than any file and any piece of an answer.
const BUFFER: usize = 1 << 20;

/// What is to be done.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Task {
    /// Files to read.
    pub files: Vec<PathBuf>,
    /// Whom to ask.
    pub peers: Vec<Peer>,
    /// Bytes to copy.
    pub copied: usize,
}

/// A socket and what is said there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Where it is.
    pub socket: PathBuf,
    /// What is said once, to be led on to the guest's agent; blank if nothing is.
    pub hello: Vec<u8>,
    /// What is asked, one after the other.
    pub requests: Vec<Vec<u8>>,
}

/// What one round took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// CPU time.
    pub cpu: Duration,
    /// Time on the wall.
    pub wall: Duration,
    /// Bytes read.
    pub bytes: u64,
}

impl Took {
    /// The answer to an order.
    pub fn parse(line: &str) -> anyhow::Result<Self> {
        let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>().context(line.to_owned())?;
        let [cpu, wall, bytes] = numbers.as_slice() else { bail!("the floor says {line:?}") };
        Ok(Self { cpu: Duration::from_nanos(*cpu), wall: Duration::from_nanos(*wall), bytes: *bytes })
    }
}

/// Does what it is told until standard input ends.
pub fn run(path: &Path) -> anyhow::Result<()> {
    let task: Task = serde_json::from_slice(&std::fs::read(path)?)?;
    let mut floor = Floor::new(&task)?;
    answer("ready")?;
    for order in io::stdin().lock().lines() {
        let (wall, cpu) = (Instant::now(), cpu_now()?);
        let bytes = match order?.as_str() {
            "held" => floor.held()?,
            "anew" => floor.anew()?,
            other => bail!("unknown order {other:?}"),
        };
        let cpu = cpu_now()?.saturating_sub(cpu);
        answer(&format!("{} {} {bytes}", cpu.as_nanos(), wall.elapsed().as_nanos()))?;
    }
    Ok(())
}

fn answer(line: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn cpu_now() -> anyhow::Result<Duration> {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Ok(Duration::new(u64::try_from(now.tv_sec)?, u32::try_from(now.tv_nsec)?))
}

struct Floor<'a> {
    task: &'a Task,
    files: Vec<File>,
    streams: Vec<UnixStream>,
    buffer: Vec<u8>,
    from: Vec<u8>,
    to: Vec<u8>,
}

impl<'a> Floor<'a> {
    fn new(task: &'a Task) -> anyhow::Result<Self> {
        // On a node that lives, a cgroup may have gone since the agent was asked for its files.
        let files = task.files.iter().filter_map(|path| File::open(path).ok()).collect();
        let streams = task.peers.iter().map(connect).collect::<anyhow::Result<_>>()?;
        let (buffer, from, to) = (vec![0; BUFFER], vec![1; task.copied], vec![2; task.copied]);
        Ok(Self { task, files, streams, buffer, from, to })
    }

    fn held(&mut self) -> anyhow::Result<u64> {
        let mut bytes = 0;
        for file in &self.files {
            bytes += file.read_at(&mut self.buffer, 0).unwrap_or_default();
        }
        for turn in 0..self.turns() {
            for (peer, stream) in self.task.peers.iter().zip(&self.streams) {
                if let Some(request) = peer.requests.get(turn) {
                    (&mut &*stream).write_all(request)?;
                }
            }
            for (peer, stream) in self.task.peers.iter().zip(&self.streams) {
                if let Some(request) = peer.requests.get(turn) {
                    let about =
                        || format!("answer of {} to {:?}", peer.socket.display(), request.escape_ascii().to_string());
                    bytes += read_answer(request, stream, &mut self.buffer).with_context(about)?;
                }
            }
        }
        self.copy();
        Ok(u64::try_from(bytes)?)
    }

    fn anew(&mut self) -> anyhow::Result<u64> {
        let mut bytes = 0;
        for path in &self.task.files {
            if let Ok(mut file) = File::open(path) {
                bytes += file.read(&mut self.buffer).unwrap_or_default();
            }
        }
        for peer in &self.task.peers {
            let stream = connect(peer)?;
            for request in &peer.requests {
                (&stream).write_all(request)?;
                bytes += read_answer(request, &stream, &mut self.buffer)?;
            }
        }
        self.copy();
        Ok(u64::try_from(bytes)?)
    }

    /// How many questions the one who is asked most is asked.
    fn turns(&self) -> usize {
        self.task.peers.iter().map(|peer| peer.requests.len()).max().unwrap_or_default()
    }

    fn copy(&mut self) {
        self.to.copy_from_slice(std::hint::black_box(&self.from));
        std::hint::black_box(&self.to);
    }
}

fn connect(peer: &Peer) -> anyhow::Result<UnixStream> {
    let connected = UnixStream::connect(&peer.socket);
    let mut stream = connected.with_context(|| format!("connect {}", peer.socket.display()))?;
    if !peer.hello.is_empty() {
        stream.write_all(&peer.hello)?;
        let mut line = [0; 64];
        let read = stream.read(&mut line)?;
        ensure!(line[..read].starts_with(b"OK "), "not led on to the guest's agent");
    }
    Ok(stream)
}

/// Reads a whole answer, in as few reads as it comes in.
fn read_answer(request: &[u8], mut stream: &UnixStream, buffer: &mut [u8]) -> anyhow::Result<usize> {
    let is_whole = if request.starts_with(b"GET ") { http_is_whole } else { frame_is_whole };
    let mut there = 0;
    while !is_whole(&buffer[..there]) {
        ensure!(there < buffer.len(), "an answer of more than {BUFFER} bytes");
        let read = stream.read(&mut buffer[there..])?;
        ensure!(read > 0, "the connection ended after {there} bytes");
        there += read;
    }
    Ok(there)
}

/// A ttrpc frame: the length of the message, in all ten bytes of header, the message.
fn frame_is_whole(bytes: &[u8]) -> bool {
    let length = bytes.first_chunk::<4>().map(|length| u32::from_be_bytes(*length));
    length.is_some_and(|length| bytes.len() as u64 >= 10 + u64::from(length))
}

/// A head with the length of the body, or a body in chunks, of which the last is empty.
fn http_is_whole(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length = head.split("content-length:").nth(1).and_then(|rest| rest.split("\r\n").next()?.trim().parse().ok());
    match length {
        Some(length) => bytes.len() - end - 4 >= length,
        None => bytes.ends_with(b"\r\n0\r\n\r\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_answer_is_seen() {
        assert!(!frame_is_whole(&[0, 0, 0, 1, 0, 0, 0, 1, 2, 0]));
        assert!(frame_is_whole(&[0, 0, 0, 1, 0, 0, 0, 1, 2, 0, 7]));
        assert!(!http_is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no"));
        assert!(http_is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
        assert!(!http_is_whole(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n"));
        assert!(http_is_whole(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"));
    }
}
