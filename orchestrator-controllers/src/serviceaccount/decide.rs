//! Which service account a namespace lacks.

use k8s_openapi::{
    api::core::v1::{Namespace, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

/// The service account of pods that name none.
pub(super) const DEFAULT: &str = "default";

/// The account to create, if the namespace is active and has none.
pub(super) fn decide(namespace: &Namespace, account: Option<&ServiceAccount>) -> Option<ServiceAccount> {
    if account.is_some() || !is_active(namespace) {
        return None;
    }
    let metadata =
        ObjectMeta { name: Some(DEFAULT.to_owned()), namespace: namespace.metadata.name.clone(), ..Default::default() };
    Some(ServiceAccount { metadata, ..Default::default() })
}

/// Whether new objects may be made in a namespace.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    namespace.metadata.deletion_timestamp.is_none() && phase != Some("Terminating")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::NamespaceStatus;

    use super::*;

    #[test]
    fn only_an_active_namespace_without_the_account_gets_one() {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("team".to_owned());
        let account = decide(&namespace, None).unwrap();
        assert_eq!(account.metadata.namespace.as_deref(), Some("team"));
        assert_eq!(decide(&namespace, Some(&account)), None);
        namespace.status = Some(NamespaceStatus { phase: Some("Terminating".to_owned()), ..Default::default() });
        assert_eq!(decide(&namespace, None), None);
    }
}
