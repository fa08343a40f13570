//! Ctrl-C and its relatives, as something every wait of the demo can end on.
//!
//! The demo itself is plain blocking code on the main thread, because workloads die with the thread that
//! started them. Signals are awaited on a thread of their own and only set a flag, so that no signal ends
//! the process before it has cleaned up.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

/// Whether somebody wants the demo to end. Clones share the answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt {
    inner: Arc<(Mutex<bool>, Condvar)>,
}

impl Interrupt {
    /// From here on, SIGINT, SIGTERM and SIGHUP only set the flag.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let interrupt = Self::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        let (mut int, mut term, mut hup) = {
            let _entered = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
        };
        let setter = interrupt.clone();
        let wait = async move {
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
                _ = hup.recv() => {}
            }
            setter.set();
            // The runtime stays, so that a second, impatient signal does not cut the cleaning short.
            std::future::pending::<()>().await;
        };
        thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(wait))?;
        Ok(interrupt)
    }

    /// Sleeps for `time`, or until interrupted; tells whether it was.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let (flag, changed) = &*self.inner;
        let guard = flag.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, _) = changed.wait_timeout_while(guard, time, |set| !*set).unwrap_or_else(PoisonError::into_inner);
        *guard
    }

    /// Asks `ready` every 20 ms until it gives a value. Fails when that takes longer than `patience`, and
    /// then tells what it waited for.
    pub(crate) fn wait_until<T>(
        &self,
        what: &str,
        patience: Duration,
        mut ready: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let begun = Instant::now();
        loop {
            if let Some(value) = ready()? {
                return Ok(value);
            }
            if begun.elapsed() > patience {
                bail!("{what}: not within {} s", patience.as_secs());
            }
            if self.wait(Duration::from_millis(20)) {
                bail!("interrupted");
            }
        }
    }

    fn set(&self) {
        *self.inner.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.inner.1.notify_all();
    }
}
