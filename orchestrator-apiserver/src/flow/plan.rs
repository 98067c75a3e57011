//! Flow schemas and priority levels, ready to be asked.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use bytes::Bytes;
use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, LimitedPriorityLevelConfiguration, PolicyRulesWithSubjects, PriorityLevelConfiguration,
};
use orchestrator_core::env::Env;

use super::{
    borrowing::{self, Bounds},
    crowd::Crowd,
    demand::Observed,
    matching::{self, Asked, matches},
    queues::Shape,
    room::Room,
};
use crate::{limits, metrics::FlowCounts};

/// The schema and level of whatever no other schema is about.
pub(super) const CATCH_ALL: &str = "catch-all";

/// Precedence of schemas that do not say; upstream's.
const USUAL_PRECEDENCE: i32 = 1000;

/// What decides about requests.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The first one that matches counts.
    schemas: Vec<Arc<Flow>>,
    /// By level. What a level does goes on when its object changes.
    places: BTreeMap<String, Place>,
    /// What each level may have, and where its requests are.
    bounds: Vec<(Bounds, Place)>,
}

/// Where the requests of a level are.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// The level has a limit.
    Limited(Arc<Room>),
    /// It has none, and is counted only.
    Exempt(Arc<Crowd>),
}

/// A flow schema with its level.
#[derive(Debug)]
pub(crate) struct Flow {
    name: String,
    level: String,
    counts: Arc<FlowCounts>,
    uid: Bytes,
    level_uid: Bytes,
    rules: Vec<PolicyRulesWithSubjects>,
    distinguisher: Distinguisher,
    place: Place,
}

/// What tells apart the flows of one schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distinguisher {
    Nothing,
    User,
    Namespace,
}

impl Plan {
    /// Levels share so many seats, and keep what they do now.
    pub(super) fn new(
        env: &Env,
        seats: usize,
        levels: &[Arc<PriorityLevelConfiguration>],
        schemas: &[Arc<FlowSchema>],
        before: &Self,
    ) -> Self {
        let shares: Vec<usize> = levels.iter().map(|level| shares(level)).collect();
        let (mut places, mut bounds) = (BTreeMap::new(), Vec::new());
        for (level, nominal) in levels.iter().zip(divide(seats, &shares)) {
            let Some(name) = &level.metadata.name else { continue };
            let (limits, place) = match limited(level) {
                Some(limited) => {
                    let borrowing = limited.borrowing_limit_percent;
                    let limits = Bounds::new(nominal, limited.lendable_percent, borrowing, seats);
                    (limits, Place::Limited(before.room(env, name, shape(limited, nominal))))
                }
                None => {
                    let exempt = level.spec.as_ref().and_then(|spec| spec.exempt.as_ref());
                    let limits = Bounds::exempt(nominal, exempt.and_then(|exempt| exempt.lendable_percent));
                    (limits, Place::Exempt(before.crowd(env, name)))
                }
            };
            places.insert(name.clone(), place.clone());
            bounds.push((limits, place));
        }
        let mut schemas: Vec<&Arc<FlowSchema>> = schemas.iter().collect();
        schemas.sort_by_key(|schema| (precedence(schema), &schema.metadata.name));
        let schemas =
            schemas.into_iter().filter_map(|schema| flow(schema, levels, &places, before)).map(Arc::new).collect();
        Self { schemas, places, bounds }
    }

    /// The room of a level, which is the one that it had.
    fn room(&self, env: &Env, level: &str, shape: Shape) -> Arc<Room> {
        let Some(Place::Limited(room)) = self.places.get(level) else { return Arc::new(Room::new(env, shape)) };
        room.reshape(shape);
        room.clone()
    }

    /// Those whom a level without a limit serves.
    fn crowd(&self, env: &Env, level: &str) -> Arc<Crowd> {
        let Some(Place::Exempt(crowd)) = self.places.get(level) else { return Arc::new(Crowd::new(env)) };
        crowd.clone()
    }

    /// Lets levels lend each other what they did not need since this was last done.
    pub(super) fn adjust(&self) {
        let levels: Vec<_> = self.bounds.iter().map(|(bounds, place)| (*bounds, place.observe())).collect();
        for ((_, place), seats) in self.bounds.iter().zip(borrowing::divide(&levels)) {
            if let Place::Limited(room) = place {
                room.seat_so_many(seats);
            }
        }
    }

    /// Whether anybody runs or waits.
    pub(super) fn is_busy(&self) -> bool {
        self.places.values().any(|place| match place {
            Place::Limited(room) => room.is_busy(),
            Place::Exempt(crowd) => crowd.is_busy(),
        })
    }

    /// Whether there are no schemas.
    pub(super) fn is_empty(&self) -> bool {
        self.schemas.is_empty()
    }

    /// What each schema counts, by level and name.
    pub(super) fn counts(&self) -> Vec<(String, String, Arc<FlowCounts>)> {
        self.schemas.iter().map(|flow| (flow.level.clone(), flow.name.clone(), flow.counts.clone())).collect()
    }

    /// The schema that decides about a request: the first one that is about it, or the last resort.
    pub(super) fn find(&self, asked: &Asked<'_>) -> Option<&Arc<Flow>> {
        let found = self.schemas.iter().find(|flow| flow.rules.iter().any(|rule| matches(rule, asked)));
        found.or_else(|| self.schemas.iter().find(|flow| flow.name == CATCH_ALL))
    }
}

impl Place {
    fn observe(&self) -> Observed {
        match self {
            Self::Limited(room) => room.observe(),
            Self::Exempt(crowd) => crowd.observe(),
        }
    }
}

impl Flow {
    /// What it has counted.
    pub(crate) fn counts(&self) -> &FlowCounts {
        &self.counts
    }

    /// The schema's UID.
    pub(crate) fn uid(&self) -> &Bytes {
        &self.uid
    }

    /// The level's UID.
    pub(crate) fn level_uid(&self) -> &Bytes {
        &self.level_uid
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// A number for the flow that a request belongs to.
    pub(super) fn hash_of(&self, asked: &Asked<'_>) -> u64 {
        let distinguisher = match (self.distinguisher, asked.place) {
            (Distinguisher::User, _) => asked.user.name.as_str(),
            (Distinguisher::Namespace, matching::Place::Resource { namespace, .. }) => namespace,
            _ => "",
        };
        let mut hasher = DefaultHasher::new();
        (self.name.as_str(), distinguisher).hash(&mut hasher);
        hasher.finish()
    }
}

/// `None` for schemas of levels that do not exist: upstream passes over them, too.
fn flow(
    schema: &FlowSchema,
    levels: &[Arc<PriorityLevelConfiguration>],
    places: &BTreeMap<String, Place>,
    before: &Plan,
) -> Option<Flow> {
    let spec = schema.spec.as_ref()?;
    let level = levels
        .iter()
        .find(|level| level.metadata.name.as_deref() == Some(spec.priority_level_configuration.name.as_str()))?;
    let uid = |uid: &Option<String>| Bytes::from(uid.clone().unwrap_or_default());
    let distinguisher = match spec.distinguisher_method.as_ref().map(|method| method.type_.as_str()) {
        Some("ByUser") => Distinguisher::User,
        Some("ByNamespace") => Distinguisher::Namespace,
        _ => Distinguisher::Nothing,
    };
    let name = schema.metadata.name.clone().unwrap_or_default();
    let same = |flow: &&Arc<Flow>| flow.name == name && flow.level == spec.priority_level_configuration.name;
    Some(Flow {
        counts: before.schemas.iter().find(same).map(|flow| flow.counts.clone()).unwrap_or_default(),
        name,
        level: spec.priority_level_configuration.name.clone(),
        uid: uid(&schema.metadata.uid),
        level_uid: uid(&level.metadata.uid),
        rules: spec.rules.clone().unwrap_or_default(),
        distinguisher,
        place: places.get(&spec.priority_level_configuration.name)?.clone(),
    })
}

fn precedence(schema: &FlowSchema) -> i32 {
    schema.spec.as_ref().and_then(|spec| spec.matching_precedence).unwrap_or(USUAL_PRECEDENCE)
}

fn limited(level: &PriorityLevelConfiguration) -> Option<&LimitedPriorityLevelConfiguration> {
    level.spec.as_ref().filter(|spec| spec.type_ == "Limited").and_then(|spec| spec.limited.as_ref())
}

fn shares(level: &PriorityLevelConfiguration) -> usize {
    let exempt = level.spec.as_ref().and_then(|spec| spec.exempt.as_ref());
    let shares = match limited(level) {
        Some(limited) => limited.nominal_concurrency_shares.unwrap_or(30),
        None => exempt.and_then(|exempt| exempt.nominal_concurrency_shares).unwrap_or(0),
    };
    usize::try_from(shares).unwrap_or(0)
}

/// The seats of each level: its part by shares, rounded up.
fn divide(seats: usize, shares: &[usize]) -> Vec<usize> {
    let sum: u128 = shares.iter().map(|shares| *shares as u128).sum();
    let part = |shares: &usize| (seats as u128 * *shares as u128).div_ceil(sum.max(1)) as usize;
    shares.iter().map(part).collect()
}

fn shape(limited: &LimitedPriorityLevelConfiguration, seats: usize) -> Shape {
    let response = limited.limit_response.as_ref().filter(|response| response.type_ == "Queue");
    let Some(response) = response else { return Shape { seats, queues: 0, hand: 0, length: 0 } };
    let queuing = response.queuing.clone().unwrap_or_default();
    let number = |given: Option<i32>, usual: usize, most: usize| {
        given.map_or(usual, |given| usize::try_from(given).unwrap_or(0)).clamp(1, most)
    };
    Shape {
        seats,
        queues: number(queuing.queues, 64, limits::LEVEL_QUEUES),
        hand: number(queuing.hand_size, 8, limits::HAND_QUEUES),
        length: number(queuing.queue_length_limit, 50, limits::QUEUE_REQUESTS),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn seats_are_divided_by_shares(seats in 0_usize..10_000, shares in prop::collection::vec(0_usize..1000, 0..20)) {
            let sum: usize = shares.iter().sum();
            for (part, shares) in divide(seats, &shares).into_iter().zip(&shares) {
                // The least number that is not below the exact part.
                prop_assert!(part * sum >= seats * shares);
                prop_assert!(part == 0 || (part - 1) * sum < seats * shares);
            }
        }
    }
}
