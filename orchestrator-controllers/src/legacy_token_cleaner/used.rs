//! The secrets that a pod names.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod, Volume};

/// The names of all secrets that a pod uses.
pub(super) fn secrets(pod: &Pod) -> BTreeSet<String> {
    let Some(spec) = &pod.spec else { return BTreeSet::new() };
    let pulled = spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone());
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut names: BTreeSet<String> = pulled.chain(containers.flat_map(of_container)).collect();
    for container in spec.ephemeral_containers.iter().flatten() {
        names.extend(of_variables(container.env.as_deref(), container.env_from.as_deref()));
    }
    names.extend(spec.volumes.iter().flatten().flat_map(of_volume));
    names
}

fn of_container(container: &Container) -> Vec<String> {
    of_variables(container.env.as_deref(), container.env_from.as_deref())
}

fn of_variables(
    variables: Option<&[k8s_openapi::api::core::v1::EnvVar]>,
    sources: Option<&[k8s_openapi::api::core::v1::EnvFromSource]>,
) -> Vec<String> {
    let values = variables.into_iter().flatten().filter_map(|it| it.value_from.as_ref()?.secret_key_ref.as_ref());
    let whole = sources.into_iter().flatten().filter_map(|source| source.secret_ref.as_ref());
    values.map(|secret| secret.name.clone()).chain(whole.map(|secret| secret.name.clone())).collect()
}

fn of_volume(volume: &Volume) -> Vec<String> {
    let references = [
        volume.cephfs.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.cinder.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.csi.as_ref().and_then(|source| source.node_publish_secret_ref.as_ref()),
        volume.flex_volume.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.iscsi.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.rbd.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.scale_io.as_ref().map(|source| &source.secret_ref),
        volume.storageos.as_ref().and_then(|source| source.secret_ref.as_ref()),
    ];
    let named = [
        volume.secret.as_ref().and_then(|source| source.secret_name.clone()),
        volume.azure_file.as_ref().map(|source| source.secret_name.clone()),
    ];
    let projected = volume.projected.iter().flat_map(|source| source.sources.iter().flatten());
    let projected = projected.filter_map(|source| source.secret.as_ref()).map(|secret| secret.name.clone());
    let references = references.into_iter().flatten().map(|secret| secret.name.clone());
    named.into_iter().flatten().chain(references).chain(projected).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_found_wherever_a_pod_names_them() {
        let variables = json!([{"name": "V", "valueFrom": {"secretKeyRef": {"name": "variable", "key": "k"}}}]);
        let sources = json!([{"secretRef": {"name": "variables"}}, {"configMapRef": {"name": "map"}}]);
        let volumes = json!([
            {"name": "a", "secret": {"secretName": "volume"}},
            {"name": "b", "projected": {"sources": [{"secret": {"name": "projected"}}]}},
            {"name": "c", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "driver"}}},
            {"name": "d", "azureFile": {"secretName": "share", "shareName": "s"}},
        ]);
        let spec = json!({
            "containers": [{"name": "c", "env": variables}], "initContainers": [{"name": "i", "envFrom": sources}],
            "imagePullSecrets": [{"name": "registry"}], "volumes": volumes,
        });
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        let expected = ["driver", "projected", "registry", "share", "variable", "variables", "volume"];
        assert_eq!(secrets(&pod).iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }
}
