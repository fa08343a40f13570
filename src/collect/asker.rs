//! Questions to filesystems that may never answer. A call on a network mount whose server is gone blocks in the kernel
//! for ever, and so does looking its path up, and nothing can end it.
//!
//! So a thread asks, which may be lost: one that does not come back in time is left behind with its question, which is
//! not asked again until the call returns by itself. All questions of a collection are handed over at once: a hundred
//! mounts are not a hundred changes from one thread to another and back.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::io;
use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Threads left behind at most. While there are so many, nothing further is asked.
const MOST_STUCK: usize = 16;

/// Something that can be asked of a filesystem.
pub(super) trait Question: Clone + Debug + Eq + Hash + Send + Sync + 'static {
    /// What comes of it.
    type Facts: Debug + Send + 'static;

    /// Asks; may never return. `None` when this process does not see what it is about.
    fn ask(&self) -> io::Result<Option<Self::Facts>>;

    /// What it is about, for the log.
    fn path(&self) -> &Path;

    /// The filesystem's number in the mount table. One that is mounted many times hangs everywhere.
    fn filesystem(&self) -> &str;
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
    worker: Option<Sender<Arc<Round<Q>>>>,
    stuck: Stuck<Q>,
}

impl<Q: Question> Default for Asker<Q> {
    fn default() -> Self {
        Self { worker: None, stuck: Arc::default() }
    }
}

/// Questions that are asked one after the other.
#[derive(Debug)]
struct Round<Q: Question> {
    questions: Vec<Q>,
    progress: Mutex<Progress<Q::Facts>>,
    ended: Condvar,
}

#[derive(Debug)]
struct Progress<F> {
    /// To the first questions.
    replies: Vec<io::Result<Option<F>>>,
    /// Nobody waits for the rest any more.
    given_up: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<Q: Question> Asker<Q> {
    /// Asks in this order and waits until then; answers in the same order. The one that is late is marked, and its
    /// filesystem not asked until it comes back; those that there is no time left for are not marked.
    pub(super) fn ask(&mut self, questions: Vec<Q>, until: Instant) -> Vec<Answer<Q::Facts>> {
        let mut answers: Vec<Answer<Q::Facts>> = questions.iter().map(|_| Answer::Silent).collect();
        let (places, questions): (Vec<usize>, Vec<Q>) = {
            let stuck = lock(&self.stuck);
            if stuck.len() >= MOST_STUCK || until <= Instant::now() {
                return answers;
            }
            let hangs = |question: &Q| stuck.iter().any(|stuck| stuck.filesystem() == question.filesystem());
            questions.into_iter().enumerate().filter(|(_, question)| !hangs(question)).unzip()
        };
        if questions.is_empty() {
            return answers;
        }
        let Some(worker) = self.worker.take().or_else(|| start(Arc::clone(&self.stuck))) else { return answers };
        let round = Arc::new(Round::new(questions));
        if worker.send(Arc::clone(&round)).is_err() {
            return answers;
        }
        let (replies, ended) = round.wait(until, &self.stuck);
        if ended {
            self.worker = Some(worker);
        }
        for (place, reply) in places.into_iter().zip(replies) {
            answers[place] = match reply {
                Ok(Some(facts)) => Answer::Facts(facts),
                Ok(None) => Answer::Unseen,
                Err(_) => Answer::Silent,
            };
        }
        answers
    }
}

impl<Q: Question> Round<Q> {
    fn new(questions: Vec<Q>) -> Self {
        let progress = Progress { replies: Vec::with_capacity(questions.len()), given_up: false };
        Self { questions, progress: Mutex::new(progress), ended: Condvar::new() }
    }

    /// The replies that have come until then, and whether that is all of them. The thread looks under the same lock
    /// whether it was given up, so no reply falls between.
    fn wait(&self, until: Instant, stuck: &Stuck<Q>) -> (Vec<io::Result<Option<Q::Facts>>>, bool) {
        let time = until.saturating_duration_since(Instant::now());
        let missing = |progress: &mut Progress<Q::Facts>| progress.replies.len() < self.questions.len();
        let waited = self.ended.wait_timeout_while(lock(&self.progress), time, missing);
        let (mut progress, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if let Some(question) = self.questions.get(progress.replies.len()) {
            tracing::warn!(path = %question.path().display(), "a mounted filesystem does not answer");
            lock(stuck).insert(question.clone());
            progress.given_up = true;
        }
        (std::mem::take(&mut progress.replies), !progress.given_up)
    }

    /// Asks them all, unless it is given up meanwhile: then it tells so.
    fn go_through(&self, stuck: &Stuck<Q>) -> bool {
        for question in &self.questions {
            let reply = question.ask();
            let mut progress = lock(&self.progress);
            if progress.given_up {
                lock(stuck).remove(question);
                tracing::info!(path = %question.path().display(), "a mounted filesystem answers again");
                return false;
            }
            progress.replies.push(reply);
            if progress.replies.len() == self.questions.len() {
                self.ended.notify_one();
            }
        }
        true
    }
}

/// A thread that goes through rounds until one is given up, or nobody asks any more.
fn start<Q: Question>(stuck: Stuck<Q>) -> Option<Sender<Arc<Round<Q>>>> {
    let (ask, rounds) = mpsc::channel::<Arc<Round<Q>>>();
    let work = move || while rounds.recv().is_ok_and(|round| round.go_through(&stuck)) {};
    std::thread::Builder::new().name("statfs".to_owned()).spawn(work).map(|_| ask).ok()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    /// Returns its own path once a file of that name is there. Each is of a filesystem of its own, but for those named
    /// `x-…`.
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

        fn filesystem(&self) -> &str {
            let text = self.0.to_str().unwrap();
            if text.contains("x-") { "x" } else { text }
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(500)
    }

    fn is_stuck(asker: &Asker<Wait>, question: &Wait) -> bool {
        lock(&asker.stuck).contains(question)
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn one(asker: &mut Asker<Wait>, question: &Wait, until: Instant) -> Answer<PathBuf> {
        asker.ask(vec![question.clone()], until).remove(0)
    }

    #[test]
    fn what_hangs_is_not_asked_again_until_it_returns() {
        let directory = tempfile::tempdir().unwrap();
        let (here, later) = (Wait(directory.path().to_owned()), Wait(directory.path().join("later")));
        let mut asker = Asker::default();
        assert!(matches!(one(&mut asker, &later, soon()), Answer::Silent));
        let began = Instant::now();
        for _ in 0..100 {
            assert!(is_stuck(&asker, &later) && matches!(one(&mut asker, &later, far()), Answer::Silent));
        }
        assert!(began.elapsed() < Duration::from_secs(30), "a marked question is not waited for");
        assert!(matches!(one(&mut asker, &here, far()), Answer::Facts(path) if path == directory.path()));
        std::fs::write(&later.0, "").unwrap();
        while is_stuck(&asker, &later) {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(matches!(one(&mut asker, &later, far()), Answer::Facts(_)));
    }

    #[test]
    fn one_that_hangs_costs_those_behind_it_one_round() {
        let directory = tempfile::tempdir().unwrap();
        let (here, later) = (Wait(directory.path().to_owned()), Wait(directory.path().join("later")));
        let mut asker = Asker::default();
        let all = [&here, &later, &here].map(Clone::clone).to_vec();
        let answered =
            |answers: Vec<Answer<PathBuf>>| answers.iter().map(|it| matches!(it, Answer::Facts(_))).collect();
        let first: Vec<bool> = answered(asker.ask(all.clone(), soon()));
        assert_eq!(first, [true, false, false]);
        let second: Vec<bool> = answered(asker.ask(all.clone(), far()));
        assert_eq!(second, [true, false, true]);
        std::fs::write(&later.0, "").unwrap();
        while is_stuck(&asker, &later) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let third: Vec<bool> = answered(asker.ask(all, far()));
        assert_eq!(third, [true; 3]);
    }

    #[test]
    fn a_filesystem_that_hangs_at_one_place_is_not_asked_at_another() {
        let directory = tempfile::tempdir().unwrap();
        let [one_place, other_place] = ["x-one", "x-other"].map(|name| Wait(directory.path().join(name)));
        let mut asker = Asker::default();
        assert!(matches!(one(&mut asker, &one_place, soon()), Answer::Silent));
        let began = Instant::now();
        assert!(matches!(one(&mut asker, &other_place, far()), Answer::Silent));
        assert!(began.elapsed() < Duration::from_secs(30) && !is_stuck(&asker, &other_place));
        std::fs::write(&one_place.0, "").unwrap();
        std::fs::write(&other_place.0, "").unwrap();
        while is_stuck(&asker, &one_place) {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(matches!(one(&mut asker, &other_place, far()), Answer::Facts(_)));
    }

    #[test]
    fn what_there_is_no_time_to_ask_is_not_marked() {
        let directory = tempfile::tempdir().unwrap();
        let here = Wait(directory.path().to_owned());
        let mut asker = Asker::default();
        assert!(matches!(one(&mut asker, &here, Instant::now()), Answer::Silent));
        assert!(matches!(one(&mut asker, &here, far()), Answer::Facts(_)));
    }

    #[test]
    fn threads_left_behind_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let mut asker = Asker::default();
        for number in 0..MOST_STUCK {
            let soon = Instant::now() + Duration::from_millis(20);
            let question = Wait(directory.path().join(number.to_string()));
            assert!(matches!(one(&mut asker, &question, soon), Answer::Silent));
        }
        assert_eq!(lock(&asker.stuck).len(), MOST_STUCK);
        let here = Wait(directory.path().to_owned());
        assert!(matches!(one(&mut asker, &here, far()), Answer::Silent));
        for number in 0..MOST_STUCK {
            std::fs::write(directory.path().join(number.to_string()), "").unwrap();
        }
    }
}
