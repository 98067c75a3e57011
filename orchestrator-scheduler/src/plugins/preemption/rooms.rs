//! What preemption would take on each node, kept for pods of one kind and priority.

use std::collections::BTreeSet;

use orchestrator_core::scheduler::{PodInfo, Preemption, Refusals, Rejection, Snapshot, Unschedulable};

use super::{
    DefaultPreemption,
    budgets::{Budgets, Changed},
    dry_run::DryRun,
    field::{Field, Found, Prospect},
    not_eligible,
};
use crate::{
    extender::Offer,
    framework::{Afterwards, Filters, Plugin, StandingPostFilter},
};

/// What preemption would take on each node. A node is looked at when its turn comes, and again once it has changed.
pub(super) struct Rooms {
    plugin: DefaultPreemption,
    field: Field,
    /// Why no room can be made, of the nodes that were looked at in vain.
    in_vain: Refusals,
    budgets: Budgets,
    /// The nodes where budgets had a say.
    by_budgets: BTreeSet<usize>,
}

impl Rooms {
    /// Nothing is known yet, except why nodes are refused.
    pub(super) fn new(plugin: DefaultPreemption, cluster: &Snapshot, why: &Unschedulable) -> Self {
        let prospects = cluster.nodes().map(|node| prospect(why.of_node(node.name())));
        Self {
            plugin,
            field: Field::new(prospects.collect()),
            in_vain: Refusals::of_nodes(cluster.nodes().map(|node| node.name())),
            budgets: Budgets::new(&cluster.budgets),
            by_budgets: BTreeSet::new(),
        }
    }

    fn follow_budgets(&mut self, cluster: &Snapshot) {
        let nodes = match self.budgets.update(&cluster.budgets) {
            Changed::Nothing => return,
            Changed::Amounts => std::mem::take(&mut self.by_budgets),
            Changed::Selection => (0..cluster.len()).collect(),
        };
        for at in nodes {
            if self.field.get(at) != Prospect::Out {
                self.field.set(at, Prospect::Unknown);
                self.in_vain.set(at, None);
            }
        }
    }

    /// The room that is compared, where the count begins with a node by `tie`.
    pub(super) fn offers(
        &mut self,
        pod: &PodInfo,
        cluster: &Snapshot,
        filters: &mut Filters<'_>,
        tie: u64,
    ) -> Vec<Offer> {
        let (enough, skip) = self.enough(tie);
        let candidates: Vec<usize> = (0..cluster.len()).filter(|at| self.field.get(*at) != Prospect::Out).collect();
        let (before, from) = candidates.split_at(skip.min(candidates.len()));
        let mut offers: Vec<Offer> = Vec::new();
        for at in from.iter().chain(before) {
            if offers.len() >= enough && offers.iter().any(|offer| offer.violations == 0) {
                break;
            }
            offers.extend(self.look(*at, pod, cluster, filters));
        }
        offers
    }

    /// How many nodes are compared on which room can be made, and how many candidates are skipped first.
    fn enough(&self, tie: u64) -> (usize, usize) {
        let candidates = self.field.candidates();
        let enough = (candidates * self.plugin.fewest_percent / 100).max(self.plugin.fewest);
        (enough, if candidates == 0 { 0 } else { (tie % candidates as u64) as usize })
    }

    /// Looks at a node. `None` if no room can be made on it.
    fn look(&mut self, at: usize, pod: &PodInfo, cluster: &Snapshot, filters: &mut Filters<'_>) -> Option<Offer> {
        let Some(node) = self.in_vain.name(at).and_then(|name| cluster.node(name)) else {
            self.field.set(at, Prospect::Out);
            return None;
        };
        match DryRun::new(pod, node, &self.budgets, filters) {
            Ok(dry_run) => {
                if dry_run.by_budgets {
                    self.by_budgets.insert(at);
                }
                self.field.set(at, Prospect::Room(dry_run.cost()));
                let preemption = Preemption { node: node.name().to_owned(), victims: dry_run.victims };
                Some(Offer { preemption, violations: dry_run.violations })
            }
            Err(rejection) => {
                self.field.set(at, Prospect::Hopeless);
                self.in_vain.set(at, Some(rejection));
                None
            }
        }
    }

    fn hopeless(&self, cluster: &Snapshot) -> Afterwards {
        let reason = "Preemption is not helpful for scheduling";
        let others = Some(Rejection::unresolvable(self.plugin.name(), reason));
        let why = Unschedulable { per_node: self.in_vain.clone(), others, ..Unschedulable::new(cluster.len()) };
        Afterwards::Hopeless(format!("preemption: {}", why.message()))
    }
}

/// What a refusal alone says about making room.
fn prospect(refusal: Option<&Rejection>) -> Prospect {
    match refusal {
        Some(rejection) if !rejection.unresolvable => Prospect::Unknown,
        _ => Prospect::Out,
    }
}

impl StandingPostFilter for Rooms {
    fn learn(&mut self, at: usize, refusal: Option<&Rejection>) {
        self.field.set(at, prospect(refusal));
        self.in_vain.set(at, None);
        self.by_budgets.remove(&at);
    }

    fn post_filter(
        &mut self,
        pod: &PodInfo,
        cluster: &Snapshot,
        why: &Unschedulable,
        filters: &mut Filters<'_>,
        tie: u64,
    ) -> Afterwards {
        if let Some(reason) = not_eligible(pod, cluster, why) {
            return Afterwards::Nothing(format!("preemption: {reason}"));
        }
        self.follow_budgets(cluster);
        let (enough, skip) = self.enough(tie);
        loop {
            match self.field.best(skip, enough) {
                Found::Unknown(at) => drop(self.look(at, pod, cluster, filters)),
                // Only what it costs is kept, so that pods which are gone are not.
                Found::Best(Some(at)) => {
                    if let Some(offer) = self.look(at, pod, cluster, filters) {
                        return Afterwards::Preempt(offer.preemption);
                    }
                }
                Found::Best(None) => return self.hopeless(cluster),
            }
        }
    }
}
