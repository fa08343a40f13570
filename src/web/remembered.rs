//! A table of answers that are valid for a while. Pure: the time is an argument.

use std::collections::HashMap;
use std::time::Instant;

use super::secret::Tag;

/// Answers by tag. Holds no more than its capacity: when it is full, what is over goes first, then what will be over
/// first.
#[derive(Debug)]
pub struct Remembered<V> {
    capacity: usize,
    answers: HashMap<Tag, (V, Instant)>,
}

impl<V: Clone> Remembered<V> {
    /// An empty table.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, answers: HashMap::new() }
    }

    /// The answer, if it is still valid.
    pub fn recall(&self, tag: &Tag, now: Instant) -> Option<V> {
        self.answers.get(tag).filter(|(_, until)| now < *until).map(|(answer, _)| answer.clone())
    }

    /// Whether there is an answer, valid or not any more.
    pub fn holds(&self, tag: &Tag) -> bool {
        self.answers.contains_key(tag)
    }

    /// Keeps an answer until a moment.
    pub fn keep(&mut self, tag: Tag, answer: V, until: Instant, now: Instant) {
        if self.answers.len() >= self.capacity && !self.answers.contains_key(&tag) {
            self.answers.retain(|_, (_, until)| now < *until);
        }
        if self.answers.len() >= self.capacity && !self.answers.contains_key(&tag) {
            let first = self.answers.iter().min_by_key(|(_, (_, until))| *until).map(|(tag, _)| *tag);
            if let Some(first) = first {
                self.answers.remove(&first);
            }
        }
        self.answers.insert(tag, (answer, until));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn tag(number: u8) -> Tag {
        [number; 32]
    }

    #[test]
    fn an_answer_is_valid_until_its_time_and_not_at_it() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut table = Remembered::new(8);
        table.keep(tag(1), "yes", start + 2 * second, start);
        assert_eq!(table.recall(&tag(1), start + second), Some("yes"));
        assert_eq!(table.recall(&tag(1), start + 2 * second), None);
        assert_eq!(table.recall(&tag(2), start), None);
        assert!(table.holds(&tag(1)) && !table.holds(&tag(2)));
        table.keep(tag(1), "no", start + 3 * second, start);
        assert_eq!(table.recall(&tag(1), start + 2 * second), Some("no"));
    }

    #[test]
    fn a_full_table_lets_go_of_the_outdated_then_of_the_oldest() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut table = Remembered::new(3);
        for number in 1..=3 {
            table.keep(tag(number), number, start + u32::from(number) * 10 * second, start);
        }
        let later = start + 15 * second;
        table.keep(tag(4), 4, later + 60 * second, later);
        assert_eq!(table.answers.len(), 3);
        table.keep(tag(5), 5, later + 60 * second, later);
        assert_eq!(table.answers.len(), 3);
        assert_eq!([1, 2, 3, 4, 5].map(|n| table.recall(&tag(n), later)), [None, None, Some(3), Some(4), Some(5)]);
        for number in 10..200 {
            table.keep(tag(number), number, later + second, later);
        }
        assert_eq!(table.answers.len(), 3);
    }
}
