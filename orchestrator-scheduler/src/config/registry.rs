//! Plugins by their names, with the points at which they take part.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{Fields, args};
use crate::{
    config::ConfigError,
    framework::{Bind, Permit, PostBind, PostFilter, PreBind, PreEnqueue, PreFilter, PreScore, QueueSort, Reserve},
    plugins,
};

/// A plugin, once for each point at which it takes part.
#[derive(Clone, Default)]
pub struct Parts {
    /// Keeps pods out of the queue.
    pub pre_enqueue: Option<Arc<dyn PreEnqueue>>,
    /// Orders the queue.
    pub queue_sort: Option<Arc<dyn QueueSort>>,
    /// Refuses nodes.
    pub filter: Option<Arc<dyn PreFilter>>,
    /// Makes room.
    pub post_filter: Option<Arc<dyn PostFilter>>,
    /// Compares nodes.
    pub score: Option<Arc<dyn PreScore>>,
    /// Notes what is used.
    pub reserve: Option<Arc<dyn Reserve>>,
    /// Lets pods wait.
    pub permit: Option<Arc<dyn Permit>>,
    /// Prepares.
    pub pre_bind: Option<Arc<dyn PreBind>>,
    /// Binds.
    pub bind: Option<Arc<dyn Bind>>,
    /// Is told.
    pub post_bind: Option<Arc<dyn PostBind>>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// Makes a plugin of its arguments.
type Make = Arc<dyn Fn(Arguments) -> Result<Parts, ConfigError> + Send + Sync>;

/// The arguments of a plugin, as the configuration has them.
#[derive(Debug)]
pub struct Arguments(pub(super) Fields);

impl Arguments {
    /// All of them, decoded; fields that the type does not have are refused.
    pub fn decode<T: serde::de::DeserializeOwned + serde::Serialize>(self) -> Result<T, ConfigError> {
        self.0.decode()
    }

    /// There are none.
    pub fn none(self) -> Result<(), ConfigError> {
        self.0.end()
    }
}

/// The plugins that a configuration may name.
#[derive(Clone)]
pub struct Registry {
    pub(super) plugins: BTreeMap<String, Make>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.plugins.keys()).finish()
    }
}

impl Default for Registry {
    /// All of this crate.
    fn default() -> Self {
        let mut registry = Self { plugins: BTreeMap::new() };
        args::register(&mut registry);
        registry
    }
}

impl Registry {
    /// Adds a plugin. It takes the place of one of the same name.
    pub fn add(
        &mut self,
        name: &str,
        make: impl Fn(Arguments) -> Result<Parts, ConfigError> + Send + Sync + 'static,
    ) -> &mut Self {
        self.plugins.insert(name.to_owned(), Arc::new(make));
        self
    }
}

/// The names and weights of the plugins that are on unless they are switched off, in their order.
pub(super) const DEFAULTS: [(&str, i64); 19] = [
    ("SchedulingGates", 0),
    ("PrioritySort", 0),
    ("NodeUnschedulable", 0),
    ("NodeName", 0),
    ("TaintToleration", 3),
    ("NodeAffinity", 2),
    ("NodePorts", 0),
    ("NodeResourcesFit", 1),
    ("VolumeRestrictions", 0),
    ("NodeVolumeLimits", 0),
    ("VolumeBinding", 0),
    ("VolumeZone", 0),
    ("PodTopologySpread", 2),
    ("InterPodAffinity", 2),
    ("DynamicResources", 0),
    ("DefaultPreemption", 0),
    ("NodeResourcesBalancedAllocation", 1),
    ("ImageLocality", 1),
    ("DefaultBinder", 0),
];

/// One object that takes part at several points.
pub(super) fn shared<P>(plugin: P, parts: impl FnOnce(Arc<P>) -> Parts) -> Parts {
    parts(Arc::new(plugin))
}

/// The plugins without arguments.
pub(super) fn plain(name: &str) -> Option<Parts> {
    Some(match name {
        "SchedulingGates" => Parts { pre_enqueue: Some(Arc::new(plugins::SchedulingGates)), ..Parts::default() },
        "PrioritySort" => Parts { queue_sort: Some(Arc::new(plugins::PrioritySort)), ..Parts::default() },
        "NodeUnschedulable" => filter(plugins::NodeUnschedulable),
        "NodeName" => filter(plugins::NodeName),
        "NodePorts" => filter(plugins::NodePorts),
        "VolumeRestrictions" => filter(plugins::VolumeRestrictions),
        "NodeVolumeLimits" => filter(plugins::NodeVolumeLimits),
        "VolumeZone" => filter(plugins::VolumeZone),
        "TaintToleration" => shared(plugins::TaintToleration, |plugin| Parts {
            filter: Some(plugin.clone()),
            score: Some(plugin),
            ..Parts::default()
        }),
        "ImageLocality" => Parts { score: Some(Arc::new(plugins::ImageLocality)), ..Parts::default() },
        "DefaultBinder" => Parts { bind: Some(Arc::new(plugins::DefaultBinder)), ..Parts::default() },
        _ => return None,
    })
}

fn filter(plugin: impl PreFilter) -> Parts {
    Parts { filter: Some(Arc::new(plugin)), ..Parts::default() }
}
