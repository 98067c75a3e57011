//! CronJobs: work that ends, and begins anew.
//!
//! Upstream: `pkg/apis/batch/v1/defaults.go`, `pkg/registry/batch/cronjob/strategy.go`, `pkg/apis/batch/validation`.

use orchestrator_core::cron::Schedule;
use serde_json::{Value, json};

use super::{go, jobs, podspec, rules::Rules, warnings};
use crate::{
    field::{Errors, Field, member, set_default},
    strategy::Generation,
};

/// So long a name leaves room for what is appended to it.
const NAME_LETTERS: usize = 52;

/// Cron jobs.
pub(super) const CRON_JOBS: Rules = Rules {
    generation: Generation::Intent,
    status: true,
    default,
    create: |job| *member(job, "status") = json!({}),
    validate_create: |job, errors| {
        validate(job, None, errors);
        let name = job.at("metadata.name");
        if name.text().len() > NAME_LETTERS {
            name.invalid(errors, "must be no more than 52 characters");
        }
    },
    validate_update: |new, old, errors| validate(new, Some(old), errors),
    warn: warnings::of_cron_job,
    ..Rules::NONE
};

fn default(job: &mut Value) {
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

fn validate(job: &Field<'_>, old: Option<&Field<'_>>, errors: &mut Errors) {
    let (spec, old) = (job.get("spec"), old.map(|old| old.get("spec")));
    schedule(&spec, old.as_ref(), errors);
    spec.get("startingDeadlineSeconds").not_negative(errors);
    let zone = spec.get("timeZone");
    if old.is_none_or(|old| old.get("timeZone").value() != zone.value()) {
        time_zone(&zone, errors);
    }
    spec.get("concurrencyPolicy").one_of(errors, &["Allow", "Forbid", "Replace"]);
    let template = spec.at("jobTemplate.spec");
    jobs::job_spec(&template, errors);
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
}

/// When jobs are made. A schedule that names its zone may stay, from times when it could.
fn schedule(spec: &Field<'_>, old: Option<&Field<'_>>, errors: &mut Errors) {
    let schedule = spec.get("schedule");
    if schedule.text().is_empty() {
        return schedule.required(errors, "");
    }
    if let Err(why) = schedule.text().parse::<Schedule>() {
        schedule.invalid(errors, &why.to_string());
    }
    let names_zone = schedule.text().contains("TZ");
    let may_name_zone = old.is_some_and(|old| old.get("schedule").text().contains("TZ"));
    if names_zone && !may_name_zone {
        schedule.invalid(errors, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    } else if names_zone && spec.get("timeZone").exists() {
        schedule.invalid(errors, "cannot use both timeZone field and TZ or CRON_TZ in schedule");
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
    let unknown = |errors: &mut Errors| zone.invalid(errors, &format!("unknown time zone {text}"));
    if !text.split('/').all(is_zone_part) {
        return unknown(errors);
    }
    if text.eq_ignore_ascii_case("local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        zone.invalid(errors, detail);
    }
    // Go knows zones by their names to the letter.
    let is_known = jiff::tz::TimeZone::get(text).is_ok_and(|known| known.iana_name() == Some(text));
    if !is_known && text != "Local" {
        unknown(errors);
    }
}

/// A name between the slashes of a zone's name.
fn is_zone_part(part: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-_+".contains(&byte);
    (1..=14).contains(&part.len()) && !matches!(part, "." | "..") && !part.starts_with('-') && part.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{broken, broken_by_change, with};

    fn cron_job() -> Value {
        let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
        json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {
            "schedule": "0 * * * *", "jobTemplate": {"spec": {"template": template}},
        }})
    }

    #[test]
    fn schedules_name_no_zone() {
        let zoned = "TZ=UTC 0 * * * *";
        let both = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
        let no_zone = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        let old = || with(cron_job(), "spec.schedule", zoned.into());
        let shown = |why: &str| format!("spec.schedule: \"{zoned}\": {why}");
        assert_eq!(broken(&CRON_JOBS, old()).last(), Some(&shown(no_zone)));
        assert!(!broken_by_change(&CRON_JOBS, old(), old()).contains(&shown(no_zone)));
        let zone = with(old(), "spec.timeZone", "UTC".into());
        assert_eq!(broken_by_change(&CRON_JOBS, old(), zone).last(), Some(&shown(both)));
    }

    #[test]
    fn zones_are_known_to_the_letter() {
        let zone = |name: &str| broken(&CRON_JOBS, with(cron_job(), "spec.timeZone", name.into()));
        let unknown = |name: &str| format!("spec.timeZone: \"{name}\": unknown time zone {name}");
        for name in ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires"] {
            assert_eq!(zone(name), [""; 0], "{name}");
        }
        for name in ["europe/berlin", "Mars/Base", "Europe//Berlin", "../UTC", "Europe/-Berlin", "UTC "] {
            assert_eq!(zone(name), [unknown(name)], "{name}");
        }
        let explicit = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        assert_eq!(zone("Local"), [format!("spec.timeZone: \"Local\": {explicit}")]);
        assert_eq!(zone("local"), [format!("spec.timeZone: \"local\": {explicit}"), unknown("local")]);
        // What was unknown before may stay.
        let old = with(cron_job(), "spec.timeZone", "Mars/Base".into());
        assert_eq!(broken_by_change(&CRON_JOBS, old.clone(), old), [""; 0]);
    }

    #[test]
    fn names_of_cron_jobs_leave_room() {
        let named = |letters: usize| with(cron_job(), "metadata.name", "a".repeat(letters).into());
        assert_eq!(broken(&CRON_JOBS, named(52)), [""; 0]);
        assert_eq!(broken(&CRON_JOBS, named(53)).len(), 1);
        assert_eq!(broken_by_change(&CRON_JOBS, named(53), named(53)), [""; 0]);
    }
}
