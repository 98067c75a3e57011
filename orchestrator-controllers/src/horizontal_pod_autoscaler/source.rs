//! Where metrics come from: the seam, and the metrics APIs of the server behind it.

use std::{collections::BTreeMap, fmt, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{CrossVersionObjectReference, MetricIdentifier};
use kube_core::{DynamicObject, params::ListParams};
use orchestrator_core::{
    client::{Api, Client, Resource},
    quantity::Quantity,
    selector::LabelSelector,
    status::ApiError,
};
use serde_json::Value;

/// Why there is no metric, as the status of an autoscaler says it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MetricsError(pub String);

/// What was measured of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodMetric {
    /// The end of the time that was measured.
    pub timestamp: Timestamp,
    /// The length of that time.
    pub window: Duration,
    /// The amount in thousandths.
    pub milli_value: i64,
}

/// Measures workloads for the horizontal pod autoscaler. All amounts are in thousandths.
#[async_trait]
pub trait MetricsSource: Send + Sync + fmt::Debug {
    /// How much of a resource (`cpu`, `memory`) each pod uses, or one container of each, by the pods' names.
    async fn resource(
        &self,
        namespace: &str,
        pods: &LabelSelector,
        resource: &str,
        container: Option<&str>,
    ) -> Result<BTreeMap<String, PodMetric>, MetricsError>;

    /// A metric of each pod, by the pods' names.
    async fn pods(
        &self,
        namespace: &str,
        pods: &LabelSelector,
        metric: &MetricIdentifier,
    ) -> Result<BTreeMap<String, PodMetric>, MetricsError>;

    /// A metric of one object.
    async fn object(
        &self,
        namespace: &str,
        object: &CrossVersionObjectReference,
        metric: &MetricIdentifier,
    ) -> Result<i64, MetricsError>;

    /// All values of a metric that belongs to no object.
    async fn external(&self, namespace: &str, metric: &MetricIdentifier) -> Result<Vec<i64>, MetricsError>;
}

/// The metrics APIs, where an add-on of the cluster serves them: `metrics.k8s.io` and `external.metrics.k8s.io`.
///
/// The custom metrics API has paths that no other API has, and is left to sources of an embedder's own.
#[derive(Debug)]
pub(super) struct ServedMetrics {
    client: Client,
}

impl ServedMetrics {
    pub(super) fn new(client: &Client) -> Self {
        Self { client: client.clone() }
    }

    /// The items of one of these APIs; `api` is what upstream's messages call it.
    async fn items(
        &self,
        api: &str,
        resource: Resource,
        namespace: &str,
        labels: Option<String>,
    ) -> Result<Vec<Value>, MetricsError> {
        let metrics = Api::<DynamicObject>::of_resource(&self.client, resource, Some(namespace.to_owned()));
        let params = ListParams { label_selector: labels.filter(|labels| !labels.is_empty()), ..Default::default() };
        let unable = |error: String| MetricsError(format!("unable to fetch metrics from {api} metrics API: {error}"));
        let list = metrics.list(&params).await.map_err(|error| unable(described(&error, metrics.resource())))?;
        if list.items.is_empty() {
            return Err(MetricsError(format!("no metrics returned from {api} metrics API")));
        }
        let items = list.items.iter().map(serde_json::to_value).collect::<Result<_, _>>();
        items.map_err(|error| unable(error.to_string()))
    }
}

/// The words of upstream's client about an API that nobody serves.
fn described(error: &ApiError, resource: &Resource) -> String {
    if error.is_not_found() {
        return format!(
            "the server could not find the requested resource (get {}.{})",
            resource.plural, resource.group
        );
    }
    error.message().to_owned()
}

#[async_trait]
impl MetricsSource for ServedMetrics {
    async fn resource(
        &self,
        namespace: &str,
        pods: &LabelSelector,
        resource: &str,
        container: Option<&str>,
    ) -> Result<BTreeMap<String, PodMetric>, MetricsError> {
        let served = Resource::new("metrics.k8s.io", "v1beta1", "pods");
        let items = self.items("resource", served, namespace, Some(pods.to_string())).await?;
        Ok(items.iter().filter_map(|item| pod_usage(item, resource, container)).collect())
    }

    async fn pods(
        &self,
        _namespace: &str,
        _pods: &LabelSelector,
        _metric: &MetricIdentifier,
    ) -> Result<BTreeMap<String, PodMetric>, MetricsError> {
        Err(no_custom_metrics())
    }

    async fn object(
        &self,
        _namespace: &str,
        _object: &CrossVersionObjectReference,
        _metric: &MetricIdentifier,
    ) -> Result<i64, MetricsError> {
        Err(no_custom_metrics())
    }

    async fn external(&self, namespace: &str, metric: &MetricIdentifier) -> Result<Vec<i64>, MetricsError> {
        let served = Resource::new("external.metrics.k8s.io", "v1beta1", metric.name.clone());
        let selector = metric.selector.as_ref().map(LabelSelector::from_meta).transpose();
        let selector = selector.map_err(|error| MetricsError(error.to_string()))?;
        let items = self.items("external", served, namespace, selector.map(|selector| selector.to_string())).await?;
        Ok(items.iter().filter_map(|item| milli_value(&item["value"])).collect())
    }
}

fn no_custom_metrics() -> MetricsError {
    let message =
        "unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered";
    MetricsError(message.to_owned())
}

fn milli_value(written: &Value) -> Option<i64> {
    Some(written.as_str()?.parse::<Quantity>().ok()?.milli_value())
}

/// What a `PodMetrics` says of a resource: of all containers, none of which may be missing, or of one.
fn pod_usage(item: &Value, resource: &str, container: Option<&str>) -> Option<(String, PodMetric)> {
    let containers = item["containers"].as_array().filter(|containers| !containers.is_empty())?;
    let usage = |container: &Value| milli_value(&container["usage"][resource]);
    let milli_value = match container {
        Some(name) => usage(containers.iter().find(|container| container["name"] == *name)?)?,
        None => containers.iter().map(usage).sum::<Option<i64>>()?,
    };
    let timestamp = item["timestamp"].as_str()?.parse().ok()?;
    let metric = PodMetric { timestamp, window: duration(item["window"].as_str()?)?, milli_value };
    Some((item["metadata"]["name"].as_str()?.to_owned(), metric))
}

/// A time as Go writes it, such as `1m30.5s`.
fn duration(text: &str) -> Option<Duration> {
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (amount, after) = rest.split_at(number);
        let unit = after.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let factor = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += amount.parse::<f64>().ok()? * factor;
        rest = after;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn usage_is_that_of_all_containers_or_of_one() {
        let item = json!({
            "metadata": {"name": "p"}, "timestamp": "2026-01-01T00:00:00Z", "window": "30s",
            "containers": [{"name": "a", "usage": {"cpu": "250m"}}, {"name": "b", "usage": {"cpu": "1", "memory": "1Ki"}}],
        });
        let usage = |resource, container| pod_usage(&item, resource, container).map(|(_, metric)| metric.milli_value);
        assert_eq!(usage("cpu", None), Some(1250));
        assert_eq!(usage("cpu", Some("a")), Some(250));
        assert_eq!(usage("cpu", Some("c")), None);
        assert_eq!(usage("memory", None), None, "one container says nothing of it");
        assert_eq!(usage("memory", Some("b")), Some(1_024_000));
    }

    #[test]
    fn times_are_read_as_go_writes_them() {
        for (text, expected) in
            [("30s", Some(30_000)), ("1m0s", Some(60_000)), ("1h2m3.5s", Some(3_723_500)), ("5", None), ("1d", None)]
        {
            assert_eq!(duration(text).map(|time| time.as_millis()), expected, "{text}");
        }
    }
}
