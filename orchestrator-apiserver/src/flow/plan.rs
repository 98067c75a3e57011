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
    demand::Observed,
    matching::{Asked, Place, matches},
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
    rooms: BTreeMap<String, Arc<Room>>,
    /// What each level may have, those without a limit included, and its room.
    bounds: Vec<(Bounds, Option<Arc<Room>>)>,
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
    /// `None` for levels without a limit.
    room: Option<Arc<Room>>,
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
        let (mut rooms, mut bounds) = (BTreeMap::new(), Vec::new());
        for (level, nominal) in levels.iter().zip(divide(seats, &shares)) {
            let limited = limited(level);
            let room = level.metadata.name.as_ref().zip(limited).map(|(name, limited)| {
                let shape = shape(limited, nominal);
                let room = before.rooms.get(name).cloned().unwrap_or_else(|| Arc::new(Room::new(env, shape)));
                room.reshape(shape);
                rooms.insert(name.clone(), room.clone());
                room
            });
            let borrowing = limited.and_then(|limited| limited.borrowing_limit_percent);
            bounds.push((Bounds::new(nominal, lendable(level), borrowing, seats), room));
        }
        let mut schemas: Vec<&Arc<FlowSchema>> = schemas.iter().collect();
        schemas.sort_by_key(|schema| (precedence(schema), &schema.metadata.name));
        let schemas =
            schemas.into_iter().filter_map(|schema| flow(schema, levels, &rooms, before)).map(Arc::new).collect();
        Self { schemas, rooms, bounds }
    }

    /// Lets levels lend each other what they did not need since this was last done. What goes to levels without a limit is
    /// not counted, so that they lend all that they may.
    pub(super) fn adjust(&self) {
        let idle = Observed { most: 0.0, smoothed: 0.0 };
        let observed = |room: &Option<Arc<Room>>| room.as_ref().map_or(idle, |room| room.observe());
        let levels: Vec<_> = self.bounds.iter().map(|(bounds, room)| (*bounds, observed(room))).collect();
        for ((_, room), seats) in self.bounds.iter().zip(borrowing::divide(&levels)) {
            if let Some(room) = room {
                room.seat_so_many(seats);
            }
        }
    }

    /// Whether anybody runs or waits.
    pub(super) fn is_busy(&self) -> bool {
        self.rooms.values().any(|room| room.is_busy())
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

    pub(super) fn room(&self) -> Option<&Arc<Room>> {
        self.room.as_ref()
    }

    /// A number for the flow that a request belongs to.
    pub(super) fn hash_of(&self, asked: &Asked<'_>) -> u64 {
        let distinguisher = match (self.distinguisher, asked.place) {
            (Distinguisher::User, _) => asked.user.name.as_str(),
            (Distinguisher::Namespace, Place::Resource { namespace, .. }) => namespace,
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
    rooms: &BTreeMap<String, Arc<Room>>,
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
        room: rooms.get(&spec.priority_level_configuration.name).cloned(),
    })
}

fn precedence(schema: &FlowSchema) -> i32 {
    schema.spec.as_ref().and_then(|spec| spec.matching_precedence).unwrap_or(USUAL_PRECEDENCE)
}

fn limited(level: &PriorityLevelConfiguration) -> Option<&LimitedPriorityLevelConfiguration> {
    level.spec.as_ref().filter(|spec| spec.type_ == "Limited").and_then(|spec| spec.limited.as_ref())
}

/// The part of its seats, in percent, that a level may lend.
fn lendable(level: &PriorityLevelConfiguration) -> Option<i32> {
    match limited(level) {
        Some(limited) => limited.lendable_percent,
        None => level.spec.as_ref()?.exempt.as_ref()?.lendable_percent,
    }
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
