//! What a test lets single methods do wrong, and how often each was called.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tonic::Code;

use super::rpc::Method;

/// What happens to every call of a method until it is healed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It answers with this error status.
    Status(Code, String),
    /// It never answers; the call ends with the client's patience or the connection.
    Hang,
    /// It answers properly, this much later.
    Delay(Duration),
    /// The runtime closes the connection instead of answering, and with it every other call on it.
    Close,
}

/// Where calls check in. Shared by all connections, and kept over a restart of the server.
#[derive(Debug, Default)]
pub(super) struct Desk {
    book: Mutex<Book>,
    called: Condvar,
}

#[derive(Debug, Default)]
struct Book {
    calls: HashMap<Method, u64>,
    faults: HashMap<Method, Fault>,
}

impl Desk {
    /// Notes a call, and tells what is wrong with the method.
    pub(super) fn check_in(&self, method: Method) -> Option<Fault> {
        let mut book = self.lock();
        *book.calls.entry(method).or_default() += 1;
        self.called.notify_all();
        book.faults.get(&method).cloned()
    }

    pub(super) fn calls(&self, method: Method) -> u64 {
        self.lock().calls.get(&method).copied().unwrap_or_default()
    }

    /// Waits until the method was called `times` in all; false when that took longer than `patience`.
    pub(super) fn wait_for_calls(&self, method: Method, times: u64, patience: Duration) -> bool {
        let too_few = |book: &mut Book| book.calls.get(&method).copied().unwrap_or_default() < times;
        let waited = self.called.wait_timeout_while(self.lock(), patience, too_few);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    pub(super) fn set_fault(&self, method: Method, fault: Option<Fault>) {
        let mut book = self.lock();
        match fault {
            Some(fault) => book.faults.insert(method, fault),
            None => book.faults.remove(&method),
        };
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
