//! Counters of several devices, collected sample by sample.

use super::MAX_DEVICES;
use crate::collect::kata::exposition::{Malformed, Quoted};

/// Longest name kept, in bytes. The kernel's interface and disk names are shorter than 32, its file names than 256;
/// volumes are mounted at paths that are a directory and one such name.
const MAX_NAME_BYTES: usize = 1024;

/// Rows of `N` counters, one row per device.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    rows: Vec<Row<N>>,
    /// The row of the sample before: nearly always that of the next as well.
    last: usize,
}

impl<const N: usize> Default for Table<N> {
    fn default() -> Self {
        Self { rows: Vec::new(), last: 0 }
    }
}

/// One device.
#[derive(Debug)]
pub(super) struct Row<const N: usize> {
    /// Its name, in one or two parts (mount and device).
    pub(super) name: [Box<str>; 2],
    /// Its counters; `None` where no usable number was given.
    pub(super) values: [Option<u64>; N],
}

impl<const N: usize> Row<N> {
    /// All counters.
    pub(super) fn complete(&self) -> Option<[u64; N]> {
        let mut all = [0; N];
        for (value, counter) in all.iter_mut().zip(self.values) {
            *value = counter?;
        }
        Some(all)
    }
}

/// A sample's device could not be given a row.
#[derive(Debug)]
pub(super) enum NoRow {
    /// Its name is empty or not text.
    Malformed,
    /// Its name is too long, or there are too many devices.
    TooMany,
}

impl From<Malformed> for NoRow {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl<const N: usize> Table<N> {
    /// The row of a device, made when it is new. `scratch` holds names that have to be rewritten.
    pub(super) fn row(&mut self, name: [Quoted<'_>; 2], scratch: &mut [Vec<u8>; 2]) -> Result<&mut Row<N>, NoRow> {
        let [first, second] = name;
        let [first_scratch, second_scratch] = scratch;
        let name = [first.value(first_scratch)?, second.value(second_scratch)?];
        let is = |row: &Row<N>| row.name.iter().zip(name).all(|(known, given)| known.as_bytes() == given);
        let known = match self.rows.get(self.last) {
            Some(row) if is(row) => Some(self.last),
            _ => self.rows.iter().position(is),
        };
        self.last = match known {
            Some(index) => index,
            None => self.add(name)?,
        };
        self.rows.get_mut(self.last).ok_or(NoRow::TooMany)
    }

    fn add(&mut self, name: [&[u8]; 2]) -> Result<usize, NoRow> {
        if self.rows.len() == MAX_DEVICES || name.iter().any(|part| part.len() > MAX_NAME_BYTES) {
            return Err(NoRow::TooMany);
        }
        let [first, second] = name.map(std::str::from_utf8);
        let (Ok(first), Ok(second)) = (first, second) else { return Err(NoRow::Malformed) };
        if first.is_empty() {
            return Err(NoRow::Malformed);
        }
        self.rows.push(Row { name: [first.into(), second.into()], values: [None; N] });
        Ok(self.rows.len() - 1)
    }

    /// The rows, sorted by name.
    pub(super) fn into_rows(mut self) -> Vec<Row<N>> {
        self.rows.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        self.rows
    }
}
