//! Annotations of pods that have a meaning for the server.
//!
//! Upstream: `ValidatePodSpecificAnnotations` and its like in `pkg/apis/core/validation/validation.go`.

use std::collections::BTreeSet;

use super::{all_containers, scheduling};
use crate::{
    field::{Errors, Field},
    kinds::check,
};

/// On a pod that stands for one which a node runs by itself.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";
const TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/tolerations";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const POD_SECCOMP: &str = "seccomp.security.alpha.kubernetes.io/pod";
const CONTAINER_SECCOMP: &str = "container.seccomp.security.alpha.kubernetes.io/";
const CONTAINER_APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// The rules of the annotations of a pod or a template.
pub(super) fn validate(annotations: &Field<'_>, spec: &Field<'_>, errors: &mut Errors) {
    let mirror = annotations.key(MIRROR);
    if mirror.exists() && spec.get("nodeName").text().is_empty() {
        mirror.invalid(errors, "must set spec.nodeName if mirror pod annotation is set");
    }
    let tolerations = annotations.key(TOLERATIONS);
    if let Ok(list) = serde_json::from_str(tolerations.text()) {
        let place = format!("{}.{TOLERATIONS}", annotations.path());
        scheduling::tolerations(&Field::root(&list).shown_at(place), errors);
    }
    let cost = annotations.key(DELETION_COST);
    if cost.exists() && !is_cost(cost.text()) {
        cost.invalid(errors, "must be a 32bit integer");
    }
    for (key, value) in annotations.entries() {
        if key == POD_SECCOMP || key.starts_with(CONTAINER_SECCOMP) {
            seccomp(&value.shown_at(format!("{}.{key}", annotations.path())), errors);
        }
    }
    app_armor(annotations, spec, errors);
}

/// A number as Go writes it: no plus, no zeros in front.
fn is_cost(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let begins_well =
        text == "0" || text.starts_with('-') || digits.starts_with(|first: char| matches!(first, '1'..='9'));
    begins_well && text.parse::<i32>().is_ok()
}

fn seccomp(profile: &Field<'_>, errors: &mut Errors) {
    match profile.text().strip_prefix("localhost/") {
        Some(path) => {
            let path = serde_json::Value::from(path);
            check::descending_path(&Field::root(&path).shown_at(profile.path()), errors);
        }
        None if matches!(profile.text(), "runtime/default" | "docker/default" | "unconfined") => {}
        None => profile.invalid(errors, "must be a valid seccomp profile"),
    }
}

fn app_armor(annotations: &Field<'_>, spec: &Field<'_>, errors: &mut Errors) {
    let entries = annotations.entries();
    let mut profiles =
        entries.iter().filter_map(|(key, profile)| Some((key.strip_prefix(CONTAINER_APP_ARMOR)?, profile))).peekable();
    if profiles.peek().is_none() {
        return;
    }
    let containers = all_containers(spec);
    let known: BTreeSet<&str> = containers.iter().map(|container| container.get("name").text()).collect();
    for (container, profile) in profiles {
        if !known.contains(container) {
            profile.wrong(errors, format!("{container:?}"), "container not found");
        }
        let text = profile.text();
        if !matches!(text, "" | "runtime/default" | "unconfined") && !text.starts_with("localhost/") {
            profile.invalid(errors, &format!("invalid AppArmor profile name: {text:?}"));
        }
    }
}

/// Where a new pod says its profiles in both ways, it says the same.
pub(super) fn same_profiles(annotations: &Field<'_>, spec: &Field<'_>, errors: &mut Errors) {
    if annotations.len() == 0 {
        return;
    }
    let whole = spec.get("securityContext");
    same(&annotations.key(POD_SECCOMP), &whole.get("seccompProfile"), "seccomp", errors);
    let containers = all_containers(spec);
    for container in &containers {
        let key = format!("{CONTAINER_SECCOMP}{}", container.get("name").text());
        same(&annotations.key(&key), &container.at("securityContext.seccompProfile"), "seccomp", errors);
    }
    if spec.at("os.name").text() == "windows" {
        return;
    }
    for container in &containers {
        let key = format!("{CONTAINER_APP_ARMOR}{}", container.get("name").text());
        let own = container.at("securityContext.appArmorProfile");
        // The pod's profile counts for containers without one; errors name the container all the same.
        let profile = if own.exists() { own.clone() } else { whole.get("appArmorProfile").shown_at(own.path()) };
        same(&annotations.key(&key), &profile, "apparmor", errors);
    }
}

fn same(annotation: &Field<'_>, profile: &Field<'_>, words: &str, errors: &mut Errors) {
    if !annotation.exists() || !profile.exists() {
        return;
    }
    let text = annotation.text();
    let path = profile.get("localhostProfile");
    let is_same = match profile.get("type").text() {
        "Unconfined" => text == "unconfined",
        "RuntimeDefault" => text == "runtime/default" || words == "seccomp" && text == "docker/default",
        "Localhost" => match text.strip_prefix("localhost/") {
            Some(local) if path.exists() && path.text() == local => true,
            Some(_) => return path.forbidden(errors, &format!("{words} profile in annotation and field must match")),
            None => false,
        },
        _ => true,
    };
    if !is_same {
        profile.get("type").forbidden(errors, &format!("{words} type in annotation and field must match"));
    }
}

/// What an update cannot do to the annotations of a pod.
pub(crate) fn validate_update(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let (now, before) = (new.at("metadata.annotations"), old.at("metadata.annotations"));
    let is_fixed = |key: &str| key == MIRROR || key.starts_with(CONTAINER_APP_ARMOR);
    let words = |key: &str| if key == MIRROR { "mirror pod annotation" } else { "AppArmor annotations" };
    for (key, value) in before.entries().into_iter().filter(|(key, _)| is_fixed(key)) {
        if now.key(key).value() != value.value() {
            now.key(key).forbidden(errors, &format!("may not remove or update {}", words(key)));
        }
    }
    for (key, value) in now.entries().into_iter().filter(|(key, _)| is_fixed(key)) {
        if !before.key(key).exists() {
            value.forbidden(errors, &format!("may not add {}", words(key)));
        }
    }
    validate(&now, &new.get("spec"), errors);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(errors: Errors) -> Vec<String> {
        errors.into_vec().into_iter().map(|error| format!("{}: {}", error.field, error.detail)).collect()
    }

    fn broken(annotations: Value) -> Vec<String> {
        let mut errors = Errors::default();
        validate(&Field::root(&annotations), &Field::root(&json!({"containers": [{"name": "c"}]})), &mut errors);
        told(errors)
    }

    #[test]
    fn costs_are_numbers() {
        for cost in ["0", "-1", "2147483647"] {
            assert_eq!(broken(json!({DELETION_COST: cost})), [""; 0], "{cost}");
        }
        for cost in ["", "+1", "01", "x", "2147483648"] {
            let detail = format!("[{DELETION_COST}]: {cost:?}: must be a 32bit integer");
            assert_eq!(broken(json!({DELETION_COST: cost})), [detail]);
        }
    }

    #[test]
    fn profiles_are_known_and_their_containers_there() {
        assert_eq!(
            broken(json!({format!("{CONTAINER_APP_ARMOR}c"): "localhost/x", POD_SECCOMP: "unconfined"})),
            [""; 0]
        );
        let wrong = broken(json!({format!("{CONTAINER_APP_ARMOR}d"): "x", POD_SECCOMP: "y", MIRROR: "z"}));
        assert_eq!(wrong.len(), 4, "{wrong:?}");
    }

    #[test]
    fn both_ways_of_naming_a_profile_say_the_same() {
        let spec = json!({
            "securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "a"}},
            "containers": [{"name": "c", "securityContext": {"appArmorProfile": {"type": "Unconfined"}}}],
        });
        let of = |seccomp: &str, app_armor: &str| {
            let annotations = json!({POD_SECCOMP: seccomp, format!("{CONTAINER_APP_ARMOR}c"): app_armor});
            let mut errors = Errors::default();
            same_profiles(&Field::root(&annotations), &Field::root(&spec), &mut errors);
            told(errors)
        };
        assert_eq!(of("localhost/a", "unconfined"), [""; 0]);
        assert_eq!(
            of("localhost/b", "runtime/default"),
            [
                "securityContext.seccompProfile.localhostProfile: seccomp profile in annotation and field must match",
                "containers[0].securityContext.appArmorProfile.type: apparmor type in annotation and field must match",
            ]
        );
    }

    #[test]
    fn marks_of_mirrors_stay() {
        let pod = |annotations: Value| json!({"metadata": {"annotations": annotations}, "spec": {"nodeName": "n"}});
        let changed = |old: Value, new: Value| {
            let mut errors = Errors::default();
            validate_update(&Field::root(&pod(new)), &Field::root(&pod(old)), &mut errors);
            told(errors)
        };
        let marked = json!({MIRROR: "x"});
        assert_eq!(changed(marked.clone(), marked.clone()), [""; 0]);
        let place = format!("metadata.annotations[{MIRROR}]");
        assert_eq!(
            changed(marked.clone(), json!({})),
            [format!("{place}: may not remove or update mirror pod annotation")]
        );
        assert_eq!(changed(json!({}), marked), [format!("{place}: may not add mirror pod annotation")]);
    }
}
