//! Work that ends: Job and CronJob.
//!
//! Upstream: `pkg/apis/batch/v1/defaults.go`, `pkg/registry/batch/job/strategy.go`, `pkg/apis/batch/validation`.

use orchestrator_core::{cron::Schedule, status::FieldErrorKind};
use serde_json::{Value, json};

use super::{check, go, job_policies, job_status, podspec, rules::Rules};
use crate::{
    field::{Errors, Field, member, remove, set_default},
    names,
};

/// The label that ties pods to their job.
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// The names of both labels before they had a domain; still written.
const OLD_LABELS: [(&str, &str); 2] = [(CONTROLLER_UID, "controller-uid"), (JOB_NAME, "job-name")];
const NO_MATCH: &str = "`selector` does not match template `labels`";
const INDEXES_MAX: i64 = 100_000;
/// With more completions than this, a job with a limit for each index keeps to narrower bounds.
const COMPLETIONS_MANY: i64 = 100_000;
const PARALLELISM_OF_MANY: i64 = 10_000;
const FAILED_OF_MANY: i64 = 10_000;
const MANAGER_BYTES: usize = 63;
/// So long a name leaves room for what is appended to it: 52 letters for cron jobs.
const CRON_NAME_LETTERS: usize = 52;

/// Jobs.
pub(super) const JOBS: Rules = Rules {
    generation: true,
    status: true,
    default: default_job,
    create: |job| {
        *member(job, "status") = json!({});
        tie_to_pods(job);
    },
    validate: |job, errors| {
        tied_to_pods(job, errors);
        validate_job(job, errors);
    },
    validate_create: pods_can_be_named,
    validate_update: update_job,
    validate_status: job_status::validate,
    ..Rules::NONE
};

/// Cron jobs.
pub(super) const CRON_JOBS: Rules = Rules {
    generation: true,
    status: true,
    default: default_cron_job,
    create: |job| *member(job, "status") = json!({}),
    validate: validate_cron_job,
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
    let (selector, labels) = (spec.get("selector"), spec.at("template.metadata.labels"));
    let valid = if selector.exists() {
        check::valid_label_selector(&selector, errors)
    } else {
        selector.required(errors, "");
        true
    };
    if valid && (!selector.exists() || !check::selects(&selector, &labels)) {
        labels.wrong(errors, labels.value().map_or_else(|| "null".to_owned(), Value::to_string), NO_MATCH);
    }
}

fn job_spec(spec: &Field<'_>, errors: &mut Errors) {
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
    let mut again = Errors::default();
    let (new_spec, old_spec) = (new.get("spec"), old.get("spec"));
    validate_job(new, &mut again);
    for error in again.into_vec() {
        errors.add(error.field, error.kind, error.detail);
    }
    let indexed = new_spec.get("completionMode").text() == "Indexed";
    if !indexed {
        check::immutable(&new_spec, &old_spec, "completions", errors);
    }
    check::immutable(&new_spec, &old_spec, "selector", errors);
    template_stays(&new_spec, &old_spec, errors);
    for name in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        check::immutable(&new_spec, &old_spec, name, errors);
    }
}

/// While a job is suspended, where its pods run may change; otherwise nothing of them.
fn template_stays(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let mut changed = new.get("template").value().cloned().unwrap_or_default();
    let before = old.get("template").value().cloned().unwrap_or_default();
    if old.get("suspend").bool() == Some(true) {
        for name in ["nodeSelector", "affinity", "tolerations", "schedulingGates"] {
            match before["spec"].get(name) {
                Some(value) => *member(member(&mut changed, "spec"), name) = value.clone(),
                None => drop(remove(member(&mut changed, "spec"), name)),
            }
        }
        for name in ["labels", "annotations"] {
            match before["metadata"].get(name) {
                Some(value) => *member(member(&mut changed, "metadata"), name) = value.clone(),
                None => drop(remove(member(&mut changed, "metadata"), name)),
            }
        }
    }
    if changed != before {
        new.get("template").wrong(errors, go::template(&changed), check::IMMUTABLE);
    }
}

fn default_cron_job(job: &mut Value) {
    let spec = member(job, "spec");
    set_default(spec, "schedule", "");
    set_default(spec, "concurrencyPolicy", "Allow");
    set_default(spec, "suspend", false);
    set_default(spec, "successfulJobsHistoryLimit", 3);
    set_default(spec, "failedJobsHistoryLimit", 1);
    let template = member(spec, "jobTemplate");
    if template.get("metadata").is_none() {
        *member(template, "metadata") = json!({});
    }
    podspec::default_template(member(member(template, "spec"), "template"));
}

fn validate_cron_job(job: &Field<'_>, errors: &mut Errors) {
    let spec = job.get("spec");
    let (schedule, zone) = (spec.get("schedule"), spec.get("timeZone"));
    if schedule.text().is_empty() {
        schedule.required(errors, "");
    } else {
        if let Err(why) = schedule.text().parse::<Schedule>() {
            schedule.invalid(errors, &why.to_string());
        }
        if schedule.text().contains("TZ") {
            schedule.invalid(errors, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
        }
    }
    time_zone(&zone, errors);
    spec.get("startingDeadlineSeconds").not_negative(errors);
    spec.get("concurrencyPolicy").one_of(errors, &["Allow", "Forbid", "Replace"]);
    let template = spec.at("jobTemplate.spec");
    job_spec(&template, errors);
    let selector = template.get("selector");
    if selector.exists() {
        let shown = go::show("Selector", selector.value().unwrap_or(&Value::Null));
        selector.wrong(errors, shown, "`selector` will be auto-generated");
    }
    if template.get("manualSelector").bool() == Some(true) {
        template.get("manualSelector").not_supported(errors, &["nil", "false"]);
    }
    spec.get("successfulJobsHistoryLimit").not_negative(errors);
    spec.get("failedJobsHistoryLimit").not_negative(errors);
    let name = job.at("metadata.name");
    if name.text().len() > CRON_NAME_LETTERS {
        name.invalid(errors, "must be no more than 52 characters");
    }
}

fn time_zone(zone: &Field<'_>, errors: &mut Errors) {
    if !zone.exists() {
        return;
    }
    let text = zone.text();
    if text.is_empty() {
        return zone.invalid(errors, "timeZone must be nil or non-empty string");
    }
    if text.eq_ignore_ascii_case("local") {
        return zone
            .invalid(errors, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
    }
    if jiff::tz::TimeZone::get(text).is_err() {
        zone.invalid(errors, &format!("unknown time zone {text}"));
    }
}
