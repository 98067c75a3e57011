//! The horizontal pod autoscaler: gives workloads as many replicas as their metrics ask for.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/>. Start at [`decide`].

mod decide;
mod metric;
mod pace;
mod replicas;
mod requests;
mod source;
mod target;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use futures::future::join_all;
use k8s_openapi::api::{
    autoscaling::v2::{HorizontalPodAutoscaler, MetricSpec},
    core::v1::Pod,
};
use kube_core::params::PostParams;
use orchestrator_core::{
    client::{Api, ResourceDiscovery},
    controller::{Action, Cache, Context, Controller, Reconciler},
    events::{Event, EventRecorder},
    meta::{self, object_reference},
    object::ObjectKey,
    selector::LabelSelector,
    status::ApiError,
};
use tokio_util::sync::CancellationToken;

use self::{
    decide::{Course, Draft, Rescale},
    metric::{Answer, Failure, Proposal, Question},
    pace::History,
    replicas::Observed,
    source::ServedMetrics,
    target::Target,
};
use crate::{context::ControllerContext, limits::AUTOSCALER_PERIOD};

pub use source::{MetricsError, MetricsSource, PodMetric};

/// Runs the controller until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let caches = &context.caches;
    let autoscalers = caches.cache::<HorizontalPodAutoscaler>();
    let served = || Arc::new(ServedMetrics::new(context.client())) as Arc<dyn MetricsSource>;
    let controller = Controller::new("horizontalpodautoscaler", caches)
        .reconciles::<HorizontalPodAutoscaler>()
        .filter(|_| false)
        .reads::<Pod>();
    // However often an autoscaler changes, it is looked at once in a period.
    let queue = controller.queue();
    let _changes = autoscalers.on_change(move |change| queue.add_after(change.key.clone(), AUTOSCALER_PERIOD));
    let reconciler = Autoscalers {
        pods: caches.cache(),
        autoscalers,
        metrics: context.options.metrics.clone().unwrap_or_else(served),
        discovery: context.discovery,
        recorder: context.recorder,
        remembered: Mutex::default(),
    };
    controller.run(reconciler, shutdown).await;
}

struct Autoscalers {
    autoscalers: Cache<HorizontalPodAutoscaler>,
    pods: Cache<Pod>,
    metrics: Arc<dyn MetricsSource>,
    discovery: Arc<dyn ResourceDiscovery>,
    recorder: EventRecorder,
    remembered: Mutex<Remembered>,
}

/// What is known of autoscalers beside their objects.
#[derive(Debug, Default)]
struct Remembered {
    /// With the UID that it is about.
    histories: BTreeMap<ObjectKey, (String, History)>,
    /// Of the pods that each scales.
    selectors: BTreeMap<ObjectKey, LabelSelector>,
}

impl Remembered {
    fn history(&mut self, key: &ObjectKey, autoscaler: &HorizontalPodAutoscaler) -> &mut History {
        let uid = meta::uid(&autoscaler.metadata);
        let (known, history) = self.histories.entry(key.clone()).or_default();
        if known != uid {
            (*known, *history) = (uid.to_owned(), History::default());
        }
        history
    }
}

#[async_trait]
impl Reconciler for Autoscalers {
    type Object = HorizontalPodAutoscaler;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        let Some(autoscaler) = self.autoscalers.get(key) else {
            let mut remembered = self.remembered();
            remembered.histories.remove(key);
            remembered.selectors.remove(key);
            return Ok(Action::Done);
        };
        let mut draft = Draft::new(&autoscaler, context.env().now());
        match target::find(&autoscaler, context.client(), &*self.discovery).await {
            Err(error) => draft.without_scale(&error),
            Ok(target) => self.scale(key, &autoscaler, &target, &mut draft, context).await,
        }
        self.publish(&autoscaler, draft, context).await;
        Ok(Action::RequeueAfter(AUTOSCALER_PERIOD))
    }
}

impl Autoscalers {
    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn scale(
        &self,
        key: &ObjectKey,
        autoscaler: &HorizontalPodAutoscaler,
        target: &Target,
        draft: &mut Draft<'_>,
        context: &Context,
    ) {
        let present = target.wanted();
        let now = context.env().now();
        draft.has_scale();
        self.remembered().history(key, autoscaler).begin(present, now);
        draft.status.current_metrics = None;
        draft.status.current_replicas = Some(present);
        let rescale = match decide::course(autoscaler, present) {
            Course::Disabled => {
                draft.is_disabled();
                None
            }
            Course::Rescale(replicas, reason) => Some(Rescale { replicas, reason: reason.to_owned() }),
            Course::Measure => {
                let Some((replicas, name)) = self.measure(key, autoscaler, target, draft, context).await else {
                    return;
                };
                draft.settle((replicas, &name), present, self.remembered().history(key, autoscaler))
            }
        };
        let Some(rescale) = rescale else {
            draft.status.desired_replicas = present;
            return;
        };
        match target.rescale(rescale.replicas).await {
            Err(error) => draft.not_rescaled(&rescale, error.message()),
            Ok(()) => {
                draft.rescaled(&rescale);
                let behavior = autoscaler.spec.behavior.as_ref();
                let mut remembered = self.remembered();
                remembered.history(key, autoscaler).scaled(present, rescale.replicas, behavior, now);
            }
        }
    }

    /// What the metrics propose, if they do.
    async fn measure(
        &self,
        key: &ObjectKey,
        autoscaler: &HorizontalPodAutoscaler,
        target: &Target,
        draft: &mut Draft<'_>,
        context: &Context,
    ) -> Option<(i32, String)> {
        let selector = draft.selector(target.selector())?;
        let mut pods = self.pods.list_namespace(&key.namespace);
        let empty = BTreeMap::new();
        pods.retain(|pod| selector.matches(pod.metadata.labels.as_ref().unwrap_or(&empty)));
        let rivals = {
            let mut remembered = self.remembered();
            remembered.selectors.insert(key.clone(), selector.clone());
            decide::rivals(key, &remembered.selectors, &pods)
        };
        if !rivals.is_empty() {
            draft.has_rivals(target.selector(), &rivals);
            return None;
        }
        let observed = Observed {
            pods: &pods,
            wanted: target.wanted(),
            present: target.present(),
            tolerances: decide::tolerances(autoscaler),
            now: context.env().now(),
        };
        let specs = autoscaler.spec.metrics.iter().flatten();
        let proposals = join_all(specs.map(|spec| self.proposal(spec, &key.namespace, &selector, observed))).await;
        draft.combine(proposals, observed.wanted)
    }

    async fn proposal(
        &self,
        spec: &MetricSpec,
        namespace: &str,
        selector: &LabelSelector,
        observed: Observed<'_>,
    ) -> Result<Proposal, Failure> {
        let answer = match metric::question(spec) {
            Some(question) => self.ask(question, namespace, selector).await,
            None => Ok(Answer::Value(0)),
        };
        metric::evaluate(spec, answer, namespace, observed)
    }

    async fn ask(
        &self,
        question: Question<'_>,
        namespace: &str,
        selector: &LabelSelector,
    ) -> Result<Answer, MetricsError> {
        Ok(match question {
            Question::Resource { resource, container } => {
                Answer::OfPods(self.metrics.resource(namespace, selector, resource, container).await?)
            }
            Question::Pods(metric) => Answer::OfPods(self.metrics.pods(namespace, selector, metric).await?),
            Question::Object(object, metric) => Answer::Value(self.metrics.object(namespace, object, metric).await?),
            Question::External(metric) => {
                let values = self.metrics.external(namespace, metric).await?;
                Answer::Value(values.into_iter().fold(0, i64::saturating_add))
            }
        })
    }

    /// Writes what is new, and tells what happened. What cannot be written is written a period later.
    async fn publish(&self, autoscaler: &HorizontalPodAutoscaler, draft: Draft<'_>, context: &Context) {
        let (changed, mut events) = draft.changed();
        if let Some(changed) = changed {
            let metadata = &changed.metadata;
            let api = Api::<HorizontalPodAutoscaler>::namespaced(context.client(), meta::namespace(metadata));
            if let Err(error) = api.replace_status(meta::name(metadata), &PostParams::default(), &changed).await {
                events.push(Event::warning("FailedUpdateStatus", error.message()));
            }
        }
        let reference = object_reference(autoscaler);
        events.into_iter().for_each(|event| self.recorder.record(&reference, event));
    }
}
