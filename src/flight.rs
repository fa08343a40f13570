//! One piece of work at a time, shared by all who wait for it, and its last result kept. A leaf.
//!
//! Work once begun goes on even when whoever asked for it has gone away: the next one to ask joins it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::model::snapshot::NoSnapshot;

/// The last result and the work under way.
#[derive(Debug)]
pub struct Flight<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    last: Option<(Instant, Arc<T>)>,
    running: Option<(Instant, Landing<T>)>,
}

/// Tells when the work is done; `None` while it is not, and for good when it came to nothing.
pub type Landing<T> = watch::Receiver<Option<Arc<T>>>;

impl<T> Default for Flight<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { last: None, running: None }) }
    }
}

impl<T: Send + Sync + 'static> Flight<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last result.
    pub fn last(&self) -> Option<Arc<T>> {
        self.state().last.as_ref().map(|(_, last)| Arc::clone(last))
    }

    /// How long the work under way has been running.
    pub fn running_for(&self) -> Option<Duration> {
        self.state().running.as_ref().map(|(since, _)| since.elapsed())
    }

    /// Joins the work under way, or begins it.
    pub fn join_or_take_off<W>(self: &Arc<Self>, runtime: &Handle, work: impl FnOnce() -> W) -> Landing<T>
    where
        W: Future<Output = Option<T>> + Send + 'static,
    {
        self.join(&mut self.state(), runtime, work)
    }

    fn join<W>(self: &Arc<Self>, state: &mut State<T>, runtime: &Handle, work: impl FnOnce() -> W) -> Landing<T>
    where
        W: Future<Output = Option<T>> + Send + 'static,
    {
        if let Some((_, landing)) = &state.running {
            return landing.clone();
        }
        let started = Instant::now();
        let (land, landing) = watch::channel(None);
        state.running = Some((started, landing.clone()));
        let (flight, work) = (Arc::clone(self), work());
        runtime.spawn(async move {
            // Whether the work ends, panics or is dropped with the runtime, the next one may begin.
            let landed = Landed(flight);
            let result = work.await.map(Arc::new);
            if let Some(result) = &result {
                landed.0.state().last = Some((started, Arc::clone(result)));
            }
            drop(landed);
            land.send_replace(result);
        });
        landing
    }

    /// The last result if `fresh` takes its age, else that of the work under way or begun now.
    pub async fn get<W>(
        self: &Arc<Self>,
        fresh: impl FnOnce(Duration) -> bool,
        deadline: Duration,
        runtime: &Handle,
        work: impl FnOnce() -> W,
    ) -> Result<Arc<T>, NoSnapshot>
    where
        W: Future<Output = Option<T>> + Send + 'static,
    {
        let mut landing = {
            let mut state = self.state();
            if let Some((began, last)) = &state.last
                && fresh(began.elapsed())
            {
                return Ok(Arc::clone(last));
            }
            self.join(&mut state, runtime, work)
        };
        let landed = tokio::time::timeout(deadline, landing.wait_for(Option::is_some)).await;
        let landed = landed.map_err(|_| NoSnapshot::Late(deadline))?.map_err(|_| NoSnapshot::Aborted)?;
        landed.clone().ok_or(NoSnapshot::Aborted)
    }
}

/// Ends the flight when dropped.
struct Landed<T: Send + Sync + 'static>(Arc<Flight<T>>);

impl<T: Send + Sync + 'static> Drop for Landed<T> {
    fn drop(&mut self) {
        self.0.state().running = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn those_who_ask_at_the_same_time_share_one_piece_of_work() {
        let flight: Arc<Flight<u32>> = Arc::default();
        let begun = Arc::new(AtomicU32::new(0));
        let ask = || {
            let begun = Arc::clone(&begun);
            let work = move || async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some(begun.fetch_add(1, Ordering::Relaxed) + 1)
            };
            let flight = Arc::clone(&flight);
            async move { flight.get(|_| false, PATIENCE, &Handle::current(), work).await }
        };
        let (one, other) = tokio::join!(ask(), ask());
        assert_eq!((*one.unwrap(), *other.unwrap()), (1, 1));
        assert_eq!(*ask().await.unwrap(), 2, "what has landed is not joined");
        assert_eq!(flight.last().as_deref(), Some(&2));
        assert_eq!(flight.running_for(), None);
    }

    #[tokio::test]
    async fn a_fresh_result_is_given_again() {
        let flight: Arc<Flight<u32>> = Arc::default();
        let runtime = Handle::current();
        for number in [1, 2] {
            let got = flight.get(|age| age < PATIENCE, PATIENCE, &runtime, || async move { Some(number) }).await;
            assert_eq!(*got.unwrap(), 1);
        }
    }

    #[tokio::test]
    async fn work_that_comes_to_nothing_is_told_and_does_not_block_the_next() {
        let flight: Arc<Flight<u32>> = Arc::default();
        let runtime = Handle::current();
        for _ in 0..2 {
            let outcome = flight.get(|_| false, PATIENCE, &runtime, || async { panic!("on purpose") }).await;
            assert!(matches!(outcome, Err(NoSnapshot::Aborted)), "{outcome:?}");
            let outcome = flight.get(|_| false, PATIENCE, &runtime, || async { None }).await;
            assert!(matches!(outcome, Err(NoSnapshot::Aborted)), "{outcome:?}");
        }
        let late = flight.get(|_| false, Duration::from_millis(1), &runtime, std::future::pending::<Option<u32>>).await;
        assert!(matches!(late, Err(NoSnapshot::Late(_))), "{late:?}");
        assert!(flight.running_for().is_some(), "it goes on");
    }
}
