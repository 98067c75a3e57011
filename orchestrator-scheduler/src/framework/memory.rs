//! What was found out about nodes for one pod, kept for the next pod like it.
//!
//! Of pods of one template, each decision would look at all nodes only to find what the last one found, except about the
//! one node that got the last pod. So the answers of [`Lasting`] plugins are kept, looked up anew for the nodes that have
//! changed, and the best node stands at the root of a [`Tournament`]. Where a plugin has something to say that follows from
//! other nodes, the nodes that are left are compared one by one. The verdict is the one of looking at every node.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use orchestrator_core::scheduler::{
    ClusterChange, NodeState, PodInfo, Rejection, Scheduler, Snapshot, Unschedulable, Verdict, Version,
};

use super::{
    Filter, Filters, Lasting, Prepared, Profile, Scaling, Score, Standing, StandingFilter, StandingScore, scaled,
    tournament::Tournament,
};
use crate::limits::{REMEMBERED_ANSWERS, REMEMBERED_KINDS, REMEMBERED_REASONS};

/// A [`Profile`] that remembers. Its verdicts are the profile's own.
pub struct Remembering {
    profile: Arc<Profile>,
    /// What is remembered, of the pods that came last.
    kinds: Mutex<VecDeque<Kind>>,
}

impl fmt::Debug for Remembering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remembering").field(&self.profile).finish()
    }
}

/// What is known about all nodes.
enum Answer {
    /// This one is the best.
    Best(String),
    /// All are refused.
    Refused(BTreeMap<String, Rejection>),
}

impl Scheduler for Remembering {
    fn schedule(&self, pod: &PodInfo, cluster: &Snapshot, tie: u64) -> Verdict {
        // The node that a pod was promised is looked at alone.
        let special = self.profile.is_gated(pod) || pod.nominated_node_name().is_some() || cluster.is_empty();
        let answer = if special { None } else { self.answer(pod, cluster, tie) };
        match answer {
            Some(Answer::Best(node)) => Verdict::Node(node),
            Some(Answer::Refused(per_node)) => {
                let (mut filters, _) = Filters::prepare(&self.profile.filters, pod, cluster);
                let why = Unschedulable { per_node, ..Unschedulable::new(cluster.len()) };
                self.profile.unschedulable(pod, cluster, why, &mut filters, tie)
            }
            None => self.profile.schedule(pod, cluster, tie),
        }
    }

    fn may_help(&self, change: &ClusterChange<'_>, pod: &PodInfo, why: &Unschedulable) -> bool {
        self.profile.may_help(change, pod, why)
    }
}

impl Remembering {
    /// Decides as a profile does.
    pub fn new(profile: Arc<Profile>) -> Self {
        Self { profile, kinds: Mutex::default() }
    }

    /// `None` if nothing is known: some plugin's answers cannot be kept, or it lets the pod onto some nodes only.
    fn answer(&self, pod: &PodInfo, cluster: &Snapshot, tie: u64) -> Option<Answer> {
        let plugins = Plugins::of(&self.profile, pod, cluster)?;
        let facts = plugins.facts(pod, cluster);
        let promised = self.refused_for_promises(pod, cluster)?;
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kinds.iter().position(|kind| kind.is_of(&plugins, pod, &facts));
        let mut kind =
            known.and_then(|at| kinds.remove(at)).unwrap_or_else(|| Kind::new(pod, facts, &plugins, cluster));
        if !kind.update(&self.profile, pod, cluster) {
            return None;
        }
        let answer = match kind.best(&promised, tie) {
            Some(best) => Some(Answer::Best(best.to_owned())),
            // With the promised pods, nodes may be refused for more reasons.
            None if promised.is_empty() => kind.refusals().map(Answer::Refused),
            None => None,
        };
        kinds.push_front(kind);
        kinds.truncate((REMEMBERED_ANSWERS / cluster.len().max(1)).clamp(1, REMEMBERED_KINDS));
        answer
    }

    /// The nodes that are refused once the pods are there that they were promised to, as far as these go before the pod.
    /// `None` if all nodes are refused.
    fn refused_for_promises<'c>(&self, pod: &PodInfo, cluster: &'c Snapshot) -> Option<Vec<&'c str>> {
        let goes_before = |other: &Arc<PodInfo>| other.priority() >= pod.priority() && other.key() != pod.key();
        let promised = cluster.promises().filter(|(_, pods)| pods.values().any(goes_before));
        let promised: Vec<_> = promised.filter_map(|(name, _)| Some((name, cluster.node(name)?))).collect();
        if promised.is_empty() {
            return Some(Vec::new());
        }
        let (mut filters, None) = Filters::prepare(&self.profile.filters, pod, cluster) else { return None };
        let refused = promised.into_iter().filter(|(_, node)| filters.refusal(node).is_some());
        Some(refused.map(|(name, _)| name).collect())
    }
}

/// All plugins of a profile that look at nodes.
struct Plugins<'a> {
    filters: Vec<&'a dyn Lasting>,
    scores: Vec<(i64, &'a dyn Lasting)>,
}

impl<'a> Plugins<'a> {
    /// `None` if the answers of one cannot be kept.
    fn of(profile: &'a Profile, pod: &PodInfo, cluster: &Snapshot) -> Option<Self> {
        let filters = profile.filters.iter().map(|plugin| plugin.lasting(pod, cluster));
        let scores = profile.scores.iter();
        let scores = scores.map(|(weight, plugin)| Some((*weight, plugin.lasting(pod, cluster)?)));
        Some(Self { filters: filters.collect::<Option<_>>()?, scores: scores.collect::<Option<_>>()? })
    }

    fn all(&self) -> impl Iterator<Item = &'a dyn Lasting> {
        self.filters.iter().copied().chain(self.scores.iter().map(|(_, plugin)| *plugin))
    }

    fn facts(&self, pod: &PodInfo, cluster: &Snapshot) -> Vec<Vec<i64>> {
        self.all().map(|plugin| plugin.facts(pod, cluster)).collect()
    }
}

/// The answers of all nodes to pods of one kind.
struct Kind {
    example: PodInfo,
    facts: Vec<Vec<i64>>,
    /// The state of the cluster that the answers are about.
    seen: Option<Version>,
    /// The nodes, ordered by name. Everything else goes by their places in this list.
    names: Vec<Box<str>>,
    /// The sum of all scores that need no scaling; for nodes that are refused, why, as a place in `rejections`.
    fixed: Vec<Result<i64, usize>>,
    /// Each once.
    rejections: Vec<Rejection>,
    columns: Vec<Column>,
    totals: Tournament,
    /// By the places of their plugins in the profile.
    standing_filters: Vec<(usize, Box<dyn StandingFilter>)>,
    standing_scores: Vec<(usize, i64, Box<dyn StandingScore>)>,
}

/// A score that is scaled.
struct Column {
    weight: i64,
    reverse: bool,
    /// Unscaled, of each node.
    scores: Vec<i64>,
    /// How many nodes, of those that are not refused, have each score.
    counts: BTreeMap<i64, usize>,
}

impl Column {
    fn largest(&self) -> i64 {
        self.counts.last_key_value().map_or(0, |(score, _)| *score)
    }

    fn scaled(&self, at: usize) -> i64 {
        self.weight * scaled(self.scores[at], self.largest(), self.reverse)
    }

    fn count(&mut self, at: usize, come: bool) {
        let score = self.scores[at];
        let count = self.counts.entry(score).or_default();
        *count = if come { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.counts.remove(&score);
        }
    }
}

/// The plugins, prepared for a pod.
struct Prepare<'a> {
    filters: Vec<Box<dyn Filter + 'a>>,
    fixed: Vec<(i64, Box<dyn Score + 'a>)>,
    /// Weight, whether fewer is better, and the score.
    scaled: Vec<(i64, bool, Box<dyn Score + 'a>)>,
}

impl<'a> Prepare<'a> {
    /// Without those that something standing takes the place of.
    fn new(profile: &'a Profile, pod: &'a PodInfo, cluster: &'a Snapshot, kind: &Kind) -> Option<Self> {
        let mut prepared = Self { filters: Vec::new(), fixed: Vec::new(), scaled: Vec::new() };
        let stands = |at: usize| kind.standing_filters.iter().any(|(place, _)| *place == at);
        for (_, plugin) in profile.filters.iter().enumerate().filter(|(at, _)| !stands(*at)) {
            match plugin.pre_filter(pod, cluster) {
                Prepared::Skip => {}
                Prepared::Filter { only: None, filter } => prepared.filters.push(filter),
                Prepared::Filter { only: Some(_), .. } | Prepared::Refuse(_) => return None,
            }
        }
        let stands = |at: usize| kind.standing_scores.iter().any(|(place, ..)| *place == at);
        for (_, (weight, plugin)) in profile.scores.iter().enumerate().filter(|(at, _)| !stands(*at)) {
            let Some(score) = plugin.pre_score(pod, cluster, &[]) else { continue };
            match score.scaling() {
                Scaling::None => prepared.fixed.push((*weight, score)),
                Scaling::ToLargest { reverse } => prepared.scaled.push((*weight, reverse, score)),
                Scaling::Own => return None,
            }
        }
        Some(prepared)
    }

    fn fixed(&self, node: &NodeState) -> Result<i64, Rejection> {
        match self.filters.iter().find_map(|filter| filter.filter(node)) {
            Some(rejection) => Err(rejection),
            None => Ok(self.fixed.iter().map(|(weight, score)| weight * score.score(node)).sum()),
        }
    }
}

impl Kind {
    fn new(pod: &PodInfo, facts: Vec<Vec<i64>>, plugins: &Plugins<'_>, cluster: &Snapshot) -> Self {
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
            names: Vec::new(),
            fixed: Vec::new(),
            rejections: Vec::new(),
            columns: Vec::new(),
            totals: Tournament::default(),
        }
    }

    /// Whether these are the answers for a pod.
    fn is_of(&self, plugins: &Plugins<'_>, pod: &PodInfo, facts: &[Vec<i64>]) -> bool {
        self.facts == facts && plugins.all().all(|plugin| plugin.alike(&self.example, pod))
    }

    /// Asks the nodes that have changed. `false` if these plugins cannot be asked node by node.
    fn update(&mut self, profile: &Profile, pod: &PodInfo, cluster: &Snapshot) -> bool {
        let seen = self.seen.take().filter(|_| self.rejections.len() <= REMEMBERED_REASONS);
        let changed = seen.as_ref().and_then(|seen| cluster.changed_since(seen));
        let Some(changed) = changed.map(BTreeSet::from_iter) else { return self.rebuild(profile, pod, cluster) };
        if !changed.is_empty() {
            let Some(prepared) = Prepare::new(profile, pod, cluster, self) else { return false };
            let before: Vec<_> = self.columns.iter().map(Column::largest).collect();
            for name in changed {
                let at = self.names.binary_search_by(|known| known.as_ref().cmp(name));
                if let (Ok(at), Some(node)) = (at, cluster.node(name)) {
                    self.ask(at, node, &prepared);
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

    fn rebuild(&mut self, profile: &Profile, pod: &PodInfo, cluster: &Snapshot) -> bool {
        if !self.names.is_empty() {
            // What stands knows nodes by their places, which are others now.
            let Some(plugins) = Plugins::of(profile, pod, cluster) else { return false };
            *self = Self::new(pod, std::mem::take(&mut self.facts), &plugins, cluster);
        }
        let Some(prepared) = Prepare::new(profile, pod, cluster, self) else { return false };
        self.names = cluster.nodes().map(|node| node.name().into()).collect();
        self.fixed = vec![Ok(0); self.names.len()];
        let column = |(weight, reverse, _): &(i64, bool, _)| Column {
            weight: *weight,
            reverse: *reverse,
            scores: vec![0; self.names.len()],
            counts: BTreeMap::new(),
        };
        self.columns = prepared.scaled.iter().map(column).collect();
        for (at, node) in cluster.nodes().enumerate() {
            self.note(at, node, &prepared);
            self.learn(at, node, cluster);
        }
        self.settle(cluster);
        self.add_up();
        self.seen = Some(cluster.version());
        true
    }

    fn ask(&mut self, at: usize, node: &NodeState, prepared: &Prepare<'_>) {
        if self.fixed[at].is_ok() {
            self.columns.iter_mut().for_each(|column| column.count(at, false));
        }
        self.note(at, node, prepared);
        self.totals.set(at, self.total(at));
    }

    fn note(&mut self, at: usize, node: &NodeState, prepared: &Prepare<'_>) {
        self.fixed[at] = prepared.fixed(node).map_err(|rejection| self.place_of(rejection));
        if self.fixed[at].is_err() {
            return;
        }
        for (column, (.., score)) in self.columns.iter_mut().zip(&prepared.scaled) {
            column.scores[at] = score.score(node);
            column.count(at, true);
        }
    }

    fn place_of(&mut self, rejection: Rejection) -> usize {
        self.rejections.iter().take(REMEMBERED_REASONS).position(|known| *known == rejection).unwrap_or_else(|| {
            self.rejections.push(rejection);
            self.rejections.len() - 1
        })
    }

    /// Why the nodes are refused, if all are, and for what they are themselves.
    fn refusals(&self) -> Option<BTreeMap<String, Rejection>> {
        let refused = self.names.iter().zip(&self.fixed);
        let refused = refused.map(|(name, fixed)| {
            let place = fixed.as_ref().err()?;
            Some((name.to_string(), self.rejections[*place].clone()))
        });
        if self.is_idle() { refused.collect() } else { None }
    }

    /// Whether single nodes are all that counts.
    fn is_idle(&self) -> bool {
        self.standing_filters.iter().all(|(_, filter)| filter.is_idle())
            && self.standing_scores.iter().all(|(.., score)| score.is_idle())
    }

    fn total(&self, at: usize) -> Option<i64> {
        let scaled = self.columns.iter().map(|column| column.scaled(at));
        Some(self.fixed[at].ok()? + scaled.sum::<i64>())
    }

    fn add_up(&mut self) {
        let totals: Vec<_> = (0..self.names.len()).map(|at| self.total(at)).collect();
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
    fn best(&self, refused: &[&str], tie: u64) -> Option<&str> {
        let alone = refused.is_empty() && self.is_idle();
        let best = if alone { self.totals.best(tie) } else { self.best_of_each(refused, tie) };
        best.map(|at| self.names[at].as_ref())
    }

    /// The best of the nodes that no standing filter refuses, compared one by one.
    fn best_of_each(&self, refused: &[&str], tie: u64) -> Option<usize> {
        let place = |name: &&str| self.names.binary_search_by(|known| known.as_ref().cmp(name)).ok();
        let refused: BTreeSet<usize> = refused.iter().filter_map(place).collect();
        let filters: Vec<_> = self.standing_filters.iter().map(|(_, filter)| filter).filter(|f| !f.is_idle()).collect();
        let right = |at: &usize| {
            self.fixed[*at].is_ok() && !refused.contains(at) && !filters.iter().any(|filter| filter.refuses(*at))
        };
        let nodes: Vec<usize> = (0..self.names.len()).filter(right).collect();
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
