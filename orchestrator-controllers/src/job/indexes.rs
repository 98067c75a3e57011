//! Sets of completion indexes, kept and written as ranges.

use std::{collections::BTreeSet, fmt};

/// A set of indexes: ranges with both ends in them, in order, never touching each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads what [`fmt::Display`] writes, as far as it lies below `completions`; what cannot be read is left out.
    pub(crate) fn parse(text: &str, completions: i32) -> Self {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (i32, i32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            Some((first, last.min(completions - 1))).filter(|(first, last)| *first >= 0 && first <= last)
        };
        Self::joined(text.split(',').filter_map(range).collect())
    }

    /// These, and others.
    pub(crate) fn with(&self, more: impl IntoIterator<Item = i32>) -> Self {
        Self::joined(self.0.iter().copied().chain(more.into_iter().map(|index| (index, index))).collect())
    }

    /// Those of two sets.
    pub(crate) fn and(&self, other: &Self) -> Self {
        Self::joined(self.0.iter().chain(&other.0).copied().collect())
    }

    fn joined(mut ranges: Vec<(i32, i32)>) -> Self {
        ranges.sort_unstable();
        let mut joined: Vec<(i32, i32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match joined.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        Self(joined)
    }

    pub(crate) fn contains(&self, index: i32) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// How many of these are in another set.
    pub(crate) fn common(&self, other: &Self) -> i32 {
        let (mut mine, mut theirs, mut common) = (self.0.iter().peekable(), other.0.iter().peekable(), 0);
        while let (Some(a), Some(b)) = (mine.peek(), theirs.peek()) {
            common += (a.1.min(b.1) - a.0.max(b.0) + 1).max(0);
            let _ = if a.1 < b.1 { mine.next() } else { theirs.next() };
        }
        common
    }

    /// The first indexes below `completions` that are not in the set, at most so many.
    pub(crate) fn missing(&self, completions: i32, most: usize) -> Vec<i32> {
        let starts = std::iter::once(0).chain(self.0.iter().map(|(_, last)| last.saturating_add(1)));
        let ends = self.0.iter().map(|(first, _)| *first).chain([completions]);
        starts.zip(ends).flat_map(|(start, end)| start..end.min(completions)).take(most).collect()
    }
}

impl FromIterator<i32> for Indexes {
    fn from_iter<I: IntoIterator<Item = i32>>(indexes: I) -> Self {
        let indexes: BTreeSet<i32> = indexes.into_iter().collect();
        Self::default().with(indexes)
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (first, last)) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_read_and_written_as_upstream() {
        for (text, completions, expected) in
            [("", 9, ""), ("0-2,4,5", 9, "0-2,4,5"), ("0,1,2,3", 9, "0-3"), ("0-7,9", 5, "0-4"), ("4,x,2", 9, "2,4")]
        {
            assert_eq!(Indexes::parse(text, completions).to_string(), expected, "{text}");
        }
        assert_eq!(Indexes::parse("1-2,4", 9).missing(7, 3), [0, 3, 5]);
        assert_eq!(Indexes::default().missing(2, 9), [0, 1]);
    }

    proptest! {
        #[test]
        fn they_behave_as_sets(
            first in prop::collection::btree_set(0..40_i32, 0..30), second in prop::collection::btree_set(0..40_i32, 0..30),
        ) {
            let (a, b): (Indexes, Indexes) = (first.iter().copied().collect(), second.iter().copied().collect());
            prop_assert_eq!(a.count() as usize, first.len());
            prop_assert_eq!(a.common(&b) as usize, first.intersection(&second).count());
            prop_assert_eq!(a.and(&b).count() as usize, first.union(&second).count());
            prop_assert_eq!(Indexes::parse(&a.to_string(), 40), a.clone());
            let missing: Vec<i32> = (0..40).filter(|index| !first.contains(index)).collect();
            prop_assert_eq!(a.missing(40, 99), missing);
            prop_assert!((0..40).all(|index| a.contains(index) == first.contains(&index)));
        }
    }
}
