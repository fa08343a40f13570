//! What the agent asks in one scrape, byte for byte, as `strace` sees it.
//!
//! ```text
//! 4711 connect(12, {sa_family=AF_UNIX, sun_path="\x2f\x74\x6d\x70…"}, 110) = 0
//! 4711 sendto(12, "\x47\x45\x54…", 52, MSG_NOSIGNAL, NULL, 0) = 52
//! ```

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::agent::Agent;
use crate::floor::Peer;

/// Scrapes the agent three times under strace and gives whom it asked what in the third: by then it holds what it holds.
/// What it says to sockets outside `below`, or to the runtime, is not part of a collection.
pub fn record(program: &Path, flags: &[String], path: &str, below: &Path) -> anyhow::Result<Vec<Peer>> {
    let directory = tempfile::tempdir()?;
    let trace = directory.path().join("trace");
    let under = ["strace", "-f", "--seccomp-bpf", "-I1", "-qq", "-xx", "-s", "65536", "-e", "signal=none"];
    let calls = ["-e", "trace=connect,write,writev,sendto,sendmsg", "-o"];
    let mut under: Vec<String> = under.into_iter().chain(calls).map(str::to_owned).collect();
    under.push(trace.to_string_lossy().into_owned());
    // Where strace is killed, what it traces lives on.
    under.extend([std::env::current_exe()?.to_string_lossy().into_owned(), "leash".to_owned()]);
    let agent = Agent::start(program, &under, flags)?;
    agent.wait_until_ready()?;
    agent.get(path)?;
    agent.get(path)?;
    let before = fs::metadata(&trace)?.len();
    agent.get(path)?;
    let text = fs::read_to_string(&trace)?;
    let (earlier, last) = text.split_at(usize::try_from(before)?);
    drop(agent);
    Ok(asked(earlier, last).into_iter().filter(|peer| is_sandbox(&peer.socket, below)).collect())
}

fn is_sandbox(socket: &Path, below: &Path) -> bool {
    socket.starts_with(below) && !socket.ends_with("containerd.sock")
}

/// Whom was asked what in the last part of a trace; connections may have been made before it.
fn asked(earlier: &str, last: &str) -> Vec<Peer> {
    let mut sockets: HashMap<&str, PathBuf> = HashMap::new();
    let mut peers: Vec<Peer> = Vec::new();
    let mut index: HashMap<PathBuf, usize> = HashMap::new();
    let lines = earlier.lines().map(|line| (line, false)).chain(last.lines().map(|line| (line, true)));
    for (line, is_last) in lines {
        let Some(Call { name, descriptor, literal }) = Call::parse(line) else { continue };
        if name == "connect" {
            let path = PathBuf::from(std::ffi::OsString::from_vec(literal));
            sockets.insert(descriptor, path);
            continue;
        }
        let Some(socket) = sockets.get(descriptor) else { continue };
        let at = *index.entry(socket.clone()).or_insert_with(|| {
            peers.push(Peer { socket: socket.clone(), ..Peer::default() });
            peers.len() - 1
        });
        if literal.starts_with(b"CONNECT ") {
            peers[at].hello = literal;
        } else if is_last {
            peers[at].requests.push(literal);
        }
    }
    peers.retain(|peer| !peer.requests.is_empty());
    peers
}

struct Call<'a> {
    name: &'a str,
    descriptor: &'a str,
    /// All strings among the arguments: a write in pieces is one question.
    literal: Vec<u8>,
}

impl<'a> Call<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (head, arguments) = line.split_once('(')?;
        let name = head.rsplit(' ').next()?;
        let (descriptor, rest) = arguments.split_once(',')?;
        let literal = rest.split('"').skip(1).step_by(2).filter_map(|text| unhex(text).ok()).flatten().collect();
        Some(Self { name, descriptor, literal })
    }
}

/// `\x2f\x74` are the bytes of `/t`.
fn unhex(text: &str) -> anyhow::Result<Vec<u8>> {
    let digits = text.split("\\x").skip(1);
    digits
        .map(|digits| u8::from_str_radix(digits, 16).with_context(|| format!("not hexadecimal: {digits:?}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_told_from_handshakes_and_by_socket() {
        let earlier = "7 connect(12, {sa_family=AF_UNIX, sun_path=\"\\x2f\\x61\"}, 110) = 0\n\
                       7 sendto(12, \"\\x43\\x4f\\x4e\\x4e\\x45\\x43\\x54\\x20\\x31\\x0a\", 10, 0, NULL, 0) = 10\n\
                       7 sendto(12, \"\\x01\", 1, 0, NULL, 0) = 1\n";
        let last = "8 sendto(12, \"\\x02\\x03\", 2, 0, NULL, 0 <unfinished ...>\n\
                    9 connect(13, {sa_family=AF_UNIX, sun_path=\"\\x2f\\x62\"}, 110) = 0\n\
                    9 writev(13, [{iov_base=\"\\x04\", iov_len=1}, {iov_base=\"\\x05\", iov_len=1}], 2) = 2\n\
                    8 <... sendto resumed>) = 2\n\
                    8 sendto(44, \"\\x06\", 1, 0, NULL, 0) = 1\n";
        let peers = asked(earlier, last);
        let peer = |socket: &str, hello: &[u8], request: &[u8]| Peer {
            socket: socket.into(),
            hello: hello.to_vec(),
            requests: vec![request.to_vec()],
        };
        assert_eq!(peers, [peer("/a", b"CONNECT 1\n", &[2, 3]), peer("/b", b"", &[4, 5])]);
    }
}
