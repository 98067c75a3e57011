//! Work that ends: Job and CronJob.
//!
//! Upstream: `pkg/apis/batch/v1/defaults.go`, `pkg/registry/batch/job/strategy.go`, `pkg/apis/batch/validation`.

use serde_json::{Value, json};

use super::{check, cron, go, podspec, rules::Rules};
use crate::field::{Errors, Field, member, remove, set_default};

/// The label that ties pods to their job.
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// The names of both labels before they had a domain; still written.
const OLD_LABELS: [(&str, &str); 2] = [(CONTROLLER_UID, "controller-uid"), (JOB_NAME, "job-name")];
const NO_MATCH: &str = "`selector` does not match template `labels`";
const INDEXES_MAX: i64 = 100_000;
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
    validate: validate_job,
    validate_update: update_job,
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
    if labels.as_object().is_some_and(|labels| !labels.is_empty()) {
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
    label(member(member(member(spec, "template"), "metadata"), "labels"));
    *member(member(member(spec, "selector"), "matchLabels"), CONTROLLER_UID) = uid.clone();
    let owned = job["metadata"].get("labels").is_none();
    if owned || job["metadata"]["labels"].get(CONTROLLER_UID).is_none() {
        // Upstream writes the labels of the template to a job that has none.
        let labels = member(member(job, "metadata"), "labels");
        if owned {
            label(labels);
        }
    }
}

fn validate_job(job: &Field<'_>, errors: &mut Errors) {
    let spec = job.get("spec");
    job_spec(&spec, errors);
    if spec.get("selector").exists() {
        check::label_selector(&spec.get("selector"), errors);
    } else {
        spec.get("selector").required(errors, "");
    }
    let labels = spec.at("template.metadata.labels");
    let selector = spec.get("selector");
    if !selector.exists() || check::is_empty_selector(&selector) || !check::selects(&selector, &labels) {
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
    ] {
        spec.get(name).not_negative(errors);
    }
    let mode = spec.get("completionMode");
    mode.one_of(errors, &["Indexed", "NonIndexed"]);
    let completions = spec.get("completions");
    if mode.text() == "Indexed" {
        if !completions.exists() {
            completions.required(errors, "when completion mode is Indexed");
        }
        let parallelism = spec.get("parallelism");
        if parallelism.int().is_some_and(|number| number > INDEXES_MAX) {
            parallelism.invalid(
                errors,
                &format!("must be less than or equal to {INDEXES_MAX} when completion mode is Indexed"),
            );
        }
    } else if spec.get("backoffLimitPerIndex").exists() {
        spec.get("backoffLimitPerIndex").invalid(errors, "requires indexed completion mode");
    }
    spec.get("podReplacementPolicy").one_of(errors, &["Failed", "TerminatingOrFailed"]);
    podspec::validate_template(&spec.get("template"), errors);
    let policy = spec.at("template.spec.restartPolicy");
    if !matches!(policy.text(), "OnFailure" | "Never") {
        if policy.text() == "Always" || policy.text().is_empty() {
            policy.required(errors, "valid values: \"OnFailure\", \"Never\"");
        } else {
            policy.not_supported(errors, &["OnFailure", "Never"]);
        }
    }
    if spec.get("podFailurePolicy").exists() && policy.text() != "Never" {
        spec.get("podFailurePolicy").wrong(
            errors,
            "\"\"",
            "only 'Never' restartPolicy is supported when using podFailurePolicy",
        );
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
        if let Err(why) = cron::check(schedule.text()) {
            schedule.invalid(errors, &why);
        }
        if schedule.text().contains("TZ") {
            schedule.invalid(errors, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
        }
    }
    time_zone(&zone, errors);
    spec.get("startingDeadlineSeconds").not_negative(errors);
    spec.get("concurrencyPolicy").one_of(errors, &["Allow", "Forbid", "Replace"]);
    let template = spec.at("jobTemplate.spec");
    if template.get("manualSelector").bool() == Some(true) {
        template.get("manualSelector").not_supported(errors, &["nil", "false"]);
    }
    job_spec(&template, errors);
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
