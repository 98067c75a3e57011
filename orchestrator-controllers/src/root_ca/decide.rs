//! What the published certificates should look like.
//!
//! Upstream: `pkg/controller/certificates/rootcacertpublisher`.

use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orchestrator_core::meta;

use crate::serviceaccount::decide::is_active;

/// The ConfigMap's name.
pub(super) const NAME: &str = "kube-root-ca.crt";

const FILE: &str = "ca.crt";

const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
     internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes \
     clusters.",
);

#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    Nothing,
    Create(ConfigMap),
    Replace(ConfigMap),
}

/// Compares what a namespace has with what it should have.
pub(super) fn decide(namespace: &Namespace, map: Option<&ConfigMap>, certificates: &str) -> Decision {
    if !is_active(namespace) {
        return Decision::Nothing;
    }
    let data = Some([(FILE.to_owned(), certificates.to_owned())].into());
    let description = (DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned());
    let Some(known) = map else {
        let metadata = ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: namespace.metadata.name.clone(),
            annotations: Some([description].into()),
            ..Default::default()
        };
        return Decision::Create(ConfigMap { metadata, data, ..Default::default() });
    };
    if known.data == data && meta::annotation(&known.metadata, DESCRIPTION.0) == Some(DESCRIPTION.1) {
        return Decision::Nothing;
    }
    let mut map = known.clone();
    map.data = data;
    map.metadata.annotations.get_or_insert_default().extend([description]);
    Decision::Replace(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_made_and_kept_as_it_should_be() {
        let namespace = Namespace::default();
        let Decision::Create(map) = decide(&namespace, None, "PEM") else { panic!("not created") };
        assert_eq!(decide(&namespace, Some(&map), "PEM"), Decision::Nothing);
        let mut broken = map.clone();
        broken.data = None;
        assert_eq!(decide(&namespace, Some(&broken), "PEM"), Decision::Replace(map.clone()));
        assert!(matches!(decide(&namespace, Some(&map), "NEW"), Decision::Replace(_)));
    }
}
