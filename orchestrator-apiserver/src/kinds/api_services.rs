//! APIService: which server has a version of a group.
//!
//! Upstream: `kube-aggregator/pkg/apis/apiregistration/validation`.

use serde_json::{Value, json};

use super::{check, rules::Rules};
use crate::{
    field::{Errors, Field, member, remove, set_default},
    names::{self, NameRule},
};

const STATUSES: [&str; 3] = ["True", "False", "Unknown"];

/// API services.
pub(super) const API_SERVICES: Rules = Rules {
    names: NameRule::PathSegment,
    status: true,
    default: |service| {
        let spec = member(service, "spec");
        for name in ["groupPriorityMinimum", "versionPriority"] {
            set_default(spec, name, 0);
        }
        if let Some(reference) = spec.get_mut("service") {
            set_default(reference, "port", 443);
        }
    },
    create,
    validate,
    update_status: |new, old| {
        for name in ["labels", "annotations"] {
            match old["metadata"].get(name) {
                Some(value) => *member(member(new, "metadata"), name) = value.clone(),
                None => drop(remove(member(new, "metadata"), name)),
            }
        }
    },
    validate_status: |new, _, errors| {
        for condition in new.at("status.conditions").items() {
            let status = condition.get("status");
            if !STATUSES.contains(&status.text()) {
                status.not_supported(errors, &STATUSES);
            }
        }
    },
    ..Rules::NONE
};

/// What this server serves itself is there at once.
fn create(service: &mut Value) {
    let since = service["metadata"]["creationTimestamp"].clone();
    let is_local = service["spec"].get("service").is_none();
    let there = json!({
        "type": "Available", "status": "True", "lastTransitionTime": since, "reason": "Local",
        "message": "Local APIServices are always available",
    });
    *member(service, "status") = if is_local { json!({ "conditions": [there] }) } else { json!({}) };
}

fn validate(service: &Field<'_>, errors: &mut Errors) {
    let (name, spec) = (service.at("metadata.name"), service.get("spec"));
    let (group, version) = (spec.get("group"), spec.get("version"));
    let wanted = format!("{}.{}", version.text(), group.text());
    if name.text() != wanted {
        name.invalid(errors, &format!("must be `spec.version+\".\"+spec.group`: {wanted:?}"));
    }
    if group.text().is_empty() && version.text() != "v1" {
        group.required(errors, "only v1 may have an empty group and it better be legacy kube");
    }
    check::given(&group, names::subdomain, errors);
    check::problems(&version, &names::label_1035(version.text()), errors);
    for (name, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1_000)] {
        let number = spec.get(name);
        if !(1..=most).contains(&number.int().unwrap_or(0)) {
            number.invalid(errors, &format!("must be positive and less than {most}"));
        }
    }
    let (reference, bundle, insecure) = (spec.get("service"), spec.get("caBundle"), spec.get("insecureSkipTLSVerify"));
    let unverified = insecure.bool() == Some(true);
    if !reference.exists() {
        if bundle.len() > 0 {
            let bytes = bundle.len() / 4 * 3 - bundle.text().matches('=').count();
            bundle.wrong(errors, format!("\"{bytes} bytes\""), "local APIServices may not have a caBundle");
        }
        if unverified {
            insecure.invalid(errors, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    }
    for name in ["namespace", "name"] {
        check::required(&reference.get(name), errors);
    }
    let port = reference.get("port");
    if !(1..=65535).contains(&port.int().unwrap_or(0)) {
        port.invalid(errors, "port is not valid: must be between 1 and 65535, inclusive");
    }
    if unverified && bundle.len() > 0 {
        insecure.invalid(errors, "may not be true if caBundle is present");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::broken_status;

    fn broken(name: &str, spec: Value) -> Vec<String> {
        let mut service = json!({"metadata": {"name": name}, "spec": spec});
        (API_SERVICES.default)(&mut service);
        let mut errors = Errors::default();
        validate(&Field::root(&service), &mut errors);
        errors.into_vec().into_iter().map(|error| format!("{}: {}", error.field, error.detail)).collect()
    }

    #[test]
    fn services_are_named_after_what_they_serve() {
        let spec = json!({"group": "g.example.com", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1});
        assert_eq!(broken("v1.g.example.com", spec.clone()), [""; 0]);
        assert_eq!(
            broken("x", spec),
            ["metadata.name: \"x\": must be `spec.version+\".\"+spec.group`: \"v1.g.example.com\""]
        );
    }

    #[test]
    fn local_services_need_no_certificate() {
        let spec = json!({"version": "v2", "caBundle": "eA==", "insecureSkipTLSVerify": true, "versionPriority": 1001});
        assert_eq!(
            broken("v2.", spec.clone()),
            [
                "spec.group: only v1 may have an empty group and it better be legacy kube",
                "spec.groupPriorityMinimum: 0: must be positive and less than 20000",
                "spec.versionPriority: 1001: must be positive and less than 1000",
                "spec.caBundle: \"1 bytes\": local APIServices may not have a caBundle",
                "spec.insecureSkipTLSVerify: true: local APIServices may not have insecureSkipTLSVerify",
            ]
        );
        let mut remote = spec;
        remote["service"] = json!({"name": "s", "port": 0});
        let found = broken("v2.", remote);
        assert_eq!(
            found[3..],
            [
                "spec.service.namespace: ",
                "spec.service.port: 0: port is not valid: must be between 1 and 65535, inclusive",
                "spec.insecureSkipTLSVerify: true: may not be true if caBundle is present",
            ]
        );
    }

    #[test]
    fn conditions_are_met_or_not_or_nobody_knows() {
        let status = |status: &str| {
            let service = json!({"metadata": {"labels": {"a": "b"}}, "status": {"conditions": [{"type": "A", "status": status}]}});
            broken_status(&API_SERVICES, &json!({}), &service)
        };
        assert_eq!(status("Unknown"), [""; 0]);
        assert_eq!(
            status("Maybe"),
            ["status.conditions[0].status: \"Maybe\": supported values: \"True\", \"False\", \"Unknown\""]
        );
    }

    #[test]
    fn local_services_are_there_at_once_and_labels_are_no_matter_of_the_status() {
        let mut local = json!({"metadata": {"creationTimestamp": "now"}, "spec": {}});
        create(&mut local);
        assert_eq!(local["status"]["conditions"][0]["lastTransitionTime"], "now");
        let mut remote = json!({"spec": {"service": {"name": "s"}}});
        create(&mut remote);
        assert_eq!(remote["status"], json!({}));
        (API_SERVICES.update_status)(&mut local, &json!({"metadata": {"labels": {"a": "b"}}}));
        assert_eq!(local["metadata"]["labels"], json!({"a": "b"}));
    }
}
