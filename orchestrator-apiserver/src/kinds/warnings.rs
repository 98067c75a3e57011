//! What callers are told about objects that are taken, but hardly as they were meant.
//!
//! Upstream: `WarningsOnCreate` and `WarningsOnUpdate` of the strategies in `pkg/registry`, and `pkg/api/job/warnings.go`.

use super::podspec;
use crate::{field::Field, names};

/// More completions, and more pods at once, than a job with indexes can surely keep track of.
const COMPLETIONS_MANY: i64 = 100_000;
const PARALLELISM_MANY: i64 = 10_000;

/// Tells of a changed object only if the change is one of its intent, as generations count them.
fn is_news(new: &Field<'_>, old: Option<&Field<'_>>) -> bool {
    old.is_none_or(|old| old.at("metadata.generation").int() != new.at("metadata.generation").int())
}

/// Pods are named after the workload that makes them.
fn name(new: &Field<'_>, old: Option<&Field<'_>>, warnings: &mut Vec<String>) {
    let problems = names::label(new.at("metadata.name").text());
    if old.is_none() && !problems.is_empty() {
        warnings.push(format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label \
             is recommended: [{}]",
            problems.join(" ")
        ));
    }
}

/// Of a pod that is new. Later changes are made by programs, who do not read it.
pub(super) fn of_pod(new: &Field<'_>, old: Option<&Field<'_>>, warnings: &mut Vec<String>) {
    if old.is_none() {
        podspec::warn_of_pod(new, warnings);
    }
}

/// Of a template that is an object of its own.
pub(super) fn of_pod_template(new: &Field<'_>, old: Option<&Field<'_>>, warnings: &mut Vec<String>) {
    if is_news(new, old) {
        podspec::warn_of_pod(&new.get("template"), warnings);
    }
}

/// Of workloads whose pods have names of their own.
pub(super) fn of_template(new: &Field<'_>, old: Option<&Field<'_>>, warnings: &mut Vec<String>) {
    if is_news(new, old) {
        podspec::warn_of_pod(&new.at("spec.template"), warnings);
    }
}

/// Of workloads whose pods are named after them.
pub(super) fn of_workload(new: &Field<'_>, old: Option<&Field<'_>>, warnings: &mut Vec<String>) {
    name(new, old, warnings);
    of_template(new, old, warnings);
}

/// Of stateful sets.
pub(super) fn of_stateful_set(new: &Field<'_>, old: Option<&Field<'_>>, warnings: &mut Vec<String>) {
    of_template(new, old, warnings);
    for claim in new.at("spec.volumeClaimTemplates").items() {
        // Upstream names the claim, and means its spec.
        podspec::warn_of_claim(&claim.get("spec").shown_at(claim.path()), warnings);
    }
    if new.at("spec.revisionHistoryLimit").int().is_some_and(|limit| limit < 0) {
        warnings.push(
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
                .to_owned(),
        );
    }
}

/// Of jobs.
pub(super) fn of_job(new: &Field<'_>, old: Option<&Field<'_>>, warnings: &mut Vec<String>) {
    name(new, old, warnings);
    if is_news(new, old) {
        job_spec(&new.get("spec"), warnings);
    }
}

/// Of cron jobs.
pub(super) fn of_cron_job(new: &Field<'_>, old: Option<&Field<'_>>, warnings: &mut Vec<String>) {
    name(new, old, warnings);
    if is_news(new, old) {
        job_spec(&new.at("spec.jobTemplate.spec"), warnings);
    }
    if old.is_some() && new.at("spec.schedule").text().contains("TZ") {
        warnings.push(
            "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
             https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                .to_owned(),
        );
    }
}

fn job_spec(spec: &Field<'_>, warnings: &mut Vec<String>) {
    let number = |name: &'static str| spec.get(name).int().unwrap_or(0);
    let is_large = number("completions") > COMPLETIONS_MANY && number("parallelism") > PARALLELISM_MANY;
    if spec.get("completionMode").text() == "Indexed" && is_large {
        warnings.push(format!(
            "{}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
             Kubernetes might not be able to track completions when a big number of indexes fail",
            spec.path()
        ));
    }
    podspec::warn_of_pod(&spec.get("template"), warnings);
}

/// Of runtime classes.
pub(super) fn of_runtime_class(new: &Field<'_>, _: Option<&Field<'_>>, warnings: &mut Vec<String>) {
    let selector = new.at("scheduling.nodeSelector");
    let known = selector.entries().into_iter().filter_map(|(key, _)| podspec::old_label(key));
    warnings.extend(known.map(|what| format!("{}: {what}", selector.path())));
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    type Warn = fn(&Field<'_>, Option<&Field<'_>>, &mut Vec<String>);

    fn told(warn: Warn, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        let old = old.map(Field::root);
        warn(&Field::root(new), old.as_ref(), &mut warnings);
        warnings
    }

    #[test]
    fn names_and_templates_are_told_of_when_they_are_new() {
        let set = |generation: i64| {
            json!({"metadata": {"name": "a.b", "generation": generation}, "spec": {"template": {"spec": {
                "volumes": [{"name": "v", "gitRepo": {}}],
            }}}})
        };
        let volume = "spec.template.spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+";
        let found = told(of_workload, &set(1), None);
        assert!(found[0].starts_with("metadata.name: this is used in Pod names"), "{found:?}");
        assert_eq!(found[1..], [volume]);
        assert_eq!(told(of_workload, &set(2), Some(&set(1))), [volume]);
        assert_eq!(told(of_workload, &set(1), Some(&set(1))), [""; 0]);
    }

    #[test]
    fn large_jobs_and_old_schedules_are_told_of() {
        let job = json!({"metadata": {"name": "j"}, "spec": {
            "completionMode": "Indexed", "completions": 100_001, "parallelism": 10_001,
        }});
        assert!(told(of_job, &job, None)[0].starts_with("spec: In Indexed Jobs with"));
        let cron = json!({"metadata": {"name": "c"}, "spec": {"schedule": "TZ=UTC 0 * * * *"}});
        assert_eq!(told(of_cron_job, &cron, None), [""; 0]);
        assert!(told(of_cron_job, &cron, Some(&cron))[0].contains("spec.spec.schedule"));
    }

    #[test]
    fn sets_that_keep_everything_are_told_of() {
        let set = json!({"spec": {
            "revisionHistoryLimit": -1, "volumeClaimTemplates": [{"spec": {"resources": {"requests": {"storage": "1m"}}}}],
        }});
        let found = told(of_stateful_set, &set, None);
        assert!(
            found[0].starts_with("spec.volumeClaimTemplates[0].resources.requests[storage]: fractional"),
            "{found:?}"
        );
        assert!(found[1].starts_with("spec.revisionHistoryLimit: a negative value"), "{found:?}");
    }
}
