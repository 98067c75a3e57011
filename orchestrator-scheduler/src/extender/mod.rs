//! Extenders: programs beside the scheduler that have a say in where pods go.
//!
//! A decision is pure, so nobody is called in the middle of one. A [`Profile`](crate::framework::Profile) with extenders says
//! what it has to know first ([`Question`]), the loop has that answered, and the decision is made again with the [`Answers`]
//! that there are: what extenders say is one more thing that it follows from.
//!
//! <https://kubernetes.io/docs/concepts/extend-kubernetes/#scheduling-extensions>

mod advice;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Node;
use orchestrator_core::{
    env::Env,
    scheduler::{PodInfo, Preemption, Snapshot},
};

pub(crate) use self::advice::{Advice, Stop};

/// The name that stands for extenders among those who refuse nodes.
pub const EXTENDER: &str = "Extender";
/// The best score that an extender gives.
pub const MAX_EXTENDER_PRIORITY: i64 = 10;

/// A program beside the scheduler. What it has no duty to do it is not asked.
#[async_trait]
pub trait Extender: Send + Sync + fmt::Debug {
    /// What it is called in messages; for those over HTTP, what their URLs begin with.
    fn name(&self) -> &str;

    /// What it is asked to do.
    fn duties(&self) -> Duties;

    /// Whether it wants to be asked about a pod.
    fn is_interested(&self, _pod: &PodInfo) -> bool {
        true
    }

    /// Whether scheduling goes on without it when it fails.
    fn is_ignorable(&self) -> bool {
        false
    }

    /// How long an answer may take.
    fn timeout(&self) -> Duration {
        crate::limits::EXTENDER_LONGEST
    }

    /// Which of these nodes are right for a pod.
    async fn filter(&self, _pod: &PodInfo, _nodes: &[Arc<Node>]) -> Result<Filtered, ExtenderError> {
        Err(ExtenderError::new("filter verb is not defined"))
    }

    /// How good these nodes are, from 0 to [`MAX_EXTENDER_PRIORITY`].
    async fn prioritize(&self, _pod: &PodInfo, _nodes: &[Arc<Node>]) -> Result<BTreeMap<String, i64>, ExtenderError> {
        Err(ExtenderError::new("prioritize verb is not defined"))
    }

    /// Which room may be made, and by which pods' going. The answer names pods that are on the nodes by their UIDs.
    async fn preempt(&self, _pod: &PodInfo, _offers: &[Offer]) -> Result<Vec<Counter>, ExtenderError> {
        let name = self.name();
        Err(ExtenderError::new(format!(
            "preempt verb is not defined for extender {name} but run into ProcessPreemption"
        )))
    }

    /// Binds a pod to a node.
    async fn bind(&self, _pod: &PodInfo, _node: &str) -> Result<(), ExtenderError> {
        Err(ExtenderError::new("unexpected empty bindVerb in extender"))
    }
}

/// What an extender is asked to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Duties {
    /// It looks at nodes.
    pub filters: bool,
    /// It compares nodes, and what its scores are multiplied by.
    pub prioritizes: Option<i64>,
    /// It looks at the room that could be made.
    pub preempts: bool,
    /// It binds the pods that it is interested in.
    pub binds: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ExtenderError(String);

impl ExtenderError {
    /// In words, as they are told to users.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// What an extender says about nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filtered {
    /// The nodes that are right.
    pub right: Vec<String>,
    /// Why others are not.
    pub failed: BTreeMap<String, String>,
    /// Why others are not, which removing pods does not change. These count before those in `failed`.
    pub failed_and_unresolvable: BTreeMap<String, String>,
}

/// Room that can be made for a pod.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The node and the pods that would have to go.
    pub preemption: Preemption,
    /// How many disruption budgets that breaks.
    pub violations: usize,
}

/// The room that an extender would rather have made, or has no objections to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// The node.
    pub node: String,
    /// The UIDs of the pods that have to go.
    pub victims: Vec<String>,
    /// How many disruption budgets that breaks.
    pub violations: usize,
}

/// What a decision has to know of an extender, which goes by its place in the profile.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    Filter(usize, Vec<String>),
    Prioritize(usize, Vec<String>),
    Preempt(usize, Vec<Offer>),
}

impl PartialEq for Question {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Filter(a, nodes), Self::Filter(b, others))
            | (Self::Prioritize(a, nodes), Self::Prioritize(b, others)) => (a, nodes) == (b, others),
            // Of one decision: the offers are the same as long as the extender is.
            (Self::Preempt(a, _), Self::Preempt(b, _)) => a == b,
            _ => false,
        }
    }
}

/// What an extender has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Filtered(Filtered),
    Scores(BTreeMap<String, i64>),
    Counters(Vec<Counter>),
    Failed(ExtenderError),
}

/// All that extenders have said about one pod so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers(Vec<(Question, Answer)>);

impl Answers {
    fn get(&self, question: &Question) -> Option<&Answer> {
        self.0.iter().find(|(known, _)| known == question).map(|(_, answer)| answer)
    }

    /// Asks the extender, and remembers what it says.
    pub(crate) async fn ask(
        &mut self,
        question: Question,
        extenders: &[Arc<dyn Extender>],
        pod: &PodInfo,
        cluster: &Snapshot,
        env: &Env,
    ) {
        let (Question::Filter(at, _) | Question::Prioritize(at, _) | Question::Preempt(at, _)) = &question;
        let Some(extender) = extenders.get(*at) else { return };
        let nodes = |names: &[String]| -> Vec<Arc<Node>> {
            names.iter().filter_map(|name| cluster.node(name)).map(|node| node.node().clone()).collect()
        };
        let answer = env.timeout(extender.timeout(), async {
            match &question {
                Question::Filter(_, names) => extender.filter(pod, &nodes(names)).await.map(Answer::Filtered),
                Question::Prioritize(_, names) => extender.prioritize(pod, &nodes(names)).await.map(Answer::Scores),
                Question::Preempt(_, offers) => extender.preempt(pod, offers).await.map(Answer::Counters),
            }
        });
        let answer = answer.await.unwrap_or_else(|_| Err(too_late(extender.as_ref())));
        let answer = answer.unwrap_or_else(|error| {
            tracing::debug!(extender = extender.name(), pod = %pod.key(), %error, "the extender failed");
            Answer::Failed(error)
        });
        self.0.push((question, answer));
    }
}

/// What is said of an extender that did not answer in time.
pub(crate) fn too_late(extender: &dyn Extender) -> ExtenderError {
    let name = extender.name();
    ExtenderError::new(format!(
        "Post {name:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    ))
}
