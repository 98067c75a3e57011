//! What holds for all kinds, tried on the objects of the recorded conversations.

use proptest::prelude::*;
use serde_json::Value;

use crate::{
    decode::{Findings, prune},
    field::{Errors, Field},
    registry::{Kind, Registry},
};

const CASES: &str = include_str!("../../tests/fixtures/golden-cases.json");

/// The objects that were sent (`body`) or answered (`answer`), with values in the place of what was left out.
fn objects(answered: bool) -> Vec<Value> {
    let text = CASES
        .replace("\"<port>\"", "30001")
        .replace("<ip>", "10.0.0.9")
        .replace("<time>", "2026-01-01T00:00:00Z")
        .replace("<suffix>", "abcde")
        .replace("<uid>", "00000000-0000-0000-0000-000000000001")
        .replace("{ns}", "ns");
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let steps = cases.iter().flat_map(|case| case["steps"].as_array().unwrap().clone());
    let object = |step: Value| if answered { step["answer"]["body"].clone() } else { step["body"].clone() };
    steps.map(object).filter(|object| object["metadata"]["name"].is_string()).collect()
}

fn kind_of(registry: &Registry, object: &Value) -> Option<std::sync::Arc<Kind>> {
    registry.kinds().into_iter().find(|kind| object["kind"] == kind.kind && object["apiVersion"] == kind.api_version())
}

#[test]
fn answered_objects_are_complete_and_valid() {
    let registry = Registry::new();
    let mut seen = 0;
    for object in objects(true) {
        let Some(kind) = kind_of(&registry, &object) else { continue };
        let mut again = object.clone();
        kind.strategy.default(&mut again);
        assert_eq!(again, object, "the defaults of {}", kind.kind);
        let mut errors = Errors::default();
        kind.strategy.validate(&Field::root(&object), &mut errors);
        kind.strategy.validate_update(&Field::root(&object), &Field::root(&object), &mut errors);
        assert_eq!(errors.into_vec(), [], "{} {}", kind.kind, object["metadata"]["name"]);
        seen += 1;
    }
    assert!(seen > 200, "only {seen} objects were tried");
}

/// What is the first thing wrong with an object of each kind that has nothing but a name; nothing where that may be.
const OF_AN_EMPTY_OBJECT: [(&str, &str); 60] = [
    ("configmaps v1", ""),
    ("endpoints v1", ""),
    ("events v1", ""),
    ("limitranges v1", ""),
    ("namespaces v1", ""),
    ("nodes v1", ""),
    ("persistentvolumeclaims v1", "spec.accessModes"),
    ("persistentvolumes v1", "spec.accessModes"),
    ("pods v1", "spec.containers"),
    ("podtemplates v1", "template.spec.containers"),
    ("replicationcontrollers v1", "spec.selector"),
    ("resourcequotas v1", ""),
    ("secrets v1", ""),
    ("serviceaccounts v1", ""),
    ("services v1", "spec.ports"),
    ("mutatingadmissionpolicies admissionregistration.k8s.io/v1", "spec.matchConstraints"),
    ("mutatingadmissionpolicybindings admissionregistration.k8s.io/v1", "spec.policyName"),
    ("mutatingwebhookconfigurations admissionregistration.k8s.io/v1", ""),
    ("validatingadmissionpolicies admissionregistration.k8s.io/v1", "spec.matchConstraints"),
    ("validatingadmissionpolicybindings admissionregistration.k8s.io/v1", "spec.policyName"),
    ("validatingwebhookconfigurations admissionregistration.k8s.io/v1", ""),
    ("customresourcedefinitions apiextensions.k8s.io/v1", "metadata.name"),
    ("apiservices apiregistration.k8s.io/v1", "metadata.name"),
    ("controllerrevisions apps/v1", "data"),
    ("daemonsets apps/v1", "spec.template.metadata.labels"),
    ("deployments apps/v1", "spec.selector"),
    ("replicasets apps/v1", "spec.selector"),
    ("statefulsets apps/v1", "spec.selector"),
    ("horizontalpodautoscalers autoscaling/v1", "spec.maxReplicas"),
    ("horizontalpodautoscalers autoscaling/v2", "spec.maxReplicas"),
    ("cronjobs batch/v1", "spec.schedule"),
    ("jobs batch/v1", "spec.template.spec.containers"),
    ("certificatesigningrequests certificates.k8s.io/v1", "spec.request"),
    ("leases coordination.k8s.io/v1", ""),
    ("endpointslices discovery.k8s.io/v1", "addressType"),
    ("events events.k8s.io/v1", "eventTime"),
    ("flowschemas flowcontrol.apiserver.k8s.io/v1", "spec.priorityLevelConfiguration.name"),
    ("prioritylevelconfigurations flowcontrol.apiserver.k8s.io/v1", "spec.type"),
    ("ingressclasses networking.k8s.io/v1", "spec.controller"),
    ("ingresses networking.k8s.io/v1", "spec"),
    ("ipaddresses networking.k8s.io/v1", "spec.parentRef"),
    ("networkpolicies networking.k8s.io/v1", ""),
    ("servicecidrs networking.k8s.io/v1", "spec.cidrs"),
    ("runtimeclasses node.k8s.io/v1", "handler"),
    ("poddisruptionbudgets policy/v1", ""),
    ("clusterrolebindings rbac.authorization.k8s.io/v1", "roleRef.kind"),
    ("clusterroles rbac.authorization.k8s.io/v1", ""),
    ("rolebindings rbac.authorization.k8s.io/v1", "roleRef.kind"),
    ("roles rbac.authorization.k8s.io/v1", ""),
    ("deviceclasses resource.k8s.io/v1", ""),
    ("resourceclaims resource.k8s.io/v1", ""),
    ("resourceclaimtemplates resource.k8s.io/v1", ""),
    ("resourceslices resource.k8s.io/v1", "spec.driver"),
    ("priorityclasses scheduling.k8s.io/v1", ""),
    ("csidrivers storage.k8s.io/v1", ""),
    ("csinodes storage.k8s.io/v1", ""),
    ("csistoragecapacities storage.k8s.io/v1", "storageClassName"),
    ("storageclasses storage.k8s.io/v1", "provisioner"),
    ("volumeattachments storage.k8s.io/v1", "spec.attacher"),
    ("volumeattributesclasses storage.k8s.io/v1", "driverName"),
];

#[test]
fn every_stored_kind_has_rules_of_its_own() {
    let mut seen = Vec::new();
    for kind in Registry::new().kinds() {
        let (group, plural) = (&kind.resource.group, &kind.resource.plural);
        let stored = kind.verbs.iter().any(|verb| verb == "update");
        if !stored {
            continue;
        }
        assert!(super::is_deep(group, plural), "{plural} of {group:?} has the rules of metadata alone");
        assert_eq!(kind.strategy.has_status(), kind.subresource("status").is_some(), "the status of {plural}");
        let name = if plural == "ipaddresses" { "10.0.0.1" } else { "x" };
        let mut object = serde_json::json!({"metadata": {"name": name, "namespace": "default", "uid": "u"}});
        kind.strategy.default(&mut object);
        kind.strategy.prepare_create(&mut object);
        let mut errors = Errors::default();
        kind.strategy.validate(&Field::root(&object), &mut errors);
        kind.strategy.validate_create(&Field::root(&object), &mut errors);
        let first = errors.into_vec().into_iter().next().map_or_else(String::new, |error| error.field);
        seen.push((format!("{plural} {}", kind.api_version()), first));
    }
    let expected = OF_AN_EMPTY_OBJECT.map(|(kind, field)| (kind.to_owned(), field.to_owned()));
    assert_eq!(seen, expected, "{seen:#?}");
}

/// Removes one part of a tree, which one the number says.
fn take_one(tree: &mut Value, choice: usize) {
    match tree {
        Value::Object(members) if !members.is_empty() => {
            let (index, rest) = (choice % members.len(), choice / members.len());
            let name = members.keys().nth(index).unwrap().clone();
            let leaf = !members[&name].is_object() && !members[&name].is_array();
            if leaf || rest % 3 == 0 {
                members.remove(&name);
            } else {
                take_one(&mut members[&name], rest / 3);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let (index, rest) = (choice % items.len(), choice / items.len());
            if rest % 3 == 0 || !items[index].is_object() {
                items.remove(index);
            } else {
                take_one(&mut items[index], rest / 3);
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is missing: nothing panics, defaults are complete at once, and an unchanged object may always be written.
    #[test]
    fn holes_are_survived(which in any::<prop::sample::Index>(), choices in prop::collection::vec(0_usize..1_000_000, 1..6)) {
        thread_local! {
            static STATE: (Registry, Vec<Value>) = (Registry::new(), objects(false));
        }
        STATE.with(|(registry, objects)| {
            let mut object = which.get(objects).clone();
            let Some(kind) = kind_of(registry, &object) else { return Ok(()) };
            for choice in choices {
                take_one(&mut object, choice);
            }
            if !object.is_object() || prune(&mut object, kind.schema.unwrap(), &mut Findings::default()).is_err() {
                return Ok(());
            }
            kind.strategy.default(&mut object);
            let mut again = object.clone();
            kind.strategy.default(&mut again);
            prop_assert_eq!(&again, &object);
            kind.strategy.prepare_create(&mut object);
            let mut errors = Errors::default();
            kind.strategy.validate(&Field::root(&object), &mut errors);
            kind.strategy.validate_create(&Field::root(&object), &mut errors);
            let mut same = object.clone();
            kind.strategy.prepare_update(&mut same, &object);
            if errors.is_empty() {
                let mut errors = Errors::default();
                kind.strategy.validate_update(&Field::root(&same), &Field::root(&object), &mut errors);
                prop_assert_eq!(errors.into_vec(), vec![]);
            }
            kind.strategy.reservations(&object);
            for is_new in [true, false] {
                kind.strategy.allocations(&object, is_new);
            }
            kind.strategy.grace_seconds(&object, None);
            Ok(())
        })?;
    }
}
