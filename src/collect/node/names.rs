//! Names of families that come from the kernel: a new kernel has new fields in `/proc/meminfo`, and each is a family.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Most names kept in the life of the process. A kernel of today has 60 fields of memory and 40 protocol counters that
/// are taken.
const MOST: usize = 512;

/// Longest name.
const LONGEST: usize = 96;

/// Made once for the process and never given back, so that a family's name is `&'static str` wherever it comes from. The
/// names are the kernel's and few; both bounds hold whatever lies under `--procfs`.
static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// The family of a field; `None` for what is no name, or one too many.
pub(super) fn family(prefix: &str, field: &str) -> Option<&'static str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if field.is_empty() || prefix.len() + field.len() > LONGEST || !field.bytes().all(fits) {
        return None;
    }
    let name = format!("{prefix}{field}");
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(name) = known.get(name.as_str()) {
        return Some(name);
    }
    if known.len() == MOST {
        return None;
    }
    let name: &'static str = Box::leak(name.into_boxed_str());
    known.insert(name);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_once_and_what_is_none_is_refused() {
        let first = family("node_memory_", "MemTotal_bytes").unwrap();
        let again = family("node_memory_", "MemTotal_bytes").unwrap();
        assert!(std::ptr::eq(first, again));
        for field in ["", "a b", "a\"b", "ä", &"x".repeat(100)] {
            assert_eq!(family("node_memory_", field), None, "{field:?}");
        }
    }
}
