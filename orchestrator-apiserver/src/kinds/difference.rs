//! What distinguishes two texts, line by line, found and shown as upstream does it.
//!
//! Upstream uses `github.com/pmezard/go-difflib`, a port of Python's `difflib`: of all common stretches the longest one
//! stays, then the same is done before and after it.

use std::collections::BTreeMap;

/// Lines around a difference.
const CONTEXT: usize = 3;
/// In so many lines, those that come too often begin no common stretch.
const MANY_LINES: usize = 200;
/// Products of line counts beyond which a difference is shown coarsely.
const CELLS: usize = 1 << 20;

/// A stretch of lines on both sides: from where to where in the old text, and in the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    common: bool,
    old: (usize, usize),
    new: (usize, usize),
}

impl Stretch {
    /// Its first lines, as far as they are shown.
    fn head(self) -> Self {
        let length = CONTEXT.min(self.old.1 - self.old.0).min(self.new.1 - self.new.0);
        Self { old: (self.old.0, self.old.0 + length), new: (self.new.0, self.new.0 + length), ..self }
    }

    /// Its last lines, as far as they are shown.
    fn tail(self) -> Self {
        let length = CONTEXT.min(self.old.1 - self.old.0).min(self.new.1 - self.new.0);
        Self { old: (self.old.1 - length, self.old.1), new: (self.new.1 - length, self.new.1), ..self }
    }
}

/// The difference in hunks with their surroundings; empty when there is none.
pub(super) fn unified(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let hunks = hunks(&stretches(&old, &new));
    hunks.iter().map(|hunk| shown(hunk, &old, &new)).collect()
}

fn shown(hunk: &[Stretch], old: &[&str], new: &[&str]) -> String {
    let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else { return String::new() };
    let mut out = format!("@@ -{} +{} @@\n", range(first.old.0, last.old.1), range(first.new.0, last.new.1));
    let mut put = |sign: char, lines: &[&str], (start, end): (usize, usize)| {
        for line in lines.get(start..end).unwrap_or_default() {
            out.push(sign);
            out.push_str(line);
            out.push('\n');
        }
    };
    for stretch in hunk {
        if stretch.common {
            put(' ', old, stretch.old);
        } else {
            put('-', old, stretch.old);
            put('+', new, stretch.new);
        }
    }
    out
}

/// Lines as a hunk's head names them.
fn range(start: usize, end: usize) -> String {
    match end - start {
        0 => format!("{start},0"),
        1 => (start + 1).to_string(),
        length => format!("{},{length}", start + 1),
    }
}

/// Changed stretches with a little of the common ones around them.
fn hunks(stretches: &[Stretch]) -> Vec<Vec<Stretch>> {
    let mut hunks: Vec<Vec<Stretch>> = vec![Vec::new()];
    for (index, stretch) in stretches.iter().enumerate() {
        let (before, after) = (index > 0, index + 1 < stretches.len());
        let short = stretch.old.1 - stretch.old.0 <= 2 * CONTEXT;
        let parts = match (stretch.common, before, after) {
            (false, ..) => vec![*stretch],
            (true, true, true) if short => vec![*stretch],
            (true, true, true) => vec![stretch.head(), stretch.tail()],
            (true, true, false) => vec![stretch.head()],
            (true, false, true) => vec![stretch.tail()],
            (true, false, false) => Vec::new(),
        };
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                hunks.push(Vec::new());
            }
            hunks.last_mut().into_iter().for_each(|hunk| hunk.push(*part));
        }
    }
    hunks
}

/// Both texts from the first line to the last.
fn stretches(old: &[&str], new: &[&str]) -> Vec<Stretch> {
    let mut common =
        if old.len().saturating_mul(new.len()) > CELLS { ends(old, new) } else { Matcher::new(old, new).common() };
    common.push((old.len(), new.len(), 0));
    let mut out: Vec<Stretch> = Vec::new();
    let (mut old_at, mut new_at) = (0, 0);
    for (old_start, new_start, length) in common {
        if (old_at, new_at) != (old_start, new_start) {
            out.push(Stretch { common: false, old: (old_at, old_start), new: (new_at, new_start) });
        }
        (old_at, new_at) = (old_start + length, new_start + length);
        match out.last_mut() {
            _ if length == 0 => {}
            Some(last) if last.common => (last.old.1, last.new.1) = (old_at, new_at),
            _ => out.push(Stretch { common: true, old: (old_start, old_at), new: (new_start, new_at) }),
        }
    }
    out
}

/// What two texts have in common where they begin and where they end.
fn ends(old: &[&str], new: &[&str]) -> Vec<(usize, usize, usize)> {
    let head = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let rest = old.len().min(new.len()) - head;
    let tail = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(old, new)| old == new).count();
    vec![(0, 0, head), (old.len() - tail, new.len() - tail, tail)]
}

struct Matcher<'a> {
    old: &'a [&'a str],
    new: &'a [&'a str],
    /// Where in the new text a line stands, for lines that do not come too often.
    places: BTreeMap<&'a str, Vec<usize>>,
}

impl<'a> Matcher<'a> {
    fn new(old: &'a [&'a str], new: &'a [&'a str]) -> Self {
        let mut places: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, line) in new.iter().enumerate() {
            places.entry(line).or_default().push(index);
        }
        if new.len() >= MANY_LINES {
            let most = new.len() / 100 + 1;
            places.retain(|_, places| places.len() <= most);
        }
        Self { old, new, places }
    }

    /// The common stretches in order: start in the old text, start in the new one, length.
    fn common(&self) -> Vec<(usize, usize, usize)> {
        let mut found = Vec::new();
        let mut open = vec![((0, self.old.len()), (0, self.new.len()))];
        while let Some((old, new)) = open.pop() {
            let (old_start, new_start, length) = self.longest(old, new);
            if length > 0 {
                found.push((old_start, new_start, length));
                open.push(((old.0, old_start), (new.0, new_start)));
                open.push(((old_start + length, old.1), (new_start + length, new.1)));
            }
        }
        found.sort_unstable();
        found
    }

    /// The longest common stretch of two ranges, of several the first one.
    fn longest(&self, old: (usize, usize), new: (usize, usize)) -> (usize, usize, usize) {
        let mut best = (old.0, new.0, 0);
        // Lengths of the common stretches that end at the line before, by their end in the new text.
        let mut lengths: BTreeMap<usize, usize> = BTreeMap::new();
        for (at, line) in self.old.iter().enumerate().take(old.1).skip(old.0) {
            let places = self.places.get(line).map(Vec::as_slice).unwrap_or_default();
            let mut next = BTreeMap::new();
            for place in places.iter().filter(|place| (new.0..new.1).contains(*place)) {
                let length = place.checked_sub(1).and_then(|before| lengths.get(&before)).unwrap_or(&0) + 1;
                next.insert(*place, length);
                if length > best.2 {
                    best = (at + 1 - length, place + 1 - length, length);
                }
            }
            lengths = next;
        }
        self.extended(best, old, new)
    }

    /// The same stretch, with the frequent lines around it.
    fn extended(
        &self,
        (mut old_at, mut new_at, mut length): (usize, usize, usize),
        old: (usize, usize),
        new: (usize, usize),
    ) -> (usize, usize, usize) {
        while old_at > old.0 && new_at > new.0 && self.old.get(old_at - 1) == self.new.get(new_at - 1) {
            (old_at, new_at, length) = (old_at - 1, new_at - 1, length + 1);
        }
        while old_at + length < old.1
            && new_at + length < new.1
            && self.old.get(old_at + length) == self.new.get(new_at + length)
        {
            length += 1;
        }
        (old_at, new_at, length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(old: &str, new: &str, expected: &str) {
        let lines = |text: &str| text.chars().map(|letter| format!("{letter}\n")).collect::<String>();
        assert_eq!(unified(&lines(old), &lines(new)).replace('\n', "|"), expected, "{old} {new}");
    }

    #[test]
    fn differences_are_those_of_difflib() {
        check("abc", "abc", "");
        check("abc", "axc", "@@ -1,3 +1,3 @@| a|-b|+x| c|");
        check("", "a", "@@ -0,0 +1 @@|+a|");
        check("abcdefghij", "abcdefghijk", "@@ -8,3 +8,4 @@| h| i| j|+k|");
        // The longest stretch stays, although more lines could.
        check("xabcyab", "abcab", "@@ -1,7 +1,5 @@|-x| a| b| c|-y| a| b|");
        check("1abcdefg2", "3abcdefg4", "@@ -1,4 +1,4 @@|-1|+3| a| b| c|@@ -6,4 +6,4 @@| e| f| g|-2|+4|");
    }

    #[test]
    fn large_texts_are_compared_at_their_ends() {
        let text = |middle: &str| format!("{}{middle}\n{}", "a\n".repeat(2_000), "b\n".repeat(2_000));
        let expected = "@@ -1998,7 +1998,7 @@\n a\n a\n a\n-x\n+y\n b\n b\n b\n";
        assert_eq!(unified(&text("x"), &text("y")), expected);
    }
}
