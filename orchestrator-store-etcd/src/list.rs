//! Lists: page by page of one snapshot, so that neither side has to hold more than a page in one message.

use etcd_client::{Client, GetOptions, GetResponse};
use orchestrator_core::store::{KeyRange, ListOptions, Listing, Revision, StoreError};

use crate::{
    endpoints::Repeat,
    error::{Failed, Failure},
    layout::Span,
    limits::{LIST_ROUNDS, PAGE_KEYS},
    shared::{FIRST, Shared, header},
};

impl Shared {
    pub(crate) async fn list(&self, range: &KeyRange, options: &ListOptions) -> Result<Listing, StoreError> {
        let mut round = 1;
        loop {
            match self.snapshot(range, options).await {
                // Nobody asked for this very revision.
                Err(StoreError::Compacted { .. }) if options.revision.is_none() && round < LIST_ROUNDS => round += 1,
                answer => return answer,
            }
        }
    }

    async fn snapshot(&self, range: &KeyRange, options: &ListOptions) -> Result<Listing, StoreError> {
        let mut at = match options.revision {
            Some(asked) if asked < FIRST => return Err(self.gone(asked).await),
            Some(asked) if i64::try_from(asked.0).is_err() => return Err(self.ahead(asked).await),
            asked => asked,
        };
        let mut span = self.layout.span_after(range, options.after.as_ref());
        let limit = if span.is_empty() { 0 } else { options.limit.unwrap_or(usize::MAX) };
        let nothing = span.is_empty();
        if nothing {
            // Its revision is of interest nevertheless.
            span = self.layout.span(range);
        }
        let (mut entries, mut total, mut page_keys) = (Vec::new(), None, PAGE_KEYS);
        let revision = loop {
            let wanted = page_keys.min(limit - entries.len());
            let mut page = match self.page(&span, wanted, at).await {
                Ok(page) => page,
                Err(Failed::Etcd(Failure::AnswerTooLarge, _)) if wanted > 1 => {
                    page_keys = wanted / 2;
                    continue;
                }
                Err(failed) => return Err(self.list_failed(failed, at).await),
            };
            let revision = match at {
                Some(at) => at,
                None => header(page.header()).map_err(|error| Failed::at("etcd", &error))?,
            };
            at = Some(revision);
            total.get_or_insert(u64::try_from(page.count()).unwrap_or(0));
            let more = page.more();
            for found in page.take_kvs() {
                entries.push(self.layout.entry(found.0)?);
            }
            match entries.last() {
                Some(last) if more && entries.len() < limit => span = self.layout.span_after(range, Some(&last.key)),
                _ => break revision,
            }
        };
        let total = if nothing { 0 } else { total.unwrap_or(0) };
        Ok(Listing { remaining: total.saturating_sub(entries.len() as u64), entries, revision })
    }

    /// The first keys of a span at a revision; how many there are, when none is wanted.
    async fn page(&self, span: &Span, wanted: usize, at: Option<Revision>) -> Result<GetResponse, Failed> {
        let mut options = GetOptions::new().with_range(span.end.clone());
        options = match i64::try_from(wanted) {
            Ok(wanted) if wanted > 0 => options.with_limit(wanted),
            _ => options.with_count_only(),
        };
        if let Some(at) = at.and_then(|at| i64::try_from(at.0).ok()) {
            options = options.with_revision(at);
        }
        let answer_bytes = self.limits.answer_bytes;
        let call = |client: Client| {
            let (start, options) = (span.start.clone(), options.clone());
            async move { client.kv_client().max_decoding_message_size(answer_bytes).get(start, Some(options)).await }
        };
        self.endpoints.call(Repeat::Always, call).await
    }

    async fn list_failed(&self, failed: Failed, at: Option<Revision>) -> StoreError {
        match (failed, at) {
            (Failed::Etcd(Failure::Compacted, _), Some(asked)) => self.gone(asked).await,
            (Failed::Etcd(Failure::Future, _), Some(asked)) => self.ahead(asked).await,
            (failed, _) => failed.into(),
        }
    }
}
