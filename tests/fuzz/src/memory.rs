//! How much memory reading an input takes at most.

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Runs `read`, which may allocate `constant` bytes and `factor` for each byte of an input of `length`.
///
/// # Panics
/// When it takes more.
pub fn within<T>(length: usize, factor: usize, constant: usize, read: impl FnOnce() -> T) -> T {
    ALLOCATED.reset_peak_usage();
    let before = ALLOCATED.current_usage();
    let outcome = read();
    let taken = ALLOCATED.peak_usage().saturating_sub(before);
    let allowed = constant + factor * length;
    assert!(taken <= allowed, "an input of {length} bytes took {taken} bytes of memory, {allowed} are allowed");
    outcome
}
