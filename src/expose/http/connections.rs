//! How many connections there may be, and what becomes of those that only stand in the way.
//!
//! A connection is cheap to open and costs a descriptor and buffers for as long as it stays. When there is no more room,
//! the one that was quiet for longest makes way for the new one, out of those of the client that has most; whoever is
//! being answered stays. So a scrape gets in however many idle or hostile connections there are, and so does the
//! kubelet's probe. A client that does not read what it asked for is let go of after a while.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::telemetry::Telemetry;

/// Connections held at once, where the process may open enough files.
const MAX_CONNECTIONS: usize = 256;

/// The share of the files that the process may open which is for connections; the other shares are held kernel files
/// (one half), sockets of runtime and guests, and files opened for a moment.
const SHARE_OF_DESCRIPTORS: u64 = 8;

/// Even where hardly any file may be opened, so many must get in: Prometheus twice, the kubelet, and somebody who looks.
const MIN_CONNECTIONS: usize = 8;

/// How long a client may leave what was sent to it in the kernel's buffers without taking any of it.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take for a whole answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the body of a request that has been answered may go on.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between two lines of log about connections that make way.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// All connections of all listeners.
#[derive(Debug)]
pub(super) struct Connections {
    max: usize,
    open: Mutex<Open>,
    telemetry: Arc<Telemetry>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    by_number: HashMap<u64, Arc<Connection>>,
    said: Option<Instant>,
}

/// What is known of a connection beside its bytes.
#[derive(Debug)]
pub(super) struct Connection {
    peer: Option<IpAddr>,
    /// Requests that are being answered.
    busy: AtomicUsize,
    makes_way: AtomicBool,
    task: AtomicWaker,
    times: Mutex<Times>,
}

#[derive(Debug)]
struct Times {
    /// Since when nothing has been asked.
    quiet: Instant,
    /// By when the last answer must be out.
    until: Option<Instant>,
    /// By when the body of the request that was answered must be over, if it had one. Nobody here reads it.
    body_until: Option<Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connections {
    /// None yet. As many as the process has descriptors for.
    pub(super) fn new(telemetry: Arc<Telemetry>) -> Arc<Self> {
        let limit = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| {
            usize::try_from(limit / SHARE_OF_DESCRIPTORS).unwrap_or(usize::MAX).max(MIN_CONNECTIONS)
        });
        Self::at_most(limit.min(MAX_CONNECTIONS), telemetry)
    }

    fn at_most(max: usize, telemetry: Arc<Telemetry>) -> Arc<Self> {
        Arc::new(Self { max, open: Mutex::default(), telemetry })
    }

    /// How many there may be.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Takes a connection in, in another's place if there is no room. An error when nobody can make way.
    pub(super) fn admit(self: &Arc<Self>, stream: TcpStream) -> io::Result<Stream> {
        let peer = stream.peer_addr().ok().map(|address| address.ip());
        let connection = self.enter(peer).ok_or_else(|| io::Error::other("every connection is being answered"))?;
        // Answers are written whole.
        stream.set_nodelay(true)?;
        Ok(Stream { inner: stream, connection, stalled: None, body: None })
    }

    fn enter(self: &Arc<Self>, peer: Option<IpAddr>) -> Option<Entered> {
        let mut open = lock(&self.open);
        if open.by_number.len() >= self.max {
            self.telemetry.http_connections_closed.with_label_values(&["full"]).inc();
            if open.said.is_none_or(|said| said.elapsed() > SAY_EVERY) {
                open.said = Some(Instant::now());
                tracing::warn!(connections = self.max, "no room for more connections, idle ones make way");
            }
            let number = open.in_the_way()?;
            if let Some(connection) = open.by_number.remove(&number) {
                connection.leave();
            }
        }
        let times = Mutex::new(Times { quiet: Instant::now(), until: None, body_until: None });
        let (busy, makes_way, task) = Default::default();
        let connection = Arc::new(Connection { peer, busy, makes_way, task, times });
        let number = open.next;
        open.next += 1;
        open.by_number.insert(number, Arc::clone(&connection));
        self.count(&open);
        Some(Entered { number, connection, all: Arc::clone(self) })
    }

    fn count(&self, open: &Open) {
        self.telemetry.http_connections.set(i64::try_from(open.by_number.len()).unwrap_or(i64::MAX));
    }
}

impl Open {
    /// Who was quiet for longest, of the client that has most connections that are quiet.
    fn in_the_way(&self) -> Option<u64> {
        let quiet = || self.by_number.iter().filter(|(_, one)| one.busy.load(Ordering::Acquire) == 0);
        let mut of_peer: HashMap<Option<IpAddr>, usize> = HashMap::new();
        for (_, one) in quiet() {
            *of_peer.entry(one.peer).or_default() += 1;
        }
        let most = of_peer.values().copied().max()?;
        let theirs = quiet().filter(|(_, one)| of_peer.get(&one.peer) == Some(&most));
        theirs.min_by_key(|(_, one)| lock(&one.times).quiet).map(|(number, _)| *number)
    }
}

impl Connection {
    /// Marks the connection as being answered until the guard is dropped.
    pub(super) fn answering(self: Arc<Self>, has_body: bool) -> Answering {
        self.busy.fetch_add(1, Ordering::AcqRel);
        // The request before this one is over.
        lock(&self.times).body_until = None;
        Answering { connection: self, has_body }
    }

    fn leave(&self) {
        self.makes_way.store(true, Ordering::Release);
        self.task.wake();
    }

    /// Fails once the connection has to go. `cx` is woken when that happens.
    fn stay(&self, cx: &Context<'_>) -> io::Result<()> {
        self.task.register(cx.waker());
        if self.makes_way.load(Ordering::Acquire) { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    fn is_late(&self) -> bool {
        lock(&self.times).until.is_some_and(|until| Instant::now() > until)
    }
}

/// A request of the connection is being answered.
#[derive(Debug)]
pub(super) struct Answering {
    connection: Arc<Connection>,
    has_body: bool,
}

impl Drop for Answering {
    fn drop(&mut self) {
        let now = Instant::now();
        let body_until = self.has_body.then(|| now + BODY_TIMEOUT);
        *lock(&self.connection.times) = Times { quiet: now, until: Some(now + ANSWER_TIMEOUT), body_until };
        self.connection.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A connection's place, given back when dropped.
#[derive(Debug)]
struct Entered {
    number: u64,
    connection: Arc<Connection>,
    all: Arc<Connections>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut open = lock(&self.all.open);
        open.by_number.remove(&self.number);
        self.all.count(&open);
    }
}

/// A socket that has a place, and loses it when it stands in the way or nobody reads at its other end.
#[derive(Debug)]
pub(super) struct Stream {
    inner: TcpStream,
    connection: Entered,
    stalled: Option<Pin<Box<Sleep>>>,
    body: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    /// What is known of it.
    pub(super) fn connection(&self) -> Arc<Connection> {
        Arc::clone(&self.connection.connection)
    }

    /// The other end.
    pub(super) fn peer_addr(&self) -> Option<std::net::SocketAddr> {
        self.inner.peer_addr().ok()
    }

    /// Looks whether the client may take so long.
    fn bear(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL_TIMEOUT)));
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(self.unread())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Fails when a body that nobody reads goes on for too long.
    fn bear_body(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let until = lock(&self.connection.connection.times).body_until;
        let Some(until) = until else {
            self.body = None;
            return Ok(());
        };
        let body = self.body.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until.into())));
        match body.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    fn unread(&self) -> io::Error {
        self.connection.all.telemetry.http_connections_closed.with_label_values(&["unread"]).inc();
        io::ErrorKind::TimedOut.into()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.connection.connection.stay(cx)?;
        self.bear_body(cx)?;
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.connection.connection.stay(cx)?;
        if self.connection.connection.is_late() {
            return Poll::Ready(Err(self.unread()));
        }
        match Pin::new(&mut self.inner).poll_write(cx, bytes) {
            Poll::Ready(written) => {
                self.stalled = None;
                Poll::Ready(written)
            }
            Poll::Pending => self.bear(cx),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOODER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));
    const SCRAPER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)));

    fn room_for(max: usize) -> Arc<Connections> {
        Connections::at_most(max, Arc::new(Telemetry::new().unwrap()))
    }

    fn has_left(entered: &Entered) -> bool {
        entered.connection.makes_way.load(Ordering::Acquire)
    }

    #[test]
    fn the_longest_quiet_one_of_the_client_with_most_makes_way() {
        let all = room_for(4);
        let scraper = all.enter(SCRAPER).unwrap();
        let flood: Vec<Entered> = (0..3).map(|_| all.enter(FLOODER).unwrap()).collect();
        let new = all.enter(FLOODER).unwrap();
        assert_eq!(flood.iter().map(has_left).collect::<Vec<_>>(), [true, false, false]);
        assert!(!has_left(&scraper) && !has_left(&new), "the oldest of all is another client's");
        assert_eq!(all.telemetry.http_connections.get(), 4);
        drop((scraper, flood, new));
        assert_eq!(all.telemetry.http_connections.get(), 0);
    }

    #[test]
    fn whoever_is_being_answered_stays() {
        let all = room_for(2);
        let (one, other) = (all.enter(FLOODER).unwrap(), all.enter(FLOODER).unwrap());
        let answering = Arc::clone(&one.connection).answering(false);
        let new = all.enter(FLOODER).unwrap();
        assert!(has_left(&other) && !has_left(&one));
        let also_answering = Arc::clone(&new.connection).answering(false);
        assert!(all.enter(SCRAPER).is_none(), "nobody can make way");
        drop(answering);
        assert!(all.enter(SCRAPER).is_some());
        assert!(has_left(&one) && !has_left(&new));
        drop(also_answering);
    }
}
