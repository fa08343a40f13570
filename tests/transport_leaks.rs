//! Peers that misbehave, hundreds of times over: no descriptor, no task and no memory may be left behind.
//!
//! The only test of its program, because it counts what the whole process holds.

#![expect(clippy::unwrap_used, reason = "a panic is the report")]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use kata_pulse::collect::kata::agent::AgentClient;
use kata_pulse::transport::{Address, TransportError};

/// How often each fault is met.
const ROUNDS: usize = 50;

/// Short, because the faults that hang take all of it.
const DEADLINE: Duration = Duration::from_millis(30);

/// What a peer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Deaf,
    Refusing,
    Mute,
    Closing,
    Garbage,
    Oversize,
    Flooding,
    Good,
}

const PEERS: [Peer; 8] =
    [Peer::Deaf, Peer::Refusing, Peer::Mute, Peer::Closing, Peer::Garbage, Peer::Oversize, Peer::Flooding, Peer::Good];

impl Peer {
    /// Serves one connection until the client closes it.
    fn serve(self, mut stream: UnixStream) -> std::io::Result<()> {
        let mut line = [0; 13];
        stream.read_exact(&mut line)?;
        assert_eq!(&line, b"CONNECT 1024\n");
        match self {
            Self::Deaf => return stream.read_to_end(&mut Vec::new()).map(drop),
            Self::Refusing => return Ok(()),
            _ => stream.write_all(b"OK 1073741829\n")?,
        }
        if self == Self::Flooding {
            let frame = [&[0, 0, 4, 0, 0, 0, 0, 7, 2, 0][..], &[0; 1024]].concat();
            while stream.write_all(&frame).is_ok() {}
            return Ok(());
        }
        let mut request = [0; 4096];
        if stream.read(&mut request)? == 0 {
            return Ok(());
        }
        let answer: &[u8] = match self {
            Self::Garbage => b"HTTP/1.1 400 Bad Request\r\n\r\n",
            // 4 294 967 295 bytes to come.
            Self::Oversize => &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 2, 0],
            // A response whose payload is a version reply: 4.1.0.
            Self::Good => b"\0\0\0\x09\0\0\0\x01\x02\0\x12\x07\x12\x054.1.0",
            _ => b"",
        };
        stream.write_all(answer)?;
        if self == Self::Closing { Ok(()) } else { stream.read_to_end(&mut Vec::new()).map(drop) }
    }
}

async fn meet(peer: Peer, address: &Address) {
    let mut agent = match AgentClient::connect(address, DEADLINE).await {
        Ok(agent) => agent,
        Err(TransportError::Timeout { .. }) if peer == Peer::Deaf => return,
        Err(TransportError::Handshake { .. }) if peer == Peer::Refusing => return,
        Err(other) => panic!("{peer:?}: {other:?}"),
    };
    match (peer, agent.version().await) {
        (Peer::Good, Ok(version)) => assert_eq!(version, "4.1.0"),
        (Peer::Mute, Err(TransportError::Timeout { .. })) => {}
        (Peer::Closing | Peer::Garbage | Peer::Oversize | Peer::Flooding, Err(TransportError::Broken { .. })) => {}
        (peer, other) => panic!("{peer:?}: {other:?}"),
    }
    assert_eq!(agent.is_open(), peer == Peer::Good);
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn listen(path: &Path, peer: Peer) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // An error here is the client's doing: it closes while it is being written to.
            let _ = peer.serve(stream.unwrap());
        }
    });
}

#[tokio::test]
async fn nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let addresses = PEERS.map(|peer| {
        let path = dir.path().join(format!("{peer:?}"));
        listen(&path, peer);
        (peer, Address::HybridVsock(path))
    });
    for (peer, address) in &addresses {
        meet(*peer, address).await;
    }
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (held, resident) = (descriptors(), resident_kib());
    for _ in 0..ROUNDS {
        for (peer, address) in &addresses {
            meet(*peer, address).await;
            assert_eq!(tasks(), 0, "{peer:?}: a task outlives its client");
        }
    }
    // Dropped half-way through a call, as when a scrape is cancelled.
    let (_, mute) = &addresses[2];
    let mut agent = AgentClient::connect(mute, Duration::from_secs(20)).await.unwrap();
    assert!(tokio::time::timeout(DEADLINE, agent.version()).await.is_err());
    assert!(!agent.is_open());
    // The peers close their ends when they see ours gone.
    let patience = Instant::now() + Duration::from_secs(10);
    while descriptors() > held && Instant::now() < patience {
        tokio::time::sleep(DEADLINE).await;
    }
    assert!(descriptors() <= held, "{} descriptors, {held} before", descriptors());
    assert_eq!(tasks(), 0);
    assert!(resident_kib() < resident + 4096, "{} KiB resident, {resident} before", resident_kib());
}
