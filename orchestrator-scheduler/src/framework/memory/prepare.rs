//! The plugins of a profile whose answers are kept, found and prepared for a pod.

use orchestrator_core::scheduler::{NodeState, PodInfo, Rejection, Snapshot};

use super::kind::Kind;
use crate::framework::{Filters, Lasting, Profile, Scaling, Score};

/// All plugins of a profile that look at nodes.
pub(super) struct Plugins<'a> {
    pub(super) filters: Vec<&'a dyn Lasting>,
    pub(super) scores: Vec<(i64, &'a dyn Lasting)>,
}

impl<'a> Plugins<'a> {
    /// `None` if the answers of one cannot be kept.
    pub(super) fn of(profile: &'a Profile, pod: &PodInfo, cluster: &Snapshot) -> Option<Self> {
        let filters = profile.filters.iter().map(|plugin| plugin.lasting(pod, cluster));
        let scores = profile.scores.iter();
        let scores = scores.map(|(weight, plugin)| Some((*weight, plugin.lasting(pod, cluster)?)));
        Some(Self { filters: filters.collect::<Option<_>>()?, scores: scores.collect::<Option<_>>()? })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &'a dyn Lasting> {
        self.filters.iter().copied().chain(self.scores.iter().map(|(_, plugin)| *plugin))
    }

    pub(super) fn facts(&self, pod: &PodInfo, cluster: &Snapshot) -> Vec<Vec<i64>> {
        self.all().map(|plugin| plugin.facts(pod, cluster)).collect()
    }
}

/// The plugins, prepared for a pod.
pub(super) struct Prepare<'a> {
    pub(super) filters: Filters<'a>,
    fixed: Vec<(i64, Box<dyn Score + 'a>)>,
    /// Weight, whether fewer is better, and the score.
    pub(super) scaled: Vec<(i64, bool, Box<dyn Score + 'a>)>,
}

impl<'a> Prepare<'a> {
    /// Without those that something standing takes the place of.
    pub(super) fn new(profile: &'a Profile, pod: &'a PodInfo, cluster: &'a Snapshot, kind: &Kind) -> Option<Self> {
        let filters = Self::filters(profile, pod, cluster, kind)?;
        let mut prepared = Self { filters, fixed: Vec::new(), scaled: Vec::new() };
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

    /// The filters alone; `None` if one refuses all nodes, or knows which ones can be right.
    pub(super) fn filters(
        profile: &'a Profile,
        pod: &'a PodInfo,
        cluster: &'a Snapshot,
        kind: &Kind,
    ) -> Option<Filters<'a>> {
        let stands = |at: usize| kind.standing_filters.iter().any(|(place, _)| *place == at);
        let filters = profile.filters.iter().enumerate().filter(|(at, _)| !stands(*at));
        let (filters, refusal) = Filters::prepare(filters.map(|(_, plugin)| plugin), pod, cluster);
        (refusal.is_none() && filters.only().is_none()).then_some(filters)
    }

    /// The sum of all scores that need no scaling.
    pub(super) fn fixed(&mut self, node: &NodeState) -> Result<i64, Rejection> {
        match self.filters.refusal(node) {
            Some(rejection) => Err(rejection),
            None => Ok(self.fixed.iter().map(|(weight, score)| weight * score.score(node)).sum()),
        }
    }
}
