//! The disruption budgets of a cluster, read once.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use orchestrator_core::{object::ObjectKey, scheduler::PodInfo, selector::LabelSelector};

type Written = BTreeMap<ObjectKey, Arc<PodDisruptionBudget>>;

/// The disruption budgets of a cluster.
#[derive(Debug, Default)]
pub(super) struct Budgets {
    written: Written,
    read: Vec<Budget>,
}

#[derive(Debug)]
struct Budget {
    written: Arc<PodDisruptionBudget>,
    selector: LabelSelector,
}

/// What has changed about budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    Nothing,
    /// How many of the pods may go that they select.
    Amounts,
    /// Which pods they select.
    Selection,
}

impl Budgets {
    /// Reads all budgets.
    pub(super) fn new(written: &Written) -> Self {
        let read = written.values().filter_map(|budget| {
            let selector = LabelSelector::from_meta(budget.spec.as_ref()?.selector.as_ref()?).ok()?;
            (!selector.is_empty()).then(|| Budget { written: budget.clone(), selector })
        });
        Self { read: read.collect(), written: written.clone() }
    }

    /// Reads those that have changed.
    pub(super) fn update(&mut self, written: &Written) -> Changed {
        let pairs = || self.written.values().zip(written.values());
        let alike = self.written.len() == written.len() && self.written.keys().eq(written.keys());
        if alike && pairs().all(|(old, new)| Arc::ptr_eq(old, new)) {
            return Changed::Nothing;
        }
        let same_selection = alike && pairs().all(|(old, new)| old.spec == new.spec);
        *self = Self::new(written);
        if same_selection { Changed::Amounts } else { Changed::Selection }
    }

    /// Whether any selects one of these pods.
    pub(super) fn select_any(&self, pods: &[Arc<PodInfo>]) -> bool {
        self.read.iter().any(|budget| pods.iter().any(|pod| budget.selects(pod)))
    }

    /// For each of these pods, whether removing it (after those before it) breaks a budget.
    pub(super) fn violating(&self, pods: &[Arc<PodInfo>]) -> Vec<bool> {
        let mut violating = vec![false; pods.len()];
        for budget in &self.read {
            let status = budget.written.status.as_ref();
            let mut allowed = status.and_then(|status| status.disruptions_allowed).unwrap_or(0);
            let disrupted = status.and_then(|status| status.disrupted_pods.as_ref());
            for (pod, violates) in pods.iter().zip(&mut violating) {
                let counted = || !disrupted.is_some_and(|disrupted| disrupted.contains_key(&pod.key().name));
                if budget.selects(pod) && counted() {
                    allowed = allowed.saturating_sub(1);
                    *violates |= allowed < 0;
                }
            }
        }
        violating
    }
}

impl Budget {
    fn selects(&self, pod: &PodInfo) -> bool {
        self.written.metadata.namespace.as_deref() == Some(&pod.key().namespace)
            && !pod.labels().is_empty()
            && self.selector.matches(pod.labels())
    }
}
