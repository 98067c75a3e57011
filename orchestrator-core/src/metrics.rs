//! Counts and distributions, and the text in which Prometheus reads them.
//!
//! Upstream: <https://prometheus.io/docs/instrumenting/exposition_formats/>, version 0.0.4 of the text format.

use std::{
    fmt::{self, Display, Write},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Something that has metrics to show.
pub trait MetricSource: Send + Sync + fmt::Debug {
    /// Writes whole families. No two sources write the same one.
    fn write(&self, out: &mut Exposition);
}

/// What a family of metrics is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricType {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// The upper bounds of a histogram's buckets, in whole units, and how many units make one of what is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets {
    /// Ascending.
    pub bounds: &'static [u64],
    /// Such as a billion where nanoseconds are observed and seconds shown.
    pub units: u64,
}

/// A distribution that many write at once, without waiting for each other.
#[derive(Debug)]
pub struct Histogram {
    buckets: Buckets,
    /// One for each bound, and one for all beyond.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// What a histogram held at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    buckets: Buckets,
    counts: Vec<u64>,
    sum: u64,
}

impl Histogram {
    /// Without observations.
    pub fn new(buckets: Buckets) -> Self {
        let counts = (0..=buckets.bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { buckets, counts, sum: AtomicU64::new(0) }
    }

    /// Takes in one value, in units.
    pub fn observe(&self, value: u64) {
        let at = self.buckets.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Takes in one duration; the units are nanoseconds.
    pub fn observe_time(&self, time: Duration) {
        self.observe(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// What it holds now.
    pub fn distribution(&self) -> Distribution {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        Distribution { buckets: self.buckets, counts, sum: self.sum.load(Ordering::Relaxed) }
    }
}

impl Distribution {
    /// Takes in another of the same buckets.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// Metrics as text.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// How the text is called over HTTP.
    pub const MEDIA_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Begins a family; all of its samples follow.
    pub fn family(&mut self, name: &str, of: MetricType, help: &str) {
        let of = match of {
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {of}");
    }

    /// One value of a counter or a gauge.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.line(name, labels, None, value);
    }

    /// One distribution of a histogram.
    pub fn distribution(&mut self, name: &str, labels: &[(&str, &str)], of: &Distribution) {
        let (bucket, mut count) = (format!("{name}_bucket"), 0);
        let bounds = of.buckets.bounds.iter().map(|bound| bound_text(*bound as f64 / of.buckets.units as f64));
        for (bound, more) in bounds.chain(["+Inf".to_owned()]).zip(&of.counts) {
            count += more;
            self.line(&bucket, labels, Some(&bound), count);
        }
        self.line(&format!("{name}_sum"), labels, None, of.sum as f64 / of.buckets.units as f64);
        self.line(&format!("{name}_count"), labels, None, count);
    }

    /// All of it.
    pub fn into_text(self) -> String {
        self.0
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], bound: Option<&str>, value: impl Display) {
        self.0.push_str(name);
        let labels = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        let mut before = '{';
        for (label, text) in labels {
            self.0.push(before);
            let _ = write!(self.0, "{label}=\"");
            self.escaped(text);
            self.0.push('"');
            before = ',';
        }
        if before == ',' {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn escaped(&mut self, text: &str) {
        for letter in text.chars() {
            match letter {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                other => self.0.push(other),
            }
        }
    }
}

/// A bound as Go writes it, since it is compared as text: with an exponent where the number is very small or large.
fn bound_text(bound: f64) -> String {
    let scientific = format!("{bound:e}");
    match scientific.split_once('e').and_then(|(digits, exponent)| Some((digits, exponent.parse::<i32>().ok()?))) {
        Some((digits, exponent)) if !(-4..6).contains(&exponent) => format!("{digits}e{exponent:+03}"),
        _ => bound.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUCKETS: Buckets = Buckets { bounds: &[10, 5_000_000, 1_000_000_000], units: 1_000_000_000 };

    #[test]
    fn families_are_text() {
        let histogram = Histogram::new(BUCKETS);
        for time in [Duration::from_millis(5), Duration::from_secs(1), Duration::from_millis(1500)] {
            histogram.observe_time(time);
        }
        let mut out = Exposition::default();
        out.family("runs_total", MetricType::Counter, "Runs,\nall of them");
        out.sample("runs_total", &[], 3);
        out.sample("runs_total", &[("name", "a\"b\\c\n"), ("group", "")], 4);
        out.family("run_seconds", MetricType::Histogram, "How long");
        out.distribution("run_seconds", &[("name", "x")], &histogram.distribution());
        let expected = r#"# HELP runs_total Runs,\nall of them
# TYPE runs_total counter
runs_total 3
runs_total{name="a\"b\\c\n",group=""} 4
# HELP run_seconds How long
# TYPE run_seconds histogram
run_seconds_bucket{name="x",le="1e-08"} 0
run_seconds_bucket{name="x",le="0.005"} 1
run_seconds_bucket{name="x",le="1"} 2
run_seconds_bucket{name="x",le="+Inf"} 3
run_seconds_sum{name="x"} 2.505
run_seconds_count{name="x"} 3
"#;
        assert_eq!(out.into_text(), expected);
    }

    #[test]
    fn bounds_are_written_as_in_go() {
        let texts = [0.00001, 0.0001, 0.005, 1.25, 60.0, 100_000.0, 1e6, 1e9].map(bound_text);
        assert_eq!(texts, ["1e-05", "0.0001", "0.005", "1.25", "60", "100000", "1e+06", "1e+09"]);
    }

    proptest! {
        #[test]
        fn every_value_lies_in_its_buckets(values in prop::collection::vec(0..2_000_000_000_u64, 0..50)) {
            let (one, other) = (Histogram::new(BUCKETS), Histogram::new(BUCKETS));
            for (index, value) in values.iter().enumerate() {
                if index % 2 == 0 { one.observe(*value) } else { other.observe(*value) }
            }
            let mut all = one.distribution();
            all.add(&other.distribution());
            prop_assert_eq!(all.sum, values.iter().sum::<u64>());
            let below = |bound: u64| values.iter().filter(|value| **value <= bound).count() as u64;
            let mut sum = 0;
            for (bound, count) in BUCKETS.bounds.iter().zip(&all.counts) {
                sum += count;
                prop_assert_eq!(sum, below(*bound));
            }
            prop_assert_eq!(all.counts.iter().sum::<u64>(), values.len() as u64);
        }
    }
}
