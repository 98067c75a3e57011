//! Which resources the server has.

use kube::client::APIGroupDiscovery;
use orchestrator_core::{
    client::{Resource, ResourceInfo},
    status::ApiResult,
};

use super::failure::transport;

/// The same objects as the core group's events.
const SECOND_EVENTS: &str = "events.k8s.io";

/// All resources in the version that their group prefers, each once.
pub(crate) async fn resources(client: &kube::Client) -> ApiResult<Vec<ResourceInfo>> {
    let core = client.list_core_api_versions_aggregated().await.map_err(transport)?;
    let groups = client.list_api_groups_aggregated().await.map_err(transport)?;
    let mut found = Vec::new();
    for group in core.items.into_iter().chain(groups.items) {
        add(group, &mut found);
    }
    Ok(found)
}

fn add(group: APIGroupDiscovery, found: &mut Vec<ResourceInfo>) {
    let name = group.metadata.and_then(|metadata| metadata.name).unwrap_or_default();
    if name == SECOND_EVENTS {
        return;
    }
    // The preferred version comes first. What it does not have is taken from the next one that has it.
    for version in group.versions {
        let version_name = version.version.unwrap_or_default();
        for resource in version.resources {
            // Without a kind it is only a parent of subresources.
            let (Some(plural), Some(kind)) = (resource.resource, resource.response_kind.and_then(|kind| kind.kind))
            else {
                continue;
            };
            let same = |other: &ResourceInfo| other.resource.group == name && other.resource.plural == plural;
            if kind.is_empty() || resource.verbs.is_empty() || found.iter().any(same) {
                continue;
            }
            found.push(ResourceInfo {
                resource: Resource::new(name.clone(), version_name.clone(), plural),
                kind,
                namespaced: resource.scope.as_deref() == Some("Namespaced"),
                verbs: resource.verbs,
            });
        }
    }
}
