//! Which claims a pod's ephemeral volumes lack.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/storage/ephemeral-volumes/#generic-ephemeral-volumes>.

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod, Volume},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orchestrator_core::meta;

/// The volumes of a pod that come and go with it.
pub(super) fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter(|volume| volume.ephemeral.is_some())
}

/// The name of an ephemeral volume's claim.
pub(crate) fn claim_name(pod: &Pod, volume: &Volume) -> String {
    format!("{}-{}", meta::name(&pod.metadata), volume.name)
}

/// The claim that a volume needs, if there is none; fails when there is one that belongs to somebody else.
pub(super) fn decide(
    pod: &Pod,
    volume: &Volume,
    claim: Option<&PersistentVolumeClaim>,
) -> Result<Option<PersistentVolumeClaim>, String> {
    if let Some(claim) = claim {
        let (name, namespace) = (meta::name(&pod.metadata), meta::namespace(&pod.metadata));
        let owned = meta::is_controlled_by(&claim.metadata, meta::uid(&pod.metadata));
        let claim = meta::name(&claim.metadata);
        let foreign =
            || format!("PVC {namespace}/{claim} was not created for pod {namespace}/{name} (pod is not owner)");
        return if owned { Ok(None) } else { Err(foreign()) };
    }
    let template = volume.ephemeral.as_ref().and_then(|source| source.volume_claim_template.as_ref());
    Ok(template.map(|template| {
        let given = template.metadata.clone().unwrap_or_default();
        let metadata = ObjectMeta {
            name: Some(claim_name(pod, volume)),
            labels: given.labels,
            annotations: given.annotations,
            owner_references: Some(vec![meta::owner_reference(pod, true)]),
            ..Default::default()
        };
        PersistentVolumeClaim { metadata, spec: Some(template.spec.clone()), status: None }
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pod(volumes: &[&str]) -> Pod {
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}});
        let volume = |name: &&str| json!({"name": name, "ephemeral": {"volumeClaimTemplate": template}});
        let mut all: Vec<_> = volumes.iter().map(volume).collect();
        all.push(json!({"name": "other", "emptyDir": {}}));
        let metadata = json!({"name": "p", "namespace": "n", "uid": "u"});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"containers": [], "volumes": all}})).unwrap()
    }

    #[test]
    fn a_claim_is_made_once_and_nobody_elses_is_taken() {
        let pod = pod(&["data"]);
        let volume = volumes(&pod).next().unwrap();
        let claim = decide(&pod, volume, None).unwrap().unwrap();
        assert_eq!(meta::name(&claim.metadata), "p-data");
        assert_eq!(meta::label(&claim.metadata, "a"), Some("b"));
        assert_eq!(decide(&pod, volume, Some(&claim)), Ok(None));
        let foreign = PersistentVolumeClaim {
            metadata: ObjectMeta { name: Some("p-data".to_owned()), ..Default::default() },
            ..Default::default()
        };
        let error = "PVC n/p-data was not created for pod n/p (pod is not owner)";
        assert_eq!(decide(&pod, volume, Some(&foreign)), Err(error.to_owned()));
    }

    proptest! {
        #[test]
        fn each_ephemeral_volume_gets_one_claim(names in prop::collection::btree_set("[a-z]{1,3}", 0..5)) {
            let pod = pod(&names.iter().map(String::as_str).collect::<Vec<_>>());
            let made: Vec<_> = volumes(&pod).filter_map(|volume| decide(&pod, volume, None).unwrap()).collect();
            let found: std::collections::BTreeSet<_> =
                made.iter().map(|claim| meta::name(&claim.metadata).trim_start_matches("p-").to_owned()).collect();
            prop_assert_eq!(found, names);
        }
    }
}
