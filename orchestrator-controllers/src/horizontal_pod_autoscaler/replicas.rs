//! How many replicas a metric asks for.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/#algorithm-details> and
//! `pkg/controller/podautoscaler/replica_calculator.go`. Amounts are in thousandths.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use orchestrator_core::meta;

use super::{
    requests::requests,
    source::{MetricsError, PodMetric},
};
use crate::{
    limits::{CPU_INITIALIZATION_TIME, INITIAL_READINESS_DELAY},
    pods::{is_deleting, is_ready, phase},
};

/// How far usage may be from its target, as parts of it, without consequences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tolerances {
    pub down: f64,
    pub up: f64,
}

impl Tolerances {
    fn tolerates(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// What is scaled, as it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observed<'a> {
    /// The pods that it selects.
    pub pods: &'a [Arc<Pod>],
    /// The replicas that it wants to have.
    pub wanted: i32,
    /// The replicas that it has.
    pub present: i32,
    pub tolerances: Tolerances,
    pub now: Timestamp,
}

/// What usage is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// A percentage of what pods ask for of a resource, all their containers or one.
    Utilization { percent: i32, resource: &'a str, container: Option<&'a str> },
    /// An amount for each pod. With a resource, since what pods use of it while they start tells nothing.
    Average { milli_value: i64, resource: Option<&'a str> },
}

/// What pods use, beside their target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Usage {
    ratio: f64,
    /// In percent of what they ask for, if that is the target.
    pub utilization: Option<i32>,
    /// Of each pod, in thousandths.
    pub average: i64,
}

/// The replicas for a metric of which each pod has its own value, and what pods use.
pub(super) fn for_pods(
    observed: Observed<'_>,
    target: Target<'_>,
    metrics: BTreeMap<String, PodMetric>,
) -> Result<(i32, Usage), MetricsError> {
    let mut sample = Sample::new(observed, target, metrics)?;
    let scale = Scale::new(observed, target)?;
    let usage = scale.usage(&sample.values)?;
    let grows_despite_unready = !sample.unready.is_empty() && usage.ratio > 1.0;
    if !grows_despite_unready && sample.missing.is_empty() {
        let replicas = if observed.tolerances.tolerates(usage.ratio) {
            observed.wanted
        } else {
            rounded_up(usage.ratio * sample.ready as f64)
        };
        return Ok((replicas, usage));
    }
    sample.assume(&scale, usage.ratio, grows_despite_unready);
    let ratio = scale.usage(&sample.values)?.ratio;
    let turns = (usage.ratio < 1.0 && ratio > 1.0) || (usage.ratio > 1.0 && ratio < 1.0);
    let replicas = rounded_up(ratio * sample.values.len() as f64);
    let contradicts = (ratio < 1.0 && replicas > observed.wanted) || (ratio > 1.0 && replicas < observed.wanted);
    let stays = observed.tolerances.tolerates(ratio) || turns || contradicts;
    Ok((if stays { observed.wanted } else { replicas }, usage))
}

/// The replicas for one value that all pods share.
pub(super) fn for_value(observed: Observed<'_>, target: i64, value: i64) -> Result<i32, MetricsError> {
    let ratio = value as f64 / target as f64;
    if observed.wanted == 0 {
        return Ok(rounded_up(ratio));
    }
    if observed.tolerances.tolerates(ratio) {
        return Ok(observed.wanted);
    }
    if observed.pods.is_empty() {
        return Err(MetricsError(format!("unable to calculate ready pods: {NO_PODS}")));
    }
    let ready = observed.pods.iter().filter(|pod| phase(pod) == "Running" && is_ready(pod)).count();
    Ok(rounded_up(ratio * ready as f64))
}

/// The replicas for one value of which each pod gets its part, and that part.
pub(super) fn for_value_per_pod(observed: Observed<'_>, target: i64, value: i64) -> (i32, i64) {
    let present = f64::from(observed.present);
    let ratio = value as f64 / (target as f64 * present);
    let replicas = match observed.tolerances.tolerates(ratio) {
        true => observed.present,
        false => rounded_up(value as f64 / target as f64),
    };
    (replicas, (value as f64 / present).ceil() as i64)
}

const NO_PODS: &str = "no pods returned by selector while calculating replica count";

/// As upstream, whose numbers are bounded as well.
fn rounded_up(replicas: f64) -> i32 {
    replicas.ceil() as i32
}

/// The values that count, and the pods that have none.
#[derive(Debug)]
struct Sample {
    values: BTreeMap<String, i64>,
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
}

impl Sample {
    fn new(
        observed: Observed<'_>,
        target: Target<'_>,
        metrics: BTreeMap<String, PodMetric>,
    ) -> Result<Self, MetricsError> {
        if observed.pods.is_empty() {
            return Err(MetricsError(NO_PODS.to_owned()));
        }
        let (mut ready, mut unready, mut missing) = (0, BTreeSet::new(), BTreeSet::new());
        let mut values: BTreeMap<String, i64> =
            metrics.iter().map(|(pod, metric)| (pod.clone(), metric.milli_value)).collect();
        for pod in observed.pods {
            let name = meta::name(&pod.metadata);
            if is_deleting(pod) || phase(pod) == "Failed" {
                values.remove(name);
            } else if phase(pod) == "Pending" {
                unready.insert(name.to_owned());
            } else {
                match metrics.get(name) {
                    None => drop(missing.insert(name.to_owned())),
                    Some(metric) if target.is_cpu() && is_starting(pod, metric, observed.now) => {
                        unready.insert(name.to_owned());
                    }
                    Some(_) => ready += 1,
                }
            }
        }
        values.retain(|name, _| !unready.contains(name));
        if values.is_empty() {
            let message = "did not receive metrics for targeted pods (pods might be unready)";
            return Err(MetricsError(message.to_owned()));
        }
        Ok(Self { values, ready, unready, missing })
    }

    /// Gives values to the pods that have none, so that nothing is scaled further than they could justify.
    fn assume(&mut self, scale: &Scale<'_>, ratio: f64, with_unready: bool) {
        for pod in &self.missing {
            if ratio < 1.0 {
                self.values.insert(pod.clone(), scale.full(pod));
            } else if ratio > 1.0 {
                self.values.insert(pod.clone(), 0);
            }
        }
        if with_unready {
            self.values.extend(self.unready.iter().map(|pod| (pod.clone(), 0)));
        }
    }
}

impl Target<'_> {
    fn is_cpu(self) -> bool {
        matches!(self, Self::Utilization { resource: "cpu", .. } | Self::Average { resource: Some("cpu"), .. })
    }
}

/// Whether what a pod used of its CPU tells of its start only.
fn is_starting(pod: &Pod, metric: &PodMetric, now: Timestamp) -> bool {
    let Some(status) = &pod.status else { return true };
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    let (Some(ready), Some(start)) = (ready, &status.start_time) else { return true };
    let changed = ready.last_transition_time.as_ref().map_or(Timestamp::MIN, |time| time.0);
    let is_unready = ready.status == "False";
    if after(start.0, CPU_INITIALIZATION_TIME) > now {
        return is_unready || metric.timestamp < after(changed, metric.window);
    }
    is_unready && after(start.0, INITIAL_READINESS_DELAY) > changed
}

fn after(time: Timestamp, pause: Duration) -> Timestamp {
    let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
    time.saturating_add(pause).unwrap_or(Timestamp::MAX)
}

/// What values are measured by.
struct Scale<'a> {
    target: Target<'a>,
    /// What each pod asks for; empty when the target is an amount.
    requests: BTreeMap<String, i64>,
}

impl<'a> Scale<'a> {
    fn new(observed: Observed<'_>, target: Target<'a>) -> Result<Self, MetricsError> {
        let mut asked = BTreeMap::new();
        if let Target::Utilization { resource, container, .. } = target {
            for pod in observed.pods {
                asked.insert(meta::name(&pod.metadata).to_owned(), requests(pod, resource, container)?);
            }
        }
        Ok(Self { target, requests: asked })
    }

    fn usage(&self, values: &BTreeMap<String, i64>) -> Result<Usage, MetricsError> {
        match self.target {
            Target::Average { milli_value, .. } => {
                let average = sum(values.values()) / values.len().max(1) as i64;
                Ok(Usage { ratio: average as f64 / milli_value as f64, utilization: None, average })
            }
            Target::Utilization { percent, .. } => {
                let known = values.iter().filter(|(pod, _)| self.requests.contains_key(*pod));
                let (pods, used): (Vec<_>, Vec<_>) = known.unzip();
                let asked = sum(pods.iter().filter_map(|pod| self.requests.get(*pod)));
                if asked == 0 {
                    return Err(MetricsError("no metrics returned matched known pods".to_owned()));
                }
                let used_in_total = sum(used.iter().copied());
                let utilization = (used_in_total.saturating_mul(100) / asked) as i32;
                let ratio = f64::from(utilization) / f64::from(percent);
                Ok(Usage { ratio, utilization: Some(utilization), average: used_in_total / used.len() as i64 })
            }
        }
    }

    /// What a pod without a value is taken to use when less is used than wanted.
    fn full(&self, pod: &str) -> i64 {
        match self.target {
            Target::Average { milli_value, .. } => milli_value,
            Target::Utilization { percent, .. } => {
                let asked = self.requests.get(pod).copied().unwrap_or(0);
                asked.saturating_mul(i64::from(percent.max(100))) / 100
            }
        }
    }
}

fn sum<'a>(values: impl IntoIterator<Item = &'a i64>) -> i64 {
    values.into_iter().fold(0, |total, value| total.saturating_add(*value))
}

#[cfg(test)]
#[path = "replicas_tests.rs"]
mod tests;
