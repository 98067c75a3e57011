//! The types of built-in kinds: what a create tracks, as recorded from upstream, and what an apply does.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::{ApplyError, fields};
use crate::{
    apply::{FieldSet, Tracker, TypeRef, Updater, Versions, builtin, empty},
    decode::Schema,
};

struct Builtin {
    api_version: String,
    kind: String,
    of: TypeRef<'static>,
    empty: Value,
}

impl Builtin {
    fn new(group: &str, version: &str, kind: &str) -> Self {
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let empty = empty(&api_version, kind, Schema::get().kind(group, version, kind));
        Self { of: builtin(group, version, kind).unwrap(), kind: kind.to_owned(), api_version, empty }
    }

    fn tracked<T>(&self, write: impl FnOnce(&Tracker<'_>) -> T) -> T {
        let ignored = FieldSet::of_fields(&["status"]);
        let updater = Updater { versions: self, api_version: &self.api_version, of: self.of, ignored: &ignored };
        let now = Some("2026-01-01T00:00:00Z");
        write(&Tracker {
            updater,
            kind: "apps/v1, Kind=Deployment",
            subresource: "",
            now,
            schema_is_fixed: true,
            empty: &self.empty,
        })
    }

    fn object(&self, mut members: Value) -> Value {
        members["apiVersion"] = self.api_version.clone().into();
        members["kind"] = self.kind.clone().into();
        members["metadata"]["name"] = "x".into();
        members
    }

    fn created(&self, members: Value) -> Value {
        let mut object = self.object(members);
        self.tracked(|tracker| tracker.update(None, &mut object, ""));
        assert_eq!(object["metadata"]["managedFields"].as_array().unwrap().len(), 1);
        fields(&object, "unknown")
    }

    fn apply(&self, live: Option<&Value>, members: Value, manager: &str) -> Result<Value, ApplyError> {
        let applied = self.object(members);
        self.tracked(|tracker| tracker.apply(live, &applied, manager, false))
    }
}

impl Versions for Builtin {
    fn type_of(&self, api_version: &str) -> Option<TypeRef<'_>> {
        (api_version == self.api_version).then_some(self.of)
    }

    fn convert<'v>(&self, object: &'v Value, _api_version: &str) -> Cow<'v, Value> {
        Cow::Borrowed(object)
    }
}

#[test]
fn creating_a_deployment_tracks_what_upstream_tracks() {
    let kind = Builtin::new("apps", "v1", "Deployment");
    let spec = json!({
        "replicas": 1, "selector": {"matchLabels": {"app": "a"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "template": {"metadata": {"labels": {"app": "a"}}, "spec": {
            "containers": [{
                "name": "c", "image": "b", "resources": {}, "env": [{"name": "A", "value": "1"}],
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
            }],
            "securityContext": {}, "tolerations": [{"key": "a"}], "volumes": [{"name": "v", "emptyDir": {}}],
        }},
    });
    assert_eq!(
        kind.created(json!({"spec": spec, "status": {"replicas": 1}})),
        json!({"f:spec": {
            "f:replicas": {}, "f:selector": {},
            "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}},
            "f:template": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {
                "f:containers": {"k:{\"name\":\"c\"}": {
                    ".": {}, "f:image": {}, "f:name": {}, "f:resources": {},
                    "f:env": {".": {}, "k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}}},
                    "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {
                        ".": {}, "f:containerPort": {}, "f:protocol": {},
                    }},
                }},
                "f:securityContext": {}, "f:tolerations": {},
                "f:volumes": {".": {}, "k:{\"name\":\"v\"}": {".": {}, "f:emptyDir": {}, "f:name": {}}},
            }},
        }})
    );
}

#[test]
fn creating_other_kinds_tracks_what_upstream_tracks() {
    let created = |group, kind, members| Builtin::new(group, "v1", kind).created(members);
    assert_eq!(
        created(
            "networking.k8s.io",
            "NetworkPolicy",
            json!({"spec": {
                "podSelector": {}, "ingress": [{}], "policyTypes": ["Ingress"],
            }})
        ),
        json!({"f:spec": {"f:ingress": {}, "f:policyTypes": {}}})
    );
    assert_eq!(
        created("storage.k8s.io", "CSIDriver", json!({"spec": {"volumeLifecycleModes": ["Persistent"]}})),
        json!({"f:spec": {"f:volumeLifecycleModes": {".": {}, "v:\"Persistent\"": {}}}})
    );
    assert_eq!(
        created(
            "flowcontrol.apiserver.k8s.io",
            "FlowSchema",
            json!({"spec": {
                "matchingPrecedence": 1000, "priorityLevelConfiguration": {"name": "exempt"},
            }})
        ),
        json!({"f:spec": {"f:matchingPrecedence": {}, "f:priorityLevelConfiguration": {"f:name": {}}}})
    );
    assert_eq!(
        created(
            "rbac.authorization.k8s.io",
            "RoleBinding",
            json!({
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}, "subjects": [{"kind": "User"}],
            })
        ),
        json!({"f:roleRef": {}, "f:subjects": {}})
    );
    assert_eq!(
        created("", "ConfigMap", json!({"data": {"a": "1"}, "metadata": {"labels": {"k": "v"}, "generateName": "x"}})),
        json!({"f:data": {".": {}, "f:a": {}}, "f:metadata": {"f:generateName": {}, "f:labels": {".": {}, "f:k": {}}}})
    );
    assert_eq!(
        created("", "PersistentVolume", json!({"spec": {"claimRef": {"name": "c"}, "capacity": {"storage": "1Gi"}}})),
        json!({"f:spec": {"f:capacity": {".": {}, "f:storage": {}}, "f:claimRef": {".": {}, "f:name": {}}}})
    );
    assert_eq!(
        Builtin::new("autoscaling", "v2", "HorizontalPodAutoscaler").created(json!({"spec": {
            "maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
        }})),
        json!({"f:spec": {"f:maxReplicas": {}, "f:scaleTargetRef": {"f:apiVersion": {}, "f:kind": {}, "f:name": {}}}})
    );
}

#[test]
fn keys_that_are_left_out_have_defaults() {
    let kind = Builtin::new("", "v1", "Service");
    let ports = |ports: Value| json!({"spec": { "ports": ports }});
    let live = kind.apply(None, ports(json!([{"port": 53}, {"port": 53, "protocol": "UDP"}])), "a").unwrap();
    assert_eq!(
        fields(&live, "a")["f:spec"]["f:ports"],
        json!({
            "k:{\"port\":53,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}},
            "k:{\"port\":53,\"protocol\":\"UDP\"}": {".": {}, "f:port": {}, "f:protocol": {}},
        })
    );
    let twice = kind.apply(None, ports(json!([{"port": 53}, {"port": 53, "protocol": "TCP"}])), "a").unwrap_err();
    assert!(
        twice.to_string().ends_with(".spec.ports: duplicate entries for key [port=53,protocol=\"TCP\"]"),
        "{twice}"
    );
}

#[test]
fn what_is_wrong_is_said_in_upstreams_words() {
    let kind = Builtin::new("apps", "v1", "Deployment");
    let containers = json!([{"name": "c", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}]);
    let error =
        kind.apply(None, json!({"spec": {"template": {"spec": { "containers": containers }}}}), "a").unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to create typed patch object (/x; apps/v1, Kind=Deployment): .spec.template.spec.containers[name=\"c\"].env: \
         duplicate entries for key [name=\"A\"]"
    );
}

#[test]
fn every_kind_has_a_type_that_takes_its_empty_object() {
    for line in include_str!("../../../data/api-resources.tsv").lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('\t').collect();
        let (group, version) = columns[0].split_once('/').unwrap_or(("", columns[0]));
        if columns[1].contains('/') {
            continue;
        }
        let kind = Builtin::new(group, version, columns[3]);
        assert_eq!(
            crate::apply::validate::validate(&kind.empty, kind.of, crate::apply::validate::Duplicates::Refuse),
            Ok(()),
            "{line}"
        );
    }
}
