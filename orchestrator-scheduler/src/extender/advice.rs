//! What a decision makes of the answers of extenders. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use orchestrator_core::scheduler::{NodeState, PodInfo, Preemption, Refusals, Rejection, Snapshot};

use super::{Answer, Answers, Counter, EXTENDER, Extender, MAX_EXTENDER_PRIORITY, Offer, Question};
use crate::framework::MAX_SCORE;

/// The extenders that want to be asked about a pod, and what they have said so far.
pub(crate) struct Advice<'a> {
    /// With their places in the profile.
    extenders: Vec<(usize, &'a dyn Extender)>,
    answers: &'a Answers,
}

/// Why a decision does not go on.
#[derive(Debug)]
pub(crate) enum Stop {
    /// An extender has to be asked.
    Ask(Question),
    /// One has failed without which there is no decision; in words.
    Failed(String),
}

impl<'a> Advice<'a> {
    pub(crate) fn new(extenders: &'a [Arc<dyn Extender>], pod: &PodInfo, answers: &'a Answers) -> Self {
        let extenders = extenders.iter().map(AsRef::as_ref).enumerate();
        Self { extenders: extenders.filter(|(_, extender)| extender.is_interested(pod)).collect(), answers }
    }

    fn answer(&self, question: Question) -> Result<&'a Answer, Stop> {
        self.answers.get(&question).ok_or(Stop::Ask(question))
    }

    /// Leaves those nodes that all extenders find right, one after another; the others are refused.
    pub(crate) fn filter<'n>(
        &self,
        mut nodes: Vec<&'n NodeState>,
        refused: &mut Refusals,
    ) -> Result<Vec<&'n NodeState>, Stop> {
        for (at, extender) in self.extenders.iter().filter(|(_, extender)| extender.duties().filters) {
            if nodes.is_empty() {
                break;
            }
            let names: Vec<String> = nodes.iter().map(|node| node.name().to_owned()).collect();
            let said = match self.answer(Question::Filter(*at, names))? {
                Answer::Filtered(said) => said,
                _ if extender.is_ignorable() => continue,
                answer => return Err(Stop::Failed(failure(answer))),
            };
            let right: BTreeSet<&str> = said.right.iter().map(String::as_str).collect();
            let asked = |name: &&&str| nodes.iter().any(|node| node.name() == **name);
            if let Some(unknown) = right.iter().find(|name| !asked(name)) {
                let name = extender.name();
                return Err(Stop::Failed(format!(
                    "extender {name:?} claims a filtered node {unknown:?} which is not found in the input node list"
                )));
            }
            nodes.retain(|node| {
                let is_right = right.contains(node.name());
                if !is_right {
                    refused.insert(node.name(), rejection(node.name(), said));
                }
                is_right
            });
        }
        Ok(nodes)
    }

    /// What extenders add to the scores of nodes. Those that fail have no say.
    pub(crate) fn scores(&self, nodes: &[&NodeState]) -> Result<BTreeMap<&'a str, i64>, Stop> {
        let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
        for (at, extender) in &self.extenders {
            let Some(weight) = extender.duties().prioritizes else { continue };
            let names = nodes.iter().map(|node| node.name().to_owned()).collect();
            let Answer::Scores(scores) = self.answer(Question::Prioritize(*at, names))? else { continue };
            for (node, score) in scores {
                let weighted = score.saturating_mul(weight).saturating_mul(MAX_SCORE / MAX_EXTENDER_PRIORITY);
                let sum = sums.entry(node).or_default();
                *sum = sum.saturating_add(weighted);
            }
        }
        Ok(sums)
    }

    /// Whether any extender looks at the room that could be made.
    pub(crate) fn preempts(&self) -> bool {
        self.extenders.iter().any(|(_, extender)| extender.duties().preempts)
    }

    /// The room that all extenders would have made.
    pub(crate) fn preempt(&self, mut offers: Vec<Offer>, cluster: &Snapshot) -> Result<Vec<Offer>, Stop> {
        for (at, extender) in self.extenders.iter().filter(|(_, extender)| extender.duties().preempts) {
            if offers.is_empty() {
                break;
            }
            let said = match self.answer(Question::Preempt(*at, offers.clone()))? {
                Answer::Counters(said) => said.iter().map(|counter| offer(*extender, counter, cluster)).collect(),
                answer => Err(failure(answer)),
            };
            let left: Result<Vec<Offer>, String> = said;
            let no_victims = |offer: &&Offer| offer.preemption.victims.is_empty();
            match left {
                Err(_) if extender.is_ignorable() => {}
                Err(error) => return Err(Stop::Failed(error)),
                Ok(mut left) if extender.is_ignorable() => {
                    left.retain(|offer| !no_victims(&offer));
                    offers = left;
                }
                Ok(left) => {
                    if let Some(empty) = left.iter().find(no_victims) {
                        let node = &empty.preemption.node;
                        return Err(Stop::Failed(format!("expected at least one victim pod on node {node:?}")));
                    }
                    offers = left;
                }
            }
        }
        Ok(offers)
    }
}

fn failure(answer: &Answer) -> String {
    match answer {
        Answer::Failed(error) => error.to_string(),
        _ => "an extender gave the answer to another question".to_owned(),
    }
}

fn rejection(node: &str, said: &super::Filtered) -> Rejection {
    if let Some(message) = said.failed_and_unresolvable.get(node) {
        return Rejection::unresolvable(EXTENDER, message);
    }
    match said.failed.get(node) {
        Some(message) => Rejection::new(EXTENDER, message),
        // It says nothing of why, so nothing is known to help.
        None => Rejection { plugin: EXTENDER, unresolvable: true, ..Rejection::default() },
    }
}

/// What an extender would have made, with the pods that it names.
fn offer(extender: &dyn Extender, counter: &Counter, cluster: &Snapshot) -> Result<Offer, String> {
    let node = &counter.node;
    let Some(state) = cluster.node(node) else { return Err(format!("nodeinfo not found for node name {node:?}")) };
    let victims = counter.victims.iter().map(|uid| {
        let pod = state.pods().iter().find(|pod| pod.uid() == uid);
        pod.cloned().ok_or_else(|| {
            let name = extender.name();
            format!(
                "extender: {name} claims to preempt pod (UID: {uid}) on node: {node}, but the pod is not found on that node"
            )
        })
    });
    let victims = victims.collect::<Result<_, _>>()?;
    Ok(Offer { preemption: Preemption { node: node.clone(), victims }, violations: counter.violations })
}
