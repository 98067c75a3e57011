//! Profiles: which plugins take part at which points, by the defaults and what is switched on and off.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    ConfigError, ConfigReason, Fields, enough_nodes,
    extenders::Extenders,
    registry::{Arguments, DEFAULTS, Parts, Registry},
};
use crate::framework::{DEFAULT_SCHEDULER_NAME, Profile};

/// The points of upstream. Those on the right go with those on the left here.
const POINTS: [&str; 10] =
    ["preEnqueue", "queueSort", "filter", "postFilter", "score", "reserve", "permit", "preBind", "bind", "postBind"];
const TOGETHER: [(&str, &str); 2] = [("filter", "preFilter"), ("score", "preScore")];

/// All profiles; the default one if there are none.
pub(super) fn read_all(
    fields: &mut Fields,
    registry: &Registry,
    extenders: &Extenders,
) -> Result<Vec<Profile>, ConfigError> {
    let written = fields.list("profiles")?.filter(|profiles| !profiles.is_empty());
    let written = written.unwrap_or_else(|| vec![("profiles[0]".to_owned(), Value::Null)]);
    let mut profiles: Vec<Profile> = Vec::new();
    for (path, profile) in written {
        let mut profile = read(Fields::new(path.clone(), profile)?, registry, &extenders.ignored_resources)?;
        profile.extenders.clone_from(&extenders.all);
        if profiles.iter().any(|known| known.name == profile.name) {
            let reason = ConfigReason::Duplicate(profile.name);
            return Err(ConfigError::new(format!("{path}.schedulerName"), reason));
        }
        let sort = |profile: &Profile| profile.queue_sort.name();
        if profiles.first().is_some_and(|first| sort(first) != sort(&profile)) {
            let reason = ConfigReason::Unsupported("profiles share one queue, which one plugin sorts");
            return Err(ConfigError::new(format!("{path}.plugins.queueSort"), reason));
        }
        profiles.push(profile);
    }
    Ok(profiles)
}

fn read(mut fields: Fields, registry: &Registry, ignored_resources: &[String]) -> Result<Profile, ConfigError> {
    let path = fields.path("plugins");
    let name = fields.text("schedulerName")?.filter(|name| !name.is_empty());
    enough_nodes(&mut fields)?;
    let sets = Sets::read(fields.fields("plugins")?, registry)?;
    let mut arguments = BTreeMap::new();
    for (path, item) in fields.list("pluginConfig")?.unwrap_or_default() {
        let mut item = Fields::new(path, item)?;
        let name = item.text("name")?.unwrap_or_default();
        if !registry.plugins.contains_key(&name) {
            return Err(ConfigError::new(item.path("name"), ConfigReason::UnknownPlugin(name)));
        }
        let mut args = item.fields("args")?;
        read_kind(&mut args, &name)?;
        if arguments.contains_key(&name) {
            return Err(ConfigError::new(item.path("name"), ConfigReason::Duplicate(name)));
        }
        item.end()?;
        arguments.insert(name, args);
    }
    fields.end()?;
    if !ignored_resources.is_empty() {
        let fit = arguments.entry("NodeResourcesFit".to_owned()).or_insert(Fields::new("", Value::Null)?);
        fit.extend_list("ignoredResources", ignored_resources);
    }
    let mut made = BTreeMap::new();
    for name in registry.plugins.keys() {
        let given = arguments.remove(name).map_or_else(|| Fields::new("", Value::Null), Ok)?;
        if let Some(make) = registry.plugins.get(name).filter(|_| sets.names(name) || !given.is_empty()) {
            made.insert(name.clone(), make(Arguments(given))?);
        }
    }
    build(name.unwrap_or_else(|| DEFAULT_SCHEDULER_NAME.to_owned()), &path, &sets, &made)
}

/// Arguments may say what they are.
fn read_kind(args: &mut Fields, plugin: &str) -> Result<(), ConfigError> {
    let expected = [("apiVersion", super::API_VERSION.to_owned()), ("kind", format!("{plugin}Args"))];
    for (field, expected) in expected {
        if let Some(text) = args.text(field)?.filter(|text| *text != expected) {
            return Err(args.invalid(field, text, &format!("must be {expected}")));
        }
    }
    Ok(())
}

/// Plugins switched on, with their weights, and off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Set {
    path: String,
    enabled: Vec<(String, i64)>,
    disabled: BTreeSet<String>,
}

impl Set {
    fn read(mut fields: Fields, registry: &Registry) -> Result<Self, ConfigError> {
        let mut set = Self { path: fields.path("enabled"), ..Self::default() };
        for (path, item) in fields.list("enabled")?.unwrap_or_default() {
            let mut item = Fields::new(path, item)?;
            let name = item.text("name")?.unwrap_or_default();
            if !registry.plugins.contains_key(&name) {
                return Err(ConfigError::new(item.path("name"), ConfigReason::UnknownPlugin(name)));
            }
            if set.enabled.iter().any(|(known, _)| *known == name) {
                return Err(ConfigError::new(item.path("name"), ConfigReason::Duplicate(name)));
            }
            let weight = item.number("weight", 0, super::MOST)?.unwrap_or(0);
            item.end()?;
            set.enabled.push((name, weight));
        }
        for (path, item) in fields.list("disabled")?.unwrap_or_default() {
            let mut item = Fields::new(path, item)?;
            let name = item.text("name")?.unwrap_or_default();
            if name != "*" && !registry.plugins.contains_key(&name) {
                return Err(ConfigError::new(item.path("name"), ConfigReason::UnknownPlugin(name)));
            }
            item.number("weight", 0, super::MOST)?;
            item.end()?;
            set.disabled.insert(name);
        }
        fields.end()?;
        Ok(set)
    }

    fn disables(&self, name: &str) -> bool {
        self.disabled.contains("*") || self.disabled.contains(name)
    }

    fn is_empty(&self) -> bool {
        self.enabled.is_empty() && self.disabled.is_empty()
    }
}

/// What is switched on at all points at once, and at single points.
struct Sets {
    everywhere: Vec<(String, i64)>,
    points: BTreeMap<&'static str, Set>,
}

impl Sets {
    fn read(mut fields: Fields, registry: &Registry) -> Result<Self, ConfigError> {
        let multi = Set::read(fields.fields("multiPoint")?, registry)?;
        let mut points = BTreeMap::new();
        for point in POINTS {
            points.insert(point, Set::read(fields.fields(point)?, registry)?);
        }
        for (point, other) in TOGETHER {
            let set = Set::read(fields.fields(other)?, registry)?;
            let names = |set: &Set| set.enabled.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            let same = points.get(point).is_some_and(|of| of.disabled == set.disabled && names(of) == names(&set));
            if !set.is_empty() && !same {
                let reason = ConfigReason::Unsupported("a plugin takes part in both it and the point it prepares");
                return Err(ConfigError::new(fields.path(other), reason));
            }
        }
        fields.end()?;
        Ok(Self { everywhere: everywhere(&multi), points })
    }

    fn names(&self, name: &str) -> bool {
        let enabled = self.points.values().flat_map(|set| &set.enabled);
        self.everywhere.iter().chain(enabled).any(|(known, _)| known == name)
    }

    /// The plugins of a point, in order, with weights: those that this point itself names in place of what stands
    /// everywhere, what stands everywhere, and what this point adds.
    fn at(&self, point: &str, takes_part: &dyn Fn(&str) -> bool) -> Result<Vec<(String, i64)>, ConfigError> {
        let none = Set::default();
        let set = self.points.get(point).unwrap_or(&none);
        let wrong = set.enabled.iter().position(|(name, _)| !takes_part(name));
        if let Some(at) = wrong {
            let reason = ConfigReason::UnknownPlugin(set.enabled[at].0.clone());
            return Err(ConfigError::new(format!("{}[{at}].name", set.path), reason));
        }
        let is_everywhere = |name: &str| self.everywhere.iter().any(|(known, _)| known == name);
        let is_here = |name: &str| set.enabled.iter().any(|(known, _)| known == name);
        let (instead, added): (Vec<_>, Vec<_>) = set.enabled.iter().cloned().partition(|(name, _)| is_everywhere(name));
        let rest = self.everywhere.iter().filter(|(name, _)| !is_here(name) && !set.disables(name) && takes_part(name));
        Ok(instead.into_iter().chain(rest.cloned()).chain(added).collect())
    }
}

/// The defaults, with what is switched off and on at all points.
fn everywhere(multi: &Set) -> Vec<(String, i64)> {
    let mut all: Vec<(String, i64)> = Vec::new();
    for (name, weight) in DEFAULTS.iter().filter(|(name, _)| !multi.disables(name)) {
        let own = multi.enabled.iter().find(|(enabled, _)| enabled == name).map(|(_, weight)| *weight);
        all.push(((*name).to_owned(), own.unwrap_or(*weight)));
    }
    let added = multi.enabled.iter().filter(|(name, _)| !all.iter().any(|(known, _)| known == name));
    let added: Vec<_> = added.cloned().collect();
    all.extend(added);
    all
}

fn build(name: String, path: &str, sets: &Sets, made: &BTreeMap<String, Parts>) -> Result<Profile, ConfigError> {
    /// The plugins of a point, with weights.
    macro_rules! parts {
        ($point:literal, $part:ident) => {{
            let part = |name: &str| made.get(name).and_then(|parts| parts.$part.clone());
            let plugins = sets.at($point, &|name| part(name).is_some())?;
            plugins.into_iter().filter_map(|(name, weight)| Some((weight, part(&name)?))).collect::<Vec<_>>()
        }};
    }
    let missing = |point: &str| ConfigError::new(format!("{path}.{point}.enabled"), ConfigReason::Required);
    let mut sorts = parts!("queueSort", queue_sort).into_iter();
    let (Some((_, queue_sort)), None) = (sorts.next(), sorts.next()) else { return Err(missing("queueSort")) };
    let bind = without_weights(parts!("bind", bind));
    if bind.is_empty() {
        return Err(missing("bind"));
    }
    let scores = parts!("score", score).into_iter().map(|(weight, plugin)| (weight.max(1), plugin)).collect();
    Ok(Profile {
        name,
        queue_sort,
        pre_enqueue: without_weights(parts!("preEnqueue", pre_enqueue)),
        filters: without_weights(parts!("filter", filter)),
        post_filters: without_weights(parts!("postFilter", post_filter)),
        scores,
        reserve: without_weights(parts!("reserve", reserve)),
        permit: without_weights(parts!("permit", permit)),
        pre_bind: without_weights(parts!("preBind", pre_bind)),
        bind,
        post_bind: without_weights(parts!("postBind", post_bind)),
        extenders: Vec::new(),
    })
}

fn without_weights<P>(plugins: Vec<(i64, P)>) -> Vec<P> {
    plugins.into_iter().map(|(_, plugin)| plugin).collect()
}
