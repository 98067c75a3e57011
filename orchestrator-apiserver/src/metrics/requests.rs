//! Requests: how many, how long, how large, and how many at the moment.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use orchestrator_core::{
    client::Resource,
    env::Env,
    metrics::{Buckets, Distribution, Exposition, Histogram, MetricType},
};

use super::TIMES;
use crate::{limits, objects::FixedState};

/// Sizes of answers, in bytes; upstream's buckets.
const SIZES: Buckets =
    Buckets { bounds: &[1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000], units: 1 };

/// What this component is called.
const COMPONENT: &str = "apiserver";

/// What a request asked for, in the words of upstream's labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Call {
    /// That of a kind in the registry; empty for all else.
    pub(crate) resource: Resource,
    /// One that the kind has, or the path of what is no resource.
    pub(crate) subresource: &'static str,
    /// Such as `LIST`.
    pub(crate) verb: &'static str,
    /// `resource`, `namespace`, `cluster` or nothing.
    pub(crate) scope: &'static str,
    pub(crate) dry_run: bool,
}

/// Requests of one kind that got the same code.
#[derive(Debug)]
struct Series {
    count: AtomicU64,
    times: Histogram,
    sizes: Histogram,
}

/// What is counted about requests.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    series: DashMap<(Call, u16), Arc<Series>, FixedState>,
    long_running: DashMap<Call, Arc<AtomicI64>, FixedState>,
    reading: Arc<AtomicI64>,
    changing: Arc<AtomicI64>,
}

/// One more of something, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Gauge(Arc<AtomicI64>);

impl Gauge {
    pub(crate) fn up(of: &Arc<AtomicI64>) -> Self {
        of.fetch_add(1, Ordering::Relaxed);
        Self(of.clone())
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Requests {
    /// A request that lasts as long as its client wants.
    pub(crate) fn long_running(&self, call: &Call) -> Option<Gauge> {
        if let Some(gauge) = self.long_running.get(call) {
            return Some(Gauge::up(&gauge));
        }
        // Gauges are seldom new; what has too many labels is not shown.
        (self.long_running.len() < limits::METRIC_SERIES)
            .then(|| Gauge::up(&self.long_running.entry(call.clone()).or_default()))
    }

    /// A request that is answered at once.
    pub(crate) fn in_flight(&self, call: &Call) -> Gauge {
        let reads = matches!(call.verb, "GET" | "LIST" | "WATCH");
        Gauge::up(if reads { &self.reading } else { &self.changing })
    }

    fn record(&self, call: Call, code: u16, time: Duration, bytes: u64) {
        let key = (call, code);
        if let Some(series) = self.series.get(&key) {
            return series.record(key.0.verb, time, bytes);
        }
        if self.series.len() < limits::METRIC_SERIES {
            let series = self.series.entry(key.clone()).or_default().clone();
            series.record(key.0.verb, time, bytes);
        }
    }

    pub(super) fn write(&self, out: &mut Exposition) {
        let all: BTreeMap<(Call, u16), Arc<Series>> =
            self.series.iter().map(|entry| (entry.key().clone(), entry.value().clone())).collect();
        let family = "apiserver_request_total";
        out.family(family, MetricType::Counter, "Requests that were answered, by what was asked and by HTTP code");
        for ((call, code), series) in &all {
            let code = code.to_string();
            let labels = [[("code", code.as_str())].as_slice(), &call.labels(true)].concat();
            out.sample(family, &labels, series.count.load(Ordering::Relaxed));
        }
        let (mut times, mut sizes) = (BTreeMap::new(), BTreeMap::new());
        for ((call, _), series) in &all {
            add(&mut times, call.clone(), series.times.distribution());
            if call.reads() {
                add(&mut sizes, call.clone(), series.sizes.distribution());
            }
        }
        let family = "apiserver_request_duration_seconds";
        out.family(family, MetricType::Histogram, "Time until a request was answered, in seconds");
        times.iter().for_each(|(call, times)| out.distribution(family, &call.labels(true), times));
        let family = "apiserver_response_sizes";
        out.family(family, MetricType::Histogram, "Sizes of the answers to those who read, in bytes");
        sizes.iter().for_each(|(call, sizes)| out.distribution(family, &call.labels(false), sizes));
        self.write_present(out);
    }

    fn write_present(&self, out: &mut Exposition) {
        let family = "apiserver_current_inflight_requests";
        out.family(family, MetricType::Gauge, "Requests that are being answered, without those that run long");
        for (kind, gauge) in [("mutating", &self.changing), ("readOnly", &self.reading)] {
            out.sample(family, &[("request_kind", kind)], gauge.load(Ordering::Relaxed));
        }
        let family = "apiserver_longrunning_requests";
        out.family(family, MetricType::Gauge, "Watches, sessions and other requests that last as clients want");
        let running: BTreeMap<Call, i64> = self
            .long_running
            .iter()
            .map(|entry| (entry.key().clone(), entry.value().load(Ordering::Relaxed)))
            .collect();
        running.iter().for_each(|(call, count)| out.sample(family, &call.labels(false), count));
    }
}

/// Adds up what differs in what is not shown.
fn add(all: &mut BTreeMap<Call, Distribution>, call: Call, more: Distribution) {
    match all.get_mut(&call) {
        Some(sum) => sum.add(&more),
        None => drop(all.insert(call, more)),
    }
}

impl Call {
    /// Whether the sizes of answers are counted: as upstream, of those that are objects and lists.
    fn reads(&self) -> bool {
        matches!(self.verb, "GET" | "LIST") && !self.dry_run
    }

    /// In the order of their names.
    fn labels(&self, with_dry_run: bool) -> Vec<(&'static str, &str)> {
        let mut labels = vec![("component", COMPONENT)];
        if with_dry_run {
            labels.push(("dry_run", if self.dry_run { "All" } else { "" }));
        }
        labels.extend([
            ("group", &*self.resource.group),
            ("resource", &*self.resource.plural),
            ("scope", self.scope),
            ("subresource", self.subresource),
            ("verb", self.verb),
            ("version", &*self.resource.version),
        ]);
        labels
    }
}

impl Default for Series {
    fn default() -> Self {
        Self { count: AtomicU64::new(0), times: Histogram::new(TIMES), sizes: Histogram::new(SIZES) }
    }
}

impl Series {
    fn record(&self, verb: &str, time: Duration, bytes: u64) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.times.observe_time(time);
        if matches!(verb, "GET" | "LIST") {
            self.sizes.observe(bytes);
        }
    }
}

/// A request that is being answered: it is counted when this is dropped, if it has got an answer.
#[derive(Debug)]
pub(crate) struct Recording {
    metrics: Arc<super::Metrics>,
    env: Env,
    started: Duration,
    call: Option<Call>,
    code: Option<u16>,
    /// What was sent, in bytes.
    bytes: u64,
    _present: Present,
}

/// How a request is shown while it lasts.
#[derive(Debug)]
pub(crate) struct Present {
    _in_flight: Option<Gauge>,
    _running: Option<Arc<Gauge>>,
}

impl Present {
    /// Among those in flight.
    pub(crate) fn in_flight(gauge: Gauge) -> Self {
        Self { _in_flight: Some(gauge), _running: None }
    }

    /// Among those that run long, together with the session that it may become.
    pub(crate) fn running(gauge: Option<Arc<Gauge>>) -> Self {
        Self { _in_flight: None, _running: gauge }
    }
}

impl Recording {
    pub(crate) fn begin(metrics: &Arc<super::Metrics>, env: &Env, call: Call, present: Present) -> Self {
        let (metrics, env) = (metrics.clone(), env.clone());
        Self { started: env.monotonic(), metrics, env, call: Some(call), code: None, bytes: 0, _present: present }
    }

    /// The answer begins.
    pub(crate) fn answered(&mut self, code: u16) {
        self.code = Some(code);
    }

    /// More of the answer was sent.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let (Some(call), Some(code)) = (self.call.take(), self.code) else { return };
        let time = self.env.monotonic().saturating_sub(self.started);
        self.metrics.requests.record(call, code, time, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(verb: &'static str, plural: String) -> Call {
        Call { resource: Resource::new("", "v1", plural), subresource: "", verb, scope: "resource", dry_run: false }
    }

    fn lines(requests: &Requests) -> Vec<String> {
        let mut out = Exposition::default();
        requests.write(&mut out);
        out.into_text().lines().map(str::to_owned).collect()
    }

    #[test]
    fn requests_are_counted_by_code_and_timed_over_all_codes() {
        let requests = Requests::default();
        for (code, millis) in [(200, 1), (200, 30), (404, 30)] {
            requests.record(call("GET", "pods".to_owned()), code, Duration::from_millis(millis), 2_000);
        }
        let labels = "resource=\"pods\",scope=\"resource\",subresource=\"\",verb=\"GET\",version=\"v1\"";
        let with_dry_run = format!("component=\"apiserver\",dry_run=\"\",group=\"\",{labels}");
        for line in [
            format!("apiserver_request_total{{code=\"200\",{with_dry_run}}} 2"),
            format!("apiserver_request_total{{code=\"404\",{with_dry_run}}} 1"),
            format!("apiserver_request_duration_seconds_bucket{{{with_dry_run},le=\"0.005\"}} 1"),
            format!("apiserver_request_duration_seconds_count{{{with_dry_run}}} 3"),
            format!("apiserver_response_sizes_sum{{component=\"apiserver\",group=\"\",{labels}}} 6000"),
        ] {
            let lines = lines(&requests);
            assert!(lines.contains(&line), "{line} in {lines:#?}");
        }
    }

    #[test]
    fn labels_are_bounded() {
        let requests = Requests::default();
        for number in 0..limits::METRIC_SERIES + 100 {
            requests.record(call("GET", number.to_string()), 200, Duration::ZERO, 0);
            let _ = requests.long_running(&call("WATCH", number.to_string()));
        }
        assert_eq!(requests.series.len(), limits::METRIC_SERIES);
        assert_eq!(requests.long_running.len(), limits::METRIC_SERIES);
    }

    #[test]
    fn what_runs_is_counted_while_it_runs() {
        let requests = Requests::default();
        let shown = |verb: &str| lines(&requests).into_iter().find(|line| line.contains(verb)).unwrap();
        let watch = requests.long_running(&call("WATCH", "pods".to_owned()));
        let write = requests.in_flight(&call("POST", "pods".to_owned()));
        assert!(shown("\"WATCH\"").ends_with(" 1") && shown("mutating").ends_with(" 1"));
        drop((watch, write));
        assert!(shown("\"WATCH\"").ends_with(" 0") && shown("mutating").ends_with(" 0"));
    }
}
