//! How long a source that hung is left alone.

/// Longest rest, in collections.
const MAX_REST: u32 = 64;

/// Collections in which a source is not asked, counted down.
///
/// A guest that hangs costs at most every second collection a deadline, and one that has healed is back within two.
#[derive(Debug, Default)]
pub struct Rest {
    left: u32,
    last: u32,
}

impl Rest {
    /// Leaves the source alone in the next collection.
    pub fn begin(&mut self) {
        (self.left, self.last) = (1, 1);
    }

    /// The same, but longer each time: for what hardly ever heals by itself, such as a vsock that leads nowhere.
    pub fn begin_longer(&mut self) {
        self.last = (self.last * 2).clamp(1, MAX_REST);
        self.left = self.last;
    }

    /// Whether the source is to be left alone now; counts one collection down.
    pub fn is_due(&mut self) -> bool {
        let due = self.left > 0;
        self.left = self.left.saturating_sub(1);
        due
    }

    /// Whether it will be left alone the next time.
    pub const fn has_begun(&self) -> bool {
        self.left > 0
    }

    /// The source answered.
    pub fn end(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_collection_or_longer_each_time_until_it_answers() {
        let mut rest = Rest::default();
        assert!(!rest.is_due());
        rest.begin();
        assert!(rest.has_begun());
        assert_eq!([rest.is_due(), rest.is_due()], [true, false]);
        rest.begin();
        assert_eq!([rest.is_due(), rest.is_due()], [true, false], "no longer than before");
        for expected in [2, 4, 8, 16, 32, 64, 64] {
            rest.begin_longer();
            assert_eq!(std::iter::from_fn(|| rest.is_due().then_some(())).count(), expected);
        }
        rest.end();
        rest.begin_longer();
        assert_eq!(std::iter::from_fn(|| rest.is_due().then_some(())).count(), 1);
    }
}
