//! Priority and fairness: how many requests are answered at once, and whose.
//!
//! A request belongs to the first flow schema that is about it (`matching`), and with that to a priority level (`plan`).
//! Levels share the seats of [`Config::requests_in_flight`](crate::Config::requests_in_flight) by
//! `nominalConcurrencyShares`; within a level flows wait in queues and take turns (`queues`, a pure state machine; `room` is its
//! edge). `defaults` are the objects that every cluster has, and `follow` keeps up with changes and says what it finds (`dangling`).
//!
//! What a level does not need others borrow (`borrowing`): every so often seats are divided anew by what was asked for (`demand`).
//!
//! Levels without a limit are counted (`crowd`), because of their own share they lend only what they do not use.
//!
//! Compared with upstream: each request takes one seat, whatever it costs, until its answer begins.

mod borrowing;
mod crowd;
mod dangling;
mod defaults;
mod demand;
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
use tokio::sync::Notify;

pub(crate) use crowd::Guest;
pub(crate) use defaults::mandatory_object;
pub(crate) use follow::follow;
pub(crate) use matching::{Asked, Place};
pub(crate) use plan::Flow;
pub(crate) use room::Seat;

use crate::{
    limits,
    metrics::{FlowCounts, Refusal},
};
use plan::Plan;

/// Decides who is answered now.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    plan: RwLock<Arc<Plan>>,
    /// Told when somebody asked, so that nothing is adjusted where nobody asks.
    asked: Arc<Notify>,
}

/// What a request gets.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Its level has no limit.
    Exempt(Guest),
    /// It may run for as long as it holds the seat.
    Seated(Seat),
    /// Too many others came before.
    Refused(Refusal),
}

impl Flows {
    /// Decides by these objects from now on, and by the mandatory ones, should they be missing.
    fn load(
        &self,
        env: &Env,
        seats: usize,
        mut levels: Vec<Arc<PriorityLevelConfiguration>>,
        mut schemas: Vec<Arc<FlowSchema>>,
    ) {
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
        let mut plan = self.plan.write().unwrap_or_else(PoisonError::into_inner);
        *plan = Arc::new(Plan::new(env, seats, &levels, &schemas, &plan));
    }

    fn plan(&self) -> Arc<Plan> {
        self.plan.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends when it is time to adjust who has how many seats: a while after somebody asked.
    fn due(&self, env: &Env) -> impl Future<Output = ()> + Send + use<> {
        let (asked, env) = (self.asked.clone(), env.clone());
        async move {
            asked.notified().await;
            env.sleep(limits::ADJUSTMENT_PERIOD).await;
        }
    }

    fn adjust(&self) {
        let plan = self.plan();
        plan.adjust();
        if plan.is_busy() {
            self.asked.notify_one();
        }
    }

    /// Whether anything is known.
    pub(crate) fn is_ready(&self) -> bool {
        !self.plan().is_empty()
    }

    /// Waits for the turn of a request, if it has to. `None` before anything is known.
    pub(crate) async fn turn(&self, asked: &Asked<'_>) -> Option<(Arc<Flow>, Turn)> {
        let flow = self.plan().find(asked)?.clone();
        self.asked.notify_one();
        let turn = match flow.place() {
            plan::Place::Exempt(crowd) => Turn::Exempt(crowd.enter()),
            plan::Place::Limited(room) => {
                let _waits = flow.counts().wait();
                room.seat(flow.hash_of(asked)).await.map_or_else(Turn::Refused, Turn::Seated)
            }
        };
        Some((flow, turn))
    }
}

impl MetricSource for Flows {
    fn write(&self, out: &mut Exposition) {
        let plan = self.plan();
        FlowCounts::write(&plan.counts(), out);
    }
}

fn typed<K: DeserializeOwned>(object: &Value) -> Option<Arc<K>> {
    K::deserialize(object).ok().map(Arc::new)
}
