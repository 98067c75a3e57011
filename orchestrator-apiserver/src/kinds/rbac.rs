//! Roles and their bindings.
//!
//! Upstream: `pkg/apis/rbac/validation/validation.go`.

use serde_json::Value;

use super::{check, go, rules::Rules};
use crate::{
    field::{Errors, Field, items_mut, set_default},
    names::{self, NameRule},
};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Roles of a namespace.
pub(super) const ROLES: Rules = Rules {
    names: NameRule::PathSegment,
    default: |role| set_default(role, "rules", Value::Null),
    validate: |role, errors| rules(role, true, errors),
    ..Rules::NONE
};

/// Roles of the cluster.
pub(super) const CLUSTER_ROLES: Rules = Rules {
    validate: |role, errors| {
        rules(role, false, errors);
        if role.get("aggregationRule").exists() {
            aggregated(&role.at("aggregationRule.clusterRoleSelectors"), errors);
        }
    },
    ..ROLES
};

/// Bindings of a namespace.
pub(super) const ROLE_BINDINGS: Rules = Rules {
    names: NameRule::PathSegment,
    default: default_binding,
    validate: |binding, errors| validate_binding(binding, true, errors),
    validate_update: role_stays,
    ..Rules::NONE
};

/// Bindings of the cluster.
pub(super) const CLUSTER_ROLE_BINDINGS: Rules =
    Rules { validate: |binding, errors| validate_binding(binding, false, errors), ..ROLE_BINDINGS };

fn default_binding(binding: &mut Value) {
    let role = crate::field::member(binding, "roleRef");
    for name in ["kind", "name"] {
        set_default(role, name, "");
    }
    set_default(role, "apiGroup", GROUP);
    for subject in items_mut(binding, "subjects") {
        if matches!(subject["kind"].as_str(), Some("User" | "Group")) {
            set_default(subject, "apiGroup", GROUP);
        }
    }
}

fn rules(role: &Field<'_>, namespaced: bool, errors: &mut Errors) {
    for rule in role.get("rules").items() {
        if rule.get("verbs").len() == 0 {
            rule.get("verbs").required(errors, "verbs must contain at least one value");
        }
        let urls = rule.get("nonResourceURLs");
        if urls.len() > 0 {
            if namespaced {
                urls.invalid(errors, "namespaced rules cannot apply to non-resource URLs");
            }
            let others = ["apiGroups", "resources", "resourceNames"];
            if others.iter().any(|name| rule.get(name).len() > 0) {
                urls.invalid(errors, "rules cannot apply to both regular resources and non-resource URLs");
            }
            continue;
        }
        if rule.get("apiGroups").len() == 0 {
            rule.get("apiGroups").required(errors, "resource rules must supply at least one api group");
        }
        if rule.get("resources").len() == 0 {
            rule.get("resources").required(errors, "resource rules must supply at least one resource");
        }
    }
}

/// Which roles make up this one.
fn aggregated(selectors: &Field<'_>, errors: &mut Errors) {
    if selectors.len() == 0 {
        selectors.required(errors, "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for selector in selectors.items() {
        if !check::valid_label_selector(&selector, errors) {
            selector.wrong(errors, "null", "invalid label selector.");
        }
    }
}

fn validate_binding(binding: &Field<'_>, namespaced: bool, errors: &mut Errors) {
    let role = binding.get("roleRef");
    let (group, kind, name) = (role.get("apiGroup"), role.get("kind"), role.get("name"));
    if group.text() != GROUP {
        group.not_supported(errors, &[GROUP]);
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&kind.text()) {
        kind.not_supported(errors, kinds);
    }
    check::needed(&name, names::path_segment, errors);
    for subject in binding.get("subjects").items() {
        validate_subject(&subject, namespaced, errors);
    }
}

fn validate_subject(subject: &Field<'_>, namespaced: bool, errors: &mut Errors) {
    let (name, group) = (subject.get("name"), subject.get("apiGroup"));
    check::required(&name, errors);
    match subject.get("kind").text() {
        "ServiceAccount" => {
            check::given(&name, names::subdomain, errors);
            if !group.text().is_empty() {
                group.not_supported(errors, &[""]);
            }
            if !namespaced {
                check::required(&subject.get("namespace"), errors);
            }
        }
        "User" | "Group" => {
            if group.text() != GROUP {
                group.not_supported(errors, &[GROUP]);
            }
        }
        _ => subject.get("kind").not_supported(errors, &["ServiceAccount", "User", "Group"]),
    }
}

fn role_stays(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let role = new.get("roleRef");
    if role.value() != old.get("roleRef").value() {
        role.wrong(errors, go::show("RoleRef", role.value().unwrap_or(&Value::Null)), "cannot change roleRef");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{broken, broken_by_change};

    #[test]
    fn roles_are_made_of_others_by_selectors() {
        let role = |selectors: Value| json!({"aggregationRule": {"clusterRoleSelectors": selectors}});
        let place = "aggregationRule.clusterRoleSelectors";
        assert_eq!(broken(&CLUSTER_ROLES, role(json!([{"matchLabels": {"a": "b"}}]))), [""; 0]);
        assert_eq!(
            broken(&CLUSTER_ROLES, role(json!([]))),
            [format!("{place}: at least one clusterRoleSelector required if aggregationRule is non-nil")]
        );
        let found = broken(&CLUSTER_ROLES, role(json!([{"matchLabels": {"a": "!"}}])));
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[1], format!("{place}[0]: null: invalid label selector."));
    }

    #[test]
    fn bindings_keep_their_role() {
        let binding = |kind: &str, name: &str| {
            let subjects = json!([{"kind": "ServiceAccount", "name": "a"}, {"kind": "Robot", "name": "b"}]);
            json!({"roleRef": {"kind": kind, "name": name}, "subjects": subjects})
        };
        let robot = "subjects[1].kind: \"Robot\": supported values: \"ServiceAccount\", \"User\", \"Group\"";
        assert_eq!(broken(&ROLE_BINDINGS, binding("Role", "r")), [robot]);
        assert_eq!(
            broken(&CLUSTER_ROLE_BINDINGS, binding("Role", "r/s")),
            [
                "roleRef.kind: \"Role\": supported values: \"ClusterRole\"",
                "roleRef.name: \"r/s\": may not contain '/'",
                "subjects[0].namespace: ",
                robot,
            ]
        );
        let shown = "{\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"Role\",\"Name\":\"s\"}";
        assert_eq!(
            broken_by_change(&ROLE_BINDINGS, binding("Role", "r"), binding("Role", "s")),
            [robot.to_owned(), format!("roleRef: {shown}: cannot change roleRef")]
        );
    }
}
