//! What is fuzzed: one target for each kind of bytes that kata-pulse reads and nobody vouches for.
//!
//! A target takes any bytes and panics when something is wrong: the product's own panics, an answer that the property
//! of the target forbids, or more memory than the input can be worth. Where another reader of the same format exists
//! (`procfs`, `serde_json`'s values, protobuf's own decoder), the two must agree; whatever becomes samples is encoded,
//! and the page is read by the strict parser of `tests/support`.
//!
//! `docs/fuzzing.md` says how they are run, and what they have found.

mod memory;
mod page;
mod reference;
mod targets;

#[path = "../../support/exposition.rs"]
#[allow(dead_code, missing_docs, clippy::unwrap_used, reason = "shared with the integration tests")]
mod exposition;

#[path = "../../support/host.rs"]
#[allow(dead_code, missing_docs, reason = "shared with the integration tests")]
mod host;

pub use targets::TARGETS;

/// One target.
#[derive(Debug)]
pub struct Target {
    /// Its name: of its corpus, its dictionary, and its program in `fuzz_targets`.
    pub name: &'static str,
    /// Whose bytes they are and what is read from them.
    pub about: &'static str,
    /// Longest input worth trying, in bytes.
    pub max_len: usize,
    read: fn(&[u8]),
}

impl Target {
    /// Reads an input.
    ///
    /// # Panics
    /// When something is wrong.
    pub fn run(&self, input: &[u8]) {
        (self.read)(input);
    }
}

/// The target of this name.
pub fn named(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
