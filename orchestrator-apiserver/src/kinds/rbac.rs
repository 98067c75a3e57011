//! Roles and their bindings.

use serde_json::Value;

use super::{check, rules::Rules};
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
        for selector in role.at("aggregationRule.clusterRoleSelectors").items() {
            check::label_selector(&selector, errors);
        }
    },
    ..ROLES
};

/// Bindings of a namespace.
pub(super) const ROLE_BINDINGS: Rules = Rules {
    names: NameRule::PathSegment,
    default: default_binding,
    validate: |binding, errors| validate_binding(binding, &["Role", "ClusterRole"], errors),
    validate_update: role_stays,
    ..Rules::NONE
};

/// Bindings of the cluster.
pub(super) const CLUSTER_ROLE_BINDINGS: Rules = Rules {
    validate: |binding, errors| {
        validate_binding(binding, &["ClusterRole"], errors);
        for subject in binding.get("subjects").items() {
            if subject.get("kind").text() == "ServiceAccount" {
                check::required(&subject.get("namespace"), errors);
            }
        }
    },
    ..ROLE_BINDINGS
};

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

fn validate_binding(binding: &Field<'_>, kinds: &[&str], errors: &mut Errors) {
    let role = binding.get("roleRef");
    let (group, kind, name) = (role.get("apiGroup"), role.get("kind"), role.get("name"));
    if group.text() != GROUP {
        group.not_supported(errors, &[GROUP]);
    }
    if !kinds.contains(&kind.text()) {
        kind.not_supported(errors, kinds);
    }
    if name.text().is_empty() {
        name.required(errors, "");
    } else {
        check::problems(&name, &names::path_segment(name.text()), errors);
    }
    for subject in binding.get("subjects").items() {
        validate_subject(&subject, errors);
    }
}

fn validate_subject(subject: &Field<'_>, errors: &mut Errors) {
    let (name, group) = (subject.get("name"), subject.get("apiGroup"));
    check::required(&name, errors);
    match subject.get("kind").text() {
        "ServiceAccount" => {
            check::given(&name, names::subdomain, errors);
            if !group.text().is_empty() {
                group.not_supported(errors, &[""]);
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
    if new.get("roleRef").value() != old.get("roleRef").value() {
        new.get("roleRef").invalid(errors, "cannot change roleRef");
    }
}
