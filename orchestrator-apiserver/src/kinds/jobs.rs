//! Jobs: work that ends.
//!
//! Upstream: `pkg/apis/batch/v1/defaults.go`, `pkg/registry/batch/job/strategy.go`, `pkg/apis/batch/validation`.

use orchestrator_core::status::FieldErrorKind;
use serde_json::{Value, json};

use super::{check, go, job_policies, job_status, podspec, rules::Rules, warnings};
use crate::{
    field::{Errors, Field, items_mut, member, remove, set_default},
    names,
    strategy::Generation,
};

/// The label that ties pods to their job.
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// The names of both labels before they had a domain; still written.
const OLD_LABELS: [(&str, &str); 2] = [(CONTROLLER_UID, "controller-uid"), (JOB_NAME, "job-name")];
const INDEXES_MAX: i64 = 100_000;
/// With more completions than this, a job with a limit for each index keeps to narrower bounds.
const COMPLETIONS_MANY: i64 = 100_000;
const PARALLELISM_OF_MANY: i64 = 10_000;
const FAILED_OF_MANY: i64 = 10_000;
const MANAGER_BYTES: usize = 63;

/// Jobs.
pub(super) const JOBS: Rules = Rules {
    generation: Generation::Intent,
    status: true,
    default: default_job,
    create: |job| {
        *member(job, "status") = json!({});
        tie_to_pods(job);
    },
    validate: |job, errors| {
        tied_to_pods(job, errors);
        validate_job(job, errors);
        pods_can_be_named(job, errors);
    },
    validate_update: update_job,
    validate_status: job_status::validate,
    warn: warnings::of_job,
    ..Rules::NONE
};

fn default_job(job: &mut Value) {
    let spec = member(job, "spec");
    if spec.get("completions").is_none() && spec.get("parallelism").is_none() {
        set_default(spec, "completions", 1);
    }
    set_default(spec, "parallelism", 1);
    let per_index = spec.get("backoffLimitPerIndex").is_some();
    set_default(spec, "backoffLimit", if per_index { i64::from(i32::MAX) } else { 6 });
    set_default(spec, "completionMode", "NonIndexed");
    set_default(spec, "suspend", false);
    set_default(spec, "manualSelector", false);
    let on_failure = spec.get("podFailurePolicy").is_some();
    set_default(spec, "podReplacementPolicy", if on_failure { "Failed" } else { "TerminatingOrFailed" });
    for rule in spec.get_mut("podFailurePolicy").into_iter().flat_map(|policy| items_mut(policy, "rules")) {
        items_mut(rule, "onPodConditions").for_each(|condition| set_default(condition, "status", "True"));
    }
    podspec::default_template(member(spec, "template"));
    let labels = spec["template"]["metadata"]["labels"].clone();
    // A job that is new gets its labels when it is tied to its pods.
    let is_tied = spec["manualSelector"] == true || labels.get(CONTROLLER_UID).is_some();
    if is_tied && labels.as_object().is_some_and(|labels| !labels.is_empty()) {
        set_default(member(job, "metadata"), "labels", labels);
    }
}

/// A job selects its pods by its own UID, unless the caller takes care of that.
fn tie_to_pods(job: &mut Value) {
    if job["spec"]["manualSelector"] == true {
        return;
    }
    let (uid, name) = (job["metadata"]["uid"].clone(), job["metadata"]["name"].clone());
    let label = |labels: &mut Value| {
        for (new, old) in OLD_LABELS {
            let value = if new == CONTROLLER_UID { &uid } else { &name };
            set_default(labels, old, value.clone());
            set_default(labels, new, value.clone());
        }
    };
    let spec = member(job, "spec");
    let labels = member(member(member(spec, "template"), "metadata"), "labels");
    label(labels);
    let labels = labels.clone();
    // What a caller has chosen is not changed but refused.
    set_default(member(member(spec, "selector"), "matchLabels"), CONTROLLER_UID, uid.clone());
    // Upstream writes the labels of the template to a job that has none.
    set_default(member(job, "metadata"), "labels", labels);
}

/// Refuses labels and selectors that are not those which tie a job to its pods.
fn tied_to_pods(job: &Field<'_>, errors: &mut Errors) {
    let (spec, selector) = (job.get("spec"), job.at("spec.selector"));
    if spec.get("manualSelector").bool() == Some(true) || !selector.exists() {
        return;
    }
    let (uid, name) = (job.at("metadata.uid").text(), job.at("metadata.name").text());
    let labels = spec.at("template.metadata.labels");
    let shown = labels.value().map_or_else(|| "null".to_owned(), Value::to_string);
    let mut expected = serde_json::Map::new();
    let [(new_uid, old_uid), (new_name, old_name)] = OLD_LABELS;
    for (key, value) in [(old_uid, uid), (old_name, name), (new_uid, uid), (new_name, name)] {
        let label = labels.key(key);
        let detail = format!("must be '{value}'");
        if !label.exists() {
            label.required(errors, &detail);
        } else if label.text() != value {
            label.wrong(errors, &shown, &detail);
        }
        expected.insert(key.to_owned(), value.into());
    }
    let mut invalid = Errors::default();
    if check::valid_label_selector(&selector, &mut invalid)
        && !check::selects(&selector, &Field::root(&Value::Object(expected)))
    {
        let shown = go::show("Selector", selector.value().unwrap_or(&Value::Null));
        selector.wrong(errors, shown, "`selector` not auto-generated");
    }
}

/// The pods of an indexed job are named after it, with their index.
fn pods_can_be_named(job: &Field<'_>, errors: &mut Errors) {
    let spec = job.get("spec");
    let Some(last) = spec.get("completions").int().filter(|number| *number > 0) else { return };
    if spec.get("completionMode").text() != "Indexed" {
        return;
    }
    let name = job.at("metadata.name");
    let pod = format!("{}-{}", name.text(), last - 1);
    if !names::label(&pod).is_empty() {
        name.invalid(errors, &format!("will not able to create pod with invalid DNS label: {pod}"));
    }
}

fn validate_job(job: &Field<'_>, errors: &mut Errors) {
    let spec = job.get("spec");
    job_spec(&spec, errors);
    let selector = spec.get("selector");
    let valid = if selector.exists() {
        check::valid_label_selector(&selector, errors)
    } else {
        selector.required(errors, "");
        true
    };
    if valid {
        check::selects_template(&spec, errors);
    }
}

/// The rules of a job's spec, but for its selector.
pub(super) fn job_spec(spec: &Field<'_>, errors: &mut Errors) {
    for name in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.get(name).not_negative(errors);
    }
    if spec.get("maxFailedIndexes").exists() && !spec.get("backoffLimitPerIndex").exists() {
        spec.get("backoffLimitPerIndex").required(errors, "when maxFailedIndexes is specified");
    }
    manager(&spec.get("managedBy"), errors);
    completion_mode(spec, errors);
    if spec.get("podFailurePolicy").exists() {
        job_policies::failure(spec, errors);
    }
    if spec.get("successPolicy").exists() {
        job_policies::success(spec, errors);
    }
    let failed_only = spec.get("podFailurePolicy").exists();
    let replacements: &[&str] = if failed_only { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    spec.get("podReplacementPolicy").one_of(errors, replacements);
    podspec::validate_template(&spec.get("template"), errors);
    let policy = spec.at("template.spec.restartPolicy");
    if !matches!(policy.text(), "OnFailure" | "Never") {
        if policy.text() == "Always" || policy.text().is_empty() {
            policy.required(errors, "valid values: \"OnFailure\", \"Never\"");
        } else {
            policy.not_supported(errors, &["OnFailure", "Never"]);
        }
    } else if failed_only && policy.text() != "Never" {
        policy.invalid(errors, "only \"Never\" is supported when podFailurePolicy is specified");
    }
}

/// Who runs the job when it is not the job controller: a path under a domain.
fn manager(manager: &Field<'_>, errors: &mut Errors) {
    if !manager.exists() {
        return;
    }
    let text = manager.text();
    if text.is_empty() {
        return manager.required(errors, "");
    }
    check::domain_prefixed_path(manager, errors);
    if text.len() > MANAGER_BYTES {
        let detail = format!("may not be more than {MANAGER_BYTES} bytes");
        manager.error(errors, FieldErrorKind::TooLong, detail);
    }
}

fn completion_mode(spec: &Field<'_>, errors: &mut Errors) {
    let (completions, parallelism) = (spec.get("completions"), spec.get("parallelism"));
    let (per_index, failed) = (spec.get("backoffLimitPerIndex"), spec.get("maxFailedIndexes"));
    let above = |field: &Field<'_>, most: i64| field.int().is_some_and(|number| number > most);
    match spec.get("completionMode").text() {
        "Indexed" => {
            if !completions.exists() {
                completions.required(errors, "when completion mode is Indexed");
            }
            let most = |most: i64| format!("must be less than or equal to {most}");
            if above(&parallelism, INDEXES_MAX) {
                parallelism.invalid(errors, &format!("{} when completion mode is Indexed", most(INDEXES_MAX)));
            }
            if completions.int().is_some_and(|completions| above(&failed, completions)) {
                failed.invalid(errors, "must be less than or equal to completions");
            }
            if above(&failed, INDEXES_MAX) {
                failed.invalid(errors, &most(INDEXES_MAX));
            }
            if !above(&completions, COMPLETIONS_MANY) || !per_index.exists() {
                return;
            }
            if !failed.exists() {
                failed.required(errors, &format!("must be specified when completions is above {COMPLETIONS_MANY}"));
            }
            for (field, bound) in [(parallelism, PARALLELISM_OF_MANY), (failed, FAILED_OF_MANY)] {
                if above(&field, bound) {
                    let when =
                        format!("when completions are above {COMPLETIONS_MANY} and used with backoff limit per index");
                    field.invalid(errors, &format!("{} {when}", most(bound)));
                }
            }
        }
        "" | "NonIndexed" => {
            for field in [per_index, failed].iter().filter(|field| field.exists()) {
                field.invalid(errors, "requires indexed completion mode");
            }
        }
        _ => spec.get("completionMode").not_supported(errors, &["NonIndexed", "Indexed"]),
    }
}

fn update_job(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    // Upstream looks at a changed job twice.
    validate_job(new, errors);
    let (new_spec, old_spec) = (new.get("spec"), old.get("spec"));
    completions_stay(&new_spec, &old_spec, errors);
    check::immutable(&new_spec, &old_spec, "selector", errors);
    template_stays(&new_spec, old, errors);
    for name in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        check::immutable(&new_spec, &old_spec, name, errors);
    }
}

/// An indexed job may grow and shrink, if it goes on in one step.
fn completions_stay(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    if new.get("completionMode").text() != "Indexed" {
        return check::immutable(new, old, "completions", errors);
    }
    let completions = new.get("completions");
    let changed = completions.exists() && completions.value() != old.get("completions").value();
    if changed && completions.int() != new.get("parallelism").int() {
        completions.invalid(errors, "can only be modified in tandem with spec.parallelism");
    }
}

/// While nothing of a job runs, where its pods run and what they get may change; otherwise nothing of them.
fn template_stays(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let template = new.get("template");
    let changed = template.value().cloned().unwrap_or_default();
    let before = old.at("spec.template").value().cloned().unwrap_or_default();
    if !rests(old) {
        if changed != before {
            template.wrong(errors, go::template(&changed), check::IMMUTABLE);
        }
        return;
    }
    let mut allowed = before;
    take(member(&mut allowed, "metadata"), &changed["metadata"], &["labels", "annotations"]);
    let spec = member(&mut allowed, "spec");
    take(spec, &changed["spec"], &["nodeSelector", "tolerations", "schedulingGates"]);
    take_node_affinity(spec, &changed["spec"]);
    for list in ["containers", "initContainers"] {
        let changed = changed["spec"][list].as_array().map(Vec::as_slice).unwrap_or_default();
        for (container, changed) in items_mut(spec, list).zip(changed) {
            take(container, changed, &["resources"]);
        }
    }
    if changed["spec"] != allowed["spec"] {
        template.get("spec").wrong(errors, go::show("PodSpec", &changed["spec"]), check::IMMUTABLE);
    }
}

/// Whether a job is suspended and nothing of it runs.
fn rests(job: &Field<'_>) -> bool {
    let status = job.get("status");
    let suspended = job.at("spec.suspend").bool() == Some(true);
    let is_marked = || {
        let conditions = status.get("conditions").items();
        conditions.iter().any(|one| one.get("type").text() == "Suspended" && one.get("status").text() == "True")
    };
    suspended && (!status.get("startTime").exists() || is_marked()) && status.get("active").int().unwrap_or(0) == 0
}

/// Takes members of another tree, and removes those that it has not.
fn take(tree: &mut Value, from: &Value, names: &[&str]) {
    for name in names {
        match from.get(name) {
            Some(value) => *member(tree, name) = value.clone(),
            None => drop(remove(tree, name)),
        }
    }
}

/// Of the affinity only that to nodes is taken; one that says nothing else may come and go.
fn take_node_affinity(spec: &mut Value, from: &Value) {
    if from.get("affinity").is_some() {
        set_default(spec, "affinity", json!({}));
        take(member(spec, "affinity"), &from["affinity"], &["nodeAffinity"]);
    } else if let Some(affinity) = spec.get_mut("affinity") {
        remove(affinity, "nodeAffinity");
        if affinity.as_object().is_none_or(serde_json::Map::is_empty) {
            remove(spec, "affinity");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{broken_by_change, with};

    fn template() -> Value {
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}],
        }})
    }

    fn job() -> Value {
        json!({"metadata": {"name": "j", "namespace": "n"}, "spec": {
            "manualSelector": true, "selector": {"matchLabels": {"a": "b"}}, "template": template(),
        }})
    }

    #[test]
    fn indexed_jobs_grow_in_one_step() {
        let sized = |completions: i64, parallelism: i64| {
            let indexed = with(job(), "spec.completionMode", "Indexed".into());
            with(with(indexed, "spec.completions", completions.into()), "spec.parallelism", parallelism.into())
        };
        assert_eq!(broken_by_change(&JOBS, sized(2, 2), sized(3, 3)), [""; 0]);
        assert_eq!(
            broken_by_change(&JOBS, sized(2, 2), sized(3, 2)),
            ["spec.completions: 3: can only be modified in tandem with spec.parallelism"]
        );
        assert_eq!(
            broken_by_change(
                &JOBS,
                with(job(), "spec.completions", 1.into()),
                with(job(), "spec.completions", 2.into())
            ),
            ["spec.completions: 2: field is immutable"]
        );
    }

    #[test]
    fn a_job_that_rests_may_move_and_get_more() {
        let suspended = with(job(), "spec.suspend", true.into());
        let change = |old: &Value, place: &str, value: Value| {
            let found =
                broken_by_change(&JOBS, old.clone(), with(old.clone(), &format!("spec.template.{place}"), value));
            found.into_iter().map(|error| error.split(": ").next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        let selector = json!({"zone": "a"});
        let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}});
        let larger = json!([{"name": "c", "image": "i", "resources": {"requests": {"cpu": "2"}}}]);
        for (place, value) in [
            ("spec.nodeSelector", selector.clone()),
            ("spec.affinity", affinity),
            ("spec.containers", larger.clone()),
            ("metadata.annotations", selector.clone()),
        ] {
            assert_eq!(change(&suspended, place, value.clone()), [""; 0], "{place}");
            assert_eq!(change(&job(), place, value), ["spec.template"], "{place}");
        }
        assert_eq!(change(&suspended, "spec.hostname", json!("h")), ["spec.template.spec"]);
        let pods = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []}});
        assert_eq!(change(&suspended, "spec.affinity", pods), ["spec.template.spec"]);
        let started = with(suspended.clone(), "status.startTime", json!("2026-01-01T00:00:00Z"));
        assert_eq!(change(&started, "spec.nodeSelector", selector.clone()), ["spec.template"]);
        let marked = with(started, "status.conditions", json!([{"type": "Suspended", "status": "True"}]));
        assert_eq!(change(&marked, "spec.nodeSelector", selector.clone()), [""; 0]);
        assert_eq!(change(&with(marked, "status.active", 1.into()), "spec.nodeSelector", selector), ["spec.template"]);
    }

    #[test]
    fn conditions_of_a_failure_policy_are_met_when_they_are_true() {
        let mut job = with(job(), "spec.podFailurePolicy", json!({"rules": [{"onPodConditions": [{"type": "D"}]}]}));
        default_job(&mut job);
        assert_eq!(job["spec"]["podFailurePolicy"]["rules"][0]["onPodConditions"][0]["status"], "True");
    }
}
