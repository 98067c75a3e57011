//! The arguments of upstream's plugins.

use std::time::Duration;

use k8s_openapi::api::core::v1::{NodeAffinity as AddedAffinity, TopologySpreadConstraint};
use serde_json::Value;

use super::{
    ConfigError, ConfigReason, Fields,
    registry::{Arguments, Parts, Registry, plain, shared},
};
use crate::limits::{DEVICE_BINDING_LONGEST, DEVICE_FILTER_LONGEST};
use crate::plugins::{
    DefaultPreemption, Defaults, DynamicResources, InterPodAffinity, NodeAffinity, NodeResourcesBalancedAllocation,
    NodeResourcesFit, PodTopologySpread, ScoredResource, ShapePoint, Strategy, VolumeBinding,
};

const PLAIN: [&str; 11] = [
    "SchedulingGates",
    "PrioritySort",
    "NodeUnschedulable",
    "NodeName",
    "NodePorts",
    "VolumeRestrictions",
    "NodeVolumeLimits",
    "VolumeZone",
    "TaintToleration",
    "ImageLocality",
    "DefaultBinder",
];

/// All plugins of this crate.
pub(super) fn register(registry: &mut Registry) {
    for name in PLAIN {
        registry.add(name, move |arguments| arguments.none().map(|()| plain(name).unwrap_or_default()));
    }
    registry.add("NodeAffinity", node_affinity);
    registry.add("NodeResourcesFit", node_resources_fit);
    registry.add("NodeResourcesBalancedAllocation", balanced_allocation);
    registry.add("PodTopologySpread", pod_topology_spread);
    registry.add("InterPodAffinity", inter_pod_affinity);
    registry.add("DefaultPreemption", default_preemption);
    registry.add("VolumeBinding", volume_binding);
    registry.add("DynamicResources", dynamic_resources);
}

fn node_affinity(Arguments(mut fields): Arguments) -> Result<Parts, ConfigError> {
    let added: Option<AddedAffinity> = fields.object("addedAffinity")?;
    fields.end()?;
    Ok(shared(NodeAffinity::new(added), |plugin| Parts {
        filter: Some(plugin.clone()),
        score: Some(plugin),
        ..Parts::default()
    }))
}

fn node_resources_fit(Arguments(mut fields): Arguments) -> Result<Parts, ConfigError> {
    let mut texts = |field: &str| {
        let items = fields.list(field)?.unwrap_or_default();
        let text = |(path, item): (String, Value)| match item {
            Value::String(text) => Ok(text),
            _ => Err(ConfigError::new(path, ConfigReason::Type("a string"))),
        };
        items.into_iter().map(text).collect::<Result<_, _>>()
    };
    let (ignored, ignored_groups) = (texts("ignoredResources")?, texts("ignoredResourceGroups")?);
    let (strategy, resources) = scoring_strategy(fields.fields("scoringStrategy")?)?;
    fields.end()?;
    Ok(shared(NodeResourcesFit { strategy, resources, ignored, ignored_groups }, |plugin| Parts {
        filter: Some(plugin.clone()),
        score: Some(plugin),
        ..Parts::default()
    }))
}

fn scoring_strategy(mut fields: Fields) -> Result<(Strategy, Vec<ScoredResource>), ConfigError> {
    let kind = fields.text("type")?.unwrap_or_else(|| "LeastAllocated".to_owned());
    let resources = resources(&mut fields, 100)?;
    let ratio = fields.fields("requestedToCapacityRatio")?;
    let strategy = match kind.as_str() {
        "LeastAllocated" => Strategy::LeastAllocated,
        "MostAllocated" => Strategy::MostAllocated,
        "RequestedToCapacityRatio" => return Ok((Strategy::RequestedToCapacityRatio(shape(ratio)?), resources)),
        other => {
            let known = "must be one of LeastAllocated, MostAllocated, RequestedToCapacityRatio";
            return Err(fields.invalid("type", other, known));
        }
    };
    ratio.end()?;
    fields.end()?;
    Ok((strategy, resources))
}

/// Resources with weights; CPU and memory if there are none.
fn resources(fields: &mut Fields, most: i64) -> Result<Vec<ScoredResource>, ConfigError> {
    let mut resources: Vec<ScoredResource> = Vec::new();
    for (path, item) in fields.list("resources")?.unwrap_or_default() {
        let mut item = Fields::new(path, item)?;
        let name = item.text("name")?.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| ConfigError::new(item.path("name"), ConfigReason::Required))?;
        if resources.iter().any(|known| known.name == name) {
            return Err(ConfigError::new(item.path("name"), ConfigReason::Duplicate(name)));
        }
        let weight = item.number("weight", 1, most)?.unwrap_or(1);
        item.end()?;
        resources.push(ScoredResource { name, weight });
    }
    Ok(if resources.is_empty() { ScoredResource::usual() } else { resources })
}

fn shape(mut fields: Fields) -> Result<Vec<ShapePoint>, ConfigError> {
    let mut shape: Vec<ShapePoint> = Vec::new();
    for (path, item) in fields.list("shape")?.unwrap_or_default() {
        let mut item = Fields::new(path, item)?;
        let utilization = item.number("utilization", 0, 100)?.unwrap_or(0);
        if shape.last().is_some_and(|last| last.utilization >= utilization) {
            return Err(item.invalid("utilization", utilization, "must be sorted in increasing order"));
        }
        let score = item.number("score", 0, 10)?.unwrap_or(0);
        item.end()?;
        shape.push(ShapePoint { utilization, score });
    }
    if shape.is_empty() {
        return Err(ConfigError::new(fields.path("shape"), ConfigReason::Required));
    }
    fields.end()?;
    Ok(shape)
}

fn balanced_allocation(Arguments(mut fields): Arguments) -> Result<Parts, ConfigError> {
    let resources = resources(&mut fields, 1)?;
    fields.end()?;
    let plugin = NodeResourcesBalancedAllocation::new(resources);
    Ok(Parts { score: Some(std::sync::Arc::new(plugin)), ..Parts::default() })
}

fn pod_topology_spread(Arguments(mut fields): Arguments) -> Result<Parts, ConfigError> {
    let kind = fields.text("defaultingType")?.unwrap_or_else(|| "System".to_owned());
    let mut constraints = Vec::new();
    for (path, item) in fields.list("defaultConstraints")?.unwrap_or_default() {
        let constraint: TopologySpreadConstraint = super::fields::whole(path.clone(), item)?;
        let refuse = |field: &str, value: String, expected: &str| {
            let reason = ConfigReason::Invalid { value, expected: expected.to_owned() };
            Err(ConfigError::new(format!("{path}.{field}"), reason))
        };
        if constraint.label_selector.is_some() {
            return refuse("labelSelector", "it".to_owned(), "constraint must not define a selector");
        }
        if constraint.max_skew <= 0 {
            return refuse("maxSkew", constraint.max_skew.to_string(), "not in valid range (0-)");
        }
        if constraint.topology_key.is_empty() {
            return Err(ConfigError::new(format!("{path}.topologyKey"), ConfigReason::Required));
        }
        if !matches!(constraint.when_unsatisfiable.as_str(), "DoNotSchedule" | "ScheduleAnyway") {
            let value = constraint.when_unsatisfiable;
            return refuse("whenUnsatisfiable", value, "must be one of DoNotSchedule, ScheduleAnyway");
        }
        constraints.push(constraint);
    }
    let defaults = match kind.as_str() {
        "System" if constraints.is_empty() => Defaults::System,
        "System" => {
            return Err(fields.invalid("defaultingType", kind, "when .defaultConstraints are not empty, must be List"));
        }
        "List" => Defaults::List(constraints),
        _ => return Err(fields.invalid("defaultingType", kind, "must be one of System, List")),
    };
    fields.end()?;
    Ok(shared(PodTopologySpread::new(defaults), |plugin| Parts {
        filter: Some(plugin.clone()),
        score: Some(plugin),
        ..Parts::default()
    }))
}

fn inter_pod_affinity(Arguments(mut fields): Arguments) -> Result<Parts, ConfigError> {
    let weight = fields.number("hardPodAffinityWeight", 0, 100)?.unwrap_or(1);
    let ignore = fields.flag("ignorePreferredTermsOfExistingPods")?.unwrap_or(false);
    fields.end()?;
    Ok(shared(InterPodAffinity::new(weight, ignore), |plugin| Parts {
        filter: Some(plugin.clone()),
        score: Some(plugin),
        ..Parts::default()
    }))
}

fn default_preemption(Arguments(mut fields): Arguments) -> Result<Parts, ConfigError> {
    let percentage = fields.number("minCandidateNodesPercentage", 0, 100)?.unwrap_or(10);
    let absolute = fields.number("minCandidateNodesAbsolute", 0, i64::from(i32::MAX))?.unwrap_or(100);
    if percentage == 0 && absolute == 0 {
        let expected = "cannot be zero at the same time as minCandidateNodesAbsolute";
        return Err(fields.invalid("minCandidateNodesPercentage", 0, expected));
    }
    fields.end()?;
    let plugin = DefaultPreemption::new(percentage as usize, absolute as usize);
    Ok(Parts { post_filter: Some(std::sync::Arc::new(plugin)), ..Parts::default() })
}

fn volume_binding(Arguments(mut fields): Arguments) -> Result<Parts, ConfigError> {
    let timeout = fields.number("bindTimeoutSeconds", 0, i64::MAX)?.unwrap_or(600);
    if fields.take("shape").is_some() {
        let reason = ConfigReason::Unsupported("scores by the capacity of storage");
        return Err(ConfigError::new(fields.path("shape"), reason));
    }
    fields.end()?;
    let plugin = VolumeBinding::new(Duration::from_secs(timeout.unsigned_abs()));
    Ok(shared(plugin, |plugin| Parts {
        filter: Some(plugin.clone()),
        reserve: Some(plugin.clone()),
        pre_bind: Some(plugin),
        ..Parts::default()
    }))
}

fn dynamic_resources(Arguments(mut fields): Arguments) -> Result<Parts, ConfigError> {
    let filter = fields.time("filterTimeout", Duration::ZERO, "must be zero or positive")?;
    let binding = fields.time("bindingTimeout", Duration::from_secs(1), "must be at least 1 second")?;
    let (filter, binding) = (filter.unwrap_or(DEVICE_FILTER_LONGEST), binding.unwrap_or(DEVICE_BINDING_LONGEST));
    fields.end()?;
    Ok(shared(DynamicResources::new(filter, binding), |plugin| Parts {
        pre_enqueue: Some(plugin.clone()),
        filter: Some(plugin.clone()),
        post_filter: Some(plugin.clone()),
        score: Some(plugin.clone()),
        reserve: Some(plugin.clone()),
        pre_bind: Some(plugin.clone()),
        post_bind: Some(plugin),
        ..Parts::default()
    }))
}
