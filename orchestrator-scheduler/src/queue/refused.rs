//! The refused pods, in groups of those that wait for the same.

use std::{collections::BTreeMap, sync::Arc};

use orchestrator_core::{
    object::ObjectKey,
    scheduler::{PodInfo, Unschedulable},
};

use crate::limits::COMPARED_GROUPS;

/// The refused pods. Of each group, one is asked about, and all wait on or none.
#[derive(Debug, Default)]
pub(super) struct Refused {
    groups: BTreeMap<u64, Group>,
    /// The number of the next group.
    next: u64,
    pods: usize,
}

#[derive(Debug)]
struct Group {
    why: Arc<Unschedulable>,
    /// Who refused.
    plugins: Vec<&'static str>,
    pods: BTreeMap<ObjectKey, Arc<PodInfo>>,
}

impl Refused {
    /// Adds a pod to the group of those that are alike, and gives the group.
    pub(super) fn join(
        &mut self,
        pod: Arc<PodInfo>,
        why: Arc<Unschedulable>,
        alike: impl Fn(&PodInfo, &PodInfo) -> bool,
    ) -> u64 {
        let plugins = why.plugins();
        let is_of = |group: &Group| {
            group.plugins == plugins && group.pods.first_key_value().is_some_and(|(_, known)| alike(known, &pod))
        };
        let mut newest = self.groups.iter().rev().take(COMPARED_GROUPS);
        let number = newest.find(|(_, group)| is_of(group)).map(|(number, _)| *number).unwrap_or_else(|| {
            self.next += 1;
            self.groups.insert(self.next, Group { why, plugins, pods: BTreeMap::new() });
            self.next
        });
        if let Some(group) = self.groups.get_mut(&number)
            && group.pods.insert(pod.key().clone(), pod).is_none()
        {
            self.pods += 1;
        }
        number
    }

    /// Takes a pod out of its group.
    pub(super) fn leave(&mut self, number: u64, key: &ObjectKey) {
        let Some(group) = self.groups.get_mut(&number) else { return };
        self.pods -= usize::from(group.pods.remove(key).is_some());
        if group.pods.is_empty() {
            self.groups.remove(&number);
        }
    }

    /// A pod is not as it was. If it is not like those of its group any more, it gets a group of its own.
    pub(super) fn change(&mut self, number: u64, pod: Arc<PodInfo>, still_alike: bool) -> u64 {
        let Some(group) = self.groups.get_mut(&number) else { return number };
        if still_alike {
            group.pods.insert(pod.key().clone(), pod);
            return number;
        }
        let why = group.why.clone();
        self.leave(number, pod.key());
        self.join(pod, why, |_, _| false)
    }

    /// The pods of the groups for which something may help.
    pub(super) fn helped(&self, may_help: impl Fn(&PodInfo, &Unschedulable) -> bool) -> Vec<ObjectKey> {
        let helped = self.groups.values().filter(|group| {
            let first = group.pods.first_key_value();
            first.is_some_and(|(_, pod)| may_help(pod, &group.why))
        });
        helped.flat_map(|group| group.pods.keys().cloned()).collect()
    }

    /// Whether something may help one pod.
    pub(super) fn is_helped(
        &self,
        number: u64,
        pod: &PodInfo,
        may_help: impl Fn(&PodInfo, &Unschedulable) -> bool,
    ) -> bool {
        self.groups.get(&number).is_some_and(|group| may_help(pod, &group.why))
    }

    /// How many pods there are.
    pub(super) fn len(&self) -> usize {
        self.pods
    }
}
