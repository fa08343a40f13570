//! Keeps the C library's allocator from holding on to memory that a collection needed for a moment. A leaf.
//!
//! glibc gives each thread an arena of its own, up to eight per core, and keeps in it what was freed. A scrape's
//! buffers are allocated on one thread and freed on another, so every arena grows to what the largest scrape needed.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Arenas: as many as the async runtime has workers. The other threads share them.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// What is larger is given back to the kernel when it is freed: a body above all. Setting it also keeps glibc from
/// raising it by itself to the size of the largest body.
#[cfg(target_env = "gnu")]
const MMAP_THRESHOLD: libc::c_int = 128 << 10;

/// Bounds the heap of this process; call it before there are threads. With another C library it does nothing.
pub fn bound() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(libc::M_ARENA_MAX, ARENAS), (libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD)] {
        #[expect(unsafe_code, reason = "glibc has no safe way to say it")]
        // SAFETY: mallopt takes its arguments by value and locks what it changes. It refuses what it does not know, and
        // then the allocator works as before.
        let _ = unsafe { libc::mallopt(parameter, value) };
    }
}

/// How long free memory between pieces that are in use is left alone. The allocator goes through the whole heap to find it,
/// and what is given back has to be asked for again by the next scrape.
const INTERVAL: Duration = Duration::from_secs(60);

/// Gives back what a scrape needed and nobody uses, wherever in the heap it is: by itself glibc gives back the end alone, and
/// a heap never gets smaller than the last piece in it allows.
#[derive(Debug, Default)]
pub struct Trimmer {
    last: Mutex<Option<Instant>>,
}

impl Trimmer {
    /// To be called when memory has become free. Most of the time it does nothing, and it never waits: a thread of its own
    /// goes through the heap.
    pub fn memory_became_free(&self) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= INTERVAL) {
            *last = Some(Instant::now());
            // Without a thread to spare, the next time will do.
            let _ = std::thread::Builder::new().name("trim".to_owned()).spawn(trim);
        }
    }
}

fn trim() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "glibc has no safe way to say it")]
    // SAFETY: malloc_trim takes its argument by value and locks what it changes; nothing that is in use is touched.
    let _ = unsafe { libc::malloc_trim(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_a_minute() {
        let trimmer = Trimmer::default();
        let last = || *trimmer.last.lock().unwrap();
        trimmer.memory_became_free();
        let first = last();
        assert!(first.is_some());
        trimmer.memory_became_free();
        assert_eq!(last(), first);
        *trimmer.last.lock().unwrap() = first.and_then(|first| first.checked_sub(INTERVAL));
        trimmer.memory_became_free();
        assert!(last() >= first);
    }
}
