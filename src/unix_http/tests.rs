//! Faults of a server on a real Unix socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use super::server::{Server, chunked, whole};
use super::*;

const BOUNDS: Bounds = Bounds { deadline: Duration::from_secs(5), body_bytes: 1000 };

/// A test that waits for a deadline waits this long.
const SHORT: Bounds = Bounds { deadline: Duration::from_millis(200), body_bytes: 1000 };

async fn ask(server: &Server, bounds: Bounds) -> Result<Vec<u8>, Fault> {
    get_bytes(&server.socket(), "/metrics", bounds).await.map_err(|error| error.fault)
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

#[tokio::test]
async fn a_get_is_sent_and_nothing_but_a_host() {
    let server = Server::saying(whole(b"body"));
    assert_eq!(ask(&server, BOUNDS).await.unwrap(), b"body");
    assert_eq!(server.head(), "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n");
}

#[tokio::test]
async fn chunks_of_every_size_are_one_body() {
    let body: Vec<u8> = (0..97u8).collect();
    for size in 1..=body.len() {
        let server = Server::saying(chunked(&body, size));
        assert_eq!(ask(&server, BOUNDS).await.unwrap(), body, "chunks of {size}");
    }
}

#[tokio::test]
async fn an_answer_may_be_cut_between_any_two_bytes() {
    let coded = chunked(b"0123456789abcdef0123456789", 17);
    for cut in 0..coded.len() {
        let (first, second) = coded.split_at(cut);
        let (first, second) = (first.to_vec(), second.to_vec());
        let server = Server::new(move |stream| {
            stream.write_all(&first)?;
            stream.flush()?;
            std::thread::sleep(Duration::from_millis(1));
            stream.write_all(&second)
        });
        assert_eq!(ask(&server, BOUNDS).await.unwrap(), b"0123456789abcdef0123456789", "cut at {cut}");
    }
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_is_taken() {
    let server = Server::saying("HTTP/1.1 200 OK\r\n\r\nuntil the end");
    assert_eq!(ask(&server, BOUNDS).await.unwrap(), b"until the end");
    let server = Server::saying("HTTP/1.0 200 OK\r\n\r\nold");
    assert_eq!(ask(&server, BOUNDS).await.unwrap(), b"old");
}

#[tokio::test]
async fn an_empty_body_is_an_answer() {
    let server = Server::saying(whole(b""));
    assert_eq!(ask(&server, BOUNDS).await.unwrap(), b"");
}

#[tokio::test]
async fn a_connection_closed_without_a_byte_is_told_from_one_that_broke_off() {
    let server = Server::new(|_| Ok(()));
    assert!(matches!(ask(&server, BOUNDS).await, Err(Fault::NoAnswer)));
    for broken in [
        "H",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nbody",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbo",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nbody\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nx",
        "ttrpc?\0\0\0\n\n",
    ] {
        let server = Server::saying(broken);
        assert!(matches!(ask(&server, BOUNDS).await, Err(Fault::Broken(_))), "{broken:?}");
    }
}

/// A peer that closes with our request unread resets the connection, which is the same news.
#[tokio::test]
async fn a_reset_is_no_answer_either() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        drop(stream);
    });
    let error = get_bytes(&socket, "/metrics", BOUNDS).await.unwrap_err();
    assert!(matches!(error.fault, Fault::NoAnswer), "{error:?}");
    thread.join().unwrap();
}

#[tokio::test]
async fn other_statuses_are_errors_with_the_beginning_of_their_body() {
    let server = Server::saying("HTTP/1.1 404 Not Found\r\ncontent-length: 13\r\n\r\nURL NOT FOUND");
    let error = get_bytes(&server.socket(), "/metrics", BOUNDS).await.unwrap_err();
    assert!(chain(&error).ends_with("/s: status 404: URL NOT FOUND"), "{}", chain(&error));
    for status in ["204 No Content", "301 Moved", "500 Internal Server Error", "206 Partial Content"] {
        let server = Server::saying(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n"));
        let expected: u16 = status.split(' ').next().unwrap().parse().unwrap();
        assert!(matches!(ask(&server, BOUNDS).await, Err(Fault::Status { status, .. }) if status == expected));
    }
    let long = format!("HTTP/1.1 500 x\r\ncontent-length: 100000\r\n\r\n{}", "e".repeat(100_000));
    let Err(Fault::Status { body, .. }) = ask(&Server::saying(long), BOUNDS).await else { panic!("500") };
    assert_eq!(body.len(), MAX_REFUSAL_BYTES);
}

#[tokio::test]
async fn a_body_beyond_the_cap_is_not_read_to_its_end() {
    let gib = "HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n";
    let server = Server::saying(gib);
    assert!(matches!(ask(&server, BOUNDS).await, Err(Fault::TooLarge(1000))), "by its announced length");

    let written = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&written);
    let server = Server::new(move |stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        for _ in 0..1 << 14 {
            stream.write_all(b"10000\r\n")?;
            stream.write_all(&[b'x'; 0x10000])?;
            stream.write_all(b"\r\n")?;
            count.fetch_add(0x10000, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    });
    let mut taken = 0;
    let error = get(&server.socket(), "/metrics", BOUNDS, |piece| taken += piece.len()).await.unwrap_err();
    assert!(matches!(error.fault, Fault::TooLarge(1000)), "{error:?}");
    assert!(taken <= 1000);
    assert!(written.load(std::sync::atomic::Ordering::Relaxed) < 4 << 20, "of 1 GiB");

    let server = Server::saying(whole(&[b'x'; 1000]));
    assert_eq!(ask(&server, BOUNDS).await.unwrap().len(), 1000, "the cap itself is allowed");
}

#[tokio::test]
async fn a_head_without_end_is_not_kept() {
    let server = Server::new(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
        for _ in 0..1 << 20 {
            stream.write_all(b"x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n")?;
        }
        Ok(())
    });
    assert!(matches!(ask(&server, BOUNDS).await, Err(Fault::Broken(_))));
}

#[tokio::test]
async fn the_deadline_covers_connect_head_and_body() {
    let dir = tempfile::tempdir().unwrap();
    let silent = dir.path().join("silent");
    // Accepts nothing: the connection opens and waits in the queue.
    let _listener = UnixListener::bind(&silent).unwrap();
    let hang = |after: &'static str| {
        Server::new(move |stream| {
            stream.write_all(after.as_bytes())?;
            std::thread::sleep(Duration::from_secs(20));
            Ok(())
        })
    };
    let drip = Server::new(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")?;
        for _ in 0..1000 {
            stream.write_all(b"x")?;
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    });
    let informed = Server::new(|stream| {
        for _ in 0..100 {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    });
    let (no_head, no_end) = (hang(""), hang("HTTP/1.1 200 OK\r\n"));
    let no_body = hang("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome");
    let no_reason = hang("HTTP/1.1 500 x\r\ncontent-length: 9\r\n\r\nsome");
    let servers = [&no_head, &no_end, &no_body, &no_reason, &drip, &informed].map(Server::socket);
    for socket in servers.into_iter().chain([silent]) {
        let started = Instant::now();
        let error = get_bytes(&socket, "/metrics", SHORT).await.unwrap_err();
        assert!(matches!(error.fault, Fault::Late(_)), "{error:?}");
        let took = started.elapsed();
        assert!(took >= SHORT.deadline && took < Duration::from_secs(5), "{took:?}");
    }
}

#[tokio::test]
async fn a_socket_that_is_absent_stale_or_no_socket_is_not_connected() {
    let dir = tempfile::tempdir().unwrap();
    let stale = dir.path().join("stale");
    drop(UnixListener::bind(&stale).unwrap());
    std::fs::write(dir.path().join("file"), "").unwrap();
    for (name, kind) in [
        ("none", io::ErrorKind::NotFound),
        ("stale", io::ErrorKind::ConnectionRefused),
        ("file", io::ErrorKind::ConnectionRefused),
    ] {
        let error = get_bytes(&dir.path().join(name), "/metrics", BOUNDS).await.unwrap_err();
        assert!(matches!(&error.fault, Fault::Connect(source) if source.kind() == kind), "{name}: {error:?}");
    }
}

/// Below a host root the path of a sandbox's socket may outgrow a socket address.
#[tokio::test]
async fn a_path_too_long_for_an_address_is_reached_all_the_same() {
    let server = Server::saying(whole(b"far"));
    let deep = server.socket().parent().unwrap().join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    std::fs::rename(server.socket(), deep.join("shim-monitor.sock")).unwrap();
    let answer = get_bytes(&deep.join("shim-monitor.sock"), "/metrics", BOUNDS).await.unwrap();
    assert_eq!(answer, b"far");
    std::fs::rename(deep.join("shim-monitor.sock"), server.socket()).unwrap();
}

#[tokio::test]
async fn dropping_the_future_closes_the_connection() {
    let (sender, closed) = std::sync::mpsc::channel();
    let server = Server::new(move |stream| {
        let mut byte = [0];
        let read = std::io::Read::read(stream, &mut byte);
        sender.send(matches!(read, Ok(0))).ok();
        Ok(())
    });
    let asking = get_bytes(&server.socket(), "/metrics", BOUNDS).await_briefly().await;
    assert!(asking.is_none());
    assert!(closed.recv_timeout(Duration::from_secs(5)).unwrap());
}

trait Briefly: Future + Sized {
    /// Polls for a moment, then drops.
    async fn await_briefly(self) -> Option<Self::Output> {
        tokio::time::timeout(Duration::from_millis(50), self).await.ok()
    }
}
impl<F: Future> Briefly for F {}

#[tokio::test]
async fn exchanges_of_a_session_share_a_connection() {
    let server = Server::new(|stream| {
        stream.write_all(&whole(b"one"))?;
        let mut second = [0; 4];
        stream.read_exact(&mut second)?;
        stream.write_all(&whole(&second))
    });
    let socket = server.socket();
    let mut session = Session::new(&socket);
    assert_eq!(session.get_bytes("/one", BOUNDS).await.unwrap(), b"one");
    assert_eq!(session.get_bytes("/two", BOUNDS).await.unwrap(), b"GET ");
    assert!(server.head().starts_with("GET /one "));
}

#[tokio::test]
async fn a_session_outlives_connections() {
    // This server hangs up after every answer, and does not say so before.
    let server = Server::saying(whole(b"body"));
    let socket = server.socket();
    let mut session = Session::new(&socket);
    for route in ["/one", "/two", "/three"] {
        assert_eq!(session.get_bytes(route, BOUNDS).await.unwrap(), b"body");
        assert!(server.head().starts_with(&format!("GET {route} ")));
    }
}

#[tokio::test]
async fn an_exchange_that_failed_takes_its_connection_with_it() {
    let server = Server::new(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n")?;
        stream.write_all(&[b'x'; 5000])
    });
    let socket = server.socket();
    let mut session = Session::new(&socket);
    assert!(matches!(session.get_bytes("/one", BOUNDS).await.unwrap_err().fault, Fault::TooLarge(1000)));
    let large = Bounds { body_bytes: 5000, ..BOUNDS };
    assert_eq!(session.get_bytes("/two", large).await.unwrap(), [b'x'; 5000]);
}
