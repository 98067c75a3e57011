//! `KubeSchedulerConfiguration` v1, read from YAML.
//!
//! Everything that upstream's type has is known; what this scheduler cannot do is refused, never passed over. Own plugins
//! are named to the reader with a [`Registry`].
//!
//! `percentageOfNodesToScore` lets upstream stop at a part of the nodes that are right, to save time. Here every node is
//! considered whatever it says, which costs no more and is a better choice. Certificates that the configuration names as
//! files are read with it.
//!
//! <https://kubernetes.io/docs/reference/config-api/kube-scheduler-config.v1/>

mod args;
mod extenders;
mod fields;
mod profile;
mod registry;

use std::time::Duration;

use orchestrator_core::{controller::leader::LeaderElection, yaml};

use self::fields::Fields;
pub use self::{
    fields::{ConfigError, ConfigReason},
    registry::{Arguments, Parts, Registry},
};
use crate::{
    framework::Profile,
    limits::{BACKOFF_LONGEST, BACKOFF_START},
};

const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";
/// The most seconds and numbers that upstream's 32-bit fields hold.
const MOST: i64 = i32::MAX as i64;

/// A scheduler's configuration.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// Who decides, by the names that pods ask for. Each has all extenders.
    pub profiles: Vec<Profile>,
    /// How long a pod waits after its first failed attempt.
    pub backoff_start: Duration,
    /// How long a pod waits at most after a failed attempt.
    pub backoff_longest: Duration,
    /// How one of several processes is chosen; `None` if each works at once.
    pub leader_election: Option<LeaderElection>,
    /// The file that names the cluster.
    pub kubeconfig: Option<String>,
}

impl Configuration {
    /// Reads a configuration that names the plugins of this crate.
    ///
    /// ```
    /// use orchestrator_scheduler::config::{ConfigReason, Configuration};
    ///
    /// let configuration = Configuration::from_yaml(
    ///     "apiVersion: kubescheduler.config.k8s.io/v1
    /// kind: KubeSchedulerConfiguration
    /// profiles:
    /// - schedulerName: packing
    ///   pluginConfig:
    ///   - name: NodeResourcesFit
    ///     args: {scoringStrategy: {type: MostAllocated}}
    /// ",
    /// )?;
    /// assert_eq!(configuration.profiles[0].name, "packing");
    ///
    /// let error = Configuration::from_yaml("apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nfoo: 1\n");
    /// assert_eq!(error.unwrap_err().reason, ConfigReason::UnknownField);
    /// # Ok::<(), orchestrator_scheduler::config::ConfigError>(())
    /// ```
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        Self::from_yaml_with(text, &Registry::default())
    }

    /// Reads a configuration that names the plugins of a registry.
    pub fn from_yaml_with(text: &str, registry: &Registry) -> Result<Self, ConfigError> {
        let tree = yaml::parse(text).map_err(|error| ConfigError::new("", ConfigReason::Syntax(error.to_string())))?;
        let mut fields = Fields::new("", tree)?;
        for (field, expected) in [("apiVersion", API_VERSION), ("kind", KIND)] {
            match fields.text(field)? {
                Some(text) if text == expected => {}
                Some(text) => return Err(fields.invalid(field, text, &format!("must be {expected}"))),
                None => return Err(ConfigError::new(field, ConfigReason::Required)),
            }
        }
        read_performance(&mut fields)?;
        let backoff_start = seconds(&mut fields, "podInitialBackoffSeconds", BACKOFF_START)?;
        let backoff_longest = seconds(&mut fields, "podMaxBackoffSeconds", BACKOFF_LONGEST)?;
        if backoff_longest < backoff_start {
            let expected = "must be greater than or equal to PodInitialBackoffSeconds";
            return Err(fields.invalid("podMaxBackoffSeconds", backoff_longest.as_secs(), expected));
        }
        let leader_election = leader_election(fields.fields("leaderElection")?)?;
        let kubeconfig = client_connection(fields.fields("clientConnection")?)?;
        let extenders = extenders::read_all(&mut fields)?;
        let profiles = profile::read_all(&mut fields, registry, &extenders)?;
        fields.end()?;
        Ok(Self { profiles, backoff_start, backoff_longest, leader_election, kubeconfig })
    }
}

/// What only says how to be fast. Here every node is considered, by one thread.
fn read_performance(fields: &mut Fields) -> Result<(), ConfigError> {
    fields.number("parallelism", 1, MOST)?;
    enough_nodes(fields)?;
    for field in ["enableProfiling", "enableContentionProfiling", "delayCacheUntilActive"] {
        fields.flag(field)?;
    }
    Ok(())
}

/// The share of the nodes that is enough. More than enough are looked at here: all of them, whatever it says.
fn enough_nodes(fields: &mut Fields) -> Result<(), ConfigError> {
    fields.number("percentageOfNodesToScore", 0, 100).map(drop)
}

fn seconds(fields: &mut Fields, field: &str, default: Duration) -> Result<Duration, ConfigError> {
    let seconds = fields.number(field, 1, MOST)?;
    Ok(seconds.map_or(default, |seconds| Duration::from_secs(seconds.unsigned_abs())))
}

fn leader_election(mut fields: Fields) -> Result<Option<LeaderElection>, ConfigError> {
    let elects = fields.flag("leaderElect")?.unwrap_or(true);
    if let Some(lock) = fields.text("resourceLock")?.filter(|lock| lock != "leases") {
        return Err(fields.invalid("resourceLock", lock, "must be leases"));
    }
    let namespace = fields.text("resourceNamespace")?.unwrap_or_else(|| "kube-system".to_owned());
    let name = fields.text("resourceName")?.unwrap_or_else(|| "kube-scheduler".to_owned());
    let mut election = LeaderElection::new(&namespace, &name, "kube-scheduler");
    for (field, time) in [
        ("leaseDuration", &mut election.lease_duration),
        ("renewDeadline", &mut election.renew_deadline),
        ("retryPeriod", &mut election.retry_period),
    ] {
        if let Some(written) = fields.time(field, Duration::from_nanos(1), "must be greater than zero")? {
            *time = written;
        }
    }
    if election.lease_duration <= election.renew_deadline {
        let expected = "LeaseDuration must be greater than RenewDeadline";
        return Err(fields.invalid("leaseDuration", format!("{:?}", election.lease_duration), expected));
    }
    fields.end()?;
    Ok(elects.then_some(election))
}

fn client_connection(mut fields: Fields) -> Result<Option<String>, ConfigError> {
    let kubeconfig = fields.text("kubeconfig")?.filter(|file| !file.is_empty());
    for field in ["acceptContentTypes", "contentType"] {
        if fields.text(field)?.is_some_and(|kind| !kind.is_empty() && !kind.contains("application/json")) {
            return Err(ConfigError::new(fields.path(field), ConfigReason::Unsupported("other than application/json")));
        }
    }
    for field in ["qps", "burst"] {
        if fields.take(field).is_some() {
            let reason = ConfigReason::Unsupported("the API server says how much it bears");
            return Err(ConfigError::new(fields.path(field), reason));
        }
    }
    fields.end()?;
    Ok(kubeconfig)
}
