//! The pods that wait for a node: to be tried now, after a while, or when something happens that may help.
//!
//! A pure state machine: it is told the time (since the environment's fixed point) and has no clock.

mod refused;

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use orchestrator_core::{
    object::ObjectKey,
    scheduler::{PodInfo, Unschedulable},
};

use self::refused::Refused;
use crate::{
    framework::QueueSort,
    limits::{BACKOFF_LONGEST, BACKOFF_START, UNSCHEDULABLE_LONGEST},
};

/// The pods that wait for a node.
pub struct Queue {
    sort: Arc<dyn QueueSort>,
    pods: BTreeMap<ObjectKey, Entry>,
    active: BTreeSet<Waiting>,
    /// When to look at pods again that wait for time, and which.
    timers: BTreeSet<(Duration, ObjectKey)>,
    refused: Refused,
    /// The pods that are gated.
    gated: BTreeSet<ObjectKey>,
    backoff: (Duration, Duration),
}

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    state: State,
    attempts: u32,
    /// The end of the last attempt.
    tried: Duration,
}

#[derive(Debug)]
enum State {
    /// To be tried now.
    Active(Duration),
    /// To be tried at this time.
    BackingOff(Duration),
    /// To be tried when something happens that may help, at the latest at this time; and its group.
    Refused(Duration, u64),
    /// Not to be tried while it is as it is.
    Gated,
    /// Being tried.
    InFlight,
}

#[derive(Clone)]
struct Waiting {
    pod: Arc<PodInfo>,
    since: Duration,
    sort: Arc<dyn QueueSort>,
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = self.sort.order((&self.pod, self.since), (&other.pod, other.since));
        order.then_with(|| self.pod.key().cmp(other.pod.key()))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("pods", &self.pods.len())
            .field("active", &self.active.len())
            .field("refused", &self.refused.len())
            .finish_non_exhaustive()
    }
}

impl Queue {
    /// An empty queue with an order.
    pub fn new(sort: Arc<dyn QueueSort>) -> Self {
        Self {
            sort,
            pods: BTreeMap::new(),
            active: BTreeSet::new(),
            timers: BTreeSet::new(),
            refused: Refused::default(),
            gated: BTreeSet::new(),
            backoff: (BACKOFF_START, BACKOFF_LONGEST),
        }
    }

    /// After a failed attempt a pod waits for the first time, and twice as long after each further one, up to the second.
    #[must_use]
    pub fn with_backoff(mut self, start: Duration, longest: Duration) -> Self {
        self.backoff = (start, longest);
        self
    }

    /// A pod waits, or is no longer as it was. A pod of another UID under the same name is another pod.
    pub fn put(&mut self, pod: Arc<PodInfo>, gated: bool, now: Duration) {
        let key = pod.key().clone();
        let known = self.pods.get(&key).is_some_and(|entry| entry.pod.uid() == pod.uid());
        if !known {
            self.remove(&key);
            self.pods.insert(key.clone(), Entry { pod, state: State::Gated, attempts: 0, tried: now });
            self.gated.insert(key.clone());
            if !gated {
                self.change(&key, State::Active(now));
            }
            return;
        }
        let Some(entry) = self.pods.get_mut(&key) else { return };
        let old = std::mem::replace(&mut entry.pod, pod.clone());
        match entry.state {
            State::Gated if !gated => self.change(&key, State::Active(now)),
            State::Active(since) => {
                let sort = self.sort.clone();
                self.active.remove(&Waiting { pod: old, since, sort: sort.clone() });
                self.active.insert(Waiting { pod, since, sort });
            }
            State::Refused(until, group) => {
                let still_alike = old.spec == pod.spec && old.metadata.labels == pod.metadata.labels;
                entry.state = State::Refused(until, self.refused.change(group, pod, still_alike));
            }
            _ => {}
        }
    }

    /// A pod waits no longer.
    pub fn remove(&mut self, key: &ObjectKey) {
        self.change(key, State::Gated);
        self.gated.remove(key);
        self.pods.remove(key);
    }

    /// The next pod to try. It stays known until one of [`Self::remove`], [`Self::refuse`] and [`Self::retry`].
    pub fn pop(&mut self, now: Duration) -> Option<Arc<PodInfo>> {
        self.pass_time(now);
        let next = self.active.first()?.pod.clone();
        self.change(next.key(), State::InFlight);
        Some(next)
    }

    /// The pod that was tried has no node. It waits for something that may help, which is the same for pods that are alike.
    pub fn refuse(
        &mut self,
        key: &ObjectKey,
        why: Arc<Unschedulable>,
        now: Duration,
        alike: impl Fn(&PodInfo, &PodInfo) -> bool,
    ) {
        self.tried(key, now);
        self.change(key, State::InFlight);
        if let Some(pod) = self.get(key).cloned() {
            let group = self.refused.join(pod, why, alike);
            self.change(key, State::Refused(now + UNSCHEDULABLE_LONGEST, group));
        }
    }

    /// The pod that was tried is to be tried again after a while.
    pub fn retry(&mut self, key: &ObjectKey, now: Duration) {
        self.tried(key, now);
        if let Some(until) = self.pods.get(key).map(|entry| entry.backoff_end(self.backoff)) {
            self.change(key, State::BackingOff(until));
        }
    }

    /// The pod that was tried is gated.
    pub fn gate(&mut self, key: &ObjectKey) {
        self.change(key, State::Gated);
    }

    /// Something happened in a namespace: its gated pods that are so no longer are tried.
    pub fn open_gates(&mut self, namespace: &str, now: Duration, gated: impl Fn(&PodInfo) -> bool) {
        let first = ObjectKey::new(namespace, "");
        let of_namespace = self.gated.range(first..).take_while(|key| key.namespace == namespace);
        let is_open = |key: &&ObjectKey| self.pods.get(key).is_some_and(|entry| !gated(&entry.pod));
        let open: Vec<_> = of_namespace.filter(is_open).cloned().collect();
        open.iter().for_each(|key| self.change(key, State::Active(now)));
    }

    /// Something happened: the refused pods for which it may help are tried again, those that were just tried after a
    /// while. Gives how many.
    pub fn wake(&mut self, now: Duration, may_help: impl Fn(&PodInfo, &Unschedulable) -> bool) -> usize {
        let helped = self.refused.helped(may_help);
        helped.iter().for_each(|key| self.awake(key, now));
        helped.len()
    }

    /// As [`Self::wake`], for one pod alone.
    pub fn wake_one(&mut self, key: &ObjectKey, now: Duration, may_help: impl Fn(&PodInfo, &Unschedulable) -> bool) {
        let Some(Entry { pod, state: State::Refused(_, group), .. }) = self.pods.get(key) else { return };
        if self.refused.is_helped(*group, pod, may_help) {
            self.awake(key, now);
        }
    }

    fn awake(&mut self, key: &ObjectKey, now: Duration) {
        let until = self.pods.get(key).map_or(now, |entry| entry.backoff_end(self.backoff));
        self.change(key, if until <= now { State::Active(now) } else { State::BackingOff(until) });
    }

    /// When the queue has to be looked at again, if nothing happens before.
    pub fn next_time(&self, now: Duration) -> Option<Duration> {
        if self.active.is_empty() { self.timers.first().map(|(time, _)| *time) } else { Some(now) }
    }

    /// How many pods wait or are being tried.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether no pod waits or is being tried.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// A pod that waits or is being tried.
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<PodInfo>> {
        self.pods.get(key).map(|entry| &entry.pod)
    }

    fn tried(&mut self, key: &ObjectKey, now: Duration) {
        if let Some(entry) = self.pods.get_mut(key) {
            entry.attempts = entry.attempts.saturating_add(1);
            entry.tried = now;
        }
    }

    fn pass_time(&mut self, now: Duration) {
        while let Some((time, key)) = self.timers.first().cloned() {
            if time > now {
                break;
            }
            self.change(&key, State::Active(time));
        }
    }

    /// Moves a pod from its state to another, with all that hangs on states.
    fn change(&mut self, key: &ObjectKey, state: State) {
        let Some(entry) = self.pods.get_mut(key) else { return };
        let waiting = |since: Duration, entry: &Entry, sort: &Arc<dyn QueueSort>| Waiting {
            pod: entry.pod.clone(),
            since,
            sort: sort.clone(),
        };
        match &entry.state {
            State::Active(since) => drop(self.active.remove(&waiting(*since, entry, &self.sort))),
            State::BackingOff(time) => drop(self.timers.remove(&(*time, key.clone()))),
            State::Refused(time, group) => {
                self.timers.remove(&(*time, key.clone()));
                self.refused.leave(*group, key);
            }
            State::Gated => drop(self.gated.remove(key)),
            State::InFlight => {}
        }
        match &state {
            State::Active(since) => drop(self.active.insert(waiting(*since, entry, &self.sort))),
            State::BackingOff(time) | State::Refused(time, _) => drop(self.timers.insert((*time, key.clone()))),
            State::Gated => drop(self.gated.insert(key.clone())),
            State::InFlight => {}
        }
        entry.state = state;
    }
}

impl Entry {
    /// When the pod may be tried again after its last attempt.
    fn backoff_end(&self, (start, longest): (Duration, Duration)) -> Duration {
        let doublings = self.attempts.saturating_sub(1).min(16);
        self.tried + start.saturating_mul(1 << doublings).min(longest)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Pod, PodSpec};
    use proptest::prelude::*;

    use super::*;
    use crate::plugins::PrioritySort;

    fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.to_owned());
        pod.spec = Some(PodSpec { priority: Some(priority), ..PodSpec::default() });
        Arc::new(pod.into())
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn why() -> Arc<Unschedulable> {
        Arc::new(Unschedulable::new(1))
    }

    #[test]
    fn the_important_come_first_then_those_who_wait_longest() {
        let mut queue = Queue::new(Arc::new(PrioritySort));
        queue.put(pod("b", 0), false, seconds(1));
        queue.put(pod("a", 0), false, seconds(2));
        queue.put(pod("c", 9), false, seconds(3));
        queue.put(pod("d", 99), true, seconds(3));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(seconds(3))).map(|pod| pod.key().name.clone()).collect();
        assert_eq!(order, ["c", "b", "a"]);
        queue.put(pod("d", 99), false, seconds(4));
        assert_eq!(queue.pop(seconds(4)).unwrap().key().name, "d");
    }

    #[test]
    fn waits_double_up_to_ten_seconds() {
        let mut queue = Queue::new(Arc::new(PrioritySort));
        queue.put(pod("a", 0), false, seconds(0));
        let mut now = seconds(0);
        for wait in [1, 2, 4, 8, 10, 10] {
            let key = queue.pop(now).unwrap().key().clone();
            queue.retry(&key, now);
            assert_eq!(queue.next_time(now), Some(now + seconds(wait)));
            assert!(queue.pop(now + seconds(wait) - Duration::from_millis(1)).is_none());
            now += seconds(wait);
        }
    }

    #[test]
    fn the_refused_wait_for_help_or_five_minutes() {
        let mut queue = Queue::new(Arc::new(PrioritySort));
        queue.put(pod("a", 0), false, seconds(0));
        let key = queue.pop(seconds(0)).unwrap().key().clone();
        queue.refuse(&key, why(), seconds(0), |_, _| true);
        assert_eq!(queue.wake(seconds(60), |_, _| false), 0);
        assert!(queue.pop(seconds(299)).is_none());
        assert!(queue.pop(seconds(300)).is_some());
        queue.refuse(&key, why(), seconds(300), |_, _| true);
        assert_eq!(queue.wake(seconds(300), |_, _| true), 1);
        assert!(queue.pop(seconds(301)).is_none());
        assert!(queue.pop(seconds(302)).is_some());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8, i32, bool),
        Remove(u8),
        Pop,
        Refuse,
        Retry,
        Wake(bool),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..6_u8, 0..3, any::<bool>()).prop_map(|(name, priority, gated)| Step::Put(name, priority, gated)),
            (0..6_u8).prop_map(Step::Remove),
            Just(Step::Pop),
            Just(Step::Refuse),
            Just(Step::Retry),
            any::<bool>().prop_map(Step::Wake),
            (0..20_u64).prop_map(Step::Pass),
        ]
    }

    proptest! {
        #[test]
        fn pods_that_are_alike_wake_as_if_each_were_asked(steps in prop::collection::vec(step(), 0..80)) {
            let [mut grouped, mut single] = [(); 2].map(|()| Queue::new(Arc::new(PrioritySort)));
            let mut in_flight: Vec<ObjectKey> = Vec::new();
            let mut now = seconds(0);
            for step in steps {
                match step {
                    Step::Put(name, priority, gated) => {
                        for queue in [&mut grouped, &mut single] {
                            queue.put(pod(&name.to_string(), priority), gated, now);
                        }
                    }
                    Step::Remove(name) => {
                        let key = ObjectKey::new("", name.to_string());
                        [&mut grouped, &mut single].into_iter().for_each(|queue| queue.remove(&key));
                        in_flight.retain(|other| *other != key);
                    }
                    Step::Pop => {
                        let [a, b] = [&mut grouped, &mut single].map(|queue| queue.pop(now).map(|pod| pod.key().clone()));
                        prop_assert_eq!(&a, &b);
                        in_flight.extend(a);
                    }
                    Step::Refuse => if let Some(key) = in_flight.pop() {
                        grouped.refuse(&key, why(), now, |a, b| a.priority() == b.priority());
                        single.refuse(&key, why(), now, |_, _| false);
                    },
                    Step::Retry => if let Some(key) = in_flight.pop() {
                        [&mut grouped, &mut single].into_iter().for_each(|queue| queue.retry(&key, now));
                    },
                    Step::Wake(helps) => {
                        let may_help = |pod: &PodInfo, _: &Unschedulable| (pod.priority() == 0) == helps;
                        let [a, b] = [&mut grouped, &mut single].map(|queue| queue.wake(now, may_help));
                        prop_assert_eq!(a, b);
                    }
                    Step::Pass(time) => now += seconds(time),
                }
                prop_assert_eq!(grouped.next_time(now), single.next_time(now));
                prop_assert_eq!(grouped.refused.len(), single.refused.len());
            }
        }

        #[test]
        fn no_pod_is_lost_and_none_starves(steps in prop::collection::vec(step(), 0..80)) {
            let mut queue = Queue::new(Arc::new(PrioritySort));
            let mut known: BTreeMap<String, bool> = BTreeMap::new();
            let mut in_flight: Vec<ObjectKey> = Vec::new();
            let mut now = seconds(0);
            for step in steps {
                match step {
                    Step::Put(name, priority, gated) => {
                        queue.put(pod(&name.to_string(), priority), gated, now);
                        // A gate cannot be put on again; only the first state counts.
                        known.entry(name.to_string()).and_modify(|was| *was &= gated).or_insert(gated);
                    }
                    Step::Remove(name) => {
                        let key = ObjectKey::new("", name.to_string());
                        queue.remove(&key);
                        known.remove(&key.name);
                        in_flight.retain(|other| *other != key);
                    }
                    Step::Pop => in_flight.extend(queue.pop(now).map(|pod| pod.key().clone())),
                    Step::Refuse => in_flight.pop().into_iter().for_each(|key| queue.refuse(&key, why(), now, |_, _| true)),
                    Step::Retry => in_flight.pop().into_iter().for_each(|key| queue.retry(&key, now)),
                    Step::Wake(helps) => drop(queue.wake(now, |_, _| helps)),
                    Step::Pass(time) => now += seconds(time),
                }
                prop_assert_eq!(queue.len(), known.len());
            }
            for key in in_flight {
                queue.retry(&key, now);
            }
            now += UNSCHEDULABLE_LONGEST;
            let tried: BTreeSet<_> = std::iter::from_fn(|| queue.pop(now)).map(|pod| pod.key().name.clone()).collect();
            let expected: BTreeSet<_> = known.into_iter().filter(|(_, gated)| !gated).map(|(name, _)| name).collect();
            prop_assert_eq!(tried, expected);
        }
    }
}
