//! Who came, what was asked for, and what nobody should have asked for.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::kind::Endpoint;

/// What an endpoint has seen since its sandbox started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were accepted.
    pub connections: u64,
    /// Those that are open.
    pub open: u64,
    /// The most that were open at a time.
    pub most_open: u64,
    /// Requests that were read.
    pub requests: u64,
    /// Those that are not answered yet.
    pub in_flight: u64,
    /// The most that were unanswered at a time.
    pub most_in_flight: u64,
}

impl Counts {
    fn opened(&mut self) {
        self.connections += 1;
        self.open += 1;
        self.most_open = self.most_open.max(self.open);
    }

    fn begun(&mut self) {
        self.requests += 1;
        self.in_flight += 1;
        self.most_in_flight = self.most_in_flight.max(self.in_flight);
    }
}

/// A call that an agent which only measures must never make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The sandbox that was called.
    pub sandbox: String,
    /// Where.
    pub endpoint: Endpoint,
    /// The route, such as `PUT /policy` or `grpc.AgentService/GetOOMEvent`.
    pub call: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sandbox, endpoint, call } = self;
        write!(f, "{call} at {endpoint:?} of sandbox {sandbox}")
    }
}

/// What concerns all sandboxes of a node.
#[derive(Debug, Default)]
pub(super) struct NodeLedger {
    total: Mutex<Counts>,
    violations: Mutex<Vec<Violation>>,
}

impl NodeLedger {
    pub(super) fn total(&self) -> Counts {
        *lock(&self.total)
    }

    pub(super) fn violations(&self) -> Vec<Violation> {
        lock(&self.violations).clone()
    }

    pub(super) fn take_violations(&self) -> Vec<Violation> {
        std::mem::take(&mut *lock(&self.violations))
    }
}

/// The book of one sandbox.
#[derive(Debug)]
pub(super) struct Ledger {
    sandbox: String,
    node: Arc<NodeLedger>,
    book: Mutex<Book>,
    called: Condvar,
}

#[derive(Debug, Default)]
struct Book {
    endpoints: [Counts; Endpoint::ALL.len()],
    all: Counts,
    routes: HashMap<(Endpoint, String), u64>,
}

impl Ledger {
    pub(super) fn new(sandbox: &str, node: &Arc<NodeLedger>) -> Self {
        Self { sandbox: sandbox.to_owned(), node: Arc::clone(node), book: Mutex::default(), called: Condvar::new() }
    }

    pub(super) fn counts(&self, endpoint: Endpoint) -> Counts {
        lock(&self.book).endpoints[endpoint.index()]
    }

    pub(super) fn all(&self) -> Counts {
        lock(&self.book).all
    }

    pub(super) fn requests(&self, endpoint: Endpoint, route: &str) -> u64 {
        requests(&lock(&self.book), endpoint, route)
    }

    pub(super) fn wait(&self, patience: Duration, met: impl Fn(&dyn Fn(Endpoint, &str) -> u64) -> bool) -> bool {
        let unmet = |book: &mut Book| !met(&|endpoint, route| requests(book, endpoint, route));
        let waited = self.called.wait_timeout_while(lock(&self.book), patience, unmet);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Notes a connection, open until the answer is dropped.
    pub(super) fn open(self: &Arc<Self>, endpoint: Endpoint) -> Open {
        let mut book = lock(&self.book);
        book.endpoints[endpoint.index()].opened();
        book.all.opened();
        lock(&self.node.total).opened();
        Open { ledger: Arc::clone(self), endpoint }
    }

    /// Notes a request, in flight until the answer is dropped.
    pub(super) fn begin(self: &Arc<Self>, endpoint: Endpoint, route: &str) -> InFlight {
        let mut book = lock(&self.book);
        book.endpoints[endpoint.index()].begun();
        book.all.begun();
        *book.routes.entry((endpoint, route.to_owned())).or_default() += 1;
        lock(&self.node.total).begun();
        self.called.notify_all();
        InFlight { ledger: Arc::clone(self), endpoint }
    }

    /// Notes a call nobody may make.
    pub(super) fn violation(&self, endpoint: Endpoint, call: &str) {
        let violation = Violation { sandbox: self.sandbox.clone(), endpoint, call: call.to_owned() };
        lock(&self.node.violations).push(violation);
    }
}

fn requests(book: &Book, endpoint: Endpoint, route: &str) -> u64 {
    let of_it = |((at, asked), _): &(&(Endpoint, String), &u64)| *at == endpoint && asked == route;
    book.routes.iter().find(of_it).map(|(_, count)| *count).unwrap_or_default()
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Open {
    ledger: Arc<Ledger>,
    endpoint: Endpoint,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut book = lock(&self.ledger.book);
        book.endpoints[self.endpoint.index()].open -= 1;
        book.all.open -= 1;
        lock(&self.ledger.node.total).open -= 1;
    }
}

/// A request without an answer.
#[derive(Debug)]
pub(super) struct InFlight {
    ledger: Arc<Ledger>,
    endpoint: Endpoint,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut book = lock(&self.ledger.book);
        book.endpoints[self.endpoint.index()].in_flight -= 1;
        book.all.in_flight -= 1;
        lock(&self.ledger.node.total).in_flight -= 1;
    }
}

/// A panic of a test must not turn every later answer into one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
