//! The answers of all nodes to pods of one kind: of one template and priority.

use std::collections::BTreeSet;

use orchestrator_core::scheduler::{NodeState, PodInfo, Refusals, Snapshot, Unschedulable, Verdict, Version};

use super::{
    column::Column,
    prepare::{Plugins, Prepare},
};
use crate::framework::{
    Filters, Profile, Standing, StandingFilter, StandingPostFilter, StandingScore, scaled, tournament::Tournament,
};

/// The answers of all nodes to pods of one kind.
pub(super) struct Kind {
    example: PodInfo,
    facts: Vec<Vec<i64>>,
    /// The state of the cluster that the answers are about.
    seen: Option<Version>,
    /// Why nodes are refused. Everything else goes by the nodes' places in it.
    refusals: Refusals,
    /// The sum of all scores that need no scaling; `None` for nodes that are refused.
    fixed: Vec<Option<i64>>,
    columns: Vec<Column>,
    totals: Tournament,
    /// The nodes whose answers are those to one pod only, because it is itself promised the node.
    own: BTreeSet<usize>,
    /// By the places of their plugins in the profile.
    pub(super) standing_filters: Vec<(usize, Box<dyn StandingFilter>)>,
    pub(super) standing_scores: Vec<(usize, i64, Box<dyn StandingScore>)>,
    /// Of each post-filter of the profile, once all nodes were refused.
    standing_post_filters: Option<Vec<Option<Box<dyn StandingPostFilter>>>>,
}

impl Kind {
    pub(super) fn new(pod: &PodInfo, facts: Vec<Vec<i64>>, plugins: &Plugins<'_>, cluster: &Snapshot) -> Self {
        let filters = plugins.filters.iter().enumerate();
        let scores = plugins.scores.iter().enumerate();
        Self {
            standing_filters: filters
                .filter_map(|(at, plugin)| Some((at, plugin.standing_filter(pod, cluster)?)))
                .collect(),
            standing_scores: scores
                .filter_map(|(at, (weight, plugin))| Some((at, *weight, plugin.standing_score(pod, cluster)?)))
                .collect(),
            example: pod.clone(),
            facts,
            seen: None,
            refusals: Refusals::default(),
            fixed: Vec::new(),
            columns: Vec::new(),
            totals: Tournament::default(),
            own: BTreeSet::new(),
            standing_post_filters: None,
        }
    }

    /// Whether these are the answers for a pod.
    pub(super) fn is_of(&self, plugins: &Plugins<'_>, pod: &PodInfo, facts: &[Vec<i64>]) -> bool {
        // The priority says which promises count, and who may be removed.
        self.facts == facts
            && self.example.priority() == pod.priority()
            && plugins.all().all(|plugin| plugin.alike(&self.example, pod))
    }

    /// Asks the nodes that have changed. `false` if these plugins cannot be asked node by node.
    pub(super) fn update(&mut self, profile: &Profile, pod: &PodInfo, cluster: &Snapshot) -> bool {
        let seen = self.seen.take();
        let Some(changed) = seen.as_ref().and_then(|seen| cluster.changed_since(seen)) else {
            return self.rebuild(profile, pod, cluster);
        };
        let mut changed: BTreeSet<usize> = changed.filter_map(|name| self.refusals.place(name)).collect();
        changed.append(&mut self.own);
        self.own = self.own_promise(pod, cluster);
        changed.extend(&self.own);
        if !changed.is_empty() {
            let Some(mut prepared) = Prepare::new(profile, pod, cluster, self) else { return false };
            let before: Vec<_> = self.columns.iter().map(Column::largest).collect();
            for at in changed {
                if let Some(node) = self.refusals.name(at).and_then(|name| cluster.node(name)) {
                    self.ask(at, node, &mut prepared);
                    self.learn(at, node, cluster);
                }
            }
            self.settle(cluster);
            if self.columns.iter().map(Column::largest).ne(before) {
                self.add_up();
            }
        }
        self.seen = Some(cluster.version());
        true
    }

    fn own_promise(&self, pod: &PodInfo, cluster: &Snapshot) -> BTreeSet<usize> {
        cluster.promised_to(pod.key()).and_then(|node| self.refusals.place(node)).into_iter().collect()
    }

    fn rebuild(&mut self, profile: &Profile, pod: &PodInfo, cluster: &Snapshot) -> bool {
        if !self.fixed.is_empty() {
            // What stands knows nodes by their places, which are others now.
            let Some(plugins) = Plugins::of(profile, pod, cluster) else { return false };
            *self = Self::new(pod, std::mem::take(&mut self.facts), &plugins, cluster);
        }
        let Some(mut prepared) = Prepare::new(profile, pod, cluster, self) else { return false };
        self.refusals = Refusals::of_nodes(cluster.nodes().map(|node| node.name()));
        self.own = self.own_promise(pod, cluster);
        self.fixed = vec![None; cluster.len()];
        let column = |(weight, reverse, _): &(i64, bool, _)| Column::new(*weight, *reverse, cluster.len());
        self.columns = prepared.scaled.iter().map(column).collect();
        for (at, node) in cluster.nodes().enumerate() {
            self.note(at, node, &mut prepared);
            self.learn(at, node, cluster);
        }
        self.settle(cluster);
        self.add_up();
        self.seen = Some(cluster.version());
        true
    }

    fn ask(&mut self, at: usize, node: &NodeState, prepared: &mut Prepare<'_>) {
        if self.fixed[at].is_some() {
            self.columns.iter_mut().for_each(|column| column.count(at, false));
        }
        self.note(at, node, prepared);
        self.totals.set(at, self.total(at));
        for standing in self.standing_post_filters.iter_mut().flatten().flatten() {
            standing.learn(at, self.refusals.at(at));
        }
    }

    fn note(&mut self, at: usize, node: &NodeState, prepared: &mut Prepare<'_>) {
        match prepared.fixed(node) {
            Ok(fixed) => {
                self.fixed[at] = Some(fixed);
                self.refusals.set(at, None);
            }
            Err(rejection) => {
                self.fixed[at] = None;
                self.refusals.set(at, Some(rejection));
                return;
            }
        }
        for (column, (.., score)) in self.columns.iter_mut().zip(&prepared.scaled) {
            column.scores[at] = score.score(node);
            column.count(at, true);
        }
    }

    /// The verdict on a pod that all nodes refuse, if [`Self::is_alone`]. `None` if its plugins are to be asked anew.
    pub(super) fn refuse(&mut self, profile: &Profile, pod: &PodInfo, cluster: &Snapshot, tie: u64) -> Option<Verdict> {
        let mut filters = Prepare::filters(profile, pod, cluster, self)?;
        let why = Unschedulable { per_node: self.refusals.clone(), ..Unschedulable::new(cluster.len()) };
        let standing = self
            .standing_post_filters
            .get_or_insert_with(|| profile.post_filters.iter().map(|plugin| plugin.standing(cluster, &why)).collect());
        let verdict = profile.unschedulable(why, |at, plugin, why| match standing.get_mut(at) {
            Some(Some(standing)) => Ok(standing.post_filter(pod, cluster, why, &mut filters, tie)),
            _ => {
                let (mut filters, _) = Filters::prepare(&profile.filters, pod, cluster);
                Ok(plugin.post_filter(pod, cluster, why, &mut filters, tie))
            }
        });
        verdict.ok()
    }

    /// Whether nodes are refused for what they are themselves, with the pods they were promised to and without some that
    /// are on them.
    pub(super) fn is_alone(&self, pod: &PodInfo, cluster: &Snapshot) -> bool {
        // What stands does not know of promised pods.
        let unknown = cluster.any_promise() && (cluster.any_promised_affinity() || !pod.affinity().is_empty());
        self.standing_filters.iter().all(|(_, filter)| !unknown && filter.is_idle())
    }

    /// Whether single nodes are all that counts.
    fn is_idle(&self) -> bool {
        self.standing_filters.iter().all(|(_, filter)| filter.is_idle())
            && self.standing_scores.iter().all(|(.., score)| score.is_idle())
    }

    fn total(&self, at: usize) -> Option<i64> {
        let scaled = self.columns.iter().map(|column| column.scaled(at));
        Some(self.fixed[at]? + scaled.sum::<i64>())
    }

    fn add_up(&mut self) {
        let totals: Vec<_> = (0..self.fixed.len()).map(|at| self.total(at)).collect();
        self.totals = Tournament::new(totals.into_iter());
    }

    fn standing(&mut self) -> impl Iterator<Item = &mut dyn Standing> {
        let filters = self.standing_filters.iter_mut().map(|(_, filter)| filter.as_mut() as &mut dyn Standing);
        filters.chain(self.standing_scores.iter_mut().map(|(.., score)| score.as_mut() as &mut dyn Standing))
    }

    fn learn(&mut self, at: usize, node: &NodeState, cluster: &Snapshot) {
        self.standing().for_each(|standing| standing.learn(at, node, cluster));
    }

    fn settle(&mut self, cluster: &Snapshot) {
        self.standing().for_each(|standing| standing.settle(cluster));
    }

    /// The best node besides those that are refused for other reasons; any of the best by `tie`.
    pub(super) fn best(&self, refused: &[&str], tie: u64) -> Option<&str> {
        let alone = refused.is_empty() && self.is_idle();
        let best = if alone { self.totals.best(tie) } else { self.best_of_each(refused, tie) };
        best.and_then(|at| self.refusals.name(at))
    }

    /// The best of the nodes that no standing filter refuses, compared one by one.
    fn best_of_each(&self, refused: &[&str], tie: u64) -> Option<usize> {
        let refused: BTreeSet<usize> = refused.iter().filter_map(|name| self.refusals.place(name)).collect();
        let filters: Vec<_> = self.standing_filters.iter().map(|(_, filter)| filter).filter(|f| !f.is_idle()).collect();
        let right = |at: &usize| {
            self.fixed[*at].is_some() && !refused.contains(at) && !filters.iter().any(|filter| filter.refuses(*at))
        };
        let nodes: Vec<usize> = (0..self.fixed.len()).filter(right).collect();
        if nodes.len() < 2 {
            return nodes.first().copied();
        }
        let mut totals: Vec<i64> = nodes.iter().map(|at| self.fixed[*at].unwrap_or(0)).collect();
        for column in &self.columns {
            let largest = nodes.iter().map(|at| column.scores[*at]).max().unwrap_or(0);
            for (total, at) in totals.iter_mut().zip(&nodes) {
                *total += column.weight * scaled(column.scores[*at], largest, column.reverse);
            }
        }
        for (_, weight, standing) in self.standing_scores.iter().filter(|(.., score)| !score.is_idle()) {
            for (total, score) in totals.iter_mut().zip(standing.score(&nodes).into_iter().flatten()) {
                *total += weight * score;
            }
        }
        let best = totals.iter().max()?;
        let best: Vec<_> = nodes.iter().zip(&totals).filter(|(_, total)| *total == best).map(|(at, _)| *at).collect();
        best.get((tie % best.len() as u64) as usize).copied()
    }
}
