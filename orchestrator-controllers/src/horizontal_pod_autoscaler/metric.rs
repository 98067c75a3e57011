//! One metric of an autoscaler: what is asked for it, and what its answer amounts to.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::autoscaling::v2::{
        ContainerResourceMetricStatus, CrossVersionObjectReference, ExternalMetricSource, ExternalMetricStatus,
        MetricIdentifier, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus, ObjectMetricSource,
        ObjectMetricStatus, PodsMetricSource, PodsMetricStatus, ResourceMetricStatus,
    },
    apimachinery::pkg::api::resource::Quantity as Written,
};
use orchestrator_core::quantity::{Format, Quantity};

use super::{
    replicas::{Observed, Target, Usage, for_pods, for_value, for_value_per_pod},
    source::{MetricsError, PodMetric},
};
use crate::go;

/// What a source of metrics is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Question<'a> {
    Resource { resource: &'a str, container: Option<&'a str> },
    Pods(&'a MetricIdentifier),
    Object(&'a CrossVersionObjectReference, &'a MetricIdentifier),
    External(&'a MetricIdentifier),
}

/// What it answers, in thousandths.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    OfPods(BTreeMap<String, PodMetric>),
    Value(i64),
}

/// What a metric proposes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Proposal {
    pub replicas: i32,
    /// What it is called in messages.
    pub name: String,
    pub status: MetricStatus,
}

/// Why a metric proposes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// Of the Event and the condition.
    pub reason: &'static str,
    /// Their words.
    pub message: String,
    /// The words when it stands beside other metrics.
    pub summary: String,
}

/// A metric whose source is there; a type without its source is none.
#[derive(Clone, Copy)]
enum Source<'a> {
    Resource { name: &'a str, container: Option<&'a str>, target: &'a MetricTarget },
    Pods(&'a PodsMetricSource),
    Object(&'a ObjectMetricSource),
    External(&'a ExternalMetricSource),
}

impl<'a> Source<'a> {
    fn of(spec: &'a MetricSpec) -> Option<Self> {
        match &*spec.type_ {
            "Resource" => {
                let source = spec.resource.as_ref()?;
                Some(Self::Resource { name: &source.name, container: None, target: &source.target })
            }
            "ContainerResource" => {
                let source = spec.container_resource.as_ref()?;
                Some(Self::Resource { name: &source.name, container: Some(&source.container), target: &source.target })
            }
            "Pods" => spec.pods.as_ref().map(Self::Pods),
            "Object" => spec.object.as_ref().map(Self::Object),
            "External" => spec.external.as_ref().map(Self::External),
            _ => None,
        }
    }
}

/// What has to be asked for a metric; nothing for one that nobody knows.
pub(super) fn question(spec: &MetricSpec) -> Option<Question<'_>> {
    Some(match Source::of(spec)? {
        Source::Resource { name, container, .. } => Question::Resource { resource: name, container },
        Source::Pods(source) => Question::Pods(&source.metric),
        Source::Object(source) => Question::Object(&source.described_object, &source.metric),
        Source::External(source) => Question::External(&source.metric),
    })
}

/// What a metric proposes after its answer came.
pub(super) fn evaluate(
    spec: &MetricSpec,
    answer: Result<Answer, MetricsError>,
    namespace: &str,
    observed: Observed<'_>,
) -> Result<Proposal, Failure> {
    let Some(source) = Source::of(spec) else {
        let message = format!("unknown metric source type {:?}", spec.type_);
        return Err(Failure { reason: "InvalidMetricSourceType", summary: message.clone(), message });
    };
    let (reason, summary) = match source {
        Source::Resource { name, container: None, .. } => {
            ("FailedGetResourceMetric", format!("failed to get {name} resource metric value"))
        }
        Source::Resource { container: Some(container), .. } => {
            ("FailedGetContainerResourceMetric", format!("failed to get {container} container metric value"))
        }
        Source::Pods(_) => ("FailedGetPodsMetric", "failed to get pods metric value".to_owned()),
        Source::Object(_) => ("FailedGetObjectMetric", "failed to get object metric value".to_owned()),
        Source::External(source) => {
            ("FailedGetExternalMetric", format!("failed to get {} external metric value", source.metric.name))
        }
    };
    propose(source, answer, namespace, observed).map_err(|MetricsError(error)| Failure {
        reason,
        summary: format!("{summary}: {error}"),
        message: error,
    })
}

fn propose(
    source: Source<'_>,
    answer: Result<Answer, MetricsError>,
    namespace: &str,
    observed: Observed<'_>,
) -> Result<Proposal, MetricsError> {
    match source {
        Source::Resource { name, container, target } => of_resource(name, container, target, answer, observed),
        Source::Pods(source) => of_pods(source, answer, observed),
        Source::Object(source) => of_object(source, answer, namespace, observed),
        Source::External(source) => of_external(source, answer, namespace, observed),
    }
}

fn of_resource(
    name: &str,
    container: Option<&str>,
    target: &MetricTarget,
    answer: Result<Answer, MetricsError>,
    observed: Observed<'_>,
) -> Result<Proposal, MetricsError> {
    let (target, what, called) = match (milli_value(&target.average_value), target.average_utilization) {
        (Some(milli_value), _) => {
            (Target::Average { milli_value, resource: Some(name) }, "usage", format!("{name} resource"))
        }
        (None, Some(percent)) => {
            let kind = if container.is_some() { "container resource" } else { "resource" };
            let called = format!("{name} {kind} utilization (percentage of request)");
            (Target::Utilization { percent, resource: name, container }, "utilization", called)
        }
        (None, None) => {
            let message = "invalid resource metric source: neither an average utilization target nor an average value \
                           (usage) target was set";
            return Err(MetricsError(message.to_owned()));
        }
    };
    let unable = |error| MetricsError(format!("unable to get metrics for resource {name}: {error}"));
    let failed = |error| MetricsError(format!("failed to get {name} {what}: {error}"));
    let metrics = of_every_pod(answer).map_err(unable).map_err(failed)?;
    let (replicas, usage) = for_pods(observed, target, metrics).map_err(failed)?;
    let (name, current) = (name.to_owned(), average(usage));
    let status = match container {
        None => MetricStatus {
            type_: "Resource".to_owned(),
            resource: Some(ResourceMetricStatus { name, current }),
            ..Default::default()
        },
        Some(container) => MetricStatus {
            type_: "ContainerResource".to_owned(),
            container_resource: Some(ContainerResourceMetricStatus { name, container: container.to_owned(), current }),
            ..Default::default()
        },
    };
    Ok(Proposal { replicas, name: called, status })
}

fn of_pods(
    source: &PodsMetricSource,
    answer: Result<Answer, MetricsError>,
    observed: Observed<'_>,
) -> Result<Proposal, MetricsError> {
    let name = &source.metric.name;
    let unable = |error| MetricsError(format!("unable to get metric {name}: {error}"));
    let metrics = of_every_pod(answer).map_err(unable)?;
    let milli_value = milli_value(&source.target.average_value).unwrap_or(0);
    let (replicas, usage) = for_pods(observed, Target::Average { milli_value, resource: None }, metrics)?;
    let pods = PodsMetricStatus { metric: source.metric.clone(), current: average(usage) };
    let status = MetricStatus { type_: "Pods".to_owned(), pods: Some(pods), ..Default::default() };
    Ok(Proposal { replicas, name: format!("pods metric {name}"), status })
}

fn of_object(
    source: &ObjectMetricSource,
    answer: Result<Answer, MetricsError>,
    namespace: &str,
    observed: Observed<'_>,
) -> Result<Proposal, MetricsError> {
    let (metric, object) = (&source.metric, &source.described_object);
    let unable = |error| {
        let (kind, name) = (&object.kind, &object.name);
        MetricsError(format!("unable to get metric {}: {error} on {kind} {namespace}/{name}", metric.name))
    };
    let value = answer.map(value_of).map_err(unable);
    let target = &source.target;
    let (replicas, name, described_object, current) = match &*target.type_ {
        "Value" if let Some(wanted) = milli_value(&target.value) => {
            let value = value?;
            let name = format!("{} metric {}", object.kind, metric.name);
            (for_value(observed, wanted, value)?, name, object.clone(), whole(value))
        }
        "AverageValue" if let Some(wanted) = milli_value(&target.average_value) => {
            let failed = |error| MetricsError(format!("failed to get {} object metric: {error}", metric.name));
            let (replicas, part) = for_value_per_pod(observed, wanted, value.map_err(failed)?);
            // Upstream names neither the object in the status nor the source in the message as one would expect.
            (replicas, external_name(metric), CrossVersionObjectReference::default(), per_pod(part))
        }
        _ => {
            let message = "invalid object metric source: neither a value target nor an average value target was set";
            return Err(MetricsError(message.to_owned()));
        }
    };
    let object = ObjectMetricStatus { metric: metric.clone(), described_object, current };
    let status = MetricStatus { type_: "Object".to_owned(), object: Some(object), ..Default::default() };
    Ok(Proposal { replicas, name, status })
}

fn of_external(
    source: &ExternalMetricSource,
    answer: Result<Answer, MetricsError>,
    namespace: &str,
    observed: Observed<'_>,
) -> Result<Proposal, MetricsError> {
    let (metric, target) = (&source.metric, &source.target);
    let unable = |error| {
        let selector = go::label_selector(metric.selector.as_ref());
        MetricsError(format!("unable to get external metric {namespace}/{}/{selector}: {error}", metric.name))
    };
    let value = answer.map(value_of).map_err(unable);
    let (replicas, current) = if let Some(wanted) = milli_value(&target.average_value) {
        let failed = |error| MetricsError(format!("failed to get {} external metric: {error}", metric.name));
        let (replicas, part) = for_value_per_pod(observed, wanted, value.map_err(failed)?);
        (replicas, per_pod(part))
    } else if let Some(wanted) = milli_value(&target.value) {
        let failed = |error| MetricsError(format!("failed to get external metric {}: {error}", metric.name));
        let value = value.map_err(failed)?;
        (for_value(observed, wanted, value).map_err(failed)?, whole(value))
    } else {
        let message = "invalid external metric source: neither a value target nor an average value target was set";
        return Err(MetricsError(message.to_owned()));
    };
    let external = ExternalMetricStatus { metric: metric.clone(), current };
    let status = MetricStatus { type_: "External".to_owned(), external: Some(external), ..Default::default() };
    Ok(Proposal { replicas, name: external_name(metric), status })
}

fn external_name(metric: &MetricIdentifier) -> String {
    format!("external metric {}({})", metric.name, go::label_selector(metric.selector.as_ref()))
}

fn of_every_pod(answer: Result<Answer, MetricsError>) -> Result<BTreeMap<String, PodMetric>, MetricsError> {
    Ok(match answer? {
        Answer::OfPods(metrics) => metrics,
        Answer::Value(_) => BTreeMap::new(),
    })
}

fn value_of(answer: Answer) -> i64 {
    match answer {
        Answer::Value(value) => value,
        Answer::OfPods(metrics) => metrics.values().fold(0, |sum, metric| metric.milli_value.saturating_add(sum)),
    }
}

fn milli_value(written: &Option<Written>) -> Option<i64> {
    Some(Quantity::try_from(written.as_ref()?).ok()?.milli_value())
}

fn written(milli_value: i64) -> Option<Written> {
    Some(Quantity::from_milli_value(milli_value, Format::DecimalSi).into())
}

fn average(usage: Usage) -> MetricValueStatus {
    MetricValueStatus {
        average_utilization: usage.utilization,
        average_value: written(usage.average),
        ..Default::default()
    }
}

fn per_pod(milli_value: i64) -> MetricValueStatus {
    MetricValueStatus { average_value: written(milli_value), ..Default::default() }
}

fn whole(milli_value: i64) -> MetricValueStatus {
    MetricValueStatus { value: written(milli_value), ..Default::default() }
}
