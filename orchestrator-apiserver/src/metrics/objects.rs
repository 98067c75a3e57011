//! Objects: how many of each kind there are.

use std::collections::BTreeMap;

use orchestrator_core::{
    metrics::{Exposition, MetricType},
    store::ListOptions,
};

use crate::pipeline::Server;

/// Counts what lies in the store. What cannot be counted is shown as -1, as upstream.
pub(crate) async fn write(server: &Server, out: &mut Exposition) {
    let mut counts = BTreeMap::new();
    for kind in server.registry.kinds() {
        let place = (kind.resource.group.to_string(), kind.resource.plural.to_string());
        // What cannot be watched is not stored; of several versions the objects are the same.
        if !kind.verbs.iter().any(|verb| verb == "watch") || counts.contains_key(&place) {
            continue;
        }
        let first = ListOptions { limit: Some(1), ..ListOptions::default() };
        let listing = server.store.list(&kind.range(None), first).await;
        let count = listing.map(|listing| listing.entries.len() as i64 + i64::try_from(listing.remaining).unwrap_or(0));
        counts.insert(place, count.unwrap_or(-1));
    }
    let family = "apiserver_resource_objects";
    out.family(family, MetricType::Gauge, "Objects in the store");
    for ((group, resource), count) in &counts {
        out.sample(family, &[("group", group), ("resource", resource)], count);
    }
    let family = "apiserver_storage_objects";
    out.family(family, MetricType::Gauge, "Objects in the store, by the name that was used before 1.34");
    for ((group, resource), count) in &counts {
        let name = if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
        out.sample(family, &[("resource", &name)], count);
    }
}
