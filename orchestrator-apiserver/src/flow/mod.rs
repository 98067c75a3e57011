//! Priority and fairness: how many requests are answered at once, and whose.
//!
//! A request belongs to the first flow schema that is about it (`matching`), and with that to a priority level (`plan`).
//! Levels share the seats of [`Config::requests_in_flight`](crate::Config::requests_in_flight) by
//! `nominalConcurrencyShares`; within a level flows wait in queues and take turns (`queues`, a pure state machine; `room` is its
//! edge). `defaults` are the objects that every cluster has, and `follow` keeps up with changes.
//!
//! Compared with upstream: each request takes one seat, whatever it costs, until its answer begins; and levels do not lend
//! each other seats, so `lendablePercent` and `borrowingLimitPercent` change nothing.

mod defaults;
mod follow;
mod hand;
mod matching;
mod plan;
mod queues;
mod room;

use std::sync::{Arc, PoisonError, RwLock};

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use orchestrator_core::{
    env::Env,
    metrics::{Exposition, MetricSource},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(crate) use follow::follow;
pub(crate) use matching::{Asked, Place};
pub(crate) use plan::Flow;
pub(crate) use room::Seat;

use crate::metrics::{FlowCounts, Refusal};
use plan::Plan;

/// Decides who is answered now.
#[derive(Debug, Default)]
pub(crate) struct Flows(RwLock<Arc<Plan>>);

/// What a request gets.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Its level has no limit.
    Exempt,
    /// It may run for as long as it holds the seat.
    Seated(Seat),
    /// Too many others came before.
    Refused(Refusal),
}

impl Flows {
    /// Decides by these objects from now on, and by the mandatory ones, should they be missing.
    fn load(&self, seats: usize, mut levels: Vec<Arc<PriorityLevelConfiguration>>, mut schemas: Vec<Arc<FlowSchema>>) {
        for object in defaults::mandatory() {
            let is_named = |name: &Option<String>| name.as_deref() == Some(defaults::name(&object));
            if object["kind"] == "FlowSchema" {
                if !schemas.iter().any(|schema| is_named(&schema.metadata.name)) {
                    schemas.extend(typed(&object));
                }
            } else if !levels.iter().any(|level| is_named(&level.metadata.name)) {
                levels.extend(typed(&object));
            }
        }
        let mut plan = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *plan = Arc::new(Plan::new(seats, &levels, &schemas, &plan));
    }

    /// Whether anything is known.
    pub(crate) fn is_ready(&self) -> bool {
        !self.0.read().unwrap_or_else(PoisonError::into_inner).counts().is_empty()
    }

    /// Waits for the turn of a request, if it has to. `None` before anything is known.
    pub(crate) async fn turn(&self, env: &Env, asked: &Asked<'_>) -> Option<(Arc<Flow>, Turn)> {
        let plan = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let flow = plan.find(asked)?.clone();
        drop(plan);
        let turn = match flow.room() {
            None => Turn::Exempt,
            Some(room) => {
                let _waits = flow.counts().wait();
                room.seat(env, flow.hash_of(asked)).await.map_or_else(Turn::Refused, Turn::Seated)
            }
        };
        Some((flow, turn))
    }
}

impl MetricSource for Flows {
    fn write(&self, out: &mut Exposition) {
        let plan = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        FlowCounts::write(&plan.counts(), out);
    }
}

fn typed<K: DeserializeOwned>(object: &Value) -> Option<Arc<K>> {
    K::deserialize(object).ok().map(Arc::new)
}
