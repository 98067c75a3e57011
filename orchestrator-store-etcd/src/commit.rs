//! Commits: one transaction each, after the leases of what is to go away by itself.

use std::collections::BTreeMap;

use etcd_client::Client;
use orchestrator_core::store::{Batch, Revision, StoreError};

use crate::{
    endpoints::Repeat,
    error::{Failed, Failure},
    lease::slack,
    limits::LEASE_ROUNDS,
    shared::{Shared, header},
    transaction,
};

impl Shared {
    pub(crate) async fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        transaction::check(&batch, &self.limits, &self.layout)?;
        let times = transaction::times(&batch);
        let mut round = 1;
        loop {
            let mut leases = BTreeMap::new();
            for &seconds in &times {
                leases.insert(seconds, self.lease(seconds, batch.operations.len()).await?);
            }
            let lease = |seconds: u64| leases.get(&seconds).copied().unwrap_or_default();
            let call = |client: Client| {
                let transaction = transaction::transaction(&batch, &self.layout, lease);
                let answer_bytes = self.limits.answer_bytes;
                async move { client.kv_client().max_decoding_message_size(answer_bytes).txn(transaction).await }
            };
            match self.endpoints.call(Repeat::IfNotDone, call).await {
                Ok(answer) if answer.succeeded() => {
                    return Ok(header(answer.header()).map_err(|error| Failed::at("etcd", &error))?);
                }
                Ok(answer) => return Err(transaction::conflict(&batch, &self.layout, &answer)?),
                Err(Failed::Etcd(Failure::LeaseGone, _)) if round < LEASE_ROUNDS => {
                    self.leases.forget(times.iter().copied());
                    round += 1;
                }
                Err(failed) => return Err(failed.into()),
            }
        }
    }

    /// A lease on which keys live this long. One that no key comes to use goes away by itself.
    async fn lease(&self, seconds: u64, keys: usize) -> Result<i64, StoreError> {
        let asked = self.env.monotonic();
        if let Some(lease) = self.leases.join(seconds, keys, asked) {
            return Ok(lease);
        }
        let time = i64::try_from(seconds + slack(seconds)).unwrap_or(i64::MAX);
        let grant = |client: Client| async move { client.lease_client().grant(time, None).await };
        let granted = self.endpoints.call(Repeat::Always, grant).await?.id();
        self.leases.add(seconds, granted, keys, asked);
        Ok(granted)
    }
}
