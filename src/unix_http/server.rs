//! A server for tests on a real Unix socket, that says exactly what it is told, in exactly these writes.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

/// Serves connections one after the other on a thread of its own until dropped.
pub(crate) struct Server {
    dir: TempDir,
    heads: mpsc::Receiver<String>,
}

impl Server {
    /// Reads each request's head, then calls `answer` with the connection.
    pub(crate) fn new(answer: impl Fn(&mut UnixStream) -> std::io::Result<()> + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let (sender, heads) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let Some(head) = read_head(&mut stream) else { continue };
                if sender.send(head).is_err() {
                    return;
                }
                // A client that has heard enough hangs up in the middle of the answer.
                let _ = answer(&mut stream);
            }
        });
        Self { dir, heads }
    }

    /// Answers every request with these bytes and hangs up.
    pub(crate) fn saying(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::new(move |stream| stream.write_all(&bytes))
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// The head of the next request.
    pub(crate) fn head(&self) -> String {
        self.heads.recv_timeout(Duration::from_secs(10)).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes the thread; it ends because nobody wants its heads.
        if let Ok(mut stream) = UnixStream::connect(self.socket()) {
            let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
        }
    }
}

fn read_head(stream: &mut UnixStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// A body in chunks that end at these places.
pub(crate) fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut coded = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in body.chunks(size) {
        coded.extend(format!("{:x}\r\n", piece.len()).bytes());
        coded.extend(piece);
        coded.extend(b"\r\n");
    }
    coded.extend(b"0\r\n\r\n");
    coded
}

/// A body with its length, and no content type: as runtime-rs answers.
pub(crate) fn whole(body: &[u8]) -> Vec<u8> {
    let mut coded = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    coded.extend(body);
    coded
}
