//! One thread and one runtime for all doors of a node.

use std::thread::{self, JoinHandle};

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// The thread on which every door of a node is served.
#[derive(Debug)]
pub(in crate::kata) struct ServingThread {
    pub(in crate::kata) handle: Handle,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl ServingThread {
    pub(in crate::kata) fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        // The runtime is dropped at the end of the thread, and with it every connection.
        let serve = move || {
            // Either way it is the end.
            runtime.block_on(stopped).ok();
        };
        let thread = thread::Builder::new().name("kata".to_owned()).spawn(serve).context("start a thread")?;
        Ok(Self { handle, running: Some((stop, thread)) })
    }

    pub(in crate::kata) fn stop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            // A panic there has been reported by the thread.
            thread.join().ok();
        }
    }
}

impl Drop for ServingThread {
    fn drop(&mut self) {
        self.stop();
    }
}
