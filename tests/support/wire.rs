//! HTTP/1.1 by hand over a plain socket, for what a well-behaved client does not do.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::agent::{Agent, Answer};

/// How long a socket waits for the agent.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection.
pub struct Wire {
    stream: TcpStream,
}

impl Wire {
    /// Connects to where the agent says that it listens.
    #[track_caller]
    pub fn connect(agent: &Agent) -> Self {
        let address = addresses(agent)[0];
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connect to the agent");
        stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        stream.set_nodelay(true).expect("send at once");
        Self { stream }
    }

    /// The same from this address, as another client.
    #[track_caller]
    pub fn connect_from(agent: &Agent, source: Ipv4Addr) -> Self {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&socket, &SocketAddr::from((source, 0))).expect("an address of the loopback interface");
        connect(&socket, &addresses(agent)[0]).expect("connect to the agent");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        Self { stream }
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("send to the agent");
    }

    /// Sends bytes that the agent may not want any more.
    pub fn send_if_wanted(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends as much as goes out without waiting, if the agent still wants it.
    #[track_caller]
    pub fn push(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.set_nonblocking(true).expect("do not wait");
        let _ = self.stream.write_all(bytes.as_ref());
        self.stream.set_nonblocking(false).expect("wait again");
    }

    /// Sends a whole request that ends the connection.
    #[track_caller]
    pub fn ask(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n{headers}\r\n"));
    }

    /// Says that nothing more will be sent.
    #[track_caller]
    pub fn end(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("close one half");
    }

    /// Whether the agent has closed the connection, without waiting. What it has sent before is thrown away.
    #[track_caller]
    pub fn is_closed(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("do not wait");
        let mut buffer = [0; 4096];
        let closed = loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() != std::io::ErrorKind::WouldBlock,
            }
        };
        self.stream.set_nonblocking(false).expect("wait again");
        closed
    }

    /// Everything that comes until the agent closes the connection.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => bytes,
            // Closed while there were bytes of ours that it had not read.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => bytes,
            Err(error) => panic!("the agent does not close the connection: {error}"),
        }
    }

    /// The answer to a request that ends the connection.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        parse(&self.rest())
    }
}

/// One request over a connection of its own.
#[track_caller]
pub fn exchange(agent: &Agent, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    let mut wire = Wire::connect(agent);
    wire.ask(method, target, headers);
    wire.answer()
}

/// Where the agent says that it listens, in the order of its log.
#[track_caller]
pub fn addresses(agent: &Agent) -> Vec<SocketAddr> {
    let log = agent.log();
    let listening = log.iter().filter_map(|line| line.split_once("msg=listening")?.1.split_once("address="));
    listening.map(|(_, rest)| rest.split(' ').next().expect("a value").parse().expect("an address")).collect()
}

/// Takes a response apart whose end is the end of the connection.
#[track_caller]
pub fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no head in {:?}", String::from_utf8_lossy(bytes)));
    let head = std::str::from_utf8(&bytes[..end]).expect("a head is text");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status line");
    let headers = lines.map(|line| line.split_once(':').expect("a header"));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    Answer { status, headers, body: bytes[end + 4..].to_owned() }
}
