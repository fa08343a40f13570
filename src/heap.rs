//! Keeps the C library's allocator from holding on to memory that a collection needed for a moment. A leaf.
//!
//! glibc gives each thread an arena of its own, up to eight per core, and keeps in it what was freed. A scrape's
//! buffers are allocated on one thread and freed on another, so every arena grows to what the largest scrape needed.

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
