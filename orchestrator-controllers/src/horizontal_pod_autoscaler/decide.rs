//! What an autoscaler does about its target, and what its status and Events say about that.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/> and
//! `pkg/controller/podautoscaler/horizontal.go`.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::{
    autoscaling::v2::{
        HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus,
        MetricStatus,
    },
    core::v1::Pod,
};
use orchestrator_core::{
    events::Event,
    meta,
    object::{ObjectKey, time},
    quantity::Quantity,
    selector::LabelSelector,
};

use super::{
    metric::{Failure, Proposal},
    pace::{History, Limited, Wish},
    replicas::Tolerances,
};
use crate::limits::AUTOSCALER_TOLERANCE;

/// What to do about a target of which nothing but its scale is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// Nothing: somebody has set it to zero.
    Disabled,
    /// Bring it to its bounds.
    Rescale(i32, &'static str),
    /// See what the metrics say.
    Measure,
}

pub(super) fn course(autoscaler: &HorizontalPodAutoscaler, present: i32) -> Course {
    let (minimum, maximum) = bounds(autoscaler);
    if present == 0 && minimum != 0 {
        Course::Disabled
    } else if present > maximum {
        Course::Rescale(maximum, "Current number of replicas above Spec.MaxReplicas")
    } else if present < minimum {
        Course::Rescale(minimum, "Current number of replicas below Spec.MinReplicas")
    } else {
        Course::Measure
    }
}

fn bounds(autoscaler: &HorizontalPodAutoscaler) -> (i32, i32) {
    (autoscaler.spec.min_replicas.unwrap_or(1), autoscaler.spec.max_replicas)
}

/// How far usage may be from its target.
pub(super) fn tolerances(autoscaler: &HorizontalPodAutoscaler) -> Tolerances {
    let behavior = autoscaler.spec.behavior.as_ref();
    let of = |rules: Option<&HPAScalingRules>| {
        let own = rules.and_then(|rules| Quantity::try_from(rules.tolerance.as_ref()?).ok());
        own.map_or(AUTOSCALER_TOLERANCE, |own| own.as_f64())
    };
    Tolerances {
        down: of(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
        up: of(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
    }
}

/// Other autoscalers that scale one of these pods, this one among them, if there are any.
pub(super) fn rivals(
    own: &ObjectKey,
    selectors: &BTreeMap<ObjectKey, LabelSelector>,
    pods: &[Arc<Pod>],
) -> Vec<ObjectKey> {
    let empty = BTreeMap::new();
    let selects_one = |selector: &LabelSelector| {
        pods.iter().any(|pod| selector.matches(pod.metadata.labels.as_ref().unwrap_or(&empty)))
    };
    let candidates = selectors.iter().filter(|(key, _)| key.namespace == own.namespace);
    let rivals: Vec<_> = candidates.filter(|(_, selector)| selects_one(selector)).map(|(key, _)| key.clone()).collect();
    if rivals.len() > 1 { rivals } else { Vec::new() }
}

/// A change of the target's scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rescale {
    pub replicas: i32,
    pub reason: String,
}

/// The status of an autoscaler while it is made, and the Events that go with it.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    autoscaler: &'a HorizontalPodAutoscaler,
    now: Timestamp,
    pub status: HorizontalPodAutoscalerStatus,
    pub events: Vec<Event>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(autoscaler: &'a HorizontalPodAutoscaler, now: Timestamp) -> Self {
        Self { autoscaler, now, status: autoscaler.status.clone().unwrap_or_default(), events: Vec::new() }
    }

    fn set(&mut self, type_: &str, holds: bool, reason: &str, message: impl Into<String>) {
        let condition = HorizontalPodAutoscalerCondition {
            type_: type_.to_owned(),
            status: if holds { "True" } else { "False" }.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.into()),
            last_transition_time: Some(time(self.now)),
        };
        meta::set_condition(self.status.conditions.get_or_insert_default(), condition);
    }

    fn warn(&mut self, reason: &str, message: impl Into<String>) {
        self.events.push(Event::warning(reason, message));
    }

    /// Nobody knows the scale of the target.
    pub(super) fn without_scale(&mut self, error: &str) {
        self.warn("FailedGetScale", error);
        let message = format!("the HPA controller was unable to get the target's current scale: {error}");
        self.set("AbleToScale", false, "FailedGetScale", message);
    }

    pub(super) fn has_scale(&mut self) {
        let message = "the HPA controller was able to get the target's current scale";
        self.set("AbleToScale", true, "SucceededGetScale", message);
    }

    pub(super) fn is_disabled(&mut self) {
        let message = "scaling is disabled since the replica count of the target is zero";
        self.set("ScalingActive", false, "ScalingDisabled", message);
    }

    /// The selector of a scale, if it is one.
    pub(super) fn selector(&mut self, text: &str) -> Option<LabelSelector> {
        if text.is_empty() {
            self.warn("SelectorRequired", "selector is required");
            self.set("ScalingActive", false, "InvalidSelector", "the HPA target's scale is missing a selector");
            self.gives_up("selector is required");
            return None;
        }
        LabelSelector::parse(text)
            .inspect_err(|error| {
                let message =
                    format!("couldn't convert selector into a corresponding internal selector object: {error}");
                self.is_inactive("InvalidSelector", &message);
            })
            .ok()
    }

    /// Others scale the same pods.
    pub(super) fn has_rivals(&mut self, selector: &str, rivals: &[ObjectKey]) {
        let rivals = rivals.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let message = format!("pods by selector {selector} are controlled by multiple HPAs: [{rivals}]");
        self.is_inactive("AmbiguousSelector", &message);
    }

    fn is_inactive(&mut self, reason: &str, message: &str) {
        self.warn(reason, message);
        self.set("ScalingActive", false, reason, message);
        self.gives_up(message);
    }

    fn gives_up(&mut self, error: &str) {
        self.warn("FailedComputeMetricsReplicas", error);
    }

    /// What the metrics propose together: the most of all. Nothing when none proposes anything, or when some do not
    /// and the others would make less of the target.
    pub(super) fn combine(&mut self, metrics: Vec<Result<Proposal, Failure>>, wanted: i32) -> Option<(i32, String)> {
        let total = metrics.len();
        let (mut replicas, mut name) = (0, String::new());
        let mut failures = Vec::new();
        let mut statuses = Vec::with_capacity(total);
        for metric in metrics {
            match metric {
                Ok(proposal) => {
                    if replicas == 0 || proposal.replicas > replicas {
                        (replicas, name) = (proposal.replicas, proposal.name);
                    }
                    statuses.push(proposal.status);
                }
                Err(failure) => {
                    self.warn(failure.reason, failure.message.clone());
                    statuses.push(MetricStatus::default());
                    failures.push(failure);
                }
            }
        }
        self.status.current_metrics = (!statuses.is_empty()).then_some(statuses);
        if let Some(first) = failures.first()
            && (failures.len() >= total || replicas < wanted)
        {
            let message = format!("the HPA was unable to compute the replica count: {}", first.message);
            self.set("ScalingActive", false, first.reason, message);
            let (invalid, summary) = (failures.len(), &first.summary);
            let message = format!("invalid metrics ({invalid} invalid out of {total}), first error is: {summary}");
            self.warn("FailedComputeMetricsReplicas", message);
            return None;
        }
        let message = format!("the HPA was able to successfully calculate a replica count from {name}");
        self.set("ScalingActive", true, "ValidMetricFound", message);
        Some((replicas, name))
    }

    /// What becomes of a proposal after the past and the bounds had their say; nothing when all stays as it is.
    pub(super) fn settle(&mut self, proposal: (i32, &str), present: i32, history: &mut History) -> Option<Rescale> {
        let (minimum, maximum) = bounds(self.autoscaler);
        let (proposed, name) = proposal;
        let behavior = self.autoscaler.spec.behavior.as_ref();
        let wish = Wish { minimum, maximum, present, wanted: proposed };
        let stabilized = history.stabilize(wish, behavior, self.now);
        match stabilized.replicas == proposed {
            true => self.set("AbleToScale", true, "ReadyForNewScale", "recommended size matches current size"),
            false => self.set("AbleToScale", true, stabilized.reason, stabilized.message),
        }
        let Limited { replicas, reason, message } =
            history.limit(Wish { wanted: stabilized.replicas, ..wish }, behavior, self.now);
        self.set("ScalingLimited", replicas != stabilized.replicas, reason, message);
        let reason = match proposed.cmp(&present) {
            std::cmp::Ordering::Greater => format!("{name} above target"),
            std::cmp::Ordering::Less => "All metrics below target".to_owned(),
            std::cmp::Ordering::Equal => String::new(),
        };
        (replicas != present).then_some(Rescale { replicas, reason })
    }

    /// The target has its new scale.
    pub(super) fn rescaled(&mut self, rescale: &Rescale) {
        let Rescale { replicas, reason } = rescale;
        let message = format!("the HPA controller was able to update the target scale to {replicas}");
        self.set("AbleToScale", true, "SucceededRescale", message);
        self.events.push(Event::normal("SuccessfulRescale", format!("New size: {replicas}; reason: {reason}")));
        self.status.last_scale_time = Some(time(self.now));
        self.status.desired_replicas = *replicas;
    }

    /// The target could not be given its new scale.
    pub(super) fn not_rescaled(&mut self, rescale: &Rescale, error: &str) {
        let Rescale { replicas, reason } = rescale;
        self.warn("FailedRescale", format!("New size: {replicas}; reason: {reason}; error: {error}"));
        let message = format!("the HPA controller was unable to update the target scale: {error}");
        self.set("AbleToScale", false, "FailedUpdateScale", message);
    }

    /// The autoscaler with its new status; nothing when it has that one already.
    pub(super) fn changed(self) -> (Option<HorizontalPodAutoscaler>, Vec<Event>) {
        let status = Some(self.status);
        let changed = self.autoscaler.status != status;
        (changed.then(|| HorizontalPodAutoscaler { status, ..self.autoscaler.clone() }), self.events)
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
