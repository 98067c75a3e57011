//! Encodings that were made lately, kept for those who will ask for them next.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

use crate::limits;

/// The newest encodings, up to a size of all together. Objects know theirs for as long as it is in here.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    encodings: VecDeque<Arc<Bytes>>,
    bytes: usize,
}

impl Recent {
    /// Keeps one more, and lets go of the oldest.
    pub(crate) fn keep(&self, encoding: &Arc<Bytes>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += encoding.len();
        kept.encodings.push_back(encoding.clone());
        while kept.bytes > limits::RECENT_BYTES
            && let Some(oldest) = kept.encodings.pop_front()
        {
            kept.bytes -= oldest.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go() {
        let recent = Recent::default();
        let made: Vec<_> = (0..3).map(|_| Arc::new(Bytes::from(vec![0; limits::RECENT_BYTES / 2]))).collect();
        made.iter().for_each(|encoding| recent.keep(encoding));
        assert_eq!(made.iter().map(Arc::strong_count).collect::<Vec<_>>(), [1, 2, 2]);
        recent.keep(&Arc::new(Bytes::from(vec![0; limits::RECENT_BYTES + 1])));
        assert!(made.iter().all(|encoding| Arc::strong_count(encoding) == 1));
    }
}
