//! How keys and entries lie in etcd: a key is the store's prefix and the key's own text, a value is the value.

use bytes::Bytes;
use etcd_client::proto::PbKeyValue;
use orchestrator_core::store::{Entry, Key, KeyRange, Revision};

use crate::error::EtcdError;

/// What etcd takes for "no end".
const NO_END: &[u8] = b"\0";

/// Where the store's keys are.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    prefix: Vec<u8>,
}

/// Keys from a start to before an end, as etcd has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: Vec<u8>,
    pub(crate) end: Vec<u8>,
}

impl Layout {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.as_bytes().to_vec() }
    }

    /// A key in etcd; `None` for the one that etcd cannot hold: the empty one.
    pub(crate) fn encode(&self, key: &Key) -> Option<Vec<u8>> {
        let encoded = [&self.prefix, key.as_str().as_bytes()].concat();
        (!encoded.is_empty()).then_some(encoded)
    }

    pub(crate) fn decode(&self, encoded: &[u8]) -> Result<Key, EtcdError> {
        let text = encoded.strip_prefix(self.prefix.as_slice()).and_then(|rest| std::str::from_utf8(rest).ok());
        text.map(Key::new).ok_or_else(|| EtcdError::ForeignKey(encoded.to_vec()))
    }

    pub(crate) fn entry(&self, found: PbKeyValue) -> Result<Entry, EtcdError> {
        Ok(Entry {
            key: self.decode(&found.key)?,
            value: Bytes::from(found.value),
            created: revision(found.create_revision),
            modified: revision(found.mod_revision),
        })
    }

    /// All keys of a range.
    pub(crate) fn span(&self, range: &KeyRange) -> Span {
        let start = [&self.prefix, range.as_prefix().as_bytes()].concat();
        let end = behind_prefix(&start);
        // No key is before the one of a single zero.
        Span { start: if start.is_empty() { NO_END.to_vec() } else { start }, end }
    }

    /// The keys of a range behind one key.
    pub(crate) fn span_after(&self, range: &KeyRange, after: Option<&Key>) -> Span {
        let mut span = self.span(range);
        if let Some(after) = after {
            let behind = [&self.prefix, after.as_str().as_bytes(), b"\0"].concat();
            span.start = span.start.max(behind);
        }
        span
    }

    /// A key to ask for when only a revision is of interest.
    pub(crate) fn probe(&self) -> Vec<u8> {
        self.span(&KeyRange::prefix("")).start
    }
}

impl Span {
    /// Whether no key can lie in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.end != NO_END && self.start >= self.end
    }
}

/// A revision as etcd has it.
pub(crate) fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(0))
}

/// The first key behind all that begin with a prefix.
fn behind_prefix(prefix: &[u8]) -> Vec<u8> {
    let kept = prefix.iter().rposition(|byte| *byte < u8::MAX);
    let Some(last) = kept else { return NO_END.to_vec() };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_spans() {
        let bare = Layout::new("");
        let span = |start: &[u8], end: &[u8]| Span { start: start.to_vec(), end: end.to_vec() };
        assert_eq!(bare.span(&KeyRange::prefix("")), span(b"\0", b"\0"));
        assert_eq!(bare.span(&KeyRange::prefix("/a")), span(b"/a", b"/b"));
        assert_eq!(bare.span_after(&KeyRange::prefix("/a"), Some(&Key::new("/a"))), span(b"/a\0", b"/b"));
        assert_eq!(bare.span_after(&KeyRange::prefix("/a"), Some(&Key::new("/"))), span(b"/a", b"/b"));
        assert!(bare.span_after(&KeyRange::prefix("/a"), Some(&Key::new("/c"))).is_empty());
        assert!(!bare.span(&KeyRange::prefix("")).is_empty());
        assert_eq!(bare.encode(&Key::new("")), None);
        let below = Layout::new("/root");
        assert_eq!(below.span(&KeyRange::prefix("")), span(b"/root", b"/roou"));
        assert_eq!(below.encode(&Key::new("")), Some(b"/root".to_vec()));
    }

    #[test]
    fn keys_of_others_are_errors() {
        let layout = Layout::new("/root");
        for foreign in [&b"/other"[..], b"/root\xff"] {
            assert!(matches!(layout.decode(foreign), Err(EtcdError::ForeignKey(_))), "{foreign:?}");
        }
    }

    proptest! {
        #[test]
        fn a_span_holds_what_its_range_does(prefix in "[a-c/\u{7f}é]{0,3}", range in "[a-c/\u{7f}é]{0,3}", key in "[a-c/\u{7f}é]{1,5}", after in proptest::option::of("[a-c/\u{7f}é]{0,4}")) {
            let (layout, range, key) = (Layout::new(&prefix), KeyRange::prefix(range.as_str()), Key::new(key.as_str()));
            let after = after.map(|after| Key::new(after.as_str()));
            let encoded = layout.encode(&key).unwrap();
            prop_assert_eq!(&layout.decode(&encoded).unwrap(), &key);
            let span = layout.span_after(&range, after.as_ref());
            let inside = span.start <= encoded && (span.end == NO_END || encoded < span.end);
            prop_assert_eq!(inside, range.contains(&key) && after.is_none_or(|after| key > after));
            prop_assert!(!(span.is_empty() && inside));
        }
    }
}
