//! FlowSchema and PriorityLevelConfiguration.
//!
//! Upstream: `pkg/apis/flowcontrol/validation`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{check, go, rules::Rules};
use crate::{
    field::{Errors, Field, member, set_default},
    flow, limits, names,
    strategy::Generation,
};

/// The level, and the schema, without limits.
const EXEMPT: &str = "exempt";
/// Verbs of requests, beside `*`.
const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
/// Upstream takes more; here each of them takes memory.
const QUEUES_MAX: i64 = limits::LEVEL_QUEUES as i64;
const QUEUE_LENGTH_MAX: i64 = limits::QUEUE_REQUESTS as i64;
/// Bits of a flow's hash that can deal a hand.
const HASH_BITS: i64 = 60;

/// Flow schemas.
pub(super) const FLOW_SCHEMAS: Rules = Rules {
    generation: Generation::Intent,
    status: true,
    default: |schema| {
        let spec = member(schema, "spec");
        set_default(spec, "matchingPrecedence", 1000);
        set_default(member(spec, "priorityLevelConfiguration"), "name", "");
    },
    create: |schema| *member(schema, "status") = json!({}),
    validate: validate_schema,
    validate_status,
    ..Rules::NONE
};

/// Priority levels.
pub(super) const PRIORITY_LEVELS: Rules = Rules {
    generation: Generation::Intent,
    status: true,
    default: default_level,
    create: |level| *member(level, "status") = json!({}),
    validate: validate_level,
    validate_status,
    ..Rules::NONE
};

/// Each condition has a type, and each type is there once.
fn validate_status(new: &Field<'_>, _: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for condition in new.at("status.conditions").items() {
        let of = condition.get("type");
        if !seen.insert(of.text()) {
            of.duplicate(errors);
        }
        if of.text().is_empty() {
            of.required(errors, "must not be empty");
        }
    }
}

fn default_level(level: &mut Value) {
    let spec = member(level, "spec");
    set_default(spec, "type", "");
    if let Some(exempt) = spec.get_mut("exempt") {
        set_default(exempt, "nominalConcurrencyShares", 0);
        set_default(exempt, "lendablePercent", 0);
    }
    if let Some(limited) = spec.get_mut("limited") {
        set_default(limited, "nominalConcurrencyShares", 30);
        set_default(limited, "lendablePercent", 0);
        let response = member(limited, "limitResponse");
        set_default(response, "type", "");
        if let Some(queuing) = response.get_mut("queuing") {
            for (name, usual) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
                // None is as good as not said.
                if queuing[name].as_i64().unwrap_or(0) == 0 {
                    *member(queuing, name) = usual.into();
                }
            }
        }
    }
}

fn validate_level(level: &Field<'_>, errors: &mut Errors) {
    let (name, spec) = (level.at("metadata.name").text(), level.get("spec"));
    let (of, exempt, limited) = (spec.get("type"), spec.get("exempt"), spec.get("limited"));
    if (name == EXEMPT) != (of.text() == "Exempt") {
        of.invalid(errors, "type must be 'Exempt' if and only if `name` is 'exempt'");
    }
    match of.text() {
        "Exempt" => {
            if limited.exists() {
                limited.forbidden(errors, "must be nil if the type is not Limited");
            }
            shares(&exempt, errors);
        }
        "Limited" if !limited.exists() => limited.required(errors, "must not be empty when type is Limited"),
        "Limited" => {
            if exempt.exists() {
                exempt.forbidden(errors, "must be nil if the type is Limited");
            }
            validate_limited(&limited, errors);
        }
        _ => of.not_supported(errors, &["Exempt", "Limited"]),
    }
    let except = if name == EXEMPT { Some("exempt") } else { None };
    fixed("PriorityLevelConfiguration", level, except, errors);
}

fn validate_limited(limited: &Field<'_>, errors: &mut Errors) {
    let nominal = limited.get("nominalConcurrencyShares");
    if nominal.int().is_some_and(|shares| shares < 0) {
        nominal.invalid(errors, "must be a non-negative integer");
    }
    let response = limited.get("limitResponse");
    let (of, queuing) = (response.get("type"), response.get("queuing"));
    match of.text() {
        "Reject" if queuing.exists() => {
            queuing.forbidden(errors, "must be nil if limited.limitResponse.type is not Limited");
        }
        "Reject" => {}
        "Queue" if !queuing.exists() => {
            queuing.required(errors, "must not be empty if limited.limitResponse.type is Limited");
        }
        "Queue" => validate_queuing(&queuing, errors),
        _ => of.not_supported(errors, &["Queue", "Reject"]),
    }
    check::in_range(&limited.get("lendablePercent"), 0, 100, errors);
    let borrowing = limited.get("borrowingLimitPercent");
    if borrowing.int().is_some_and(|percent| percent < 0) {
        borrowing.invalid(errors, "if specified, must be a non-negative integer");
    }
}

fn shares(exempt: &Field<'_>, errors: &mut Errors) {
    let nominal = exempt.get("nominalConcurrencyShares");
    if nominal.int().is_some_and(|shares| shares < 0) {
        nominal.invalid(errors, "must be a non-negative integer");
    }
    check::in_range(&exempt.get("lendablePercent"), 0, 100, errors);
}

fn validate_queuing(queuing: &Field<'_>, errors: &mut Errors) {
    let (length, queues, hand) = (queuing.get("queueLengthLimit"), queuing.get("queues"), queuing.get("handSize"));
    let number = |field: &Field<'_>| field.int().unwrap_or(0);
    for field in [&length, &queues] {
        if number(field) <= 0 {
            field.invalid(errors, "must be positive");
        }
    }
    for (field, most) in [(&length, QUEUE_LENGTH_MAX), (&queues, QUEUES_MAX)] {
        if number(field) > most {
            field.invalid(errors, &format!("must not be greater than {most}"));
        }
    }
    let bits = entropy_bits(number(&queues), number(&hand));
    if number(&hand) <= 0 {
        hand.invalid(errors, "must be positive");
    } else if number(&hand) > number(&queues) {
        hand.invalid(errors, &format!("should not be greater than queues ({})", number(&queues)));
    } else if bits > HASH_BITS {
        let (queues, size) = (number(&queues), number(&hand));
        hand.invalid(
            errors,
            &format!(
                "required entropy bits of deckSize {queues} and handSize {size} should not be greater than {HASH_BITS}"
            ),
        );
    }
}

/// Bits of a hash that it takes to deal a hand of so many queues.
fn entropy_bits(queues: i64, hand: i64) -> i64 {
    ((queues.max(1) as f64).log2() * hand as f64).ceil() as i64
}

/// Refuses changes of the objects without which nothing is decided.
fn fixed(kind: &str, object: &Field<'_>, except: Option<&str>, errors: &mut Errors) {
    let name = object.at("metadata.name").text();
    let Some(wanted) = flow::mandatory_object(kind, name) else { return };
    let without = |spec: &Value| {
        let mut spec = spec.clone();
        if let (Some(name), Some(members)) = (except, spec.as_object_mut()) {
            members.remove(name);
        }
        spec
    };
    let spec = object.get("spec");
    if spec.value().map(without) != Some(without(&wanted["spec"])) {
        let but = except.map(|except| format!(" except the 'spec.{except}' field")).unwrap_or_default();
        spec.invalid(errors, &format!("spec of '{name}'{but} must equal the fixed value"));
    }
}

fn validate_schema(schema: &Field<'_>, errors: &mut Errors) {
    let (name, spec) = (schema.at("metadata.name").text(), schema.get("spec"));
    let precedence = spec.get("matchingPrecedence");
    let number = precedence.int().unwrap_or(0);
    if number <= 0 {
        precedence.invalid(errors, "must be a positive value");
    }
    if number > 10_000 {
        precedence.invalid(errors, "must not be greater than 10000");
    }
    if number == 1 && name != EXEMPT {
        precedence.invalid(errors, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
    let method = spec.get("distinguisherMethod");
    if method.exists() && !matches!(method.get("type").text(), "ByNamespace" | "ByUser") {
        let shown = go::show("Distinguisher", method.value().unwrap_or(&Value::Null));
        method.get("type").not_supported_as(errors, &shown, &["ByNamespace", "ByUser"]);
    }
    let level = spec.at("priorityLevelConfiguration.name");
    if level.text().is_empty() {
        level.required(errors, "must reference a priority level");
    } else {
        check::problems(&level, &names::subdomain(level.text()), errors);
    }
    for rule in spec.get("rules").items() {
        validate_rule(&rule, errors);
    }
    fixed("FlowSchema", schema, None, errors);
}

fn validate_rule(rule: &Field<'_>, errors: &mut Errors) {
    let (subjects, resources, paths) = (rule.get("subjects"), rule.get("resourceRules"), rule.get("nonResourceRules"));
    if subjects.len() == 0 {
        subjects.required(errors, "subjects must contain at least one value");
    }
    for subject in subjects.items() {
        validate_subject(&subject, errors);
    }
    if resources.len() == 0 && paths.len() == 0 {
        rule.required(errors, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for resource in resources.items() {
        validate_resource_rule(&resource, errors);
    }
    for path in paths.items() {
        verbs(&path.get("verbs"), errors);
        let urls = path.get("nonResourceURLs");
        list(&urls, "nonResourceURLs must contain at least one value", "non-resource URLs", errors);
        if !has_wildcard(&urls) {
            urls.items().iter().for_each(|url| validate_path(url, errors));
        }
    }
}

fn validate_subject(subject: &Field<'_>, errors: &mut Errors) {
    let of = subject.get("kind");
    let kinds = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let Some((kind, own)) = kinds.iter().find(|(kind, _)| *kind == of.text()) else {
        return of.not_supported(errors, &["Group", "ServiceAccount", "User"]);
    };
    let part = subject.get(own);
    if !part.exists() {
        part.required(errors, &format!("{own} is required when subject kind is '{kind}'"));
    } else if *kind == "ServiceAccount" {
        account(&part, errors);
    } else {
        check::required(&part.get("name"), errors);
    }
    for (other, name) in kinds.iter().filter(|(_, name)| name != own && subject.get(name).exists()) {
        subject.get(name).forbidden(errors, &format!("{name} is forbidden when subject kind is not '{other}'"));
    }
}

/// A service account, or all of a namespace.
fn account(account: &Field<'_>, errors: &mut Errors) {
    let (name, namespace) = (account.get("name"), account.get("namespace"));
    if name.text() != "*" {
        check::needed(&name, names::subdomain, errors);
    }
    if namespace.text().is_empty() {
        namespace.required(errors, "must specify namespace for service account");
    } else {
        check::problems(&namespace, &names::label(namespace.text()), errors);
    }
}

fn validate_resource_rule(rule: &Field<'_>, errors: &mut Errors) {
    verbs(&rule.get("verbs"), errors);
    list(&rule.get("apiGroups"), "resource rules must supply at least one api group", "api groups", errors);
    list(&rule.get("resources"), "resource rules must supply at least one resource", "resources", errors);
    let namespaces = rule.get("namespaces");
    if namespaces.len() > 0 {
        list(&namespaces, "", "namespaces", errors);
    } else if rule.get("clusterScope").bool() != Some(true) {
        let detail = "resource rules that are not cluster scoped must supply at least one namespace";
        namespaces.required(errors, detail);
    }
    if !has_wildcard(&namespaces) {
        for namespace in namespaces.items() {
            for problem in names::label(namespace.text()) {
                let detail = format!("each member of this list must be '*' or a DNS-1123 label; {problem}");
                namespace.invalid(errors, &detail);
            }
        }
    }
}

fn verbs(verbs: &Field<'_>, errors: &mut Errors) {
    list(verbs, "verbs must contain at least one value", "verbs", errors);
    let known = |verb: &Field<'_>| VERBS.contains(&verb.text());
    if !has_wildcard(verbs) && !verbs.items().iter().all(known) {
        verbs.not_supported(errors, &VERBS);
    }
}

/// A list that has something in it, and where `*` stands alone.
fn list(list: &Field<'_>, empty: &str, others: &str, errors: &mut Errors) {
    if list.len() == 0 {
        list.required(errors, empty);
    } else if has_wildcard(list) && list.len() > 1 {
        list.invalid(errors, &format!("if '*' is present, must not specify other {others}"));
    }
}

fn has_wildcard(list: &Field<'_>) -> bool {
    list.items().iter().any(|item| item.text() == "*")
}

fn validate_path(path: &Field<'_>, errors: &mut Errors) {
    let text = path.text();
    let (segments, wildcard) = match text.strip_suffix('*') {
        Some(before) => (before, true),
        None => (text, false),
    };
    if text.is_empty() {
        path.invalid(errors, "must not be empty");
    } else if text == "/" {
    } else if !text.starts_with('/') {
        path.invalid(errors, "must start with slash");
    } else if text.contains(' ') {
        path.invalid(errors, "must not contain white-space");
    } else if text.contains("//") {
        path.invalid(errors, "must not contain double slash");
    } else if segments.contains('*') || wildcard && !segments.ends_with('/') {
        path.invalid(errors, "wildcard can only do suffix matching");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(rules: &Rules, mut object: Value) -> Vec<String> {
        (rules.default)(&mut object);
        let mut errors = Errors::default();
        (rules.validate)(&Field::root(&object), &mut errors);
        errors.into_vec().into_iter().map(|error| format!("{}: {}", error.field, error.detail)).collect()
    }

    fn queuing(queues: i64, hand: i64, length: i64) -> Vec<String> {
        let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": length});
        let limited = json!({"limitResponse": {"type": "Queue", "queuing": queuing}});
        broken(&PRIORITY_LEVELS, json!({"metadata": {"name": "l"}, "spec": {"type": "Limited", "limited": limited}}))
    }

    #[test]
    fn queues_that_cannot_be_dealt_are_refused() {
        let place = "spec.limited.limitResponse.queuing";
        assert_eq!(queuing(64, 8, 50), [""; 0]);
        assert_eq!(
            queuing(512, 8, 50),
            [format!(
                "{place}.handSize: 8: required entropy bits of deckSize 512 and handSize 8 should not be greater than 60"
            )]
        );
        assert_eq!(queuing(4, 8, 50), [format!("{place}.handSize: 8: should not be greater than queues (4)")]);
        assert_eq!(
            queuing(-1, 1, -1),
            [
                format!("{place}.queueLengthLimit: -1: must be positive"),
                format!("{place}.queues: -1: must be positive"),
                format!("{place}.handSize: 1: should not be greater than queues (-1)"),
            ]
        );
        let many = format!("{place}.queues: {}: must not be greater than {QUEUES_MAX}", QUEUES_MAX + 1);
        assert_eq!(queuing(QUEUES_MAX + 1, 1, 1), [many]);
        assert_eq!(queuing(64, 8, QUEUE_LENGTH_MAX + 1).len(), 1);
    }

    #[test]
    fn shares_lent_and_borrowed_have_bounds() {
        let limited = json!({
            "limitResponse": {"type": "Reject"}, "lendablePercent": 101, "borrowingLimitPercent": -1,
            "nominalConcurrencyShares": -1,
        });
        let level = json!({"metadata": {"name": "l"}, "spec": {"type": "Limited", "limited": limited}});
        assert_eq!(
            broken(&PRIORITY_LEVELS, level),
            [
                "spec.limited.nominalConcurrencyShares: -1: must be a non-negative integer",
                "spec.limited.lendablePercent: 101: must be between 0 and 100, inclusive",
                "spec.limited.borrowingLimitPercent: -1: if specified, must be a non-negative integer",
            ]
        );
    }

    #[test]
    fn subjects_are_of_one_kind() {
        let subject = |subject: Value| {
            let mut errors = Errors::default();
            validate_subject(&Field::root(&subject), &mut errors);
            crate::kinds::testing::told(errors)
        };
        assert_eq!(
            subject(json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "n"}})),
            [""; 0]
        );
        assert_eq!(
            subject(
                json!({"kind": "ServiceAccount", "serviceAccount": {}, "group": {"name": "g"}, "user": {"name": "u"}})
            ),
            [
                "serviceAccount.name: ",
                "serviceAccount.namespace: must specify namespace for service account",
                "user: user is forbidden when subject kind is not 'User'",
                "group: group is forbidden when subject kind is not 'Group'",
            ]
        );
        assert_eq!(subject(json!({"kind": "User"})), ["user: user is required when subject kind is 'User'"]);
    }

    #[test]
    fn the_mandatory_objects_stay_as_they_are() {
        for (kind, rules) in [("FlowSchema", FLOW_SCHEMAS), ("PriorityLevelConfiguration", PRIORITY_LEVELS)] {
            for name in [EXEMPT, "catch-all"] {
                let mut object = flow::mandatory_object(kind, name).unwrap();
                assert_eq!(broken(&rules, object.clone()), [""; 0], "{kind} {name}");
                object["spec"]["rules"] = json!([]);
                assert!(!broken(&rules, object).is_empty(), "{kind} {name}");
            }
        }
        // All but the shares of the level without limits.
        let mut level = flow::mandatory_object("PriorityLevelConfiguration", EXEMPT).unwrap();
        level["spec"]["exempt"] = json!({"nominalConcurrencyShares": 10, "lendablePercent": 50});
        assert_eq!(broken(&PRIORITY_LEVELS, level), [""; 0]);
    }

    #[test]
    fn rules_of_schemas_are_checked() {
        let schema = json!({"metadata": {"name": "s"}, "spec": {
            "matchingPrecedence": 1, "priorityLevelConfiguration": {"name": "l"}, "rules": [
                {},
                {
                    "subjects": [{"kind": "User", "user": {"name": "u"}, "group": {"name": "g"}}, {"kind": "Robot"}],
                    "resourceRules": [{"verbs": ["*", "get"], "apiGroups": [""], "resources": []}],
                    "nonResourceRules": [{"verbs": ["look"], "nonResourceURLs": ["/a/*", "/a*b", "x"]}],
                },
            ],
        }});
        let verbs = VERBS.map(|verb| format!("{verb:?}")).join(", ");
        assert_eq!(
            broken(&FLOW_SCHEMAS, schema),
            [
                "spec.matchingPrecedence: 1: only the schema named 'exempt' may have matchingPrecedence 1".to_owned(),
                "spec.rules[0].subjects: subjects must contain at least one value".to_owned(),
                "spec.rules[0]: at least one of resourceRules and nonResourceRules has to be non-empty".to_owned(),
                "spec.rules[1].subjects[0].group: group is forbidden when subject kind is not 'Group'".to_owned(),
                "spec.rules[1].subjects[1].kind: \"Robot\": supported values: \"Group\", \"ServiceAccount\", \"User\""
                    .to_owned(),
                "spec.rules[1].resourceRules[0].verbs: [\"*\",\"get\"]: if '*' is present, must not specify other verbs"
                    .to_owned(),
                "spec.rules[1].resourceRules[0].resources: resource rules must supply at least one resource".to_owned(),
                "spec.rules[1].resourceRules[0].namespaces: resource rules that are not cluster scoped must supply at \
                 least one namespace"
                    .to_owned(),
                format!("spec.rules[1].nonResourceRules[0].verbs: [\"look\"]: supported values: {verbs}"),
                "spec.rules[1].nonResourceRules[0].nonResourceURLs[1]: \"/a*b\": wildcard can only do suffix matching"
                    .to_owned(),
                "spec.rules[1].nonResourceRules[0].nonResourceURLs[2]: \"x\": must start with slash".to_owned(),
            ]
        );
    }
}
