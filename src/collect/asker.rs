//! Questions to filesystems that may never answer. A call on a network mount whose server is gone blocks in the kernel
//! for ever, and so does looking its path up, and nothing can end it.
//!
//! So a thread asks, which may be lost: one that does not come back in time is left behind with its question, which is
//! not asked again until the call returns by itself.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::io;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Threads left behind at most. While there are so many, nothing further is asked.
const MOST_STUCK: usize = 16;

/// Something that can be asked of a filesystem.
pub(super) trait Question: Clone + Debug + Eq + Hash + Send + 'static {
    /// What comes of it.
    type Facts: Debug + Send + 'static;

    /// Asks; may never return. `None` when this process does not see what it is about.
    fn ask(&self) -> io::Result<Option<Self::Facts>>;

    /// What it is about, for the log.
    fn path(&self) -> &Path;
}

/// What came of a question.
#[derive(Debug)]
pub(super) enum Answer<F> {
    /// An answer.
    Facts(F),
    /// This process does not see what was asked about.
    Unseen,
    /// An error, or nothing yet.
    Silent,
}

type Stuck<Q> = Arc<Mutex<HashSet<Q>>>;

/// Asks through a thread that may be lost.
#[derive(Debug)]
pub(super) struct Asker<Q: Question> {
    worker: Option<Worker<Q>>,
    stuck: Stuck<Q>,
}

impl<Q: Question> Default for Asker<Q> {
    fn default() -> Self {
        Self { worker: None, stuck: Arc::default() }
    }
}

#[derive(Debug)]
struct Worker<Q: Question> {
    questions: Sender<Q>,
    replies: Receiver<io::Result<Option<Q::Facts>>>,
}

fn lock<Q>(stuck: &Stuck<Q>) -> MutexGuard<'_, HashSet<Q>> {
    stuck.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<Q: Question> Asker<Q> {
    /// Asks and waits until then. What is late is marked; what there is no time left to ask is not.
    pub(super) fn ask(&mut self, question: Q, until: Instant) -> Answer<Q::Facts> {
        {
            let stuck = lock(&self.stuck);
            if stuck.contains(&question) || stuck.len() >= MOST_STUCK {
                return Answer::Silent;
            }
        }
        let wait = until.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Answer::Silent;
        }
        let Some(worker) = self.worker.take().or_else(|| Worker::start(Arc::clone(&self.stuck))) else {
            return Answer::Silent;
        };
        if worker.questions.send(question.clone()).is_err() {
            return Answer::Silent;
        }
        let reply = worker.replies.recv_timeout(wait).ok().or_else(|| {
            // The thread looks under this lock whether it was given up, so no reply falls between.
            let mut stuck = lock(&self.stuck);
            let late = worker.replies.try_recv().ok();
            if late.is_none() {
                tracing::warn!(path = %question.path().display(), "a mounted filesystem does not answer");
                stuck.insert(question);
            }
            late
        });
        match reply {
            Some(reply) => {
                self.worker = Some(worker);
                match reply {
                    Ok(Some(facts)) => Answer::Facts(facts),
                    Ok(None) => Answer::Unseen,
                    Err(_) => Answer::Silent,
                }
            }
            // The thread ends when its call returns.
            None => Answer::Silent,
        }
    }
}

impl<Q: Question> Worker<Q> {
    fn start(stuck: Stuck<Q>) -> Option<Self> {
        let (ask, questions) = mpsc::channel::<Q>();
        let (tell, replies) = mpsc::channel();
        let work = move || {
            while let Ok(question) = questions.recv() {
                let reply = question.ask();
                let mut stuck = lock(&stuck);
                if stuck.remove(&question) {
                    tracing::info!(path = %question.path().display(), "a mounted filesystem answers again");
                    return;
                }
                // Sent under the lock: whoever gives up looks for it there.
                if tell.send(reply).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("statfs".to_owned()).spawn(work);
        thread.map(|_| Self { questions: ask, replies }).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    /// Returns its own path once a file of that name is there.
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    struct Wait(PathBuf);

    impl Question for Wait {
        type Facts = PathBuf;

        fn ask(&self) -> io::Result<Option<PathBuf>> {
            while !self.0.exists() {
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(Some(self.0.clone()))
        }

        fn path(&self) -> &Path {
            &self.0
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(100)
    }

    #[test]
    fn what_hangs_is_not_asked_again_until_it_returns() {
        let directory = tempfile::tempdir().unwrap();
        let (here, later) = (Wait(directory.path().to_owned()), Wait(directory.path().join("later")));
        let mut asker = Asker::default();
        assert!(matches!(asker.ask(later.clone(), soon()), Answer::Silent));
        let began = Instant::now();
        for _ in 0..100 {
            assert!(matches!(asker.ask(later.clone(), Instant::now() + Duration::from_secs(60)), Answer::Silent));
        }
        assert!(began.elapsed() < Duration::from_secs(30), "a marked question is not waited for");
        let far = Instant::now() + Duration::from_secs(60);
        assert!(matches!(asker.ask(here, far), Answer::Facts(path) if path == directory.path()));
        std::fs::write(&later.0, "").unwrap();
        while lock(&asker.stuck).contains(&later) {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(matches!(asker.ask(later, far), Answer::Facts(_)));
    }

    #[test]
    fn what_there_is_no_time_to_ask_is_not_marked() {
        let directory = tempfile::tempdir().unwrap();
        let here = Wait(directory.path().to_owned());
        let mut asker = Asker::default();
        assert!(matches!(asker.ask(here.clone(), Instant::now()), Answer::Silent));
        assert!(matches!(asker.ask(here, Instant::now() + Duration::from_secs(60)), Answer::Facts(_)));
    }

    #[test]
    fn threads_left_behind_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let mut asker = Asker::default();
        for number in 0..MOST_STUCK {
            let soon = Instant::now() + Duration::from_millis(1);
            assert!(matches!(asker.ask(Wait(directory.path().join(number.to_string())), soon), Answer::Silent));
        }
        assert_eq!(lock(&asker.stuck).len(), MOST_STUCK);
        let here = Wait(directory.path().to_owned());
        let far = Instant::now() + Duration::from_secs(60);
        assert!(matches!(asker.ask(here, far), Answer::Silent));
        for number in 0..MOST_STUCK {
            std::fs::write(directory.path().join(number.to_string()), "").unwrap();
        }
    }
}
